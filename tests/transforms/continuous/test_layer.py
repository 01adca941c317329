"""Continuous flows: divergences against Jacobians, the solver against another one, flow matching and its pairs."""

import itertools
import math

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets, testing, transforms
from likelify.errors import ConfigError, InexactLikelihoodError, ShapeError, UnsupportedError
from likelify.transforms.continuous.field import _by_products, velocity_and_divergence
from likelify.transforms.continuous.pairing import assigned, turned
from likelify.transforms.continuous.solver import runge_kutta
from tests.cases.continuous import Swirl, complete

EDGES = torch.tensor([[0, 1, 1, 2, 2, 4], [1, 0, 2, 1, 2, 3]])


def sets(**settings):
    """A network of sets in double precision, away from its start."""
    net = nets.SetVelocity(2, width=8, heads=2, frequencies=2, **settings).double()
    return testing.randomize(net, scale=0.3)


def points(rows=5, features=2):
    return torch.randn(rows, features, dtype=torch.float64)


@pytest.mark.parametrize("graphs", [lk.GraphBatch.complete([3, 2]), lk.GraphBatch(torch.tensor([3, 2]), EDGES)])
@pytest.mark.parametrize("features", [0, 2])
def test_the_divergence_is_the_trace_of_the_jacobian(graphs, features):
    net, x, t = sets(context_features=features), points(), torch.tensor(0.3, dtype=torch.float64)
    context = lk.Context(points() if features else None, graphs)
    velocity, divergence = net.with_divergence(x, t, context)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, t, context), x)
    expected = torch.einsum("ncnc->n", jacobian)
    torch.testing.assert_close(velocity, net(x, t, context))
    torch.testing.assert_close(divergence, expected)
    torch.testing.assert_close(_by_products(net, x, t, context, graph=False)[1], expected)


def test_a_node_alone_and_graphs_of_one_size_are_nothing_special():
    net, t = sets(), torch.tensor(0.7, dtype=torch.float64)
    x = points(7)
    whole = net.with_divergence(x, t, lk.Context(structure=lk.GraphBatch.complete([3, 3, 1])))
    even = net.with_divergence(x[:6], t, lk.Context(structure=lk.GraphBatch.complete([3, 3])))
    alone = net.with_divergence(x[6:], t, lk.Context(structure=lk.GraphBatch.complete([1])))
    for found, first, last in zip(whole, even, alone, strict=True):
        torch.testing.assert_close(found, torch.cat([first, last]))


