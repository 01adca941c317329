import numpy as np
import pytest

from likelify.fitting.report.neighbours import CHUNK, nearest


def test_the_nearest_are_those_of_all_pairs_and_copies_have_distance_zero():
    rng = np.random.default_rng(0)
    # Far from the origin, where squares of the values themselves have no digits left for differences.
    train, items = 1e6 + rng.normal(size=(90, 5)), 1e6 + rng.normal(size=(CHUNK + 7, 5))
    items[3] = train[11]
    scale = np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    found = nearest(items, train, scale)
    apart = np.sqrt((((items[:, None] - train) / scale) ** 2).mean(2))
    assert found.index.tolist() == apart.argmin(1).tolist()
    assert found.distance == pytest.approx(apart.min(1))
    assert (found.index[3], found.distance[3]) == (11, 0.0)
