r"""Whether an inverse can be trusted: what it loses of the digits of its input, looked at after every call.

For a bijection `f`, a latent `z` and `x = f^-1(z)`, two numbers are compared with a tolerance, row by row, where `|v|`
is the largest element of a row in size and `u` a unit (1, or nothing for linear layers):

    residual = |f(x) - z| / (u + |z|),      error = |f^-1(z + dz) - x| / (u + |x|),     |dz_i| = eps |z_i|.

The residual says whether `x` solves the equation. A solver that is stable leaves a small one even where the answer is
useless, because the rounding of `z` alone moves `x` across the room; that is what the error says. It is about the
condition number times machine epsilon, and works for maps that are not linear as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from likelify.errors import ConvergenceError
from likelify.structure import Context, ContextLike, as_context, with_condition
from likelify.support import at_work_in_a_flow
from likelify.tracing import Method, in_forward_mode, is_tracing

# Largest residual and error: two digits that remain of the seven of float32, five of the sixteen of float64.
TOLERANCE = {torch.float32: 1e-2, torch.float64: 1e-5}
# Rows that are looked at where not all of them are.
SAMPLED_ROWS = 2
# The unit of linear layers, which keeps a row of zeros from dividing by zero.
NO_UNIT = 1e-30

REMEDIES = (
    "keep the weights smaller (weight decay, a smaller learning rate, a new start), or take a layer whose inverse is "
    "always well conditioned, such as a rotation or an exponential with a norm limit. layer.checked_inverse(z, "
    "throw=False) returns the values with a report, and lk.transforms.unchecked() switches the check off."
)


@dataclass(frozen=True)
class InverseCheck:
    """What is looked at after the inverse of a layer.

    Attributes:
        residual: of `"every row"`, of `"some rows"`, or `"none"` for layers that see to it themselves. The error is
            always that of some rows.
        unit: what the sizes of rows are added to; 0 for linear layers, whose errors grow with their inputs.
    """

    residual: Literal["every row", "some rows", "none"] = "some rows"
    unit: float = 1.0


@dataclass(frozen=True, eq=False)
class InverseReport:
    """What the check of one inverse found.

    Attributes:
        layer: the layer.
        dtype: in which it worked.
        tolerance: allowed residual and error.
        residual: `(rows,)`; NaN for rows that were not looked at.
        error: `(rows,)`; NaN for rows that were not looked at.
        condition: the largest condition number that was seen, a lower estimate of the true one; None if none was.
        failed: indices of the rows that cannot be trusted.
    """

    layer: nn.Module
    dtype: torch.dtype
    tolerance: float
    residual: Tensor
    error: Tensor
    condition: float | None
    failed: Tensor

    @property
    def trusted(self) -> bool:
        """Whether no row has failed."""
        return not len(self.failed)

    def __str__(self) -> str:
        name, failed = type(self.layer).__name__, len(self.failed)
        looked_at = int((~self.residual.isnan() | ~self.error.isnan()).sum())
        found = [
            f"{what} {float(values[~values.isnan()].max()):.1g}"
            for what, values in (("residual", self.residual), ("error", self.error))
            if not bool(values.isnan().all())
        ]
        if self.condition is not None:
            found.append(f"condition number {self.condition:.1g} or more")
        described = ", ".join(found) or "values that are not finite"
        if self.trusted:
            return f"The inverse of {name} keeps its digits ({described})."
        return (
            f"The inverse of {name} cannot be trusted in {str(self.dtype).removeprefix('torch.')}: {failed} of "
            f"{max(looked_at, failed)} rows that were looked at fail ({described}; {self.tolerance:.0e} is allowed)."
        )

    def advice(self) -> str:
        """Return what to do about it."""
        finer = "" if self.dtype == torch.float64 else "Work in float64 (flow.double(), with inputs in float64); or "
        return f"{finer or 'In float64 there is nothing finer to turn to: '}{REMEDIES}"


@dataclass(frozen=True, eq=False)
class Inversion:
    """The result of `Transform.checked_inverse`.

    Attributes:
        value: `(rows, *in_shape)`.
        contribution: `(items,)`.
        reports: one for each layer that was checked, in the order in which they ran.
    """

    value: Tensor
    contribution: Tensor
    reports: list[InverseReport]

    @property
    def trusted(self) -> bool:
        """Whether no row of any layer has failed."""
        return all(report.trusted for report in self.reports)


@dataclass(eq=False)
class _Finding:
    """What was looked at in one layer, before anything waits for the values.

    Attributes:
        layer: the layer.
        rows: how many there are.
        dtype: in which the layer works.
        unit: see `InverseCheck`.
        sums: of the elements of each row, `(rows,)`, and of all contributions, `()`; finite if all of them are.
        residual: rows, and the residual of each.
        moved: rows, how far each is moved by the rounding of its latent, and its size.
    """

    layer: nn.Module
    rows: int
    dtype: torch.dtype
    unit: float = 1.0
    sums: list[Tensor] = field(default_factory=list)
    residual: tuple[slice, Tensor] | None = None
    moved: tuple[slice, Tensor, Tensor] | None = None

    @property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.dtype, max(1e-2, 32 * torch.finfo(self.dtype).eps))

    def ratios(self) -> list[Tensor]:
        """Return numbers that are at most 1 if all is well."""
        found = [] if self.residual is None else [self.residual[1] / self.tolerance]
        if self.moved is not None:
            found.append(self.moved[1] / (self.tolerance * (self.unit + self.moved[2])))
        return found

    def report(self, lost: Tensor) -> InverseReport:
        """Sort what was found by rows; those that were lost do not count, since they came in with values not finite."""
        like = next(t for t in (*self.sums, *(self.residual or ()), *(self.moved or ())) if isinstance(t, Tensor))
        residual, error = (like.new_full((self.rows,), math.nan) for _ in range(2))
        failed = torch.zeros(self.rows, dtype=torch.bool, device=like.device)
        if self.residual is not None:
            residual[self.residual[0]] = self.residual[1].to(like)
            failed[self.residual[0]] |= ~(self.residual[1] <= self.tolerance)
        if self.moved is not None:
            rows, change, size = self.moved
            error[rows] = (change / (self.unit + size)).to(like)
            failed[rows] |= ~(error[rows] <= self.tolerance)
        for sums in self.sums:
            # A contribution that is not finite is known to be that of some row.
            failed |= ~torch.isfinite(sums) if sums.ndim else ~(torch.isfinite(sums) | failed.any() | lost.any())
        if len(lost) == len(failed):
            failed &= ~lost
        failures = failed.nonzero()[:, 0]
        return InverseReport(self.layer, self.dtype, self.tolerance, residual, error, self._condition(), failures)

    def _condition(self) -> float | None:
        """Return how many times the rounding unit the inverse, or the map after it, has changed a row."""
        changes = [] if self.residual is None else [float(self.residual[1].max())]
        if self.moved is not None:
            _, change, size = self.moved
            changes.append(float((change / size.clamp_min(NO_UNIT)).max()))
        known = [change if math.isfinite(change) else math.inf for change in changes]
        return max(known) / torch.finfo(self.dtype).eps if known else None


@dataclass(eq=False)
class _Session:
    """One call of an inverse from outside, with all inverses that it calls; `given` is its latent."""

    given: Tensor
    every: bool = False
    off: bool = False
    findings: list[_Finding] = field(default_factory=list)

    def is_fine(self) -> bool:
        """Look at all that was found in one go."""
        ratios = [ratio for finding in self.findings for ratio in finding.ratios()]
        sums = [each.reshape(-1) for finding in self.findings for each in finding.sums]
        fine = [torch.cat([ratio.to(ratios[0]) for ratio in ratios]) <= 1] if ratios else []
        fine += [torch.isfinite(torch.cat([each.to(sums[0]) for each in sums]))] if sums else []
        return not fine or bool(torch.cat(fine).all())

    def reports(self) -> list[InverseReport]:
        """Return what was found in each layer."""
        lost = ~torch.isfinite(self.given.flatten(1) if self.given.ndim > 1 else self.given[:, None]).all(1)
        return [finding.report(lost) for finding in self.findings]

    def settle(self, root: nn.Module) -> None:
        """Raise for the first layer that cannot be trusted."""
        if self.is_fine():
            return
        for finding, report in zip(self.findings, self.reports(), strict=True):
            if not report.trusted:
                error = ConvergenceError(f"{report} {report.advice()}", report)
                error.layer = finding.layer
                locate(error, root)
                raise error


_OFF = _Session(torch.empty(0), off=True)
_session: ContextVar[_Session | None] = ContextVar("likelify_inversion", default=None)


@contextmanager
def _within(session: _Session) -> Iterator[_Session]:
    token = _session.set(session)
    try:
        yield session
    finally:
        _session.reset(token)


@contextmanager
def unchecked() -> Iterator[None]:
    """Switch the check of inverses off inside a ``with`` block, for this thread or task alone.

    What comes out of an ill-conditioned inverse then is whatever it is; nothing is said.

    Example:
        >>> import likelify as lk
        >>> with lk.transforms.unchecked():
        ...     x, _ = lk.Conv1x1(3).inverse(torch.ones(1, 3))
    """
    with _within(_OFF):
        yield


def watched(method: Method) -> Method:
    """Let the `inverse` or `mean_inverse` of a layer be looked at (see the module)."""

    @functools.wraps(method)
    def run(self: Any, z: Tensor, context: ContextLike = None) -> Any:
        # Not reached while tracing.
        session = _session.get()
        if session is not None and session.off or in_forward_mode() or not z.is_floating_point() or z.is_meta:
            return method(self, z, context)
        if session is not None:
            return _look(method, self, z, context, session)
        if _records_elsewhere(self, z):
            return method(self, z, context)
        with _within(_Session(z.detach())) as session:
            try:
                result = _look(method, self, z, context, session)
            except Exception:
                # An earlier layer may be to blame for what a later one stumbled over.
                session.settle(self)
                raise
        session.settle(self)
        return result

    return run  # pyright: ignore[reportReturnType]


def inspect(layer: Any, z: Tensor, context: ContextLike, *, throw: bool) -> Inversion:
    """Do what `Transform.checked_inverse` promises."""
    with _within(_Session(z.detach(), every=True)) as session:
        value, contribution = layer.inverse(z, context)
    if throw:
        session.settle(layer)
    return Inversion(value, contribution, session.reports())


def locate(error: ConvergenceError, root: nn.Module) -> None:
    """Say in the error where in `root` the layer is that raised it."""
    if error.layer is None:
        error.layer = root
    error.place = _place(error.layer, root)


def _place(layer: nn.Module, root: nn.Module) -> str:
    if layer is root:
        return ""
    parts = list(root.parts()) if hasattr(root, "parts") else list(root.children())  # pyright: ignore
    for number, part in enumerate(parts, 1):
        if any(module is layer for module in part.modules()):
            inside = _place(layer, part)
            if len(parts) == 1 or not hasattr(root, "parts"):
                return inside
            here = f"layer {number} of {len(parts)} ({type(part).__name__})"
            return f"{here}, in it {inside}" if inside else here
    return ""


def _current(z: Tensor) -> _Session | None:
    """Return the session that looks at this call, if one does."""
    session = None if is_tracing() else _session.get()
    return None if session is None or session.off or not len(z) else session


def look_elementwise(layer: nn.Module, z: Tensor, x: Tensor, log_slope: Tensor) -> None:
    """Look at the inverse of an elementwise map, whose condition is its slope `log |dx/dz|`, in every row."""
    session = _current(z)
    if session is None:
        return
    with torch.no_grad():
        change = _size(log_slope.exp().mul_(z)) * torch.finfo(x.dtype).eps
        found = _Finding(layer, len(z), x.dtype, moved=(slice(None), change, _size(x)))
    session.findings.append(found)


def look_linear(
    layer: nn.Module, z: Tensor, x: Tensor, forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]
) -> None:
    """Look at some rows of the inverse of a linear map that is at hand in both directions."""
    session = _current(z)
    if session is None:
        return
    rows = _rows(len(z), session)
    with torch.no_grad():
        some, solved = z[rows], x[rows]
        found = _Finding(layer, len(z), z.dtype, NO_UNIT)
        found.residual = rows, _size(forward(solved) - some) / (NO_UNIT + _size(some))
        found.moved = rows, _size(inverse(_rounded(some)) - solved), _size(solved)
    session.findings.append(found)


def _look(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session) -> Any:
    check: InverseCheck | None = layer.inverse_check
    if hasattr(layer, "parts") or not len(z):
        return method(layer, z, context)
    if check is None or layer.moves_elements or layer.random_forward or layer.random_inverse:
        result, found = method(layer, z, context), _Finding(layer, len(z), z.dtype)
    else:
        result, found = _compare(method, layer, z, context, check, session)
    with torch.no_grad():
        _sum_up(found, result)
    session.findings.append(found)
    return result


def _compare(
    method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, check: InverseCheck, session: _Session
) -> tuple[Any, _Finding]:
    """Invert a few rows twice, the second time with their latents rounded differently, and map some forward."""
    rows, given = _rows(len(z), session), as_context(context)
    if given.structure is not None:
        # Rows of graphs belong together.
        rows = slice(None)
    with torch.no_grad():
        probe = _rounded(z[rows])
    if given.structure is not None:
        result = method(layer, z, context)
        with torch.no_grad():
            moved = _value(method(layer, probe, context))
    else:
        both = method(layer, torch.cat([z, probe]), _select(context, given, len(z), rows, also=True))
        result = (both[0][: len(z)], both[1][: len(z)]) if isinstance(both, tuple) else both[: len(z)]
        moved = _value(both)[len(z) :]
    x = _value(result)
    found = _Finding(layer, len(z), z.dtype, check.unit or NO_UNIT)
    with torch.no_grad():
        found.moved = rows, _size(moved - x[rows]), _size(x[rows])
        if check.residual != "none" or session.every:
            rows = slice(None) if check.residual == "every row" else rows
            with unchecked():
                back = layer.forward(x[rows], _select(context, given, len(z), rows))[0]
            found.residual = rows, _size(back - z[rows]) / (found.unit + _size(z[rows]))
    return result, found


def _rows(count: int, session: _Session) -> slice:
    """Choose rows that are far from each other."""
    few = count if session.every else min(count, SAMPLED_ROWS)
    return slice(0, count // few * few, count // few)


def _select(context: ContextLike, given: Context, count: int, rows: slice, *, also: bool = False) -> ContextLike:
    """Return the context of some rows, or with `also` of all and once more of those."""
    condition = given.condition
    if condition is None or given.structure is not None or len(condition) != count:
        return context
    return with_condition(context, torch.cat([condition, condition[rows]]) if also else condition[rows])


def _rounded(z: Tensor) -> Tensor:
    """Change each element by what rounding may change, in a pattern that is as good as random and always the same."""
    pattern = torch.arange(z[0].numel(), device=z.device, dtype=torch.float32).mul_(12.9898).sin_()
    return torch.addcmul(z, z, pattern.view(z.shape[1:]).to(z.dtype), value=torch.finfo(z.dtype).eps)


def _sum_up(found: _Finding, result: Any) -> None:
    x = _value(result)
    if x.is_floating_point():
        sums = x.sum(tuple(range(1, x.ndim)), dtype=torch.promote_types(x.dtype, torch.float32)) if x.ndim > 1 else x
        found.sums.append(sums)
    if isinstance(result, tuple):
        contribution = result[1]
        if found.layer.random_forward or found.layer.random_inverse:
            # Noise that is drawn from a bounded set has no density outside of it.
            contribution = contribution.nan_to_num(math.nan, 0.0, 0.0)
        elif at_work_in_a_flow():
            # Rows outside of the support of a bounded layer.
            contribution = contribution.nan_to_num(math.nan, math.inf, 0.0)
        found.sums.append(contribution.sum(dtype=torch.promote_types(contribution.dtype, torch.float32)))


def _value(result: Any) -> Tensor:
    return (result[0] if isinstance(result, tuple) else result).detach()


def _size(values: Tensor) -> Tensor:
    # The norms of torch.linalg take fifty times as long on a CPU.
    return values.abs().amax(tuple(range(1, values.ndim))) if values.ndim > 1 else values.abs()


def _records_elsewhere(layer: nn.Module, z: Tensor) -> bool:
    """Tell whether gradients are recorded on an accelerator, where looking at values would make training wait."""
    if z.device.type == "cpu" or not torch.is_grad_enabled():
        return False
    return z.requires_grad or any(p.requires_grad for p in layer.parameters())
