import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import ArraySource, open_source, table
from likelify.data.screening import dependent_columns, rounded_columns
from likelify.errors import DataError

RNG = np.random.default_rng(0)


def said(values, names=None):
    return [str(each) for each in dependent_columns(table(values, columns=names))]


def test_a_multiple_is_named_with_its_factor():
    x = RNG.normal(size=400)
    assert said(np.stack([x, 2 * x], 1), ["x", "double"]) == ["'double' is 2 * 'x'"]
    celsius = x.round(1)
    values = np.stack([celsius, RNG.normal(size=400), 1.8 * celsius + 32], 1)
    assert said(values, ["celsius", "wind", "fahrenheit"]) == ["'fahrenheit' is 1.8 * 'celsius' + 32"]


def test_sums_shares_and_codes_are_named():
    values = RNG.gamma(2, size=(500, 6))
    total = np.concatenate([values, values.sum(1, keepdims=True)], 1)
    (one,) = dependent_columns(table(total))
    assert one.column == "column 7"
    assert one.of == tuple(f"column {n}" for n in range(1, 7))
    assert str(one).startswith("'column 7' follows from 'column 1', 'column 2'")
    shares = values[:, :3] / values[:, :3].sum(1, keepdims=True)
    assert said(shares, ["a", "b", "c"]) == ["'c' is -1 * 'a' - 1 * 'b' + 1"]
    codes = np.column_stack([np.eye(4)[RNG.integers(0, 4, 500)], values[:, 0]])
    # Of nothing but the codes there are four different rows, of which every column follows from three others.
    assert dependent_columns(table(codes[:, :4])) == []
    assert [each.column for each in dependent_columns(table(codes))] == ["column 4"]
    two = np.stack([values[:, 0], values[:, 0], values[:, 1], 3 - values[:, 0] + 4 * values[:, 1]], 1)
    assert said(two, list("abcd")) == ["'b' is 1 * 'a'", "'d' is -1 * 'a' + 4 * 'c' + 3"]


@pytest.mark.parametrize("shift", [0.0, 1e6, -3e9])
@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e30])
def test_units_and_offsets_do_not_matter(shift, unit):
    x, y = RNG.normal(size=(2, 400))
    values = (np.stack([x, y, x + y + 1e-4 * RNG.normal(size=400), x - y], 1) + shift) * unit
    found = dependent_columns(table(values, columns=list("abcd")))
    assert [(each.column, each.of) for each in found] == [("d", ("a", "b"))]


def test_a_float32_copy_and_what_only_looks_dependent_in_the_sample():
    x = RNG.normal(size=3000).astype(np.float32)
    assert len(said(np.stack([x, np.float32(0.3) * x], 1))) == 1
    differs = np.stack([x, 2 * x], 1).astype(float)
    differs[2000:, 1] += 0.01
    assert said(differs) == []


def in_order(rows):
    return ArraySource("rows", {"train": rows, "validation": rows[:9]}, kind="table", levels=None)


def test_rows_in_an_order_are_looked_at_everywhere():
    # Two sensors were not there yet at first, when one cannot be told from the other.
    x, y, z = RNG.normal(size=(3, 5000))
    y[:1500], z[:1500] = 0, 0
    found = dependent_columns(in_order(np.stack([x, y, z, x + 2 * y - z], 1)))
    assert [str(each) for each in found] == ["'column 4' is 1 * 'column 1' + 2 * 'column 2' - 1 * 'column 3'"]


def test_times_in_an_order_are_looked_at_everywhere():
    # The clock starts at zero, where float32 has digits enough.
    clock = np.concatenate([np.linspace(0, 10, 1500), 1.7e9 + np.linspace(0, 100, 3500)])
    source = in_order(np.stack([RNG.normal(size=5000), clock], 1))
    assert rounded_columns(source, torch.float32) == ["column 2"]


@pytest.mark.parametrize("noise", [1e-4, 1e-3])
def test_strong_correlation_is_no_dependence(noise):
    x = RNG.normal(size=(800, 5))
    assert said(np.concatenate([x, x @ RNG.normal(size=(5, 3)) + noise * RNG.normal(size=(800, 3))], 1)) == []


def test_sources_of_the_house_have_none():
    for name in ("iris", "wine", "breast-cancer", "linnerud"):
        assert dependent_columns(open_source(name)) == []
    assert dependent_columns(open_source("digits")) == []


def test_few_rows_and_many_columns_take_few_fits(fits):
    assert said(RNG.normal(size=(12, 30))) == []
    assert fits == []
    values = RNG.normal(size=(2000, 300))
    values[:, 299] = values[:, :3].sum(1)
    assert [each.of for each in dependent_columns(table(values))] == [("column 1", "column 2", "column 3")]
    # Halving finds the fewest of 299 columns in nine steps.
    assert 0 < len(fits) <= 2 + 9


def test_a_constant_column_of_another_source():
    rows = np.stack([RNG.normal(size=50), np.full(50, 3.0)], 1)
    source = ArraySource("a", {"train": rows, "validation": rows}, kind="table", levels=None)
    assert [str(each) for each in dependent_columns(source)] == ["'column 2' is 3 in every row"]


@pytest.mark.parametrize(
    ("column", "named"),
    [
        (1.7e9 + 100 * RNG.normal(size=500), True),
        (1.0 + 1e-5 * RNG.normal(size=500), True),
        (1.0 + 1e-3 * RNG.normal(size=500), False),
        (RNG.integers(0, 1000, 500).astype(float), False),
        (1e-60 * RNG.normal(size=500), True),
        (1e30 * RNG.normal(size=500), False),
        (RNG.normal(size=500) * 1e-9 + RNG.integers(0, 2, 500), True),
        (RNG.normal(size=500), False),
    ],
)
def test_columns_that_float32_rounds_away(column, named):
    source = table(np.stack([RNG.normal(size=500), column], 1), columns=["plain", "time"])
    assert rounded_columns(source, torch.float32) == (["time"] if named else [])
    assert rounded_columns(source, torch.float64) == []


def test_columns_of_a_table_are_asked_of_tables_only():
    assert rounded_columns(open_source("digits"), torch.float32) == []
    assert lk.data.open_source("iris").kind == "table"
    assert rounded_columns(open_source("iris"), torch.float32) == []


def test_values_of_sequences_that_follow_from_earlier_ones():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2, 5))
    assert dependent_columns(lk.data.as_source(x)) == []
    x[:, 0, 3] = 7
    x[:, 1, 4] = 2 * x[:, 0, 4] - x[:, 1, 0]
    source = lk.data.as_source(x)
    constant, sum_ = dependent_columns(source)
    assert (constant.column, constant.of, constant.offset) == ("channel 1, time 4", (), 7)
    assert (sum_.column, sorted(sum_.of)) == ("channel 2, time 5", ["channel 1, time 5", "channel 2, time 1"])
    flow = lk.zoo.build("series", event_shape=(2, 5), hidden=4, steps=1)
    with pytest.raises(DataError, match=r"values that follow from others, so its sequences have no density.*--levels"):
        lk.fit(flow, source, steps=1)
