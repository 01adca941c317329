"""The validation of a fit: figures of the averaged weights, and the weights of a mixture that are chosen before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from likelify.data import Batch, Source
from likelify.fitting.feeding import at_once, by_weight, in_order
from likelify.fitting.mapped import MappedRows, can_map, log_likelihoods
from likelify.fitting.metrics import bits_per_dim
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow
from likelify.seeding import derived_seed, seeded

# Noise draws of a validation: as many as give about this many values, so that a small split is not judged by luck.
VALUES = 600
BATCH = 512
# Rows that an exact model is measured on at a time: they are small, and passes of many are quicker.
ROWS = 2048
# Validation items that the weights of a mixture are chosen by: enough for a handful of numbers.
STACKED = 5000


class Validation:
    """Measures a flow on the validation split, with the same noise each time.

    Args:
        source: the data.
        settings: of the fit.
        place: the processes; each takes its turns with the batches.
        conditional: give the labels to the model.
    """

    def __init__(self, source: Source, settings: FitSettings, place: OneProcess, *, conditional: bool) -> None:
        self.source, self.settings, self.place, self.conditional = source, settings, place, conditional
        self.size = settings.validated(source.size("validation"))
        self.rows: MappedRows | None = None

    def figures(self, flow: Flow) -> tuple[float, float]:
        """Return bits per dimension and nats; the weights of a mixture are chosen first."""
        place, own = self.place, {}
        exact = flow.likelihood == "exact"
        most = at_once(self.source, ROWS if exact and self.source.kind in ("table", "graph") else BATCH)
        numbers = range(math.ceil(self.size / most))
        samples = 1 if exact else max(1, VALUES // self.size)
        with place.together(), torch.no_grad(), flow.frozen(), self._noise(0):
            self._stack(flow)
            batches = self._batches(flow, most, self.size, place.rank, place.count)
            for number, batch in zip(numbers[place.rank :: place.count], batches, strict=True):
                context = batch.context(conditional=self.conditional)
                # The noise of items is theirs, whichever process draws it. Exact models have none, and seeding takes
                # longer than a batch of theirs.
                with nullcontext() if exact else self._noise(number):
                    nats = log_likelihoods(flow, batch, context, samples=samples)
                weights = torch.ones(len(nats)) if batch.weights is None else batch.weights.cpu()
                own[number] = nats.cpu(), batch.dims().cpu(), weights
        parts = {number: part for found in place.gather(own) for number, part in found.items()}
        nats, dims, weights = (torch.cat([parts[number][which] for number in numbers]) for which in range(3))
        return _mean(bits_per_dim(nats, dims), weights), _mean(nats, weights)

    def _noise(self, number: int) -> AbstractContextManager[None]:
        return seeded(derived_seed(self.settings.seed, "validation", number))

    def _stack(self, flow: Flow) -> None:
        """Choose the weights of a mixture on the first items, the same in all processes."""
        if not flow.base.stacks:
            return
        count = min(STACKED, self.size)
        batch = by_weight(next(self._batches(flow, count, count, 0, 1)))
        if self.rows is None:
            flow.stack(batch.x, batch.context(conditional=self.conditional))
        else:
            flow.base.stack(batch.x)

    def _batches(self, flow: Flow, batch: int, count: int, rank: int, processes: int) -> Iterator[Batch]:
        if self.rows is None and can_map(flow, self.source, "validation"):
            self.rows = MappedRows(flow, self.source, "validation")
        if self.rows is None:
            workers = self.settings.workers
            share = {"count": count, "workers": workers, "rank": rank, "processes": processes}
            yield from in_order(flow, self.source, "validation", batch, **share)
            return
        for start in range(rank * batch, count, processes * batch):
            yield self.rows.take(torch.arange(start, min(start + batch, count)))


def _mean(values: Tensor, weights: Tensor) -> float:
    # An item of weight zero counts for nothing, even where it is impossible.
    counts = weights > 0
    values, weights = values[counts], weights[counts].to(values)
    return float((values * weights).sum() / weights.sum())
