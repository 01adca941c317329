"""Items in their order, batch by batch in little memory: what scoring reads, whatever holds them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.catalog import TABLE_ENDINGS, open_source
from likelify.data.delimited import TextFrame
from likelify.data.facts import Facts, SplitName
from likelify.data.frames import Frame, Rows, complete, refuse_others
from likelify.data.npy import Mapped, map_array
from likelify.data.options import SourceOptions
from likelify.data.source import Batch, Source, require_split
from likelify.data.values import plain_array, require_usual
from likelify.errors import DataError, unknown_word

if TYPE_CHECKING:
    pass

# Bytes of an array that are hashed at a time.
HASHED = 2**22


@dataclass(frozen=True)
class ItemBatch:
    """Some items, one after the other.

    Attributes:
        batch: the items, as a source gives them.
        carried: what belongs to them and is no part of what is scored, by name: one entry for each item.
    """

    batch: Batch
    carried: dict[str, list[Any] | np.ndarray]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.batch)


class Items(ABC):
    """Items that are read once, in order.

    Attributes:
        name: of the file or the data.
        count: number of items, or None where only reading tells.
        carried: names of what is carried through beside the items: ids, labels, names of files.
    """

    name: str
    count: int | None = None
    carried: tuple[str, ...] = ()

    @abstractmethod
    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read the items in order, in batches of that size but for the last.

        No more is held in memory than a batch and a piece of the file of some million bytes.

        Args:
            size: items of a batch.
            start: number of the first item that is given, from 0; there may be none.

        Raises:
            DataError: if the data are damaged, or an item is not what the model takes, naming where it stands.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the whole content: the same only where the same items come in the same order."""


