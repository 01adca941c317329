"""The batches of a fit: each a pure function of seed, step and process, so that a fit can go on anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from likelify.data import Batch, Source, SplitName
from likelify.data.ahead import read_ahead
from likelify.data.graphs import some_graphs
from likelify.fitting.checks import for_flow, read_for
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.seeding import Order, derived_seed

if TYPE_CHECKING:
    from likelify.fitting.mapped import MappedRows

# Items that a process reads at a time where they are put together afterwards.
PART = 64
# Elements of graphs that are worked on at a time, see `GraphFacts.elements`.
ELEMENTS = 2**18


class Feed:
    """What gives the loop its batches; as a context manager, so that whatever reads ahead ends with the block.

    Batches can be asked for in any order; in that of the steps they are read ahead where the source or the settings
    have workers.

    Args:
        flow: the model, for its device and dtype.
        source: the data.
        settings: of the fit.
        share: takes this process's part of the items of a batch, as `OneProcess.share`; by default all of them.

    Attributes:
        mapped: the training rows behind layers that are not trained, if they are to be mapped once.
    """

    def __init__(
        self,
        flow: Flow,
        source: Source,
        settings: FitSettings,
        *,
        share: Callable[[Tensor], Tensor] = lambda items: items,
    ) -> None:
        self.flow, self.source, self.settings, self.share = flow, source, settings, share
        self.size = source.size("train")
        self.batch_size = min(settings.batch_size, self.size)
        self.mapped: MappedRows | None = None
        self._order: tuple[int, Order] | None = None
        self._ahead: tuple[int, Generator[Batch]] | None = None

    def __enter__(self) -> Self:
        """Begin to feed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what reads ahead."""
        self._stop()

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step, as the flow takes it, or mapped by it already."""
        if self.mapped is not None:
            return self.mapped.take(self.indices(step))
        expected, batches = self._ahead or (None, None)
        if batches is None or expected != step:
            self._stop()
            parts = (self.indices(later) for later in range(step, max(step + 1, self.settings.steps)))
            batches = read_ahead(self.source, "train", parts, workers=self.settings.workers)
        # Where reading fails there is nothing to go on with.
        self._ahead = None
        batch = next(batches)
        self._ahead = step + 1, batches
        return for_flow(self.flow, batch)

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead[1].close()
        self._ahead = None

    def indices(self, step: int) -> Tensor:
        """Return the numbers of the items in this process's part of the batch of a step.

        Each epoch is a fresh permutation, of which whole batches are taken.
        """
        epoch, index = divmod(step, self.size // self.batch_size)
        return self.share(self._epoch(epoch).part(index * self.batch_size, self.batch_size))

    def _epoch(self, epoch: int) -> Order:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, Order(self.size, generator(self.settings.seed, "order", epoch))
        return self._order[1]


def at_once(source: Source, most: int) -> int:
    """Return how many items are worked on at a time: so many, or of large graphs fewer."""
    if source.graphs is None:
        return most
    return max(1, min(most, ELEMENTS // source.graphs.elements(math.prod(source.event_shape))))


def in_order(
    flow: Flow,
    source: Source,
    split: SplitName,
    size: int,
    *,
    count: int | None = None,
    workers: int | None = None,
    rank: int = 0,
    processes: int = 1,
) -> Generator[Batch]:
    """Read the first items of a split in batches of that size, as the flow takes them.

    Args:
        flow: the model, for its device and dtype.
        source: the data.
        split: of these.
        size: items of a batch; the last has what is left.
        count: how many items; all by default.
        workers: processes that read ahead; by default what suits the source.
        rank: number of this process.
        processes: that take turns with the batches.
    """
    count = source.size(split) if count is None else min(count, source.size(split))
    parts = (torch.arange(start, min(start + size, count)) for start in range(rank * size, count, processes * size))
    with closing(read_ahead(source, split, parts, workers=workers)) as batches:
        for batch in batches:
            yield for_flow(flow, batch)


def together(flow: Flow, source: Source, indices: Tensor, *, workers: int | None = None) -> Batch:
    """Read training items as one batch, by several processes where they take long."""
    if not (source.workers if workers is None else workers) or source.kind == "graph":
        return read_for(flow, source, "train", indices)
    parts = list(read_ahead(source, "train", indices.split(PART), workers=workers))
    labels, weights = (
        [given for part in parts if (given := getattr(part, name)) is not None] for name in ("labels", "weights")
    )
    whole = Batch(
        torch.cat([part.x for part in parts]),
        torch.cat(labels) if labels else None,
        weights=torch.cat(weights) if weights else None,
    )
    return for_flow(flow, whole)


def by_weight(batch: Batch) -> Batch:
    """Return the items of a batch as often as they weigh, for what counts items: as many in all, to one for each.

    How often an item is there is its share of the weights times the number of items, rounded down or up so that the
    sum is right at every item (systematic sampling from the middle of the steps).

    Example:
        >>> x, weights = torch.arange(4.0)[:, None], torch.tensor([2.0, 0.0, 0.5, 1.5])
        >>> by_weight(Batch(x, weights=weights)).x.flatten()
        tensor([0., 0., 2., 3.])
    """
    if batch.weights is None:
        return batch
    ends = batch.weights.double().cumsum(0)
    middles = (torch.arange(len(ends), dtype=ends.dtype, device=ends.device) + 0.5) * (ends[-1] / len(ends))
    taken = torch.searchsorted(ends, middles).clamp(max=len(ends) - 1)
    if batch.structure is not None:
        return some_graphs(batch, taken)
    return Batch(batch.x[taken], None if batch.labels is None else batch.labels[taken])


def generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a generator of its own for (seed, purpose, step)."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, step))
