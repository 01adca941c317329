"""Columns of a table that spoil every fit, found before it: those that follow from others, or lose their digits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.source import Source
from likelify.data.values import distinct, moments
from likelify.schema import numbered_columns

if TYPE_CHECKING:
    import torch

# What is left of a column beside those that it follows from, in units of its deviation: far above what float64 rounds,
# far below noise that anybody measures.
TOLERANCE, LARGEST_TOLERANCE = 1e-6, 1e-4
# A smaller offset of a combination is rounding.
OFFSET = 1e-9
# Rows looked at, drawn with a seed since tables are often in an order; a relation found there is confirmed by all rows.
FEWEST_ROWS, MOST_COLUMNS, SEED = 1000, 1000, 0
# A feature of so few values, in so many nodes or more, is a class or a count.
FEW, MANY = 10, 100
# A sum of several columns is only said of rows of which there are clearly more: so many for each of them, and more.
ROWS_EACH, ROWS_MORE = 2, 10
# Patterns of missing values whose columns are looked at.
MOST_PATTERNS = 50
# Rounding above this share of a column's deviation takes away its fourth digit.
COARSE = 3e-4
# Of values that differ, as many must differ when they are rounded.
KEPT = 0.9


@dataclass(frozen=True)
class Dependence:
    """A column that is a linear combination of others, so that the rows have no density.

    Attributes:
        column: its name.
        of: the names of the others; none if it has one value only.
        factors: of the others, in the units of the table.
        offset: what is added.
        left: what the sum leaves of the column, in units of its deviation; 0 where it leaves nothing but what the
            computer rounds.
        words: both are of words, and each word of one stands for one of the other.

    Example:
        >>> print(Dependence("b", ("a",), (2.0,), 1.0))
        'b' is 2 * 'a' + 1
    """

    column: str
    of: tuple[str, ...]
    factors: tuple[float, ...]
    offset: float
    left: float = 0.0
    words: bool = False

    def __str__(self) -> str:
        """Return the equation, or the names alone if there are many."""
        if self.words:
            return f"'{self.column}' says the same as '{self.of[0]}'"
        return f"{self._equation()} up to {100 * self.left:.2g} % of its deviation" if self.left else self._equation()

    def _equation(self) -> str:
        digits = 3 if self.left else 6
        if not self.of:
            return f"'{self.column}' is {self.offset:.6g} in every row"
        if len(self.of) > 3:
            return f"'{self.column}' follows from {', '.join(map(repr, self.of))}"
        terms = [f"{factor:.{digits}g} * '{name}'" for factor, name in zip(self.factors, self.of, strict=True)]
        terms += [f"{self.offset:.{digits}g}"] if self.offset else []
        return f"'{self.column}' is {' + '.join(terms)}".replace("+ -", "- ")


def dependent_columns(source: Source) -> list[Dependence]:
    """Find the columns of a table that follow from columns before them, by a sum of multiples of these.

    Of such rows there is no density: a model of them gains without end, `-ln` of the width that it gives the missing
    dimension. Each column is compared with those before it in random rows of the training split (1000, or four for
    each column): what is left of it must be less than a millionth of its deviation, in these and then in all rows.
    Of more than 1000 columns, or more than half as many as there are rows, the first are looked at.

    Args:
        source: a table; or sequences of real numbers, whose values at each time are columns, or graphs, whose nodes are
            rows: of these only some items are read. Other sources have no columns.

    Returns:
        One for each column that follows from others, in the order of the columns.
    """
    if source.kind == "sequence" and source.levels is None:
        return _numbers(*_values_of_sequences(source))
    if len(source.event_shape) != 1 or source.levels is not None:
        return []
    if source.kind == "graph":
        return _numbers(*_values_of_nodes(source))
    if source.kind != "table":
        return []
    rows = source.read_all("train").x.numpy().astype(np.float64, copy=False)
    names = source.columns or numbered_columns(rows.shape[1])
    if source.schema is None:
        return _numbers(rows, names)
    kept = [place for place, column in enumerate(source.schema) if column.is_modelled]
    words = [column.name for column in source.schema if column.categories is not None]
    return dependences(rows[:, kept], [names[place] for place in kept], words)


def dependences(rows: np.ndarray, names: Sequence[str], words: Collection[str] = ()) -> list[Dependence]:
    """Find the columns that follow from columns before them; see `dependent_columns`.

    Columns with missing values are compared with those that are complete, and with those that miss the same. Of columns
    of words one follows from another if each word of it stands for one word of that.

    Args:
        rows: `(n, columns)`, NaN where a value is missing.
        names: of the columns.
        words: names of those whose numbers are places of words.

    Returns:
        One for each that has more than one value, in the order of the columns.
    """
    found = _same_words(rows, names, words)
    numbers = [place for place, name in enumerate(names) if name not in words]
    patterns: dict[bytes, list[int]] = {}
    for place in numbers:
        patterns.setdefault(np.packbits(np.isnan(rows[:, place])).tobytes(), []).append(place)
    complete = [place for place in numbers if not np.isnan(rows[:, place]).any()]
    of_complete = _numbers(rows[:, complete], [names[place] for place in complete]) if complete else []
    found += of_complete
    follows = {each.column for each in of_complete}
    basis = [place for place in complete if names[place] not in follows]
    for places in list(patterns.values())[:MOST_PATTERNS]:
        present = ~np.isnan(rows[:, places[0]])
        if places[0] not in complete and present.any():
            own = [*basis, *places]
            some = _numbers(rows[present][:, own], [names[place] for place in own])
            found += [each for each in some if each.column in {names[place] for place in places}]
    order = {name: place for place, name in enumerate(names)}
    return sorted((each for each in found if each.of), key=lambda each: order[each.column])


def _same_words(rows: np.ndarray, names: Sequence[str], words: Collection[str]) -> list[Dependence]:
    """Find the columns of words that say the same as one before them."""
    known: dict[bytes, str] = {}
    found = []
    for place, name in enumerate(names):
        if name not in words:
            continue
        _, first, codes = np.unique(rows[:, place], return_index=True, return_inverse=True)
        if len(first) > 1:
            # Numbered in the order in which they are first met, words of one meaning have one number.
            said = np.argsort(np.argsort(first)).astype(np.int32)[codes.reshape(-1)].tobytes()
            before = known.setdefault(said, name)
            found += [Dependence(name, (before,), (1.0,), 0.0, words=True)] if before != name else []
    return found


def _numbers(rows: np.ndarray, names: Sequence[str]) -> list[Dependence]:
    """Find the columns of numbers, none missing, that follow from columns before them."""
    rows = rows[:, : min(MOST_COLUMNS, len(rows) // 2)]
    if not rows.size:
        return []
    mean, scale = moments(rows)
    unit = np.where(scale > 0, scale, 1.0)
    standard = (rows[some_rows(len(rows), max(FEWEST_ROWS, 4 * rows.shape[1]))] - mean) / unit
    tolerance = _tolerance(mean, unit)
    found = []
    for column, others in _candidates(standard, tolerance):
        chosen, factors = _combination(standard, column, others, tolerance)
        if len(chosen) > 1 and len(np.unique(standard, axis=0)) <= ROWS_EACH * len(chosen) + ROWS_MORE:
            continue
        slopes = factors * unit[column] / unit[chosen]
        centred = (rows[:, column] - mean[column]) - (rows[:, chosen] - mean[chosen]) @ slopes
        if np.abs(centred).max() > tolerance * unit[column] * np.sqrt(len(rows)):
            continue
        offset = mean[column] - mean[chosen] @ slopes
        if abs(offset) < OFFSET * (unit[column] + abs(mean[column])):
            offset = 0.0
        of = tuple(str(names[number]) for number in chosen.tolist())
        found.append(Dependence(names[column], of, tuple(map(float, slopes)), float(offset)))
    return found


def _values_of_sequences(source: Source) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read random sequences as rows in the order of time, and name the columns."""
    import torch

    channels, length = source.event_shape
    count = FEWEST_ROWS + min(MOST_COLUMNS, channels * length)
    places = torch.from_numpy(some_rows(source.size("train"), count))
    rows = source.read("train", places).x.transpose(1, 2).flatten(1).numpy().astype(np.float64)
    names = [f"channel {channel + 1}, time {time + 1}" for time in range(length) for channel in range(channels)]
    return rows, tuple(names)


