"""Models of tables: of columns of every kind, and of real numbers alone."""

import math

import pytest
import torch

from likelify import transforms, zoo
from likelify.distributions import AutoregressiveColumns, Mixture, OfReals
from likelify.errors import ConfigError
from likelify.schema import ColumnSchema, real_columns
from likelify.testing import randomize
from likelify.zoo.table import CouplingConfig, SplineColumnsConfig, TableConfig
from likelify.zoo.table_flow import READERS

SMALL = {"width": 8, "components": 2, "couplings": 2, "hidden": (8,), "bins": 4, "normals": 2}
SETTINGS = {
    "table-flow": SMALL | {"members": ("autoregressive", "splines", "couplings")},
    "table-coupling": {"couplings": 2, "hidden": (8,), "bins": 4},
    "table-spline": {"passes": 2, "width": 8, "bins": 4},
}
MIXED = (
    ColumnSchema.category("colour", ("red", "blue", "grey"), missing=True),
    ColumnSchema(name="age", kind="integer", rest="steps", step=1.0, lower=0.0),
    ColumnSchema(name="paid", states=(0.0,), lower=0.0),
    ColumnSchema(name="height", missing=True),
)


def mixed_rows(count):
    colour = torch.randint(3, (count,)).double()
    age = torch.poisson(20 + 10 * colour)
    paid = torch.where(torch.rand(count) < 0.5, 0.0, torch.randn(count).exp()).double()
    height = torch.where(torch.rand(count) < 0.1, math.nan, 170 + 5 * colour + torch.randn(count))
    return torch.stack([colour, age, paid, height], 1)


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("model", SETTINGS)
def test_tables_of_any_width(model, columns):
    x = torch.randn(200, columns, dtype=torch.float64) * 3 + 1e6
    flow = zoo.build(model, event_shape=columns, **SETTINGS[model])
    flow.initialize(x)
    assert flow.likelihood == "exact"
    assert bool(flow.log_prob(x).isfinite().all())
    drawn = flow.sample((5,))
    assert drawn.shape == (5, columns)
    assert drawn.dtype == torch.float64
    assert bool(((drawn - 1e6).abs() < 1e3).all())


@torch.no_grad()
@pytest.mark.parametrize("mixing", ["lu", "dense-exponential"])
@pytest.mark.parametrize("base", ["normal", "student-t"])
def test_a_coupling_model_starts_as_the_copula(mixing, base):
    x = torch.randn(500, 3, dtype=torch.float64)
    x[:, 1] += 2 * x[:, 0]
    flow = zoo.build("table-coupling", event_shape=3, mixing=mixing, base=base, hidden=(8,))
    flow.initialize(x)
    alone = zoo.build("table-flow", event_shape=3, **SMALL)
    alone.initialize(x)
    linear = next(m for m in alone.base.members if isinstance(m, AutoregressiveColumns) and not list(m.parameters()))
    z, contribution = alone.transform(x)
    assert linear.log_prob(z).shape == contribution.shape
    gain = float((flow.log_prob(x) - torch.distributions.Normal(x.mean(0), x.std(0)).log_prob(x).sum(1)).mean())
    # The mutual information of the two is log(5) / 2.
    assert gain > 0.5


def test_the_default_model_has_columns_of_every_kind():
    x = mixed_rows(300)
    flow = zoo.build("table-flow", schema=MIXED, members=("autoregressive",) * 2, **SMALL)
    flow.initialize(x)
    assert flow.event_shape == (4,)
    assert isinstance(flow.base, Mixture)
    assert len(flow.base.members) == 4
    assert bool(flow.log_prob(x).isfinite().all())
    never = torch.tensor([[math.nan, 1e4, -5.0, math.nan]], dtype=torch.float64)
    assert bool(flow.log_prob(never).isfinite().all())
    drawn = flow.sample((200,))
    assert set(drawn[:, 0][~drawn[:, 0].isnan()].tolist()) <= {0.0, 1.0, 2.0}
    assert bool((drawn[:, 1] == drawn[:, 1].round()).all())
    assert 0.2 < float((drawn[:, 2] == 0).double().mean()) < 0.8


