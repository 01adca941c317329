"""How alike drawn rows and rows of data are, by the two scores that tools for synthetic tables show.

Both are defined as in the quality report of SDMetrics: *column shapes* and *column pair trends*, each a mean of figures
between 0 and 1, of which 1 is best. They look at one column and at two at a time. What three columns have to do with
one another, and whether rows are copies, they do not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from likelify.errors import DataError
from likelify.schema import ColumnSchema

# Cells of equal width that numbers are put in beside a column of words.
CELLS = 10
# Pairs of columns that are looked at: all of them up to 142 columns, of more as many at even distances.
MOST_PAIRS = 10_000
# Share of a sum of squares, or of the largest square, below which a correlation is computed from the pair alone.
CANCELLED = 1e-8
# Tables of two columns with so many cells for each row are counted by sorting.
CELLS_PER_ROW = 8


class Trend(NamedTuple):
    """How alike two columns go together in real and drawn rows.

    Attributes:
        columns: the numbers of both.
        score: 1 is best; NaN where a column has one value only, or none.
        strength: how much they go together in the real rows, from 0 to 1: the absolute correlation of two columns of
            numbers, else the total variation between their joint table and that of independent columns.
        real: correlation in the real rows, for two columns of numbers; else None.
        drawn: correlation in the drawn rows, likewise.
    """

    columns: tuple[int, int]
    score: float
    strength: float
    real: float | None = None
    drawn: float | None = None


@dataclass(frozen=True, eq=False)
class Quality:
    """How alike drawn rows and real rows are.

    Attributes:
        names: of the columns.
        shapes: of each column `(columns,)`, NaN where it has no values in either.
        trends: of each pair of columns; of more than 10,000 pairs, of as many at even distances.
    """

    names: tuple[str, ...]
    shapes: np.ndarray
    trends: tuple[Trend, ...]

    @property
    def column_shapes(self) -> float:
        """The mean over columns; NaN without any."""
        return _mean(self.shapes)

    @property
    def column_pair_trends(self) -> float:
        """The mean over pairs of columns; NaN without any."""
        return _mean(np.array([trend.score for trend in self.trends]))

    def __str__(self) -> str:
        return f"column shapes {self.column_shapes:.1%}, column pair trends {self.column_pair_trends:.1%}"


def quality(real: np.ndarray, drawn: np.ndarray, schema: Sequence[ColumnSchema]) -> Quality:
    """Compare drawn rows with real ones, column by column and pair by pair.

    Numbers and dates are compared by `1 - D`, where `D` is the largest difference of the two distribution functions
    (Kolmogorov-Smirnov); words and truth values by `1 - sum |p - q| / 2` (total variation); missing values are left out
    of both. Pairs of numbers by `1 - |r_real - r_drawn| / 2` of Pearson's correlation over rows that have both; other
    pairs by the total variation of their joint table, with numbers in ten cells of equal width over the range of the
    real ones and one on either side. Missing values, of numbers and of words alike, are in a cell of their own there:
    what goes along with a value's being missing counts.

    Args:
        real: raw rows `(n, columns)`, see `ColumnSchema`.
        drawn: raw rows `(m, columns)`.
        schema: of the columns.

    Raises:
        DataError: if there are no rows, or their columns do not fit.

    Example:
        >>> schema = (ColumnSchema(name="x"), ColumnSchema.category("c", ("a", "b")))
        >>> rows = np.array([[0.0, 0], [1.0, 0], [2.0, 1], [3.0, 1]])
        >>> quality(rows, rows, schema).column_shapes
        1.0
    """
    for rows in (real, drawn):
        if rows.ndim != 2 or rows.shape[1] != len(schema) or not len(rows):
            raise DataError(f"Rows of {len(schema)} columns are compared, and at least one; got shape {rows.shape}.")
    shapes = [_shape(real[:, at], drawn[:, at], each) for at, each in enumerate(schema)]
    numbers = [is_of_numbers(each) for each in schema]
    codes = [_codes(real[:, at], drawn[:, at], numbers=numbers[at]) for at in range(len(schema))]
    pairs = list(combinations(range(len(schema)), 2))
    if len(pairs) > MOST_PAIRS:
        pairs = [pairs[at] for at in np.linspace(0, len(pairs) - 1, MOST_PAIRS).astype(int)]
    both_correlations = [_correlations(rows, np.array(numbers)) for rows in (real, drawn)]
    trends = []
    for pair in pairs:
        if numbers[pair[0]] and numbers[pair[1]]:
            one, other = (float(found[pair]) for found in both_correlations)
            trends.append(Trend(pair, 1 - abs(one - other) / 2, abs(one), one, other))
        else:
            both = codes[pair[0]], codes[pair[1]]
            trends.append(Trend(pair, _joint(*both), _strength(*both)))
    return Quality(tuple(each.name for each in schema), np.array(shapes), tuple(trends))


def is_of_numbers(column: ColumnSchema) -> bool:
    """Tell whether the values of a column are numbers or dates, not words or truth values."""
    return column.kind in ("real", "integer", "date")


def correlation(rows: np.ndarray) -> float:
    """Return Pearson's correlation of two columns over rows that have both; NaN if one has a single value there."""
    both = rows[np.isfinite(rows).all(1)]
    if len(both) < 2:
        return float("nan")
    # In units of the largest, so that squares stay finite.
    scaled = both / np.maximum(np.abs(both).max(0), np.finfo(float).tiny)
    centred = scaled - scaled.mean(0)
    spread = np.sqrt((centred**2).sum(0))
    if (spread <= 1e-12 * np.sqrt(len(both))).any():
        return float("nan")
    return float((centred[:, 0] @ centred[:, 1]) / (spread[0] * spread[1]))


