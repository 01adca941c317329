from itertools import permutations

import numpy as np
import pytest

from likelify.data.simulated import permanents
from likelify.data.simulated.permanents import log_permanent
from likelify.errors import DataError


def by_hand(logs):
    n = logs.shape[1]
    sums = [logs[:, np.arange(n), list(order)].sum(1) for order in permutations(range(n))]
    return np.logaddexp.reduce(sums)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_permanent_is_the_sum_over_all_permutations(n):
    logs = np.random.default_rng(n).normal(size=(7, n, n)) * 3
    assert np.allclose(log_permanent(logs), by_hand(logs), rtol=0, atol=1e-12)


def test_zero_weights_and_huge_differences_neither_vanish_nor_overflow():
    rng = np.random.default_rng(0)
    far = -rng.uniform(0, 1e5, size=(6, 5, 5))
    assert np.allclose(log_permanent(far), by_hand(far), rtol=1e-14, atol=0)
    holes = rng.normal(size=(20, 4, 4))
    holes[rng.random(holes.shape) < 0.6] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = by_hand(holes)
    found = log_permanent(holes)
    assert 0 < np.isneginf(expected).sum() < 20
    assert np.array_equal(np.isneginf(found), np.isneginf(expected))
    finite = np.isfinite(expected)
    assert np.abs(found[finite] - expected[finite]).max() < 1e-12


def test_rows_are_left_out_only_where_it_is_proved(monkeypatch):
    """Around the limit of what is left out, a part and the whole sum agree to it."""
    rng = np.random.default_rng(1)
    logs = np.full((200, 6, 6), -26.0) - rng.exponential(2, size=(200, 6, 6))
    for matrix in logs:
        matrix[np.arange(6), rng.permutation(6)] = rng.normal(size=6)
    logs[:, 0] += rng.normal(size=(200, 1)) * 100.0
    logs[100:, :3] += np.where(logs[100:, :3] < -20 + logs[100:, :3].max(2, keepdims=True), 22.0, 0.0)
    kept = permanents._kept(logs - logs.max(2, keepdims=True)).sum(1)
    assert {0, 1, 3, 4} <= set(kept.tolist())
    fast = log_permanent(logs)
    monkeypatch.setattr(permanents, "NEGLIGIBLE", -1.0)
    assert np.abs(fast - log_permanent(logs)).max() < 1e-10 + 1e-12


def test_permanents_need_square_matrices():
    with pytest.raises(DataError, match=r"square matrices .* got \(2, 3, 4\)"):
        log_permanent(np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match="at most 20 rows"):
        log_permanent(np.zeros((1, 21, 21)))
    assert log_permanent(np.zeros((0, 3, 3))).shape == (0,)
