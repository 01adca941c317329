"""Columns of a table, real against drawn: each by itself, pairs of them, and the two scores of synthetic tables."""

from __future__ import annotations

import numpy as np

from likelify.data.encoding import decode_column
from likelify.fitting.quality import Quality, Trend, quality
from likelify.fitting.report.blocks import Block, Card, Cards, Picture, Section, Table, Text
from likelify.fitting.report.column_pictures import Pair, marginal, points
from likelify.fitting.report.comparing import compare, compare_counts
from likelify.fitting.report.material import Material, as_rows
from likelify.fitting.report.showing import names_of

MOST_MARGINALS, MOST_PAIRS, MOST_LISTED = 12, 6, 100
# Columns of which all pairs are looked at, and words of a column that are listed.
MOST_PAIRED, MOST_WORDS = 60, 5
# Rows of which a histogram shows something.
ENOUGH = 150
# A chance below which a column is drawn wrong, over all columns.
WRONG = 0.001


def columns(material: Material, section: Section) -> None:
    """Compare marginals, pairs and moments."""
    real, drawn = material.real(ENOUGH).rows, as_rows(material.drawn)
    # A bad fit may draw infinities; they count as far away. What is missing stays NaN.
    far = np.finfo(float).max
    drawn = np.clip(drawn, -far, far)
    schema = material.facts.meaning
    pairs = [
        Pair(column, name, real[:, at], drawn[:, at])
        for at, (column, name) in enumerate(zip(schema, names_of(material.facts), strict=True))
    ]
    chances = [_chance(pair) for pair in pairs]
    wrong = [pair.name for pair, chance in zip(pairs, chances, strict=True) if chance < WRONG / len(pairs)]
    if wrong:
        listed = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        section.doubts.append(f"Drawn values do not have the distribution of the data in: {listed}.")
    some = slice(0, MOST_PAIRED)
    found = quality(real[:, some], drawn[:, some], schema[some])
    shapes = found.shapes if len(pairs) <= MOST_PAIRED else quality_of_columns(real, drawn, material)
    section.add(Text(_in_words(material, found, shapes)), *_marginals(pairs, shapes))
    section.add(*_pairs(pairs, found), *_numbers(pairs), *_words(pairs))


def quality_of_columns(real: np.ndarray, drawn: np.ndarray, material: Material) -> np.ndarray:
    """Return the scores of the shapes of many columns, without their pairs."""
    singles = [quality(real[:, [at]], drawn[:, [at]], [column]) for at, column in enumerate(material.facts.meaning)]
    return np.concatenate([single.shapes for single in singles])


def _chance(pair: Pair) -> float:
    """Return how likely so large a difference of two samples of one distribution is."""
    real, drawn = (rows[~np.isnan(rows)] for rows in (pair.real, pair.drawn))
    missing = [[int(np.isnan(rows).sum()), int((~np.isnan(rows)).sum())] for rows in (pair.real, pair.drawn)]
    chance = 2 * compare_counts(np.array(missing)) if np.isnan([*pair.real, *pair.drawn]).any() else 1.0
    if not len(real) or not len(drawn):
        return min(1.0, chance)
    if pair.is_of_numbers:
        return min(1.0, chance, compare(real, drawn).chance * (2 if chance < 1 else 1))
    places = np.union1d(real, drawn)
    counts = np.array([[int((rows == place).sum()) for place in places] for rows in (real, drawn)])
    return min(1.0, chance, compare_counts(counts) * (2 if chance < 1 else 1))


def _in_words(material: Material, found: Quality, shapes: np.ndarray) -> str:
    known = shapes[~np.isnan(shapes)]
    mean = f"{known.mean():.1%}" if len(known) else "-"
    pairs = f" and column pair trends {found.column_pair_trends:.1%}" if found.trends else ""
    some = f" (pairs of the first {MOST_PAIRED} columns)" if len(shapes) > MOST_PAIRED else ""
    text = (
        f"Column shapes {mean}{pairs}{some}: the two scores that tools for synthetic tables show, as the quality "
        "report of SDMetrics defines them; 100 % is best."
    )
    train, real = material.train.rows[: len(material.drawn)], material.real(ENOUGH)
    if real.split == "train":
        return text
    places = slice(0, MOST_PAIRED)
    usual = quality(real.rows[:, places], train[:, places], material.facts.meaning[places])
    other = f" and {usual.column_pair_trends:.1%}" if usual.trends else ""
    return f"{text} {len(train):,} training rows in the place of drawn ones have {usual.column_shapes:.1%}{other}."


