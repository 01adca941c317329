"""A small mixed table, and models of it with random weights in which every column depends on those before it."""

import numpy as np
import torch

import likelify as lk
from likelify.distributions import AutoregressiveColumns, Mixture
from likelify.nets import ColumnsNet
from likelify.schema import ColumnSchema, LinearFunction
from likelify.transforms import MixedColumns

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
