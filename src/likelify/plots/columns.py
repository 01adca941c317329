"""How values of columns of a table are shown on an axis: dates in days, words by their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likelify.schema import DAY, ColumnSchema, is_clock

if TYPE_CHECKING:
    from matplotlib.axis import Axis

# The days since 1970 that a calendar of matplotlib has: the years 1 to 9999.
FIRST_DAY, LAST_DAY = -719_162.0, 2_932_896.0


def is_calendar(column: ColumnSchema) -> bool:
    """Tell whether a column holds days or moments, not times of day."""
    return column.kind == "date" and not is_clock(column.written)


def shown_values(values: np.ndarray, column: ColumnSchema) -> np.ndarray:
    """Return values as they are shown: dates in days, which is what matplotlib counts, times of day in hours."""
    if column.kind != "date":
        return values
    return values / 3600 if is_clock(column.written) else values / (DAY if column.unit == "second" else 1)


def on_axis(places: np.ndarray, column: ColumnSchema) -> np.ndarray:
    """Return places of an axis, such as bins and ends: of dates those that a calendar has."""
    return places.clip(FIRST_DAY, LAST_DAY) if is_calendar(column) else places


def set_ticks(axis: Axis, column: ColumnSchema, number: int) -> None:
    """Let an axis have about so many ticks, which suit the column."""
    if is_calendar(column):
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(minticks=2, maxticks=number + 2)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator))
        axis.offsetText.set_visible(False)
        return
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(number, integer=column.kind == "integer"))
