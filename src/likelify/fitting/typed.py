"""Raw rows as tables of Arrow, in the types that their columns had."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data.arrow import pyarrow, without_dictionary
from likelify.data.encoding import UNSEEN, decimals_of, decode_column, in_steps
from likelify.data.zones import of_clocks
from likelify.schema import ColumnSchema, compute_functions, is_clock

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_table(
    rows: np.ndarray,
    schema: Sequence[ColumnSchema],
    *,
    written: bool | Collection[str] = False,
    kept: np.ndarray | None = None,
) -> pa.Table:
    """Return raw rows as a table: words as a dictionary, whole numbers, truth values, dates; null where one is missing.

    Args:
        rows: `(n, len(schema))` in float64, see `ColumnSchema`.
        schema: of the columns.
        written: dates, truth values and numbers of so many decimals as the words in which the data had them, as a file
            of text wants them; or the names of columns of which that is wanted.
        kept: where numbers stay as they are, whatever decimals the data have `(n, len(schema))`; by default nowhere.

    Raises:
        MissingDependencyError: if pyarrow, which the extra `app` installs, is not there.

    Example:
        >>> schema = (ColumnSchema.category("colour", ("blue", "red")), ColumnSchema(name="size", step=0.1))
        >>> arrow_table(np.array([[1.0, 0.31], [np.nan, 2.0]]), schema).to_pylist()
        [{'colour': 'red', 'size': 0.3}, {'colour': None, 'size': 2.0}]
    """
    pa = pyarrow()
    whole = np.asarray(rows, dtype=np.float64)
    kept = np.zeros(whole.shape, dtype=bool) if kept is None else kept
    values = rounded(whole, schema, kept)
    texts = {column.name for column in schema if written is True} if isinstance(written, bool) else set(written)
    columns = [
        _column(pa, values[:, at], column, kept[:, at], written=column.name in texts)
        for at, column in enumerate(schema)
    ]
    return pa.table(columns, names=[column.name for column in schema])


def rounded(rows: np.ndarray, schema: Sequence[ColumnSchema], kept: np.ndarray | None = None) -> np.ndarray:
    """Return rows whose real numbers have as many decimals as those of the data.

    Columns that follow from others go along: they change by as much as the others make them.

    Args:
        rows: `(n, len(schema))`.
        schema: of the columns.
        kept: where numbers stay as they are; by default nowhere.
    """
    found = rows.copy()
    for at, column in enumerate(schema):
        if column.kind == "real" and column.step is not None and column.function is None:
            stays = False if kept is None else kept[:, at]
            found[:, at] = np.where(stays, rows[:, at], in_steps(rows[:, at], column.step))
    before, after = rows.copy(), found.copy()
    for each in (before, after):
        compute_functions(each, schema)
    change = np.where(np.isfinite(after - before), after - before, 0.0)
    follows = np.array([column.function is not None for column in schema], dtype=bool)
    return np.where(follows, rows + change, found)


def _column(pa: Any, values: np.ndarray, column: ColumnSchema, kept: np.ndarray, *, written: bool) -> pa.Array:
    if column.categories is not None:
        # All tables have the same words in the same order, whichever of them are met.
        missing = np.isnan(values) | (values == UNSEEN)
        last = len(column.categories) - 1
        places = np.rint(np.where(missing, 0, values)).clip(0, last).astype(np.int32)
        words = pa.array(column.categories, pa.string())
        indices = pa.array(places, mask=missing)
        return pa.DictionaryArray.from_arrays(indices, words, ordered=column.kind == "ordered")
    if not written and column.zone is not None:
        return of_clocks(decode_column(values, column, written=False), column.zone)
    if not written and column.unit is not None and column.kind != "date":
        known = np.where(np.isnan(values), 0.0, values)
        micros = np.rint((np.rint(known) if column.kind == "integer" else known) * 1e6).astype(np.int64)
        return pa.array(micros.view("m8[us]"), pa.duration("us"), mask=np.isnan(values))
    decoded = decode_column(values, column, written=written)
    if column.kind == "real" and column.step is not None and kept.any():
        decoded = [value if stays else now for value, stays, now in zip(values.tolist(), kept, decoded, strict=True)]
        decoded = [None if value is None or value != value else value for value in decoded]
    if written and column.truth is not None:
        decoded = [None if value is None else column.truth[int(value)] for value in decoded]
    if written and _has_decimals(column):
        decoded = [None if value is None else _with_decimals(float(value), column.decimals or 0) for value in decoded]
    return pa.array(decoded, _type(pa, column, written=written))


def _with_decimals(value: float, decimals: int) -> str:
    """Write a number with so many decimals, or with more if it has more, as one that is kept may have."""
    text = f"{value:.{decimals}f}"
    return text if abs(float(text) - value) <= 1e-9 * max(1.0, abs(value)) else repr(float(value))


def _has_decimals(column: ColumnSchema) -> bool:
    """Tell whether all numbers are written with as many decimals, and draws are rounded to no more."""
    return column.decimals is not None and column.step is not None and decimals_of(column.step) <= column.decimals


def _type(pa: Any, column: ColumnSchema, *, written: bool) -> pa.DataType:
    if written and (column.kind == "date" or column.truth is not None or _has_decimals(column)):
        return pa.string()
    if column.kind == "date":
        if is_clock(column.written):
            return pa.time64("us")
        return pa.date32() if column.unit == "day" else pa.timestamp("us")
    return {"integer": pa.int64(), "boolean": pa.bool_()}.get(column.kind, pa.float64())


def filled_column(known: pa.ChunkedArray, drawn: pa.ChunkedArray, gone: np.ndarray) -> pa.ChunkedArray:
    """Return a column of which some values are taken from another, in its own type where they fit into it.

    Args:
        known: the column, which is not changed where it is kept.
        drawn: the other, equally long.
        gone: where it is taken `(n,)`.
    """
    pa = pyarrow()
    from pyarrow import compute

    pc: Any = compute
    if pa.types.is_dictionary(drawn.type) and not pa.types.is_dictionary(known.type):
        drawn = without_dictionary(drawn)
    typed = typed_column(drawn, known.type)
    # Where a narrow type has no room for what is drawn, the column is a wide one then.
    known = known if typed.type == known.type else known.cast(typed.type)
    return pc.if_else(pa.array(gone), typed, known)


def typed_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column in another type, or as it is if a value does not fit into it."""
    pa = pyarrow()
    try:
        return column.cast(kind, safe=pa.types.is_integer(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column
