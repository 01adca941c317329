"""What a row gains by another value in one column."""

import math

import numpy as np
import pytest
import torch

from likelify.fitting.scoring.candidates import QUANTILES, candidates, column_gains, found_in
from likelify.schema import ColumnSchema, LinearFunction, real_columns
from tests.fitting.scoring.runs import gaussian, rows

COLOUR = ColumnSchema.category("colour", ("blue", "green", "red"))
LENGTH = ColumnSchema(name="length")


def of_reals(values):
    """Candidates of columns of real numbers, from rows that hold them."""
    schema = real_columns(values.shape[1])
    return candidates(found_in(values, schema), schema)


def grid(low, high, columns=1):
    return of_reals(np.linspace(low, high, QUANTILES)[:, None].repeat(columns, 1))


def gains_in(score, x, schema, seen):
    return column_gains(score, torch.tensor(x), candidates(found_in(np.array(seen), schema), schema))


def test_gains_of_a_normal_distribution_are_half_the_squared_residuals_given_the_others():
    flow, residuals = gaussian()
    x = rows(300, seed=1)
    with torch.no_grad():
        gains, values = column_gains(flow.log_prob, torch.from_numpy(x), of_reals(rows(4000)))
    assert (gains >= 0).all()
    expected = residuals(x) ** 2 / 2
    # As far as the values that are tried are apart; and none is better than the best.
    assert (gains <= expected + 1e-9).all()
    assert np.median(expected - gains) < 0.02
    assert np.quantile(expected - gains, 0.95) < 0.2
    far = expected > 2
    assert (np.abs(x - values)[far] > 0).all()
    # Columns have units; what is to blame has none.
    with torch.no_grad():
        scaled = column_gains(
            lambda y: flow.log_prob(y / 1000), torch.from_numpy(1000 * x), of_reals(1000 * rows(4000))
        )[0]
    assert scaled == pytest.approx(gains, abs=1e-6)


def test_the_column_that_was_spoilt_is_blamed():
    flow, _ = gaussian()
    x, generator = rows(300, seed=2), np.random.default_rng(0)
    spoilt = generator.integers(0, 3, size=300)
    others = rows(300, seed=3)
    x[np.arange(300), spoilt] = others[np.arange(300), spoilt] + np.sign(others[np.arange(300), spoilt])
    with torch.no_grad():
        gains = column_gains(flow.log_prob, torch.from_numpy(x), of_reals(rows(4000)))[0]
    visible = gains.max(1) > 4
    assert visible.mean() > 0.5
    assert (gains.argmax(1) == spoilt)[visible].mean() > 0.85


def test_a_candidate_without_a_likelihood_does_not_hide_the_others():
    def score(x):
        found = -0.5 * (x**2).sum(1)
        return torch.where(x[:, 0] == x.new_tensor(2.0), torch.nan, found)

    gains, values = column_gains(score, torch.full((1, 1), -4.0, dtype=torch.float64), grid(-2, 2))
    assert gains[0, 0] == pytest.approx(8, abs=1e-3)
    assert abs(values[0, 0]) < 0.05


def test_whole_numbers_are_replaced_by_whole_numbers():
    tried = []

    def score(x):
        tried.append(x[:, 0].clone())
        return -((x[:, 0] - 7.4) ** 2)

    gains, values = column_gains(score, torch.zeros(2, 1, dtype=torch.float64), grid(0, 23))
    assert torch.equal(torch.cat(tried), torch.cat(tried).round())
    assert values[:, 0].tolist() == [7.0, 7.0]
    assert gains[:, 0] == pytest.approx([7.4**2 - 0.4**2] * 2)


def test_steps_are_replaced_by_steps():
    column = ColumnSchema(name="hours", rest="steps", step=0.25)
    seen = np.arange(0, 100, 7)[:, None] * 0.25
    gains, values = gains_in(lambda x: -((x[:, 0] - 8.1) ** 2), [[20.0]], (column,), seen)
    assert values[0, 0] == 8.0
    assert gains[0, 0] == pytest.approx(11.9**2 - 0.1**2)


def test_rows_outside_of_the_support_are_told_apart():
    def score(x):
        inside = (x >= 0).all(1)
        return torch.where(inside, -x.sum(1), -torch.inf)

    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    gains, _ = column_gains(score, x, grid(0, 23, columns=2))
    assert np.isfinite(gains[0]).all()
    assert np.isposinf(gains[1, 0])
    assert np.isnan(gains[1, 1])
    assert np.isnan(gains[2]).all()


