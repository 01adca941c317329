"""Tables of Apache Arrow: Parquet files, Feather files (Arrow IPC), and data frames in memory.

pyarrow reads them; what a file announces is looked at before anything is unpacked, and what comes out of it is checked
before it is used.
"""

from __future__ import annotations

import hashlib
import mmap
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.dates import ISO_DAY, ISO_TIME
from likelify.data.encoding import as_word
from likelify.data.faults import Faults
from likelify.data.frames import NUMBERS, Column, Frame, Rows, file_hash, printable, require_distinct, require_finite
from likelify.data.ipc import MAGIC, require_honest
from likelify.data.limits import FREE, MOST_COLUMNS, MOST_SHRINKING, TROUBLE, reading
from likelify.data.told import Told
from likelify.data.values import widened
from likelify.errors import DataError, needs
from likelify.names import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

# Rows that are unpacked at a time, and the buffer of a column of a file.
ROWS, BUFFER = 2**11, 2**12
# A footer of more strings and lists than that is none of a table.
MOST_STRING, MOST_ENTRIES = 2**24, 2**20
PARQUET, FEATHER = "a Parquet file of a table", "a Feather file (Arrow IPC) of a table"
# In which times are counted.
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# How a Feather file of the old version begins.
OLD = b"FEA1"


