import math

import pytest
import torch

from likelify.errors import DataError, DomainError
from likelify.schema import ColumnSchema, LinearFunction
from likelify.support import rows_outside_allowed
from likelify.transforms import MixedColumns

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
    rows[0, 1], rows[1, 3], rows[2, 3], rows[3, 1] = 7.0, 2.5, 2.0**60, math.inf
    cells, contribution = layer(rows)
    assert contribution.isfinite().all()
    assert cells[0, 0, 1] == cells[3, 0, 1] == 3
    assert cells[1, 0, 2] == cells[2, 0, 2] == 3
    back, _ = layer.inverse(cells)
    assert back[0, 1].isnan()
    assert back[1, 3].isnan()


def test_functions_are_not_looked_at_where_a_side_is_missing():
    layer, rows = fitted(), table(2)
    rows[0, 0], rows[0, 2] = NAN, 5.0
    rows[1, 0], rows[1, 2] = 7.0, NAN
    cells, contribution = layer(rows)
    assert contribution.isfinite().all()
    back, _ = layer.inverse(cells)
    assert back[0, 2].isnan()
    assert back[1, 2] == 15.0