def repeated_features(source: Source) -> dict[str, list[float]]:
    """Return the features of nodes that have a few values alone, with these: classes or counts, not measurements.

    Looked at are the nodes of the first thousand training graphs or so, at least a hundred nodes.
    """
    if source.kind != "graph" or len(source.event_shape) != 1:
        return {}
    rows, names = _values_of_nodes(source)
    found = {name: np.unique(rows[:, place]).tolist() for place, name in enumerate(names)}
    return {name: values for name, values in found.items() if len(values) <= FEW and len(rows) >= MANY}


def _values_of_nodes(source: Source) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the nodes of some graphs as rows."""
    import torch

    count = min(source.size("train"), FEWEST_ROWS)
    rows = source.read("train", torch.arange(count)).x.double().numpy()
    return rows, tuple(source.columns or (f"feature {number + 1}" for number in range(rows.shape[1])))


def some_rows(size: int, count: int) -> np.ndarray:
    """Return the places of so many random rows, rising; the same ones every time."""
    if count >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(SEED).choice(size, count, replace=False))


def fewest(others: np.ndarray, factors: np.ndarray, fit: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Return the fewest of some columns, those of large factors first, of which a sum fits; rising."""
    order = others[np.argsort(-np.abs(factors), kind="stable")]
    few, many = 0, len(order)
    while few < many:
        middle = (few + many) // 2
        if fit(order[:middle]):
            many = middle
        else:
            few = middle + 1
    return np.sort(order[:few])


