"""Looking at inverses while they run (what is looked at, and why, is in `inversion`).

The outermost inverse that is called takes a few rows along twice, the second time with their latents rounded
differently, and compares them at the end; there some rows are mapped forward through all layers again. So layers made
of layers are looked at together. What is found stays on the device until the end, where the host waits for it once.
Only if something is wrong does it all run again, layer by layer, to find the one that is to blame.

Layers that draw at random in `forward`, and elementwise functions that saturate, cannot be crossed by such comparisons.
A `Chain` has the layers between them looked at as chains of their own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import ConvergenceError, LikelifyError
from likelify.structure import ContextLike, as_context, with_condition
from likelify.support import at_work_in_a_flow
from likelify.tracing import Method, in_forward_mode, is_tracing
from likelify.transforms.inversion import NO_UNIT, SENSITIVE, Finding, InverseCheck, InverseReport, Inversion

# Rows that are looked at where not all of them are.
SAMPLED_ROWS = 2


@dataclass(eq=False)
class _Session:
    """One call of an inverse from outside, with all inverses that it calls.

    Attributes:
        root: the layer that was called.
        given: the latent.
        rows: which of its rows are there twice, the second time behind the others.
        extra: how many these are.
        every: all rows are looked at, and every layer by itself.
        off: nothing is looked at.
        looked: whether a layer was met that has something to look at.
        findings: what was found.
        steep: those of elementwise maps, and how far the rows that are there twice were apart behind them.
    """

    root: nn.Module
    given: Tensor
    rows: slice = field(default_factory=lambda: slice(0, 0))
    extra: int = 0
    every: bool = False
    off: bool = False
    looked: bool = False
    findings: list[Finding] = field(default_factory=list)
    steep: list[tuple[Finding, Tensor]] = field(default_factory=list)

    def carries(self, z: Tensor) -> bool:
        """Tell whether a value inside has the rows of this session."""
        return len(z) == len(self.given) + self.extra

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


_OFF = _Session(nn.Identity(), torch.empty(0), off=True)
_session: ContextVar[_Session | None] = ContextVar("likelify_inversion", default=None)
_inspected: ContextVar[list[InverseReport] | None] = ContextVar("likelify_inspected", default=None)


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
    """Let the `inverse` or `mean_inverse` of a layer be looked at; not to be called while tracing."""

    @functools.wraps(method)
    def run(self: Any, z: Tensor, context: ContextLike = None) -> Any:
        session = _session.get()
        if session is not None and session.off or in_forward_mode() or not z.is_floating_point() or z.is_meta:
            return method(self, z, context)
        if session is not None and session.carries(z):
            return _inside(method, self, z, context, session)
        if not len(z) or _records_elsewhere(self, z) or _is_composite(self) and is_boundary(self):
            return method(self, z, context)
        return _outside(method, self, z, context)

    return run  # pyright: ignore[reportReturnType]


def inspect(layer: Any, z: Tensor, context: ContextLike, *, throw: bool) -> Inversion:
    """Do what `Transform.checked_inverse` promises."""
    reports: list[InverseReport] = []
    value, contribution = _inspect(layer, z, context, reports)
    for report in reports if throw else ():
        if not report.trusted:
            raise _error(report, report.layer, layer)
    return Inversion(value, contribution, reports)


def _inspect(layer: Any, z: Tensor, context: ContextLike, reports: list[InverseReport]) -> tuple[Tensor, Tensor]:
    token, apart = _inspected.set(reports), _session.set(None)
    try:
        return layer.inverse(z, context)
    finally:
        _session.reset(apart)
        _inspected.reset(token)


def is_boundary(layer: Any) -> bool:
    """Tell whether nothing can be compared across a layer."""
    if _is_composite(layer):
        return any(is_boundary(part) for part in layer.parts())
    check: InverseCheck | None = layer.inverse_check
    return layer.random_forward or check is not None and check.exact


def cuts(z: Tensor) -> bool:
    """Tell whether a chain is to have its layers between boundaries looked at as chains of their own."""
    if is_tracing():
        return False
    session = _session.get()
    return session is None or not session.off and not session.carries(z)


def locate(error: ConvergenceError, root: nn.Module) -> None:
    """Say in the error where in `root` the layer is that raised it."""
    if error.layer is None:
        error.layer = root
    error.place = _place(error.layer, root)


def _place(layer: nn.Module, root: nn.Module) -> str:
    if layer is root:
        return ""
    parts = list(root.parts()) if _is_composite(root) else list(root.children())  # pyright: ignore
    for number, part in enumerate(parts, 1):
        if any(module is layer for module in part.modules()):
            inside = _place(layer, part)
            if len(parts) == 1 or not _is_composite(root):
                return inside
            here = f"layer {number} of {len(parts)} ({type(part).__name__})"
            return f"{here}, in it {inside}" if inside else here
    return ""


def look_elementwise(layer: nn.Module, z: Tensor, x: Tensor, log_slope: Tensor) -> None:
    """Look at the inverse of an elementwise map, whose condition is its slope `log |dx/dz|`, in every row."""
    session = _current(z)
    if session is None:
        return
    count = len(session.given)
    with torch.no_grad():
        change = _size(log_slope[:count].exp().mul_(z[:count])) * torch.finfo(x.dtype).eps
        found = Finding(layer, count, x.dtype, moved=(slice(None), change, _size(x[:count])), steep=True)
    session.findings.append(found)


def look_linear(
    layer: nn.Module, z: Tensor, x: Tensor, forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]
) -> None:
    """Look at some rows of the linear part of an inverse, for layers that do more than that."""
    session = _current(z)
    if session is None:
        return
    count = len(session.given)
    rows = _choose(count, session)
    with torch.no_grad():
        some, solved = z[rows], x[rows]
        found = Finding(layer, count, z.dtype, NO_UNIT)
        found.residual = rows, _size(forward(solved) - some) / (NO_UNIT + _size(some))
        found.moved = rows, _size(inverse(_rounded(some)) - solved), _size(solved)
    session.findings.append(found)


def _outside(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike) -> Any:
    """Run an outermost inverse, and raise at the end if it cannot be trusted."""
    reports = _inspected.get()
    session = _Session(layer, z.detach(), every=reports is not None)
    with _within(session):
        try:
            result = _both(method, layer, z, context, session)
        except Exception as error:
            if reports is not None:
                reports += session.reports()
            elif _is_composite(layer):
                # An earlier layer may be to blame for what a later one stumbled over.
                blamed = next((report for report in _one_by_one(layer, z, context) if not report.trusted), None)
                if blamed is not None:
                    raise _error(blamed, blamed.layer, layer) from error
            raise
    if reports is not None:
        reports += session.reports()
    elif not session.is_fine():
        error = _blame(session, layer, z, context)
        if error is not None:
            raise error
    return result


def _both(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session) -> Any:
    """Invert all rows and some of them once more, and map some forward."""
    check = SENSITIVE if _is_composite(layer) else layer.inverse_check
    found = Finding(layer, len(z), z.dtype, 1.0 if check is None else check.unit or NO_UNIT)
    left_alone = torch.is_grad_enabled() and not session.every and _is_left_to_its_solver(layer)
    if check is None or layer.moves_elements or left_alone or is_boundary(layer):
        result = _inside(method, layer, z, context, session)
    else:
        on_graphs = as_context(context).structure is not None
        session.rows = rows = slice(None) if on_graphs else _choose(len(z), session)
        result = (_on_graphs if on_graphs else _carried)(method, layer, z, context, session, found)
        if session.looked and (_is_composite(layer) or check.residual == "some rows" or session.every):
            found.residual = _residual(layer, z, _value(result), context, rows, found.unit)
    session.findings.append(_sum_up(found, result, len(z)))
    return result


def _carried(
    method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session, found: Finding
) -> Any:
    count, rows = len(z), session.rows
    with torch.no_grad():
        rounded = _rounded(z[rows])
    session.extra = len(rounded)
    both = _inside(method, layer, torch.cat([z, rounded]), _twice(context, count, rows), session)
    if session.looked:
        with torch.no_grad():
            x = _value(both)
            found.moved = rows, _size(x[count:] - x[rows]), _size(x[rows])
            for steep, after in session.steep:
                _widen(steep, after, _relative(x, count, rows))
    return (both[0][:count], both[1][:count]) if isinstance(both, tuple) else both[:count]


def _widen(steep: Finding, after: Tensor, end: Tensor) -> None:
    """What one layer does to any row, later layers widen as they have done with the rows that are there twice."""
    by = (end / after.clamp_min(torch.finfo(after.dtype).eps)).max().clamp_min(1)
    if steep.moved is not None:
        every, change, size = steep.moved
        steep.moved = every, change * by, size


def _on_graphs(
    method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session, found: Finding
) -> Any:
    """Do it in two calls, since the rows of graphs belong together."""
    result = _inside(method, layer, z, context, session)
    if session.looked and not layer.random_inverse:
        with torch.no_grad(), unchecked():
            moved = _value(method(layer, _rounded(z.detach()), context))
        x = _value(result)
        found.moved = session.rows, _size(moved - x), _size(x)
    return result


def _relative(x: Tensor, count: int, rows: slice) -> Tensor:
    """Return how far the rows that are there twice are apart."""
    return _size(x[count:] - x[rows]) / (1 + _size(x[rows]))


def _residual(layer: Any, z: Tensor, x: Tensor, context: ContextLike, rows: slice, unit: float) -> tuple[slice, Tensor]:
    """Map some rows forward again."""
    some = z.detach()[rows]
    with torch.no_grad(), unchecked():
        try:
            gap = _size(layer.forward(x[rows], _some(context, len(z), rows))[0] - some)
        except LikelifyError:
            # What came back is not even something that the layer takes.
            gap = torch.full_like(_size(some), math.nan)
        return rows, gap / (unit + _size(some))


def _inside(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session) -> Any:
    """Run an inverse inside of another, or the outermost one, with the rows that are there twice."""
    if _is_composite(layer):
        return method(layer, z, context)
    count = len(session.given)
    head, check = slice(0, count), layer.inverse_check
    if layer.random_inverse or is_boundary(layer):
        return _apart(method, layer, z[head], _some(context, len(z), head), session)
    result = method(layer, z, context)
    alone = session.every and layer is not session.root
    if check is None or layer.moves_elements:
        if alone:
            session.findings.append(_sum_up(Finding(layer, count, z.dtype), result, count))
        return result
    session.looked = True
    x, found = _value(result), Finding(layer, count, z.dtype, check.unit or NO_UNIT)
    with torch.no_grad():
        if session.extra and session.findings and session.findings[-1].layer is layer:
            session.steep.append((session.findings[-1], _relative(x, count, session.rows)))
        if check.residual == "every row" or alone:
            rows = head if check.residual == "every row" else session.rows
            given = _some(context, len(z), head)
            found.residual = _residual(layer, z[head], x[head], given, rows, found.unit)
        if alone and session.extra:
            found.moved = session.rows, _size(x[count:] - x[session.rows]), _size(x[session.rows])
            _sum_up(found, result, count)
    if found.residual is not None:
        session.findings.append(found)
    return result


def _apart(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: _Session) -> Any:
    """Run an inverse that draws at random on the rows alone, so that it draws as if nobody looked; then copy again."""
    with _within(_Session(layer, z.detach(), every=session.every)) as own:
        result = method(layer, z, context)
    session.findings += own.findings
    session.looked = session.looked or bool(own.findings)
    if not session.extra:
        return result
    with torch.no_grad():
        x = _value(result)
        again = torch.cat([x, _rounded(x[session.rows])])[len(x) :]
    if not isinstance(result, tuple):
        return torch.cat([result, again])
    return torch.cat([result[0], again]), torch.cat([result[1], result[1][session.rows].detach()])


def _blame(session: _Session, root: Any, z: Tensor, context: ContextLike) -> ConvergenceError | None:
    """Return the error for the first layer that cannot be trusted by itself, or for the layers together.

    There is none if only rows have failed that were not finite to begin with.
    """
    failed = next((report for report in session.reports() if not report.trusted), None)
    if failed is None:
        return None
    if not _is_composite(failed.layer):
        return _error(failed, failed.layer, root)
    reports = [report for report in _one_by_one(root, z, context) if not _is_composite(report.layer)]
    blamed = next((report for report in reports if not report.trusted), None)
    if blamed is not None:
        return _error(blamed, blamed.layer, root)
    worst = max(reports, key=lambda report: report.condition or 0.0, default=failed)
    return _error(failed, worst.layer, root)


def _one_by_one(root: Any, z: Tensor, context: ContextLike) -> list[InverseReport]:
    """Return reports of all layers, up to the one where the inverse fails if it does."""
    reports: list[InverseReport] = []
    with torch.no_grad(), suppress(Exception):
        _inspect(root, z, context, reports)
    return reports


def _error(report: InverseReport, layer: nn.Module, root: nn.Module) -> ConvergenceError:
    here = "" if layer is report.layer else f"Most of the digits are lost in {type(layer).__name__}. "
    error = ConvergenceError(f"{report} {here}{report.advice()}", report)
    error.layer = layer
    locate(error, root)
    return error


def _current(z: Tensor) -> _Session | None:
    """Return the session that looks at this call, if one does."""
    session = None if is_tracing() else _session.get()
    return None if session is None or session.off or not len(z) or not session.carries(z) else session


def _choose(count: int, session: _Session) -> slice:
    """Choose rows that are far from each other."""
    few = count if session.every else min(count, SAMPLED_ROWS)
    return slice(0, count // few * few, count // few)


def _some(context: ContextLike, count: int, rows: slice) -> ContextLike:
    """Return the context of some of so many rows."""
    given = as_context(context)
    if given.condition is None or given.structure is not None or len(given.condition) != count:
        return context
    return with_condition(context, given.condition[rows])


def _twice(context: ContextLike, count: int, rows: slice) -> ContextLike:
    """Return the context of all rows and once more of some."""
    given = as_context(context)
    if given.condition is None or len(given.condition) != count:
        return context
    return with_condition(context, torch.cat([given.condition, given.condition[rows]]))


def _rounded(z: Tensor) -> Tensor:
    """Change each element by what rounding may change, in a pattern that is as good as random and always the same."""
    pattern = torch.arange(z[0].numel(), device=z.device, dtype=torch.float32).mul_(12.9898).sin_()
    return torch.addcmul(z, z, pattern.view(z.shape[1:]).to(z.dtype), value=torch.finfo(z.dtype).eps)


@torch.no_grad()
def _sum_up(found: Finding, result: Any, count: int) -> Finding:
    """Add sums to a finding in which a value that is not finite shows; the first `count` rows are looked at."""
    x = _value(result)
    if x.is_floating_point():
        dtype = torch.promote_types(x.dtype, torch.float32)
        found.sums.append(x[:count].sum(tuple(range(1, x.ndim)), dtype=dtype) if x.ndim > 1 else x[:count])
    if isinstance(result, tuple):
        contribution = result[1][:count]
        if found.layer.random_forward or found.layer.random_inverse:
            # Noise that is drawn from a bounded set has no density outside of it.
            contribution = contribution.nan_to_num(math.nan, 0.0, 0.0)
        elif at_work_in_a_flow():
            # Rows outside of the support of a bounded layer.
            contribution = contribution.nan_to_num(math.nan, math.inf, 0.0)
        found.sums.append(contribution.sum(dtype=torch.promote_types(contribution.dtype, torch.float32)))
    return found


def _value(result: Any) -> Tensor:
    return (result[0] if isinstance(result, tuple) else result).detach()


def _size(values: Tensor) -> Tensor:
    # The norms of torch.linalg take fifty times as long on a CPU.
    return values.abs().amax(tuple(range(1, values.ndim))) if values.ndim > 1 else values.abs()


def _is_composite(layer: Any) -> bool:
    return hasattr(layer, "parts")


def _is_left_to_its_solver(layer: Any) -> bool:
    """Tell whether a layer is solved by an iteration, or is made of such layers and others that lose little."""
    kinds = {
        part.inverse_check.residual for part in layer.modules() if getattr(part, "inverse_check", None) is not None
    }
    return "solver" in kinds and kinds <= {"solver", "none"}


def _records_elsewhere(layer: nn.Module, z: Tensor) -> bool:
    """Tell whether gradients are recorded on an accelerator, where looking at values would make training wait."""
    if z.device.type == "cpu" or not torch.is_grad_enabled():
        return False
    return z.requires_grad or any(p.requires_grad for p in layer.parameters())
