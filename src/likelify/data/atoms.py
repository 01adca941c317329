"""Values of a column that are met far too often for a density: zeros, caps, codes."""

from __future__ import annotations

import numpy as np

# An atom is met by so many rows at least, and by such a share of them.
FEWEST, SHARE = 10, 0.01
# So much more often than values near it; of so many of these, how many may be as frequent.
TIMES, NEAR, ALIKE = 8, 10, 2
# More of them than this are the steps that values were rounded to, but for those that stand out among them.
MOST = 12
# Rows that are looked at for candidates; all rows confirm them.
SAMPLE, SEED = 100_000, 0


def find_atoms(values: np.ndarray) -> tuple[float, ...]:
    """Return the values that have a probability of their own, rising.

    A value is one if at least ten rows and a hundredth of all have it, and of the ten distinct values nearest to it, by
    rank, at most two are met more than an eighth as often. Rounded values are about as frequent as their neighbours, so
    they are none; where more than twelve are found, only those count that are eight times as frequent as the median of
    all that were found. Neither depends on the units.

    Args:
        values: `(n,)`, none missing.
    """
    sample = some(values)
    distinct, counts = np.unique(sample, return_counts=True)
    least = max(FEWEST * len(sample) / max(len(values), 1), SHARE * len(sample))
    found = [place for place in np.flatnonzero(counts >= least) if stands_out(counts, int(place))]
    if len(found) > MOST:
        usual = np.median(counts[found])
        found = [place for place in found if counts[place] >= TIMES * usual]
    return tuple(float(distinct[place]) for place in found)


def stands_out(counts: np.ndarray, place: int) -> bool:
    """Tell whether a value is met far more often than the distinct values beside it.

    Args:
        counts: of the distinct values, in their order.
        place: of the one.
    """
    first = min(max(0, place - NEAR // 2), max(0, len(counts) - 1 - NEAR))
    near = np.delete(counts[first : first + NEAR + 1], place - first)
    return bool((near * TIMES > counts[place]).sum() <= min(ALIKE, len(near) // 2))


def some(values: np.ndarray) -> np.ndarray:
    """Return random values if there are very many; the same ones every time."""
    if len(values) <= SAMPLE:
        return values
    return values[np.random.default_rng(SEED).integers(0, len(values), SAMPLE)]
