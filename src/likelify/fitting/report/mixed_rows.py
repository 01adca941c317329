"""Rows of any columns as points, between which distances are what they are between rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from likelify.fitting.quality import is_of_numbers
from likelify.schema import ColumnSchema

# Numbers are clipped so many scales from the middle: further away is as far.
FAR = 1e6
# A normal distribution has so many standard deviations between its quantiles of 5 % and 95 %.
WIDTH = 3.29
# Words that have an axis of their own; the others share the last.
MOST_WORDS = 256


@dataclass(frozen=True, eq=False)
class Measure:
    """Rows as points `(n, axes)`: the square of a distance, divided by the number of columns, is a mean over columns.

    A column of numbers or dates contributes the square of the difference in units of its scale, a column of words or
    truth values 1 if they differ; where one of two values is missing 1 beside what is left of the other's distance from
    the middle, and nothing where both are.

    Attributes:
        schema: of the columns.
        middle: median of each column of numbers.
        scale: of each column of numbers: the width of the middle nine tenths of its values in those of a normal
            distribution, so that it is the standard deviation of one and hardly knows heavy tails; where that is zero
            the standard deviation.
    """

    schema: tuple[ColumnSchema, ...]
    middle: np.ndarray
    scale: np.ndarray

    @staticmethod
    def of(rows: np.ndarray, schema: Sequence[ColumnSchema]) -> Measure:
        """Return the measure that suits some rows `(n, columns)`."""
        found = [_middle_and_scale(column[np.isfinite(column)]) for column in rows.T]
        middle, scale = np.array(found).T
        return Measure(tuple(schema), middle, scale)

    def points(self, rows: np.ndarray) -> np.ndarray:
        """Return rows `(n, columns)` as points, whose distances are root mean squares over columns."""
        axes = []
        for at, column in enumerate(self.schema):
            values = rows[:, at]
            missing = np.isnan(values)
            if is_of_numbers(column):
                far = (np.where(missing, self.middle[at], values) - self.middle[at]) / self.scale[at]
                axes += [np.clip(far, -FAR, FAR)]
                axes += [missing.astype(float)] if column.missing else []
            else:
                # One of the axes of both words differs, by so much that together it is 1.
                words = np.where(missing, -1, np.clip(np.nan_to_num(values), -1, MOST_WORDS - 1)).astype(int)
                known = range(-1, min(len(column.states), MOST_WORDS))
                axes += [(words == word) * np.sqrt(0.5) for word in known]
        return np.column_stack(axes) / np.sqrt(len(self.schema))


def _middle_and_scale(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    scale = (high - low) / WIDTH
    if not scale > 0:
        with np.errstate(over="ignore"):
            scale = values.std()
    return float(middle), float(scale) if 0 < scale < np.inf else 1.0
