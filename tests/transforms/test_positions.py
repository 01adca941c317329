"""Centres taken apart: the dimensions that are left, and the density of positions with a centre."""

import pytest
import torch

import likelify as lk
from likelify import nets, testing, transforms
from likelify.distributions import CentredNormal
from likelify.errors import ConfigError, DataError, ShapeError

SIZES = [3, 2]
CONTEXT = lk.Context(structure=lk.GraphBatch.complete(SIZES))


def positions(*features):
    return torch.randn(*features, dtype=torch.float64)


def basis(size):
    """An orthonormal basis of the columns that sum to zero, `(size, size - 1)`."""
    ones = torch.cat([torch.ones(size, 1, dtype=torch.float64), positions(size, size - 1)], 1)
    return torch.linalg.qr(ones).Q[:, 1:]


def fitted(centre):
    layer = transforms.Centre(2, centre=centre).double()
    layer.initialize(3 * positions(5, 2) + 7, CONTEXT)
    return layer


def test_with_normal_centres_it_is_a_normal_distribution_of_all_positions():
    layer = fitted("normal")
    flow = lk.Flow(CentredNormal((2,)), layer)
    x = 3 * positions(5, 2)
    expected = []
    for part in x.split(SIZES):
        size = len(part)
        mean = torch.full((size, size), 1 / size, dtype=torch.float64)
        covariance = layer.scale**2 * (torch.eye(size, dtype=torch.float64) - mean) + layer.deviation**2
        law = torch.distributions.MultivariateNormal(torch.zeros(size, dtype=torch.float64), covariance)
        expected.append(law.log_prob((part - layer.mean).T).sum())
    torch.testing.assert_close(flow.log_prob(x, CONTEXT), torch.stack(expected))


def test_dropped_centres_leave_a_density_in_fewer_dimensions():
    layer = fitted("dropped")
    flow = lk.Flow(CentredNormal((2,)), layer)
    inner = [positions(size - 1, 2) for size in SIZES]
    x = torch.cat([basis(size) @ u for size, u in zip(SIZES, inner, strict=True)])
    expected = [torch.distributions.Normal(0.0, layer.scale).log_prob(u).sum() for u in inner]
    torch.testing.assert_close(flow.log_prob(x, CONTEXT), torch.stack(expected))
    torch.testing.assert_close(flow.log_prob(x + 5, CONTEXT), torch.stack(expected))


@pytest.mark.parametrize("features", [2, 3])
def test_a_turning_flow_has_the_determinant_of_the_subspace(features):
    net = testing.randomize(nets.RotationVelocity(features, width=4, bumps=4, times=1).double(), scale=0.1)
    layer = transforms.ContinuousFlow(net, steps=24)
    context = lk.Context(structure=lk.GraphBatch.complete([3]))
    within = basis(3)
    inner = positions(2, features)
    jacobian = torch.autograd.functional.jacobian(lambda u: within.T @ layer(within @ u, context)[0], inner)
    _, log_det = torch.linalg.slogdet(jacobian.reshape(inner.numel(), inner.numel()))
    found = layer(within @ inner, context)[1]
    torch.testing.assert_close(found, log_det[None], atol=1e-6, rtol=0)
    assert float(found.abs().detach()) > 1e-3


@pytest.mark.parametrize(
    "graphs",
    [
        lk.GraphBatch.complete(SIZES),
        lk.GraphBatch(torch.tensor(SIZES), torch.tensor([[0, 1, 1, 2, 4], [1, 0, 2, 1, 3]])),
    ],
)
def test_velocities_turn_with_positions_and_have_the_divergence_they_say(graphs):
    net = testing.randomize(nets.RotationVelocity(3, width=5, bumps=5, context_features=2).double(), scale=0.3)
    x, t, context = positions(5, 3), torch.tensor(0.4, dtype=torch.float64), lk.Context(positions(5, 2), graphs)
    velocity, divergence = net.with_divergence(x, t, context)
    turn = torch.linalg.qr(positions(3, 3)).Q
    torch.testing.assert_close(net(x @ turn + 2, t, context), velocity @ turn)
    centres = torch.stack([part.sum(0) for part in velocity.split(SIZES)])
    assert float(centres.abs().max().detach()) < 1e-12
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, t, context), x)
    blocks = torch.einsum("ncnc->n", jacobian)
    torch.testing.assert_close(lk.structure.sum_items(divergence, context), lk.structure.sum_items(blocks, context))


def test_the_density_turns_with_positions():
    net = testing.randomize(nets.RotationVelocity(2, width=4, bumps=4).double(), scale=0.1)
    flow = lk.Flow(CentredNormal((2,)), lk.Chain([fitted("dropped"), transforms.ContinuousFlow(net, steps=4)])).double()
    x, turn = positions(5, 2), torch.linalg.qr(positions(2, 2)).Q
    torch.testing.assert_close(flow.log_prob(x @ turn + 3, CONTEXT), flow.log_prob(x, CONTEXT))
    assert float(flow.sample((), CONTEXT)[:3].mean(0).abs().max()) < 1e-9
    assert flow.transform[1].matching_loss(fitted("dropped")(x, CONTEXT)[0], CONTEXT).shape == (2,)


def test_refusals():
    with pytest.raises(ConfigError, match="Did you mean 'normal'"):
        transforms.Centre(2, centre="normale")
    with pytest.raises(ShapeError, match="the context has none"):
        transforms.Centre(2)(torch.zeros(3, 2))
    with pytest.raises(DataError, match="not in one place"):
        transforms.Centre(2).initialize(torch.ones(5, 2), CONTEXT)
    net = nets.RotationVelocity(2, width=4)
    with pytest.raises(ShapeError, match="works on the nodes of graphs"):
        net(torch.zeros(3, 2), torch.tensor(0.0))
    with pytest.raises(ShapeError, match="of 2 coordinates"):
        net(torch.zeros(5, 3), torch.tensor(0.0), CONTEXT)
    with pytest.raises(ShapeError, match="reads 0 features"):
        net(torch.zeros(5, 2), torch.tensor(0.0), lk.Context(torch.zeros(5, 1), CONTEXT.structure))
