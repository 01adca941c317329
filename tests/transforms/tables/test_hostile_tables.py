"""Tables of any columns and values: nothing is NaN, infinite or an error, and what was a row is one again."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify import distributions
from likelify.schema import ColumnSchema
from likelify.transforms import MixedColumns

VALUES = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, -1.0, 7.0, 1e-300, -1e300, 1e300, 1.7e9, 2.0**53, 0.5, math.nan]),
    st.integers(-50, 50).map(float),
    st.floats(-1e12, 1e12),
)
REST = st.sampled_from(["density", "steps", "none"])


@st.composite
def columns(draw, name):
    rest = draw(REST)
    states = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0, -1.0]), unique=True, max_size=3))
    if rest == "none":
        states = states or [0.0]
    low = draw(st.sampled_from([None, -1e301, -10.0, 0.0]))
    high = draw(st.sampled_from([None, 1e301, 3.0, 100.0]))
    step = draw(st.sampled_from([1.0, 0.25, 86400.0])) if rest == "steps" else None
    missing, given = draw(st.booleans()), draw(st.booleans())
    return ColumnSchema(
        name=name, states=tuple(states), rest=rest, step=step, lower=low, upper=high, missing=missing, given=given
    )


@st.composite
def tables(draw):
    count, rows = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    schema = tuple(draw(columns(f"column {number}")) for number in range(count))
    row = st.lists(VALUES, min_size=count, max_size=count)
    values = draw(st.lists(row, min_size=rows, max_size=rows))
    return schema, torch.tensor(values, dtype=torch.float64)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables(), tables())
def test_no_table_is_too_odd(table, other):
    schema, rows = table
    layer = MixedColumns(schema, cells=63)
    layer.initialize(rows)
    new = torch.cat([rows, other[1][:, :1].expand(-1, len(schema))])
    for each in (layer, layer.double()):
        cells, contribution = each(new)
        assert cells.isfinite().all()
        assert contribution.isfinite().all()
        back, again = each.inverse(cells)
        assert not back.isinf().any()
        assert again.isfinite().all()
        known = [column.continuous for column in schema]
        assert ((cells[:, 2] > 0).any(0) <= torch.tensor([column.rest == "steps" for column in schema])).all()
        assert (cells[:, 0] <= torch.tensor([column.other for column in schema])).all()
        states = cells[:, 0] != torch.tensor([-1.0 if number is None else float(number) for number in known])
        other_state = cells[:, 0] == torch.tensor([float(column.other) for column in schema])
        assert torch.equal(back.isnan(), other_state)
        assert torch.equal(back[states & ~other_state], new[states & ~other_state])
        for column, facts in enumerate(schema):
            z, width = each.snap(cells[:, 1, column], column)
            if facts.rest == "steps":
                assert (width > 0).all()
            assert z.isfinite().all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(tables())
def test_models_of_odd_tables(table):
    schema, rows = table
    schema = tuple(column.model_copy(update={"given": False, "missing": True}) for column in schema)
    layer = MixedColumns(schema, cells=63)
    flow = lk.Flow(distributions.AutoregressiveColumns(schema, snap=layer.snap), layer)
    flow.initialize(rows)
    with torch.no_grad(), lk.seeded(0):
        assert flow.log_prob(rows).isfinite().all()
        drawn = flow.sample(20)
        assert not drawn.isinf().any()
        assert not flow.log_prob(drawn).isnan().any()