def test_words_are_replaced_by_words_that_were_seen():
    worth = torch.tensor([-3.0, 5.0, -1.0])
    tried = set()

    def score(x):
        tried.update(x[:, 0].tolist())
        return worth[x[:, 0].long()]

    # No green one was seen, and nothing lies between blue and red.
    gains, values = gains_in(score, [[0.0], [2.0]], (COLOUR,), [[0.0], [2.0], [2.0]])
    assert tried == {0.0, 2.0}
    assert values[:, 0].tolist() == [2.0, 2.0]
    assert gains[:, 0].tolist() == [2.0, 0.0]


def test_the_most_frequent_of_many_states_are_tried():
    many = ColumnSchema.category("word", [f"w{number}" for number in range(60)])
    seen = [[float(number)] for number in range(60) for _ in range(number + 1)]
    kept = found_in(np.array(seen), (many,))
    assert sorted(kept[:QUANTILES, 0]) == list(range(60 - QUANTILES, 60))
    assert np.isnan(kept[QUANTILES:]).all()


def test_a_missing_value_can_be_better_or_worse_than_what_is_there():
    column = LENGTH.model_copy(update={"missing": True})
    seen = np.append(np.linspace(-1, 1, 50), [math.nan] * 3)[:, None]

    def score(x):
        return torch.where(x[:, 0].isnan(), -1.0, -(x[:, 0] ** 2) - 3.0)

    gains, values = gains_in(score, [[2.0], [math.nan]], (column,), seen)
    assert gains[:, 0].tolist() == [6.0, 0.0]
    assert np.isnan(values[:, 0]).all()
    # Where none was ever missing that is not what should stand there.
    gains, values = gains_in(score, [[2.0]], (LENGTH,), seen[:50])
    assert values[0, 0] == pytest.approx(0, abs=0.01)


def test_zeros_and_other_amounts_are_both_tried():
    money = ColumnSchema(name="money", states=(0.0,))
    seen = np.append(np.zeros(50), np.linspace(10, 30, 50))[:, None]

    def to(target):
        return gains_in(lambda x: -((x[:, 0] - target) ** 2), [[50.0]], (money,), seen)[1][0, 0]

    assert to(0.0) == 0.0
    assert to(17.3) == pytest.approx(17.3, abs=0.1)


def test_columns_that_follow_from_others_follow_and_stay_as_wrong_as_they_were():
    double = ColumnSchema(
        name="double", rest="none", function=LinearFunction(of=("length",), factors=(2.0,), offset=1.0)
    )

    def score(x):
        right = ((2 * x[:, 0] + 1 - x[:, 1]).abs() < 1e-9) & (x[:, 0] > -5)
        return torch.where(right, -(x[:, 0] ** 2), -torch.inf)

    x = [[3.0, 7.0], [3.0, 8.0]]
    seen = np.stack([np.linspace(-1, 1, 30), np.linspace(-1, 3, 30)], 1)
    gains, values = gains_in(score, x, (LENGTH, double), seen)
    assert gains[0, 0] == pytest.approx(9.0, abs=1e-3)
    assert gains[0, 1] == 0
    # The second row is mended by the function alone.
    assert np.isnan(gains[1, 0])
    assert np.isposinf(gains[1, 1])
    assert values[1, 1] == 7.0


def test_conditions_are_to_blame_for_nothing():
    given = LENGTH.model_copy(update={"given": True})
    gains, values = gains_in(
        lambda x: -x.abs().sum(1), [[9.0, 9.0]], (given, LENGTH.model_copy(update={"name": "b"})), [[0.0, 0.0]]
    )
    assert gains.tolist() == [[0.0, 9.0]]
    assert values.tolist() == [[9.0, 0.0]]


def test_columns_move_with_what_they_follow_from_through_others():
    schema = (
        ColumnSchema(name="c", function=LinearFunction(of=("b",), factors=(2.0,))),
        ColumnSchema(name="b", function=LinearFunction(of=("a",), factors=(3.0,))),
        ColumnSchema(name="a"),
    )
    found = candidates(np.full((2 * QUANTILES, 3), np.nan), schema)
    assert [dict(each.moves) for each in found] == [{}, {0: 2.0}, {1: 3.0, 0: 6.0}]
