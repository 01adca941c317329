"""Sets whose nodes come one after the other: causality, mass, draws."""

import pytest
import torch

import likelify as lk
from likelify import nets, testing
from likelify.distributions import AutoregressiveSet
from likelify.errors import ConfigError, ShapeError

CONTEXT = lk.Context(structure=lk.GraphBatch.complete([3, 2]))


def model(features=2, components=2, **settings):
    size = AutoregressiveSet.size(features, components)
    net = nets.CausalSetNet(features, size, width=8, heads=2, frequencies=1, **settings)
    return testing.randomize(AutoregressiveSet((features,), net, components=components).double(), scale=0.3)


def test_nodes_see_those_before_them_in_their_graph_and_no_others():
    net, x = model().net, torch.randn(5, 2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, CONTEXT).sum(1), x).abs().sum(-1)
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    assert torch.equal((jacobian[:3, :3] > 0).long(), expected)
    assert float(jacobian[:3, 3:].sum() + jacobian[3:, :3].sum() + jacobian[3].sum()) == 0
    assert float(jacobian[4, 3]) > 0


def test_it_sums_to_one():
    sets = testing.randomize(model(1), scale=0.01)
    for layer in (sets.net.out, sets.net.own):
        layer.weight.data *= 0.3
    grid = torch.linspace(-12, 12, 241, dtype=torch.float64)
    pairs = torch.cartesian_prod(grid, grid)
    context = lk.Context(structure=lk.GraphBatch.complete([2] * len(pairs)))
    mass = sets.log_prob(pairs.reshape(-1, 1), context).exp().sum() * 0.1**2
    assert abs(float(mass.detach()) - 1) < 1e-3


def test_draws_follow_the_density():
    torch.manual_seed(0)
    sets = model(2)
    context = lk.Context(structure=lk.GraphBatch.complete([2] * 3000))
    x = sets.sample((), context)
    # The score has mean zero, whatever the parameters.
    gradient = torch.autograd.grad(sets.log_prob(x, context).mean(), sets.spread)[0]
    assert float(gradient.abs().max()) < 0.1
    drawn, log_prob = sets.sample_and_log_prob((2,), CONTEXT)
    assert drawn.shape == (2, 5, 2)
    torch.testing.assert_close(log_prob[1], sets.log_prob(drawn[1], CONTEXT))
    assert sets.sample((0,), CONTEXT).shape == (0, 5, 2)


def test_a_condition_is_read_and_temperature_zero_gives_means():
    sets = model(2, context_features=1)
    told = [lk.Context(torch.full((5, 1), value, dtype=torch.float64), CONTEXT.structure) for value in (0.0, 1.0)]
    x = torch.randn(5, 2, dtype=torch.float64)
    assert bool((sets.log_prob(x, told[0]) != sets.log_prob(x, told[1])).all())
    cold = model(2, 1)
    drawn = [cold.sample((), lk.Context(structure=CONTEXT.structure, temperature=0.0)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_refusals():
    with pytest.raises(ConfigError, match="do not divide"):
        nets.CausalSetNet(2, 3, width=6)
    with pytest.raises(ShapeError, match="works on the nodes of graphs"):
        nets.CausalSetNet(2, 3, width=4)(torch.zeros(5, 2))
    with pytest.raises(ShapeError, match="features of nodes"):
        nets.CausalSetNet(2, 3, width=4)(torch.zeros(5, 3), CONTEXT)
    with pytest.raises(ShapeError, match="is of the nodes of graphs"):
        model().log_prob(torch.zeros(5, 2, dtype=torch.float64))
    with pytest.raises(ShapeError, match="are needed"):
        AutoregressiveSet((2,), nets.CausalSetNet(2, 3, width=4)).log_prob(torch.zeros(5, 2), CONTEXT)
    with pytest.raises(ShapeError, match="features"):
        AutoregressiveSet((2, 2), nets.CausalSetNet(2, 3, width=4))
