r"""Expansions `exp(M) x = sum_k c_k p_k` in vectors `p_k` that a recurrence gives, one application of the map for each.

`M = step (L - shift)` is one step of the exponential, and `radius` bounds `||M||_2`. The power series and the Chebyshev
expansions differ in their coefficients and in the recurrence; everything else (sums, gradients, certificates) is
written once, for what this interface says.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likelify.linalg.maps import LinearMap

# Radii are rounded up to powers of it where something is computed once for each of them.
GRID = 1.02
SMALLEST = 1e-6


def on_grid(radius: float) -> float:
    """Round a radius up, so that what is computed once for each radius is computed seldom."""
    power = math.ceil(math.log(max(radius, SMALLEST)) / math.log(GRID))
    # Rounding may have gone below.
    return GRID**power if GRID**power >= radius else GRID ** (power + 1)


@dataclass(frozen=True)
class Expansion(ABC):
    """An expansion of the exponential of one step.

    Attributes:
        radius: a bound of `||M||_2`.
        step: the factor on the map, `time` over the number of steps.
        gain: `e^(step shift)`, a factor on the result.
    """

    radius: float
    step: float = 1.0
    gain: float = 1.0

    @abstractmethod
    def coefficient(self, k: int) -> float:
        """Return `c_k`, the coefficient of the vector `p_k` as `advance` makes it."""

    @abstractmethod
    def advance(self, map_: LinearMap, current: Tensor, previous: Tensor | None, k: int) -> Tensor:
        """Return `p_k` from `p_(k-1)` and `p_(k-2)`."""

    @abstractmethod
    def unit(self, k: int, radius: float) -> float:
        """Return the factor between `p_k` and a polynomial in `M` of norm at most one, if `radius` bounds `||M||`."""

    @abstractmethod
    def tail(self, degree: int) -> float:
        """Bound `sum_{k > degree} |c_k| ||p_k|| / ||p_0||`, the truncation error."""

    @abstractmethod
    def rounded(self) -> "Expansion":
        """Return an expansion that serves in place of this one for `divided`, the same for all similar ones."""

    @abstractmethod
    def divided(self, terms: int) -> np.ndarray:
        r"""Return the coefficients of the derivative, `d exp(M) = sum_jk D_jk q_k(M) dM q_j(M)`.

        The `q_j` are the polynomials of the recurrence, scaled to norm at most one; `(terms, terms)`.
        """


def evaluate(
    expansion: Expansion,
    map_: LinearMap,
    x: Tensor,
    degree: int,
    *,
    done: Callable[[Tensor, int], bool] | None = None,
    keep: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, int]:
    """Sum an expansion up to `degree`, or until `done(p_k, k)`.

    Args:
        expansion: coefficients and recurrence.
        map_: the map; its shift is already taken off.
        x: rows.
        degree: of the last term.
        done: looks at each vector and says whether it is the last one.
        keep: is shown each vector of the recurrence from `p_0` on.

    Returns:
        The sum, and the degree of the last term in it.
    """
    current, previous = x, None
    total, k = None, 0
    if keep is not None:
        keep(x)
    while not (done is not None and k > 0 and done(current, k)) and k < degree:
        k += 1
        current, previous = expansion.advance(map_, current, previous, k), current
        if keep is not None:
            keep(current)
        if total is None:
            total = torch.add(scaled(x, expansion.coefficient(0)), current, alpha=expansion.coefficient(1))
        else:
            total = total.add_(current, alpha=expansion.coefficient(k))
    # The value must never be the input itself, which somebody may change.
    return x * expansion.coefficient(0) if total is None else total, k


def scaled(x: Tensor, factor: float) -> Tensor:
    """Multiply by a number, without work where it is one."""
    return x if factor == 1 else x * factor
