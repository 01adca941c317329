"""What users of the estimator give beside the rows: columns, conditions, weights, words for missing values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import SourceOptions
from likelify.data.arrow import pyarrow
from likelify.data.frames import without_any, without_numbers, without_words
from likelify.errors import ConfigError, DataError
from likelify.fitting.drawing.conditions import is_list, plain_value
from likelify.fitting.estimator.forms import Form, as_arrow, is_frame

if TYPE_CHECKING:
    import pyarrow as pa


def named_wishes(columns: Any, form: Form) -> Any:
    """Return what columns are taken for by their names; of a list the names to keep."""
    if isinstance(columns, Mapping):
        return {form.named(name): wish for name, wish in columns.items()}
    return named_columns(columns, form)


def named_columns(columns: Any, form: Form) -> Any:
    """Return the names of columns, each of which is given by its name or place."""
    if columns is None or isinstance(columns, str):
        return columns
    several: Iterable[Any] = [columns] if isinstance(columns, Integral) else columns
    return tuple(map(form.named, several))


def conditions_of(given: Any, form: Form, missing: Collection[str] = ()) -> dict[str, Sequence[Any]]:
    """Return values by column of one row of conditions, or of a data frame of them.

    Args:
        given: the conditions.
        form: of the table that was fitted.
        missing: words that stand for missing values.

    Raises:
        ConfigError: if it is neither, or a column is given twice or several values.
    """
    if isinstance(given, Mapping):
        known: dict[str, Sequence[Any]] = {}
        for name, value in given.items():
            column = form.named(name)
            if column in known:
                raise ConfigError(f"The column '{column}' is given twice.")
            if is_list(value):
                raise ConfigError(
                    f"A dictionary gives one value of '{column}'; several rows are given as a data frame."
                )
            known[column] = without_any([plain_value(value)], missing)
        return known
    if not is_frame(given):
        raise ConfigError(f"What is given is a dictionary of values by column, or a data frame, not {given!r:.40}.")
    table: Any = as_arrow(given)
    return {name: without_any(table.column(name).to_pylist(), missing) for name in table.column_names}


def weights_of(given: Any, count: int) -> np.ndarray:
    """Return weights of rows, or say what is wrong with them.

    Raises:
        DataError: if there is not one for each row, one is negative or not finite, or all are zero.
    """
    try:
        weights = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"The sample_weight must be numbers: {error}") from error
    weights = np.full(count, float(weights)) if weights.ndim == 0 else weights
    if weights.shape != (count,):
        raise DataError(f"sample_weight.shape == {weights.shape}, expected {(count,)}!")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise DataError("The sample_weight must be finite, none of it below 0, and not all of it zero.")
    return weights


def missing_words(given: Sequence[str | float] | str | None) -> tuple[str, ...]:
    """Return the words that stand for missing values, of a list of words and numbers, or as the command line has it.

    Raises:
        ConfigError: if it is something else.
    """
    if isinstance(given, str):
        return SourceOptions.parse({"missing": given}).missing or ()
    words = None if isinstance(given, Mapping) or not isinstance(given, Iterable) else list(given)
    if given is not None and (words is None or not all(isinstance(word, str | Real) for word in words)):
        raise ConfigError(
            f"What stands for missing values is a list of words and numbers, such as missing=[-99, 'unknown'], or a "
            f"text with commas between, not {given!r:.40}."
        )
    return tuple(map(str, words or ()))


def without_missing(data: np.ndarray | pa.Table, words: Collection[str]) -> np.ndarray | pa.Table:
    """Return a table with nothing in place of words and numbers that stand for missing values.

    Args:
        data: rows of numbers, or a table of Arrow.
        words: what stands for missing values; a number among them stands for itself however it is written.
    """
    if not words:
        return data
    if isinstance(data, np.ndarray):
        return without_numbers(data, words)
    columns = [_present(column, words) for column in data.columns]
    return pyarrow().table(columns, names=data.column_names)


def _present(column: pa.ChunkedArray, words: Collection[str]) -> pa.ChunkedArray | pa.Array:
    pa = pyarrow()
    types, kind = pa.types, column.type
    if types.is_floating(kind) or types.is_integer(kind):
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        gone = np.isnan(without_numbers(numbers, words)) & ~np.isnan(numbers)
    elif types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind):
        cells = column.to_pylist()
        gone = np.array([now is None for now in without_words(cells, words)], dtype=bool)
    else:
        return column
    if not gone.any():
        return column
    from pyarrow import compute

    pc: Any = compute
    # Categories keep the words of their own order: those that no row has any more do no harm there.
    return pc.if_else(pa.array(gone), pa.scalar(None, kind), column)
