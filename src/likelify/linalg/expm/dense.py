r"""Exponentials of matrices that are formed: Paterson-Stockmeyer polynomials with scaling and squaring.

`torch.matrix_exp` forms a matrix twice as large for its gradient, which is slow and in float32 loses up to three
digits; here the gradient is that of a few matrix products.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.linalg.bounds import series_degree
from likelify.linalg.expm.expansion import scaled
from likelify.linalg.expm.series import MAX_DEGREE, a_priori_error, local_tolerance

# Steps longer than these lose digits to cancellation (see `series.step_count`).
LONGEST = {torch.float64: 8.0, torch.complex128: 8.0}


@dataclass(frozen=True)
class PolynomialPlan:
    """A polynomial of the matrix over `2^squarings`, squared that many times.

    Attributes:
        degree: of the polynomial.
        block: matrix powers that are formed (Paterson and Stockmeyer 1973).
        squarings: how often the result is squared.
        error: bound of `||P - exp(M)||_2`.
    """

    degree: int
    block: int
    squarings: int
    error: float

    @property
    def products(self) -> int:
        """Matrix products it takes."""
        return _products(self.degree, self.block) + self.squarings


@functools.lru_cache(maxsize=256)
def plan_polynomial(norm: float, growth: float, tol: float, dtype: torch.dtype) -> PolynomialPlan:
    """Find the plan with the fewest products whose a-priori error is at most `tol`.

    Args:
        norm: bound of `||M||_2`.
        growth: bound of the norm of the symmetric part, which bounds `||exp(M)||` by `e^growth`.
        tol: allowed error in the 2-norm.
        dtype: of the matrix.
    """
    least = max(0, math.ceil(math.log2(max(norm, 1e-9) / LONGEST.get(dtype, 3.0))))
    plans = []
    for squarings in range(least, least + 6):
        steps = 2**squarings
        degree = max(1, series_degree(norm / steps, local_tolerance(growth, steps, tol), MAX_DEGREE))
        block = min(range(1, degree + 1), key=lambda block, degree=degree: _products(degree, block))
        # Terms that cost no further product are taken along.
        degree = block * math.ceil(degree / block)
        plans.append(PolynomialPlan(degree, block, squarings, a_priori_error(norm, growth, steps, degree)))
    return min(plans, key=lambda plan: plan.products)


def _products(degree: int, block: int) -> int:
    return block - 1 + math.ceil(degree / block) - 1


def evaluate_polynomial(matrix: Tensor, plan: PolynomialPlan, *, time: float = 1.0, gain: float = 1.0) -> Tensor:
    """Compute the polynomial of a plan, for `gain exp(time matrix)` of matrices `(..., c, c)`; differentiable."""
    matrix = scaled(matrix, time / 2**plan.squarings)
    powers = [matrix]
    while len(powers) < plan.block:
        powers.append(powers[-1] @ matrix)
    eye = torch.eye(matrix.shape[-1]).to(matrix)
    factor = gain ** (1 / 2**plan.squarings)
    # The highest block has one term more, so that the sum ends with the highest power that is at hand.
    start = plan.degree - plan.block
    result = powers[-1] * (factor * _coefficient(plan.degree))
    while start >= 0:
        for i, power in enumerate(powers[:-1], 1):
            result = torch.add(result, power, alpha=factor * _coefficient(start + i))
        result = torch.add(result, eye, alpha=factor * _coefficient(start))
        start -= plan.block
        if start >= 0:
            result = result @ powers[-1]
    for _ in range(plan.squarings):
        result = result @ result
    return result


def _coefficient(k: int) -> float:
    return math.exp(-math.lgamma(k + 1))
