"""What is known of rows and what is asked for, checked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from likelify.errors import DataError, LikelifyWarning
from likelify.fitting.conditioning.dependent import solve_functions, unused_sums
from likelify.schema import ColumnSchema


@dataclass(frozen=True, eq=False)
class Asked:
    """Rows of which some columns are known.

    Attributes:
        schema: of the columns.
        rows: raw rows `(n, columns)` in float64.
        known: `(n, columns)`, true where a value is known.
    """

    schema: tuple[ColumnSchema, ...]
    rows: np.ndarray
    known: np.ndarray

    @staticmethod
    def of(schema: Sequence[ColumnSchema], rows: np.ndarray | Tensor, known: np.ndarray | Tensor) -> Asked:
        """Check what is known, and find what follows from it.

        Warns:
            LikelifyWarning: if a known sum of columns cannot be used.

        Raises:
            DataError: if the shapes do not fit, a condition of the model is not known, or a value is not possible.
        """
        values = np.array(rows, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(schema) or not len(values):
            raise DataError(f"Rows of {len(schema)} columns are needed, and at least one; got shape {values.shape}.")
        places = np.array(np.broadcast_to(np.asarray(known, dtype=bool), values.shape))
        solve_functions(values, places, schema)
        asked = Asked(tuple(schema), values, places)
        asked.check()
        for name, count in unused_sums(places, schema).items():
            warnings.warn(
                f"'{name}' follows from other columns of which several are not known in {count} rows: what is drawn "
                "for them does not look at it, and it is computed anew from the draws.",
                LikelifyWarning,
                stacklevel=3,
            )
        return asked

    def check(self) -> None:
        """Refuse conditions that are not known, and values that no row can have."""
        lacking = [column.name for at, column in enumerate(self.schema) if column.given and not self.known[:, at].all()]
        if lacking:
            raise DataError(
                f"The model was fitted given {', '.join(map(repr, lacking))}: what is given must be known of every row."
            )
        for at, column in enumerate(self.schema):
            values, known = self.rows[:, at], self.known[:, at]
            low, high = column.range
            outside = known & ((values < low) | (values > high)) if column.declared else np.zeros_like(known)
            outside |= known & np.isinf(values)
            beyond = known & ~outside & ((values < low) | (values > high))
            if beyond.any():
                row = int(beyond.argmax())
                warnings.warn(
                    f"'{column.name}' = {values[row]:g} of row {row} lies outside of {low:g} to {high:g}, the range of "
                    "the data: no row of these was like it, so what is drawn given it is a guess.",
                    LikelifyWarning,
                    stacklevel=4,
                )
            if outside.any():
                row = int(outside.argmax())
                raise DataError(
                    f"'{column.name}' = {values[row]:g} of row {row} is not possible: its range is [{low:g}, {high:g}]."
                )

    @property
    def kept(self) -> np.ndarray:
        """Where values stay as they are `(n, columns)`: known ones, but for sums of which a part is drawn."""
        kept = self.known.copy()
        places = {column.name: at for at, column in enumerate(self.schema)}
        for at, column in enumerate(self.schema):
            if column.function is not None:
                kept[:, at] &= self.known[:, [places[name] for name in column.function.of]].all(1)
        return kept

    @property
    def modelled(self) -> np.ndarray:
        """The numbers of the columns that have a place in the model."""
        return np.flatnonzero([column.is_modelled for column in self.schema])

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of all rows."""
        return np.arange(len(self.rows))

    def known_cells(self, some: np.ndarray) -> np.ndarray:
        """Return some rows with NaN where the model is to draw, and in columns that have no place in it."""
        rows = np.where(self.known[some], self.rows[some], np.nan)
        rows[:, [not column.is_modelled for column in self.schema]] = np.nan
        return rows