def _correlations(rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return Pearson's correlations `(columns, columns)` of columns of numbers, each over rows that have both.

    Where little of a column's spread is left in the rows of a pair, sums of squares lose their digits, and the pair is
    looked at by itself.
    """
    found = np.full((len(numbers), len(numbers)), np.nan)
    places = np.flatnonzero(numbers)
    known = np.isfinite(rows[:, places])
    values = np.where(known, rows[:, places], 0.0)
    # In units of the largest, so that squares stay finite.
    values = values / np.maximum(np.abs(values).max(0, initial=0), np.finfo(float).tiny)
    centred = np.where(known, values - values.sum(0) / np.maximum(known.sum(0), 1), 0.0)
    there = known.astype(float)
    count = np.maximum(there.T @ there, 1)
    total, squares = centred.T @ there, (centred**2).T @ there
    spread = squares - total**2 / count
    product = spread * spread.T
    covariance = centred.T @ centred - total * total.T / count
    safe = (spread > CANCELLED * squares) & (squares > CANCELLED * len(rows)) & (count > 1)
    safe &= safe.T
    with np.errstate(divide="ignore", invalid="ignore"):
        found[np.ix_(places, places)] = np.where(safe, covariance / np.sqrt(product), np.nan)
    varies = squares.diagonal() > 0
    for one, other in zip(*np.nonzero(np.triu(~safe & varies[:, None] & varies[None, :], 1)), strict=True):
        pair = [places[one], places[other]]
        found[pair[0], pair[1]] = correlation(rows[:, pair])
    return found


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _shape(real: np.ndarray, drawn: np.ndarray, column: ColumnSchema) -> float:
    one, other = (np.sort(values[~np.isnan(values)]) for values in (real, drawn))
    if not len(one) or not len(other):
        return float("nan")
    places = np.union1d(one, other)
    if is_of_numbers(column):
        below = [np.searchsorted(values, places, "right") / len(values) for values in (one, other)]
        return 1 - float(np.abs(below[0] - below[1]).max())
    shares = [_shares(np.searchsorted(places, values), len(places)) for values in (one, other)]
    return 1 - 0.5 * float(np.abs(shares[0] - shares[1]).sum())


def _shares(codes: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(codes, minlength=count) / len(codes)


class _Codes(NamedTuple):
    """Values of a column in the real and in the drawn rows as numbers 0 .. values - 1."""

    real: np.ndarray
    drawn: np.ndarray
    values: int


def _codes(real: np.ndarray, drawn: np.ndarray, *, numbers: bool) -> _Codes:
    if numbers:
        finite = real[np.isfinite(real)]
        edges = np.histogram_bin_edges(finite, CELLS) if len(finite) else np.zeros(1)
        found = [np.where(np.isnan(values), len(edges) + 1, np.digitize(values, edges)) for values in (real, drawn)]
        return _Codes(found[0], found[1], len(edges) + 2)
    # All that is missing is one value, the last.
    places, inverse = np.unique(np.concatenate([real, drawn]), return_inverse=True)
    return _Codes(inverse[: len(real)], inverse[len(real) :], len(places))


def _joint(one: _Codes, other: _Codes) -> float:
    """Return the similarity of the joint tables of two columns."""
    both = [one.real * other.values + other.real, one.drawn * other.values + other.drawn]
    cells = one.values * other.values
    if cells > CELLS_PER_ROW * len(both[0]):
        places, inverse = np.unique(np.concatenate(both), return_inverse=True)
        both, cells = np.split(inverse, [len(both[0])]), len(places)
    real, drawn = (_shares(part, cells) for part in both)
    return 1 - 0.5 * float(np.abs(real - drawn).sum())


def _strength(one: _Codes, other: _Codes) -> float:
    """Return the total variation between the joint table of two real columns and the product of their margins."""
    left, right = _shares(one.real, one.values), _shares(other.real, other.values)
    codes = one.real * other.values + other.real
    if one.values * other.values <= CELLS_PER_ROW * len(codes):
        joint = _shares(codes, one.values * other.values)
        return 0.5 * float(np.abs(joint - np.outer(left, right).ravel()).sum())
    places, inverse = np.unique(codes, return_inverse=True)
    shares = _shares(inverse, len(places))
    apart = left[places // other.values] * right[places % other.values]
    # Where the joint table is empty, the products differ by themselves.
    return 0.5 * float(np.abs(shares - apart).sum() + 1 - apart.sum())