def pyarrow() -> Any:
    """Return the package.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    with needs("pyarrow", "app"):
        import pyarrow as pa
    return pa


class ArrowFrame(Frame):
    """A table of columns of Arrow.

    Attributes:
        form: what it should be, for errors.

    Args:
        name: of the file or the data frame, for errors.
        schema: names and types of its columns.
        count: number of rows.

    Raises:
        DataError: if there are no columns or too many, or two of one name.
    """

    form = "a table of columns of Arrow"

    def __init__(self, name: str, schema: pa.Schema, count: int) -> None:
        self.name, self.count, self._schema = name, count, schema
        if not 1 <= len(schema) <= MOST_COLUMNS:
            raise DataError(f"{name} has {len(schema):,} columns; 1 to {MOST_COLUMNS:,} are read.")
        names = shown_names(schema.names)
        require_distinct(name, schema.names)
        require_distinct(name, names)
        self._raw = dict(zip(names, schema.names, strict=True))
        self.columns = tuple(as_column(shown, schema.field(raw).type) for shown, raw in self._raw.items())
        index = index_columns(schema)
        self.index = tuple(shown for shown, raw in self._raw.items() if raw in index)

    @abstractmethod
    def batches(self, columns: list[str], start: int) -> Iterator[pa.RecordBatch]:
        """Read these columns in pieces of about `ROWS` rows, without the first `start` rows."""

    def rows(
        self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0, faults: Faults | None = None
    ) -> Iterator[Rows]:
        """Read columns in order; see `Frame.rows`."""
        for batch in self.batches([self._raw[name] for name in (*numbers, *carried)], start):
            with reading(self.name.strip("'"), self.form):
                batch.validate(full=True)
                values = np.empty((batch.num_rows, len(numbers)))
                for place in range(len(numbers)):
                    values[:, place] = as_numbers(batch.column(place))
                kept = {name: batch.column(len(numbers) + place).to_pylist() for place, name in enumerate(carried)}
            rows = Rows(values, kept, _Places(batch, start))
            require_finite(self.name, numbers, rows, faults)
            yield rows
            start += batch.num_rows

    def tables(self, names: Sequence[str], size: int) -> Iterator[pa.Table]:
        """Read columns in order as they are, in tables of so many rows but for the last."""
        batches = self.batches([self._raw[name] for name in names], 0)
        parts = (pyarrow().Table.from_batches([batch]).rename_columns(list(names)) for batch in batches)
        return cut_tables(parts, size)

    def exact(self) -> list[str]:
        """Return the names of the columns whose numbers may have more digits than float64 has."""
        types = pyarrow().types
        kinds = {shown: self._schema.field(raw).type for shown, raw in self._raw.items()}
        return [name for name, kind in kinds.items() if types.is_integer(kind) or types.is_decimal(kind)]

    def ordered(self, name: str) -> tuple[str, ...] | None:
        """Return the words of a column in the order that its type gives them, if it is the same in all parts."""
        types, raw = pyarrow().types, self._raw[name]
        kind = self._schema.field(raw).type
        if not (types.is_dictionary(kind) and kind.ordered):
            return None
        with reading(self.name.strip("'"), self.form):
            found = {tuple(map(as_word, batch.column(0).dictionary.to_pylist())) for batch in self.batches([raw], 0)}
        # Parts that have words of their own, or in another order, tell of no order of all.
        return found.pop() if len(found) == 1 else None


class _Places:
    """Tells where a value of a batch stands in its table."""

    def __init__(self, batch: pa.RecordBatch, start: int) -> None:
        self._batch, self._start = batch, start

    def __call__(self, row: int, column: int) -> tuple[str, str]:
        return f"row {self._start + row}", "nan" if self._batch.column(column)[row].is_valid else "missing"


class ParquetFrame(ArrowFrame):
    """A Parquet file.

    Raises:
        DataError: if it is none, or announces to unpack to much more than its size.
    """

    form = PARQUET

    def __init__(self, path: Path) -> None:
        self.path = path
        pyarrow()
        with unpacking(path, PARQUET), self._open() as file:
            footer = file.metadata
            # Nothing is asked of single columns: pyarrow 26 ends the process where their statistics are damaged.
            groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
            self._sizes = [group.num_rows for group in groups]
            if min([*self._sizes, 0]) < 0 or sum(self._sizes) != footer.num_rows:
                raise DataError(f"'{path}' is damaged: its parts do not have the number of rows that it announces.")
            if sum(abs(group.total_byte_size) for group in groups) > FREE + MOST_SHRINKING * path.stat().st_size:
                raise DataError(
                    f"'{path}' unpacks to more than {MOST_SHRINKING} times its size: it is made to fill the memory, or "
                    "nearly empty. If it is honest, write it without compression."
                )
            super().__init__(f"'{path}'", file.schema_arrow, footer.num_rows)

    def _open(self) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(
            self.path,
            buffer_size=BUFFER,
            pre_buffer=False,
            thrift_string_size_limit=MOST_STRING,
            thrift_container_size_limit=MOST_ENTRIES,
        )

    def batches(self, columns: list[str], start: int) -> Iterator[pa.RecordBatch]:
        """Read page after page; row groups before the start are passed over."""
        groups = list(range(len(self._sizes)))
        while groups and start >= self._sizes[groups[0]]:
            start -= self._sizes[groups.pop(0)]
        if not groups:
            return
        with unpacking(self.path, PARQUET), self._open() as file:
            found = file.iter_batches(ROWS, row_groups=groups, columns=columns, use_threads=False)
            for batch in without_first(found, start):
                if set(batch.schema.names) != set(columns):
                    raise DataError(f"'{self.path}' has columns whose names cannot be told apart: {columns[:5]}.")
                yield batch.select(columns)

    def fingerprint(self) -> str:
        """Hash the file."""
        return file_hash(self.path)


class FeatherFrame(ArrowFrame):
    """A Feather file of version 2, that is a file or a stream of Arrow IPC.

    Raises:
        DataError: if it is none, or announces to unpack to much more than its size.
    """

    form = FEATHER

    def __init__(self, path: Path) -> None:
        self.path = path
        pyarrow()
        with reading(path, FEATHER), open(path, "rb") as handle:
            start = handle.read(len(MAGIC))
            if start.startswith(OLD):
                raise DataError(f"'{path}' is a Feather file of version 1. Write it with version 2, or as Parquet.")
            self._is_file = start == MAGIC
            self._pages = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
            count = require_honest(path, memoryview(self._pages))
            self._release()
            with self._open() as reader:
                super().__init__(f"'{path}'", reader.schema, count)

    def _open(self, columns: list[int] | None = None) -> Any:
        pa = pyarrow()
        options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=columns or [])
        content = pa.BufferReader(pa.py_buffer(self._pages))
        return (pa.ipc.open_file if self._is_file else pa.ipc.open_stream)(content, options=options)

    def _parts(self, reader: Any) -> Iterator[Any]:
        yield from map(reader.get_batch, range(reader.num_record_batches)) if self._is_file else reader

    def batches(self, columns: list[str], start: int) -> Iterator[pa.RecordBatch]:
        """Read the parts one after the other, and give them in pieces."""
        places = [self._schema.names.index(name) for name in columns]
        with reading(self.path, FEATHER), self._open(places) as reader:
            for part in without_first(self._parts(reader), start):
                for first in range(0, part.num_rows, ROWS):
                    yield part.slice(first, ROWS).select(columns)
                self._release()

    def _release(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)

    def fingerprint(self) -> str:
        """Hash the file."""
        return file_hash(self.path)


class MemoryFrame(ArrowFrame):
    """A data frame in memory: of pandas, polars or pyarrow, or whatever else gives its columns as Arrow does.

    Args:
        data: has `__arrow_c_stream__`.
        name: for errors.

    Raises:
        DataError: if a column cannot be written as one of Arrow.
    """

    def __init__(self, data: Any, name: str = "The data frame") -> None:
        pa = pyarrow()
        try:
            self._table = data if isinstance(data, pa.Table) else pa.table(data)
        except (pa.ArrowException, *TROUBLE) as error:
            said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            raise DataError(f"{name} has a column of several types or of objects: {said}") from error
        super().__init__(name, self._table.schema, self._table.num_rows)

    def batches(self, columns: list[str], start: int) -> Iterator[pa.RecordBatch]:
        """Give pieces of the columns; nothing is copied."""
        yield from self._table.select(columns).slice(start).to_batches(max_chunksize=ROWS)

    def fingerprint(self) -> str:
        """Hash names and values, a piece at a time, however the table is cut."""
        digest = hashlib.sha256(str(self._schema.names).encode())
        for start in range(0, self._table.num_rows, ROWS):
            part = self._table.slice(start, ROWS)
            plain = pyarrow().table([without_dictionary(column) for column in part.columns], part.schema.names)
            for batch in plain.combine_chunks().to_batches():
                digest.update(batch.serialize())
        return digest.hexdigest()[:16]


def cut_tables(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Put tables together and cut them into such of so many rows, but for the last."""
    pa = pyarrow()
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        while count >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size).combine_chunks()
            rest = whole.slice(size)
            waiting, count = [rest], len(rest)
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def without_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column with its words themselves, where it has them by their numbers."""
    types, kind = pyarrow().types, column.type
    return column.cast(kind.value_type) if types.is_dictionary(kind) else column


def shown_names(given: Iterable[Any]) -> list[str]:
    """Return what columns are called: without blanks around a name, and by their number without one."""
    return [printable(str(name)).strip() or f"column {number}" for number, name in enumerate(given, 1)]


@contextmanager
def unpacking(path: Path, form: str) -> Iterator[None]:
    """Turn what goes wrong when a file is unpacked into a `DataError`, as `limits.reading` does.

    Where memory is refused although the file as a whole announces little, one of its pages announces what it has not;
    pyarrow asks for up to 2 GiB of a page before it unpacks it.

    Raises:
        DataError: for any error of reading.
    """
    try:
        with reading(path, form):
            yield
    except DataError as error:
        if not isinstance(error.__cause__, MemoryError):
            raise
        raise DataError(
            f"'{path}' is damaged: a part of it announces more than the whole file does; or there is no memory left."
        ) from None


def without_first(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """Leave the first rows out of batches, and batches that are empty."""
    for batch in batches:
        if batch.num_rows > count:
            yield batch.slice(count)
        count = max(0, count - batch.num_rows)


def column_type(kind: pa.DataType) -> ColumnType:
    """Tell what the values of a column of Arrow are; one of nothing but missing values may hold numbers."""
    types = pyarrow().types
    if types.is_dictionary(kind):
        return "words" if column_type(kind.value_type) in ("words", "integer", "boolean", "real") else "other"
    if types.is_duration(kind):
        return "real"
    if types.is_interval(kind):
        return "other"
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return "real"
    if types.is_integer(kind):
        return "integer"
    if types.is_boolean(kind):
        return "boolean"
    if types.is_temporal(kind):
        return "date"
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    return "words" if any(is_text(kind) for is_text in texts) else "other"


def as_column(name: str, kind: pa.DataType) -> Column:
    """Return what is known of a column of Arrow by its type."""
    types, found = pyarrow().types, column_type(kind)
    if found != "date":
        told = Told(kind="boolean", said="truth values") if found == "boolean" else Told()
        told = Told(unit="second", said="durations in seconds") if types.is_duration(kind) else told
        return Column(name, found, text=found == "words", told=told)
    if types.is_date(kind):
        return Column(name, found, told=Told("date", written=ISO_DAY, unit="day", said="dates"))
    zone = kind.tz if types.is_timestamp(kind) else None
    written = f"{ISO_DAY}T{ISO_TIME}" if types.is_timestamp(kind) else ISO_TIME
    said = "times of day" if types.is_time(kind) else "dates and times"
    return Column(name, found, told=Told("date", written=written, unit="second", zone=zone, said=said))


def _as_seconds(column: pa.Array) -> np.ndarray:
    """Return times or durations in seconds, which are counted in units of their own: whole seconds first."""
    pa = pyarrow()
    short = pa.int32() if pa.types.is_time32(column.type) else pa.int64()
    counts = column.view(short).fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False)
    per_second = PER_SECOND[column.type.unit]
    # With the sign of the whole, so that small negative ones keep their digits.
    part = np.fmod(counts, per_second)
    seconds = (counts - part) // per_second + part / per_second
    return np.where(column.is_null().to_numpy(zero_copy_only=False), np.nan, seconds)


def as_numbers(column: pa.Array) -> np.ndarray:
    """Return the values of a column of numbers, dates or times in float64; not a number where one is missing.

    Dates are days since the start of 1970, moments and durations seconds.
    """
    pa = pyarrow()
    types = pa.types
    if types.is_date(column.type):
        return column.cast(pa.date32()).cast(pa.int32()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    if types.is_temporal(column.type) and not types.is_interval(column.type):
        return _as_seconds(column)
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column_type(column.type) not in NUMBERS:
        raise DataError(f"A column of {column.type} holds no numbers.")
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_floating(column.type) and column.type.bit_width < 64:
        return widened(column.to_numpy(zero_copy_only=False))
    # Whole numbers above 2^53 are rounded.
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def index_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Return the names of the columns that were the index of a data frame of pandas."""
    try:
        described = schema.pandas_metadata or {}
        listed = described.get("index_columns", [])
    except TROUBLE:
        return ()
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return tuple(name for name in names if name in schema.names)
