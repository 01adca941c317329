"""The order of nodes means nothing to any layer on graphs but those that say that they go by it."""

import pytest

import likelify as lk
from likelify import testing
from likelify.transforms.inversion import SOLVED
from tests.cases import LAYERS, normal, undirected

ON_GRAPHS = {name: case for name, case in LAYERS.items() if "graphs" in name}
FREE = [name for name, case in ON_GRAPHS.items() if not case.sees_order]


@pytest.mark.parametrize("name", FREE)
def test_permuted_nodes_have_permuted_latents(name, device):
    layer, x, context = ON_GRAPHS[name].ready(device=device)
    solved = any(part.inverse_check is SOLVED for part in layer.modules() if isinstance(part, lk.Transform))
    testing.check_permutation_equivariance(layer, x, context, tol=1e-9 if solved else 1e-12)


@pytest.mark.parametrize("name", sorted(ON_GRAPHS.keys() - set(FREE)))
def test_the_law_sees_layers_that_go_by_the_order(name):
    layer, x, context = ON_GRAPHS[name].ready()
    with pytest.raises(AssertionError, match="permuted nodes"):
        testing.check_permutation_equivariance(layer, x, context)


def test_the_law_sees_densities_that_go_by_the_order():
    flow = lk.Flow(lk.Normal((2,)), lk.graph_sylvester(2, hidden=4, order="nodes")).double()
    testing.randomize(flow, scale=0.3)
    with pytest.raises(AssertionError, match="log_prob"):
        testing.check_permutation_equivariance(flow, normal(5, 2), undirected())


def test_the_law_wants_graphs_with_something_to_permute():
    layer = lk.ActNorm(2).double()
    with pytest.raises(AssertionError, match="no nodes to permute"):
        testing.check_permutation_equivariance(layer, normal(3, 2), None)
    alone = lk.Context(structure=lk.GraphBatch.complete([1, 1, 1]))
    with pytest.raises(AssertionError, match="nothing to permute"):
        testing.check_permutation_equivariance(layer, normal(3, 2), alone)
