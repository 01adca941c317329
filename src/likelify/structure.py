r"""What surrounds a batch: conditions, graphs, and the one reduction from elements to items.

A batch is a tensor `x`. Without a structure its first axis counts the *items* (images, rows). With a
`GraphBatch` the first axis counts the *nodes* of all graphs together, and an item is a graph. Every sum
over an event in likelify goes through `sum_items`, so a layer that does not look at shapes works on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from likelify.edges import bridges, complete_edges, paired
from likelify.errors import ConfigError, DataError, ShapeError, UnsupportedError

T = TypeVar("T")
# Nodes from which on sums over graphs run in double precision.
MANY = 2**12


@dataclass(frozen=True, eq=False)
class GraphBatch:
    r"""Several graphs side by side, as one graph without edges between the parts.

    Node features live in a tensor `(N, ...)`, where `N` is the number of nodes of all graphs together and
    the nodes of one graph are consecutive. The object is immutable: its tensors must not be changed in place.

    Attributes:
        sizes: number of nodes of each graph, integers of shape `(B,)`.
        edge_index: directed edges (from, to) as indices of nodes, integers of shape `(2, E)`.
        edge_weight: one weight per edge `(E,)`, or None for weight one.
        is_complete: whether the graphs are complete, known only of those that `complete` has made. Their edges, which
            are many, are made when they are first asked for.
        in_pairs: whether the edges stand there in both directions with the same weight, each once and sorted by
            (from, to); known where `undirected` has made them or `known_pairs` says so, and then not checked again.

    Raises:
        ShapeError: if the shapes disagree or an edge names a node that does not exist.
        DataError: if an edge joins two graphs.
    """

    sizes: Tensor
    edge_index: Tensor
    edge_weight: Tensor | None = None
    is_complete: bool = field(default=False, init=False)
    in_pairs: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._take_as_tensors()
        if self.sizes.ndim != 1 or not _counts(self.sizes):
            raise ShapeError(f"GraphBatch.sizes must be integers of shape (B,), got {_describe(self.sizes)}.")
        object.__setattr__(self, "sizes", self.sizes.long())
        if self.edge_index.ndim != 2 or self.edge_index.shape[0] != 2 or not _counts(self.edge_index):
            raise ShapeError(
                f"GraphBatch.edge_index must be integers of shape (2, E), got {_describe(self.edge_index)}."
            )
        if self.edge_weight is not None and self.edge_weight.shape != self.edge_index.shape[1:]:
            raise ShapeError(f"edge_weight has shape {tuple(self.edge_weight.shape)}, one per edge is needed.")
        if self.sizes.numel() and int(self.sizes.min()) < 0:
            raise ShapeError(f"GraphBatch.sizes must not be negative, got {int(self.sizes.min())}.")
        nodes = int(self.sizes.sum())
        if self.edge_index.numel():
            first, last = (int(end) for end in self.edge_index.aminmax())
            if not 0 <= first <= last < nodes:
                raise ShapeError(f"edge_index names a node outside 0..{nodes - 1}.")
        # Computed once here: it needs a host sync, which must not happen in every layer.
        owner = torch.repeat_interleave(torch.arange(len(self.sizes), device=self.sizes.device), self.sizes)
        object.__setattr__(self, "_owner", owner)
        if len(self.sizes) > 1 and self.edge_index.numel():
            self._refuse_bridges()

    def _take_as_tensors(self) -> None:
        """Make tensors of lists and arrays, and of short integers, which PyTorch takes for no index or for a mask."""
        for name in ("sizes", "edge_index", "edge_weight"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Tensor):
                object.__setattr__(self, name, torch.as_tensor(given))
        if _counts(self.edge_index) and self.edge_index.element_size() < 4:
            object.__setattr__(self, "edge_index", self.edge_index.long())

    def _refuse_bridges(self) -> None:
        found = bridges(self.edge_index, self.owner)
        if len(found):
            first = int(found[0])
            raise DataError(
                f"{len(found)} edges join two graphs of the batch, the first of them edge {first} from node "
                f"{int(self.edge_index[0, first])} to node {int(self.edge_index[1, first])}. Nodes are numbered "
                "through the whole batch: add to the node numbers of each graph the sizes of the graphs before it, or "
                "make the joined graphs one."
            )

    @classmethod
    def complete(cls, sizes: Tensor | Sequence[int]) -> GraphBatch:
        r"""Return graphs in which every node has an edge to every other node of its graph, and none to itself.

        Args:
            sizes: number of nodes of each graph, integers of shape `(B,)`.

        Returns:
            A batch with `sum n (n - 1)` edges of weight one, sorted; its `is_complete` is True, which lets graph
            layers use closed forms.

        Example:
            >>> GraphBatch.complete([2, 3]).edge_index
            tensor([[0, 1, 2, 2, 3, 3, 4, 4],
                    [1, 0, 3, 4, 2, 4, 2, 3]])
        """
        sizes = torch.as_tensor(sizes)
        if sizes.numel() == 0:
            sizes = sizes.long()
        if sizes.ndim != 1 or sizes.is_floating_point() or bool((sizes < 0).any()):
            raise ShapeError(f"GraphBatch.complete needs sizes (B,), integers from 0, got {_describe(sizes)}.")
        return cls._complete(sizes.long())

    @classmethod
    def _complete(cls, sizes: Tensor) -> GraphBatch:
        graph = object.__new__(cls)
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
        for name, value in {
            "sizes": sizes,
            "edge_weight": None,
            "is_complete": True,
            "in_pairs": False,
            "_owner": owner,
        }.items():
            object.__setattr__(graph, name, value)
        return graph

    def __getattr__(self, name: str) -> Tensor:
        # Asked for what is not there: of complete graphs that can be their edges.
        if name == "edge_index" and self.is_complete:
            return self.derived("complete edges", lambda graph: complete_edges(graph.sizes))
        raise AttributeError(f"A GraphBatch has no attribute '{name}'.")

    def undirected(self) -> GraphBatch:
        r"""Return the batch with every edge in both directions, and each once.

        Edges between the same two nodes, in either direction, become one pair of opposite edges with the largest of
        their weights. So weights of one stay one, a batch that is clean already keeps its edges, and doing it twice
        changes nothing. Self-loops are kept.

        Returns:
            The edges sorted by (from, to). Graphs known to be complete are returned as they are.

        Example:
            >>> graph = GraphBatch(torch.tensor([3]), torch.tensor([[0, 0, 1], [1, 1, 2]]), torch.tensor([1.0, 3, 2]))
            >>> graph.undirected().edge_index, graph.undirected().edge_weight
            (tensor([[0, 1, 1, 2],
                    [1, 0, 2, 1]]), tensor([3., 3., 2., 2.]))
        """
        if self.is_complete:
            return self
        graph = GraphBatch(self.sizes, *paired(self.edge_index, self.edge_weight, len(self.owner)))
        return graph.known_pairs()

    def known_pairs(self) -> GraphBatch:
        """Return the batch itself, whose edges the caller knows to be as `in_pairs` says: they are not checked."""
        object.__setattr__(self, "in_pairs", True)
        return self

    def edges_by_graph(self) -> list[tuple[Tensor, Tensor]]:
        """Return on the CPU the edges of each graph `(2, E_i)`, nodes numbered from 0, and which of all edges they are.

        Example:
            >>> pair, path = GraphBatch(torch.tensor([2, 3]), torch.tensor([[3, 0, 2], [4, 1, 3]])).edges_by_graph()
            >>> pair[0].tolist(), path[0].tolist(), path[1].tolist()
            ([[0], [1]], [[1, 0], [2, 1]], [0, 2])
        """
        edges, sizes = self.edge_index.cpu(), self.sizes.cpu()
        owner = self.owner.cpu()[edges[0]]
        parts = owner.argsort(stable=True).split(owner.bincount(minlength=len(sizes)).tolist())
        starts = (sizes.cumsum(0) - sizes).tolist()
        return [(edges[:, part] - start, part) for part, start in zip(parts, starts, strict=True)]

    def repeated(self, times: int) -> GraphBatch:
        """Return the graphs of the batch that many times, one batch behind the other."""
        sizes = self.sizes.repeat(times)
        if self.is_complete:
            return self._complete(sizes)
        offsets = len(self.owner) * torch.arange(times, device=self.edge_index.device)
        edges = (self.edge_index[:, None, :] + offsets[None, :, None]).flatten(1)
        graph = GraphBatch(sizes, edges, None if self.edge_weight is None else self.edge_weight.repeat(times))
        return graph.known_pairs() if self.in_pairs else graph

    def to(self, device: torch.device | str) -> GraphBatch:
        """Return the batch on a device: itself if it is there already, else a new object without derived values."""
        sizes = self.sizes.to(device)
        if self.is_complete:
            return self if sizes is self.sizes else self._complete(sizes)
        edge_index = self.edge_index.to(device)
        weight = None if self.edge_weight is None else self.edge_weight.to(device)
        if sizes is self.sizes and edge_index is self.edge_index and weight is self.edge_weight:
            return self
        moved = GraphBatch(sizes, edge_index, weight)
        return moved.known_pairs() if self.in_pairs else moved

    def derived(self, name: str, compute: Callable[[GraphBatch], T]) -> T:
        """Return a value that depends on the graphs alone, computed the first time it is asked for.

        It is a constant for automatic differentiation, and stays with this object: copies and pickles leave it behind.

        Args:
            name: what the value is called, unique among all uses; it holds whatever else the value depends on.
            compute: gives the value from the batch.
        """
        kept: dict[str, Any] = self.__dict__.setdefault("_derived", {})
        if name not in kept:
            if torch.compiler.is_compiling():
                raise UnsupportedError(
                    "A GraphBatch is looked at when a layer first meets it, which torch.compile cannot record. Call "
                    "the layer once on these graphs before compiling it."
                )
            # What inference mode makes could not be used in training later.
            with torch.inference_mode(mode=False), torch.no_grad():
                kept[name] = compute(self)
        return kept[name]

    @property
    def owner(self) -> Tensor:
        """For each node the number of its graph, shape `(N,)`."""
        return self._owner  # pyright: ignore[reportAttributeAccessIssue]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_derived"}


@dataclass(frozen=True, eq=False)
class Context:
    """What a batch is conditioned on.

    Attributes:
        condition: a tensor whose first axis runs with that of the batch, or None. With graphs it has a row for each
            node; a `Flow` also takes one row for each graph, where there are not as many graphs as nodes.
        structure: the graphs that the rows of the batch belong to, or None when each row is an item.
        temperature: factor on the standard deviation of normal distributions that are *sampled*;
            densities do not look at it. `Flow.sample(temperature=...)` sets it.
        must_be_read: whether a flow refuses a condition that no part of it reads. Layers that offer their own elements
            to a distribution, which may ignore them, switch it off.

    Raises:
        ConfigError: for a temperature that is negative or no number.
        UnsupportedError: for a structure that is no `GraphBatch`.
    """

    condition: Tensor | None = None
    structure: GraphBatch | None = None
    temperature: float = 1.0
    must_be_read: bool = True

    def __post_init__(self) -> None:
        if self.structure is not None and not isinstance(self.structure, GraphBatch):
            raise UnsupportedError(f"A Context takes a GraphBatch as structure, not a {type(self.structure).__name__}.")
        if not isinstance(self.temperature, Real) or not self.temperature >= 0:
            raise ConfigError(f"A temperature is a number from 0 on, got {self.temperature!r}.")


ContextLike = Context | Tensor | None


def as_context(context: ContextLike) -> Context:
    """Return None, a condition tensor or a `Context` as a `Context`."""
    if isinstance(context, Context):
        return context
    if context is None or isinstance(context, Tensor):
        return Context(condition=context)
    raise UnsupportedError(
        f"context is a {type(context).__name__}; it must be None, a tensor (the condition) or a Context."
    )


def with_condition(context: ContextLike, condition: Tensor | None) -> Context:
    """Return the same context with another condition."""
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
    # One by one in single precision, a million rounding errors would add up to nats; in half precision a hundred do.
    if len(rows) >= MANY and rows.device.type != "mps":
        wide = rows.double()
    else:
        wide = rows.float() if rows.is_floating_point() and rows.element_size() < 4 else rows
    return wide.new_zeros(len(structure)).index_add(0, structure.owner, wide).to(rows.dtype)


def sum_constant(value: Tensor, x: Tensor, context: ContextLike = None) -> Tensor:
    """Sum over each item a value that is the same at every row of `x`: `()` or `(rows,)` to `(items,)`."""
    return sum_items(value.expand(x.shape[0]), context)


def zero_log_det(x: Tensor, context: ContextLike = None) -> Tensor:
    """Return zero for each item, of integers in float32: the contribution of layers that keep volumes."""
    dtype = x.dtype if x.is_floating_point() else torch.float32
    return sum_constant(x.new_zeros((), dtype=dtype), x, context)


def join_condition(features: Tensor, context: ContextLike) -> Tensor:
    """Put the condition beside features along the channel axis (axis 1).

    A condition without positions is repeated over those of the features.

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
    if condition.ndim == 2:
        # One with some of the positions could be along any of them.
        condition = condition[(...,) + (None,) * (features.ndim - 2)].expand(-1, -1, *features.shape[2:])
    if condition.shape[2:] != features.shape[2:]:
        raise ShapeError(
            f"The condition has positions {tuple(condition.shape[2:])}, the input {tuple(features.shape[2:])}."
        )
    return torch.cat([features, condition.to(features.dtype)], 1)


def _counts(tensor: Tensor) -> bool:
    """Tell whether a tensor holds whole numbers; truth values are a mask."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"
