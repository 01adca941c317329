"""Steps of variational autoencoders: their weights against exact posteriors."""

import copy
import itertools

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets, testing, transforms
from likelify.errors import InexactLikelihoodError, ShapeError

PAIRS = torch.tensor(list(itertools.product(range(3), repeat=2)))


class Gaussian(nn.Module):
    """A linear mean and a fixed log scale, as `ConditionalNormal` reads them."""

    def __init__(self, matrix, shift, log_scale):
        super().__init__()
        self.matrix, self.shift, self.log_scale = matrix, shift, log_scale

    def forward(self, condition):
        mean = condition @ self.matrix.T + self.shift
        return torch.cat([3 * torch.atanh(self.log_scale / 3).expand_as(mean), mean], 1)


def factor_model(widen=0.0):
    """`z ~ N(0, I)`, `x = W z + b + noise`; the posterior is the exact one, its log scales moved by `widen`."""
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, -0.8]], dtype=torch.float64)
    shift = torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64)
    noise = torch.tensor([-0.5], dtype=torch.float64)
    variance = (2 * noise).exp()
    # Columns of W are orthogonal, so the exact posterior has independent numbers.
    precision = 1 + weight.square().sum(0) / variance
    gain = (weight / variance).T / precision[:, None]
    posterior = Gaussian(gain, -gain @ shift, -0.5 * precision.log() + widen)
    step = lk.LatentVariable(
        lk.ConditionalNormal(posterior), lk.ConditionalNormal(Gaussian(weight, shift, noise.expand(3))), (2,)
    )
    exact = torch.distributions.MultivariateNormal(shift, weight @ weight.T + variance * torch.eye(3).double())
    return lk.Flow(lk.Normal((2,)).double(), step), exact


def pixels(latent, levels=3):
    return lk.distributions.ConditionalCategorical(nn.Linear(latent, levels * 2), levels)


def tiny_vae():
    posterior = testing.randomize(lk.ConditionalNormal(nets.MLP(2, 4, (8,))))
    step = lk.LatentVariable(posterior, testing.randomize(pixels(2)), (2,))
    return lk.Flow(lk.Normal((2,)), step).double()


def flow_posterior_vae():
    layers = lk.Chain([lk.sylvester(2, reflections=2, context_features=4), transforms.planar(2, context_features=4)])
    encoder = nn.Sequential(nn.Linear(2, 4), nn.Tanh())
    posterior = lk.Flow(lk.ConditionalNormal(nets.MLP(4, 4, (8,))), lk.Inverse(layers), encoder=encoder)
    step = testing.randomize(lk.LatentVariable(posterior, pixels(2), (2,)))
    return lk.Flow(lk.Normal((2,)), step).double()


def ladder_vae():
    """Two stochastic steps, and a flow as the prior behind them."""
    lower = lk.LatentVariable(lk.ConditionalNormal(nets.MLP(2, 4, (8,))), pixels(2), (2,))
    upper = lk.LatentVariable(
        lk.ConditionalNormal(nets.MLP(2, 2, (8,))), lk.ConditionalNormal(nets.MLP(1, 4, (4,))), (1,)
    )
    prior = lk.Affine(shift=0.2, scale=0.9)
    return testing.randomize(lk.Flow(lk.Normal((1,)), lk.Chain([lower, upper, prior]))).double()


def test_with_the_exact_posterior_every_weight_is_the_log_probability():
    flow, exact = factor_model()
    x = torch.randn(6, 3, dtype=torch.float64) * 2
    assert torch.allclose(flow.elbo(x).value, exact.log_prob(x), atol=1e-12)
    estimate = flow.iw_log_prob(x, samples=5)
    assert torch.allclose(estimate.value, exact.log_prob(x), atol=1e-12)
    assert torch.allclose(estimate.ess, torch.full((6,), 5.0).double())
    assert flow.likelihood == "bound"
    with pytest.raises(InexactLikelihoodError, match="because of LatentVariable"):
        flow.log_prob(x)


def test_the_elbo_falls_short_by_the_divergence_of_the_posterior_and_weighting_closes_the_gap():
    widen = 0.3
    flow, exact = factor_model(widen)
    x = torch.randn(4, 3, dtype=torch.float64)
    divergence = 2 * (torch.tensor(2 * widen).exp() / 2 - 0.5 - widen)
    with lk.seeded(0):
        elbo = flow.elbo(x, samples=4000)
        weighted = flow.iw_log_prob(x, samples=4000)
    assert torch.allclose(elbo.value, exact.log_prob(x) - divergence, atol=0.05)
    assert bool(((weighted.value - exact.log_prob(x)).abs() < 5 * weighted.standard_error).all())


