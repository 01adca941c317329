"""Models of point sets: continuous, canonical and autoregressive ones, in the units of the data."""

import math

import pytest
import torch

import likelify as lk
from likelify import testing, transforms, zoo
from likelify.data import open_source
from likelify.errors import ConfigError
from likelify.fitting import choose

GRAPHS = lk.Context(structure=lk.GraphBatch.complete([3] * 20))
FLOW = {"width": 8, "heads": 2, "frequencies": 1, "solver_steps": 2}
SETTINGS = {
    "point-flow": FLOW,
    "point-flow rotations": {"symmetry": "rotations", "width": 4, "bumps": 4, "solver_steps": 2},
    "set-canonical": {"nodes": 3, "couplings": 2, "hidden": (4,), "bins": 4},
    "set-canonical angle": {"nodes": 3, "couplings": 0, "bins": 4, "order": "angle"},
    "set-autoregressive": {"width": 8, "heads": 2, "frequencies": 1, "components": 2},
    "set-autoregressive feature": {"width": 8, "heads": 2, "frequencies": 0, "components": 2, "order": "feature"},
}


def points():
    return 100 * torch.randn(60, 2, dtype=torch.float64) + 500


def built(name, x, **more):
    flow = zoo.build(name.split()[0], event_shape=2, **SETTINGS[name] | more).double()
    flow.initialize(x, GRAPHS)
    return testing.randomize(flow, scale=0.02)


@pytest.mark.parametrize("name", SETTINGS)
def test_likelihoods_are_in_the_units_of_the_data_and_draws_look_like_them(name):
    x = points()
    with lk.seeded(0):
        flow = built(name, x)
        found = flow.elbo(x, GRAPHS).value
    with lk.seeded(0):
        other = built(name, x / 100)
        scaled = other.elbo(x / 100, GRAPHS).value
    torch.testing.assert_close(found, scaled - 6 * math.log(100), atol=1e-3, rtol=0)
    drawn = flow.sample((), GRAPHS)
    assert drawn.shape == x.shape
    assert 300 < float(drawn.mean()) < 700
    assert flow.likelihood == ("exact" if name.startswith("point") else "bound")


@pytest.mark.parametrize("name", ["point-flow", "point-flow rotations"])
def test_densities_know_no_order(name):
    x = points()
    flow = built(name, x)
    testing.check_permutation_equivariance(flow, x, GRAPHS, tol=1e-9)


@pytest.mark.parametrize("name", ["point-flow", "point-flow rotations", "set-autoregressive"])
def test_classes_are_those_of_graphs(name):
    flow = zoo.build(name.split()[0], event_shape=2, classes=3, **SETTINGS[name])
    flow = testing.randomize(flow.double(), scale=0.3)
    graphs = lk.GraphBatch.complete([2, 3])
    x, found = points()[:5] / 100 - 5, []
    for label in (0, 2):
        with lk.seeded(0):
            found.append(flow.elbo(x, lk.Context(torch.tensor([1, label]), graphs)).value)
    assert bool(found[0][0] == found[1][0])
    assert bool(found[0][1] != found[1][1])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("point-flow", {"width": 6}, "multiple of the heads"),
        ("point-flow", {"symmetry": "rotations", "event_shape": 1}, "no rotations on a line"),
        ("set-canonical", {"nodes": 3, "order": "angle", "event_shape": 3}, "points in the plane"),
        ("set-autoregressive", {"width": 6}, "multiple of the heads"),
    ],
)
def test_refusals(name, settings, words):
    with pytest.raises(ConfigError, match=words):
        zoo.build(name, **{"event_shape": 2} | settings)


def test_recipes_know_rings_and_numbers_of_nodes():
    chosen = choose.choose(open_source("mog-ring").facts(), model="set-canonical")
    assert (chosen.model.order, chosen.model.nodes) == ("angle", 4)
    chosen = choose.choose(open_source("mog-9").facts(), model="point-flow")
    assert chosen.fit.validation_items == 256
    layers = list(chosen.model.build().transform)
    assert isinstance(layers[-1], transforms.ContinuousFlow)


@pytest.mark.parametrize("name", ["point-flow rotations", "set-autoregressive", "point-flow"])
@pytest.mark.parametrize("sizes", [[], [0], [0, 0]])
def test_graphs_without_a_node(name, sizes):
    flow = built(name, points())
    context = lk.Context(structure=lk.GraphBatch.complete(torch.tensor(sizes, dtype=torch.long)))
    drawn = flow.sample((), context)
    assert drawn.shape == (0, 2)
    assert flow.elbo(drawn, context).value.shape == (len(sizes),)
    assert flow.sample((3,), context).shape == (3, 0, 2)
