"""The law of batches: a batch is its items, one by one, whatever its sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from likelify.seeding import seeded
from likelify.structure import Context, ContextLike, GraphBatch, as_context
from likelify.testing.law import close, require
from likelify.transforms.core import Transform


def check_rows(transform: Transform, x: Tensor, context: ContextLike = None, *, tol: float = 1e-9) -> None:
    """Check that a layer does to a batch what it does to each of its items alone, in both directions.

    Try it where the number of rows is that of channels, positions or features: there a matrix of one kind can be taken
    for one of another. What is drawn at random for the batch is drawn again for its items, so that values and
    contributions of random layers are compared as well.

    Args:
        transform: the layer, in double precision, with its parameters moved from their start.
        x: data rows `(rows, *event)`, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one. With a structure, the items are its graphs.
        tol: allowed deviation, relative to the largest entry.
    """
    context = as_context(context)
    with torch.no_grad():
        z, _ = transform(x, context)
        for name, method, value in (("forward", transform, x), ("inverse", transform.inverse, z)):
            draws = _Draws(lenient=transform.noisy_log_det)
            with draws:
                whole, contribution = method(value, context)
            parts, random = [], transform.random_forward if name == "forward" else transform.random_inverse
            for item, (rows, own) in enumerate(items_of(value, context)):
                with draws.again(rows.start / len(value), item / len(contribution)):
                    parts.append(method(value[rows], own))
            if random and draws.shared and context.structure is None:
                _check_own_draws(name, method, value, context)
            pairs = [("value", whole, torch.cat([part[0] for part in parts]))]
            if not transform.noisy_log_det:
                # The terms of an estimate may be shared by the batch.
                pairs.append(("contribution", contribution, torch.cat([part[1] for part in parts])))
            for what, found, alone in pairs:
                law = f"{name}: {what} of a batch of {len(value)} = item by item"
                require(found.shape == alone.shape, f"{law}: shapes {tuple(found.shape)}, {tuple(alone.shape)}")
                close(found.double(), alone.double(), tol * (1 + float(alone.abs().max())), law)


def _check_own_draws(name: str, method: Any, value: Tensor, context: Context) -> None:
    """Check that equal items get draws of their own, where some draw has no axis of the items."""
    condition = None if context.condition is None else context.condition[:1].expand(ALIKE, *context.condition.shape[1:])
    with seeded(1):
        found, _ = method(value[:1].expand(ALIKE, *value.shape[1:]), Context(condition))
    require(bool((found != found[:1]).any()), f"{name}: {ALIKE} items that are alike share one draw")


def check_no_rows(transform: Transform, x: Tensor, context: ContextLike = None) -> None:
    """Check that a layer takes a batch without rows, in both directions and backward: the last of an empty split.

    Args:
        transform: the layer.
        x: data rows `(rows, *event)`, which tell the shapes.
        context: if the layer needs one. With a structure, the batch has no graphs.
    """
    context = as_context(context)
    with torch.no_grad():
        z, _ = transform(x, context)
    own = _without_rows(context)
    for name, method, value, event in (("forward", transform, x, z), ("inverse", transform.inverse, z, x)):
        empty = value[:0].detach()
        found, contribution = method(empty.requires_grad_(empty.is_floating_point()), own)
        law = f"{name} of no rows"
        require(found.shape == event[:0].shape, f"{law}: value of shape {tuple(found.shape)}")
        require(contribution.shape == (0,), f"{law}: contribution of shape {tuple(contribution.shape)}")
        require(contribution.is_floating_point(), f"{law}: contribution in {contribution.dtype}")
        _check_no_gradients(transform, [found, contribution], law)


def _check_no_gradients(transform: Transform, outputs: list[Tensor], law: str) -> None:
    trained = {name: parameter for name, parameter in transform.named_parameters() if parameter.requires_grad}
    sums = [output.sum() for output in outputs if output.requires_grad]
    if not sums or not trained:
        return
    grads = torch.autograd.grad(torch.stack(sums).sum(), list(trained.values()), allow_unused=True)
    for name, grad in zip(trained, grads, strict=True):
        require(grad is None or not bool(grad.any()), f"{law}: the gradient of {name} is not zero")


def _without_rows(context: Context) -> Context:
    condition = None if context.condition is None else context.condition[:0]
    structure = context.structure
    if structure is None:
        return Context(condition)
    weight = None if structure.edge_weight is None else structure.edge_weight[:0]
    none = GraphBatch(structure.sizes[:0], structure.edge_index[:, :0], weight)
    return Context(condition, GraphBatch.complete(none.sizes) if structure.is_complete else none)


def items_of(x: Tensor, context: Context) -> Iterator[tuple[slice, Context]]:
    """Give the rows of each item, a graph or a row, and its own context."""
    structure, first = context.structure, 0
    for item in range(len(x) if structure is None else len(structure)):
        size = 1 if structure is None else int(structure.sizes[item])
        rows = slice(first, first + size)
        first += size
        condition = None if context.condition is None else context.condition[rows]
        yield rows, Context(condition, None if structure is None else _graph(structure, item, rows))


def _graph(structure: GraphBatch, item: int, rows: slice) -> GraphBatch:
    if structure.is_complete:
        return GraphBatch.complete(structure.sizes[item : item + 1])
    own = structure.owner[structure.edge_index[0]] == item
    weight = None if structure.edge_weight is None else structure.edge_weight[own]
    return GraphBatch(structure.sizes[item : item + 1], structure.edge_index[:, own] - rows.start, weight)


# So many items that are alike do not draw the same by chance.
ALIKE = 16


class _Draws(TorchDispatchMode):
    """Remember what is drawn at random for a batch, and draw the same again for one of its items.

    The axis of the rows is the one along which the two draws differ in size, so that no size is taken for another.

    Args:
        lenient: draws may be shared by the items, as those of an estimate.
    """

    def __init__(self, *, lenient: bool) -> None:
        super().__init__()
        self._lenient = lenient
        self._kept: list[Tensor] = []
        self._starts: tuple[float, float] | None = None
        self._next = 0
        self.shared = False

    def again(self, *starts: float) -> _Draws:
        """Draw again for the item that starts at that share of the rows, and at that share of the items."""
        self._starts, self._next = (starts[0], starts[1]), 0
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = func(*args, **(kwargs or {}))
        # PyTorch's attention has that tag for its dropout, whether there is any, and gives more than one tensor.
        if torch.Tag.nondeterministic_seeded not in func.tags or not isinstance(drawn, Tensor):
            return drawn
        if self._starts is None:
            self._kept.append(drawn.clone())
            return drawn
        try:
            require(self._next < len(self._kept), f"an item alone draws more often than in a batch: {func}")
            kept, self._next = self._kept[self._next], self._next + 1
            self.shared |= kept.shape == drawn.shape
            return drawn.copy_(_part(kept, drawn.shape, self._starts))
        except AssertionError:
            if self._lenient:
                return drawn
            raise


def _part(kept: Tensor, shape: torch.Size, starts: tuple[float, float]) -> Tensor:
    """Return the part of what was drawn for a batch that is an item's own."""
    law = f"a draw of shape {tuple(kept.shape)} for a batch is one of shape {tuple(shape)} for an item"
    require(kept.ndim == len(shape), law)
    for axis, size in enumerate(shape):
        if kept.shape[axis] != size:
            # One number or more for each row, or for each graph: only one of the two gives a whole number.
            places = (share * kept.shape[axis] for share in starts)
            whole = [round(place) for place in places if place == round(place) and place + size <= kept.shape[axis]]
            require(bool(whole), law)
            kept = kept.narrow(axis, whole[0], size)
    return kept
