"""Columns given others: draws, quantiles and densities against the model's own density, over all values."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data.finding import find_schema
from likelify.distributions import AutoregressiveColumns, Mixture
from likelify.errors import ConfigError, DataError, LikelifyWarning
from likelify.fitting.conditioning import growing
from likelify.fitting.conditioning.asked import Asked
from likelify.fitting.conditioning.given import draw_given, log_prob_of, quantiles
from likelify.fitting.typed import rounded
from likelify.schema import ColumnSchema, LinearFunction
from likelify.transforms import MixedColumns
from tests.fitting.conditioning.tables import (
    BACKWARD,
    COLOUR,
    COUNT,
    FORWARD,
    LIVED,
    PRICE,
    SCHEMA,
    SIZE,
    TWICE,
    apples,
    chances,
    model,
    rows,
)

WORDS, COUNTS = np.array([0.0, 1.0, 2.0, np.nan]), np.arange(-30.0, 31.0)


def all_but(*columns):
    return ~np.isin(np.arange(len(SCHEMA)), [*columns, TWICE])


@pytest.mark.parametrize(
    ("orders", "exact"), [([(0, 2, 3, 1)], True), ([BACKWARD], False), ([FORWARD, BACKWARD, (0, 2, 3, 1)], False)]
)
def test_words_are_drawn_as_often_as_the_model_says(orders, exact):
    flow, known = model(*orders), rows(3, seed=1)
    number = 3000
    drawn = draw_given(flow, SCHEMA, known, all_but(COLOUR), draws=number)
    assert drawn.exact.tolist() == [exact] * 3
    for row in range(3):
        expected = chances(flow, known[row], COLOUR, WORDS)
        values = drawn.rows[row, :, COLOUR]
        shares = [(values == word).mean() for word in WORDS[:3]] + [np.isnan(values).mean()]
        error = np.sqrt(expected * (1 - expected) / drawn.ess[row]) + 1 / number
        assert (np.abs(shares - expected) < 4.5 * error).all()
        others = all_but(COLOUR)
        assert np.array_equal(
            drawn.rows[row][:, others], np.repeat(known[row, others][None], number, 0), equal_nan=True
        )


@pytest.mark.parametrize("orders", [[(0, 1, 2, 3)], [BACKWARD]])
def test_numbers_are_drawn_as_the_model_says_and_computed_columns_follow(orders):
    flow, known = model(*orders), rows(2, seed=2)
    drawn = draw_given(flow, SCHEMA, known, all_but(COUNT), draws=2000)
    for row in range(2):
        expected = chances(flow, known[row], COUNT, COUNTS)
        values = drawn.rows[row, :, COUNT]
        assert np.isin(values, COUNTS).all()
        apart = np.abs(np.cumsum(expected) - [(values <= count).mean() for count in COUNTS]).max()
        assert apart < 2 / np.sqrt(drawn.ess[row])
        assert np.allclose(drawn.rows[row, :, TWICE], 2 * known[row, SIZE] - values + 1)


def test_what_is_filled_in_is_never_missing_and_follows_the_values_that_are_not():
    flow, known = model(FORWARD, BACKWARD, smooth=True), rows(2, seed=3)
    number = 3000
    drawn = draw_given(flow, SCHEMA, known, all_but(COLOUR), draws=number, present=True)
    assert np.isfinite(drawn.rows[:, :, COLOUR]).all()
    for row in range(2):
        expected = chances(flow, known[row], COLOUR, WORDS[:3])
        shares = np.array([(drawn.rows[row, :, COLOUR] == word).mean() for word in WORDS[:3]])
        assert (np.abs(shares - expected) < 4.5 * np.sqrt(expected * (1 - expected) / drawn.ess[row]) + 1e-3).all()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), BACKWARD])
def test_quantiles_of_whole_numbers_are_those_of_their_probabilities(order):
    flow, known = model(order, smooth=True), rows(4, seed=4)
    levels = [0.05, 0.3, 0.5, 0.9]
    found = quantiles(flow, SCHEMA, known, COUNT, levels)
    for row in range(4):
        ends = np.cumsum(chances(flow, known[row], COUNT, COUNTS))
        expected = COUNTS[np.searchsorted(ends, levels)]
        if order == FORWARD:
            assert found[row].tolist() == expected.tolist()
        else:
            near = [[ends[np.searchsorted(COUNTS, value) - step] for step in (1, 0)] for value in found[row]]
            assert all(low - 0.07 <= level <= high + 0.07 for (low, high), level in zip(near, levels, strict=True))


def test_quantiles_know_values_with_a_probability_of_their_own():
    flow, known = model((0, 1, 3, 2)), rows(3, seed=5)
    grid = np.concatenate([-np.geomspace(1e-6, 60, 3000)[::-1], np.geomspace(1e-6, 300, 6000)])
    levels = np.linspace(0.02, 0.98, 33)
    found = quantiles(flow, SCHEMA, known, PRICE, levels)
    for row in range(3):
        tried = np.repeat(known[[row]], len(grid) + 1, 0)
        tried[:, PRICE], tried[:, TWICE] = [*grid, 0.0], np.nan
        with torch.no_grad():
            density = flow.log_prob(torch.from_numpy(tried)).exp().numpy()
        cells = np.concatenate([[0], 0.5 * (density[1:-1] + density[:-2]) * np.diff(grid)]).cumsum()
        ends = (cells + np.where(grid > 0, density[-1], 0)) / (cells[-1] + density[-1])
        expected = np.interp(levels, ends, grid)
        atom = np.abs(expected) < 1e-5
        assert atom.any()
        assert not atom.all()
        assert (found[row][atom] == 0).all()
        assert found[row][~atom] == pytest.approx(expected[~atom], rel=2e-2, abs=2e-2)


def test_quantiles_of_rows_far_from_all_others_stay_near_the_data():
    flow, known = model((0, 1, 3, 2)), rows(3, seed=5)
    known[:, SIZE] = [1e6, -1e6, 1e30]
    found = quantiles(flow, SCHEMA, known, PRICE, [0.01, 0.5, 0.99])
    # The highest price is 75; without a limit they reach 1e300.
    assert np.abs(found).max() < 1e5


def test_quantiles_of_words_have_no_meaning_and_levels_are_probabilities():
    flow = model(FORWARD)
    with pytest.raises(ConfigError, match="'colour' is of words without an order"):
        quantiles(flow, SCHEMA, rows(2), COLOUR, [0.5])
    with pytest.raises(ConfigError, match="at probabilities between 0 and 1"):
        quantiles(flow, SCHEMA, rows(2), COUNT, [0.5, 1.0])


@pytest.mark.parametrize("target", [-1, 17, 1.5, [], [0, 9]])
def test_columns_that_are_not_there_are_refused(target):
    flow = model(FORWARD)
    with pytest.raises(ConfigError, match="number of a column|have the numbers 0 to"):
        log_prob_of(flow, SCHEMA, rows(2), target)
    if isinstance(target, int):
        with pytest.raises(ConfigError, match="number of a column|have the numbers 0 to"):
            quantiles(flow, SCHEMA, rows(2), target, [0.5])
    one = log_prob_of(flow, SCHEMA, rows(2), np.int64(COUNT))
    assert np.array_equal(one.nats, log_prob_of(flow, SCHEMA, rows(2), COUNT).nats)


def test_what_is_known_has_the_shape_of_the_rows():
    with pytest.raises(DataError, match="What is known is said of"):
        draw_given(model(FORWARD), SCHEMA, rows(2), np.ones(len(SCHEMA) + 1, dtype=bool))


@pytest.mark.parametrize("orders", [[(0, 2, 3, 1)], [BACKWARD, FORWARD]])
def test_densities_of_some_columns_given_the_others(orders):
    flow, known = model(*orders), rows(6, seed=6)
    known[2, COLOUR] = np.nan
    found = log_prob_of(flow, SCHEMA, known, COLOUR)
    for row in range(6):
        at = 3 if np.isnan(known[row, COLOUR]) else int(known[row, COLOUR])
        # A word that was never seen is one more thing that it could be.
        expected = np.log(chances(flow, known[row], COLOUR, np.append(WORDS, -1.0))[at])
        assert abs(found.nats[row] - expected) < 5 * found.standard_error[row] + 1e-4
    assert (found.standard_error == 0).all() == (len(orders) == 1)
    assert found.standard_error.max() < 0.2


def test_densities_are_in_the_units_of_the_columns():
    flow, known = model((1, 2, 3, 0)), rows(1, seed=7)
    grid = np.linspace(-15, 25, 8001)
    tried = np.repeat(known, len(grid), 0)
    tried[:, SIZE], tried[:, TWICE] = grid, np.nan
    found = log_prob_of(flow, SCHEMA, tried, [SIZE])
    assert np.trapezoid(np.exp(found.nats), grid) == pytest.approx(1, abs=2e-3)


def test_rows_with_different_holes_are_filled_each_in_its_own_way():
    flow, holes = model(FORWARD, BACKWARD), rows(60, seed=8)
    known = ~np.isnan(holes)
    known[:5, SIZE] = False
    known[5:9, [SIZE, COUNT]] = False
    known[9] = True
    holes[3, TWICE] = 7.0
    with pytest.warns(
        LikelifyWarning, match="'sum' follows from other columns of which several are not known in 4 rows"
    ):
        found = draw_given(flow, SCHEMA, holes, known, draws=2, present=True, seed=1)
    filled = found.rows
    assert np.isfinite(filled).all()
    kept = known & ~np.isin(np.arange(5), [TWICE])
    assert np.array_equal(filled[:, 0][kept], holes[kept])
    # A part of a known sum follows from the others.
    assert filled[3, :, SIZE] == pytest.approx((7.0 - 1 + holes[3, COUNT]) / 2)
    assert np.allclose(filled[..., TWICE], 2 * filled[..., SIZE] - filled[..., COUNT] + 1)
    assert found.exact[9]
    again = draw_given(flow, SCHEMA, holes[9:], known[9:], present=True).rows
    assert np.array_equal(again[0, 0], holes[9])


def test_equal_seeds_draw_the_same():
    flow, known = model(BACKWARD), rows(5, seed=9)
    first, second, other = (draw_given(flow, SCHEMA, known, all_but(COUNT), seed=seed).rows for seed in (1, 1, 2))
    assert np.array_equal(first, second, equal_nan=True)
    assert not np.array_equal(first, other, equal_nan=True)


def test_what_was_given_in_the_fit_must_be_known_and_then_all_is_exact():
    schema = tuple(column.model_copy(update={"given": column.name in ("price", "count")}) for column in SCHEMA)
    flow, known = model((2, 3, 0, 1), (3, 2, 1, 0), schema=schema), rows(4, seed=10)
    found = draw_given(flow, schema, known, all_but(SIZE, COLOUR), draws=3)
    assert found.exact.all()
    with pytest.raises(DataError, match="fitted given 'price': what is given must be known of every row"):
        draw_given(flow, schema, known, all_but(PRICE))


def test_impossible_values_are_refused_with_their_column():
    flow = model(FORWARD)
    schema = tuple(
        column.model_copy(update={"declared": True}) if column.name == "count" else column for column in SCHEMA
    )
    known = rows(3)
    known[1, COUNT] = 99
    with pytest.raises(DataError, match=r"'count' = 99 of row 1 is not possible: its range is \[-30, 30\]"):
        draw_given(flow, schema, known, all_but(COLOUR))
    with pytest.raises(DataError, match="Rows of 5 columns are needed"):
        draw_given(flow, SCHEMA, known[:, :3], all_but(COLOUR)[:3])
    with pytest.raises(ConfigError, match="The number of draws"):
        draw_given(flow, SCHEMA, known, all_but(COLOUR), draws=0)


def test_a_state_that_is_rare_before_a_known_value_is_drawn_as_often_as_it_should():
    schema = (
        ColumnSchema.category("kind", ("usual", "rare")),
        ColumnSchema.category("hue", ("a", "b"), missing=True),
        ColumnSchema(name="x"),
    )
    kind = (np.arange(4000) % 1000 == 0).astype(float)
    hue = np.where(np.arange(4000) % 50 == 0, np.nan, np.arange(4000) % 2)
    known = np.column_stack([kind, hue, 6 * kind + 0.7 * np.random.default_rng(0).normal(size=4000)])
    transform = MixedColumns(schema)
    flow = lk.Flow(AutoregressiveColumns(schema, linear=True, snap=transform.snap), transform).double()
    flow.initialize(torch.from_numpy(known))
    tried = np.array([[place, color, 6.0] for place in (0, 1) for color in (0, 1, np.nan)])
    with torch.no_grad():
        density = flow.log_prob(torch.from_numpy(tried)).exp().numpy().reshape(2, 3)
    # A thousandth of the rows, and a fifth of those of such an x.
    for hue_known, some in ((True, density[:, :1]), (False, density)):
        share = some[1].sum() / some.sum()
        drawn = draw_given(flow, schema, np.array([[np.nan, 0, 6]]), [False, hue_known, True], draws=2000)
        assert 0.1 < share < 0.5
        assert drawn.rows[0, :, 0].mean() == pytest.approx(share, abs=0.03)
        assert drawn.ess[0] > 500
    found = log_prob_of(flow, schema, tried[[3]], 0)
    assert found.nats[0] == pytest.approx(np.log(density[1, 0] / density[:, 0].sum()), abs=1e-3)


def test_draws_that_are_worth_little_are_said_to_be(monkeypatch):
    monkeypatch.setattr(growing, "PARTICLES", 16)
    monkeypatch.setattr(growing, "MOST", 64)
    flow, known = model(BACKWARD), rows(4, seed=11)
    with pytest.warns(
        LikelifyWarning, match="of 4 rows whose weights differ are worth few independent ones.*--given a,b"
    ):
        found = draw_given(flow, SCHEMA, known, all_but(PRICE, COUNT), draws=5)
    assert found.ess.max() <= 64


RARE = (ColumnSchema.category("c", ("a", "b")), ColumnSchema(name="y"))


def rare_state(order=(0, 1), *orders):
    """Return a model of a word that is rare, and of a number that says much about it."""
    rng = np.random.default_rng(0)
    word = (rng.random(4000) < 0.02).astype(float)
    table = np.column_stack([word, rng.normal(np.where(word == 1, 6.0, 0.0), np.where(word == 1, 0.5, 2.0))])
    transform = MixedColumns(RARE)
    members = [AutoregressiveColumns(RARE, each, snap=transform.snap) for each in (order, *orders)]
    flow = lk.Flow(members[0] if len(members) == 1 else Mixture(members, apart=True), transform).double()
    flow.initialize(torch.from_numpy(table))
    with torch.no_grad():
        share = flow.log_prob(torch.tensor([[0.0, 6.0], [1.0, 6.0]], dtype=torch.float64)).softmax(0)
    return flow, float(share[1])


def test_a_rare_state_before_what_is_known_is_drawn_as_often_as_it_is_likely():
    flow, expected = rare_state()
    assert 0.3 < expected < 0.97
    row, known = np.array([[np.nan, 6.0]]), np.array([False, True])
    found = [draw_given(flow, RARE, row, known, seed=seed) for seed in range(200)]
    assert not any(drawn.exact.any() for drawn in found)
    share = np.mean([drawn.rows[0, 0, 0] for drawn in found])
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 200)


def test_densities_of_a_rare_state_have_a_standard_error():
    flow, expected = rare_state()
    found = [log_prob_of(flow, RARE, np.array([[1.0, 6.0]]), 0, seed=seed) for seed in range(40)]
    nats, errors = (np.array([getattr(each, name)[0] for each in found]) for name in ("nats", "standard_error"))
    assert (errors > 0).all()
    assert abs(nats.mean() - np.log(expected)) < 4 * errors.mean() / np.sqrt(40) + errors.mean() ** 2


@pytest.mark.parametrize("orders", [[(1, 0)], [(1, 0), (0, 1)]])
def test_draws_are_exact_if_and_only_if_every_member_has_what_is_known_first(orders):
    flow, expected = rare_state(*orders)
    row, known = np.array([[np.nan, 6.0]]), np.array([False, True])
    drawn = draw_given(flow, RARE, row, known, draws=500)
    assert drawn.exact[0] == (len(orders) == 1)
    assert abs(drawn.rows[0, :, 0].mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / drawn.ess[0])
    # Of states a model without a network says the same whatever came before.
    assert draw_given(flow, RARE, np.array([[0.0, np.nan]]), ~known).exact[0]


def test_that_a_value_is_there_is_known_too_where_it_depends_on_what_is_drawn():
    base = model(FORWARD).base
    places = torch.tensor([[True, False, True, False], [True, False, False, False], [True, True, False, False]])
    assert base.completes_exactly(places).tolist() == [False, True, True]
    assert base.completes_exactly(places, present=True).tolist() == [False, False, True]


# The first follows from the second, which follows from the third.
CHAIN = (
    ColumnSchema(name="c", function=LinearFunction(of=("b",), factors=(2.0,))),
    ColumnSchema(name="b", function=LinearFunction(of=("a",), factors=(3.0,), offset=1.0)),
    ColumnSchema(name="a"),
    ColumnSchema(name="d"),
)


def chained(count=50):
    a, d = np.random.default_rng(0).normal(size=(2, count))
    return np.column_stack([6 * a + 2, 3 * a + 1, a, a + d])


def test_columns_that_follow_from_others_through_others_are_computed_and_give_nothing_away():
    transform = MixedColumns(CHAIN)
    flow = lk.Flow(AutoregressiveColumns(CHAIN, (1, 0), snap=transform.snap), transform).double()
    table = chained()
    flow.initialize(torch.from_numpy(table))
    drawn = draw_given(flow, CHAIN, table[:3], np.array([False, False, False, True]), draws=4).rows
    assert np.allclose(drawn[..., 0], 6 * drawn[..., 2] + 2)
    assert drawn[..., 2].std() > 0
    # All of a sum of a sum is known: there is nothing to draw.
    last = np.array([True, False, False, True])
    assert np.allclose(draw_given(flow, CHAIN, table[:3], last).rows[:, 0], table[:3])
    grid = np.linspace(-8, 8, 2001)
    tried = np.column_stack([6 * grid + 2, 3 * grid + 1, grid, np.full(len(grid), 0.3)])
    assert np.trapezoid(np.exp(log_prob_of(flow, CHAIN, tried, 2).nats), grid) == pytest.approx(1, abs=5e-3)


def test_columns_that_follow_through_others_are_rounded_with_them():
    schema = (*CHAIN[:2], CHAIN[2].model_copy(update={"step": 0.1}), CHAIN[3])
    assert np.allclose(rounded(chained(), schema)[:, 0], 6 * np.round(chained()[:, 2], 1) + 2)


def test_a_condition_outside_of_the_range_of_the_data_is_said():
    price = ColumnSchema(name="price", lower=0.0, upper=9.0)
    with pytest.warns(LikelifyWarning, match=r"'price' = -5 of row 0 lies outside of 0 to 9, the range of the data"):
        Asked.of((price, ColumnSchema(name="x")), np.array([[-5.0, np.nan]]), np.array([[True, False]]))


def test_conditions_far_outside_of_the_data_are_said_and_what_is_drawn_given_them_stays_near_the_data():
    rng = np.random.default_rng(0)
    first = rng.normal(5, 1, 600)
    rows = np.column_stack([first, 2 * first + rng.normal(0, 0.3, 600)])
    schema = find_schema(rows, ("a", "b"))
    assert schema[0].seen == (first.min(), first.max())
    transform = MixedColumns(schema)
    flow = lk.Flow(AutoregressiveColumns(schema, snap=transform.snap), transform).double()
    flow.initialize(torch.from_numpy(rows))
    for far in (20.0, 1e9):
        asked = np.array([[far, np.nan]])
        with pytest.warns(LikelifyWarning, match=r"'a' = (20|1e.09) of row 0 lies .* it is taken for 8\.76"):
            drawn = draw_given(flow, schema, asked, ~np.isnan(asked), draws=200).rows[0]
        assert (drawn[:, 0] == far).all()
        assert drawn[:, 1].max() < 30
        assert 14 < np.quantile(drawn[:, 1], 0.05) < np.quantile(drawn[:, 1], 0.95) < 20
        with pytest.warns(LikelifyWarning, match="range of the data"):
            assert 14 < quantiles(flow, schema, asked, 1, [0.5])[0, 0] < 22


def test_hidden_columns_of_any_kind_are_drawn_given_the_others(mixed):
    run, _ = mixed
    for hidden in ((0,), (1, 3), (2, 4, 5)):
        mask = torch.zeros(len(LIVED), dtype=torch.bool)
        mask[list(hidden)] = True
        known = ~mask.numpy()
        known[-1] = False
        rows = apples(4, seed=9)
        found = run.inpaint(rows, mask, draws=3)
        assert found.x.shape == (4, 3, len(LIVED))
        assert np.array_equal(found.x[..., known].numpy(), np.repeat(rows[:, None], 3, 1)[..., known], equal_nan=True)
        assert (found.ess > 1).all()
        run.as_table(found.x.flatten(0, 1))
    with pytest.raises(ConfigError, match="hides nothing"):
        run.inpaint(apples(4), torch.zeros(len(LIVED), dtype=torch.bool))


def test_numbers_of_numpy_are_numbers(mixed):
    run, _ = mixed
    assert torch.equal(run.sample(np.int64(3), seed=np.int64(2)).nan_to_num(), run.sample(3, seed=2).nan_to_num())
    assert run.impute(apples(5, seed=9), draws=np.int64(2)).rows.shape == (5, 2, len(LIVED))
