import itertools
import math

import numpy as np
import pytest
from scipy import stats

from likelify.errors import DataError, NonFiniteError
from likelify.fitting.scoring.ranks import ranks


def places(values):
    """The rank of each value among the others, in every order: each is the new item once."""
    return [float(ranks(values[place], np.delete(values, place))) for place in range(len(values)) if len(values) > 1]


def test_ranks_are_exactly_uniform_without_ties_and_never_too_small_with_them():
    # Exchangeable: every item is the new one equally often. All samples of five values out of four, ties among them.
    for values in itertools.combinations_with_replacement((-math.inf, -2.0, 0.0, 1.0), 5):
        found = places(np.array(values))
        for share in np.unique(found):
            assert np.mean(np.array(found) <= share) <= share + 1e-12
    distinct = places(np.array([-math.inf, -2.0, -1.0, 0.0, 3.0]))
    assert distinct == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    # The first half of a tie would make ranks that are too small: all five equal are one item, not a rare one.
    assert places(np.zeros(5)) == [1.0] * 5


def test_ranks_of_items_that_no_weights_were_chosen_on_are_uniform():
    # By any model, also a poor one. That many ranks among one reference are not independent of one another: the law of
    # their distance from the grid is that of two samples.
    for seed in range(5):
        generator = np.random.default_rng(seed)
        rows = generator.standard_t(3, size=(1300, 2))
        nats = -((rows - 0.3) ** 2).sum(1)
        reference, new = nats[:300], nats[300:]
        found = ranks(new, reference)
        grid = np.arange(1, 302) / 301
        below = np.searchsorted(np.sort(found), grid, side="right") / len(found)
        distance = np.abs(below - grid).max()
        assert stats.kstwo.sf(distance, round(300 * 1000 / 1300)) > 0.01
        # Of other data they are not.
        other = ranks(-((rows[300:] * 1.3 - 0.3) ** 2).sum(1), reference)
        shifted = np.abs(np.searchsorted(np.sort(other), grid, side="right") / len(other) - grid).max()
        assert stats.kstwo.sf(shifted, round(300 * 1000 / 1300)) < 0.01


def test_a_rank_of_what_is_no_number_and_among_nothing_is_refused():
    with pytest.raises(NonFiniteError, match="not a number"):
        ranks([0.0, math.nan], [1.0])
    with pytest.raises(NonFiniteError, match="not a number"):
        ranks([0.0], [math.nan])
    with pytest.raises(DataError, match="no reference items"):
        ranks([0.0], [])
