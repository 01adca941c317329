"""Images and sequences in numpy's files, which stay there until they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.facts import SPLITS, WORDS, SplitName
from likelify.data.frames import file_hash
from likelify.data.graph_files import graph_file, is_archive
from likelify.data.layout import Layout, find_layout
from likelify.data.npy import Mapped, map_array
from likelify.data.npz import read_archive
from likelify.data.options import OF_COLUMNS, SourceOptions
from likelify.data.source import Batch, Parts, Source, filled, require_split, taken
from likelify.data.table_files import table_file
from likelify.data.tables import TableSource
from likelify.data.values import class_labels, require_levels, require_usual, stored_dtype, table_rows
from likelify.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# Bytes of an array that are looked at at a time.
LOOKED_AT = 2**24


def array_file(path: str | Path, options: SourceOptions | None = None) -> Source:
    """Make a source of the arrays in a numpy file of the user.

    An array `(n, columns)` is a table, unless its kind was said. Arrays `(graphs, nodes, features)` of the kind `graph`
    are sets of points, and an archive with `x` and `sizes` holds graphs; see `graph_file`.

    Of an archive the training, validation and test arrays are these splits. What is not there is cut off the items, or
    the training items, by `shuffled`: the last tenth tests, the tenth before it validates.

    Args:
        path: ends in `.npy` or `.npz`.
        options: `kind`, `levels` and `channels` where shape and kind of number leave them open; of a table, which
            columns.

    Raises:
        DataError: if it is not there or damaged, the rules do not decide, or values do not fit.
    """
    path, options = Path(path), options or SourceOptions()
    if not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if path.suffix.lower() == ".npy":
        whole = map_array(path)
        if whole.values.ndim == 2 and options.kind in (None, "table") and options.levels is None:
            source = table_file(path, options)
            # By this name it is opened again with the kind that was said.
            source.name = f"array:{path.resolve()}" if options.kind else source.name
            return source
        if options.kind == "graph":
            return _point_sets(path, options)
        return _source(path, {None: whole}, {}, [], options)
    if options.kind == "graph" or (options.kind is None and is_archive(path)):
        return _point_sets(path, options)
    found = read_archive(path)
    return _source(path, found.items, found.labels, found.others, options)


def _point_sets(path: Path, options: SourceOptions) -> Source:
    if idle := [word for word in options.chosen() if word != "kind"]:
        raise DataError(f"'{path}' holds graphs, so {', '.join(f'--{word}' for word in idle)} have no effect.")
    source = graph_file(path)
    # By this name it is opened again with the kind that was said.
    source.name = f"array:{path.resolve()}"
    return source


class MappedSource(Source):
    """Images or sequences of which only those that are read are in memory.

    Args:
        path: of the file.
        arrays: for each split the items as they are stored.
        layout: what they are.
        parts: for each split the numbers of its items; None for all.
        labels: for each split the classes of its items, or None.
        description: where they come from.

    Raises:
        DataError: if shapes disagree, or values lie outside the levels or are not finite.
    """

    def __init__(
        self,
        path: Path,
        arrays: Mapping[SplitName, Mapped],
        layout: Layout,
        parts: Mapping[SplitName, np.ndarray | None],
        labels: Mapping[SplitName, np.ndarray] | None,
        description: str,
    ) -> None:
        self.name, self.path, self.layout = f"array:{path.resolve()}", path, layout
        self.kind, self.levels, self.description = layout.kind, layout.levels, description
        self._arrays, self._labels = dict(arrays), labels
        self._hash = ""
        self._numbers = {split: _numbers(array, parts[split]) for split, array in arrays.items()}
        self.event_shape = tuple(self._events("train").shape[1:])
        self.classes = None
        if labels is not None:
            self.classes = max(int(given.max()) for given in labels.values() if len(given)) + 1
        seen: list[Mapped] = []
        for split, array in self._arrays.items():
            if tuple(self._events(split).shape[1:]) != self.event_shape:
                shape = tuple(self._events(split).shape[1:])
                raise DataError(f"'{path}': items of '{split}' have shape {shape}, 'train' has {self.event_shape}.")
            if not any(array is other for other in seen):
                seen.append(array)
                _check(f"'{path}'", array, layout.levels)

    def _events(self, split: SplitName) -> np.ndarray:
        return self.layout.arranged(self._arrays[split].values)

    def size(self, split: SplitName) -> int:
        """Return the number of items of a split."""
        require_split(split)
        return len(self._numbers[split]) if split in self._numbers else 0

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers from the file."""
        import torch

        if self.size(split) == 0:
            # Of a split that is not there only nothing can be read.
            return self.read("train", taken(self, split, torch.empty(0, dtype=torch.int64), indices))
        places = taken(self, split, self._numbers[split], indices)
        events = self._events(split)[places.numpy()]
        x = torch.from_numpy(np.array(events, dtype=stored_dtype(events, self.levels), order="C"))
        if self._labels is None:
            return Batch(x)
        return Batch(x, taken(self, split, torch.from_numpy(self._labels[split]), indices))

    def fingerprint(self) -> str:
        """Hash the file, how it is understood, and the splits; once, since the file can be large."""
        self._hash = self._hash or self._hashed()
        return self._hash

    def _hashed(self) -> str:
        digest = hashlib.sha256(f"{file_hash(self.path)} {self.layout} {self.event_shape}".encode())
        for split in SPLITS:
            digest.update(self._numbers[split].numpy().tobytes() if split in self._numbers else b"none")
        return digest.hexdigest()[:16]


