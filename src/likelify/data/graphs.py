"""Graphs as items: the nodes of many graphs in memory, read by the number of the graph."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from likelify.data.facts import SPLITS, GraphFacts, SplitName, count_sizes
from likelify.data.source import Batch, Parts, Source, require_split, require_splits, shuffled, sizes_of, taken
from likelify.data.values import class_labels, plain_array, require_usual
from likelify.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.structure import GraphBatch


@dataclass(frozen=True, eq=False)
class GraphItems:
    """Graphs side by side, as arrays: the nodes of each are consecutive, and nodes are numbered through all of them.

    What it holds is looked at when it is made part of a `GraphSource`.

    Attributes:
        x: features of the nodes, real numbers `(nodes, *features)`.
        sizes: number of nodes of each graph, `(graphs,)`, at least one each.
        edges: `(2, E)`, from and to, each edge in both directions and once; None for complete graphs, such as sets of
            points.
        edge_weight: `(E,)`, at least 0 and the same in both directions; None if all are one.
        labels: class of each graph `(graphs,)`, or None.
        names: what the graphs are called, such as ids of a file, or None.
    """

    x: Any
    sizes: Any
    edges: Any = None
    edge_weight: Any = None
    labels: Any = None
    names: Sequence[str] | None = None

    @classmethod
    def of(cls, batches: Sequence[Batch], names: Sequence[str] | None = None) -> GraphItems:
        """Return the graphs of batches, at least one, one after the other; of complete graphs no edges."""
        graphs = [batch.structure for batch in batches if batch.structure is not None]
        sizes = np.concatenate([part.sizes.cpu().numpy() for part in graphs])
        x = np.concatenate([batch.x.detach().cpu().numpy() for batch in batches])
        labels = [batch.labels.cpu().numpy() for batch in batches if batch.labels is not None]
        kept = np.concatenate(labels) if labels else None
        if all(part.is_complete for part in graphs):
            return cls(x, sizes, labels=kept, names=names)
        counts = np.array([len(part.owner) for part in graphs])
        starts = np.cumsum(counts) - counts
        edges = [part.edge_index.cpu().numpy() + first for part, first in zip(graphs, starts, strict=True)]
        weights = [
            np.ones(part.edge_index.shape[1]) if part.edge_weight is None else part.edge_weight.cpu().numpy()
            for part in graphs
        ]
        weighted = any(part.edge_weight is not None for part in graphs)
        weight = np.concatenate(weights) if weighted else None
        return cls(x, sizes, np.concatenate(edges, 1), weight, kept, names)


class GraphSource(Source):
    """Graphs in memory, each an item with a likelihood of its own: features of the nodes, given the edges.

    Edges are undirected. Graphs whose every node has an edge to every other are read as `GraphBatch.complete`, which
    lets layers use closed forms and makes no list of edges before one is asked for.

    Args:
        name: see `Facts`, as classes, class_names and description.
        splits: for each split its graphs; the test split may be left out.
        columns: what the features of a node are called, where they have one axis.

    Raises:
        DataError: if a split is missing or its arrays do not fit; the message says all that is wrong with it.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> some = GraphItems(rng.normal(size=(6, 2)), [1, 2, 3])
        >>> source = GraphSource("points", {"train": some, "validation": some})
        >>> batch = source.read_all("train")
        >>> len(batch), batch.x.shape, batch.structure.sizes, batch.structure.is_complete
        (3, torch.Size([6, 2]), tensor([1, 2, 3]), True)
    """

    kind = "graph"

    def __init__(
        self,
        name: str,
        splits: Mapping[SplitName, GraphItems],
        *,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        description: str = "",
    ) -> None:
        require_splits(name, splits)
        for split in ("train", "validation"):
            if split not in splits:
                raise DataError(f"'{name}' has no split '{split}'.")
        self.name, self.description = name, description
        held = {id(part): _Held(f"The split '{split}' of '{name}'", part) for split, part in splits.items()}
        self._splits = {split: held[id(part)] for split, part in splits.items()}
        self.event_shape = tuple(self._splits["train"].x.shape[1:])
        self.columns = None if columns is None else tuple(columns)
        self.class_names = None if class_names is None else tuple(class_names)
        for split, part in self._splits.items():
            if tuple(part.x.shape[1:]) != self.event_shape:
                raise DataError(
                    f"The nodes of the split '{split}' of '{name}' have features {tuple(part.x.shape[1:])}, those of "
                    f"'train' {self.event_shape}."
                )
        self.classes = self._classes(classes)
        self.graphs = GraphFacts(
            complete=all(part.complete for part in self._splits.values()),
            weighted=any(part.weight is not None for part in self._splits.values()),
            sizes=count_sizes(self._splits["train"].sizes.numpy()),
            centred=bool(centred_features(self._splits["train"].x, self._splits["train"].sizes).all()),
        )

    @classmethod
    def cut(cls, name: str, items: GraphItems, parts: Parts, **facts: Any) -> Self:
        """Make a source of graphs that are cut into parts: for each split the numbers of its graphs."""
        held = _Held(f"'{name}'", items)
        if held.labels is not None:
            facts = {"classes": int(held.labels.max()) + 1} | facts
        return cls(name, {split: held.some(part) for split, part in parts.items()}, **facts)

    def _classes(self, classes: int | None) -> int | None:
        found = [part.labels for part in self._splits.values() if part.labels is not None]
        if found and len(found) < len(self._splits):
            raise DataError(f"Some splits of '{self.name}' have labels and others none.")
        most = max((int(labels.max()) + 1 for labels in found), default=None)
        if classes is not None and (most is None or most > classes):
            what = "no labels" if most is None else f"labels up to {most - 1}"
            raise DataError(f"'{self.name}' is said to have {classes} classes, and has {what}.")
        return classes or most

    def size(self, split: SplitName) -> int:
        """Return the number of graphs of a split."""
        require_split(split)
        return len(self._splits[split].sizes) if split in self._splits else 0

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the graphs with these numbers."""
        require_split(split)
        if split in self._splits:
            return self._splits[split].read(self, split, indices)
        return self._splits["train"].read(self, "train", indices[:0])

    def node_counts(self, split: SplitName) -> Tensor:
        """Return the number of nodes of each graph of a split, integers `(graphs,)`."""
        require_split(split)
        return self._splits[split].sizes if split in self._splits else self._splits["train"].sizes[:0]

    def item_names(self, split: SplitName) -> Sequence[str] | None:
        """Return what the graphs of a split are called, or None."""
        require_split(split)
        return self._splits[split].names if split in self._splits else None

    def fingerprint(self) -> str:
        """Hash features, sizes, edges, weights and labels of all splits."""
        digest = hashlib.sha256(repr(self.event_shape).encode())
        for split in SPLITS:
            digest.update(f"{split} {self.size(split)}".encode())
            for array in self._splits[split].arrays() if split in self._splits else ():
                digest.update(array.tobytes())
        return digest.hexdigest()[:16]


