"""Small pictures of columns of a table, real against drawn: bars of words, histograms of numbers and dates, pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from likelify.fitting.quality import is_of_numbers
from likelify.fitting.report.blocks import Picture
from likelify.fitting.report.drawing import DATA, DATA_POINTS, MODEL, MODEL_POINTS, figure, label
from likelify.plots.columns import on_axis, set_ticks, shown_values
from likelify.schema import ColumnSchema

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS, BINS = 600, 30
# Words that have a bar of their own, on an axis of a pair, and letters of them.
MOST_BARS, MOST_PLACES, LETTERS = 8, 6, 14
# Letters beside an axis of a small picture.
LONGEST_AXIS = 20
# Of the range of a picture, how much of the values is in it.
SHOWN = (0.002, 0.998)
# How far points of one word lie apart, in distances of two words.
JITTER = 0.28


@dataclass(frozen=True, eq=False)
class Pair:
    """The values of a column in real and in drawn rows.

    Attributes:
        column: what they mean.
        name: of the column, as a label.
        real: `(rows,)`, NaN where one is missing.
        drawn: `(rows,)`.
    """

    column: ColumnSchema
    name: str
    real: np.ndarray
    drawn: np.ndarray

    @property
    def is_of_numbers(self) -> bool:
        """Whether there is a histogram of them, not bars."""
        return is_of_numbers(self.column)

    def words(self, most: int) -> tuple[list[float], list[str]]:
        """Return the most frequent values of both and what they are called: in their order, if they have one."""
        values = np.concatenate([self.real, self.drawn])
        places, counts = np.unique(values[~np.isnan(values)], return_counts=True)
        chosen = places[np.argsort(-counts, kind="stable")[:most]]
        ordered = sorted(chosen) if self.column.kind != "category" else list(chosen)
        return [float(value) for value in ordered], [self.word(value) for value in ordered]

    def word(self, value: float) -> str:
        """Return what a value is called."""
        if self.column.categories is not None:
            place = min(max(round(value), 0), len(self.column.categories) - 1)
            return label(self.column.categories[place], LETTERS)
        return "true" if value > 0.5 else "false"


def marginal(pair: Pair, name: str, alt: str) -> Picture:
    """Return the distribution of a column: filled of the data, as lines what is drawn."""
    draw = _histogram(pair) if pair.is_of_numbers else _bars(pair)
    return figure(name, draw, alt=alt, size=(2.2, 1.5), width=240)


def _bars(pair: Pair) -> Callable[[Axes], None]:
    values, words = pair.words(MOST_BARS)
    shares = [[float((rows == value).mean()) for value in values] for rows in (pair.real, pair.drawn)]
    others = [
        max(0.0, float((~np.isnan(rows)).mean()) - sum(part)) for rows, part in zip(_both(pair), shares, strict=True)
    ]
    if max(others) > 1e-9:
        words = [*words, "all others"]
        shares = [[*part, other] for part, other in zip(shares, others, strict=True)]
    if any(np.isnan(rows).any() for rows in _both(pair)):
        words = [*words, "(missing)"]
        shares = [[*part, float(np.isnan(rows).mean())] for rows, part in zip(_both(pair), shares, strict=True)]

    def draw(axes: Axes) -> None:
        places = np.arange(len(words))
        axes.barh(places, shares[0], height=0.8, color=DATA, alpha=0.45)
        axes.barh(places, shares[1], height=0.8, fill=False, edgecolor=MODEL, linewidth=1.3)
        axes.set_yticks(places, words, fontsize=7)
        axes.invert_yaxis()
        axes.set_title(pair.name)
        axes.locator_params(axis="x", nbins=4)

    return draw


def _both(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    return pair.real, pair.drawn


def _histogram(pair: Pair) -> Callable[[Axes], None]:
    real, drawn = (shown_values(rows[~np.isnan(rows)], pair.column) for rows in (pair.real, pair.drawn))

    def draw(axes: Axes) -> None:
        edges = np.unique(on_axis(_edges(real, drawn), pair.column))
        for values, colour, filled in ((real, DATA, True), (drawn, MODEL, False)):
            shares = np.histogram(values, edges)[0] / max(len(values), 1)
            axes.stairs(shares, edges, color=colour, fill=filled, alpha=0.45 if filled else 1, linewidth=1.3)
        axes.set_title(pair.name)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(*on_axis(np.array(axes.get_xlim()), pair.column))
        set_ticks(axes.xaxis, pair.column, 4)

    return draw


def _edges(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return bins over where nearly all real and most drawn values lie; one for each value if few are repeated."""
    if not len(real):
        return np.linspace(0, 1, 9)
    distinct = np.unique(real)
    if 1 < len(distinct) <= min(BINS, len(real) / 8):
        middle = (distinct[1:] + distinct[:-1]) / 2
        ends = 1.5 * distinct[[0, -1]] - 0.5 * distinct[[1, -2]]
        return np.concatenate([ends[:1], middle, ends[1:]])
    low, high = _range(real)
    near = drawn[(drawn > low - (high - low)) & (drawn < high + (high - low))]
    low, high = _range(np.concatenate([real, near]))
    return np.linspace(low, high, min(BINS, max(8, int(len(real) ** 0.5))) + 1)


