"""The velocity of a continuous flow and its exact divergence."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from likelify.errors import ShapeError, UnsupportedError
from likelify.structure import Context, GraphBatch, as_context
from likelify.tracing import is_tracing


@runtime_checkable
class KnowsDivergence(Protocol):
    """A network of velocities that has a cheap way to its own divergence."""

    def with_divergence(self, x: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the velocity `(rows, *event)` and `sum_k dv_k / dx_k` of each row, `(rows,)`."""
        ...


def velocity_and_divergence(net: nn.Module, x: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Return what `net(x, t, context)` gives, and of each row the trace of the block that is its own of the Jacobian.

    Networks that know a cheap way give it themselves (`with_divergence`). Of all others the trace is found by products
    with unit vectors, as many backward passes as an item has elements: of graphs those of the largest one.

    Args:
        net: gives velocities; rows of different items do not see each other.
        x: `(rows, *event)`.
        t: the time, a tensor without axes.
        context: of the call.

    Raises:
        UnsupportedError: if such products would be needed inside of `torch.func` transforms or `torch.compile`.
    """
    if isinstance(net, KnowsDivergence):
        return net.with_divergence(x, t, context)
    if is_tracing():
        raise UnsupportedError(
            f"The divergence of {type(net).__name__} in a ContinuousFlow is found by backward passes, which cannot be "
            "recorded by torch.compile or torch.func. Take a network that knows its own, such as nets.SetVelocity."
        )
    with torch.inference_mode(mode=False):
        condition = as_context(context).condition
        told = context if condition is None else replace(as_context(context), condition=_recordable(condition))
        return _by_products(net, _recordable(x), _recordable(t), told, graph=torch.is_grad_enabled())


def _recordable(tensor: Tensor) -> Tensor:
    """Return a tensor that a backward pass may keep, which none that was made in inference mode is."""
    return tensor.clone() if tensor.is_inference() else tensor


def check_velocity(velocity: Tensor, x: Tensor) -> Tensor:
    """Return velocities, of the shape of the positions.

    Raises:
        ShapeError: for another shape.
    """
    if velocity.shape != x.shape:
        raise ShapeError(
            f"The network of this ContinuousFlow gave velocities of shape {tuple(velocity.shape)} for an input of "
            f"shape {tuple(x.shape)}; the two must be equal."
        )
    return velocity


def _by_products(net: nn.Module, x: Tensor, t: Tensor, context: Context, *, graph: bool) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        # Beside the input, which may carry tangents or gradients of the caller.
        moved = torch.zeros_like(x, requires_grad=True)
        velocity = check_velocity(net(x + moved, t, context), x)
        trace = x.new_zeros(len(x))
        for unit in _units(x, context):
            if velocity.requires_grad:
                # A velocity that does not read the position has no divergence.
                flags = {"allow_unused": True, "materialize_grads": True}
                (product,) = torch.autograd.grad(velocity, moved, unit, create_graph=graph, retain_graph=True, **flags)
                trace = trace + (product * unit).flatten(1).sum(1)
    return (velocity, trace) if graph else (velocity.detach(), trace.detach())


def _units(x: Tensor, context: Context) -> list[Tensor]:
    """Return vectors that have a single one in each item; together they have a one at each element."""
    structure, event = as_context(context).structure, x.shape[1:]
    chosen = [x.new_ones(len(x))]
    if structure is not None:
        place = structure.derived("places", places)
        chosen = [(place == number).to(x.dtype) for number in range(int(structure.sizes.max()) if len(x) else 0)]
    along = torch.eye(event.numel(), dtype=x.dtype, device=x.device).reshape(-1, *event)
    return [rows.reshape(-1, *(1,) * len(event)) * unit for rows in chosen for unit in along]


def places(graphs: GraphBatch) -> Tensor:
    """Return for each node its number within its graph."""
    first = graphs.sizes.cumsum(0) - graphs.sizes
    return torch.arange(len(graphs.owner), device=graphs.sizes.device) - first[graphs.owner]