def graph_source(items: GraphItems, *, name: str = "graphs", description: str = "", **facts: Any) -> GraphSource:
    """Make a source of graphs that are cut into splits by `shuffled`: the last tenth tests, that before it validates.

    A graph is in one split as a whole.

    Args:
        items: the graphs, at least 10.
        name: of the source.
        description: where they come from.
        **facts: see `GraphSource`.

    Raises:
        DataError: if there are fewer, or they do not fit.
    """
    count = len(plain_array(items.sizes, f"The sizes of '{name}'"))
    require_several(count, f"'{name}'")
    parts = shuffled(count, validation=max(1, count // 10), test=max(1, count // 10))
    said = f"{description + '; ' if description else ''}{sizes_of(parts)} graphs by default_rng(0).permutation"
    return GraphSource.cut(name, items, parts, description=said, **facts)


def require_several(count: int, what: str, least: int = 10) -> None:
    """Refuse so few graphs that none can be held out.

    Raises:
        DataError: saying what can be done instead.
    """
    if count >= least:
        return
    raise DataError(
        f"{what} holds {count} {'graph' if count == 1 else 'graphs'}, and at least {least} are needed: a graph is one "
        "item, and some have to be held out to measure the model on. If one large graph is meant as many, number its "
        "parts, such as connected components or neighbourhoods, as graphs of their own; if these few are all there is, "
        "say in Python which is for what: lk.data.GraphSource(name, {'train': ..., 'validation': ...})."
    )


def batch_of(items: GraphItems) -> Batch:
    """Return all graphs as one batch; the nodes may be without features.

    Raises:
        DataError: if the arrays do not fit.
    """
    import torch

    return _Held("The graphs", items, bare=True).take(torch.arange(len(items.sizes)))


def some_graphs(batch: Batch, numbers: Tensor) -> Batch:
    """Return the graphs of a batch with these numbers, in their order and as often as they are named; no weights."""
    return _Held("The graphs", GraphItems.of([batch])).take(numbers.cpu()).to(batch.x.device)


def packed(graphs: GraphBatch | None) -> dict[str, np.ndarray]:
    """Return graphs as arrays by name, to be sent to another process; of complete ones only their sizes."""
    if graphs is None:
        return {}
    if graphs.is_complete:
        return {"sizes": graphs.sizes.numpy()}
    weight = {} if graphs.edge_weight is None else {"edge_weight": graphs.edge_weight.numpy()}
    return {"sizes": graphs.sizes.numpy(), "edge_index": graphs.edge_index.numpy(), **weight}


def unpacked(arrays: Mapping[str, np.ndarray]) -> GraphBatch | None:
    """Return the graphs that `packed` made arrays of; None where there are none."""
    import torch

    from likelify.structure import GraphBatch

    found = {name: torch.from_numpy(arrays[name]) for name in ("sizes", "edge_index", "edge_weight") if name in arrays}
    if not found:
        return None
    return GraphBatch(**found) if "edge_index" in found else GraphBatch.complete(found["sizes"])


# Means of graphs, in multiples of the spread of the features, up to which these are centred: positions that were, and
# were then written with four digits or more.
CENTRED = 1e-4


def centred_features(x: Tensor, sizes: Tensor) -> Tensor:
    """Tell which features have mean zero in every graph, up to rounding, `features`; none of graphs of a single node.

    Args:
        x: of all nodes, `(nodes, *features)`.
        sizes: number of nodes of each graph.
    """
    import torch

    sums = torch.segment_reduce(x.double(), "sum", lengths=sizes, axis=0)
    spread = x.double().abs().mean(0)
    return (sums.abs() <= CENTRED * sizes.reshape(-1, *(1,) * (x.ndim - 1)) * spread).all(0) & (sizes > 1).any()


@lru_cache(maxsize=64)
def complete_graphs(count: int, nodes: int) -> GraphBatch:
    """Return that many complete graphs of that many nodes, the same object whenever it is asked for.

    What layers derive from the graphs (`GraphBatch.derived`) is then computed once for all batches of a fit.
    """
    import torch

    from likelify.structure import GraphBatch

    with torch.inference_mode(mode=False):
        return GraphBatch.complete(torch.full((count,), nodes))


class _Held:
    """Checked graphs as tensors, with what reading them by number needs."""

    def __init__(self, what: str, items: GraphItems, *, bare: bool = False) -> None:
        import torch

        x, sizes, edges, weight, labels = _checked(what, items, bare=bare)
        self.names = None if items.names is None else list(items.names)
        kept = np.float32 if x.dtype == np.float32 else np.float64
        self.x = torch.from_numpy(np.array(x, dtype=kept, order="C"))
        self.sizes = torch.from_numpy(sizes)
        self.labels = None if labels is None else torch.from_numpy(labels)
        self.starts = self.sizes.cumsum(0) - self.sizes
        # Of graphs of one size whole blocks are read.
        self.nodes = int(sizes[0]) if (sizes == sizes[0]).all() else None
        self.complete, self.weight = edges is None or _is_complete(sizes, edges, weight), None
        self.local = torch.empty(2, 0, dtype=torch.long)
        if edges is None or self.complete:
            return
        owner = np.repeat(np.arange(len(sizes)), sizes)[edges[0]]
        # As they stand in the batches too, so that nobody has to sort them again.
        order = np.argsort(edges[0] * len(self.x) + edges[1], kind="stable")
        starts = self.starts.numpy()
        self.local = torch.from_numpy(np.ascontiguousarray((edges - starts[owner])[:, order]))
        self.edge_counts = torch.from_numpy(np.bincount(owner, minlength=len(sizes)))
        self.edge_starts = self.edge_counts.cumsum(0) - self.edge_counts
        self.weight = None if weight is None else torch.from_numpy(weight[order])

    def read(self, source: Source, split: SplitName, indices: Tensor) -> Batch:
        """Read the graphs with these numbers as a batch."""
        taken(source, split, self.sizes, indices)
        return self.take(indices)

    def take(self, indices: Tensor) -> Batch:
        """Take the graphs with these numbers, which there are."""
        sizes = self.sizes[indices]
        if self.nodes is None:
            x = self.x[_ranges(self.starts[indices], sizes)]
        else:
            x = self.x.unflatten(0, (len(self.sizes), self.nodes))[indices].flatten(0, 1)
        labels = None if self.labels is None else self.labels[indices]
        return Batch(x, labels, self._structure(sizes, indices))

    def _structure(self, sizes: Tensor, indices: Tensor) -> GraphBatch:
        from likelify.structure import GraphBatch

        if self.complete:
            return GraphBatch.complete(sizes) if self.nodes is None else complete_graphs(len(sizes), self.nodes)
        counts = self.edge_counts[indices]
        places = _ranges(self.edge_starts[indices], counts)
        edges = self.local[:, places] + (sizes.cumsum(0) - sizes).repeat_interleave(counts)
        return GraphBatch(sizes, edges, None if self.weight is None else self.weight[places]).known_pairs()

    def some(self, numbers: np.ndarray) -> GraphItems:
        """Return the graphs with these numbers as arrays."""
        import torch

        batch = self.take(torch.from_numpy(np.asarray(numbers, dtype=np.int64)))
        return GraphItems.of([batch], None if self.names is None else [self.names[number] for number in numbers])

    def arrays(self) -> list[np.ndarray]:
        """Return what makes the graphs what they are."""
        # Nodes are numbered in their graph, so that it counts which one an edge is of.
        counts = None if self.complete else self.edge_counts
        kept = (self.x, self.sizes, counts, self.local, self.weight, self.labels)
        return [np.ascontiguousarray(tensor.numpy()) for tensor in kept if tensor is not None]


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """Return the numbers `start .. start + count - 1` of each range, one after the other."""
    import torch

    total = int(counts.sum())
    shift = starts - (counts.cumsum(0) - counts)
    return torch.arange(total) + shift.repeat_interleave(counts, output_size=total)


def _is_complete(sizes: np.ndarray, edges: np.ndarray, weight: np.ndarray | None) -> bool:
    """Tell whether edges, each there once in both directions, join every two nodes of each graph and none to itself."""
    all_of_them = int((sizes * (sizes - 1)).sum())
    return weight is None and edges.shape[1] == all_of_them and not (edges[0] == edges[1]).any()


Checked = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None, np.ndarray | None]


def _checked(what: str, items: GraphItems, *, bare: bool) -> Checked:
    """Return the arrays of graphs, or refuse them with all that is wrong."""
    if not isinstance(items, GraphItems):
        raise DataError(f"{what} must be lk.data.GraphItems(x, sizes, ...), got a {type(items).__name__}.")
    x = plain_array(items.x, f"{what}: the features of the nodes")
    sizes = plain_array(items.sizes, f"{what}: the sizes of the graphs")
    faults = _of_nodes(x, sizes, bare=bare)
    edges = weight = labels = None
    if items.edges is not None:
        edges = plain_array(items.edges, f"{what}: the edges")
        edges = edges.astype(np.int64) if edges.size == 0 and edges.ndim == 2 else edges
        faults += _of_shapes(edges)
    if items.edge_weight is not None:
        weight = plain_array(items.edge_weight, f"{what}: the weights of the edges").astype(np.float64)
        faults += _of_weights(weight, edges)
    if edges is not None and not faults:
        edges, sizes = edges.astype(np.int64), sizes.astype(np.int64)
        faults += _of_edges(edges, sizes, weight)
    if items.labels is not None and sizes.ndim == 1:
        labels = class_labels(items.labels, len(sizes))
    if items.names is not None and len(items.names) != len(sizes):
        faults.append(f"there are {len(items.names)} names for {len(sizes)} graphs.")
    if faults:
        raise DataError(f"{what}: {' '.join(faults)}")
    require_usual(f"{what}: the nodes", x)
    return x, sizes.astype(np.int64), edges, weight, labels


def _of_nodes(x: np.ndarray, sizes: np.ndarray, *, bare: bool) -> list[str]:
    if x.ndim < 2 or not (bare or math.prod(x.shape[1:])):
        return [f"features of nodes have the shape (nodes, features), got {x.shape}."]
    faults = []
    if x.dtype.kind != "f":
        faults.append(
            f"features of nodes are {x.dtype}; a density is one of real numbers. Give x.astype(float) if they are "
            "measurements that happen to be whole; classes and counts belong elsewhere."
        )
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or not len(sizes):
        return [*faults, f"sizes are the numbers of nodes, integers (graphs,), got {sizes.dtype} of {sizes.shape}."]
    if sizes.min() < 1:
        faults.append(f"graph {int(sizes.argmin())} has {sizes.min()} nodes; leave out graphs without nodes.")
    if sizes.sum() != len(x):
        faults.append(f"the sizes add up to {sizes.sum()} nodes, and there are features of {len(x)}.")
    return faults


def _of_shapes(edges: np.ndarray) -> list[str]:
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        hint = " Transpose them: edges.T." if edges.ndim == 2 and edges.shape[1] == 2 else ""
        return [f"edges are integers of shape (2, E), got {edges.dtype} of {edges.shape}.{hint}"]
    return []


def _of_weights(weight: np.ndarray, edges: np.ndarray | None) -> list[str]:
    if edges is None:
        return ["there are weights of edges and no edges."]
    if weight.shape != edges.shape[1:]:
        return [f"there are {edges.shape[-1]} edges and weights of shape {weight.shape}."]
    if not (np.isfinite(weight) & (weight >= 0)).all():
        return ["weights of edges must be finite, none below 0."]
    return []


def _of_edges(edges: np.ndarray, sizes: np.ndarray, weight: np.ndarray | None) -> list[str]:
    """Return what is wrong with edges: strange nodes, bridges between graphs, doubles, one direction alone."""
    nodes = int(sizes.sum())
    if edges.size and not 0 <= edges.min() <= edges.max() < nodes:
        return [f"edges name nodes from {edges.min()} to {edges.max()}, and there are the nodes 0 to {nodes - 1}."]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    bridges = np.flatnonzero(owner[edges[0]] != owner[edges[1]])
    if len(bridges):
        start, end = edges[:, bridges[0]]
        return [
            f"{len(bridges)} edges join two graphs, the first of them node {start} of graph {owner[start]} to node "
            f"{end} of graph {owner[end]}. Nodes are numbered through all graphs: add to those of a graph the sizes of "
            "the graphs before it."
        ]
    forth, back = edges[0] * nodes + edges[1], edges[1] * nodes + edges[0]
    order, opposite = np.argsort(forth, kind="stable"), np.argsort(back, kind="stable")
    double = np.flatnonzero(np.diff(forth[order]) == 0)
    if len(double):
        start, end = edges[:, order[double[0]]]
        return [
            f"{len(double)} edges are there more than once, such as that from node {start} to node {end}. Give each "
            "once in each direction, with the sum of the weights where that is meant."
        ]
    alone = np.flatnonzero(~np.isin(forth, back))
    if len(alone):
        start, end = edges[:, alone[0]]
        return [
            f"{len(alone)} edges go in one direction only, such as that from node {start} to node {end}: models here "
            "are of undirected graphs. If that is what they are, give both directions: "
            "np.concatenate([edges, edges[::-1]], 1); directions cannot be kept."
        ]
    if weight is not None and not np.array_equal(weight[order], weight[opposite]):
        first = int(np.flatnonzero(weight[order] != weight[opposite])[0])
        start, end = edges[:, order[first]]
        return [f"the edge between the nodes {start} and {end} weighs differently in its two directions."]
    return []
