"""Tables of words, dates and numbers as rows of float64, and back; see `schema.ColumnSchema`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from likelify.data.dates import read_dates, write_dates
from likelify.data.dialect import in_points, is_missing, is_nothing
from likelify.data.faults import Fault, Faults, note_cells
from likelify.data.limits import LARGEST_VALUE
from likelify.data.values import widened
from likelify.errors import DataError, LikelifyWarning, unknown_words
from likelify.schema import ColumnSchema

# Of words that a model does not know, how many a warning names.
NAMED = 5
# Of the names of columns and the words of one, how many an error lists.
LISTED = 20
# The place of all words that a column never had.
UNSEEN = -1.0
TRUE = frozenset(("true", "t", "yes", "y", "on", "1", "1.0"))
FALSE = frozenset(("false", "f", "no", "n", "off", "0", "0.0"))


def encode(
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    schema: Sequence[ColumnSchema],
    *,
    unknown: str = "unseen",
    what: str = "The data",
) -> np.ndarray:
    """Return columns of words, dates and numbers as rows `(n, len(schema))` in float64.

    Args:
        columns: the values of each column by its name: words, numbers, truth values, dates as they are written or as
            Python and numpy have them; None, NaN, NaT and empty words are missing.
        schema: the columns that are wanted, in their order; it can be a part of the schema of a table.
        unknown: what becomes of words that a column does not know: `"unseen"` gives all of them the place -1, with a
            warning that names them; `"refuse"` refuses them.
        what: the data's name, for errors.

    Raises:
        DataError: if a column is not there, or holds something else than its kind, or they are not equally long.

    Warns:
        LikelifyWarning: naming words that are not known.

    Example:
        >>> from likelify.schema import ColumnSchema
        >>> colour = ColumnSchema.category("colour", ("blue", "red"))
        >>> encode({"colour": ["red", None, "blue"]}, [colour])[:, 0].tolist()
        [1.0, nan, 0.0]
    """
    known = list(columns)
    if absent := [column.name for column in schema if column.name not in columns]:
        raise DataError(f"{what}: {unknown_words('column', absent, known, most=LISTED)}")
    lengths = {column.name: len(columns[column.name]) for column in schema}
    if len(set(lengths.values())) > 1:
        raise DataError(f"The columns of {what.lower()} are not equally long: {lengths}.")
    rows = np.empty((next(iter(lengths.values()), 0), len(schema)))
    strange: dict[str, list[str]] = {}
    faults = Faults(what)
    for place, column in enumerate(schema):
        rows[:, place], words = encode_column(columns[column.name], column, what, faults=faults)
        strange |= {column.name: words} if words else {}
    faults.refuse()
    say_strange(what, strange, schema, unknown)
    return rows


def say_strange(what: str, strange: Mapping[str, list[str]], schema: Sequence[ColumnSchema], unknown: str) -> None:
    """Warn of words that a schema does not know, or refuse them."""
    if not strange:
        return
    if unknown == "refuse":
        known = {column.name: column.categories or () for column in schema}
        wrong = [
            f"column '{name}': {unknown_words('word', words, known[name], most=LISTED)}"
            for name, words in strange.items()
        ]
        raise DataError(f"{what}, {' '.join(wrong)}")
    said = "; ".join(
        f"'{name}': {', '.join(map(repr, words[:NAMED]))}{' and others' if len(words) > NAMED else ''}"
        for name, words in strange.items()
    )
    warnings.warn(
        f"{what} has words that the model does not know, which count as never seen: {said}.",
        LikelifyWarning,
        stacklevel=3,
    )


def encode_column(
    values: Sequence[Any] | np.ndarray,
    column: ColumnSchema,
    what: str = "The data",
    place: Callable[[int], str] = "row {}".format,
    faults: Faults | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Return the values of one column in float64, and the words in it that it does not know.

    Args:
        values: see `encode`.
        column: what they are.
        what: the data's name, for errors.
        place: tells where a row stands, for errors.
        faults: where values of another kind are noted, which then count as missing; by default they are refused.

    Raises:
        DataError: naming the first value that is of another kind.
    """
    faults, noted = Faults(what) if faults is None else faults, faults
    read, words = _encoded(values, column, faults, place)
    if noted is None:
        faults.refuse()
    return read, words


def _encoded(
    values: Sequence[Any] | np.ndarray, column: ColumnSchema, faults: Faults, place: Callable[[int], str]
) -> tuple[np.ndarray, list[str]]:
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values).tolist()
        values = [None if gone else value for value, gone in zip(values.data.tolist(), hidden, strict=True)]
    if column.categories is not None:
        return _places(values, column.categories)
    array = np.asarray(values) if isinstance(values, np.ndarray) else _as_array(values)
    if array.dtype.kind == "m":
        array = np.where(np.isnat(array), np.nan, array / np.timedelta64(1, "s"))
    if column.kind == "date" and array.dtype.kind in "iuf" and column.written is not None:
        # Such as 20240131: no count of days.
        return read_dates(list(map(as_word, array.tolist())), column, faults, place), []
    if array.dtype.kind in "iufb" and (column.kind != "date" or array.dtype.kind != "b"):
        return _checked(widened(array), column, faults, place), []
    if column.kind == "date":
        return read_dates(values, column, faults, place), []
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    read = [_truth(value) if column.kind == "boolean" else _number(value, comma=column.comma) for value in plain]
    kind = "truth value" if column.kind == "boolean" else "number"
    note_cells(
        faults, column.name, plain, [row for row, value in enumerate(read) if value is None], f"is no {kind}", place
    )
    return _checked(np.array([np.nan if value is None else value for value in read]), column, faults, place), []


