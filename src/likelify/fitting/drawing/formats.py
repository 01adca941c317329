"""Items as files, written batch by batch in constant memory: arrays, tables, folders of pictures.

Each writer takes the place to write to, the facts of the data, how many items there will be, and their batches.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from itertools import count as counting
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from likelify.data import Batch, Facts
from likelify.data.arrow import pyarrow
from likelify.fitting.drawing.draw import as_stored
from likelify.fitting.table_files import write_tables
from likelify.fitting.typed import arrow_table
from likelify.plots import MOST_POINTS, lines_of, one_image, pairs_of, picture

if TYPE_CHECKING:
    import pyarrow as pa

# What the name of a file had better not have.
UNUSUAL = re.compile(r"[^\w.+-]+")
Writer = Callable[[Path, Facts, int, Iterable[Batch]], None]


def write_picture(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write items as one picture: a grid of images, sequences as lines; of rows pairs of columns."""
    iterator, most = iter(batches), MOST_POINTS if facts.kind == "table" else count
    parts: list[np.ndarray] = []
    # What is not shown is not drawn either.
    while sum(map(len, parts)) < min(count, most) and (batch := next(iterator, None)) is not None:
        parts.append(_array(batch, facts))
    items = np.concatenate(parts)[:most]
    if facts.kind == "image":
        content = picture({"": items}, facts.levels or 256)
    elif facts.kind == "sequence":
        content = lines_of({"": items})
    else:
        content = pairs_of({"": items}, facts.columns, facts.meaning)
    path.write_bytes(content)


def write_npy(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write items as one array `(n, *event)` of numpy: integers where there are levels."""
    with path.open("wb") as handle:
        _write_array(handle, count, (_array(batch, facts) for batch in batches))


def write_npz(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write items as the array `x` of a file of numpy, and their classes, if they have some, as `labels`."""
    labels: list[np.ndarray] = []

    def arrays() -> Iterator[np.ndarray]:
        for batch in batches:
            if batch.labels is not None:
                labels.append(batch.labels.numpy())
            yield _array(batch, facts)

    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("x.npy", "w", force_zip64=True) as handle:
            _write_array(cast("BinaryIO", handle), count, arrays())
        if labels:
            with archive.open("labels.npy", "w", force_zip64=True) as handle:
                _write_array(cast("BinaryIO", handle), count, iter(labels))


def write_csv(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write rows as CSV with the names of the columns if they are known; of sequences a line for each position."""
    named = facts.columns is not None or facts.kind == "sequence"
    _write_tables(path, ".csv", facts, batches, header=named)


def write_parquet(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write rows as a Parquet file, in the types of the columns; real numbers in double precision."""
    _write_tables(path, ".parquet", facts, batches)


def write_feather(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write rows as a Feather file (Arrow's own format)."""
    _write_tables(path, ".feather", facts, batches)


def write_folder(path: Path, facts: Facts, count: int, batches: Iterable[Batch]) -> None:
    """Write images as PNG files of a folder, numbered from 0, with the class, if there is one, in the name."""
    digits, numbers = len(str(count - 1)), counting()
    for batch in batches:
        images = _array(batch, facts)
        labels = [""] * len(batch) if batch.labels is None else _class_words(batch, facts)
        for image, label in zip(images, labels, strict=True):
            ending = "" if batch.labels is None else f"-{UNUSUAL.sub('_', str(label))[:60]}"
            (path / f"{next(numbers):0{digits}d}{ending}.png").write_bytes(one_image(image, facts.levels or 256))


def free_name(wanted: str, taken: Sequence[str]) -> str:
    """Return a name of a column that is not taken: the wanted one, or with the first free number."""
    names = (wanted if number == 1 else f"{wanted}_{number}" for number in counting(1))
    return next(name for name in names if name not in taken)


def column_names(facts: Facts) -> list[str]:
    """Return the names of the columns of rows, made up where the data have none."""
    return list(facts.columns or [f"column_{number + 1}" for number in range(facts.event_shape[0])])


def _array(batch: Batch, facts: Facts) -> np.ndarray:
    array = as_stored(batch.x.detach().cpu(), facts).numpy()
    # As int32 they are twice as large.
    return array.astype(np.uint16) if facts.levels is not None and 256 < facts.levels <= 65536 else array


def _write_array(handle: BinaryIO, count: int, parts: Iterator[np.ndarray]) -> None:
    """Write an array of that length, part after part: a header, and then the numbers as they are."""
    for number, part in enumerate(parts):
        if number == 0:
            header = {"descr": part.dtype.str, "fortran_order": False, "shape": (count, *part.shape[1:])}
            np.lib.format.write_array_header_1_0(handle, header)
        handle.write(np.ascontiguousarray(part).tobytes())


def _table(batch: Batch, facts: Facts, start: int, *, written: bool) -> pa.Table:
    """Return a batch as a table: of sequences one line for each position, in long format."""
    values = _array(batch, facts)
    values = values if facts.levels is not None else values.astype(np.float64)
    if facts.kind == "sequence":
        items, channels, length = values.shape
        places = [np.repeat(np.arange(start, start + items), length), np.tile(np.arange(length), items)]
        names = ["sequence", "position", *(f"channel_{number + 1}" for number in range(channels))]
        columns = places + list(values.transpose(1, 0, 2).reshape(channels, -1))
        table = pyarrow().table(columns, names=names)
    else:
        length = 1
        table = arrow_table(values, facts.meaning, written=written).rename_columns(column_names(facts))
    if batch.labels is None:
        return table
    labels = np.repeat(np.array(_class_words(batch, facts)), length)
    return table.append_column(free_name("label", table.column_names), pyarrow().array(labels))


def _class_words(batch: Batch, facts: Facts) -> list[Any]:
    """Return the classes of items by their names, where they have some."""
    numbers = [] if batch.labels is None else batch.labels.tolist()
    return numbers if facts.class_names is None else [facts.class_names[number] for number in numbers]


def _write_tables(path: Path, ending: str, facts: Facts, batches: Iterable[Batch], *, header: bool = True) -> None:
    tables = _tables(batches, facts, written=ending == ".csv")
    first = next(tables)
    header = header or "label" in first.column_names
    write_tables(path, ending, first.schema, chain([first], tables), header=header)


def _tables(batches: Iterable[Batch], facts: Facts, *, written: bool) -> Iterator[pa.Table]:
    start = 0
    for batch in batches:
        yield _table(batch, facts, start, written=written)
        start += len(batch)


PICTURE: dict[str, Writer] = {".png": write_picture}
ARRAYS: dict[str, Writer] = {".npy": write_npy, ".npz": write_npz}
TABLES: dict[str, Writer] = {".csv": write_csv, ".parquet": write_parquet, ".feather": write_feather}