def _marginals(pairs: list[Pair], shapes: np.ndarray) -> list[Block]:
    # Where one of the two has no values at all, nothing can differ more.
    far = np.where(np.isnan(shapes), 1.0, 1 - shapes)
    worst = np.argsort(-far, kind="stable")[:MOST_MARGINALS]
    chosen = sorted(worst) if len(pairs) <= MOST_MARGINALS else worst
    some = (
        f" Of {len(pairs)} columns these are the {len(chosen)} in which real and drawn values differ most."
        if len(chosen) < len(pairs)
        else ""
    )
    cards = [Card((_picture(pairs[at], int(at), float(far[at])),), _lines(pairs[at], float(far[at]))) for at in chosen]
    chance = 1.358 * np.sqrt(1 / len(pairs[0].real) + 1 / len(pairs[0].drawn))
    note = (
        "Filled: values of the data; line: drawn ones. D is the largest difference of the distribution functions of "
        f"numbers and dates (Kolmogorov-Smirnov); by chance alone it is below {chance:.3f} in 95 of 100 columns. TV is "
        f"half the sum of the differences of the shares of words (total variation).{some}"
    )
    return [Cards("Each column by itself", tuple(cards), width=165), Text(note)]


def _picture(pair: Pair, at: int, far: float) -> Picture:
    kind = "Histograms" if pair.is_of_numbers else "Bars"
    alt = f"{kind} of {pair.name}: data against drawn values, largest difference {far:.3f}."
    return marginal(pair, f"marginal-{at}", alt)


def _lines(pair: Pair, far: float) -> tuple[str, ...]:
    none = [which for which, rows in (("real", pair.real), ("drawn", pair.drawn)) if np.isnan(rows).all()]
    lines = (f"no {' and no '.join(none)} values" if none else f"{'D' if pair.is_of_numbers else 'TV'} = {far:.3f}",)
    missing = [float(np.isnan(rows).mean()) for rows in (pair.real, pair.drawn)]
    return (*lines, f"missing {missing[0]:.1%} real, {missing[1]:.1%} drawn") if max(missing) > 0 else lines


def _pairs(pairs: list[Pair], found: Quality) -> list[Block]:
    # What follows from other columns goes together with them anyhow.
    told = [trend for trend in found.trends if all(pairs[at].column.is_modelled for at in trend.columns)]
    if not told:
        return []
    order = sorted(told, key=_priority)
    cards = tuple(
        Card(tuple(_points(pairs, trend, which) for which in ("real", "drawn")), (_of_pair(pairs, trend),))
        for trend in order[:MOST_PAIRS]
    )
    some = f"The {len(cards)} of {len(order)} pairs" if len(cards) < len(order) else "All pairs"
    note = (
        f"{some}, those first that go together most, or most differently; left real, right drawn, equal axes. Points "
        "of one word lie beside one another. Similar: 1 is best."
    )
    return [Cards("Pairs of columns", cards, width=330), Text(note)]


def _priority(trend: Trend) -> float:
    """Return a number that is small for pairs which go together most, or most differently in real and drawn rows."""
    if np.isnan(trend.score):
        return np.inf
    return -max(trend.strength, 4 * (1 - trend.score))


def _points(pairs: list[Pair], trend: Trend, which: str) -> Picture:
    one, other = trend.columns
    return points(pairs[one], pairs[other], which, f"pair-{one}-{other}-{which}")


def _of_pair(pairs: list[Pair], trend: Trend) -> str:
    names = f"{pairs[trend.columns[0]].name} and {pairs[trend.columns[1]].name}"
    if trend.real is None or trend.drawn is None:
        return f"{names}: joint table {trend.score:.3f} similar"
    return f"{names}: correlation {trend.real:.2f} real, {trend.drawn:.2f} drawn"


def _numbers(pairs: list[Pair]) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    for pair in [pair for pair in pairs if pair.is_of_numbers][:MOST_LISTED]:
        rows += [(pair.name, "real", *_moments(pair, pair.real)), ("", "drawn", *_moments(pair, pair.drawn))]
    headings = ("column", "", "mean", "sd", "5 %", "median", "95 %", "missing")
    return [Table(headings, rows, "Means and quantiles of the columns", folded=True)] if rows else []


def _moments(pair: Pair, rows: np.ndarray) -> tuple[str, ...]:
    values, missing = rows[~np.isnan(rows)], f"{np.isnan(rows).mean():.1%}" if np.isnan(rows).any() else ""
    if not len(values):
        return ("", "", "", "", "", missing)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread, quantiles = values.mean(), values.std(), np.quantile(values, (0.05, 0.5, 0.95))
    if pair.column.kind != "date":
        return (*(f"{number:.4g}" for number in (mean, spread, *quantiles)), missing)
    words = [str(word) for word in decode_column(np.array([mean, *quantiles]), pair.column)]
    return (words[0], f"{spread:.4g} {pair.column.unit}s", *words[1:], missing)


def _words(pairs: list[Pair]) -> list[Block]:
    rows: list[tuple[str, ...]] = []
    for pair in [pair for pair in pairs if not pair.is_of_numbers][:MOST_LISTED]:
        values, words = pair.words(MOST_WORDS)
        for which, of in (("real", pair.real), ("drawn", pair.drawn)):
            shares = ", ".join(f"{word} {(of == value).mean():.1%}" for value, word in zip(values, words, strict=True))
            missing = f"{np.isnan(of).mean():.1%}" if np.isnan(of).any() else ""
            rows.append((pair.name if which == "real" else "", which, shares, missing))
    headings = ("column", "", "most frequent words", "missing")
    return [Table(headings, rows, "Shares of words", folded=True)] if rows else []