def _range(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return -0.5, 0.5
    low, high = (float(each) for each in np.quantile(values, SHOWN))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def points(across: Pair, up: Pair, which: str, name: str) -> Picture:
    """Return the rows of two columns as points; those of a word lie beside one another, those without a value nowhere.

    Args:
        across: the one whose values lie on the horizontal axis.
        up: the other.
        which: "real" or "drawn".
        name: of the picture, unlike those of others.
    """
    colour = DATA_POINTS if which == "real" else MODEL_POINTS
    places = [_places(pair, which, axis) for axis, pair in enumerate((across, up))]

    def draw(axes: Axes) -> None:
        axes.scatter(*places, s=5, color=colour, alpha=0.6, linewidths=0, rasterized=True)
        for pair, axis, put in ((across, axes.xaxis, axes.set_xlim), (up, axes.yaxis, axes.set_ylim)):
            low, high = _limits(pair)
            put(*on_axis(np.array([low - 0.04 * (high - low), high + 0.04 * (high - low)]), pair.column))
            if pair.is_of_numbers:
                set_ticks(axis, pair.column, 3)
            else:
                words = pair.words(MOST_PLACES)[1]
                axis.set_ticks(list(range(len(words))), [label(word, 9) for word in words])
                axis.set_tick_params(labelsize=6)
        axes.set_title(which)
        axes.set_xlabel(label(across.name, LONGEST_AXIS))
        axes.set_ylabel(label(up.name, LONGEST_AXIS))

    shown = min(len(places[0]), MOST_POINTS)
    return figure(name, draw, alt=f"{up.name} against {across.name}: {shown} {which} rows.", size=(2.3, 2.1), width=240)


def _places(pair: Pair, which: str, axis: int) -> np.ndarray:
    rows = (pair.real if which == "real" else pair.drawn)[:MOST_POINTS]
    if pair.is_of_numbers:
        return shown_values(rows, pair.column)
    values = pair.words(MOST_PLACES)[0]
    # Of either axis its own, or points of independent words would lie on diagonals.
    jitter = np.random.default_rng(axis).uniform(-JITTER, JITTER, len(rows))
    known = np.full(len(rows), np.nan)
    for place, value in enumerate(values):
        known[rows == value] = place
    return known + jitter


def _limits(pair: Pair) -> tuple[float, float]:
    if not pair.is_of_numbers:
        return -0.5, max(1, len(pair.words(MOST_PLACES)[0])) - 0.5
    real, drawn = (shown_values(rows[~np.isnan(rows)], pair.column) for rows in _both(pair))
    low, high = _range(real)
    near = drawn[(drawn > low - (high - low)) & (drawn < high + (high - low))]
    return _range(np.concatenate([real, near]))