def _as_array(values: Sequence[Any]) -> np.ndarray:
    """Return a list as an array, of objects where it holds several things."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        return np.array([*values, None], dtype=object)[:-1]


def _checked(values: np.ndarray, column: ColumnSchema, faults: Faults, place: Callable[[int], str]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        wrong = np.abs(values) > LARGEST_VALUE
    if wrong.any():
        row = int(wrong.argmax())
        fault = Fault(f"the value is {values[row]}, which is too large", place(row), int(wrong.sum()))
        faults.add(column.name, fault)
        return np.where(wrong, np.nan, values)
    return values


def _places(values: Sequence[Any] | np.ndarray, words: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """Return the places of words among those that are known, -1 for others, and these."""
    places: dict[Any, float] = {word: float(place) for place, word in enumerate(words)}
    plain = values.tolist() if isinstance(values, np.ndarray) else list(values)
    strange: dict[str, None] = {}
    read = np.empty(len(plain))
    for row, value in enumerate(plain):
        word = value if isinstance(value, str) else as_word(value)
        place = places.get(word)
        if place is None:
            word = word.strip()
            place = places.get(word, np.nan if is_missing(word) else UNSEEN)
            if place == UNSEEN:
                strange[word] = None
        read[row] = place
    return read, list(strange)


def as_word(value: Any) -> str:
    """Return a value as a word of a category; what is missing as the empty one."""
    if is_nothing(value):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any, *, comma: bool = False) -> float | None:
    """Return a number, in a word perhaps with a decimal comma; NaN if it is missing, None if it is something else."""
    word = as_word(value)
    if is_missing(word):
        return np.nan
    if comma and isinstance(value, str):
        value = in_points(word.strip())
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        return float(value) if "_" not in word else None
    except (TypeError, ValueError, OverflowError):
        return None


def _truth(value: Any) -> float | None:
    word = as_word(value).strip()
    if is_missing(word):
        return np.nan
    return 1.0 if word.lower() in TRUE else 0.0 if word.lower() in FALSE else None


def decode(rows: np.ndarray, schema: Sequence[ColumnSchema], *, written: bool = True) -> dict[str, Any]:
    """Return rows as columns of words, dates and numbers, as the data had them.

    Words are words, whole numbers whole, real numbers rounded to the last decimal of the data, dates as they were
    written. Columns of numbers and truth values without missing values are arrays, all others lists, with None where a
    value is missing or a word was never seen.

    Args:
        rows: `(n, len(schema))`.
        schema: of the columns.
        written: dates as words; else as `numpy.datetime64`, of times of day as `datetime.time`; both by the clocks of
            the time zone that a column has.

    Raises:
        DataError: if the rows have another number of columns.

    Example:
        >>> from likelify.schema import ColumnSchema
        >>> colour = ColumnSchema.category("colour", ("blue", "red"))
        >>> decode(np.array([[1.0], [np.nan]]), [colour])
        {'colour': ['red', None]}
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(schema):
        raise DataError(f"Rows of {len(schema)} columns are needed, got an array of shape {values.shape}.")
    return {
        column.name: decode_column(values[:, place], column, written=written) for place, column in enumerate(schema)
    }


def decode_column(values: np.ndarray, column: ColumnSchema, *, written: bool = True) -> Any:
    """Return the values of one column as the data had them; see `decode`."""
    if column.kind == "date":
        return write_dates(values, column, written=written)
    missing = np.isnan(values)
    if column.categories is not None:
        missing |= values == UNSEEN
        words, last = column.categories, len(column.categories) - 1
        places = np.clip(np.rint(np.where(missing, 0, values)), 0, last).astype(np.int64).tolist()
        return [None if gone else words[place] for place, gone in zip(places, missing.tolist(), strict=True)]
    filled = np.where(missing, 0.0, values)
    if column.kind == "boolean":
        typed = filled > 0.5
    elif column.kind == "integer":
        typed = np.rint(filled).astype(np.int64)
    else:
        typed = filled if column.step is None else in_steps(filled, column.step)
    if not missing.any():
        return typed
    return [None if gone else value for value, gone in zip(typed.tolist(), missing.tolist(), strict=True)]


def in_steps(values: np.ndarray, step: float) -> np.ndarray:
    """Return the nearest multiples of a step, as they are written.

    Example:
        >>> in_steps(np.array([0.31, 1.9]), 0.25)
        array([0.25, 2.  ])
    """
    return np.round(np.rint(values / step) * step, decimals_of(step))


def decimals_of(step: float) -> int:
    """Return how many decimals the multiples of a step have."""
    return max(0, -Decimal(repr(step)).normalize().as_tuple().exponent)  # pyright: ignore[reportOperatorIssue]
