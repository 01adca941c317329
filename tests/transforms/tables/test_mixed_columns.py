import copy
import math

import pytest
import torch

from likelify.errors import ConfigError, DataError, DomainError
from likelify.schema import ColumnSchema, LinearFunction
from likelify.support import rows_outside_allowed
from likelify.transforms import MixedColumns
from tests.transforms.host_tables import HostTables

NAN = math.nan

SCHEMA = (
    ColumnSchema(name="income", states=(0.0,), lower=0.0, declared=True, missing=True),
    ColumnSchema.category("colour", ("blue", "red", "green"), missing=True),
    ColumnSchema(name="twice", function=LinearFunction(of=("income",), factors=(2.0,), offset=1.0, tolerance=1e-9)),
    ColumnSchema(name="age", kind="integer", rest="steps", step=1.0, states=(3.0, 18.0), lower=0.0, declared=True),
    ColumnSchema(name="height"),
    ColumnSchema(name="planet", function=LinearFunction(offset=3.0)),
)


def table(count=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    income = torch.where(draw[:, 0] < 0.3, 0.0, -draw[:, 1].log() * 1000)
    income[draw[:, 0] > 0.9] = NAN
    colour = (draw[:, 2] * 3).floor()
    colour[draw[:, 3] > 0.95] = NAN
    age = torch.where(draw[:, 4] < 0.1, 18.0, (draw[:, 4] * 40).floor())
    height = 1.7 + 0.1 * torch.special.ndtri(draw[:, 5])
    return torch.stack([income, colour, 2 * income + 1, age, height, torch.full_like(height, 3.0)], 1)


def fitted(schema=SCHEMA, rows=None, dtype=torch.float64):
    layer = MixedColumns(schema).to(dtype)
    layer.initialize(table() if rows is None else rows)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_become_cells_and_cells_rows(dtype):
    rows, layer = table(), fitted(dtype=dtype)
    cells, contribution = layer(rows)
    assert cells.shape == (300, 3, 4)
    assert cells.dtype == contribution.dtype == dtype
    back, other = layer.inverse(cells)
    assert back.dtype == torch.float64
    torch.testing.assert_close(back, rows, rtol=1e-4, atol=1e-4, equal_nan=True)
    exact = (0, 1, 3, 5) if dtype is torch.float64 else (1, 3, 5)
    for column in exact:
        torch.testing.assert_close(back[:, column], rows[:, column], rtol=1e-9, atol=1e-9, equal_nan=True)
    torch.testing.assert_close(contribution.double(), -other, rtol=1e-4, atol=1e-4)


def test_states_are_numbered_as_the_schema_says():
    cells = fitted()(table())[0]
    income, colour, age = table()[:, 0], table()[:, 1], table()[:, 3]
    assert torch.equal(cells[:, 0, 0], torch.where(income.isnan(), 2.0, (income != 0).double()))
    assert torch.equal(cells[:, 0, 1], colour.nan_to_num(3.0))
    expected = torch.full_like(age, 2.0)
    expected[age == 3], expected[age == 18] = 0.0, 1.0
    assert torch.equal(cells[:, 0, 2], expected)
    continuous = cells[:, 0] == torch.tensor([1.0, -1.0, 2.0, 0.0])
    assert (cells[:, 1][~continuous] == 0).all()
    assert (cells[:, 2][~continuous] == 0).all()
    assert (cells[:, 2, 2][continuous[:, 2]] > 0).all()
    assert (cells[:, 2, [0, 1, 3]] == 0).all()


def test_neighbouring_values_have_neighbouring_cells_over_the_gaps_of_states():
    ages = torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, 17.0, 19.0, 20.0, 300.0], dtype=torch.float64)
    rows = table(len(ages))
    rows[:, 3] = ages
    cells, _ = fitted()(rows)
    z, width = cells[:, 1, 2], cells[:, 2, 2]
    for left, right in [(0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (6, 7)]:
        assert float(z[left] + width[left] / 2) == pytest.approx(float(z[right] - width[right] / 2), abs=1e-12)
    assert float(z[4] + width[4] / 2) < float(z[5] - width[5] / 2)


def test_snap_gives_the_cell_in_which_a_score_lies():
    layer, rows = fitted(), table()
    cells, _ = layer(rows)
    steps = cells[cells[:, 0, 2] == 2]
    for share in (-0.49, 0.0, 0.49):
        z, width = layer.snap(steps[:, 1, 2] + share * steps[:, 2, 2], 2)
        torch.testing.assert_close(z, steps[:, 1, 2])
        torch.testing.assert_close(width, steps[:, 2, 2])
    z = torch.linspace(-12, 12, 50, dtype=torch.float64)
    found, width = layer.snap(z, 0)
    assert torch.equal(found, z)
    assert not width.any()
    assert not layer.snap(z, 1)[1].any()
    far, width = layer.snap(z, 2)
    assert (width > 0).all()
    assert far.isfinite().all()


def test_what_no_column_can_have():
    layer, rows = fitted(), table(8)
    rows[0, 0] = -1.0
    rows[0, 2] = -1.0
    rows[1, 2] += 1.0
    rows[2, 3] = -1.0
    rows[3, 5] = 4.0
    rows[4, 4] = math.inf
    with pytest.raises(DomainError, match="what their columns can have"):
        layer(rows)
    with rows_outside_allowed():
        cells, contribution = layer(rows)
    assert cells.isfinite().all()
    assert (contribution[:5] == -math.inf).all()
    assert contribution[5:].isfinite().all()
    with pytest.raises(DataError, match="In row 0.* of 'income' lies outside of its range"):
        fitted(rows=rows)
    with pytest.raises(DataError, match="In row 3.* of 'planet' is not what its function"):
        fitted(rows=torch.cat([table(3), rows[3:4]]))


def test_what_was_never_seen_is_other():
    layer, rows = fitted(), table(5)
    rows[0, 1], rows[1, 3], rows[2, 3], rows[3, 1] = 7.0, NAN, 2.0**60, math.inf
    rows[4, 3] = 30.5
    with rows_outside_allowed():
        cells, contribution = layer(rows)
    assert contribution[:3].isfinite().all()
    assert (contribution[3:] == -math.inf).all()
    assert cells[0, 0, 1] == cells[3, 0, 1] == 3
    assert cells[1, 0, 2] == cells[2, 0, 2] == cells[4, 0, 2] == 3
    back, _ = layer.inverse(cells)
    assert back[0, 1].isnan()
    assert back[1, 3].isnan()
    assert back[2, 3].isnan()
    with pytest.raises(DataError, match="of 'age' is no whole number"):
        fitted(rows=torch.cat([table(3), rows[4:]]))


def test_functions_are_not_looked_at_where_a_side_is_missing():
    layer, rows = fitted(), table(2)
    rows[0, 0], rows[0, 2] = NAN, 5.0
    rows[1, 0], rows[1, 2] = 7.0, NAN
    cells, contribution = layer(rows)
    assert contribution.isfinite().all()
    back, _ = layer.inverse(cells)
    assert back[0, 2].isnan()
    assert back[1, 2] == 15.0


def test_conditions_contribute_nothing():
    given = tuple(column.model_copy(update={"given": column.name != "height"}) for column in SCHEMA)
    rows = table()
    free, conditional = fitted(), fitted(given)
    assert torch.equal(free(rows)[0], conditional(rows)[0])
    alone = fitted(SCHEMA[4:5], rows[:, 4:5])(rows[:, 4:5])[1]
    torch.testing.assert_close(conditional(rows)[1], alone)
    torch.testing.assert_close(conditional.inverse(conditional(rows)[0])[1], -alone)
    # A condition may be anything: it has no probability here.
    rows[:, 0], rows[:, 2] = -5.0, 7.0
    cells, contribution = conditional(rows)
    assert cells.isfinite().all()
    torch.testing.assert_close(contribution, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_fitted_is_kept(dtype):
    layer, rows = fitted(dtype=dtype), table(50, seed=1)
    cells, contribution = layer(rows)
    other = MixedColumns(SCHEMA).to(dtype)
    other.load_state_dict(layer.state_dict())
    for each in (other, copy.deepcopy(layer)):
        assert torch.equal(each(rows)[0], cells)
        assert torch.equal(each(rows)[1], contribution)
        torch.testing.assert_close(each.inverse(cells)[0], layer.inverse(cells)[0], rtol=0, atol=0, equal_nan=True)
    # Rows in single precision are those that the states become in it.
    atoms = (ColumnSchema(name="tenth", states=(0.1,)),)
    narrow = fitted(atoms, torch.tensor([[0.1], [0.2], [0.3]], dtype=torch.float64), dtype)
    assert narrow(torch.tensor([[0.1], [0.2]]))[0][:, 0, 0].tolist() == [0.0, 1.0]


def test_columns_without_a_value_in_the_sample():
    schema = (
        ColumnSchema(name="atoms", states=(0.0, 5.0)),
        ColumnSchema(name="nothing", missing=True),
        ColumnSchema(name="few", kind="integer", rest="steps", step=1.0, states=(0.0, 1.0), lower=0.0, upper=1.0),
    )
    rows = torch.tensor([[0.0, NAN, 0.0], [5.0, NAN, 1.0]], dtype=torch.float64)
    layer = fitted(schema, rows)
    new = torch.tensor([[1.0, 7.0, 5.0], [-1e300, 1e300, -3.0]], dtype=torch.float64)
    cells, contribution = layer(new)
    assert cells.isfinite().all()
    assert contribution.isfinite().all()
    assert (cells[:, 2, 2] > 0).all()


def test_a_table_of_any_kinds_in_any_order():
    order = (3, 5, 0, 4, 2, 1)
    schema = tuple(SCHEMA[place] for place in order)
    rows = table()
    cells, contribution = fitted()(rows)
    other, same = fitted(schema, rows[:, order])(rows[:, order])
    torch.testing.assert_close(same, contribution)
    torch.testing.assert_close(other, cells[:, :, [2, 0, 3, 1]])


def test_whole_numbers_too_large_for_their_cells_to_be_seen():
    schema = (ColumnSchema(name="id", kind="integer", rest="steps", step=1.0),)
    x = torch.tensor([[1e15 + k] for k in range(50)] + [[-1e15]], dtype=torch.float64)
    layer = fitted(schema, x)
    new = torch.tensor([[1e15], [9e15], [-9e15], [2.0**52]], dtype=torch.float64)
    cells, _ = layer(new)
    assert (cells[:, 2, 0] > 0).all()
    assert (cells[:, 0, 0] == 0).all()


def test_a_table_that_is_refused():
    loop = (
        ColumnSchema(name="a", function=LinearFunction(of=("b",), factors=(1.0,))),
        ColumnSchema(name="b", function=LinearFunction(of=("a",), factors=(1.0,))),
        ColumnSchema(name="c"),
    )
    with pytest.raises(ConfigError, match="'a', 'b' are functions of one another"):
        MixedColumns(loop)
    with pytest.raises(ConfigError, match="no source of the column 'a' 'hight'. Did you mean 'height'"):
        MixedColumns((ColumnSchema(name="a", function=LinearFunction(of=("hight",), factors=(1.0,))), SCHEMA[4]))
    few = {"kind": "integer", "rest": "steps", "step": 1.0, "states": (0.0, 1.0), "lower": 0.0, "upper": 1.0}
    with pytest.raises(ConfigError, match="All multiples of 1 in the range of 'few' are states"):
        MixedColumns((ColumnSchema(name="few", declared=True, **few),))
    with pytest.raises(ConfigError, match="nothing to model"):
        MixedColumns(SCHEMA[5:])
    with pytest.raises(DataError, match="empty sample"):
        MixedColumns(SCHEMA).initialize(table(0))


def test_nothing_is_made_on_the_host_by_a_call():
    rows, layer = table(), fitted()
    with HostTables() as tables:
        rows[:, [0, 1]]
    assert tables.made == 1
    with HostTables() as tables, torch.no_grad():
        cells, _ = layer(rows)
        layer.inverse(cells)
        layer.shares(rows)
    assert not tables.made
    assert not [name for name in layer.state_dict() if name.endswith("_at")]
