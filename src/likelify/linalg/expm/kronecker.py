r"""The exponential of a Kronecker sum: the product of the small exponentials along its axes.

With polynomials `P_a` for which `||P_a - exp(F_a)|| <= e_a` and `||exp(F_a)|| <= E_a`,

    || prod_a P_a - prod_a exp(F_a) || <= prod_a (E_a + e_a) - prod_a E_a,

and the eigenvalues of each `P_a exp(-F_a)` are those of one power series (`series_log_det`), each as often as its
matrix is there. Nothing else is left out: the parts commute.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from likelify.errors import ConfigError
from likelify.linalg.axis_products import multiply_axes
from likelify.linalg.bounds import rounding_of_sums, safe_exp
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, series_log_det
from likelify.linalg.expm.expansion import ORDERS
from likelify.linalg.expm.matrix import Formed, PolynomialPlan, evaluate_polynomial, plan_polynomial
from likelify.linalg.expm.problem import ExpProblem, largest_of
from likelify.linalg.expm.series import a_priori_error
from likelify.linalg.kronecker import KroneckerSum
from likelify.tracing import in_forward_mode


@dataclass(frozen=True)
class _Part:
    """What is known of one part: its copies in an event, bounds of its norm and growth, and its polynomial."""

    axis: int
    copies: int
    size: int
    norm: float
    growth: float
    plan: PolynomialPlan


def run_kronecker(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Form the small exponentials and apply them one after the other."""
    formed = form_kronecker(problem)
    return formed.apply(problem.x), formed.report


def form_kronecker(problem: ExpProblem) -> Formed:
    """Form the exponential of each part."""
    map_ = problem.map
    if not isinstance(map_, KroneckerSum):
        raise ConfigError(f"This closed form is for a KroneckerSum, not {type(map_).__name__}.")
    if problem.degree is not None:
        raise ConfigError("A fixed degree= goes with the methods 'series' and 'chebyshev' only; give tol= instead.")
    problem.check_range()
    parts = _plan(problem, map_)
    # Of the transposed parts, which is how products take them.
    transposed = {
        part.axis: evaluate_polynomial(map_.parts[part.axis].adjoint().matrix(part.size), part.plan, time=problem.time)
        for part in parts
    }
    return Formed(lambda x: multiply_axes(x, transposed), _report(problem, map_, parts))


def _plan(problem: ExpProblem, map_: KroneckerSum) -> list[_Part]:
    """Choose the polynomial of each part, so that all together they meet the tolerance."""
    fitted = map_.fitted(problem.event_shape)
    span, orders = abs(problem.time), ORDERS if problem.recorded else 0
    found = []
    for axis, (part, copies, size) in fitted.items():
        norm = span * largest_of(part.norm_bound((part.groups, size)))
        growth = 0.0 if part.symmetry == "skew" else norm
        found.append((axis, copies, size, norm, growth))
    total = sum(growth for *_, growth in found)
    parts = []
    for axis, copies, size, norm, growth in found:
        # What the others magnify, and a little for the products of errors.
        allowed = problem.allowed / len(found) * safe_exp(growth - total) / (1 + problem.allowed)
        plan = plan_polynomial(norm, growth, allowed, problem.x.dtype, orders)
        parts.append(_Part(axis, copies, size, norm, growth, plan))
    return parts


def _error(parts: list[_Part], errors: list[float]) -> float:
    """Bound the error of the product, without the difference of two large numbers."""
    total, size = 0.0, 1.0
    for part, error in zip(parts, errors, strict=True):
        exact = safe_exp(part.growth)
        total, size = total * (exact + error) + size * error, size * exact
    return total


def _report(problem: ExpProblem, map_: KroneckerSum, parts: list[_Part]) -> Diagnostics:
    error = _error(parts, [part.plan.error for part in parts])

    def gradient() -> float | None:
        steps = [2**part.plan.squarings for part in parts]
        errors = [a_priori_error(p.norm, p.growth, s, p.plan.degree - 1) for p, s in zip(parts, steps, strict=True)]
        return problem.span * _error(parts, errors) if problem.recorded else None

    def log_det() -> float | Tensor:
        total: float | Tensor = 0.0
        for part in parts:
            matrix = map_.parts[part.axis]
            frobenius = abs(problem.time) * math.sqrt(part.copies / matrix.groups)
            frobenius = frobenius * matrix.frobenius_bound((matrix.groups, part.size))
            size, steps = part.copies * part.size, 2**part.plan.squarings
            total = total + series_log_det(part.norm, frobenius, size, (part.plan.degree,), steps)
        return total

    bounds = Bounds(
        error=lambda: error, log_det=log_det, amplification=lambda: _amplification(parts), gradient=gradient
    )
    return problem.report(
        "closed-form",
        tuple(part.plan.degree for part in parts),
        bounds,
        operator_calls=len(parts),
        converged=error <= problem.allowed,
        problem=_contradiction(problem, map_),
    )


def _amplification(parts: list[_Part]) -> float:
    """Say how much rounding may be magnified: that of each exponential, by all of them."""
    steps = [2**part.plan.squarings for part in parts]
    rounding = sum(
        rounding_of_sums(part.size) / 2 * count * safe_exp(part.norm / count)
        for part, count in zip(parts, steps, strict=True)
    )
    return rounding * safe_exp(sum(part.growth for part in parts))


def _contradiction(problem: ExpProblem, map_: KroneckerSum) -> str | None:
    """Look at declared norms where they might be wrong: a bound that is computed and is smaller proves them."""
    if isinstance(problem.norm, Tensor) or not problem.may_sync or in_forward_mode():
        return None
    proved = abs(problem.time) * largest_of(map_.sharpened().norm_bound(problem.event_shape))
    return None if proved <= problem.radius * (1 + 1e-6) else problem.contradicts_declaration()
