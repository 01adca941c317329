"""Tables that are read in pieces: what CSV, Parquet and Arrow files and data frames in memory have in common."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.limits import LARGEST_VALUE, REMEDY, require_values
from likelify.errors import DataError, unknown_word
from likelify.names import ColumnType

NUMBERS: tuple[ColumnType, ...] = ("real", "integer", "boolean")
# What the values of a column that holds no numbers are called.
CALLED: dict[ColumnType, str] = {"words": "words", "date": "dates or times", "other": "values that are no numbers"}
# Of the columns that an error is about, how many it names.
NAMED = 20


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the column.
        type: what its values are.
        example: the first of them, for errors, if it is no number.
        place: where that stands.
        fault: what is wrong with it, and what to do.
    """

    name: str
    type: ColumnType = "real"
    example: str = ""
    place: str = ""
    fault: str = ""


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
    """

    name: str
    columns: tuple[Column, ...]
    index: tuple[str, ...] = ()
    named: bool = True
    count: int | None = None

    @abstractmethod
    def rows(self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0) -> Iterator[Rows]:
        """Read columns in order, in pieces of little memory.

        Args:
            numbers: names of the columns whose values are read as float64.
            carried: names of columns whose values are given as they are.
            start: the first row that is given.

        Raises:
            DataError: if the file is damaged, or a value is no number, infinite or above 1e150, naming where it stands.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash of the whole content."""

    def column(self, name: str) -> Column:
        """Return the column of that name."""
        return next(column for column in self.columns if column.name == name)


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


def require_finite(name: str, columns: Sequence[str], rows: Rows) -> None:
    """Refuse values that cannot be computed with; those that are missing pass.

    Raises:
        DataError: naming where the first stands.
    """
    values = rows.values
    with np.errstate(invalid="ignore"):
        # Comparisons with what is not a number are false.
        wrong = np.abs(values) > LARGEST_VALUE
    if not wrong.any():
        return
    row, column = (int(n) for n in np.argwhere(wrong)[0])
    value = values[row, column]
    remedy = "Write it in other units, or mend the value." if np.isfinite(value) else REMEDY
    raise DataError(
        f"{name}, {rows.locate(row, column)[0]}, column '{columns[column]}': the value is {value}. {remedy}"
    )


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


def chosen_columns(frame: Frame, columns: Sequence[str] | None, drop: Sequence[str] | None) -> list[str]:
    """Return the names of the columns that are fitted: all, or those that were asked for.

    Args:
        frame: the table.
        columns: those to keep, in that order.
        drop: those to leave out.

    Raises:
        DataError: if a name is none of a column, nothing is left, or columns do not hold numbers: all are named.
    """
    known = [column.name for column in frame.columns]
    for name in [*(columns or ()), *(drop or ())]:
        if name not in known:
            raise DataError(f"{frame.name}: {unknown_word('column', name, known[:NAMED])}")
    left_out = {*(drop or ()), *(() if columns else frame.index)}
    kept = [name for name in columns or known if name not in left_out]
    if not kept:
        raise DataError(f"{frame.name} has no columns left to fit.")
    refuse_others(frame, kept)
    return kept


def refuse_others(frame: Frame, names: Sequence[str], remedy: str | None = None) -> None:
    """Refuse columns that do not hold numbers.

    Raises:
        DataError: naming all of them.
    """
    others = [column for column in map(frame.column, names) if column.type not in NUMBERS]
    if not others:
        return
    words = ",".join(f'"{column.name}"' if set(', "') & set(column.name) else column.name for column in others)
    remedy = remedy or f"--drop '{words[:400]}' leaves {'it' if len(others) == 1 else 'them'} out (in Python: drop=)."
    if len(others) == 1 and others[0].fault:
        column = others[0]
        raise DataError(f"{frame.name}, {column.place}, column '{column.name}': {column.fault} {remedy}")
    listed = ", ".join(map(_shown, others[:NAMED]))
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    which = "a column that does" if len(others) == 1 else f"{len(others)} columns that do"
    raise DataError(
        f"{frame.name} has {which} not hold numbers: {listed}{more}. Put numbers in place of the words. {remedy}"
    )


def _shown(column: Column) -> str:
    """Write the name of a column, what it holds, and the first of it."""
    said = CALLED[column.type]
    said += f", {column.example!r} in {column.place}" if column.example else ""
    return f"'{column.name}' ({said})"


def file_hash(path: Path) -> str:
    """Return a short hash of the content of a file, of which a part is in memory at a time."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]
