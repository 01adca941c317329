"""Mixed tables as densities: total mass by enumeration and quadrature, units, draws."""

import math

import pytest
import torch

import likelify as lk
from likelify import distributions, nets, testing
from likelify.schema import ColumnSchema, LinearFunction
from likelify.transforms import MixedColumns

NAN = math.nan
SCHEMA = (
    ColumnSchema(name="money", states=(0.0,), lower=0.0, declared=True, missing=True),
    ColumnSchema.category("colour", ("blue", "red")),
    ColumnSchema(name="double", function=LinearFunction(of=("money",), factors=(2.0,), tolerance=1e-6)),
    ColumnSchema(
        name="rooms", kind="integer", rest="steps", step=2.0, states=(4.0,), lower=0.0, upper=12.0, declared=True
    ),
)


def table(count, seed=0):
    u = torch.rand(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    money = torch.where(u[:, 0] < 0.3, 0.0, -100 * u[:, 1].log())
    colour = (2 * u[:, 2]).floor()
    rooms = 2 * (6 * u[:, 3] * u[:, 4] + colour).round().clamp_max(6)
    money[u[:, 4] > 0.9] = NAN
    return torch.stack([money, colour, 2 * money, rooms], 1)


class Independent(distributions.Distribution):
    """States with probabilities, and scores with normal densities or intervals of them."""

    has_atoms = True
    event_shape = (3, 3)

    def __init__(self):
        super().__init__()
        self.odds = torch.randn(3, 3, dtype=torch.float64)
        self.register_buffer("scale", torch.tensor([0.7, 1.0, 1.3], dtype=torch.float64))
        self.register_buffer("loc", torch.tensor([0.4, 0.0, -0.3], dtype=torch.float64))

    def log_prob(self, x, context=None):
        state, z, width = x.unbind(1)
        odds = self.odds.log_softmax(1)
        states = odds.expand(len(x), 3, 3).gather(2, state.long()[:, :, None])[:, :, 0]
        law = torch.distributions.Normal(self.loc, self.scale)
        mass = (law.cdf(z + width / 2) - law.cdf(z - width / 2)).log()
        score = torch.where(width > 0, mass, law.log_prob(z))
        continuous = state == torch.tensor([1.0, -1.0, 1.0])
        return (states + torch.where(continuous, score, 0.0)).sum(1)


def nodes(marginal):
    """Values and weights of a quadrature over one column with a hard lower end."""
    low, high = marginal.ends[0].tolist()
    edges = torch.linspace(low, high, marginal.cells + 1, dtype=torch.float64)
    far = high + torch.logspace(-5, math.log10(200), 500, dtype=torch.float64)
    # Towards the end of the range the score is minus infinity, so pieces become short.
    near = low + (edges[1] - low) * 2.0 ** torch.arange(-40, 0, dtype=torch.float64)
    edges = torch.cat([edges[:1], near, edges[1:], far])
    middle, half = (edges[1:] + edges[:-1]) / 2, edges.diff() / 2
    # Two points of Gauss and Legendre on each piece, since the density is smooth in pieces.
    a = torch.cat([middle - half / math.sqrt(3), middle + half / math.sqrt(3)])
    x = marginal.center + marginal.unit * a.sinh()
    return x, torch.cat([half, half]) * marginal.unit * a.cosh()


def everything(layer):
    """All rows that there are, on the nodes of a quadrature where there are too many, and their weights."""
    money, weight = nodes(layer.densities)
    money = torch.cat([torch.tensor([0.0, NAN]), money])
    weight = torch.cat([torch.ones(2), weight])
    # Among them a colour that was never seen, and rooms between the steps.
    colours = torch.tensor([0.0, 1.0, NAN, -1.0], dtype=torch.float64)
    rooms = torch.tensor([*range(13), NAN], dtype=torch.float64)
    places = torch.cartesian_prod(*(torch.arange(len(each)) for each in (money, colours, rooms)))
    rows = [money[places[:, 0]], colours[places[:, 1]], 2 * money[places[:, 0]], rooms[places[:, 2]]]
    return torch.stack(rows, 1), weight[places[:, 0]]


def total(flow):
    rows, weight = everything(flow.transform)
    with torch.no_grad():
        return float((flow.log_prob(rows).exp() * weight).sum())


def flow_of(base, schema=SCHEMA, cells=63, rows=400):
    layer = MixedColumns(schema, cells=cells).double()
    layer.initialize(table(rows))
    return lk.Flow(base, layer)


@pytest.fixture(autouse=True)
def _seed():
    with lk.seeded(0):
        yield


def test_the_mass_of_independent_columns_is_one():
    base = Independent().double()
    assert total(flow_of(base)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_the_mass_of_an_autoregressive_model_is_one(order):
    net = nets.ColumnsNet(SCHEMA, order, hidden=8, layers=1, components=2)
    base = distributions.AutoregressiveColumns(SCHEMA, net=net)
    testing.randomize(base, scale=0.3)
    assert total(flow_of(base.double())) == pytest.approx(1, abs=1e-3)


def test_other_units_change_log_p_by_their_jacobian():
    def scored(factor, shift, step):
        money = ColumnSchema(name="money", states=(shift,), lower=shift, declared=True, missing=True)
        function = LinearFunction(of=("money",), factors=(2.0,), tolerance=1e-3 * factor)
        rooms = SCHEMA[3].model_copy(update={"step": step, "states": (2 * step,), "upper": 6 * step})
        schema = (money, SCHEMA[1], ColumnSchema(name="double", function=function), rooms)
        layer = MixedColumns(schema).double()
        x, new = table(500), table(200, seed=1)
        for rows in (x, new):
            rows[:, 0] = factor * rows[:, 0] + shift
            rows[:, 2] = 2 * rows[:, 0]
            rows[:, 3] = step * (rows[:, 3] / 2)
        base = distributions.AutoregressiveColumns(schema)
        flow = lk.Flow(base.double(), layer)
        flow.initialize(x)
        with torch.no_grad():
            return flow.log_prob(new)

    before = scored(1.0, 0.0, 2.0)
    has_density = (table(200, seed=1)[:, 0] > 0).double()
    for factor, shift, step in ((1e-6, 0.0, 1.0), (1.8, 32.0, 60.0)):
        after = scored(factor, shift, step)
        torch.testing.assert_close(after + has_density * math.log(factor), before, rtol=0, atol=1e-8)


def test_draws_follow_the_table():
    rows = table(3000)
    layer = MixedColumns(SCHEMA).double()
    base = distributions.AutoregressiveColumns(SCHEMA, linear=False, snap=layer.snap).double()
    flow = lk.Flow(base, layer)
    flow.initialize(rows)
    with torch.no_grad():
        drawn = flow.sample(3000)
        assert flow.log_prob(drawn).isfinite().all()
    for column in range(4):
        real, made = (each[:, column].nan_to_num(-1.0) for each in (rows, drawn))
        at = torch.cat([real, made]).unique()
        below = [torch.searchsorted(each.sort().values, at, right=True) / 3000 for each in (real, made)]
        # Kolmogorov and Smirnov: the critical value of one in ten thousand.
        assert float((below[0] - below[1]).abs().max()) < 2.23 * math.sqrt(2 / 3000)
    torch.testing.assert_close(drawn[:, 2], 2 * drawn[:, 0], equal_nan=True)
    assert set(drawn[:, 3].nan_to_num(-1.0).tolist()) <= {-1.0, *range(0, 13, 2)}


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 6.0), (0.0, 1.0), (-2.0, 30.0)])
def test_no_mass_of_steps_is_lost_beyond_the_outermost_cells(lower, upper):
    count = ColumnSchema(name="n", kind="integer", rest="steps", step=1.0, lower=lower, upper=upper, declared=True)
    values = torch.arange(lower, upper + 1, dtype=torch.float64)
    layer = MixedColumns((count,)).double()
    layer.initialize(values[:, None].repeat(20, 1))
    base = distributions.AutoregressiveColumns((count,), linear=False, snap=layer.snap).double()
    # Scores that are far wider than those of data, as an odd network may think.
    for loc, log_scale in ((0.0, 2.0), (20.0, 1.0), (-12.0, 0.0)):
        with torch.no_grad():
            base.offset.fill_(loc)
            base.log_scale.fill_(log_scale)
            flow = lk.Flow(base, layer)
            # What is missing, which may not be, has a probability, too.
            mass = flow.log_prob(torch.cat([values, torch.tensor([NAN])])[:, None]).exp().sum()
            assert float(mass) == pytest.approx(1, abs=1e-5)
            drawn = flow.sample(200)
        assert lower <= float(drawn.min())
        assert float(drawn.max()) <= upper
        assert flow.log_prob(drawn).isfinite().all()


def test_the_last_whole_numbers_that_can_be_told_apart_have_the_cells_of_what_is_beyond():
    count = ColumnSchema(name="n", kind="integer", rest="steps", step=1.0, lower=0.0, states=(0.0, 5.0))
    layer = MixedColumns((count,)).double()
    layer.initialize(torch.arange(50, dtype=torch.float64)[:, None])
    ends = torch.tensor([1 - 2.0**53, 2.0**53 - 1], dtype=torch.float64)[:, None]
    _, z, width = layer(ends)[0].unbind(1)
    assert float((z - width / 2)[0]) == -40
    assert float((z + width / 2)[1]) == 40
    _, z, width = layer(ends.sign() * (ends.abs() - 1))[0].unbind(1)
    assert float((z.abs() + width / 2).max()) < 12
