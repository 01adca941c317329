"""A small mixed table, and models of it with random weights in which every column depends on those before it."""

import numpy as np
import torch

import likelify as lk
from likelify.data.tables import TableSource
from likelify.distributions import AutoregressiveColumns, Mixture
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.nets import ColumnsNet
from likelify.schema import ColumnSchema, LinearFunction
from likelify.transforms import MixedColumns
from likelify.zoo.registry import ModelConfig, register

SIZE, COLOUR, PRICE, COUNT, TWICE = range(5)
SCHEMA = (
    ColumnSchema(name="size"),
    ColumnSchema.category("colour", ("red", "green", "blue"), missing=True),
    ColumnSchema(name="price", states=(0.0,), missing=True),
    ColumnSchema(name="count", kind="integer", rest="steps", step=1.0, lower=-30.0, upper=30.0),
    ColumnSchema(name="sum", function=LinearFunction(of=("size", "count"), factors=(2.0, -1.0), offset=1.0)),
)
# Orders of the modelled columns.
FORWARD, BACKWARD = (0, 1, 2, 3), (3, 2, 1, 0)


def rows(count=400, seed=0):
    """Return rows of the table."""
    rng = np.random.default_rng(seed)
    size, colour = rng.normal(5, 2, count), rng.integers(0, 3, count).astype(float)
    price = np.where(rng.random(count) < 0.3, 0.0, np.exp(0.3 * size + 0.2 * rng.normal(size=count)))
    number = np.rint(size + colour + rng.normal(size=count))
    for values, share in ((colour, 0.1), (price, 0.15)):
        values[rng.random(count) < share] = np.nan
    return np.column_stack([size, colour, price, number, 2 * size - number + 1])


def member(transform, schema, order, *, net=True, linear=True):
    """Return columns in an order, whose states and scores are steered by a network."""
    net = ColumnsNet(schema, order, hidden=16, components=3) if net else None
    return AutoregressiveColumns(schema, order, net=net, linear=linear, snap=transform.snap)


def model(*orders, schema=SCHEMA, smooth=False):
    """Return a flow that is a mixture of members in some orders, the first weighted least."""
    transform = MixedColumns(schema)
    members = [member(transform, schema, order) for order in orders]
    members += [member(transform, schema, orders[0], net=False, linear=False)] if smooth else []
    with lk.seeded(3):
        base = Mixture(members, apart=True) if len(members) > 1 else members[0]
        flow = lk.Flow(base, transform).double()
        flow.initialize(torch.from_numpy(rows()))
        with torch.no_grad():
            for parameter in base.parameters():
                parameter += 0.25 * torch.randn_like(parameter)
            if len(members) > 1:
                base.log_odds.copy_(torch.arange(len(members)).double() / 2)
    return flow


def chances(flow, row, column, values):
    """Return p(value | all other columns) of one row by the flow's own density, over all values of a column."""
    tried = np.repeat(np.asarray(row)[None], len(values), 0)
    tried[:, column], tried[:, TWICE] = values, np.nan
    with torch.no_grad():
        density = flow.log_prob(torch.from_numpy(tried)).exp().numpy()
    return density / density.sum()


@register("columns-alone", kind="table", summary="columns in their order", listed=False)
class ColumnsAlone(ModelConfig):
    """Columns one after the other, in the order of the table and in the other one."""

    schema: tuple[ColumnSchema, ...]  # pyright: ignore[reportIncompatibleMethodOverride]

    def build(self):
        transform = MixedColumns(self.schema)
        count = transform.gives[-1]
        orders = [tuple(range(count)), tuple(range(count)[::-1])]
        if any(column.given for column in self.schema):
            orders = orders[:1]
        members = [member(transform, self.schema, order) for order in orders]
        members.append(member(transform, self.schema, orders[0], net=False, linear=False))
        return lk.Flow(Mixture(members, apart=True), transform)


LIVED = (
    ColumnSchema(name="size", step=0.01, lower=0.0),
    ColumnSchema.category("sort", ("Cox, red", "Gala", "=Fuji"), missing=True),
    ColumnSchema(name="seeds", kind="integer", states=tuple(map(float, range(8))), rest="none"),
    ColumnSchema(name="day", kind="date", unit="day", rest="steps", step=1.0, written="%d.%m.%Y", missing=True),
    ColumnSchema(name="ripe", kind="boolean", states=(0.0, 1.0), rest="none"),
    ColumnSchema(name="weight", step=0.1, missing=True),
    ColumnSchema(name="both", function=LinearFunction(of=("size", "weight"), factors=(1.0, 1.0), tolerance=0.2)),
)


def apples(count=600, seed=0):
    """Return rows of `LIVED`."""
    rng = np.random.default_rng(seed)
    sort = rng.integers(0, 3, count).astype(float)
    size = np.round(np.abs(rng.normal(5 + sort, 0.7)), 2)
    day = np.rint(20_000 + 30 * size + 10 * rng.normal(size=count))
    weight = np.round(20 * size + rng.normal(size=count), 1)
    for values, share in ((sort, 0.08), (day, 0.1), (weight, 0.1)):
        values[rng.random(count) < share] = np.nan
    seeds, ripe = np.clip(np.rint(size - 2), 0, 7), (size + rng.normal(size=count) > 6).astype(float)
    return np.column_stack([size, sort, seeds, day, ripe, weight, size + weight])


def fitted_run(folder, given=()):
    """Fit a model to the apples."""
    schema = tuple(column.model_copy(update={"given": column.name in given}) for column in LIVED)
    parts = np.split(apples(), [440, 520])
    source = TableSource(
        "apples",
        dict(zip(("train", "validation", "test"), parts, strict=True)),
        columns=[column.name for column in schema],
        schema=schema,
    )
    model = ColumnsAlone(event_shape=(len(schema),), schema=schema)
    settings = FitSettings(steps=60, lr=5e-3, batch_size=64, validations=3, warmup=2)
    run = Run.create(folder, RunConfig(data=source.facts(), model=model, fit=settings))
    with lk.seeded(0):
        flow = model.build()
    fit(flow, source, run=run)
    return run, source
