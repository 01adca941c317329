"""Tables that are read in pieces: what CSV, Parquet and Arrow files and data frames in memory have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.dialect import is_number
from likelify.data.faults import Fault, Faults
from likelify.data.limits import LARGEST_VALUE, REMEDY, require_values
from likelify.data.told import Told
from likelify.errors import DataError, unknown_words
from likelify.names import ColumnType

NUMBERS: tuple[ColumnType, ...] = ("real", "integer", "boolean")
# Of the columns that an error is about, how many it names.
NAMED = 20


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the column.
        type: what its values are.
        text: whether they are read as text.
        comma: whether its numbers have decimal commas.
        told: what the file itself says of them.
    """

    name: str
    type: ColumnType = "real"
    text: bool = False
    comma: bool = False
    told: Told = Told()


@dataclass(frozen=True)
class Rows:
    """Some rows of a table, one after the other.

    Attributes:
        values: of the columns of numbers `(rows, columns)`, float64; not a number where one is missing.
        carried: the values of other columns, by name.
        locate: tells of the number of a row and of a column of `values` where its value stands, `line 7`, and what is
            there, `missing` or `nan`.
    """

    values: np.ndarray
    carried: dict[str, list[Any]]
    locate: Callable[[int, int], tuple[str, str]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def after(self, count: int) -> Rows:
        """Return the rows without the first ones."""
        carried = {name: values[count:] for name, values in self.carried.items()}
        return Rows(self.values[count:], carried, lambda row, column: self.locate(row + count, column))

    def head(self, count: int) -> Rows:
        """Return the first rows."""
        carried = {name: values[:count] for name, values in self.carried.items()}
        return Rows(self.values[:count], carried, self.locate)


class Frame(ABC):
    """A table of which columns are read by name, piece by piece.

    Attributes:
        name: of the file or the data frame, for errors.
        columns: all that it has.
        index: names of columns that only number or name the rows, as pandas writes them.
        named: whether the columns have names of their own.
        count: number of rows, or None where only reading tells.
        missing: further words that stand for missing values.
        is_text: whether all values are written as text, which only says how numbers are written.
    """

    name: str
    columns: tuple[Column, ...]
    index: tuple[str, ...] = ()
    named: bool = True
    count: int | None = None
    missing: tuple[str, ...] = ()
    is_text: bool = False

    @abstractmethod
    def rows(
        self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0, faults: Faults | None = None
    ) -> Iterator[Rows]:
        """Read columns in order, in pieces of little memory.

        Args:
            numbers: names of the columns whose values are read as float64.
            carried: names of columns whose values are given as they are.
            start: the first row that is given.
            faults: where what is wrong with values is noted, which then count as missing; by default it is refused.

        Raises:
            DataError: if the file is damaged, or a value is no number, infinite or above 1e150, naming where it stands.
        """

    def place(self, row: int) -> str:
        """Tell where a row stands, `line 7`."""
        return f"row {row}"

    def ordered(self, name: str) -> tuple[str, ...] | None:
        """Return the words of a column in the order that the table itself gives them; None if it gives none."""
        del name
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the whole content."""

    def present(self, values: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Return the values of columns with NaN in place of numbers that stand for missing ones.

        Truth values and moments are none of these numbers, whatever they are counted by.

        Args:
            values: `(rows, len(names))`.
            names: of the columns.
        """
        measured = [self.column(name).type not in ("boolean", "date") for name in names]
        return np.where(measured, without_numbers(values, self.missing), values) if self.missing else values

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)


def without_words(values: Sequence[Any], missing: Collection[str]) -> Sequence[Any]:
    """Return values with nothing in place of words that stand for missing ones."""
    if not missing:
        return values
    numbers = {float(word) for word in missing if is_number(word)}

    def is_meant(word: str) -> bool:
        return word in missing or (bool(numbers) and is_number(word) and float(word) in numbers)

    return [None if isinstance(value, str) and is_meant(value.strip()) else value for value in values]


def without_any(values: Sequence[Any], missing: Collection[str]) -> Sequence[Any]:
    """Return words and numbers with nothing in place of those that stand for missing ones.

    Example:
        >>> without_any([3, -1.0, "-1", "unknown"], ("-1", "unknown"))
        [3, None, None, None]
    """
    if not missing:
        return values
    gone = without_words([str(value) if isinstance(value, Real) else value for value in values], missing)
    return [None if word is None else value for word, value in zip(gone, values, strict=True)]


def without_numbers(values: np.ndarray, missing: Collection[str]) -> np.ndarray:
    """Return numbers with NaN in place of those that stand for missing ones."""
    numbers = [float(word) for word in missing if is_number(word)]
    return np.where(np.isin(values, numbers), np.nan, values) if numbers else values