def _numbers(array: Mapped, part: np.ndarray | None) -> Tensor:
    import torch

    return torch.arange(len(array.values)) if part is None else torch.from_numpy(part)


def _source(
    path: Path,
    items: Mapping[SplitName | None, Mapped],
    labels: Mapping[SplitName | None, Mapped],
    others: list[str],
    options: SourceOptions,
) -> Source:
    if idle := options.idle(OF_COLUMNS):
        raise DataError(f"{' and '.join(idle)} have no effect on '{path}': these are of tables with columns.")
    first = items[None if None in items else "train"].values
    layout = find_layout(f"'{path}'", first, kind=options.kind, levels=options.levels, channels=options.channels)
    given: dict[SplitName | None, np.ndarray] = {
        split: _classes(path, found.values, len(items[split].values)) for split, found in labels.items()
    }
    if labels and set(labels) != set(items):
        raise DataError(f"'{path}' has labels for some of its splits only. Give all of them labels, or none.")
    arrays, parts, said = _cut(items)
    assigned: Parts | None = {split: _labels_of(split, given, parts) for split in arrays} if given else None
    said = f"the file {path.name}; {layout.said or WORDS[layout.kind][1]}; {said}"
    said += f"; without {', '.join(map(repr, others[:10]))}" if others else ""
    if layout.kind == "table":
        return _table(path, arrays, parts, assigned, said)
    return MappedSource(path, arrays, layout, parts, assigned, said)


def _labels_of(
    split: SplitName, given: Mapping[SplitName | None, np.ndarray], parts: Mapping[SplitName, np.ndarray | None]
) -> np.ndarray:
    labels = given[None] if None in given else given[split if split in given else "train"]
    part = parts[split]
    return labels if part is None else labels[part]


def _cut(
    items: Mapping[SplitName | None, Mapped],
) -> tuple[dict[SplitName, Mapped], dict[SplitName, np.ndarray | None], str]:
    """Return for each split the array that its items are in, their numbers in it, and how they were cut."""
    arrays: dict[SplitName, Mapped] = {split or "train": array for split, array in items.items()}
    parts, said = filled({split: len(array.values) for split, array in arrays.items()})
    numbers: dict[SplitName, np.ndarray | None] = {split: part for split, (_, part) in parts.items()}
    sizes = [len(arrays[own].values) if part is None else len(part) for own, part in parts.values()]
    return {split: arrays[own] for split, (own, _) in parts.items()}, numbers, f"{' / '.join(map(str, sizes))} {said}"


def _classes(path: Path, labels: np.ndarray, count: int) -> np.ndarray:
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        raise DataError(f"'{path}' has labels of shape {labels.shape} for {count} items: one for each is needed.")
    return class_labels(labels, count)


def _table(
    path: Path,
    arrays: Mapping[SplitName, Mapped],
    parts: Mapping[SplitName, np.ndarray | None],
    labels: Mapping[SplitName, np.ndarray] | None,
    said: str,
) -> Source:
    rows = {}
    for split, array in arrays.items():
        values = array.values if parts[split] is None else array.values[parts[split]]
        rows[split] = table_rows(np.array(values), f"'{path}'")
    name, classes = f"array:{path.resolve()}", None
    if labels is not None:
        classes = max(int(given.max()) for given in labels.values()) + 1
    return TableSource(name, rows, labels=labels, classes=classes, description=said)


def _check(what: str, array: Mapped, levels: int | None) -> None:
    """Look at all values once, a part at a time."""
    values = array.values
    if levels is not None and values.dtype.itemsize == 1 and levels == 2 ** (8 if values.dtype.kind == "u" else 1):
        return
    step = max(1, LOOKED_AT // max(1, values[:1].nbytes))
    for first in range(0, len(values), step):
        part = np.asarray(values[first : first + step])
        if levels is None:
            require_usual(what, part, first)
        else:
            require_levels(what, part, levels, first)
        array.release()
