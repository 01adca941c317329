"""Random numbers by their places, so that an item of a source without an end is drawn alone, whichever it is."""

from __future__ import annotations

import numpy as np

# Of SplitMix64: the step of its counter, and its finalizer in three rounds.
STEP = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31


def uniforms(seed: int, items: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of some items of a stream, each a pure function of the seed and the number of the item.

    They are those of the generator SplitMix64 with this seed (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", 2014), of which item `i` has the places `count i` to `count (i + 1) - 1`: the generator counts,
    so that any place of its stream is reached at once. 53 bits of each are used, and neither 0 nor 1 comes.

    Args:
        seed: of 64 bits.
        items: numbers of the items from 0 on `(n,)`.
        count: numbers that an item has.

    Returns:
        Numbers between 0 and 1, `(n, count)`.
    """
    places = items.astype(np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    # The arithmetic is that of 64 bits, which overflow.
    bits = np.uint64(seed) + places * np.uint64(STEP)
    for shift, factor in ROUNDS:
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(LAST_SHIFT)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normals(numbers: np.ndarray) -> np.ndarray:
    """Return as many standard normal numbers as there are uniform ones, an even count in the last axis (Box-Muller)."""
    first, second = np.split(numbers, 2, axis=-1)
    radius, angle = np.sqrt(-2.0 * np.log(first)), 2.0 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
