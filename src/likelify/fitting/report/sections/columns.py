"""Columns of a table, real against drawn: each by itself, and pairs of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from likelify.fitting.report.blocks import Card, Cards, Picture, Section, Table, Text
from likelify.fitting.report.comparing import compare
from likelify.fitting.report.drawing import DATA, DATA_POINTS, MODEL, MODEL_POINTS, figure, label
from likelify.fitting.report.material import Material, as_rows
from likelify.fitting.report.showing import names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_MARGINALS, MOST_PAIRS, MOST_POINTS = 12, 6, 600
BINS = 30
# Letters beside an axis of a small picture.
LONGEST_AXIS = 20
# Rows of which a histogram shows something.
ENOUGH = 150
# Of the range of a picture, how much of the values is in it.
SHOWN = (0.002, 0.998)


@dataclass(frozen=True, eq=False)
class Compared:
    """Real and drawn rows with names.

    Attributes:
        names: of the columns.
        real: `(rows, columns)`.
        drawn: `(rows, columns)`.
        distance: of each column, the largest difference of the two distribution functions.
    """

    names: tuple[str, ...]
    real: np.ndarray
    drawn: np.ndarray
    distance: np.ndarray


def columns(material: Material, section: Section) -> None:
    """Compare marginals, pairs and moments."""
    names, real, drawn = names_of(material.facts), material.real(ENOUGH).rows, as_rows(material.drawn)
    # A bad fit may draw infinities; they count as far away.
    drawn = np.nan_to_num(drawn, posinf=np.finfo(float).max, neginf=np.finfo(float).min)
    tests = [compare(real[:, at], drawn[:, at]) for at in range(len(names))]
    found = Compared(names, real, drawn, np.array([test.distance for test in tests]))
    wrong = [names[at] for at, test in enumerate(tests) if test.chance < 0.001 / len(names)]
    if wrong:
        listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        section.doubts.append(f"Drawn values do not have the distribution of the data in: {listed}.")
    section.add(*_marginals(found), *_pairs(found), _moments(found))


def _marginals(found: Compared) -> list[Cards | Text]:
    worst = np.argsort(-found.distance)[:MOST_MARGINALS]
    chosen = sorted(worst) if len(found.names) <= MOST_MARGINALS else worst
    some = (
        f" Of {len(found.names)} columns these are the {len(chosen)} in which real and drawn values differ most."
        if len(chosen) < len(found.names)
        else ""
    )
    cards = [Card((_marginal(found, int(at)),), (f"D = {found.distance[at]:.3f}",)) for at in chosen]
    note = (
        "Filled: values of the data; line: drawn ones. D is the largest difference of their distribution functions "
        f"(Kolmogorov-Smirnov); by chance alone it is below {_chance(found):.3f} in 95 of 100 columns.{some}"
    )
    return [Cards("Each column by itself", tuple(cards), width=165), Text(note)]


def _chance(found: Compared) -> float:
    return 1.358 * np.sqrt(1 / len(found.real) + 1 / len(found.drawn))


def _marginal(found: Compared, at: int) -> Picture:
    real, drawn, name = found.real[:, at], found.drawn[:, at], found.names[at]
    edges = _edges(real, drawn)

    def draw(axes: Axes) -> None:
        for values, colour, filled in ((real, DATA, True), (drawn, MODEL, False)):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, color=colour, fill=filled, alpha=0.45 if filled else 1, linewidth=1.3)
        axes.set_title(name)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)

    alt = f"Histograms of {name}: data against drawn values, largest difference {found.distance[at]:.3f}."
    return figure(f"marginal-{at}", draw, alt=alt, size=(2.2, 1.5), width=240)


def _edges(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return bins over where nearly all real and most drawn values lie; one for each value if few are repeated."""
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
    low, high = (float(each) for each in np.quantile(values, SHOWN))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _pairs(found: Compared) -> list[Cards | Text]:
    if len(found.names) < 2:
        return []
    real, drawn = _correlations(found.real), _correlations(found.drawn)
    pairs = list(combinations(range(len(found.names)), 2))
    order = sorted(pairs, key=lambda pair: -max(abs(real[pair]), 2 * abs(real[pair] - drawn[pair])))
    cards = tuple(
        Card(
            (_pair(found, pair, "real"), _pair(found, pair, "drawn")),
            (f"{found.names[pair[0]]} and {found.names[pair[1]]}: rank correlation {real[pair]:.2f} real, "
             f"{drawn[pair]:.2f} drawn",),
        )
        for pair in order[:MOST_PAIRS]
    )  # fmt: skip
    some = f"The {len(cards)} of {len(pairs)} pairs" if len(cards) < len(pairs) else "All pairs"
    note = f"{some}, the most correlated or most differently correlated first; left real, right drawn, equal axes."
    return [Cards("Pairs of columns", cards, width=330), Text(note)]


def _correlations(rows: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlations; zero where a column has one value."""
    from scipy.stats import rankdata

    ranked = rankdata(rows, axis=0)
    ranked = ranked - ranked.mean(0)
    spread = np.sqrt((ranked**2).sum(0))
    return ranked.T @ ranked / np.maximum(np.outer(spread, spread), 1e-300)


def _pair(found: Compared, pair: tuple[int, int], which: str) -> Picture:
    rows = found.real if which == "real" else found.drawn
    limits = [_range(np.concatenate([found.real[:, at], _near(found, at)])) for at in pair]
    x, y = rows[:MOST_POINTS, pair[0]], rows[:MOST_POINTS, pair[1]]
    colour = DATA_POINTS if which == "real" else MODEL_POINTS

    def draw(axes: Axes) -> None:
        axes.scatter(x, y, s=5, color=colour, alpha=0.6, linewidths=0, rasterized=True)
        for limit, put in zip(limits, (axes.set_xlim, axes.set_ylim), strict=True):
            margin = 0.04 * (limit[1] - limit[0])
            put(limit[0] - margin, limit[1] + margin)
        axes.set_title(which)
        axes.locator_params(nbins=3)
        axes.set_xlabel(label(found.names[pair[0]], LONGEST_AXIS))
        axes.set_ylabel(label(found.names[pair[1]], LONGEST_AXIS))

    alt = f"{found.names[pair[1]]} against {found.names[pair[0]]}: {min(len(rows), MOST_POINTS)} {which} rows."
    return figure(f"pair-{pair[0]}-{pair[1]}-{which}", draw, alt=alt, size=(2.3, 2.1), width=240)


def _near(found: Compared, at: int) -> np.ndarray:
    low, high = _range(found.real[:, at])
    values = found.drawn[:, at]
    return values[(values > low - (high - low)) & (values < high + (high - low))]


def _moments(found: Compared) -> Table:
    def words(values: np.ndarray) -> tuple[str, ...]:
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = (values.mean(), values.std(), *np.quantile(values, (0.05, 0.5, 0.95)))
        return tuple(f"{number:.4g}" for number in numbers)

    rows = []
    for at, name in enumerate(found.names[:100]):
        rows += [(name, "real", *words(found.real[:, at])), ("", "drawn", *words(found.drawn[:, at]))]
    return Table(
        ("column", "", "mean", "sd", "5 %", "median", "95 %"), rows, "Means and quantiles of the columns", folded=True
    )
