"""Layers on graphs: vectors of the nodes, couplings, conditions for each graph."""

import pytest
import torch

import likelify as lk
from likelify import nets, transforms
from tests.cases import normal


def one_size(nodes=3, graphs=2):
    return lk.Context(structure=lk.GraphBatch.complete([nodes] * graphs))


def test_vectors_hold_the_nodes_one_after_the_other():
    inner = lk.dense_exponential(6).double()
    x = normal(6, 2)
    z, log_det = transforms.GraphVectors(inner, nodes=3, features=2)(x, one_size())
    expected, expected_log_det = inner(x.reshape(2, 6))
    assert torch.equal(z, expected.reshape(6, 2))
    assert torch.equal(log_det, expected_log_det)


def test_vectors_refuse_other_sizes_and_layers():
    layer = transforms.GraphVectors(lk.ActNorm(6), nodes=3, features=2)
    with pytest.raises(lk.errors.ShapeError, match="graphs of 3 nodes, and those of the context have 2 to 4"):
        layer(torch.randn(6, 2), lk.Context(structure=lk.GraphBatch.complete([2, 4])))
    with pytest.raises(lk.errors.ShapeError, match="needs the graphs"):
        layer(torch.randn(6, 2))
    with pytest.raises(lk.errors.ShapeError, match="keeps the shape of vectors, and Slice makes"):
        transforms.GraphVectors(lk.Slice(2, lk.Normal((4,))), nodes=3, features=2)


def test_a_flow_of_vectors_knows_its_shapes_and_draws():
    layers = lk.Chain([transforms.GraphVectors(lk.Chain([lk.ActNorm(6), lk.Conv1x1(6)]), nodes=3, features=2)])
    flow = lk.Flow(lk.Normal((2,)), layers)
    assert flow.event_shape == (2,)
    drawn, log_prob = flow.sample_and_log_prob((4,), one_size())
    assert drawn.shape == (4, 6, 2)
    torch.testing.assert_close(flow.log_prob(drawn, one_size()), log_prob, atol=1e-4, rtol=1e-4)


def test_one_feature_is_refused_with_the_remedy():
    with pytest.raises(lk.errors.ConfigError, match=r"at least 2, got 1.*graph_exponential and ChannelSpline"):
        lk.ChannelSplit(1)


def conditional_flow():
    split = lk.ChannelSplit(2)
    net = nets.MessagePassingNet(1, 2, 4, context_features=3, zero_start=False)
    coupling = lk.Coupling(split, lk.AffineBijector(), net)
    return lk.Flow(lk.Normal((2,)), coupling, encoder=nets.OneHot(3))


def test_conditions_are_given_for_each_node_or_for_each_graph_or_once():
    flow, graphs, x = conditional_flow(), lk.GraphBatch.complete([2, 3]), torch.randn(5, 2)
    labels = torch.tensor([0, 2])
    by_node = flow.log_prob(x, lk.Context(labels[graphs.owner], graphs))
    assert torch.equal(flow.log_prob(x, lk.Context(labels, graphs)), by_node)
    alike = flow.log_prob(x, lk.Context(labels[1:], graphs))
    assert alike[1] == by_node[1]
    assert alike[0] != by_node[0]
    with pytest.raises(lk.errors.ShapeError, match="3 rows, and there are 2 graphs of 5 nodes together"):
        flow.log_prob(x, lk.Context(torch.tensor([0, 1, 2]), graphs))


@pytest.mark.parametrize("labels", [[0, 2], [1]])
def test_graphs_are_drawn_under_conditions_of_each_graph(labels):
    flow, context = conditional_flow(), lk.Context(torch.tensor(labels), lk.GraphBatch.complete([2, 3]))
    drawn, log_prob = flow.sample_and_log_prob((4,), context)
    assert drawn.shape == (4, 5, 2)
    torch.testing.assert_close(flow.log_prob(drawn, context), log_prob)


def test_repeated_complete_graphs_are_known_to_be_complete():
    from likelify.distributions.core import repeat_context

    _, repeated = repeat_context((2,), one_size(graphs=1))
    assert repeated.structure.is_complete
    assert repeated.structure.sizes.tolist() == [3, 3]


def test_actnorm_standardises_features_over_the_nodes_of_all_graphs():
    layer, x = lk.ActNorm(2).double(), 3 + 2 * normal(7, 2)
    graphs = lk.Context(structure=lk.GraphBatch.complete([1, 4, 2]))
    z = layer.initialize(x, graphs)
    torch.testing.assert_close(z.mean(0), torch.zeros(2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2).double())
    _, log_det = layer(x, graphs)
    torch.testing.assert_close(log_det, layer.log_scale.sum() * torch.tensor([1.0, 4, 2]).double())


def test_a_graph_exponential_can_begin_as_a_rotation_of_each_node():
    torch.manual_seed(1)
    layer = lk.graph_exponential(4, turned=True).double()
    x, parameters = normal(6, 4), dict(layer.named_parameters())
    with torch.no_grad():
        next(value for name, value in parameters.items() if name.endswith("theta1")).zero_()
        z, log_det = layer(x, one_size())
    torch.testing.assert_close(z @ z.mT, x @ x.mT)
    assert (z - x).norm() > 0.3 * x.norm()
    torch.testing.assert_close(log_det, torch.zeros_like(log_det))
