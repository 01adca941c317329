"""What is known of rows and what is asked for, checked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from likelify.data.encoding import decode_column
from likelify.errors import DataError, LikelifyWarning
from likelify.fitting.conditioning.dependent import solve_functions, unused_sums
from likelify.schema import OFF_STEP, ColumnSchema

# Of the width of what the data hold of a column: so far beyond it a model is believed to know what it says.
NEAR = 0.1


@dataclass(frozen=True, eq=False)
class Asked:
    """Rows of which some columns are known.

    Attributes:
        schema: of the columns.
        rows: raw rows `(n, columns)` in float64.
        known: `(n, columns)`, true where a value is known.
        near: whether the model is shown the nearest value that the data have in place of one far outside of them, of
            which it knows nothing.
    """

    schema: tuple[ColumnSchema, ...]
    rows: np.ndarray
    known: np.ndarray
    near: bool = False

    @staticmethod
    def of(
        schema: Sequence[ColumnSchema], rows: np.ndarray | Tensor, known: np.ndarray | Tensor, *, near: bool = False
    ) -> Asked:
        """Check what is known, and find what follows from it.

        Warns:
            LikelifyWarning: if a known sum of columns cannot be used, or a known value lies outside of the data.

        Raises:
            DataError: if the shapes do not fit, a condition of the model is not known, or a value is not possible.
        """
        values = np.asarray(rows, dtype=np.float64).copy()
        if values.ndim != 2 or values.shape[1] != len(schema) or not len(values):
            raise DataError(f"Rows of {len(schema)} columns are needed, and at least one; got shape {values.shape}.")
        told = np.asarray(known, dtype=bool)
        if told.shape not in (values.shape, values.shape[1:]):
            raise DataError(
                f"What is known is said of {values.shape} values or of {len(schema)} columns; got shape {told.shape}."
            )
        places = np.array(np.broadcast_to(told, values.shape))
        solve_functions(values, places, schema)
        asked = Asked(tuple(schema), values, places, near)
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
        for at, column in enumerate(self.schema):
            gone = ~self.known[:, at] | (np.isnan(self.rows[:, at]) & (not column.missing))
            if column.given and gone.any():
                raise DataError(
                    f"The model was fitted given '{column.name}': what is given must be known of every row, and of row "
                    f"{int(gone.argmax())} it is not."
                )
        for at, column in enumerate(self.schema):
            values, known = self.rows[:, at], self.known[:, at]
            low, high = column.range
            outside = known & ((values < low) | (values > high)) if column.declared else np.zeros_like(known)
            outside |= known & np.isinf(values)
            if outside.any():
                row = int(outside.argmax())
                raise DataError(
                    f"'{column.name}' = {values[row]:g} of row {row} is not possible: its range is [{low:g}, {high:g}]."
                )
            if said := between_steps(np.where(known, values, np.nan), column):
                raise DataError(said)
            if column.is_modelled:
                self._warn_beyond(column, np.where(known, values, np.nan))

    def _warn_beyond(self, column: ColumnSchema, values: np.ndarray) -> None:
        """Say which known values of a column lie outside of the data."""
        low, high = _data(column)
        beyond = (values < low) | (values > high)
        if not beyond.any():
            return
        row = int(beyond.argmax())
        others = f" (and {int(beyond.sum()) - 1} more rows)" if beyond.sum() > 1 else ""
        shown = nearest_data(values[row : row + 1], column)[0]
        told = "what is said given it is a guess"
        if self.near and shown != values[row]:
            told = f"it is taken for {_said(column, shown)}, and what is drawn given it is a guess"
        warnings.warn(
            f"'{column.name}' = {_said(column, values[row])} of row {row}{others} lies outside of {_said(column, low)} "
            f"to {_said(column, high)}, the range of the data: no row of these was like it, so {told}.",
            LikelifyWarning,
            stacklevel=5,
        )

    @property
    def kept(self) -> np.ndarray:
        """Where values stay as they are `(n, columns)`: known ones, but for sums of which a part is drawn."""
        return kept_values(self.known, self.schema)

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
        if self.near:
            rows = np.stack(
                [nearest_data(values, column) for values, column in zip(rows.T, self.schema, strict=True)], 1
            )
        rows[:, [not column.is_modelled for column in self.schema]] = np.nan
        return rows


def kept_values(known: np.ndarray, schema: Sequence[ColumnSchema]) -> np.ndarray:
    """Return where values stay as they are `(n, columns)`: known ones, but for sums of which a part is drawn."""
    kept, places = known.copy(), {column.name: at for at, column in enumerate(schema)}
    for at, column in enumerate(schema):
        if column.function is not None:
            kept[:, at] &= known[:, [places[name] for name in column.function.of]].all(1)
    return kept


def between_steps(values: np.ndarray, column: ColumnSchema) -> str:
    """Say which value of a column of steps is none of them; nothing if all are, or are missing."""
    whole = 1.0 if column.kind == "integer" and column.rest == "none" else None
    step = column.step if column.rest == "steps" else whole
    if step is None:
        return ""
    between = ~np.isnan(values) & (np.abs(values / step - np.rint(values / step)) > OFF_STEP)
    between &= ~np.isin(values, column.states)
    if not between.any():
        return ""
    return (
        f"'{column.name}' = {values[between.argmax()]:g} in row {int(between.argmax())} is no multiple of "
        f"{step:g}, as all its values are."
    )


def _data(column: ColumnSchema) -> tuple[float, float]:
    """Return the ends of the values of the data, as far as they are known."""
    low, high = column.range
    return column.seen if column.seen is not None else (-math.inf, math.inf) if column.declared else (low, high)


def nearest_data(values: np.ndarray, column: ColumnSchema) -> np.ndarray:
    """Return values of a column with those far outside of the data at their end, and a tenth of their width beyond."""
    low, high = _data(column)
    if column.rest == "density":
        margin = NEAR * (high - low) if math.isfinite(high - low) else 0.0
        low, high = max(low - margin, column.range[0]), min(high + margin, column.range[1])
    # Values with a probability of their own are known to the model wherever they are.
    return values if column.rest == "none" else np.where(np.isin(values, column.states), values, values.clip(low, high))


def _said(column: ColumnSchema, value: float) -> str:
    """Return a value as the table has it."""
    return str(decode_column(np.array([value]), column)[0]) if column.kind == "date" else f"{value:g}"
