r"""The exponential of a Kronecker sum: the product of the small exponentials along its axes.

With polynomials `P_a` for which `||P_a - exp(F_a)|| <= e_a` and `||exp(F_a)|| <= E_a`,

    || prod_a P_a - prod_a exp(F_a) || <= prod_a (E_a + e_a) - prod_a E_a,

and the eigenvalues of each `P_a exp(-F_a)` are those of one power series (`series_log_det`), each as often as its
matrix is there. Nothing else is left out: the parts commute.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.axis_maps import AxisMap
from likelify.linalg.axis_products import multiply_axes
from likelify.linalg.bounds import power_iteration, rounding_of_sums, safe_exp
from likelify.linalg.expm.axis_step import axis_step
from likelify.linalg.expm.diagnostics import Bounds, Diagnostics, series_log_det, wrong_norm
from likelify.linalg.expm.expansion import ORDERS, SLACK
from likelify.linalg.expm.matrix import Formed
from likelify.linalg.expm.polynomial import PolynomialPlan, evaluate_polynomial, plan_polynomial
from likelify.linalg.expm.problem import ExpProblem, largest_of
from likelify.linalg.expm.series import a_priori_error
from likelify.linalg.kronecker import KroneckerSum
from likelify.linalg.toeplitz import transposed_matrices
from likelify.tracing import in_forward_mode, is_tracing


@dataclass(eq=False)
class _Part:
    """One part: its map, its axis and the size of that, its copies in an event, and a bound of its norm."""

    map: AxisMap
    axis: int
    size: int
    copies: int
    norm: float

    @property
    def growth(self) -> float:
        """Bound of the norm of the symmetric part."""
        return 0.0 if self.map.symmetry == "skew" else self.norm


@dataclass(eq=False)
class _Batch:
    """Parts whose matrices are exponentiated together, and how."""

    parts: list[_Part]
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
    if map_.rows is not None and map_.rows != len(problem.x):
        raise ShapeError(f"This KroneckerSum is made for {map_.rows} rows, got {len(problem.x)}.")
    parts = _bounded(problem, map_)
    batches = _plan(problem, parts)
    return Formed(_applying(problem, batches), _report(problem, batches))


def _applying(problem: ExpProblem, batches: list[_Batch]) -> Callable[[Tensor], Tensor]:
    """Return the exponential as a function of rows, formed already unless its gradient is found in one step."""
    parts = {part.axis: part.map for part, _ in _each(batches)}
    if problem.recorded and list(parts) == [2, 3]:
        found = axis_step(list(parts.values()), [batch.plan for batch in batches], problem.x, problem.time)
        if found is not None:
            step, taps = found
            return lambda x: step(x, *taps)
    transposed: dict[int, Tensor] = {}
    for batch in batches:
        matrices = transposed_matrices([part.map for part in batch.parts], batch.parts[0].size)
        values = evaluate_polynomial(matrices, batch.plan, time=problem.time)
        pieces = values.split([part.map.groups for part in batch.parts], -3) if len(batch.parts) > 1 else [values]
        transposed |= {part.axis: piece for part, piece in zip(batch.parts, pieces, strict=True)}
    return lambda x: multiply_axes(x, transposed)


def _bounded(problem: ExpProblem, map_: KroneckerSum) -> list[_Part]:
    """Find numbers that bound the norms of the parts, by one look at tensors if they are not declared."""
    sized = map_.sized(problem.event_shape)
    span = abs(problem.time)
    declared = {axis: part.declared_norm for axis, (part, _, _) in sized.items()}
    bounds = {axis: norm for axis, norm in declared.items() if norm is not None}
    unknown = [axis for axis in sized if axis not in bounds]
    if unknown:
        with torch.no_grad():
            parts = [(sized[axis][0], sized[axis][2]) for axis in unknown]
            found = [torch.as_tensor(part.norm_bound((part.groups, size))) for part, size in parts]
        if is_tracing():
            # It is refused where the range is checked.
            problem.norm = found[0]
            problem.check_range()
        found = [bound.amax() if bound.numel() else bound.new_zeros(()) for bound in found]
        bounds |= zip(unknown, torch.stack(found).tolist(), strict=True)
    total = span * sum(bounds.values())
    # So that the norm is not found again; a tensor says that it was not known beforehand.
    problem.norm = torch.tensor(total) if unknown and problem.x.device.type != "cpu" else total
    problem.check_range()
    return [_Part(part, axis, size, copies, span * bounds[axis]) for axis, (part, copies, size) in sized.items()]


def _plan(problem: ExpProblem, parts: list[_Part]) -> list[_Batch]:
    """Choose polynomials that meet the tolerance together, the same for all matrices of one size."""
    orders = ORDERS if problem.recorded else 0
    total = sum(part.growth for part in parts)
    together: dict[tuple[int, int | None], list[_Part]] = {}
    for part in parts:
        together.setdefault((part.size, part.map.rows), []).append(part)
    batches = []
    for members in together.values():
        norm, growth = max(part.norm for part in members), max(part.growth for part in members)
        # What the others magnify, and a little for the products of errors.
        least = min(part.growth for part in members)
        allowed = problem.allowed / len(parts) * safe_exp(least - total) / (1 + problem.allowed)
        plan = plan_polynomial(norm, growth, allowed, problem.x.dtype, orders)
        batches.append(_Batch(members, plan))
    return batches


def _error(batches: list[_Batch], *, less: int = 0) -> float:
    """Bound the error of the product, or with `less` that of its derivative, without a difference of large numbers."""
    total, size = 0.0, 1.0
    for batch in batches:
        steps, degree = 2**batch.plan.squarings, batch.plan.degree - less
        for part in batch.parts:
            exact, error = safe_exp(part.growth), a_priori_error(part.norm, part.growth, steps, degree)
            total, size = total * (exact + error) + size * error, size * exact
    return total


def _report(problem: ExpProblem, batches: list[_Batch]) -> Diagnostics:
    error = _error(batches)

    def log_det() -> float | Tensor:
        total: float | Tensor = 0.0
        for part, plan in _each(batches):
            frobenius = abs(problem.time) * part.map.frobenius_bound((part.map.groups, part.size))
            frobenius = frobenius * math.sqrt(part.copies / part.map.groups)
            steps, size = 2**plan.squarings, part.copies * part.size
            total = total + series_log_det(part.norm, frobenius, size, (plan.degree,), steps)
        return total

    bounds = Bounds(
        error=lambda: error,
        log_det=log_det,
        amplification=lambda: _amplification(batches),
        gradient=lambda: problem.span * _error(batches, less=1) if problem.recorded else None,
    )
    return problem.report(
        "closed-form",
        tuple(plan.degree for _, plan in _each(batches)),
        bounds,
        operator_calls=sum(len(batch.parts) for batch in batches),
        converged=error <= problem.allowed,
        problem=_contradiction(problem, [part for part, _ in _each(batches)]),
    )


def _each(batches: list[_Batch]) -> Iterable[tuple[_Part, PolynomialPlan]]:
    return ((part, batch.plan) for batch in batches for part in batch.parts)


def _amplification(batches: list[_Batch]) -> float:
    """Say how much rounding may be magnified: that of each exponential, by all of them."""
    rounding = sum(
        rounding_of_sums(part.size) / 2 * 2**plan.squarings * safe_exp(part.norm / 2**plan.squarings)
        for part, plan in _each(batches)
    )
    return rounding * safe_exp(sum(part.growth for part, _ in _each(batches)))


def _contradiction(problem: ExpProblem, parts: list[_Part]) -> str | None:
    """Say if a declared norm is smaller than what power iteration finds, unless a computed bound proves it."""
    if not problem.may_sync or in_forward_mode():
        return None
    for part in parts:
        if not part.map.doubtful:
            continue
        rows = 8 if part.map.rows is None else part.map.rows
        declared, event = part.map.declared_norm or 0.0, (part.map.groups, part.size)
        if not rows or largest_of(part.map.sharpened().norm_bound(event)) <= declared * SLACK:
            continue
        start = torch.randn(rows, *event, generator=torch.Generator().manual_seed(0)).to(problem.x)
        with torch.no_grad():
            found = float(power_iteration(part.map.apply, part.map.adjoint().apply, start, steps=4))
        if found > SLACK * declared:
            return wrong_norm(found / declared)
    return None
