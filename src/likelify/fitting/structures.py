"""The graphs that samples of a run have: how many nodes and which edges, as training graphs had them.

A model of graphs describes the features of nodes given the graph, so something else has to say which graphs are drawn:
graphs of the training split. Of complete graphs without classes the facts of the data have all that there is to know;
of others a run keeps a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Facts, Source
from likelify.errors import ConfigError, DataError, RunError, ShapeError
from likelify.fitting.files import regular, write_atomically
from likelify.structure import GraphBatch

if TYPE_CHECKING:
    from likelify.fitting.run import Run

FILE, ABOUT = "structures.safetensors", "likelify.about"
# Graphs that are kept, edges of them all together, and graphs that are read at a time.
MOST_KEPT, MOST_EDGES, PASS = 4096, 2**20, 64
# Bytes of a file of them beside their numbers, and what it holds.
HEADER, NAMES = 2**16, ("sizes", "edge_index", "edge_weight", "labels")
# Nodes of a complete graph, of which a file of another origin could name any number.
MOST_NODES = 2**20
# Sizes that a refusal names.
NAMED = 12


@dataclass(frozen=True, eq=False)
class Structures:
    """Graphs without the features of their nodes, of which some are taken.

    Attributes:
        sizes: number of nodes of each, `(graphs,)`.
        edge_index: `(2, edges)`, nodes being numbered through all graphs; None where each two nodes are joined.
        edge_weight: of each edge, or None.
        labels: class of each graph, or None.
    """

    sizes: Tensor
    edge_index: Tensor | None = None
    edge_weight: Tensor | None = None
    labels: Tensor | None = None

    @staticmethod
    def of(graphs: GraphBatch, labels: Tensor | None = None) -> Structures:
        """Return the graphs of a batch."""
        edges = (None, None) if graphs.is_complete else (graphs.edge_index, graphs.edge_weight)
        return Structures(graphs.sizes, *edges, labels)

    @staticmethod
    def joined(parts: Sequence[Structures]) -> Structures:
        """Put graphs together; where some have edges, those of complete ones are written out."""
        if not all(part.is_complete for part in parts):
            parts = [_with_edges(part) for part in parts]
        first = np.cumsum([0, *(int(part.sizes.sum()) for part in parts)]).tolist()
        edges = [part.edge_index + at for part, at in zip(parts, first, strict=False) if part.edge_index is not None]
        return Structures(
            torch.cat([part.sizes for part in parts]),
            torch.cat(edges, 1) if edges else None,
            _together([part.edge_weight for part in parts]),
            _together([part.labels for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def is_complete(self) -> bool:
        """Whether each two nodes of a graph are joined."""
        return self.edge_index is None

    def within(self, edges: int) -> Structures:
        """Return the first graphs, before there are more edges than that; of complete graphs all."""
        if self.edge_index is None:
            return self
        fit = int((self._edges[1].cumsum(0) <= edges).sum())
        if fit == len(self):
            return self
        first = self.take(torch.arange(fit))
        return Structures.of(first, None if self.labels is None else self.labels[:fit])

    @property
    def largest(self) -> int:
        """Nodes and edges of the largest graph, which bound how many are drawn at a time."""
        if not len(self):
            return 1
        edges = self.sizes * (self.sizes - 1) if self.edge_index is None else self._edges[1]
        return int((self.sizes + edges).max())

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the edges graph after graph, their number in each graph, and where those of a graph begin."""
        starts = torch.empty(0, dtype=torch.long) if self.edge_index is None else self.edge_index[0]
        owner = torch.repeat_interleave(torch.arange(len(self)), self.sizes)[starts]
        counts = torch.bincount(owner, minlength=len(self))
        return owner.argsort(stable=True), counts, counts.cumsum(0) - counts

    def take(self, numbers: Tensor) -> GraphBatch:
        """Return the graphs with these numbers, some of them perhaps several times."""
        sizes = self.sizes[numbers]
        if self.edge_index is None:
            return GraphBatch.complete(sizes)
        order, all_counts, begins = self._edges
        counts, starts = all_counts[numbers], self.sizes.cumsum(0) - self.sizes
        within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        places = order[begins[numbers].repeat_interleave(counts) + within]
        moved = (sizes.cumsum(0) - sizes - starts[numbers]).repeat_interleave(counts)
        weight = None if self.edge_weight is None else self.edge_weight[places]
        return GraphBatch(sizes, self.edge_index[:, places] + moved, weight)

    def choose(self, number: int, seed: int, *, nodes: int | None = None, labels: Tensor | None = None) -> Tensor:
        """Choose graphs at random, with replacement; return their numbers.

        Args:
            number: of graphs.
            seed: of the choice.
            nodes: only graphs of that size.
            labels: class of each graph that is chosen; it is one of that class, where classes are known.

        Raises:
            ConfigError: if there is no graph of that size, or of a class.
        """
        uniform = torch.from_numpy(np.random.default_rng(seed).random(number))
        wanted = torch.ones(len(self), dtype=torch.bool) if nodes is None else self.sizes == nodes
        if self.labels is None or labels is None:
            return _among(wanted, uniform, self._refusal(nodes))
        chosen = torch.zeros(number, dtype=torch.long)
        for label in torch.unique(labels):
            here = labels == label
            chosen[here] = _among(wanted & (self.labels == label), uniform[here], self._refusal(nodes, int(label)))
        return chosen

    def _refusal(self, nodes: int | None, label: int | None = None) -> str:
        of_class = self.sizes if label is None or self.labels is None else self.sizes[self.labels == label]
        found = torch.unique(of_class).tolist()
        sizes = ", ".join(map(str, found[:NAMED])) + (", ..." if len(found) > NAMED else "")
        of = "" if nodes is None else f" of {nodes} nodes"
        of += "" if label is None else f" of class {label}"
        of_it = "Training graphs" if label is None else "Those of it"
        among = f" {of_it} have {sizes} nodes." if found else ""
        return (
            f"The run keeps no training graph{of}, and the edges of such graphs have to come from somewhere.{among} "
            "In Python any graphs can be given: run.sample(structure=...)."
        )


