"""Graphs of a run: features of nodes are drawn, the graphs are those of training items, complete ones, or given."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likelify.data import Batch, from_networkx, from_pyg
from likelify.data.graph_forms import is_pyg
from likelify.errors import ConfigError, LikelifyWarning
from likelify.fitting.drawing.draw import (
    CHUNK_ELEMENTS,
    CHUNK_ITEMS,
    Label,
    OnShare,
    as_stored,
    check_draws,
    check_seed,
    label_cycle,
)
from likelify.fitting.structures import Structures, joined_batches, structures_of
from likelify.seeding import chunk_seed, derived_seed, seeded
from likelify.shapes import check_size
from likelify.structure import GraphBatch

if TYPE_CHECKING:
    from likelify.fitting.run import Run

# Graphs that are drawn unless a number is given.
USUAL = 64


@dataclass(frozen=True, eq=False)
class Drafts:
    """The graphs of which features are to be drawn.

    Attributes:
        structures: among which they are.
        numbers: of each, `(draws,)`.
        labels: class of each draw, or None.
    """

    structures: Structures
    numbers: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def graph_chunks(
    run: Run,
    number: int | None = None,
    *,
    nodes: int | None = None,
    structure: Any = None,
    label: Label | Sequence[Label] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_share: OnShare | None = None,
) -> tuple[Iterator[Batch], int]:
    """Draw graphs, a chunk at a time; return how many there will be as well.

    Args:
        run: a fitted model of graphs.
        number: of samples, by default 64; of each graph where some are given, by default one.
        nodes: of each graph: complete ones where those of the data are, else such training graphs.
        structure: graphs whose features are drawn: a `GraphBatch`, or graphs of networkx.
        label: see `Run.sample`; a graph that is drawn for a class is one of that class.
        temperature: see `Flow.sample`.
        seed: of the choice of graphs and of the draws.
        on_share: called with the share that is drawn.

    Raises:
        ConfigError: if a number does not fit, there are no such graphs, or no such class.
        DataError: if the run keeps no graphs and its data are gone.
    """
    check_seed(seed)
    check_draws(1 if number is None else number, temperature)
    drafts = _drafts(run, number, nodes, structure, label, seed)
    return _drawn(run, drafts, temperature, seed, on_share), len(drafts)


def sample_graphs(run: Run, number: int | None = None, **settings: Any) -> Batch:
    """Draw graphs all at once; see `graph_chunks`."""
    return joined_batches(list(graph_chunks(run, number, **settings)[0]))


def _drafts(
    run: Run,
    number: int | None,
    nodes: int | None,
    structure: Any,
    label: Label | Sequence[Label] | None,
    seed: int,
) -> Drafts:
    classes = label_cycle(label, run.config.data, conditional=run.config.conditional)
    if structure is not None:
        if nodes is not None:
            raise ConfigError("Give either graphs (structure=) or a number of nodes (nodes=), not both.")
        given = Structures.of(as_graphs(structure))
        if not len(given):
            raise ConfigError("There are no graphs to draw features for.")
        numbers = torch.arange(len(given)).repeat_interleave(1 if number is None else number)
        return Drafts(given, numbers, _in_turn(classes, len(numbers)))
    count = USUAL if number is None else number
    labels, kept = _in_turn(classes, count), structures_of(run)
    if nodes is None:
        return Drafts(kept, kept.choose(count, _seed(seed), labels=labels), labels)
    nodes = check_size(nodes, "The number of nodes")
    if not kept.is_complete:
        return Drafts(kept, kept.choose(count, _seed(seed), nodes=nodes, labels=labels), labels)
    low, high = int(kept.sizes.min()), int(kept.sizes.max())
    if not low <= nodes <= high:
        seen = f"{low} nodes" if low == high else f"{low} to {high} nodes"
        warnings.warn(
            f"The model was fitted to graphs of {seen}; what it draws of {nodes} it has not learnt from data.",
            LikelifyWarning,
            stacklevel=6,
        )
    one = Structures(torch.tensor([nodes]))
    return Drafts(one, torch.zeros(count, dtype=torch.long), labels)


def as_graphs(given: Any) -> GraphBatch:
    """Return graphs that a user gives as a batch of them.

    Raises:
        ConfigError: if they are something else.
    """
    if isinstance(given, GraphBatch):
        return given
    if isinstance(given, Batch) and given.structure is not None:
        return given.structure
    # A graph of networkx gives its nodes where it is iterated over, and one of PyTorch Geometric its tensors.
    single = isinstance(given, str) or hasattr(given, "number_of_nodes") or is_pyg(given)
    graphs: list[Any] = list(given) if isinstance(given, Iterable) and not single else [given]
    for belongs, read in ((lambda graph: hasattr(graph, "number_of_nodes"), from_networkx), (is_pyg, from_pyg)):
        if graphs and all(map(belongs, graphs)):
            structure = read(graphs, features=()).structure
            if structure is not None:
                return structure
    raise ConfigError(
        f"A structure is a GraphBatch, or graphs of networkx or PyTorch Geometric, got {type(given).__name__}."
    )


def _seed(seed: int) -> int:
    return derived_seed(seed, "graphs of samples", 0)


def _in_turn(classes: Sequence[int] | None, count: int) -> Tensor | None:
    return None if classes is None else torch.tensor(classes)[torch.arange(count) % len(classes)]


def _drawn(run: Run, drafts: Drafts, temperature: float, seed: int, on_share: OnShare | None) -> Iterator[Batch]:
    # Not before it is asked for: what is wrong is said first.
    flow, facts, done = run.flow(), run.config.data, 0
    size = max(1, min(CHUNK_ITEMS, CHUNK_ELEMENTS // drafts.structures.largest))
    for number, part in enumerate(drafts.numbers.split(size)):
        labels = None if drafts.labels is None else drafts.labels[done : done + len(part)]
        batch = Batch(torch.empty(0), labels, drafts.structures.take(part))
        with seeded(chunk_seed(seed, number)), flow.frozen():
            drawn = flow.sample((), batch.context(conditional=labels is not None), temperature=temperature)
        done += len(part)
        if on_share is not None:
            on_share(done / len(drafts))
        yield Batch(as_stored(drawn, facts), labels, batch.structure)
