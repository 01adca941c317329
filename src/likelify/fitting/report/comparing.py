"""Whether two samples have one distribution."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Comparison(NamedTuple):
    """What a Kolmogorov-Smirnov test of two samples says.

    Attributes:
        distance: the largest difference of the two distribution functions.
        chance: of one as large or larger between samples of one distribution.
    """

    distance: float
    chance: float


def compare(one: np.ndarray, other: np.ndarray) -> Comparison:
    """Compare two samples of real numbers, which may be infinite."""
    from scipy.stats import ks_2samp

    found: Any = ks_2samp(one, other, method="asymp")
    return Comparison(float(found.statistic), float(found.pvalue))


def compare_counts(counts: np.ndarray) -> float:
    """Return the chance of counts `(2, values)` that differ as much between samples of one distribution.

    By the chi-squared test of homogeneity; values of few are put together, since it is right for many only.
    """
    from scipy.stats import chi2_contingency

    counts = counts[:, counts.sum(0) > 0]
    few = counts.sum(0) < 10
    table = np.column_stack([counts[:, ~few], counts[:, few].sum(1)]) if few.any() else counts
    table = table[:, table.sum(0) > 0]
    if table.shape[1] < 2 or (table.sum(1) == 0).any():
        return 1.0
    found: Any = chi2_contingency(table, correction=False)
    return float(found.pvalue)
