"""What is looked at in a call of an inverse: sums, rows mapped forward again, and rows that are there twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import LikelifyError
from likelify.structure import ContextLike, as_context, with_condition
from likelify.support import at_work_in_a_flow
from likelify.tracing import HALF
from likelify.transforms.inversion import NO_UNIT, Finding
from likelify.transforms.sessions import Session, current, unchecked

# Rows that are looked at where not all of them are; one where that would be more than half of them.
SAMPLED_ROWS = 2


def look_elementwise(layer: nn.Module, z: Tensor, x: Tensor, log_slope: Tensor) -> None:
    """Look at the inverse of an elementwise map, whose condition is its slope `log |dx/dz|`, in every row."""
    session = current(z)
    if session is None:
        return
    count = len(session.given)
    with torch.no_grad():
        change = size(log_slope[:count].exp().mul_(z[:count])) * torch.finfo(x.dtype).eps
        found = Finding(layer, count, x.dtype, moved=(slice(None), change, size(x[:count])), steep=True)
    session.findings.append(found)


def look_linear(
    layer: nn.Module, z: Tensor, x: Tensor, forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]
) -> None:
    """Look at some rows of the linear part of an inverse, for layers that do more than that."""
    session = current(z)
    if session is None:
        return
    count = len(session.given)
    rows = choose(count, session)
    with torch.no_grad():
        latents, solved = z[rows], x[rows]
        found = Finding(layer, count, z.dtype, NO_UNIT)
        found.residual = rows, size(forward(solved) - latents) / (NO_UNIT + size(latents))
        found.moved = rows, size(inverse(rounded(latents)) - solved), size(solved)
    session.findings.append(found)


def residual(layer: Any, z: Tensor, x: Tensor, context: ContextLike, rows: slice, unit: float) -> tuple[slice, Tensor]:
    """Map some rows forward again."""
    latents, given = z.detach()[rows], some(context, len(z), rows)
    with torch.no_grad(), unchecked():
        try:
            again, _ = layer.forward(x[rows]) if given is None else layer.forward(x[rows], given)
            gap = size(again - latents)
        except LikelifyError:
            # What came back is not even something that the layer takes.
            gap = torch.full_like(size(latents), math.nan)
        return rows, gap / (unit + size(latents))


def relative(x: Tensor, count: int, rows: slice) -> Tensor:
    """Return how far the rows that are there twice are apart."""
    return size(x[count:] - x[rows]) / (1 + size(x[rows]))


def widen(steep: Finding, after: Tensor, end: Tensor) -> None:
    """What one layer does to any row, later layers widen as they have done with the rows that are there twice."""
    by = (end / after.clamp_min(torch.finfo(after.dtype).eps)).max().clamp_min(1)
    if steep.moved is not None:
        every, change, size = steep.moved
        steep.moved = every, change * by, size


def choose(count: int, session: Session) -> slice:
    """Choose rows that are far from each other."""
    few = SAMPLED_ROWS if count >= 2 * SAMPLED_ROWS else 1
    few = count if session.every else few
    return slice(0, count // few * few, count // few)


def some(context: ContextLike, count: int, rows: slice) -> ContextLike:
    """Return the context of some of so many rows."""
    given = as_context(context)
    if given.condition is None or given.structure is not None or len(given.condition) != count:
        return context
    return _like(context, given.condition[rows])


def twice(context: ContextLike, count: int, rows: slice) -> ContextLike:
    """Return the context of all rows and once more of some."""
    given = as_context(context)
    if given.condition is None or len(given.condition) != count:
        return context
    return _like(context, torch.cat([given.condition, given.condition[rows]]))


def _like(context: ContextLike, condition: Tensor) -> ContextLike:
    # Layers of users get a tensor where their caller has given one.
    return condition if isinstance(context, Tensor) else with_condition(context, condition)


def rounded(z: Tensor) -> Tensor:
    """Change each element by what rounding may change, in a pattern that is as good as random and always the same."""
    pattern = torch.arange(z[0].numel(), device=z.device, dtype=torch.float32).mul_(12.9898).sin_()
    return torch.addcmul(z, z, pattern.view(z.shape[1:]).to(z.dtype), value=torch.finfo(z.dtype).eps)


@torch.no_grad()
def sum_up(found: Finding, result: Any, count: int) -> Finding:
    """Add sums to a finding in which a value that is not finite shows; the first `count` rows are looked at."""
    x = value(result)
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


def is_finite(result: Any) -> bool:
    """Tell from one sum whether a value is finite; one of finite elements may overflow."""
    x = value(result)
    if not x.is_floating_point():
        return True
    return math.isfinite(float(x.sum(dtype=torch.float32) if x.dtype in HALF else x.sum()))


def value(result: Any) -> Tensor:
    """Return the value of an inverse, which may come with a contribution."""
    return (result[0] if isinstance(result, tuple) else result).detach()


def size(values: Tensor) -> Tensor:
    """Return the largest element of each row in size."""
    # The norms of torch.linalg take fifty times as long on a CPU.
    return values.abs().amax(tuple(range(1, values.ndim))) if values.ndim > 1 else values.abs()
