"""Nearest rows: those of all pairs; rows of mixed columns are as far apart as their columns are."""

import numpy as np
import pytest

from likelify.fitting.report.mixed_rows import Measure
from likelify.fitting.report.neighbours import CHUNK, nearest
from likelify.schema import ColumnSchema

NAN = np.nan
MIXED = (
    ColumnSchema(name="x", missing=True),
    ColumnSchema.category("c", ("a", "b", "c"), missing=True),
    ColumnSchema(name="b", kind="boolean", states=(0.0, 1.0), rest="none"),
)


def test_the_nearest_are_those_of_all_pairs_and_copies_have_distance_zero():
    rng = np.random.default_rng(0)
    # Far from the origin, where squares of the values themselves have no digits left for differences.
    train, items = 1e6 + rng.normal(size=(90, 5)), 1e6 + rng.normal(size=(CHUNK + 7, 5))
    items[3] = train[11]
    found = nearest(items, train)
    apart = np.sqrt(((items[:, None] - train) ** 2).sum(2))
    assert found.index.tolist() == apart.argmin(1).tolist()
    assert found.distance == pytest.approx(apart.min(1))
    assert (found.index[3], found.distance[3]) == (11, 0.0)


def test_distances_of_mixed_rows_are_means_over_columns():
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.normal(7, 2, 4000), rng.integers(0, 3, 4000), rng.integers(0, 2, 4000)])
    measure = Measure.of(train, MIXED)
    assert measure.scale[0] == pytest.approx(2, rel=0.05)
    middle, scale = measure.middle[0], measure.scale[0]
    rows = np.array([[middle, 0, 1], [middle + 2 * scale, 0, 1], [middle, 2, 0], [NAN, NAN, 1], [NAN, 1, 1]])
    points = measure.points(rows)
    apart = ((points[:, None] - points) ** 2).sum(2) * 3
    expected = [4, 2, 2, 2]  # two scales away; two words differ; a number and a word are missing
    assert apart[0, 1:] == pytest.approx(expected)
    assert apart[1, 3] == pytest.approx(1 + 4 + 1)
    assert apart[3, 4] == pytest.approx(1)
    assert np.allclose(np.diag(apart), 0)


def test_one_column_of_heavy_tails_does_not_hide_the_others_and_constants_do_not_divide_by_zero():
    rng = np.random.default_rng(0)
    train = np.column_stack([rng.standard_cauchy(3000), np.full(3000, 4.0)])
    measure = Measure.of(train, (ColumnSchema(name="x"), ColumnSchema(name="k")))
    assert measure.scale[0] < 10
    assert np.isfinite(measure.points(np.array([[1e300, 4.0], [-1e300, 5.0]]))).all()
