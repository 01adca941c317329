"""Items in their order, batch by batch in little memory: what scoring reads, whatever holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.adapt import collated, dataset_of, graphs_of, table_in
from likelify.data.ahead import read_ahead
from likelify.data.arrow import ArrowFrame
from likelify.data.catalog import ARRAY_ENDINGS, PICTURE_ENDINGS, TABLE_ENDINGS, open_source
from likelify.data.delimited import TextFrame
from likelify.data.dialect import with_point
from likelify.data.encoding import as_word
from likelify.data.facts import SPLITS, Facts, SplitName
from likelify.data.formats import frame_of, open_frame
from likelify.data.frames import Frame, Rows
from likelify.data.graph_files import beside, framed_graphs, read_graphs
from likelify.data.graph_forms import Found
from likelify.data.graphs import GraphSource
from likelify.data.hub import HubFrame, HubImages, as_fitted, is_dataset
from likelify.data.layout import Channels, arranged_as
from likelify.data.matching import matched
from likelify.data.npy import Mapped, map_array
from likelify.data.npz import read_archive
from likelify.data.options import SourceOptions
from likelify.data.ordered import ItemBatch, Items
from likelify.data.picture_items import PictureItems
from likelify.data.reading import read_as, require_columns
from likelify.data.source import Batch, Source, require_split
from likelify.data.table_files import GRAPH_COLUMNS, LABEL_COLUMN, known_classes
from likelify.data.values import class_labels, plain_array, require_levels, require_usual, stored_dtype
from likelify.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of an array that are hashed at a time.
HASHED = 2**22


class SourceItems(Items):
    """The items of a split of a source."""

    def __init__(self, source: Source, split: SplitName) -> None:
        require_split(split)
        self.source = source
        self.split: SplitName = split
        self.name, self.count = f"{source.name}, {split}", source.size(split)
        self._names = source.item_names(split)
        self._called = "graph" if source.kind == "graph" else "file"
        self.carried = ((self._called,) if self._names else ()) + (() if source.classes is None else ("label",))

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read by number, ahead where that takes long; see `Items.batches`."""
        import torch

        starts = range(start, self.source.size(self.split), size)
        parts = (torch.arange(first, min(first + size, self.source.size(self.split))) for first in starts)
        for first, batch in zip(starts, read_ahead(self.source, self.split, parts), strict=True):
            carried: dict[str, list[Any] | np.ndarray] = {}
            if self._names:
                carried[self._called] = list(self._names[first : first + size])
            if batch.labels is not None and "label" in self.carried:
                carried["label"] = called(batch.labels.numpy(), self.source.class_names)
            yield ItemBatch(batch, carried)

    def fingerprint(self) -> str:
        """Hash the fingerprint of the source and the name of the split."""
        return hashlib.sha256(f"{self.source.fingerprint()} {self.split}".encode()).hexdigest()[:16]


