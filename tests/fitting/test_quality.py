"""The two scores of synthetic tables: their published definitions, on tables where they are known, and by scipy."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, pearsonr

from likelify.errors import DataError
from likelify.fitting.quality import quality
from likelify.schema import ColumnSchema

NAN = np.nan
REAL, DATE = ColumnSchema(name="x"), ColumnSchema(name="d", kind="date", unit="day", rest="steps", step=1.0)
WORDS = ColumnSchema.category("c", ("a", "b", "c"), missing=True)
FLAG = ColumnSchema(name="b", kind="boolean", states=(0.0, 1.0), rest="none")


def test_numbers_and_dates_are_compared_by_kolmogorov_and_smirnov():
    rng = np.random.default_rng(0)
    real, drawn = rng.normal(size=(200, 2)), rng.normal(0.3, 1.2, size=(150, 2))
    real[:7, 0] = drawn[3:9, 0] = NAN
    found = quality(real, drawn, (REAL, DATE))
    for at in range(2):
        one, other = real[:, at], drawn[:, at]
        expected = 1 - ks_2samp(one[~np.isnan(one)], other[~np.isnan(other)]).statistic
        assert found.shapes[at] == pytest.approx(expected, abs=1e-12)
    assert found.column_shapes == pytest.approx(found.shapes.mean())


def test_words_and_truth_values_are_compared_by_total_variation_without_what_is_missing():
    real = np.array([[0, 1], [0, 1], [1, 0], [NAN, 0]], dtype=float)
    drawn = np.array([[0, 1], [2, 1], [NAN, 1], [NAN, 0]], dtype=float)
    shapes = quality(real, drawn, (WORDS, FLAG)).shapes
    # (2/3, 1/3, 0) against (1/2, 0, 1/2); (1/2, 1/2) against (1/4, 3/4).
    assert shapes == pytest.approx([1 - 0.5 * (1 / 6 + 1 / 3 + 1 / 2), 1 - 0.25])


def test_pairs_of_numbers_are_compared_by_correlation():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(300, 2))
    drawn = rng.normal(size=(300, 1)) + 0.5 * rng.normal(size=(300, 2))
    real[:5, 0] = NAN
    trend = quality(1e300 * real, drawn, (REAL, DATE)).trends[0]
    one, other = pearsonr(*real[5:].T).statistic, pearsonr(*drawn.T).statistic
    assert (trend.real, trend.drawn) == pytest.approx((one, other), abs=1e-12)
    assert trend.score == pytest.approx(1 - abs(one - other) / 2)


def test_pairs_with_words_are_compared_by_their_joint_table():
    real = np.array([[0.0, 0], [1.0, 0], [9.0, 1], [10.0, 1]])
    # Numbers fall into ten cells of [0, 10]; below and above are cells of their own, and so is what is missing.
    drawn = np.array([[0.5, 0], [-5.0, 0], [NAN, 1], [10.0, NAN]])
    found = quality(real, drawn, (REAL, WORDS))
    # Real: (cell 1, a) (2, a) (10, b) (above, b); drawn shares only the first.
    assert found.trends[0].score == pytest.approx(0.25)
    assert found.column_pair_trends == pytest.approx(0.25)


def test_equal_rows_score_one_and_disjoint_ones_zero():
    rows = np.array([[0.0, 0, 0], [1.0, 1, 1], [2.0, 2, 0]])
    same = quality(rows, rows, (REAL, WORDS, FLAG))
    assert (same.column_shapes, same.column_pair_trends) == (1.0, 1.0)
    assert str(same) == "column shapes 100.0%, column pair trends 100.0%"
    apart = quality(rows[:1, :2], rows[1:, :2] + 100, (REAL, WORDS))
    assert (apart.column_shapes, apart.column_pair_trends) == (0.0, 0.0)


def test_a_constant_has_no_trend_and_is_left_out_of_the_mean():
    rng = np.random.default_rng(2)
    rows = np.column_stack([rng.normal(size=(50, 2)), np.full(50, 0.1)])
    columns = (REAL, ColumnSchema(name="y"), ColumnSchema(name="k"))
    found = quality(rows, rows, columns)
    assert [np.isnan(trend.score) for trend in found.trends] == [False, True, True]
    assert found.column_pair_trends == 1.0
    assert found.column_shapes == 1.0


def test_rows_of_other_columns_and_none_are_refused():
    rows = np.zeros((3, 2))
    for real, drawn in ((rows, rows[:0]), (rows[:, :1], rows)):
        with pytest.raises(DataError, match="Rows of 2 columns are compared"):
            quality(real, drawn, (REAL, DATE))


def test_many_pairs_at_once_are_each_pair_by_itself():
    rng = np.random.default_rng(0)
    schema = tuple(ColumnSchema(name=f"x{at}") for at in range(5)) + (WORDS, FLAG)

    def rows(count):
        numbers = rng.normal(size=(count, 5)) @ rng.normal(size=(5, 5)) + [0, 1e6, 0, 0, 0]
        numbers[:, 4] = 3.0
        table = np.column_stack([numbers, rng.integers(0, 3, count), rng.integers(0, 2, count)])
        table[rng.random(table.shape) < 0.2] = NAN
        table[:, 6] = np.where(np.isnan(table[:, 6]), 0, table[:, 6])
        return table

    real, drawn = rows(300), rows(200)
    found = quality(real, drawn, schema)
    assert len(found.trends) == 21
    for trend in found.trends:
        pair = list(trend.columns)
        (alone,) = quality(real[:, pair], drawn[:, pair], tuple(schema[at] for at in pair)).trends
        assert trend.score == pytest.approx(alone.score, abs=1e-9, nan_ok=True)
        if trend.real is not None and 4 not in pair:
            known = ~np.isnan(real[:, pair]).any(1)
            assert trend.real == pytest.approx(pearsonr(*real[known][:, pair].T).statistic, abs=1e-9)
