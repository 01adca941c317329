"""Columns that follow from others but for what was rounded."""

import numpy as np
import pytest

from likelify.data import open_source, standardized, table
from likelify.data.remainders import MOST_COLUMNS, MOST_FOUND, nearly_dependent_columns
from likelify.data.screening import dependent_columns

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=300)


def said(values, names=None):
    source = table(np.column_stack(values), columns=names)
    assert dependent_columns(source) == []
    found = nearly_dependent_columns(source)
    scaled = nearly_dependent_columns(standardized(source))
    assert [(each.column, each.of) for each in scaled] == [(each.column, each.of) for each in found]
    return [str(each) for each in found]


@pytest.mark.parametrize(
    ("values", "factor", "left"),
    [
        ((NORMAL.round(4), (2 * NORMAL).round(4)), 2, 3e-5),
        (((2 * NORMAL).round(4), NORMAL.round(4)), 0.5, 3e-5),
        ((NORMAL.round(1), (1.8 * NORMAL + 32).round(1)), 1.8, 0.033),
        (((1.8 * NORMAL + 32).round(1), NORMAL.round(1)), 1 / 1.8, 0.033),
        (((2 + 0.8 * NORMAL).round(1), (6.8 + 1.44 * NORMAL).round(1)), 1.8, 0.042),
        ((NORMAL, 3 * NORMAL + 1e-4 * RNG.normal(size=300)), 3, 3e-5),
    ],
)
def test_two_columns_of_one_quantity_are_named(values, factor, left):
    assert len(said(values)) == 1
    (found,) = nearly_dependent_columns(table(np.column_stack(values)))
    assert found.factors == pytest.approx((factor,), rel=0.01)
    assert found.left == pytest.approx(left, rel=0.2)


def test_the_equation_has_the_digits_that_are_known():
    assert said([(20 + 8 * NORMAL).round(2), (68 + 14.4 * NORMAL).round(2)], ["C", "F"]) == [
        "'F' is 1.8 * 'C' + 32 up to 0.041 % of its deviation"
    ]
    assert said([NORMAL.round(4), (2 * NORMAL).round(4)], list("ab"))[0].startswith("'b' is 2 * 'a' up to 0.003")


def test_rounded_sums_and_shares_are_named():
    parts = RNG.gamma(2, size=(500, 3)).round(2)
    (mean,) = said([parts, (parts.sum(1) / 3).round(2), RNG.normal(size=500)], list("abcdx"))
    assert mean.startswith("'d' is 0.33")
    (share,) = said([(parts / parts.sum(1, keepdims=True)).round(3)], list("abc"))
    assert share.startswith("'c' is -1 * 'a' - 1 * 'b' + 1 up to")


def test_of_many_columns_the_first_five_are_named():
    values = NORMAL[:, None] * np.arange(1, 9) + 1e-5 * RNG.normal(size=(300, 8))
    assert len(said([values])) == 5


@pytest.mark.parametrize("name", ["iris", "wine", "breast-cancer", "diabetes", "linnerud", "digits"])
def test_radius_and_perimeter_are_two_columns(name):
    """Their correlation is 0.998, and what is left is far more than rounding."""
    assert nearly_dependent_columns(open_source(name)) == []


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=(12, 30)).round(1),
        RNG.integers(0, 4, size=(300, 6)).astype(float),
        RNG.integers(0, 2, size=(30, 12)).astype(float),
        np.column_stack([NORMAL.round(1), (NORMAL + 0.1 * RNG.normal(size=300)).round(1)]),
        np.column_stack([NORMAL, NORMAL + 0.003 * RNG.normal(size=300)]),
        np.column_stack([np.arange(500.0), np.sqrt(np.arange(500.0))]),
    ],
)
def test_ordinary_columns_are_not_named(values):
    assert nearly_dependent_columns(table(values)) == []


def test_rows_of_a_code_for_missing_values_make_no_equation():
    values = RNG.normal(size=(500, 3)).round(2)
    values[::50] = -99999 + RNG.normal(size=(10, 3)).round(2)
    assert nearly_dependent_columns(table(values)) == []


def test_many_columns_take_one_fit_each_and_a_few_for_those_that_are_named(fits):
    waves = RNG.normal(size=(3000, 12)) @ np.sin(np.outer(np.arange(12), np.linspace(0, 3, 300)) + 1)
    found = nearly_dependent_columns(table(waves + 0.002 * RNG.normal(size=waves.shape)))
    assert len(found) == MOST_FOUND
    assert 0 < len(fits) <= MOST_COLUMNS + MOST_FOUND * (2 + 9)


def test_whole_numbers_and_what_is_missing_have_no_density_to_fear():
    whole = np.column_stack([(20 + 8 * NORMAL).round(), (68 + 14.4 * NORMAL).round()])
    assert nearly_dependent_columns(table(whole)) == []
    partly = np.column_stack([np.where(NORMAL > 1, np.nan, NORMAL).round(1), (1.8 * NORMAL + 32).round(1)])
    assert nearly_dependent_columns(table(partly)) == []