class DatasetItems(Items):
    """The items of a torch data set, read one by one; those of `(item, label)` carry their label.

    Args:
        dataset: has a length; or a loader of one.
        facts: of what the model was fitted to.
    """

    name = "The data set"

    def __init__(self, dataset: Any, facts: Facts) -> None:
        self._data, self._collate = dataset_of(dataset)
        self.facts, self.count = facts, len(self._data)
        _, label = collated([self._data[0]], self._collate)
        self.carried = () if label is None else ("label",)

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Put items together; see `Items.batches`."""
        for first in range(start, len(self._data), size):
            last = min(first + size, len(self._data))
            items, labels = collated([self._data[number] for number in range(first, last)], self._collate)
            yield next(ArrayItems(self.name, items, self.facts, labels, first).batches(size))

    def fingerprint(self) -> str:
        """Hash all items."""
        digest = hashlib.sha256(str(len(self._data)).encode())
        for part in self.batches(100):
            digest.update(part.batch.x.numpy().tobytes())
            digest.update(b"" if part.batch.labels is None else part.batch.labels.numpy().tobytes())
        return digest.hexdigest()[:16]


class ArrayItems(Items):
    """The items of an array, which can be mapped from a file.

    Args:
        name: of the array, for errors.
        array: `(n, *event)`.
        facts: of what the model was fitted to.
        labels: classes of the items, or None.
        first: number of the first item, for errors.
        channels: whether they are the first axis of an image or its last, where that was said.

    Raises:
        DataError: if its items have another shape, or are not whole numbers where the model takes levels.
    """

    def __init__(
        self,
        name: str,
        array: np.ndarray | Mapped,
        facts: Facts,
        labels: np.ndarray | None = None,
        first: int = 0,
        channels: Channels | None = None,
    ) -> None:
        self._first = first
        self._mapped = array if isinstance(array, Mapped) else None
        array = arranged_as(array.values if isinstance(array, Mapped) else array, tuple(facts.event_shape), channels)
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
            part = self._checked(np.asarray(self.array[first : first + size]), self._first + first)
            labels = None if self.labels is None else np.asarray(self.labels[first : first + size], dtype=np.int64)
            batch = Batch(torch.from_numpy(part), None if labels is None else torch.from_numpy(labels))
            self._release()
            yield ItemBatch(batch, {} if labels is None else {"label": called(labels, self.facts.class_names)})

    def _release(self) -> None:
        if self._mapped is not None:
            self._mapped.release()

    def _checked(self, part: np.ndarray, first: int) -> np.ndarray:
        levels = self.facts.levels
        if levels is not None:
            require_levels(self.name, part, levels, first)
        values = np.array(part, dtype=stored_dtype(part, levels), order="C")
        if levels is None:
            require_usual(self.name, values, first, missing=self.facts.kind == "table")
        return values

    def fingerprint(self) -> str:
        """Hash kind, shape and content, a part at a time."""
        digest = hashlib.sha256(f"{self.array.dtype.str} {self.array.shape}".encode())
        item = max(1, self.array[:1].nbytes)
        for first in range(0, len(self.array), max(1, HASHED // item)):
            digest.update(np.ascontiguousarray(self.array[first : first + max(1, HASHED // item)]).data)
            self._release()
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()[:16]


class TableItems(Items):
    """The rows of a table that is read in pieces, encoded by the schema of the model.

    The columns of the model are found by their names, in whatever order; where the table has no names, by their order.
    Values may be missing; words that the model does not know count as never seen, with one warning that names them. All
    other columns are carried through; one of them can hold the classes.

    Args:
        frame: the table.
        facts: of what the model was fitted to.
        options: how the table is read: the name of the column of classes, which it need not have, and further words
            for missing values.

    Raises:
        DataError: if columns are missing or hold something else than the model's: all of them are named.
    """

    def __init__(self, frame: Frame, facts: Facts, options: SourceOptions | None = None) -> None:
        options = options or SourceOptions()
        frame.missing = options.missing or ()
        self.name, self.count, self.frame, self.facts = frame.name, frame.count, frame, facts
        schema = facts.meaning
        if isinstance(frame, TextFrame) and not frame.named and set(facts.columns or ("",)) <= set(frame.first):
            # Its first row has the names that the model knows, be they numbers.
            self.frame = frame = TextFrame(frame.path, named=True)
            frame.missing = options.missing or ()
        known = [column.name for column in frame.columns]
        wanted = list(facts.columns or known)
        if not frame.named and not set(wanted) <= set(known):
            if len(known) != len(wanted):
                raise DataError(
                    f"{frame.name} has {len(known)} columns without names; the model is of {len(wanted)}: "
                    f"{', '.join(wanted[:20])}."
                )
            wanted = known
        if len(wanted) != len(schema):
            raise DataError(f"{frame.name} has {len(wanted)} columns; the model is of {len(schema)}.")
        self._schema = tuple(
            column.model_copy(update={"name": name}) for column, name in zip(schema, wanted, strict=True)
        )
        require_columns(frame, self._schema)
        self.carried = tuple(name for name in known if name not in wanted)
        self._label = options.labels if options.labels in self.carried else None

    def batches(self, size: int, start: int = 0) -> Iterator[ItemBatch]:
        """Read piece after piece; see `Items.batches`."""
        import torch

        for rows in cut(read_as(self.frame, self._schema, self.carried, start), size):
            labels = self._labels(rows, start)
            batch = Batch(torch.from_numpy(rows.values), None if labels is None else torch.from_numpy(labels))
            yield ItemBatch(batch, dict(rows.carried))
            start += len(rows)

    def texts(self, size: int) -> Iterator[dict[str, list[str]]]:
        """Read the table once more; see `Items.texts`."""
        known = {column.name for column in self.frame.columns}
        if isinstance(self.frame, TextFrame):
            names = [column.name for column in self._schema if column.name in known]
            commas = [name for name in names if self.frame.column(name).comma]
            return (_with_points(rows.carried, commas) for rows in cut(self.frame.rows((), names), size))
        exact = self.frame.exact() if isinstance(self.frame, ArrowFrame) else ()
        asked = [column.name for column in self._schema if column.categories is not None or column.name in exact]
        if not known.intersection(asked):
            return super().texts(size)
        parts = cut(self.frame.rows((), [name for name in asked if name in known]), size)
        return ({name: list(map(as_word, cells)) for name, cells in rows.carried.items()} for rows in parts)

    def typed(self, size: int) -> Iterator[pa.Table | None]:
        """Read the table once more; see `Items.typed`."""
        if not isinstance(self.frame, ArrowFrame):
            return super().typed(size)
        known = {column.name for column in self.frame.columns}
        return self.frame.tables([column.name for column in self._schema if column.name in known], size)

    def _labels(self, rows: Rows, first: int) -> np.ndarray | None:
        if self._label is None or self.facts.classes is None:
            return None
        what = f"{self.name}, column '{self._label}'"
        return known_classes(rows.carried[self._label], self.facts.called, what, first)

    def fingerprint(self) -> str:
        """Return that of the table."""
        return self.frame.fingerprint()


def open_items(
    what: Any, facts: Facts, options: SourceOptions | None = None, *, split: SplitName = "test", edges: Any = None
) -> Items:
    """Open items of the kind that a model was fitted to, to read them in order.

    Args:
        what: the path of a file; a source or the name of one; an array or tensor; a data frame of pandas, polars or
            pyarrow; a torch data set with a length, or one of the library `datasets`.
        facts: of the data that the model was fitted to.
        options: how the files of these were read.
        split: of a source, which part.
        edges: of a table of nodes: a path or a data frame. Graphs are read whole, before the first is given.

    Raises:
        DataError: if they cannot be read, or are items of another kind or shape.
    """
    if isinstance(what, Source):
        return _of_source(what, facts, split)
    if facts.kind == "graph":
        return _of_graphs(what, facts, options or SourceOptions(), split, edges)
    if edges is not None:
        raise DataError(f"Edges are those of graphs, and the model is of {facts.items}.")
    if isinstance(what, str | Path):
        return _of_file(what, facts, options, split)
    from torch.utils.data import DataLoader, Dataset

    if is_dataset(what):
        return _of_dataset(what, facts, options or SourceOptions(), split)
    frame = table_in(what)
    if frame is not None:
        return TableItems(frame, facts, options)
    if isinstance(what, Dataset | DataLoader):
        return DatasetItems(what, facts)
    return ArrayItems("The data", plain_array(what, "The data"), facts)


def _of_source(source: Source, facts: Facts, split: SplitName) -> Items:
    source = matched(source, facts)
    if source.size(split) == 0:
        raise DataError(f"'{source.name}' has no items in its split '{split}'.")
    return SourceItems(source, split)


def _of_graphs(what: Any, facts: Facts, options: SourceOptions, split: SplitName, edges: Any) -> Items:
    """Take graphs of a file or in memory, in whatever form; their classes as far as the model knows any."""
    options = options.model_copy(update={"edges": None, "labels": options.labels if facts.classes else None})
    if not isinstance(what, str | Path):
        # What is said of the columns of a file is said of data frames of nodes alone.
        if frame_of(what) is None:
            options = SourceOptions(labels=options.labels)
        elif facts.columns:
            options = options.model_copy(update={"columns": facts.columns, "drop": None})
        found = graphs_of(what, options, "graph", edges=edges)
        if found is None:
            raise DataError(f"The model is of graphs, and a {type(what).__name__} is none.")
        return _of_source(_all_items(found, facts, "The data"), facts, split)
    family, _, place = str(what).partition(":")
    path = Path(place if family in ("graphs", "array", "table") and place else what).expanduser()
    if path.name.lower().endswith(TABLE_ENDINGS) and path.suffix.lower() not in ARRAY_ENDINGS:
        options = options.model_copy(update={"columns": facts.columns, "drop": None}) if facts.columns else options
        frame = open_frame(path)
        found = framed_graphs(frame, beside(path) if edges is None else edges, _usual(options, frame))
    elif path.suffix.lower() in ARRAY_ENDINGS:
        found = read_graphs(path, SourceOptions())
    else:
        return _of_source(open_source(what), facts, split)
    return _of_source(_all_items(found, facts, f"'{path}'"), facts, split)


def _usual(options: SourceOptions, frame: Frame) -> SourceOptions:
    """Let columns of graphs and classes have their usual names where a table has no others: as drawn ones have."""
    there = {column.name for column in frame.columns}
    graphs = options.graphs if options.graphs in there or there.isdisjoint(GRAPH_COLUMNS) else None
    lacking = options.labels is not None and options.labels not in there and LABEL_COLUMN in there
    return options.model_copy(update={"graphs": graphs, "labels": LABEL_COLUMN if lacking else options.labels})


def _all_items(found: Found, facts: Facts, name: str) -> GraphSource:
    """Return graphs as a source that has all of them in every split, with the features and classes of a model."""
    items, columns = found.items, found.columns
    complete = facts.graphs is not None and facts.graphs.complete
    sizes = np.asarray(items.sizes)
    if facts.graphs is not None and not complete and items.edges is None:
        raise DataError(
            f"{name} has no edges, and the model is of graphs with edges. Name the file of them: --edges FILE (in "
            "Python: edges=)."
        )
    if complete and items.edges is not None and np.shape(items.edges)[-1] != (sizes * (sizes - 1)).sum():
        raise DataError(
            f"{name} has edges, and the model is of complete graphs, such as sets of points. Leave the edges out."
        )
    if facts.graphs is not None and not complete and (items.edge_weight is None) == facts.graphs.weighted:
        has, want = ("no weights", "has") if facts.graphs.weighted else ("weights", "has none")
        raise DataError(
            f"The edges of {name} have {has}, and the data that the model is of {want}. Its likelihoods would be of "
            "other graphs: give edges as those of the data, with or without a column 'weight'."
        )
    if columns and facts.columns and set(facts.columns) < set(columns):
        items, columns = replace(items, x=items.x[:, [columns.index(n) for n in facts.columns]]), facts.columns
    items = items if facts.classes else replace(items, labels=None)
    class_names = None if items.labels is None else found.class_names
    return GraphSource(name, dict.fromkeys(SPLITS, items), columns=columns, class_names=class_names)


def _of_dataset(what: Any, facts: Facts, options: SourceOptions, split: SplitName) -> Items:
    found, labels = as_fitted(what, facts, options, split)
    if isinstance(found, HubImages):
        items = SourceItems(found, split)
        items.said = found.description
        return items
    if isinstance(found, HubFrame):
        return TableItems(found, facts, options.model_copy(update={"labels": options.labels or found.label}))
    return ArrayItems("The data set", found, facts, labels, channels=options.channels)


def _of_file(what: str | Path, facts: Facts, options: SourceOptions | None, split: SplitName) -> Items:
    family, _, place = str(what).partition(":")
    path = Path(place if family in ("table", "array") and place else what).expanduser()
    options = options or SourceOptions()
    pictures = Path(place if family == "images" and place else what).expanduser()
    if pictures.is_dir() or pictures.name.lower().endswith(PICTURE_ENDINGS):
        return PictureItems(pictures, facts, options)
    if (
        path.suffix.lower() in ARRAY_ENDINGS
        and path.is_file()
        and (facts.kind != "table" or path.suffix.lower() == ".npz")
    ):
        return _of_arrays(path, facts, options, split)
    if path.name.lower().endswith((*TABLE_ENDINGS, *ARRAY_ENDINGS)) and not path.is_file():
        raise DataError(f"There is no file '{path}'.")
    if not path.name.lower().endswith(TABLE_ENDINGS):
        return _of_source(open_source(what, options), facts, split)
    if facts.kind != "table":
        raise DataError(f"'{path}' is a table; the model is of {facts.items} of shape {tuple(facts.event_shape)}.")
    return TableItems(open_frame(path), facts, options)


def _of_arrays(path: Path, facts: Facts, options: SourceOptions, split: SplitName) -> Items:
    """Take the one array of items in a file, or that of the split."""
    if path.suffix.lower() == ".npy":
        return ArrayItems(f"'{path}'", map_array(path), facts, channels=options.channels)
    found = read_archive(path)
    part = None if None in found.items else split
    if part not in found.items:
        raise DataError(f"'{path}' has no array of '{split}', but of {', '.join(map(str, found.items))}.")
    items, labels = found.items[part], found.labels.get(part)
    given = None if labels is None else class_labels(labels.values.reshape(-1), len(items.values))
    return ArrayItems(f"'{path}'", items, facts, given, channels=options.channels)


def called(labels: np.ndarray, class_names: tuple[str, ...] | None) -> np.ndarray | list[str]:
    """Return what the classes of items are called, or their numbers where they have no names."""
    if class_names is None:
        return labels
    return [class_names[label] if label < len(class_names) else str(label) for label in labels.tolist()]


def _with_points(texts: dict[str, list[str]], commas: Sequence[str]) -> dict[str, list[str]]:
    """Return the text of columns, of which some have decimal commas, with decimal points, as it is written."""
    return texts | {name: [with_point(cell) or cell for cell in texts[name]] for name in commas}


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
