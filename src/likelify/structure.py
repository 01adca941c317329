r"""What surrounds a batch: conditions, graphs, and the one reduction from elements to items.

A batch is a tensor `x`. Without a structure its first axis counts the *items* (images, rows). With a
`GraphBatch` the first axis counts the *nodes* of all graphs together, and an item is a graph. Every sum
over an event in likelify goes through `sum_items`, so a layer that does not look at shapes works on both.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likelify.errors import ShapeError, UnsupportedError


@dataclass(frozen=True, eq=False)
class GraphBatch:
    r"""Several graphs side by side, as one graph without edges between the parts.

    Node features live in a tensor `(N, ...)`, where `N` is the number of nodes of all graphs together and
    the nodes of one graph are consecutive.

    Attributes:
        sizes: number of nodes of each graph, integers of shape `(B,)`.
        edge_index: directed edges (from, to) as node numbers, integers of shape `(2, E)`.
        edge_weight: one weight per edge `(E,)`, or None for weight one.

    Raises:
        ShapeError: if the shapes disagree or an edge names a node that does not exist.
    """

    sizes: Tensor
    edge_index: Tensor
    edge_weight: Tensor | None = None

    def __post_init__(self) -> None:
        if self.sizes.ndim != 1 or self.sizes.is_floating_point():
            raise ShapeError(f"GraphBatch.sizes must be integers of shape (B,), got {_describe(self.sizes)}.")
        if self.edge_index.ndim != 2 or self.edge_index.shape[0] != 2 or self.edge_index.is_floating_point():
            raise ShapeError(
                f"GraphBatch.edge_index must be integers of shape (2, E), got {_describe(self.edge_index)}."
            )
        if self.edge_weight is not None and self.edge_weight.shape != self.edge_index.shape[1:]:
            raise ShapeError(f"edge_weight has shape {tuple(self.edge_weight.shape)}, one per edge is needed.")
        if self.sizes.numel() and int(self.sizes.min()) < 0:
            raise ShapeError(f"GraphBatch.sizes must not be negative, got {int(self.sizes.min())}.")
        nodes = int(self.sizes.sum())
        if self.edge_index.numel() and not 0 <= int(self.edge_index.min()) <= int(self.edge_index.max()) < nodes:
            raise ShapeError(f"edge_index names a node outside 0..{nodes - 1}.")
        # Computed once here: it needs a host sync, which must not happen in every layer.
        owner = torch.repeat_interleave(torch.arange(len(self.sizes), device=self.sizes.device), self.sizes)
        object.__setattr__(self, "_owner", owner)

    @property
    def owner(self) -> Tensor:
        """For each node the number of its graph, shape `(N,)`."""
        return self._owner  # pyright: ignore[reportAttributeAccessIssue]

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, eq=False)
class Context:
    """What a batch is conditioned on.

    Attributes:
        condition: a tensor whose first axis runs with that of the batch, or None.
        structure: the graphs that the rows of the batch belong to, or None when each row is an item.
        temperature: factor on the standard deviation of normal distributions that are *sampled*;
            densities do not look at it. `Flow.sample(temperature=...)` sets it.
    """

    condition: Tensor | None = None
    structure: GraphBatch | None = None
    temperature: float = 1.0


ContextLike = Context | Tensor | None


def as_context(context: ContextLike) -> Context:
    """Give None, a condition tensor or a `Context` as a `Context`."""
    if isinstance(context, Context):
        return context
    if context is None or isinstance(context, Tensor):
        return Context(condition=context)
    raise UnsupportedError(
        f"context is a {type(context).__name__}; it must be None, a tensor (the condition) or a Context."
    )


def with_condition(context: ContextLike, condition: Tensor | None) -> Context:
    """Give the same context with another condition."""
    return replace(as_context(context), condition=condition)


def sum_items(values: Tensor, context: ContextLike = None) -> Tensor:
    """Sum per-element values to one number per item: `(rows, ...)` to `(items,)`.

    Without a structure each row is an item; with a `GraphBatch` the rows of one graph are added up.

    Example:
        >>> graphs = GraphBatch(sizes=torch.tensor([1, 2]), edge_index=torch.empty(2, 0, dtype=torch.long))
        >>> sum_items(torch.ones(3, 5), Context(structure=graphs))
        tensor([ 5., 10.])
    """
    rows = values.flatten(1).sum(1) if values.ndim > 1 else values
    structure = as_context(context).structure
    if structure is None:
        return rows
    if len(rows) != len(structure.owner):
        raise ShapeError(f"The batch has {len(rows)} rows, its GraphBatch has {len(structure.owner)} nodes.")
    return rows.new_zeros(len(structure)).index_add(0, structure.owner, rows)


def sum_constant(value: Tensor, x: Tensor, context: ContextLike = None) -> Tensor:
    """Sum over each item a value that is the same at every row of `x`: `()` or `(rows,)` to `(items,)`."""
    return sum_items(value.expand(x.shape[0]), context)


def join_condition(features: Tensor, context: ContextLike) -> Tensor:
    """Put the condition beside features along the channel axis (axis 1).

    A condition of fewer axes is repeated over the remaining positions of the features.

    Args:
        features: `(rows, channels, *positions)`.
        context: its condition is None, `(rows, k)` or `(rows, k, *positions)`.

    Raises:
        ShapeError: if the condition has other rows or positions than the features.
    """
    condition = as_context(context).condition
    if condition is None:
        return features
    if condition.shape[0] != features.shape[0] or condition.ndim < 2:
        raise ShapeError(
            f"The condition has shape {tuple(condition.shape)}; its first axis must be that of the input, "
            f"{features.shape[0]}, and it needs a feature axis. Labels enter as one-hot rows, or as integers "
            "through a Flow whose encoder is nets.OneHot(classes)."
        )
    if condition.ndim < features.ndim:
        condition = condition[(...,) + (None,) * (features.ndim - condition.ndim)]
        condition = condition.expand(*condition.shape[:2], *features.shape[2:])
    if condition.shape[2:] != features.shape[2:]:
        raise ShapeError(
            f"The condition has positions {tuple(condition.shape[2:])}, the input {tuple(features.shape[2:])}."
        )
    return torch.cat([features, condition.to(features.dtype)], 1)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
