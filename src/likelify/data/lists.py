"""Columns of Python values in memory as a table, such as arrays of objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from likelify.data.encoding import as_word
from likelify.data.faults import Faults
from likelify.data.frames import Column, Frame, Rows, require_distinct, require_finite
from likelify.data.limits import MOST_COLUMNS
from likelify.data.told import Told
from likelify.errors import DataError

# Rows that are given at a time.
ROWS = 2**14


class ListFrame(Frame):
    """Columns of Python values.

    Args:
        name: for errors.
        columns: the values of each by its name.
        named: whether the names are the columns' own.

    Raises:
        DataError: if there are no columns, or too many, or they are not equally long.
    """

    def __init__(self, name: str, columns: Mapping[str, Sequence[Any]], *, named: bool = True) -> None:
        self.name, self.named = name, named
        if not 1 <= len(columns) <= MOST_COLUMNS:
            raise DataError(f"{name} has {len(columns):,} columns; 1 to {MOST_COLUMNS:,} are read.")
        require_distinct(name, list(columns))
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise DataError(f"The columns of {name} are not equally long: {', '.join(map(str, sorted(lengths)))}.")
        self._values, self.count = dict(columns), lengths.pop()
        self.columns = tuple(_column(name, values) for name, values in columns.items())

    @classmethod
    def of_rows(cls, name: str, rows: np.ndarray, names: Sequence[str], *, named: bool) -> ListFrame:
        """Return the columns of an array of objects `(rows, columns)`."""
        return cls(name, {column: rows[:, place].tolist() for place, column in enumerate(names)}, named=named)

    def rows(
        self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0, faults: Faults | None = None
    ) -> Iterator[Rows]:
        """Give the columns in order; see `Frame.rows`."""
        for first in range(start, self.count or 0, ROWS):
            part = slice(first, min(first + ROWS, self.count or 0))
            values = np.empty((part.stop - part.start, len(numbers)))
            for place, name in enumerate(numbers):
                values[:, place] = [_number(value) for value in self._values[name][part]]
            kept = {name: list(self._values[name][part]) for name in carried}
            rows = Rows(values, kept, lambda row, column, first=first: (f"row {first + row}", "missing"))
            require_finite(self.name, numbers, rows, faults)
            yield rows

    def fingerprint(self) -> str:
        """Hash names and values as they are written."""
        digest = hashlib.sha256(str(list(self._values)).encode())
        for values in self._values.values():
            digest.update("\0".join(map(as_word, values)).encode("utf-8", "replace"))
        return digest.hexdigest()[:16]


def _column(name: str, values: Sequence[Any]) -> Column:
    """Return what the values of a column are, by all of them."""
    present = [value for value in values if as_word(value)]
    if present and all(isinstance(value, bool | np.bool_) for value in present):
        return Column(name, "boolean", told=Told(kind="boolean", said="truth values"))
    if all(isinstance(value, int | float | Decimal | np.integer | np.floating | bool | np.bool_) for value in present):
        return Column(name, "real")
    if all(not isinstance(value, complex | bytes | list | dict | tuple | set | np.ndarray) for value in present):
        return Column(name, "words", text=True)
    return Column(name, "other")


def _number(value: Any) -> float:
    if not as_word(value):
        return np.nan
    try:
        return float(value)
    except OverflowError:
        return np.inf
