"""Permanents of matrices of weights, of which the density of a mixture over permutations is made."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations

import numpy as np

from likelify.errors import DataError

# The logarithm of a permanent is within this of the true one beside rounding; see `log_permanent`.
NEGLIGIBLE = 1e-10
# Matrices of more rows have more subsets of columns than fit a processor's time.
LARGEST = 20
# How many numbers of a layer of subsets are worked on at a time.
TOGETHER = 2**20


def log_permanent(log_weights: np.ndarray) -> np.ndarray:
    r"""Return the logarithms of permanents, `ln sum_pi prod_i w[i, pi(i)]` over all permutations of the columns.

    Where the largest weights of the rows stand in different columns, let `e_i` be the sum of the others of row `i`
    relative to it. A permanent is linear in each row, so without the small weights of some rows `T` it is too low by
    at most `(prod_T (1 + e_i) - 1) prod_others (1 + e_i)` of the product of all largest weights, and it is at least
    that product. They are left out of as many rows as this allows for a relative error of 1e-10; what remains is the
    permanent of the other rows and of their columns, often of one or two.

    That one is a sum over subsets of columns: `f(S) = sum_{j in S} w[|S|, j] f(S without j)` after as many rows as `S`
    has columns, in logarithms, so that nothing cancels, overflows or vanishes. It costs `k 2^(k - 1)` exponentials for
    each matrix of `k` rows.

    Args:
        log_weights: `(matrices, n, n)`, finite or minus infinity.

    Returns:
        `(matrices,)`.

    Raises:
        DataError: if the matrices are not square, or have more than 20 rows.
    """
    if log_weights.ndim != 3 or log_weights.shape[1] != log_weights.shape[2] or log_weights.shape[1] > LARGEST:
        raise DataError(
            f"Permanents are of square matrices with at most {LARGEST} rows, (matrices, n, n), got {log_weights.shape}."
        )
    if not log_weights.size:
        return np.zeros(len(log_weights))
    largest = log_weights.max(2)
    scale = np.where(np.isfinite(largest), largest, 0.0)
    relative = log_weights - scale[:, :, None]
    result, kept = scale.sum(1), _kept(relative)
    counts = kept.sum(1)
    for count in np.unique(counts[counts > 0]):
        matrices = np.flatnonzero(counts == count)
        step = max(1, TOGETHER // _widest(int(count)))
        for first in range(0, len(matrices), step):
            some = matrices[first : first + step]
            result[some] += _over_subsets(_blocks(relative[some], kept[some]))
    return result


def _kept(relative: np.ndarray) -> np.ndarray:
    """Return which rows, of maximum zero, are needed whole: `(matrices, n)`, all of them where columns are shared."""
    n = relative.shape[1]
    each_once = (np.sort(relative.argmax(2), axis=1) == np.arange(n)).all(1) & np.isfinite(relative.max(2)).all(1)
    others = np.log1p(np.exp(np.partition(relative, n - 1, axis=2)[:, :, : n - 1]).sum(2))
    # Of rows in the order of what they would cost, the first ones are left out.
    order = others.argsort(1)
    lost = np.take_along_axis(others, order, 1).cumsum(1)
    kept = np.empty(others.shape, dtype=bool)
    np.put_along_axis(kept, order, lost > NEGLIGIBLE * np.exp(-lost[:, -1:]), 1)
    return kept | ~each_once[:, None]


def _blocks(relative: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the rows that are kept, equally many of each matrix, and the columns of their maxima: `(k, k, matrices)`.

    All columns, if all rows are.
    """
    rows = np.nonzero(kept)[1].reshape(len(kept), -1)
    if rows.shape[1] == kept.shape[1]:
        columns = rows
    else:
        columns = np.take_along_axis(relative.argmax(2), rows, 1)
    which = np.arange(len(kept))[:, None, None]
    return np.ascontiguousarray(relative[which, rows[:, :, None], columns[:, None, :]].transpose(1, 2, 0))


def _over_subsets(rows: np.ndarray) -> np.ndarray:
    """Return the logarithms of permanents of `(n, n, matrices)` by the sum over subsets of columns."""
    # Of the empty set, after no rows.
    sums = np.zeros((1, rows.shape[2]))
    for row, (members, before) in zip(rows, _layers(len(rows)), strict=True):
        terms = row[members] + sums[before]
        largest = terms.max(1)
        # Where all are minus infinity their difference would be none.
        base = np.where(np.isfinite(largest), largest, 0.0)
        terms -= base[:, None]
        with np.errstate(divide="ignore"):
            sums = base + np.log(np.exp(terms, out=terms).sum(1))
    return sums[0]


@lru_cache(maxsize=LARGEST)
def _layers(n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each size of subsets of `n` columns their members, and the places of the subsets without each.

    Both are `(subsets, size)`; places are those in the layer of the size before.
    """
    layers, places = [], {0: 0}
    for size in range(1, n + 1):
        members = np.array(list(combinations(range(n), size)))
        bits = 1 << members
        whole = bits.sum(1, keepdims=True)
        before = np.array([[places[rest] for rest in row] for row in (whole - bits).tolist()])
        layers.append((members, before))
        places = {subset: place for place, subset in enumerate(whole[:, 0].tolist())}
    return layers


def _widest(n: int) -> int:
    """Return how many terms the largest layer has."""
    return max(math.comb(n, size) * size for size in range(1, n + 1))
