"""Statistics of few paired runs: differences paired by seed, and curves read off at equal times.

Pure functions of plain data.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from likelify.errors import needs
from likelify.fitting.figures import Figure

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Paired:
    """The mean difference of two methods over the seeds that both have.

    Attributes:
        difference: mean of ours minus baseline.
        low: lower end of the interval; NaN for fewer than two pairs.
        high: upper end.
        count: number of pairs.
        error: standard error of the difference; NaN for fewer than two pairs.
    """

    difference: float
    low: float
    high: float
    count: int
    error: float = math.nan


def paired_difference(
    ours: Mapping[int, float], baseline: Mapping[int, float], *, confidence: float = CONFIDENCE
) -> Paired:
    r"""Compare two methods seed by seed.

    The interval is Student's: `mean(d) +- t * std(d) / sqrt(n)` with the `(1 + confidence) / 2` quantile of `n - 1`
    degrees of freedom. It takes the differences to be normally distributed, which few seeds cannot check.

    Args:
        ours: for each seed its figure.
        baseline: the same of the method to compare with; seeds that only one has are left out.
        confidence: of the interval.

    Example:
        >>> paired = paired_difference({0: 1.0, 1: 2.0, 5: 9.0}, {0: 0.5, 1: 1.0})
        >>> paired.difference, paired.count
        (0.75, 2)
    """
    differences = [ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())]
    if not differences:
        return Paired(math.nan, math.nan, math.nan, 0)
    found = Figure.of(differences)
    if found.standard_error is None:
        return Paired(found.mean, math.nan, math.nan, found.count)
    half = _student((1 + confidence) / 2, found.count - 1) * found.standard_error
    return Paired(found.mean, found.mean - half, found.mean + half, found.count, found.standard_error)


def value_at(curve: Iterable[tuple[float, float]], seconds: float, *, highest: bool = False) -> float:
    """Return the lowest or highest value that a curve of `(seconds, value)` had reached by a time; NaN if it had none.

    Nothing is interpolated: what the fit had between two validations is not known.
    """
    best = max if highest else min
    return best((value for time, value in curve if time <= seconds), default=math.nan)


def value_between(curve: Sequence[tuple[float, float]], place: float) -> float:
    """Return the value of a curve of `(place, value)` at a place, on a straight line between two of its points.

    NaN before the first point and behind the last one.

    Example:
        >>> value_between([(0.0, 4.0), (10.0, 2.0)], 5.0), value_between([(0.0, 4.0)], 5.0)
        (3.0, nan)
    """
    for (before, first), (after, second) in pairwise([(-math.inf, math.nan), *curve]):
        if place == after:
            return second
        if before < place < after:
            return first + (second - first) * (place - before) / (after - before) if math.isfinite(before) else math.nan
    return math.nan


def common_time(curves: Iterable[Sequence[tuple[float, float]]], *, slack: float = 0.05) -> float:
    """Return the latest time that all curves reach, that is the earliest of their last points; NaN without curves.

    Fits of one budget end within a step and a validation of each other: ends that are later by no more than the share
    `slack` count as the same, and the latest of these is returned, so that no last point is lost.
    """
    ends = [curve[-1][0] for curve in curves if curve]
    return max((end for end in ends if end <= (1 + slack) * min(ends)), default=math.nan)


def _student(probability: float, freedom: int) -> float:
    with needs("scipy", "app"):
        from scipy.stats import t
    return float(t.ppf(probability, freedom))