def test_the_solver_agrees_with_torchdiffeq():
    torchdiffeq = pytest.importorskip("torchdiffeq")
    layer, x, context = transforms.ContinuousFlow(sets(times=1), steps=64), points(), complete()

    def rates(t, state):
        return velocity_and_divergence(layer.net, state[0], t, context)

    with torch.no_grad():
        z, log_det = layer(x, context)
        times, start = torch.tensor([1.0, 0.0], dtype=torch.float64), (x, x.new_zeros(len(x)))
        other, rows = torchdiffeq.odeint(rates, start, times, method="dopri8", rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(z, other[-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(log_det, lk.structure.sum_items(rows[-1], context), atol=1e-4, rtol=0)


def test_the_solver_is_of_fourth_order():
    def error(steps):
        state = (torch.ones((), dtype=torch.float64),)
        return abs(
            float(runge_kutta(lambda t, y: (y[0] * math.cos(t),), state, 0.0, 1.0, steps)[0]) - math.exp(math.sin(1))
        )

    assert 14 < error(8) / error(16) < 18


def test_the_estimate_of_the_error_is_above_it():
    layer, context = transforms.ContinuousFlow(sets(times=1), steps=8), complete()
    flow = lk.Flow(lk.Normal((2,)), layer).double()
    x = points()
    exact = transforms.with_steps(flow, 128)
    assert exact.transform.net.out.weight is layer.net.out.weight
    error = (flow.log_prob(x, context) - exact.log_prob(x, context)).abs().detach()
    assert bool((error < transforms.solver_error(flow, x, context)).all())
    assert bool((error > 1e-9).all())


def test_nothing_is_certified():
    flow = lk.Flow(lk.Normal((2,)), transforms.ContinuousFlow(nets.SetVelocity(2, width=4), steps=2))
    found = flow.certificate(torch.randn(5, 2), complete())
    assert bool(found.nats.isinf().all())
    assert "no bound" in str(found)


def test_the_noise_is_assigned_as_well_as_any_permutation():
    x, noise = points(4), points(4)
    found = assigned(noise, x, lk.Context(structure=lk.GraphBatch.complete([4])))
    costs = [(noise[list(order)] - x).square().sum() for order in itertools.permutations(range(4))]
    torch.testing.assert_close((found - x).square().sum(), torch.stack(costs).min())


def test_nodes_that_something_tells_apart_keep_their_noise():
    x = points(6)
    # Of the same types in the wrong order, and far from each other.
    noise = 5 * x[[2, 5, 0, 4, 3, 1]]
    path = lk.GraphBatch(torch.tensor([6]), torch.tensor([[0, 1], [1, 0]]))
    assert torch.equal(assigned(noise, x, lk.Context(structure=path)), noise)
    types = torch.eye(2, dtype=torch.float64)[[0, 1, 0, 1, 1, 1]]
    for sizes in ([6], [4, 2]):
        found = assigned(noise, x, lk.Context(types, lk.GraphBatch.complete(sizes)))
        whose = (found[:, None] == noise).all(-1).int().argmax(1)
        assert torch.equal(types[whose], types)
        assert (found - x).square().sum() < (noise - x).square().sum()


def test_the_noise_is_turned_as_well_as_can_be():
    x, context = points(), complete()
    turn = torch.linalg.qr(points(2)).Q
    torch.testing.assert_close(turned(x @ turn, x, context), x)


def test_matching_learns_a_shift():
    torch.manual_seed(0)
    layer = transforms.ContinuousFlow(nets.SetVelocity(1, width=8, heads=2, frequencies=0, times=0), steps=4)
    context = lk.Context(structure=lk.GraphBatch.complete([2] * 64))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    for _ in range(100):
        loss = transforms.matching_losses(layer, 2 + torch.randn(128, 1), context).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean = layer.mean_inverse(torch.zeros(128, 1), context).mean()
    assert abs(float(mean.detach()) - 2) < 0.2


class Wrong(nn.Module):
    """Gives one velocity for all elements."""

    def forward(self, x, t, context):
        return x[:, :1]


def test_refusals():
    layer = transforms.ContinuousFlow(nets.SetVelocity(2, width=4))
    with pytest.raises(ConfigError, match="Did you mean 'matching'"):
        transforms.ContinuousFlow(layer.net, training="matchin")
    with pytest.raises(UnsupportedError, match="torch.nn.Module called as"):
        transforms.ContinuousFlow(lambda x, t, context: x)
    with pytest.raises(ShapeError, match="works on the nodes of graphs"):
        layer(torch.zeros(2, 2))
    with pytest.raises(ShapeError, match="is of 2 features of nodes"):
        layer(torch.zeros(5, 3), complete())
    with pytest.raises(ShapeError, match="velocities of shape"):
        transforms.ContinuousFlow(Wrong(), steps=1)(torch.zeros(5, 3))
    with pytest.raises(UnsupportedError, match="there is none"):
        transforms.matching_losses(lk.ActNorm(2), torch.zeros(2, 2))
    with pytest.raises(ConfigError, match="there is none"):
        transforms.with_steps(lk.ActNorm(2), 3)
    with pytest.raises(ConfigError, match="half of it"):
        transforms.solver_error(transforms.ContinuousFlow(Swirl(), steps=1), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="do not divide"):
        nets.SetVelocity(2, width=6, heads=4)
    net = nets.SetVelocity(2, width=4, context_features=3)
    with pytest.raises(ShapeError, match="reads 3 features"):
        net(torch.zeros(5, 2), torch.tensor(0.0), complete())


def test_the_likelihood_is_exact_up_to_its_solver():
    flow = lk.Flow(lk.Normal((2,)), transforms.ContinuousFlow(nets.SetVelocity(2, width=4), steps=2))
    assert flow.likelihood == "exact"
    with pytest.raises(InexactLikelihoodError):
        lk.Flow(lk.Normal((2,)), lk.Chain([lk.Dequantize(3), flow.transform])).log_prob(torch.zeros(5, 2).long())


def test_networks_of_one_s_own_work_in_inference_mode():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 2)

        def forward(self, x, t, context):
            return torch.tanh(self.inner(torch.cat([x, context.condition], -1))) * t

    flow = lk.Flow(lk.Normal(2), transforms.ContinuousFlow(Plain(), steps=3)).double()
    x = points()
    with torch.no_grad():
        expected = flow.log_prob(x, 2 * x)
    with torch.inference_mode():
        torch.testing.assert_close(flow.log_prob(x, 2 * x), expected)
        assert flow.sample_and_log_prob((), 2 * x)[1].shape == (5,)


def test_a_velocity_that_does_not_read_the_position_has_no_divergence():
    class Drift(nn.Module):
        def __init__(self):
            super().__init__()
            self.speed = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x, t, context):
            return (self.speed * t).expand(len(x), 2)

    x = points()
    z, log_det = transforms.ContinuousFlow(Drift(), steps=4)(x)
    assert float(log_det.detach().abs().max()) == 0.0
    torch.testing.assert_close((z - x).abs().detach(), torch.full_like(x, 0.5))


def test_the_error_of_the_solver_is_that_of_the_steps_which_each_layer_has():
    x = points(6, 3)
    coarse, fine = (transforms.ContinuousFlow(Swirl(), steps=steps) for steps in (2, 32))
    flow = lk.Flow(lk.Normal((3,)), lk.Chain([coarse, fine])).double()
    error = (transforms.with_steps(flow, 128).log_prob(x) - flow.log_prob(x)).abs()
    assert bool((error < transforms.solver_error(flow, x)).all())
    with pytest.raises(ConfigError, match="there is none"):
        transforms.solver_error(lk.Flow(lk.Normal(2), lk.ActNorm(2)), points(2))


def test_matching_is_refused_for_another_base_than_its_noise():
    layer = transforms.ContinuousFlow(Swirl())
    x = torch.randn(40, 3)
    with pytest.raises(UnsupportedError, match=r"the base Normal is another one. Take lk\.Normal"):
        lk.fit(lk.Flow(lk.Normal(3, trainable=True), layer), x, steps=1)
