"""The contract of every source of data."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from likelify.errors import DataError

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Some items of a source: events `(rows, *event)`, and their labels `(rows,)` where the source has them."""

    x: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


class Source(ABC):
    """Fixed splits of items that can be read in any order.

    Images are integers `0 .. levels - 1` in `uint8` (or `int32` above 256 levels), channels first; the number of levels
    belongs to the data, and likelihoods are probabilities. Rows of tables are real numbers in `float32`; they have no
    levels, and likelihoods are densities, whose values depend on the units. Reading is by index, so a batch is a pure
    function of the indices.

    Attributes:
        name: as `open_source` and the command line spell it.
        event_shape: shape of one event.
        levels: number of values a pixel can take, or None for real-valued events.
        classes: number of classes, or None if there are no labels.
        description: where the data come from and how they were split.
    """

    name: str
    event_shape: Shape
    levels: int | None
    classes: int | None
    description: str

    @property
    def family(self) -> str:
        """Return the part of the name before the colon: the name without the user's folder."""
        return self.name.partition(":")[0]

    @abstractmethod
    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""

    @abstractmethod
    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers, integers of shape `(rows,)`."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the data and the splits, by which a run recognises what it was fitted to."""

    def read_all(self, split: SplitName) -> Batch:
        """Read a whole split."""
        return self.read(split, torch.arange(self.size(split)))


class ArraySource(Source):
    """A source whose items are arrays in memory.

    Args:
        name: see `Source`.
        splits: for each split the events `(n, *event)`, integers; real numbers if there are no levels.
        levels: see `Source`.
        labels: for each split the labels `(n,)`, or None.
        classes: see `Source`.
        description: see `Source`.

    Raises:
        DataError: if a split is missing or empty, shapes disagree, or values lie outside the levels or are not finite.
    """

    def __init__(
        self,
        name: str,
        splits: Mapping[SplitName, np.ndarray],
        *,
        levels: int | None,
        labels: Mapping[SplitName, np.ndarray] | None = None,
        classes: int | None = None,
        description: str = "",
    ) -> None:
        self.name = name
        self.levels = levels
        self.classes = classes
        self.description = description
        self.event_shape = tuple(splits["train"].shape[1:]) if "train" in splits else ()
        self._splits: dict[SplitName, Batch] = {}
        for split in SPLITS:
            events = splits.get(split)
            _check_events(name, split, events, self.event_shape, levels)
            assigned = None if labels is None else torch.from_numpy(labels[split].astype(np.int64))
            kind = np.float32 if levels is None else np.uint8 if levels <= 256 else np.int32
            self._splits[split] = Batch(torch.from_numpy(np.array(events, dtype=kind, order="C")), assigned)

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        return len(self._splits[split])

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers."""
        batch = self._splits[split]
        return Batch(batch.x[indices], None if batch.labels is None else batch.labels[indices])

    def fingerprint(self) -> str:
        """Hash the events of all splits."""
        digest = hashlib.sha256(repr((self.event_shape, self.levels)).encode())
        for split in SPLITS:
            digest.update(self._splits[split].x.numpy().tobytes())
        return digest.hexdigest()[:16]


def hold_out(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the numbers `0 .. count - 1` of training files into training and validation.

    The order is `numpy.random.default_rng(0).permutation(count)`; the last 5,000 validate, or a tenth if that is less.
    """
    held = min(5000, count // 10)
    order = np.random.default_rng(0).permutation(count)
    return order[: count - held], order[count - held :]


def _check_events(name: str, split: str, events: np.ndarray | None, event_shape: Shape, levels: int | None) -> None:
    if events is None or len(events) == 0:
        raise DataError(f"The source '{name}' has no items in its split '{split}'.")
    if tuple(events.shape[1:]) != event_shape:
        raise DataError(f"The split '{split}' of '{name}' has events {events.shape[1:]}, 'train' has {event_shape}.")
    if levels is None:
        if not np.isfinite(events).all():
            raise DataError(f"The split '{split}' of '{name}' holds values that are infinite or not a number.")
        return
    low, high = events.min(), events.max()
    whole = np.issubdtype(events.dtype, np.integer) or np.array_equal(events, np.floor(events))
    if not (0 <= low and high < levels) or not whole:
        raise DataError(
            f"The split '{split}' of '{name}' holds values from {low} to {high}; it must hold integers 0..{levels - 1}."
        )
