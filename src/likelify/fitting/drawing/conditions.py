"""What a user says that is known of rows, as rows: words of the command line, values by name, a table of conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.encoding import encode
from likelify.data.formats import frame_of, open_frame
from likelify.data.frames import Frame, joined, without_any
from likelify.data.reading import read_as, require_columns
from likelify.errors import ConfigError, DataError, unknown_words
from likelify.fitting.conditioning.asked import between_steps
from likelify.schema import ColumnSchema, compute_functions

# Seen values of a column that an error names.
NAMED = 12


@dataclass(frozen=True, eq=False)
class Conditions:
    """Rows of which some columns are known.

    Attributes:
        rows: raw rows `(n, columns)`, NaN where nothing is known.
        known: which columns are `(columns,)`.
        single: whether they are one row that was not part of a table.
    """

    rows: np.ndarray
    known: np.ndarray
    single: bool

    def __len__(self) -> int:
        return len(self.rows)


def parse_given(text: str, schema: Sequence[ColumnSchema]) -> dict[str, str] | Path:
    """Read `age=40,city=Rome`, or the name of a file of conditions.

    A comma only ends a value if the name of a column and an equals sign follow, so that values may have some.

    Raises:
        ConfigError: if a column is named twice, or without a value.

    Example:
        >>> parse_given("city=Paris, Texas,age=40", (ColumnSchema(name="age"), ColumnSchema(name="city")))
        {'city': 'Paris, Texas', 'age': '40'}
    """
    names = sorted((column.name for column in schema), key=len, reverse=True)
    if text.strip() in names and not _is_file(text):
        raise ConfigError(f"--given says what is known: '{text.strip()}=...', or the name of a file of conditions.")
    if "=" not in text or _is_file(text):
        return Path(text)
    found: dict[str, str] = {}
    twice: list[str] = []
    last = ""
    for part in text.split(","):
        name = next((name for name in names if _starts(part, name)), None)
        if name is None and found and "=" not in part:
            found[last] += f",{part}"
            continue
        # Names that are none are refused with all else that is wrong, see `conditions`.
        last = part.partition("=")[0].strip() if name is None else name
        twice += [last] if last in found else []
        found[last] = part.strip()[len(last) :].strip()[1:].strip()
    if twice:
        raise ConfigError(f"--given says twice what {', '.join(map(repr, dict.fromkeys(twice)))} is.")
    return found


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:
        # Longer than the name of a file can be.
        return False


def _starts(part: str, name: str) -> bool:
    rest = part.strip()
    return rest.startswith(name) and rest[len(name) :].lstrip().startswith("=")


def conditions(given: Any, schema: Sequence[ColumnSchema], missing: Sequence[str] = ()) -> Conditions:
    """Return what is given as rows.

    Args:
        given: the value of each known column by its name, or equally long lists of them; or a table of conditions: a
            file, a data frame. Values are such as the data have: numbers, words, dates; None or an empty cell says that
            the value is known to be missing.
        schema: of the columns of the model.
        missing: words that stand for missing values in the data of the model, beside the usual ones.

    Raises:
        ConfigError: if it is something else, or nothing.
        DataError: if there is no such column, or a value is not one that the column has.
    """
    frame = _frame(given, missing)
    columns = {} if frame is not None else _columns(given, missing)
    single = frame is None and not any(map(is_list, given.values()))
    names = list(columns) if frame is None else [each.name for each in frame.columns if each.name not in frame.index]
    what = "What is given" if frame is None else frame.name
    places = {column.name: at for at, column in enumerate(schema)}
    if not names:
        raise ConfigError("Nothing is given. Say what is known: given={'age': 40}, at the command line --given age=40.")
    strange = [name for name in names if name not in places]
    wanted = [schema[places[name]] for name in names if name in places]
    wrong = [unknown_words("column", strange, list(places), most=NAMED)] if strange else []
    wrong += [_follows(column) for column in wanted if column.function is not None]
    values = _values(columns if frame is None else frame, wanted, what, wrong)
    if not len(values):
        raise DataError(f"{what} has no rows.")
    rows, known = np.full((len(values), len(schema)), np.nan), np.zeros(len(schema), dtype=bool)
    at = [places[name] for name in names]
    rows[:, at], known[at] = values, True
    return Conditions(rows, known, single)


def _values(
    given: Frame | Mapping[str, Any], wanted: Sequence[ColumnSchema], what: str, wrong: Sequence[str]
) -> np.ndarray:
    """Return the values of conditions, or say all that is wrong with them.

    Args:
        given: a table of them, or values by the names of columns.
        wanted: the columns that they are of.
        what: they are called.
        wrong: what is known to be wrong already.
    """
    if not wanted:
        raise DataError(f"{what}: {' '.join(wrong)}")
    try:
        if isinstance(given, Frame):
            values = _read(given, wanted, unknown="refuse")
        else:
            values = encode(given, wanted, unknown="refuse", what=what)
    except DataError as error:
        if not wrong:
            raise
        raise DataError(f"{what}: {' '.join([*wrong, str(error)])}") from error
    wrong = [*wrong, *(said for at, column in enumerate(wanted) if (said := _never_seen(values[:, at], column)))]
    if wrong:
        raise DataError(f"{what}: {' '.join(wrong)}")
    return values


def rows_of(
    items: Any, schema: Sequence[ColumnSchema], optional: Sequence[int] = (), missing: Sequence[str] = ()
) -> np.ndarray:
    """Return raw rows of a table, of whose columns others than those of the model are not looked at.

    Args:
        items: a file, a data frame, lists by the names of columns; or an array or tensor of raw rows.
        schema: of the columns of the model.
        optional: numbers of columns that need not be there.
        missing: words that stand for missing values in the data of the model, beside the usual ones; in raw rows,
            which hold codes of words, NaN alone does.

    Raises:
        DataError: if another column is not there, or a value is not of its kind.
    """
    array = items.detach().cpu().numpy() if hasattr(items, "detach") else items
    if isinstance(array, np.ndarray):
        return _raw_rows(array, len(schema))
    frame = _frame(items, missing)
    if frame is not None:
        require_columns(frame, [column for at, column in enumerate(schema) if at not in optional])
        return _read(frame, schema, unknown="unseen")
    columns = _columns(items, missing)
    absent = [at for at in range(len(schema)) if schema[at].name not in columns]
    unneeded = [at for at in absent if at in optional or not schema[at].is_modelled]
    found = [at for at in range(len(schema)) if at not in unneeded]
    values = encode(columns, [schema[at] for at in found], what="The table")
    rows = np.full((len(values), len(schema)), np.nan)
    rows[:, found] = values
    compute_functions(rows, schema, list(columns))
    return rows


def _raw_rows(array: np.ndarray, columns: int) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != columns:
        raise DataError(f"Raw rows are an array (rows, {columns}), got shape {array.shape}.")
    try:
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Raw rows are numbers, words by their numbers in the schema: {error}. A data frame or a file has words."
        ) from error


def _follows(column: ColumnSchema) -> str:
    of = () if column.function is None else column.function.of
    if not of:
        return f"'{column.name}' has one value only, and cannot be a condition."
    return f"'{column.name}' follows from {', '.join(map(repr, of))}; give these instead."


def _frame(given: Any, missing: Sequence[str]) -> Frame | None:
    """Return a file or a data frame as a table; None if it is neither."""
    frame = open_frame(Path(given)) if isinstance(given, str | Path) else frame_of(given)
    if frame is not None:
        frame.missing = tuple(missing)
    return frame


def _read(frame: Frame, schema: Sequence[ColumnSchema], *, unknown: str) -> np.ndarray:
    """Read a table as rows of a schema, in pieces, of at most as many values as are read without asking."""
    return joined(frame.name, (rows.values for rows in read_as(frame, schema, unknown=unknown)))


def is_list(value: Any) -> bool:
    """Tell whether something holds several values; a word is one."""
    return isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _columns(given: Any, missing: Sequence[str]) -> dict[str, Any]:
    """Return lists of values by the names of columns."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"What is given must be values by the names of columns, a data frame or a file, got {type(given).__name__}."
        )
    lists = [is_list(value) for value in given.values()]
    if any(lists) and not all(lists):
        raise ConfigError("Give one value for each column, or equally long lists of them for all.")
    columns = {str(name): values if all(lists) else [plain_value(values)] for name, values in given.items()}
    return {name: without_any(list(values), missing) if missing else values for name, values in columns.items()}


def plain_value(value: Any) -> Any:
    """Return a number that an array or a tensor without axes holds; anything else as it is, moments of numpy too."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return value[()] if value.ndim == 0 else value
    if isinstance(value, np.datetime64 | np.timedelta64):
        return value
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _never_seen(values: np.ndarray, column: ColumnSchema) -> str:
    """Say which value a column never had, of which a model knows nothing; nothing if it had all."""
    missing = np.isnan(values)
    if missing.any() and not column.missing:
        return (
            f"'{column.name}' is missing in row {int(missing.argmax())}, and was never missing in the data that the "
            "model was fitted to. Leave the column out if it is not known."
        )
    if said := between_steps(values, column):
        return said
    strange = ~missing & ~np.isin(values, column.states)
    if column.rest != "none" or not strange.any():
        return ""
    seen = ", ".join(f"{state:g}" for state in column.states[:NAMED]) + (", ..." * (len(column.states) > NAMED))
    return (
        f"'{column.name}' = {values[strange.argmax()]:g} in row {int(strange.argmax())} is no value that the model "
        f"knows. It knows {seen}."
    )
