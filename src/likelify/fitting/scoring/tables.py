"""Tables of scores as Arrow: one schema for those that come one after the other, whatever was carried through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

ENDINGS = (".csv", ".parquet")
# Columns whose values hardly ever repeat themselves: a dictionary of them would only take memory and time.
UNIQUE = ("item", "nats", "bits_per_dim", "standard_error", "outlier")


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


def carried_column(values: Any) -> pyarrow.Array | pyarrow.ChunkedArray:
    """Return what was carried through as a column of Arrow; values of several kinds, or too large, become text."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


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


def unique_of(schema: pyarrow.Schema) -> list[str]:
    """Return the names of the columns whose values hardly ever repeat themselves."""
    return [name for name in schema.names if name in UNIQUE or name.startswith("blame_")]
