"""Message passing with masks: each feature reads the earlier features of all nodes, and no later ones."""

import pytest
import torch

import likelify as lk
from likelify import nets
from tests.cases import normal


@pytest.mark.parametrize(("features", "rounds"), [(1, 1), (3, 2)])
def test_it_reads_earlier_features_of_all_nodes_and_nothing_else(features, rounds):
    net = nets.AutoregressiveGraphNet(features, hidden=7, heads=2, rounds=rounds).double()
    context = lk.Context(structure=lk.GraphBatch.complete([1, 3]))
    jacobian = torch.autograd.functional.jacobian(lambda u: net(u, context), normal(4, features))
    reads = (jacobian.unflatten(1, (2, features)) != 0).any(1)  # node, feature, node, feature
    for feature in range(features):
        for earlier in range(features):
            seen = reads[:, feature, :, earlier]
            expected = torch.block_diag(torch.ones(1, 1), torch.ones(3, 3)).bool() & (earlier < feature)
            assert torch.equal(seen, expected)


def test_the_first_feature_reads_the_condition():
    net = nets.AutoregressiveGraphNet(2, hidden=4, context_features=1).double()
    context = [lk.Context(normal(2, 1), lk.GraphBatch.complete([2])) for _ in range(2)]
    one, other = (net(torch.zeros(2, 2).double(), each).unflatten(1, (4, 2))[:, :, 0] for each in context)
    assert bool((one != other).all())


def test_features_are_no_more_than_hidden_units():
    with pytest.raises(lk.errors.ConfigError, match="5 features, 4 units"):
        nets.AutoregressiveGraphNet(5, hidden=4)
