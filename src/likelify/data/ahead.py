"""Reading ahead: other processes read the next batches of a source while the last one is worked on."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.graphs import packed, unpacked
from likelify.data.source import Batch, Source
from likelify.errors import DataError, LikelifyError

if TYPE_CHECKING:
    from torch import Tensor

# Batches that each process has ready.
READY = 2


def read_ahead(
    source: Source, split: SplitName, parts: Iterable[Tensor], *, workers: int | None = None
) -> Generator[Batch]:
    """Read batches of a source in their order; they are the same whoever reads them.

    The processes start with the first batch, and end with the iterator: when it is used up, closed or forgotten, also
    by an error or Ctrl-C, which is this process's alone to handle. Their number times two batches are in memory.

    Args:
        source: the data.
        split: of these.
        parts: for each batch the numbers of its items; asked for as they are needed.
        workers: processes that read; 0 reads in this one, when a batch is asked for. By default what suits the source.

    Raises:
        DataError: if items cannot be read, or a process was ended from outside.
    """
    number = source.workers if workers is None else workers
    if number == 0:
        for numbers in parts:
            yield source.read(split, numbers)
        return
    for found in _read(source, split, parts, number):
        if isinstance(found, str):
            raise DataError(found)
        yield _unpacked(found)


def _read(source: Source, split: SplitName, parts: Iterable[Tensor], workers: int) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _Reading(source, split),  # pyright: ignore[reportArgumentType] - any object with items
        sampler=parts,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=READY,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        # Its own, so that reading ahead takes no number from the noise of a fit.
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except RuntimeError as error:
        if isinstance(error, LikelifyError) or "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that read '{source.name}' ahead was ended from outside, perhaps for lack of memory. With "
            "--workers 0 none is needed."
        ) from error


@dataclass(frozen=True)
class _Reading:
    """What a process does: it is given numbers of items and returns arrays, or an error as text.

    Arrays and not tensors, which would go through shared memory, of which containers have little.
    """

    source: Source
    split: SplitName

    def __getitem__(self, numbers: Tensor) -> dict[str, np.ndarray] | str:
        try:
            batch = self.source.read(self.split, numbers)
        except LikelifyError as error:
            return str(error)
        given = {"x": batch.x, "labels": batch.labels, "weights": batch.weights}
        return {name: part.numpy() for name, part in given.items() if part is not None} | packed(batch.structure)


def _unpacked(arrays: dict[str, np.ndarray]) -> Batch:
    import torch

    given = {name: torch.from_numpy(arrays[name]) for name in ("x", "labels", "weights") if name in arrays}
    return Batch(**given, structure=unpacked(arrays))


def _as_it_is(found: Any) -> Any:
    return found


def _begin(number: int) -> None:  # noqa: ARG001 - as it is called
    """Leave signals that a terminal sends to all processes to the first, which ends this one when it is done."""
    for meant in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, meant):
            signal.signal(getattr(signal, meant), signal.SIG_IGN)