@pytest.mark.parametrize("build", [tiny_vae, flow_posterior_vae, ladder_vae])
def test_weights_are_unbiased_both_ways(build):
    with lk.seeded(3):
        flow = build()
    testing.check_weights(flow, PAIRS)


def test_weights_of_a_dequantized_flow_are_unbiased_both_ways():
    layers = [lk.Dequantize(3), lk.Affine(scale=1 / 3), lk.Logit(), lk.ActNorm(2)]
    testing.check_weights(lk.Flow(lk.Normal((2,)), lk.Chain(layers)).double(), PAIRS)


class Wrong(lk.LatentVariable):
    """A VAE step with a fault."""

    fault = ""

    def forward(self, x, context=None):
        z, contribution = super().forward(x, context)
        # A draw that is not the one whose density is told.
        return z * (1.5 if self.fault == "draw" else 1.0), contribution + 0.2 * (self.fault in ("constant", "forward"))

    def inverse(self, z, context=None):
        x, contribution = super().inverse(z, context)
        return x, (-contribution if self.fault == "sign" else contribution) - 0.2 * (self.fault == "constant")


@pytest.mark.parametrize("fault", ["constant", "forward", "sign", "draw"])
def test_wrong_weights_are_found(fault):
    with lk.seeded(3):
        flow = tiny_vae()
    flow.transform.__class__ = Wrong
    flow.transform.fault = fault
    with pytest.raises(AssertionError, match="weights: E_Q"):
        testing.check_weights(flow, PAIRS)


def test_contributions_are_log_densities_of_what_was_drawn():
    step = testing.randomize(
        lk.LatentVariable(lk.ConditionalNormal(nets.MLP(5, 4, (8,))), lk.ConditionalNormal(nets.MLP(4, 6, (8,))), (2,))
    ).double()
    x, condition = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    z, contribution = step(x, condition)
    drawn, undone = step.inverse(z, condition)
    for data, value, sign in ((x, contribution, 1), (drawn, undone, -1)):
        log_p = step.observation.log_prob(data, torch.cat([z, condition], 1))
        log_q = step.posterior.log_prob(z, torch.cat([data, condition], 1))
        assert torch.allclose(value, sign * (log_p - log_q), atol=1e-12)
    assert not torch.equal(step(x, condition)[0], z)


def test_noise_free_paths_are_temperature_zero():
    flow = tiny_vae()
    step, z = flow.transform, torch.randn(5, 2, dtype=torch.float64)
    x = step.mean_inverse(z)
    odds = step.observation.net(z).unflatten(1, (3, 2))
    assert torch.equal(x, odds.argmax(1).double())
    mean = step.posterior.net(x).chunk(2, 1)[1]
    assert torch.equal(step.mean_forward(x.long()), mean)
    with lk.seeded(0):
        cold = flow.sample((50,), temperature=0.0)
    assert torch.equal(cold, flow.transform.mean_inverse(torch.zeros(1, 2).double()).expand(50, 2))
    assert len(flow.sample((50,)).unique(dim=0)) > 3


def test_a_flow_as_observation_is_initialized_with_the_data():
    observation = lk.Flow(lk.Normal((2,)), lk.ActNorm(2))
    step = lk.LatentVariable(lk.ConditionalNormal(nn.Linear(2, 2)), observation, (1,))
    x = 5 + 3 * torch.randn(200, 2)
    assert step.initialize(x).shape == (200, 1)
    assert torch.allclose(observation.transform(x)[0].mean(0), torch.zeros(2), atol=1e-4)


def test_bounds_are_refused_as_parts():
    vae = tiny_vae()
    for parts in ((vae, pixels(2)), (lk.ConditionalNormal(nn.Linear(2, 4)), vae)):
        with pytest.raises(InexactLikelihoodError, match="has bounds only"):
            lk.LatentVariable(*parts, (2,))
    step = lk.LatentVariable(lk.ConditionalNormal(nn.Linear(2, 4)), pixels(2), (3,))
    with pytest.raises(ShapeError, match=r"latent_shape is \(3,\), the posterior draws \(2,\)"):
        step(torch.zeros(1, 2))


def test_integers_take_the_dtype_of_the_model():
    flow = tiny_vae()
    assert flow.elbo(PAIRS.to(torch.uint8)).value.dtype == torch.float64
    assert copy.deepcopy(flow).float().elbo(PAIRS.to(torch.uint8)).value.dtype == torch.float32
