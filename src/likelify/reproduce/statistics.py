"""Statistics of few paired runs: means over seeds, paired differences, and curves read off at equal times.

Pure functions of plain numbers.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from likelify.errors import MissingDependencyError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        standard_error: spread over seeds divided by the root of their number; NaN for one seed.
        count: number of seeds.
    """

    value: float
    standard_error: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> "Mean":
        """Summarise one number per seed; none at all, or one that is not finite, give NaN."""
        if not values or not all(map(math.isfinite, values)):
            return Mean(math.nan, math.nan, len(values))
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return Mean(statistics.fmean(values), error, len(values))


@dataclass(frozen=True)
class Paired:
    """The mean difference of two methods over the seeds that both have.

    Attributes:
        difference: mean of ours minus baseline.
        low: lower end of the interval; NaN for fewer than two pairs.
        high: upper end.
        count: number of pairs.
    """

    difference: float
    low: float
    high: float
    count: int


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
    mean = Mean.of(differences)
    if mean.count < 2:
        return Paired(mean.value, math.nan, math.nan, mean.count)
    half = _student((1 + confidence) / 2, mean.count - 1) * mean.standard_error
    return Paired(mean.value, mean.value - half, mean.value + half, mean.count)


def value_at(curve: Iterable[tuple[float, float]], seconds: float) -> float:
    """Return the lowest value that a curve of `(seconds, value)` had reached by a time; NaN if it had none yet.

    Nothing is interpolated: what the fit had between two validations is not known.
    """
    return min((value for time, value in curve if time <= seconds), default=math.nan)


def common_time(curves: Iterable[Sequence[tuple[float, float]]], *, slack: float = 0.05) -> float:
    """Return the latest time that all curves reach, that is the earliest of their last points; NaN without curves.

    Fits of one budget end within a step and a validation of each other: ends that are later by no more than the share
    `slack` count as the same, and the latest of these is returned, so that no last point is lost.
    """
    ends = [curve[-1][0] for curve in curves if curve]
    return max((end for end in ends if end <= (1 + slack) * min(ends)), default=math.nan)


def _student(probability: float, freedom: int) -> float:
    try:
        from scipy.stats import t
    except ImportError as error:
        raise MissingDependencyError("scipy", "app") from error
    return float(t.ppf(probability, freedom))