def test_members_differ_in_their_orders_and_settings_hold_them():
    settings = {"event_shape": 6, "members": ("autoregressive",) * 3, **SMALL}
    config = zoo.config_from_dict({"model": "table-flow", **settings})
    assert config.schema == real_columns(6)
    assert zoo.config_from_dict(config.model_dump(mode="json")) == config
    first, again = config.build(), config.build()
    orders = [
        [tuple(member.order) for member in flow.base.members if len(list(member.parameters()))]
        for flow in (first, again)
    ]
    assert len(set(orders[0])) == 3
    assert orders[0] == orders[1]
    other = config.model_copy(update={"order_seed": 5}).build()
    assert tuple(other.base.members[1].order) != orders[0][1]


def test_splines_of_several_passes_have_orders_of_their_own_and_a_copula_in_front_where_asked():
    def layers(**settings):
        (splines,) = zoo.build("table-flow", event_shape=4, members=("splines",), simple=False, **settings).base.members
        return list(splines.base.transform)

    deep = layers(passes=3, copula=False, **SMALL)
    orders = [tuple(layer.order.tolist()) for layer in deep if isinstance(layer, transforms.Permute)]
    assert orders[0] == (0, 1, 2, 3)
    assert len(set(orders)) == len(orders) == 3
    assert not any(isinstance(layer, transforms.LinearPrediction) for layer in deep)
    started = layers(passes=2, **SMALL)
    # Once, behind the order of the first pass.
    assert [isinstance(layer, transforms.LinearPrediction) for layer in started].index(True) == 2
    assert sum(isinstance(layer, transforms.LinearPrediction) for layer in started) == 1


def test_simple_members_can_be_left_out_and_the_mixture_is_for_few_columns():
    kinds = [type(member) for member in zoo.build("table-flow", event_shape=3, simple=False).base.members]
    assert kinds == [AutoregressiveColumns]
    assert OfReals not in [type(member) for member in zoo.build("table-flow", event_shape=65).base.members]
    assert OfReals in [type(member) for member in zoo.build("table-flow", event_shape=64).base.members]


@pytest.mark.parametrize("model", ["table-coupling", "table-spline"])
def test_models_of_real_numbers_refuse_other_columns(model):
    with pytest.raises(ConfigError, match=r"not of columns of words, such as 'colour'; the model table-flow takes"):
        zoo.build(model, schema=MIXED)
    given = (ColumnSchema(name="a"), ColumnSchema(name="b", given=True))
    with pytest.raises(ConfigError, match="of columns that are conditions, such as 'b'"):
        zoo.build(model, schema=given)


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(ConfigError, match="for tables of real numbers alone"):
        zoo.build("table-flow", schema=MIXED, members=("splines",))
    with pytest.raises(ConfigError, match="The schema is of 4 columns, the rows have 3"):
        zoo.build("table-flow", event_shape=3, schema=MIXED)
    with pytest.raises(ConfigError, match="No column is left to be modelled"):
        zoo.build("table-flow", schema=[ColumnSchema(name="a", given=True)])


@torch.no_grad()
def test_a_condition_is_not_modelled():
    schema = (ColumnSchema(name="a"), ColumnSchema(name="b", given=True))
    x = torch.randn(300, 2, dtype=torch.float64)
    x[:, 0] += x[:, 1]
    flow = zoo.build("table-flow", schema=schema, members=("autoregressive",) * 2, **SMALL)
    flow.initialize(x)
    randomize(flow.base.members[0], scale=0.1)
    line = torch.linspace(-15, 15, 1501, dtype=torch.float64)
    rows = torch.stack([line, torch.full_like(line, 0.7)], 1)
    # A density of a for each b.
    assert float(flow.log_prob(rows).double().exp().sum() * 0.02) == pytest.approx(1, abs=0.01)


def test_every_setting_of_members_is_known_to_be_one():
    own = {*CouplingConfig.model_fields, *SplineColumnsConfig.model_fields} - {*TableConfig.model_fields}
    # All members have dropout, and orders.
    assert own - {"dropout", "order_seed"} == READERS.keys()
