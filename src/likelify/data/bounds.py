"""Ends of the range of a column, found from where its values lie; the same rules in any units."""

from __future__ import annotations

import math

import numpy as np

# A smallest value this near to zero, in units of its distance from the median, means that there is nothing below zero.
NEAR_ZERO = 0.1
# An end is packed if this share of the range beside it has at least half of the values that a uniform density would.
EDGE, PACKED = 0.01, 0.5
# With fewer values nothing is said; fewer beside an end are chance.
FEWEST, FEWEST_BESIDE = 20, 5
# Gaps between the outermost values whose mean is the distance of the end from the outermost.
OUTERMOST = 5
# A round number within so many gaps is the end.
WITHIN = 3
# How round a number is: the first digits that count as round.
ROUND = (1.0, 2.0, 5.0)


def find_bounds(values: np.ndarray, *, whole: bool = False, zero: bool = True) -> tuple[float | None, float | None]:
    """Return both ends of the range of some values, None where there is none to be seen.

    Zero is the lower end where no value is below it and the smallest lies near it, within a tenth of its distance from
    the median. An end is also where values are packed: within a hundredth of the range of the outermost value, or a gap
    if that is wider, lie at least five values and half of those that a uniform density would have there. It is then
    the outermost value plus the mean gap of the outermost few, or a round number that lies within three gaps.

    Args:
        values: `(n,)`, none missing, without those that have a probability of their own.
        whole: values are whole steps, so that the outermost value itself can be the end.
        zero: whether zero means anything.
    """
    if len(values) < FEWEST:
        return None, None
    lower, upper = (_end(values, sign, whole=whole, zero=zero) for sign in (-1.0, 1.0))
    return (None if lower is None else -lower + 0.0, upper)


def _end(values: np.ndarray, sign: float, *, whole: bool, zero: bool) -> float | None:
    """Return the upper end of the values times a sign."""
    turned = values if sign > 0 else -values
    highest, lowest = float(turned.max()), float(turned.min())
    if not lowest < highest:
        return None
    if zero and highest <= 0 and -highest <= NEAR_ZERO * (highest - float(np.median(turned))):
        return 0.0
    span = highest - lowest
    outer = np.sort(turned[turned >= highest - max(EDGE * span, span / len(turned))])[::-1]
    gap = _gap(turned, outer, highest)
    width = max(EDGE, gap / span)
    beside = int((turned >= highest - width * span * (1 - 1e-9)).sum())
    if beside < max(FEWEST_BESIDE, PACKED * width * len(turned)) or not math.isfinite(gap):
        return None
    start = highest if whole else highest + gap
    return _rounded(highest, gap, sign, start, zero=zero)


def _gap(turned: np.ndarray, outer: np.ndarray, highest: float) -> float:
    """Return the mean gap between the outermost distinct values."""
    distinct = np.unique(outer)[::-1][: OUTERMOST + 1]
    if len(distinct) < 2:
        below = turned[turned < highest]
        return highest - float(below.max())
    return float(distinct[0] - distinct[-1]) / (len(distinct) - 1)


def _rounded(highest: float, gap: float, sign: float, start: float, *, zero: bool) -> float:
    """Return the roundest number within a few gaps beyond the outermost value, or where the end was seen."""
    low, high = sorted((sign * highest, sign * (highest + WITHIN * gap)))
    if zero and low <= 0 <= high:
        return 0.0
    largest = max(abs(low), abs(high))
    if largest == 0 or not zero:
        return start
    power = 10.0 ** math.floor(math.log10(largest))
    for digits in ROUND:
        for candidate in (digits * power, -digits * power):
            if low <= candidate <= high:
                return sign * candidate
    return start
