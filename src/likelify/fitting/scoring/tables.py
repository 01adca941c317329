"""Tables of Arrow written to a file one after the other: CSV or Parquet, the same bytes however they were cut."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likelify.fitting.cells import as_cell

if TYPE_CHECKING:
    import pyarrow

ENDINGS = (".csv", ".parquet")
# Rows that are written at a time; of Parquet a group.
ROWS = 2**16
# Columns whose values are all different.
UNIQUE = ("item", "nats", "bits_per_dim", "standard_error")


def write_tables(file: Path, ending: str, schema: pyarrow.Schema, tables: Iterable[pyarrow.Table]) -> None:
    """Write tables of one schema, in CSV or Parquet.

    In CSV all digits of numbers are written, what is missing leaves its cell empty, and text that a spreadsheet would
    run gets an apostrophe in front.
    """
    if ending == ".csv":
        with file.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow([as_cell(name) for name in schema.names])
            for table in tables:
                writer.writerows(zip(*map(_cells, table.columns), strict=True))
        return
    from pyarrow import parquet

    # Likelihoods hardly ever repeat themselves: a dictionary of them would only take memory and time.
    repeated = [field.name for field in schema if field.name not in UNIQUE and not field.name.startswith("blame_")]
    with parquet.ParquetWriter(file, schema, use_dictionary=repeated) as writer:  # pyright: ignore[reportArgumentType]
        for table in _cut(tables):
            writer.write_table(table, row_group_size=ROWS)


def _cells(column: pyarrow.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    values = column.to_pylist()
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return values
    return [as_cell(value if value is None or isinstance(value, str) else str(value)) for value in values]


def _cut(tables: Iterable[pyarrow.Table]) -> Iterator[pyarrow.Table]:
    """Put tables together and cut them into such of `ROWS` rows, but for the last."""
    import pyarrow as pa

    waiting: list[pyarrow.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        while count >= ROWS:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROWS).combine_chunks()
            rest = whole.slice(ROWS)
            waiting, count = [rest], len(rest)
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def as_schema(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    """Return a table with the types of a common schema; what Arrow cannot turn into text is written as Python does."""
    import pyarrow as pa

    columns = []
    for column, field in zip(table.columns, schema, strict=True):
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowNotImplementedError:
            values = column.to_pylist()
            columns.append(pa.array([None if value is None else str(value) for value in values], field.type))
    return pa.table(columns, schema=schema)


def common_schema(schemas: Iterable[pyarrow.Schema]) -> pyarrow.Schema:
    """Return a schema that the tables of all of some can be cast to: where kinds do not go together, as text."""
    import pyarrow as pa

    merged: pyarrow.Schema | None = None
    for schema in schemas:
        if merged is None or merged.equals(schema):
            merged = schema
            continue
        fields = [_common(mine, other) for mine, other in zip(merged, schema, strict=True)]
        merged = pa.schema(fields)
    return pa.schema([]) if merged is None else merged


def _common(one: pyarrow.Field, other: pyarrow.Field) -> pyarrow.Field:
    import pyarrow as pa

    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.field(one.name, pa.string())
