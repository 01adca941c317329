"""The batches of a fit: each a pure function of seed, step and process, so that a fit can go on anywhere."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from likelify.data import Batch, Source
from likelify.fitting.checks import read_for
from likelify.fitting.settings import FitSettings
from likelify.flows import Flow


class Feed:
    """What gives the loop its batches; as a context manager, so that whatever reads ahead ends with the block.

    Args:
        flow: the model, for its device and dtype.
        source: the data.
        settings: of the fit.
        rank: number of this process.
        processes: that share each batch.
    """

    def __init__(self, flow: Flow, source: Source, settings: FitSettings, *, rank: int = 0, processes: int = 1) -> None:
        self.flow, self.source, self.settings = flow, source, settings
        self.rank, self.processes = rank, processes
        self.size = source.size("train")
        self.batch_size = min(settings.batch_size, self.size)
        self._order: tuple[int, Tensor] | None = None

    def __enter__(self) -> Self:
        """Begin to feed."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of a step, as the flow takes it."""
        return read_for(self.flow, self.source, "train", self.indices(step))

    def indices(self, step: int) -> Tensor:
        """Return the numbers of the items in this process's part of the batch of a step.

        Each epoch is a fresh permutation, of which whole batches are taken.
        """
        epoch, index = divmod(step, self.size // self.batch_size)
        part = self._epoch(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        return part[self.rank :: self.processes]

    def _epoch(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, torch.randperm(self.size, generator=generator(self.settings.seed, "order", epoch))
        return self._order[1]


def mix(seed: int, purpose: str, step: int) -> int:
    """Turn (seed, purpose, step) into an independent-looking seed."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, step: int) -> torch.Generator:
    """Return a generator of its own for (seed, purpose, step)."""
    return torch.Generator().manual_seed(mix(seed, purpose, step))