def rounded_columns(source: Source, dtype: torch.dtype) -> list[str]:
    """Name the columns of a table that lose their digits when the rows are rounded to a dtype.

    Of `1.7e9 +- 100` float32 keeps a few values: the rest of the digits is spent on what all rows share. A column is
    named if rounding moves its values by more than 3e-4 of their deviation (root mean square), or if of 1000 random
    rows a tenth of the values that differ fall together.

    Args:
        source: a table; of other sources none is named.
        dtype: that the rows are rounded to.
    """
    import torch

    if source.kind != "table" or len(source.event_shape) != 1:
        return []
    places = torch.from_numpy(some_rows(source.size("train"), FEWEST_ROWS))
    rows = source.read("train", places).x.to(torch.float64)
    rounded = rows.to(dtype).to(torch.float64)
    names = source.columns or numbered_columns(rows.shape[1])
    pairs = zip(names, rows.T.numpy(), rounded.T.numpy(), strict=True)
    return [name for name, column, coarse in pairs if _loses(column[~np.isnan(column)], coarse[~np.isnan(column)])]


def _loses(values: np.ndarray, rounded: np.ndarray) -> bool:
    """Tell whether values lose their digits when they are rounded."""
    if not len(values):
        return False
    moved = np.sqrt(np.square(rounded - values).mean()) > COARSE * values.std()
    return bool(moved or distinct(rounded[:, None])[0] < KEPT * distinct(values[:, None])[0])


def _tolerance(mean: np.ndarray, unit: np.ndarray) -> float:
    """Return what may be left of a column, in units of its deviation; columns far from zero are rounded more."""
    rounding = 4 * np.finfo(np.float64).eps * np.abs(mean / unit).max(initial=0)
    return float(min(TOLERANCE + rounding, LARGEST_TOLERANCE))


def _candidates(sample: np.ndarray, tolerance: float) -> list[tuple[int, list[int]]]:
    """Return the columns of which nothing is left beside those before them, with these."""
    basis = np.empty_like(sample)
    kept: list[int] = []
    dependent: list[tuple[int, list[int]]] = []
    for column in range(sample.shape[1]):
        left, space = sample[:, column], basis[:, : len(kept)]
        # Twice, since the first time leaves what rounding makes of large parts.
        for _ in range(2):
            left = left - space @ (space.T @ left)
        length = np.linalg.norm(left)
        if length <= tolerance * np.sqrt(len(sample)):
            dependent.append((column, list(kept)))
        else:
            basis[:, len(kept)] = left / length
            kept.append(column)
    return dependent


def _combination(sample: np.ndarray, column: int, others: list[int], tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the fewest of the other columns, those of large factors first, of which a column is a sum, and factors."""

    def fitted(chosen: np.ndarray) -> tuple[np.ndarray, float]:
        factors = np.linalg.lstsq(sample[:, chosen], sample[:, column], rcond=None)[0]
        left = sample[:, column] - sample[:, chosen] @ factors
        return factors, float(np.linalg.norm(left) / np.sqrt(len(sample)))

    everything = np.asarray(others, dtype=int)
    chosen = fewest(everything, fitted(everything)[0], lambda some: fitted(some)[1] <= 2 * tolerance)
    return chosen, fitted(chosen)[0]
