"""Total mass: exact kinds integrate to one, weights of bounds average to one, what a bound promises to at most one."""

import pytest
import torch

import likelify as lk
from likelify import nets, testing, transforms

NET = nets.density_nets(0, hidden=4)
LINE = nets.density_nets(1, hidden=4)

# What maps one or two numbers: (layer, event, half the side of the box).
EXACT = {
    "linear keeps": (lambda: lk.linear(2, 2), (2,), 9),
    "linear reduces": (lambda: lk.linear(2, 1, net_factory=NET), (2,), 9),
    "linear reduces, householder": (lambda: lk.linear(2, 1, net_factory=NET, method="householder"), (2,), 9),
    "free linear reduces": (lambda: lk.linear(2, 1, net_factory=NET, method="free"), (2,), 9),
    "sum": (lambda: transforms.Sum(1, 2, net_factory=NET), (2,), 12),
    "crop": (lambda: transforms.Crop((1, 2), ((0, 1),), net_factory=LINE), (1, 2), 12),
    "unread pixels": (lambda: transforms.Unfold((1, 2), 1, stride=2, net_factory=LINE), (1, 2), 12),
    "disjoint convolution": (lambda: lk.convolution((1, 2), 1, 2, stride=2, net_factory=LINE), (1, 2), 9),
    "circular convolution": (lambda: transforms.CircularConv(1, 1, 3, dims=1), (1, 2), 12),
    "average pooling": (lambda: transforms.average_pool((1, 2), 2, net_factory=LINE), (1, 2), 12),
    "perceptron": (
        lambda: lk.Chain(
            [lk.linear(2, 2), transforms.SharedSpline(bins=4), lk.LeakyReLU(0.3), lk.linear(2, 1, net_factory=NET)]
        ),
        (2,),
        12,
    ),
}
BOUNDS = {
    "augment": (lambda: lk.linear(1, 2), (1,), 9),
    "learned noise": (lambda: lk.linear(1, 2, posterior_factory=NET), (1,), 9),
    "pad": (lambda: transforms.Pad((1, 1), ((1, 1),)), (1, 1), 9),
    "repeat": (lambda: transforms.Repeat(1, 2), (1,), 9),
    "residual": (lambda: lk.residual(lk.linear(1, 1), (1,), net_factory=NET), (1,), 12),
    "concatenation": (lambda: lk.concat([None, lk.linear(1, 1)], (1,)), (1,), 12),
    "overlapping convolution": (lambda: lk.convolution((1, 2), 1, 2, padding=1, net_factory=LINE), (1, 2), 9),
    "transposed convolution": (lambda: transforms.transposed_convolution((1, 1), 1, 2, stride=3), (1, 1), 12),
    "network": (
        lambda: lk.Chain([lk.linear(1, 2), lk.LeakyReLU(0.4), lk.residual(lk.linear(2, 2), (2,)), lk.linear(2, 1)]),
        (1,),
        14,
    ),
}


def _flow(build, event):
    torch.manual_seed(0)
    layer = testing.randomize(build().double(), scale=0.2)
    return lk.Flow(lk.Normal(layer.out_shape(event)).double(), layer)


@pytest.mark.parametrize("name", EXACT)
def test_exact_kinds_integrate_to_one(name):
    build, event, reach = EXACT[name]
    flow = _flow(build, event)
    assert flow.likelihood == "exact"
    testing.check_mass(flow, -reach, reach, 260, event_shape=event)


@pytest.mark.parametrize("name", BOUNDS)
def test_weights_of_bounds_average_to_one(name):
    build, event, reach = BOUNDS[name]
    flow = _flow(build, event)
    assert flow.likelihood == "bound"
    two = event == (1, 2)
    testing.check_mass(flow, -reach, reach, 60 if two else 600, event_shape=event, draws=60 if two else 150)
