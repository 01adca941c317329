"""The validation of a fit: figures of the averaged weights, and the weights of a mixture that are chosen before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from likelify.data import Batch, Source
from likelify.errors import DataError
from likelify.fitting.feeding import at_once, by_weight, in_order
from likelify.fitting.mapped import MappedRows, can_map, log_likelihoods
from likelify.fitting.metrics import bits_per_dim, mean_dims
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
# What validations may take of the time of a fit that has a limit, and the items that they look at in any case: those
# cost less than a step does.
SHARE, FEWEST = 0.5, 100


@dataclass
class _Share:
    """What one process has measured.

    Attributes:
        parts: nats, dimensions and weights of the items of a batch, by the number of the batch.
        items: how many these are.
        seconds: that they took, from when the first batch was read.
        whole: whether these are all batches of the process.
    """

    parts: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    items: int = 0
    seconds: float = 0.0
    whole: bool = True


class Validation:
    """Measures a flow on the validation split, with the same noise each time.

    In a fit that has a limit on time and no number of validation items, validations get about half of it. If the first
    one has not looked at all items by the time that is its part of that, it is made again, as all others, on as many
    as it had time for, the first of the split.

    Args:
        source: the data.
        settings: of the fit.
        place: the processes; each takes its turns with the batches.
        conditional: give the labels to the model.
        clock: of the fit, in seconds.

    Attributes:
        size: how many items are looked at.
    """

    def __init__(
        self,
        source: Source,
        settings: FitSettings,
        place: OneProcess,
        *,
        conditional: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.source, self.settings, self.place, self.conditional = source, settings, place, conditional
        self._asked = self.size = settings.validated(source.size("validation"))
        self._clock = clock
        # Of one validation, until it is known whether all items have the time.
        self._limit: float | None = None
        if settings.max_time is not None and settings.validation_items is None:
            self._limit = SHARE * settings.max_time / settings.validations
        self.rows: MappedRows | None = None

    @property
    def items(self) -> int | None:
        """How many items were found to have the time; None if all that the settings ask for have it."""
        return None if self.size == self._asked else self.size

    def keep_to(self, items: int | None) -> None:
        """Go on with the `items` that the first validation of the fit has found."""
        self._limit = None
        self.size = self._asked if items is None else min(items, self._asked)

    def figures(self, flow: Flow) -> tuple[float, float]:
        """Return bits per dimension and nats; the weights of a mixture are chosen first."""
        shares = self._measured(flow)
        if not all(share.whole for share in shares):
            # All processes know what all have done, so they decide alike.
            speed = sum(share.items for share in shares) / max(share.seconds for share in shares)
            self.keep_to(max(FEWEST, int(speed * (self._limit or 0.0))))
            shares = self._measured(flow)
        self._limit = None
        parts = {number: part for share in shares for number, part in share.parts.items()}
        nats, dims, weights = (torch.cat([parts[number][which] for number in sorted(parts)]) for which in range(3))
        return _mean(bits_per_dim(nats, mean_dims(dims)), weights), _mean(nats, weights)

    def _measured(self, flow: Flow) -> list[_Share]:
        """Return what each process has measured of its batches, all of them or as many as had the time."""
        place, own, begin = self.place, _Share(), None
        exact = flow.likelihood == "exact"
        most = at_once(self.source, ROWS if exact and self.source.kind in ("table", "graph") else BATCH)
        numbers = range(math.ceil(self.size / most))[place.rank :: place.count]
        with place.together(), torch.no_grad(), flow.frozen(), self._noise(0):
            self._stack(flow)
            with closing(self._batches(flow, most, self.size, place.rank, place.count)) as batches:
                for number, batch in zip(numbers, batches, strict=True):
                    # Processes that read ahead have started by now, and rows that are mapped once have been.
                    begin = self._clock() if begin is None else begin
                    own.parts[number] = self._of_batch(flow, batch, number, exact=exact)
                    own.items, own.seconds = own.items + len(batch), self._clock() - begin
                    if self._limit is not None and own.seconds > self._limit and number < numbers[-1]:
                        own.whole = False
                        break
        return place.gather(own)

    def _of_batch(self, flow: Flow, batch: Batch, number: int, *, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return nats, dimensions and weights of the items of a batch."""
        context = batch.context(conditional=self.conditional)
        samples = 1 if exact else max(1, VALUES // self._asked)
        # The noise of items is theirs, whichever process draws it. Exact models have none, and seeding takes longer
        # than a batch of theirs.
        with nullcontext() if exact else self._noise(number):
            nats = log_likelihoods(flow, batch, context, samples=samples)
        weights = torch.ones(len(nats)) if batch.weights is None else batch.weights.cpu()
        return nats.cpu(), batch.dims().cpu(), weights

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

    def _batches(self, flow: Flow, batch: int, count: int, rank: int, processes: int) -> Generator[Batch]:
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
    if not len(values):
        raise DataError(
            f"The first {len(counts)} items of the validation split, which are looked at, all have the weight 0. Let "
            "some that weigh come first, or look at more (validation_items)."
        )
    return float((values * weights).sum() / weights.sum())
