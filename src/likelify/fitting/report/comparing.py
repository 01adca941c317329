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
