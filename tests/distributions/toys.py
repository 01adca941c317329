"""Small tables of cells."""

import torch

from likelify import distributions, nets, testing
from likelify.schema import ColumnSchema

STEP = 0.25
MIXED = (
    ColumnSchema(name="size"),
    ColumnSchema.category("colour", ("red", "green", "blue")),
    ColumnSchema(name="price", states=(0.0,), missing=True),
    ColumnSchema(name="count", kind="integer", rest="steps", step=1.0),
)
# Orders that put the colour, the steps or the price first.
ORDERS = [(0, 1, 2, 3), (1, 3, 0, 2), (3, 2, 1, 0)]


def snap(z, column):
    """Return the steps of a column whose scores are multiples of a quarter."""
    return torch.round(z / STEP) * STEP, torch.full_like(z, STEP)


def mixed_cells(rows, dtype=torch.float64):
    """Draw cells of the mixed table, whose columns depend on one another."""
    size = torch.randn(rows, dtype=dtype)
    colour = (size + torch.randn(rows, dtype=dtype) > 0).to(dtype) + (torch.rand(rows) < 0.3).to(dtype)
    kind = (torch.rand(rows) * 3).floor().to(dtype)
    price = torch.where(kind == 1, 0.8 * size + 0.3 * colour + 0.5 * torch.randn(rows, dtype=dtype), 0)
    count, width = snap(0.5 * size + torch.randn(rows, dtype=dtype), 3)
    nothing = torch.zeros_like(size)
    state = torch.stack([nothing, colour, kind, nothing], 1)
    z = torch.stack([size, nothing, price, count], 1)
    return torch.stack([state, z, torch.stack([nothing, nothing, nothing, width], 1)], 1)


def columns(schema=MIXED, order=None, *, net=True, linear=True, spread=0.5, dtype=torch.float64, **settings):
    """Return autoregressive columns whose weights are random, so that everything depends on everything before it."""
    net = nets.ColumnsNet(schema, order, hidden=12, components=3, **settings) if net else None
    found = distributions.AutoregressiveColumns(schema, order, net=net, linear=linear, snap=snap).to(dtype)
    testing.randomize(found, scale=spread)
    with torch.no_grad():
        for buffer in (found.offset, found.log_scale, found.log_odds, *([found.matrix] if linear else [])):
            buffer.copy_(spread * torch.randn_like(buffer))
    return found
