"""What columns are found to be: kinds, states, atoms, bounds, decimals; the same in any units."""

import time

import hypothesis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelify.data import table
from likelify.data.atoms import find_atoms
from likelify.data.bounds import find_bounds
from likelify.data.describing import kind_of, values_of
from likelify.data.finding import decimal_step, find_schema
from likelify.data.told import read_wish
from likelify.errors import DataError
from likelify.schema import ColumnSchema, LinearFunction


def rng(seed=0):
    return np.random.default_rng(seed)


def found(values, wish=None):
    told = {"x": read_wish(wish)} if wish else None
    return find_schema(np.asarray(values, dtype=float)[:, None], ["x"], told)[0]


def rain(n=2000):
    return np.where(rng(1).random(n) < 0.3, 0.0, rng(2).lognormal(size=n))


def capped(n=2000):
    return np.minimum(rng(3).lognormal(size=n), 3.0)


@pytest.mark.parametrize("scale", [1.0, 2.54, 1e-9, -3e8])
def test_atoms_are_zeros_and_caps_in_any_units(scale):
    assert find_atoms(rain() * scale) == (0.0,)
    assert find_atoms(capped() * scale) == (3.0 * scale,)
    both = np.clip(rng(4).normal(size=2000), -1, 1) * scale
    assert len(find_atoms(both)) == 2
    rounded = rng(5).normal(size=2000).round(1) * scale
    assert find_atoms(rounded) == ()
    assert find_atoms(np.where(rng(6).random(2000) < 0.3, 0.0, rounded)) == (0.0,)
    # Every tenth row rounded, as by a worse device: none of its many steps is an atom.
    devices = np.where(rng(7).random(5000) < 0.5, rng(8).normal(size=5000), rng(9).normal(size=5000).round(1)) * scale
    assert find_atoms(devices) == ()
    assert find_atoms(rng(10).normal(size=3000) * scale) == ()


def test_values_of_wine_have_no_atoms():
    for column in table_of("wine").T:
        assert find_atoms(column) == ()


def table_of(name):
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")().data


@pytest.mark.parametrize("scale", [1.0, 2.54, 1e-9, 3e8])
@pytest.mark.parametrize(
    ("values", "bounded"),
    [
        (rng(0).normal(size=3000), (False, False)),
        (rng(1).standard_cauchy(size=3000), (False, False)),
        (rng(2).exponential(size=3000), (True, False)),
        (3 + rng(3).exponential(size=3000), (True, False)),
        (rng(4).uniform(size=3000), (True, True)),
        (rng(5).beta(0.5, 0.5, size=3000), (True, True)),
        (rng(6).lognormal(size=3000), (True, False)),
        (170 + 10 * rng(7).normal(size=3000), (False, False)),
        (rng(8).standard_t(4, size=3000), (False, False)),
        (rng(9).normal(size=3000).round(1), (False, False)),
        (rng(10).gamma(2.0, size=3000), (True, False)),
        (rng(11).gamma(9.0, size=3000), (False, False)),
        (-rng(12).exponential(size=3000), (False, True)),
    ],
)
def test_bounds_are_found_where_values_end_in_any_units(values, bounded, scale):
    lower, upper = find_bounds(values * scale)
    assert (lower is not None, upper is not None) == bounded
    assert lower is None or lower <= values.min() * scale
    assert upper is None or upper >= values.max() * scale


def test_bounds_are_round_where_a_round_number_is_near():
    assert find_bounds(rng(0).uniform(size=2000)) == (0.0, 1.0)
    assert find_bounds(rng(0).uniform(0, 100, size=2000)) == (0.0, 100.0)
    assert find_bounds(rng(1).exponential(size=2000))[0] == 0.0
    lower, upper = find_bounds(rng(2).uniform(3.3, 7.7, size=2000))
    assert 3.28 < lower <= 3.3 + 5e-3 < 7.7 - 5e-3 <= upper < 7.72
    counts = rng(3).integers(0, 100, 5000).astype(float)
    assert find_bounds(counts, whole=True) == (0.0, 100.0)


@pytest.mark.parametrize(
    ("values", "kind", "states", "rest", "step"),
    [
        (rng(0).integers(0, 5, 500), "integer", 5, "none", 1.0),
        (rng(1).integers(0, 500, 500), "integer", 0, "steps", 1.0),
        (rng(2).integers(0, 30, 60), "integer", 0, "steps", 1.0),
        (rng(3).normal(size=500).round(2), "real", 0, "density", 0.01),
        (rng(4).normal(size=500), "real", 0, "density", None),
        (rng(5).choice([0.5, 1.5, 2.5], 500), "real", 3, "none", None),
        (rng(6).integers(0, 9, 500) * 1e16, "real", 9, "none", None),
        (np.where(rng(7).random(900) < 0.6, 0, rng(8).integers(1, 4000, 900)), "integer", 1, "steps", 1.0),
        (rng(9).choice([0, 0, 0, *range(7000, 99000, 1000)], 9500), "integer", 93, "none", 1.0),
        (rng(9).integers(0, 93, 9500), "integer", 0, "steps", 1.0),
        (np.where(rng(7).random(900) < 0.2, np.nan, rng(8).normal(size=900)), "real", 0, "density", None),
    ],
)
def test_kinds_states_and_steps(values, kind, states, rest, step):
    column = found(values)
    assert (column.kind, len(column.states), column.rest, column.step) == (kind, states, rest, step)
    assert column.missing == bool(np.isnan(np.asarray(values, dtype=float)).any())
    real = found(values, "real")
    assert (real.kind, real.states, real.rest) == ("real", (), "density")
    assert real.step == (step if step == 0.01 else 0.5 if rest == "none" and kind == "real" and states == 3 else None)