class SourceItems(Items):
    """The items of a split of a source."""

    def __init__(self, source: Source, split: SplitName) -> None:
        require_split(split)
        self.source, self.split = source, split
        self.name, self.count = f"{source.name}, {split}", source.size(split)
        self.carried = () if source.classes is None else ("label",)

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read by number; see `Items.batches`."""
        import torch

        for first in range(start, self.source.size(self.split), size):
            last = min(first + size, self.source.size(self.split))
            batch = self.source.read(self.split, torch.arange(first, last))
            labels = batch.labels if self.carried else None
            yield ItemBatch(batch, {} if labels is None else {"label": labels.numpy()})

    def fingerprint(self) -> str:
        """Hash the fingerprint of the source and the name of the split."""
        return hashlib.sha256(f"{self.source.fingerprint()} {self.split}".encode()).hexdigest()[:16]


class ArrayItems(Items):
    """The items of an array, which can be mapped from a file.

    Args:
        name: of the array, for errors.
        array: `(n, *event)`.
        facts: of what the model was fitted to.

    Raises:
        DataError: if its items have another shape, or are not whole numbers where the model takes levels.
    """

    def __init__(self, name: str, array: np.ndarray | Mapped, facts: Facts, labels: np.ndarray | None = None) -> None:
        self._mapped = array if isinstance(array, Mapped) else None
        array = array.values if isinstance(array, Mapped) else array
        self.name, self.count = name, len(array) if array.ndim else 0
        self.array, self.facts, self.labels = array, facts, labels
        self.carried = () if labels is None else ("label",)
        if array.ndim == 0 or tuple(array.shape[1:]) != tuple(facts.event_shape):
            raise DataError(
                f"{name} has shape {array.shape}; the model is of {facts.items} of shape {tuple(facts.event_shape)}, "
                f"so (items, {', '.join(map(str, facts.event_shape))}) is needed."
            )
        if array.dtype.kind not in "iubf":
            raise DataError(f"{name} must hold numbers, got {array.dtype}.")

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Copy part after part; see `Items.batches`."""
        import torch

        for first in range(start, len(self.array), size):
            part = self._checked(np.asarray(self.array[first : first + size]), first)
            labels = None if self.labels is None else np.asarray(self.labels[first : first + size], dtype=np.int64)
            batch = Batch(torch.from_numpy(part), None if labels is None else torch.from_numpy(labels))
            self._release()
            yield ItemBatch(batch, {} if labels is None else {"label": labels})

    def _release(self) -> None:
        if self._mapped is not None:
            self._mapped.release()

    def _checked(self, part: np.ndarray, first: int) -> np.ndarray:
        levels = self.facts.levels
        if levels is None:
            dtype = np.float32 if part.dtype == np.float32 else np.float64
            values = np.array(part, dtype=dtype, order="C")
            require_usual(self.name, values, first)
            return values
        low, high = part.min(initial=0), part.max(initial=0)
        if not (0 <= low and high < levels and (part.dtype.kind in "iub" or (part == np.floor(part)).all())):
            wrong = ~((part >= 0) & (part < levels) & (part == np.floor(part)))
            place = tuple(int(n) for n in np.argwhere(wrong)[0])
            raise DataError(
                f"{self.name}, item {first + place[0]}, element {place[1:]}: the value is {part[place]}; the model "
                f"takes whole numbers 0..{levels - 1}."
            )
        return np.array(part, dtype=np.uint8 if levels <= 256 else np.int32, order="C")

    def fingerprint(self) -> str:
        """Hash kind, shape and content, a part at a time."""
        digest = hashlib.sha256(f"{self.array.dtype.str} {self.array.shape}".encode())
        item = max(1, self.array[:1].nbytes)
        for first in range(0, len(self.array), max(1, HASHED // item)):
            digest.update(np.ascontiguousarray(self.array[first : first + max(1, HASHED // item)]))
            self._release()
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels))
        return digest.hexdigest()[:16]


class TableItems(Items):
    """The rows of a table that is read in pieces.

    The columns of the model are found by their names, in whatever order; where the table has no names, by their order.
    All other columns are carried through.

    Raises:
        DataError: if columns are missing or hold no numbers: all of them are named.
    """

    def __init__(self, frame: Frame, facts: Facts) -> None:
        self.name, self.count, self.frame = frame.name, frame.count, frame
        known = [column.name for column in frame.columns]
        wanted = list(facts.columns or known)
        if not frame.named and not set(wanted) <= set(known):
            if len(known) != len(wanted):
                raise DataError(
                    f"{frame.name} has {len(known)} columns without names; the model is of {len(wanted)}: "
                    f"{', '.join(wanted[:20])}."
                )
            wanted = known
        absent = [name for name in wanted if name not in known]
        if absent:
            raise DataError(
                f"{frame.name} has no column {', '.join(map(repr, absent[:20]))}, which the model is of. "
                f"{unknown_word('column', absent[0], known[:20])}"
            )
        refuse_others(frame, wanted, "The model takes numbers there.")
        self._wanted, self.carried = wanted, tuple(name for name in known if name not in wanted)

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read piece after piece; see `Items.batches`."""
        import torch

        for rows in cut(complete(self.frame, self._wanted, self.carried, start), size):
            yield ItemBatch(Batch(torch.from_numpy(rows.values)), dict(rows.carried))

    def fingerprint(self) -> str:
        """Return that of the table."""
        return self.frame.fingerprint()


def open_items(what: Any, facts: Facts, options: SourceOptions | None = None, *, split: SplitName = "test") -> Items:
    """Open items of the kind that a model was fitted to, to read them in order.

    Args:
        what: the path of a file; a source or the name of one; an array, a tensor.
        facts: of the data that the model was fitted to.
        options: how the files of these were read.
        split: of a source, which part.

    Raises:
        DataError: if they cannot be read, or are items of another kind or shape.
    """
    if isinstance(what, Source):
        return _of_source(what, facts, split)
    if isinstance(what, str | Path):
        return _of_file(what, facts, options, split)
    return ArrayItems("The data", plain_array(what, "The data"), facts)


def _of_source(source: Source, facts: Facts, split: SplitName) -> Items:
    if (source.kind, tuple(source.event_shape)) != (facts.kind, tuple(facts.event_shape)):
        raise DataError(
            f"'{source.name}' has {source.facts().items} of shape {tuple(source.event_shape)}; the model is of "
            f"{facts.items} of shape {tuple(facts.event_shape)}."
        )
    if source.size(split) == 0:
        raise DataError(f"'{source.name}' has no items in its split '{split}'.")
    return SourceItems(source, split)


def _of_file(what: str | Path, facts: Facts, options: SourceOptions | None, split: SplitName) -> Items:
    path = Path(str(what).removeprefix("table:")).expanduser()
    if not path.name.endswith(TABLE_ENDINGS):
        return _of_source(open_source(what, options), facts, split)
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.suffix == ".npy":
        return ArrayItems(f"'{path}'", map_array(path), facts)
    return TableItems(TextFrame(path), facts)


def cut(parts: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Put rows together, and cut them, into parts of that size but for the last."""
    waiting: list[Rows] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        while count >= size:
            missing = size - (count - len(waiting[-1]))
            whole = together([*waiting[:-1], waiting[-1].head(missing)])
            rest = waiting[-1].after(missing)
            yield whole
            waiting, count = [rest] if len(rest) else [], len(rest)
    if waiting:
        yield together(waiting)


def together(parts: list[Rows]) -> Rows:
    """Join rows that follow one another; where their values stand is not known any more."""
    carried = {name: [cell for part in parts for cell in part.carried[name]] for name in parts[0].carried}
    return Rows(np.concatenate([part.values for part in parts]), carried, parts[0].locate)