@dataclass
class Missing:
    """The missing values of a table, counted while it is read.

    Attributes:
        name: of the table.
        columns: names of the columns that are read.
    """

    name: str
    columns: Sequence[str]
    first: tuple[str, str, str] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Count those of some rows."""
        missing = np.isnan(rows.values)
        if not missing.any():
            return
        if self.first is None:
            row, column = (int(n) for n in np.argwhere(missing)[0])
            self.first = (self.columns[column], *rows.locate(row, column))
        for column in np.flatnonzero(missing.any(0)).tolist():
            name = self.columns[column]
            self.counts[name] = self.counts.get(name, 0) + int(missing[:, column].sum())

    def refuse(self) -> None:
        """Refuse the table if values are missing.

        Raises:
            DataError: naming the first, and how many of which columns are missing.
        """
        if self.first is None:
            return
        column, place, said = self.first
        total = sum(self.counts.values())
        counted = ""
        if total > 1:
            most = sorted(self.counts.items(), key=lambda item: -item[1])
            named = ", ".join(f"'{name}' {number:,}" for name, number in most[:NAMED])
            counted = f", as are {total:,} in all ({named}{', ...' if len(most) > NAMED else ''})"
        raise DataError(f"{self.name}, {place}, column '{column}': the value is {said}{counted}. {REMEDY}")


def complete(frame: Frame, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0) -> Iterator[Rows]:
    """Read columns as `Frame.rows` does, and refuse the first value that is missing.

    Raises:
        DataError: naming where it stands.
    """
    for rows in frame.rows(numbers, carried, start):
        missing = Missing(frame.name, numbers)
        missing.add(rows)
        missing.refuse()
        yield rows


def joined(name: str, parts: Iterator[np.ndarray]) -> np.ndarray:
    """Put parts of a table together, each being dropped when it is copied.

    Args:
        name: of the table, for errors.
        parts: `(rows, columns)` each.

    Raises:
        DataError: if there are no rows, or more values than are read without asking.
    """
    kept: list[np.ndarray] = []
    count = 0
    for part in parts:
        kept.append(part)
        count += part.size
        require_values(name, count)
    if not kept:
        raise DataError(f"{name} has no rows.")
    whole = np.empty((sum(map(len, kept)), kept[0].shape[1]))
    end = len(whole)
    while kept:
        part = kept.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole


def require_finite(name: str, columns: Sequence[str], rows: Rows, faults: Faults | None = None) -> None:
    """Refuse values that cannot be computed with, or note them, so that they are missing; those that are pass.

    Raises:
        DataError: naming where the first stands.
    """
    values = rows.values
    with np.errstate(invalid="ignore"):
        # Comparisons with what is not a number are false.
        wrong = np.abs(values) > LARGEST_VALUE
    if not wrong.any():
        return
    for column in np.flatnonzero(wrong.any(0)).tolist():
        row = int(wrong[:, column].argmax())
        place, value = rows.locate(row, column)[0], values[row, column]
        remedy = "Write it in other units, or mend the value." if np.isfinite(value) else REMEDY
        if faults is None:
            raise DataError(f"{name}, {place}, column '{columns[column]}': the value is {value}. {remedy}")
        said = f"the value is {value}. {remedy}"
        faults.add(columns[column], Fault(said, place, int(wrong[:, column].sum())))
    values[wrong] = np.nan


def printable(name: str) -> str:
    """Return the name of a column on one line, without what a terminal would obey."""
    return "".join(letter for letter in " ".join(name.split()) if letter.isprintable())


def require_distinct(name: str, columns: Sequence[str]) -> None:
    """Refuse a table of which two columns have one name.

    Raises:
        DataError: naming the first.
    """
    seen: set[str] = set()
    for column in columns:
        if column in seen:
            raise DataError(f"{name} has two columns called '{column}'. Give them names of their own.")
        seen.add(column)


def chosen_columns(frame: Frame, columns: Sequence[str] | None, others: Sequence[str] = ()) -> list[str]:
    """Return the names of the columns that are fitted: all but those that only number the rows, or those asked for.

    Args:
        frame: the table.
        columns: those to keep, in that order.
        others: further names that must be those of columns.

    Raises:
        DataError: if names are none of columns; all of them are named.
    """
    known = [column.name for column in frame.columns]
    if strange := [name for name in dict.fromkeys([*(columns or ()), *others]) if name not in known]:
        raise DataError(f"{frame.name}: {unknown_words('column', strange, known, most=NAMED)}")
    return [name for name in columns or known if columns or name not in frame.index]


def file_hash(path: Path) -> str:
    """Return a short hash of the content of a file, of which a part is in memory at a time."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
