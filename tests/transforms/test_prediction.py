"""Linear prediction: the normal distribution it is, what it shrinks to, and what it refuses."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import DataError, ShapeError, StateError
from likelify.transforms import LinearPrediction


def autoregression(items: int, length: int, *, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Draw a stationary process with coefficient 0.8 and innovations of one."""
    with lk.seeded(seed):
        noise = torch.randn(items, length, dtype=torch.float64)
    noise[:, 0] /= 0.6
    x = [noise[:, 0]]
    for time in range(1, length):
        x.append(0.8 * x[-1] + noise[:, time])
    return torch.stack(x, 1)[:, None] + shift


def exact(x: torch.Tensor) -> torch.Tensor:
    """Return the log-density of the process."""
    x = x[:, 0]
    innovations = torch.cat([0.6 * x[:, :1], x[:, 1:] - 0.8 * x[:, :-1]], 1)
    return (-0.5 * innovations**2 - 0.5 * math.log(2 * math.pi)).sum(1) + math.log(0.6)


def density(layer: LinearPrediction, x: torch.Tensor) -> torch.Tensor:
    return lk.Flow(lk.Normal(layer.event_shape), lk.Chain([layer]), event_shape=layer.event_shape).log_prob(x)


def test_it_is_the_normal_distribution_with_the_covariance_of_the_sample():
    x = torch.randn(4000, 2, 3, dtype=torch.float64) @ torch.randn(3, 3, dtype=torch.float64)
    x = 5 + torch.stack([x[:, 0], x[:, 0] * torch.tensor([1.0, 2.0, 3.0]) + x[:, 1]], 1)
    layer = LinearPrediction((2, 3)).double()
    layer.initialize(x)
    full = torch.distributions.MultivariateNormal(x.flatten(1).mean(0), x.flatten(1).T.cov())
    assert float((density(layer, x).mean() - full.log_prob(x.flatten(1)).mean()).abs()) < 0.01
    z, _ = layer(x)
    assert torch.allclose(z.flatten(1).T.cov(), torch.eye(6, dtype=torch.float64), atol=0.06)


def test_each_value_is_predicted_from_those_before_it():
    layer = LinearPrediction((2, 4)).double()
    layer.initialize(torch.randn(100, 2, 4, dtype=torch.float64).cumsum(2))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], torch.zeros(1, 2, 4, dtype=torch.float64))
    by_time = jacobian[0, :, :, 0].permute(1, 0, 3, 2).reshape(8, 8)
    assert torch.equal(by_time.triu(1), torch.zeros_like(by_time))


def test_a_small_sample_of_a_long_process_comes_near_its_exact_density():
    x, held_out = autoregression(40, 48), autoregression(1000, 48, seed=1)
    layer = LinearPrediction((1, 48)).double()
    layer.initialize(x)
    lost = float((exact(held_out) - density(layer, held_out)).mean())
    # The sample's own covariance is singular; fitting 48 times 49 / 2 numbers to 40 series would cost more than 10.
    assert 0 < lost < 0.7


def test_a_large_sample_keeps_what_differs_between_times():
    x = torch.randn(3000, 1, 4, dtype=torch.float64) * torch.tensor([0.1, 1.0, 5.0, 1.0]) + torch.arange(4)
    layer = LinearPrediction((1, 4)).double()
    layer.initialize(x)
    z, _ = layer(x)
    assert torch.allclose(z.std(0), torch.ones(1, 4, dtype=torch.float64), atol=0.05)
    assert torch.allclose(z.mean(0), torch.zeros(1, 4, dtype=torch.float64), atol=0.05)


def test_values_far_from_zero_lose_no_digits():
    x = autoregression(200, 8, shift=1.7e9)
    layer = LinearPrediction((1, 8))
    z = layer.initialize(x)
    assert z.dtype == torch.float32
    again, _ = layer.inverse(z)
    assert again.dtype == torch.float64
    assert float((again - x).abs().max()) < 1e-4
    assert layer.half().factor.dtype == torch.float64


def test_few_series_are_only_standardised():
    layer = LinearPrediction((1, 3)).double()
    layer.initialize(torch.tensor([[[1.0, 2.0, 3.0]], [[5.0, 6.0, 9.0]]], dtype=torch.float64))
    assert torch.equal(layer.factor, torch.eye(3, dtype=torch.float64))


def test_constant_channels_keep_their_units():
    x = torch.cat([autoregression(50, 6), torch.full((50, 1, 6), 3.0, dtype=torch.float64)], 1)
    layer = LinearPrediction((2, 6)).double()
    z = layer.initialize(x)
    assert float(z[:, 1].abs().max()) == 0
    assert torch.equal(layer.factor[1::2, 1::2], torch.eye(6, dtype=torch.float64))


def test_what_is_no_sample_of_sequences_is_refused():
    layer = LinearPrediction((1, 3))
    for wrong in (torch.zeros(0, 1, 3), torch.full((5, 1, 3), math.nan), torch.full((5, 1, 3), math.inf)):
        with pytest.raises(DataError):
            layer.initialize(wrong)
    with pytest.raises(ShapeError, match="channels, length"):
        LinearPrediction((3,))
    with pytest.raises(ShapeError):
        layer(torch.zeros(2, 1, 4))
    state = layer.state_dict()
    for name, spoiled in (("factor", -torch.eye(3)), ("factor", torch.ones(3, 3)), ("scale", torch.zeros(1, 1))):
        with pytest.raises(StateError, match=name):
            layer.load_state_dict(state | {name: spoiled.double()})
