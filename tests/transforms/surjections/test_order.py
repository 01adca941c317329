"""The order of nodes: what is kept of the sum over all orders, and that numbering does not matter in front."""

import itertools
import math

import pytest
import torch

import likelify as lk
from likelify import testing, transforms
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.transforms.surjections.order import fitted_anchors

THREE = lk.Context(structure=lk.GraphBatch.complete([3]))


def flow(order):
    """Nodes of a graph of three, each with a mean and a scale of its own, behind an order."""
    inner = testing.randomize(lk.ActNorm(6), scale=0.5)
    layers = [order, transforms.GraphVectors(inner, 3, 2)]
    return lk.Flow(lk.Normal((2,)), lk.Chain(layers)).double()


def mean_over_orders(flow, x):
    """`log 1/n! sum_pi q(pi x)` by all terms, for an order that leaves points as they are."""
    vectors = flow.transform[1]
    terms = []
    for order in itertools.permutations(range(3)):
        z, contribution = vectors(x[list(order)], THREE)
        terms.append(flow.base.log_prob(z, THREE) + contribution)
    return torch.logsumexp(torch.stack(terms), 0) - math.log(6)


@pytest.mark.parametrize("by", ["feature", "anchors"])
def test_one_order_is_below_the_mean_over_all(by):
    model = flow(transforms.NodeOrder(2, by, nodes=3 if by == "anchors" else None))
    x = torch.randn(3, 2, dtype=torch.float64)
    found, whole = model.elbo(x, THREE).value, mean_over_orders(model, x)
    assert model.likelihood == "bound"
    assert bool(found < whole)
    # It is one of the terms.
    assert bool(found > whole - 20)


def test_random_orders_average_to_the_mean_over_all():
    model = flow(transforms.NodeOrder(2))
    x = torch.randn(3, 2, dtype=torch.float64)
    found = model.iw_log_prob(x, THREE, samples=4000, warn=False)
    assert (
        float((found.value - mean_over_orders(model, x)).abs().detach())
        < 5 * float(found.standard_error.detach()) + 1e-9
    )


@pytest.mark.parametrize("by", ["feature", "angle", "anchors"])
def test_numbering_does_not_matter(by):
    layer = transforms.NodeOrder(2, by, nodes=3 if by == "anchors" else None).double()
    x, context = torch.randn(6, 2, dtype=torch.float64), lk.Context(structure=lk.GraphBatch.complete([3, 3]))
    z, contribution = layer(x, context)
    again, same = layer(x[[2, 0, 1, 3, 5, 4]], context)
    assert torch.equal(z, again)
    assert torch.equal(contribution, same)


def test_angles_come_with_radii_and_their_volume():
    x = torch.tensor([[0.0, 2.0], [-1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    layer = transforms.NodeOrder(2, "angle")
    z, contribution = layer(x, THREE)
    torch.testing.assert_close(z[:, 1], torch.tensor([0.0, math.pi / 2, math.pi], dtype=torch.float64))
    torch.testing.assert_close(z[:, 0].exp(), torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(contribution, torch.tensor([-math.log(6) - 2 * math.log(6.0)], dtype=torch.float64))
    back = layer.mean_inverse(z, THREE)
    torch.testing.assert_close(back, x[[2, 0, 1]])


def test_anchors_find_the_places_of_nodes():
    torch.manual_seed(1)
    places = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    order = torch.stack([torch.randperm(4) for _ in range(40)])
    found = fitted_anchors(places[order] + 0.3 * torch.randn(40, 4, 2))
    assert float(torch.cdist(places, found).amin(1).max()) < 0.3


def test_draws_have_random_orders():
    x = torch.arange(3.0)[:, None]
    drawn = [transforms.NodeOrder(1).inverse(x, THREE)[0].flatten().tolist() for _ in range(60)]
    assert len({tuple(order) for order in drawn}) == 6


def test_refusals():
    with pytest.raises(ConfigError, match="Did you mean 'angle'"):
        transforms.NodeOrder(2, "angel")
    with pytest.raises(ConfigError, match="of 2 features"):
        transforms.NodeOrder(3, "angle")
    with pytest.raises(ConfigError, match="how many anchors"):
        transforms.NodeOrder(3, "anchors")
    layer, x = transforms.NodeOrder(1), torch.zeros(3, 1)
    with pytest.raises(ShapeError, match="orders the nodes of graphs"):
        layer(x)
    with pytest.raises(UnsupportedError, match="edges of a graph"):
        layer(x, lk.Context(structure=lk.GraphBatch(torch.tensor([3]), torch.tensor([[0], [1]]))))
    with pytest.raises(UnsupportedError, match="differ within a graph"):
        layer(x, lk.Context(torch.arange(3.0)[:, None], THREE.structure))
    with pytest.raises(ShapeError, match="has 2 anchors"):
        transforms.NodeOrder(1, "anchors", nodes=2)(x, THREE)


def test_conditions_that_differ_within_a_graph_are_refused_in_forward_mode_too():
    context = lk.Context(torch.tensor([[0.0], [1.0], [2.0]]), lk.GraphBatch.complete([3]))
    layer, x = transforms.NodeOrder(1, by="feature"), torch.randn(3, 1)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(UnsupportedError, match="differ within a graph"):
        layer(x, context)


@pytest.mark.parametrize("far", [1e22, float("inf"), float("nan")])
def test_a_point_that_is_anywhere_leaves_the_order_of_other_graphs(far):
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    layer = transforms.NodeOrder(2, by="anchors", nodes=2)
    layer.initialize(x.flatten(0, 1), lk.Context(structure=lk.GraphBatch.complete([2, 2, 2])))
    context = lk.Context(structure=lk.GraphBatch.complete([2, 2, 2]))
    expected = layer(x.flatten(0, 1), context)[0]
    x[1, 0, 0] = far
    found = layer(x.flatten(0, 1), context)[0]
    assert torch.equal(found[[0, 1, 4, 5]], expected[[0, 1, 4, 5]])