def test_constants_are_kept_and_what_was_declared_is_obeyed():
    assert found(np.full(50, 2.5)).function == LinearFunction(offset=2.5)
    partly = found(np.where(np.arange(50) < 9, np.nan, 2.5))
    assert (partly.function, partly.missing) == (None, True)
    ages = found(rng(0).integers(18, 90, 500), "integer[0,120]")
    assert (ages.lower, ages.upper, ages.declared, ages.rest) == (0, 120, True, "steps")
    with pytest.raises(DataError, match=r"column 'x': the value 0.5 is no whole number, as you said"):
        found([0.5] * 9 + [1], "integer")
    with pytest.raises(DataError, match=r"value 12 lies outside of 0 to 10, the range .* \(one of 3 such values\)"):
        found([1, 2, 12, 13, 14], "real[0,10]")


def test_all_faults_are_said_at_once():
    rows = np.stack([np.full(30, np.nan), np.arange(30.0), np.arange(30.0)], axis=1)
    told = {"b": read_wish("integer[5,)"), "c": read_wish("boolean")}
    with pytest.raises(
        DataError, match=r"'a': it has no values.*'b': the value 0 lies out.*'c': the value 2 is neither"
    ):
        find_schema(rows, ["a", "b", "c"], told)


def test_atoms_and_bounds_are_those_of_the_training_split():
    values = rng(0).uniform(size=(400, 2))
    order = rng().permutation(400)
    values[order[360:], 0] = 7.0
    column = table(values).schema[0]
    assert (column.lower, column.upper, column.states) == (0.0, None, ())


def test_decimal_steps():
    for decimals in range(6):
        assert decimal_step(rng(1).normal(size=300).round(decimals)) == pytest.approx(10.0**-decimals)
    assert decimal_step(np.arange(1, 300) * 0.25) == 0.25
    assert decimal_step(np.arange(1, 300) * 0.5) == 0.5
    assert decimal_step(np.array([1e14, 0.25])) is None
    assert decimal_step(rng(1).normal(size=300).astype(np.float32).astype(float)) is None


def test_columns_are_described():
    assert kind_of(ColumnSchema(name="a", kind="integer", rest="steps", step=1, given=True)) == "integer, given"
    day = {"kind": "date", "rest": "steps", "step": 1, "unit": "day", "written": "%d.%m.%Y", "lower": 0, "upper": 31}
    for column, said in (
        (found(rain()), "from 0; 0 by itself"),
        (found(np.full(9, 2.5)), "always 2.5"),
        (found(rng(0).integers(0, 3, 90)), "3: 0, 1, 2"),
        (found(rng(0).integers(0, 9, 900)), "9: 0, 1, 2, 3, 4, 5, ..."),
        (found(rng(0).integers(0, 900, 900), "integer[0,)"), "from 0 (declared); whole"),
        (ColumnSchema(name="d", **day), "01.01.1970 to 01.02.1970; in days"),
        (ColumnSchema(name="t", kind="date", rest="steps", step=60, unit="second"), "in steps of 60 seconds"),
        (ColumnSchema(name="b", function=LinearFunction(of=("a",), factors=(2.0,), offset=1.0)), "2 * 'a' + 1"),
        (ColumnSchema(name="b", kind="boolean", states=(0, 1), rest="none"), "2: false, true"),
    ):
        assert values_of(column) == said


def test_a_million_rows_are_looked_at_in_seconds():
    rows = rng(0).normal(size=(200_000, 10))
    rows[:, 1] = np.round(rows[:, 1], 2)
    rows[:, 2] = rng(1).integers(0, 9, len(rows))
    rows[:, 3] = np.maximum(rows[:, 3], 0)
    start = time.process_time()
    schema = find_schema(rows, [str(n) for n in range(10)])
    # A fifth of a million, on a machine that may be ten times slower than this was written on.
    assert time.process_time() - start < 4
    assert [len(column.states) for column in schema[:4]] == [0, 0, 9, 1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_numbers_there_are_a_schema_fits_them(data):
    special = st.sampled_from([0.0, -0.0, 1.0, np.nan, 5e-324, 1e150, -1e150, 0.1, 1e-300, 2.0**53])
    values = st.one_of(special, st.floats(-1e150, 1e150), st.integers(-50, 50).map(float))
    column = np.array(data.draw(st.lists(values, min_size=1, max_size=60)))
    present = column[~np.isnan(column)]
    hypothesis.assume(len(present))
    schema = found(np.repeat(column, data.draw(st.sampled_from([1, 7, 40]))))
    assert schema.missing == (len(present) < len(column))
    low, high = schema.range
    assert ((present >= low) & (present <= high)).all()
    assert values_of(schema)


def test_whole_numbers_have_the_largest_step_of_which_all_are_multiples():
    thousands = 1000.0 * rng(3).integers(20, 200, size=(300, 1))
    assert find_schema(thousands, ["salary"])[0].step == 1000
    assert find_schema(thousands[:19], ["salary"])[0].step == 1
    thousands[7] += 1
    assert find_schema(thousands, ["salary"])[0].step == 1
