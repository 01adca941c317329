"""Looking at inverses while they run (what is looked at, and why, is in `inversion`).

The outermost inverse that is called takes a few rows along twice, the second time with their latents rounded
differently, and compares them at the end; there some rows are mapped forward through all layers again. So layers made
of layers are looked at together. What is found stays on the device until the end, where the host waits for it once.
Only if something is wrong does it all run again, layer by layer, to find the one that is to blame.

Layers that draw at random in `forward`, networks that draw or look at whole batches just now, and elementwise functions
that saturate, cannot be crossed by such comparisons. A `Chain` has the layers between them looked at as chains of their
own. Where no layer can lose digits, one sum tells whether all is finite.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import LikelifyError
from likelify.structure import ContextLike, as_context
from likelify.tracing import Method, in_forward_mode, is_tracing
from likelify.transforms.blame import blame, error_for, inspect_layers, one_by_one
from likelify.transforms.crossing import is_boundary, is_composite, is_plain, is_unsteady, saturates_or_draws
from likelify.transforms.inversion import NO_UNIT, SENSITIVE, Finding, InverseCheck, InverseReport, Inversion
from likelify.transforms.looks import (
    choose,
    is_finite,
    relative,
    residual,
    rounded,
    size,
    some,
    sum_up,
    twice,
    value,
    widen,
)
from likelify.transforms.sessions import INSPECTED, OFF, SESSION, Session, unchecked, within

# Of layers made of layers.
TOGETHER = InverseCheck()


def watched(method: Method) -> Method:
    """Let the `inverse` or `mean_inverse` of a layer be looked at; not to be called while tracing."""
    name = _context_of(method)
    call = method if name else lambda layer, z, _: method(layer, z)

    @functools.wraps(method)
    def run(self: Any, z: Tensor, *more: Any, **named: Any) -> Any:
        session = SESSION.get()
        off = session is not None and session.off or in_forward_mode() or not z.is_floating_point() or z.is_meta
        # What other arguments do is not known.
        others = len(more) + len(named) > (name is not None) or named and name not in named
        if off or others:
            return method(self, z, *more, **named)
        context = more[0] if more else named.get(name or "")
        if session is not None and session.carries(z):
            return _inside(call, self, z, context, session)
        # What comes back may be missing, and so not finite; layers behind are looked at by themselves.
        if not len(z) or self.takes_missing or _records_elsewhere(self, z):
            return call(self, z, context)
        if session is None and INSPECTED.get() is None and is_plain(self):
            return _plainly(call, self, z, context)
        if is_composite(self) and is_boundary(self):
            return call(self, z, context)
        return _outside(call, self, z, context)

    return run  # pyright: ignore[reportReturnType]


def _context_of(method: Callable[..., Any]) -> str | None:
    """Return what a method calls the context behind its latent; None if it takes none there."""
    given = list(inspect.signature(method).parameters.values())[2:3]
    return next((each.name for each in given if each.kind is each.POSITIONAL_OR_KEYWORD), None)


def inspected(layer: Any, z: Tensor, context: ContextLike, *, throw: bool) -> Inversion:
    """Do what `Transform.checked_inverse` promises."""
    reports: list[InverseReport] = []
    x, contribution = inspect_layers(layer, z, context, reports)
    for report in reports if throw else ():
        if not report.trusted:
            raise error_for(report, report.layer, layer)
    return Inversion(x, contribution, reports)


def aside(inverse: Callable[..., Any], z: Tensor, context: ContextLike) -> Any:
    """Call an inverse that a forward pass needs; while gradients are recorded it is not looked at."""
    if is_tracing() or not torch.is_grad_enabled():
        return inverse(z, context)
    with unchecked():
        return inverse(z, context)


def cuts(z: Tensor) -> bool:
    """Tell whether a chain is to have its layers between boundaries looked at as chains of their own."""
    if is_tracing():
        return False
    session = SESSION.get()
    return session is None or not session.off and not session.carries(z)


def _plainly(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike) -> Any:
    """Run an inverse in which there is nothing to look at but whether all is finite."""
    if is_composite(layer):
        with within(OFF):
            result = method(layer, z, context)
    else:
        result = method(layer, z, context)
    if not is_finite(result):
        blamed = next((report for report in one_by_one(layer, z, context) if not report.trusted), None)
        if blamed is not None:
            raise error_for(blamed, blamed.layer, layer)
    return result


def _outside(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike) -> Any:
    """Run an outermost inverse, and raise at the end if it cannot be trusted."""
    reports = INSPECTED.get()
    # Composites come here only if no part of them is a boundary.
    unsteady = not is_composite(layer) and is_unsteady(layer)
    session = Session(layer, z.detach(), every=reports is not None, unsteady=unsteady)
    with within(session):
        try:
            result = _both(method, layer, z, context, session)
        except LikelifyError as error:
            if reports is not None:
                reports += session.reports()
            elif is_composite(layer):
                # An earlier layer may be to blame for what a later one stumbled over.
                blamed = next((report for report in one_by_one(layer, z, context) if not report.trusted), None)
                if blamed is not None:
                    raise error_for(blamed, blamed.layer, layer) from error
            raise
    if reports is not None:
        reports += session.reports()
    elif not session.is_fine():
        error = blame(session, layer, z, context)
        if error is not None:
            raise error
    return result


def _both(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: Session) -> Any:
    """Invert all rows and some of them once more, and map some forward."""
    check = TOGETHER if is_composite(layer) else layer.inverse_check or SENSITIVE
    found = Finding(layer, len(z), z.dtype, check.unit or NO_UNIT)
    left_alone = torch.is_grad_enabled() and not session.every and _is_left_to_its_solver(layer)
    if not _is_compared(layer) or left_alone or session.unsteady or saturates_or_draws(layer):
        result = _inside(method, layer, z, context, session)
    else:
        on_graphs = as_context(context).structure is not None
        session.rows = rows = slice(None) if on_graphs else choose(len(z), session)
        result = (_on_graphs if on_graphs else _carried)(method, layer, z, context, session, found)
        if session.looked and (check.residual == "some rows" or session.every):
            found.residual = residual(layer, z, value(result), context, rows, found.unit)
    session.findings.append(sum_up(found, result, len(z)))
    return result


def _is_compared(layer: Any) -> bool:
    """Tell whether rows are compared behind a layer, or in layers inside of it."""
    if layer.moves_elements:
        return False
    return is_composite(layer) or layer.inverse_check is not None and layer.inverse_check.residual != "part"


def _sees_a_part(layer: Any) -> bool:
    return layer.inverse_check is not None and layer.inverse_check.residual == "part"


def _carried(
    method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: Session, found: Finding
) -> Any:
    count, rows = len(z), session.rows
    with torch.no_grad():
        again = rounded(z[rows])
    session.extra = len(again)
    both = _inside(method, layer, torch.cat([z, again]), twice(context, count, rows), session)
    if session.looked:
        with torch.no_grad():
            x = value(both)
            found.moved = rows, size(x[count:] - x[rows]), size(x[rows])
            for steep, after in session.steep:
                widen(steep, after, relative(x, count, rows))
    return (both[0][:count], both[1][:count]) if isinstance(both, tuple) else both[:count]


def _on_graphs(
    method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: Session, found: Finding
) -> Any:
    """Do it in two calls, since the rows of graphs belong together."""
    result = _inside(method, layer, z, context, session)
    if session.looked and not layer.random_inverse:
        with torch.no_grad(), unchecked():
            moved = value(method(layer, rounded(z.detach()), context))
        x = value(result)
        found.moved = session.rows, size(moved - x), size(x)
    return result


def _inside(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: Session) -> Any:
    """Run an inverse inside of another, or the outermost one, with the rows that are there twice."""
    if is_composite(layer):
        return method(layer, z, context)
    count, check = len(session.given), layer.inverse_check
    if layer.random_inverse or saturates_or_draws(layer) or session.unsteady and is_unsteady(layer):
        head = slice(0, count)
        return _apart(method, layer, z[head], some(context, len(z), head), session)
    result = method(layer, z, context)
    alone = session.every and layer is not session.root
    if not _is_compared(layer):
        # What such layers see of themselves does not say what several of them lose together.
        session.looked = session.looked or _sees_a_part(layer)
        if alone:
            session.findings.append(sum_up(Finding(layer, count, z.dtype), result, count))
        return result
    session.looked = True
    found = Finding(layer, count, z.dtype, check.unit or NO_UNIT)
    if check.residual == "every row" or alone or session.findings:
        _look(layer, z, result, context, session, found)
    if found.residual is not None:
        session.findings.append(found)
    return result


@torch.no_grad()
def _look(layer: Any, z: Tensor, result: Any, context: ContextLike, session: Session, found: Finding) -> None:
    """Look at one layer by itself, as far as its check asks for that or all layers are looked at."""
    x, count = value(result), len(session.given)
    alone, every_row = session.every and layer is not session.root, layer.inverse_check.residual == "every row"
    if session.extra and session.findings and session.findings[-1].layer is layer:
        session.steep.append((session.findings[-1], relative(x, count, session.rows)))
    if every_row or alone:
        head = slice(0, count)
        given = some(context, len(z), head)
        found.residual = residual(layer, z[head], x[head], given, head if every_row else session.rows, found.unit)
    if alone and session.extra:
        found.moved = session.rows, size(x[count:] - x[session.rows]), size(x[session.rows])
        sum_up(found, result, count)


def _apart(method: Callable[..., Any], layer: Any, z: Tensor, context: ContextLike, session: Session) -> Any:
    """Run an inverse that draws at random on the rows alone, so that it draws as if nobody looked; then copy again."""
    with within(Session(layer, z.detach(), every=session.every)) as own:
        result = method(layer, z, context)
    session.findings += own.findings
    session.looked = session.looked or bool(own.findings)
    if not session.extra:
        return result
    with torch.no_grad():
        x = value(result)
        again = torch.cat([x, rounded(x[session.rows])])[len(x) :]
    if not isinstance(result, tuple):
        return torch.cat([result, again])
    return torch.cat([result[0], again]), torch.cat([result[1], result[1][session.rows].detach()])


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
