"""Tables of Arrow written to a file one after the other: CSV, Parquet or Feather, the same however they were cut."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.data.arrow import cut_tables, pyarrow
from likelify.data.cells import as_cell

if TYPE_CHECKING:
    import pyarrow as pa

ENDINGS = (".csv", ".parquet", ".feather")
# Rows that are written at a time; of Parquet a group.
ROWS = 2**16


def write_tables(
    file: Path,
    ending: str,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    *,
    header: bool = True,
    unique: Sequence[str] = (),
) -> None:
    """Write tables of one schema.

    In CSV all digits of numbers are written (of a column like 1.7e9 +- 3 nine are not enough), what is missing leaves
    its cell empty, truth values are true and false, and text that a spreadsheet would run gets an apostrophe in front;
    see `as_cell`.

    Args:
        file: to write.
        ending: of its name in the end, one of `ENDINGS`.
        schema: of all tables.
        tables: in their order.
        header: whether CSV starts with the names of the columns.
        unique: names of columns whose values hardly ever repeat themselves, of which Parquet keeps no dictionary.
    """
    if ending == ".csv":
        _write_csv(file, schema, tables, header=header)
        return
    with _writer(file, ending, schema, unique) as writer:
        for table in cut_tables(tables, ROWS):
            writer(table)


def _write_csv(file: Path, schema: pa.Schema, tables: Iterable[pa.Table], *, header: bool) -> None:
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if header:
            writer.writerow([as_cell(name) for name in schema.names])
        for table in tables:
            writer.writerows(zip(*map(_cells, table.columns), strict=True))


@contextmanager
def _writer(file: Path, ending: str, schema: pa.Schema, unique: Sequence[str]) -> Iterator[Any]:
    """Give the block what writes a table to a binary file."""
    if ending == ".feather":
        with pyarrow().ipc.new_file(str(file), schema) as feather:
            yield feather.write_table
        return
    from pyarrow import parquet

    repeated = [field.name for field in schema if field.name not in unique]
    with parquet.ParquetWriter(file, schema, use_dictionary=repeated) as whole:  # pyright: ignore[reportArgumentType]
        yield lambda table: whole.write_table(table, row_group_size=ROWS)


def as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Return the values of a column as the text that a CSV file has of them, None where one is missing."""
    return [None if value is None else str(value) for value in _cells(column)]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column as they are written to a CSV file."""
    pa = pyarrow()
    values = column.to_pylist()
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return values
    if pa.types.is_boolean(column.type):
        return [None if value is None else "true" if value else "false" for value in values]
    return [as_cell(value if value is None or isinstance(value, str) else str(value)) for value in values]