def _among(wanted: Tensor, uniform: Tensor, refusal: str) -> Tensor:
    places = wanted.nonzero()[:, 0]
    if not len(places):
        raise ConfigError(refusal)
    return places[(uniform * len(places)).long().clamp(max=len(places) - 1)]


def _with_edges(part: Structures) -> Structures:
    if part.edge_index is not None:
        return part
    return replace(part, edge_index=GraphBatch.complete(part.sizes).edge_index)


def _together(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known and len(known) == len(parts) else None


def feature_names(facts: Facts) -> tuple[str, ...]:
    """Return the names of the features of a node, made up where the data have none."""
    size = int(np.prod(facts.event_shape, dtype=int))
    return facts.columns or tuple(f"x{number + 1}" for number in range(size))


def joined_batches(batches: Sequence[Batch]) -> Batch:
    """Put batches of graphs together."""
    parts = [Structures.of(batch.structure, batch.labels) for batch in batches if batch.structure is not None]
    whole = Structures.joined(parts)
    graphs = whole.take(torch.arange(len(whole)))
    return Batch(torch.cat([batch.x for batch in batches]), whole.labels, graphs)


def graphs_at(batch: Batch, numbers: Tensor) -> Batch:
    """Return the graphs of a batch with these numbers, with the features of their nodes.

    Raises:
        DataError: if it is a batch of something else.
    """
    if batch.structure is None:
        raise DataError("The batch holds no graphs.")
    whole = Structures.of(batch.structure, batch.labels)
    sizes, starts = whole.sizes[numbers], whole.sizes.cumsum(0) - whole.sizes
    within = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    labels = None if batch.labels is None else batch.labels[numbers]
    return Batch(batch.x[starts[numbers].repeat_interleave(sizes) + within], labels, whole.take(numbers))


def some_structures(source: Source) -> Structures:
    """Return training graphs of a source in a random order: so many that their number and their edges are bounded.

    None of them if the edges of the first one are too many already.
    """
    size = source.size("train")
    chosen = torch.from_numpy(np.random.default_rng(0).choice(size, min(size, MOST_KEPT), replace=False))
    parts: list[Structures] = []
    left = MOST_EDGES
    for numbers in chosen.split(PASS):
        batch = source.read("train", numbers)
        if batch.structure is None:
            raise DataError(f"The source '{source.name}' is one of graphs, and reads batches without them.")
        found = Structures.of(batch.structure, batch.labels)
        parts.append(found.within(left))
        left -= 0 if parts[-1].edge_index is None else parts[-1].edge_index.shape[1]
        if len(parts[-1]) < len(found):
            break
    return Structures.joined(parts)


def keep_structures(run: Run, source: Source) -> None:
    """Keep training graphs in a run that is about to be fitted, if its items are graphs and their sizes are not all.

    Raises:
        RunError: if they cannot be written.
    """
    if source.kind != "graph" or _of_sizes(run.config.data) is not None:
        return
    from safetensors.torch import save

    found = some_structures(source)
    tensors = {name: getattr(found, name) for name in NAMES if getattr(found, name) is not None}
    content = {name: _as_kept(values) for name, values in tensors.items()}
    write_atomically(run.path / FILE, save(content, metadata={ABOUT: source.fingerprint()}))


def _as_kept(values: Tensor) -> Tensor:
    return (values if values.is_floating_point() else values.to(torch.int32)).contiguous()


def _of_sizes(facts: Facts) -> Structures | None:
    """Return complete graphs, as many of each size as there are shares of it; None where sizes are not all."""
    if facts.graphs is None or not facts.graphs.complete or facts.classes is not None:
        return None
    sizes = sorted(facts.graphs.sizes)
    ends = np.cumsum([float(facts.graphs.sizes[size]) for size in sizes])
    number = int(min(ends[-1], MOST_KEPT))
    places = np.searchsorted(ends, (np.arange(number) + 0.5) * (ends[-1] / number))
    return Structures(torch.tensor(sizes)[torch.from_numpy(places)])


def structures_of(run: Run) -> Structures:
    """Return training graphs of a run: what is known of them, those that it keeps, or else those of its data.

    Raises:
        DataError: if there are none, and the data cannot be opened again.
        RunError: if the file of them is damaged.
    """
    kept = _of_sizes(run.config.data) or _read(run)
    if kept is None:
        kept = some_structures(run.source())
    if not len(kept):
        raise DataError(
            f"The training graphs of '{run.path}' have more than {MOST_EDGES:,} edges each, and a run keeps no such "
            "graphs. Say which graphs samples should have: run.sample(structure=...), in Python."
        )
    return kept


def _read(run: Run) -> Structures | None:
    """Return the graphs that a run keeps; None if it keeps none of its data."""
    from safetensors import SafetensorError, safe_open

    file = run.path / FILE
    try:
        if regular(file).stat().st_size > HEADER + 4 * (2 * MOST_KEPT + 3 * MOST_EDGES):
            raise RunError(f"'{file}' is larger than any file of graphs that likelify writes.")
        with safe_open(file, framework="pt") as content:
            if (content.metadata() or {}).get(ABOUT) != run.config.data.fingerprint:
                return None
            tensors = {name: content.get_tensor(name) for name in content.keys() if name in NAMES}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise RunError(f"'{file}' cannot be read: {error}") from error
    return _checked(file, tensors)


def _checked(file: Path, tensors: Mapping[str, Tensor]) -> Structures:
    whole = {name: values if values.is_floating_point() else values.long() for name, values in tensors.items()}
    sizes, edges, labels = (whole.get(name) for name in ("sizes", "edge_index", "labels"))
    if (
        sizes is None
        or sizes.ndim != 1
        or len(sizes) > MOST_KEPT
        or (labels is not None and labels.shape != sizes.shape)
    ):
        raise RunError(f"'{file}' does not hold graphs: sizes and labels do not fit.")
    if bool((sizes < 0).any()) or (edges is None and bool((sizes > MOST_NODES).any())):
        raise RunError(f"'{file}' holds graphs of sizes that cannot be.")
    if edges is not None:
        try:
            GraphBatch(sizes, edges, whole.get("edge_weight"))
        except (ShapeError, DataError) as error:
            raise RunError(f"'{file}' does not hold graphs: {error}") from error
    return Structures(**whole)
