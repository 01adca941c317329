"""Elementwise layers: domains, dtypes, statistics, and batch normalization."""

import math

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import transforms
from likelify.errors import DomainError, ShapeError
from likelify.transforms.elementwise import ChannelAffine


def test_inputs_outside_the_domain_are_refused():
    with pytest.raises(DomainError, match=r"Dequantize: 1 of 2 input values lie outside the integers 0..3"):
        lk.Dequantize(4)(torch.tensor([[1, 4]]))
    with pytest.raises(DomainError, match="the integers 0..3"):
        lk.Dequantize(4)(torch.tensor([[1.5]]))
    with pytest.raises(DomainError, match=r"Logit.*\[0, 1\]"):
        lk.Logit(0.05)(torch.tensor([[1.01]]))
    with pytest.raises(DomainError):
        lk.Logit()(torch.tensor([[0.0]]))
    with pytest.raises(DomainError):
        transforms.Tanh().inverse(torch.tensor([[1.0]]))
    with pytest.raises(DomainError):
        transforms.Softplus().inverse(torch.tensor([[0.0]]))
    with pytest.raises(DomainError):
        transforms.Sigmoid().inverse(torch.tensor([[math.nan]]))
    with pytest.raises(DomainError, match="FittedMarginal"):
        lk.FittedMarginal((1,), 4)(torch.tensor([[4.0]]))


def test_a_shift_for_each_channel_is_another_layer():
    for settings in ({"shift": torch.zeros(3)}, {"scale": torch.ones(3)}, {"shift": [1.0, 2.0]}):
        with pytest.raises(ShapeError, match="ChannelAffine"):
            lk.Affine(**settings)
    assert torch.equal(lk.Affine(shift=torch.tensor(1.0))(torch.zeros(1, 2))[0], torch.ones(1, 2))


def test_integers_short_dtypes_and_ends_of_the_range():
    z, log_det = lk.Affine(scale=1 / 256)(torch.tensor([[1, 2]]))
    assert log_det.dtype == z.dtype
    assert float(log_det) == pytest.approx(-2 * math.log(256))
    with pytest.raises(DomainError, match="too short for 256 levels"):
        lk.Dequantize(256).bfloat16()(torch.tensor([[3]]))
    layer = lk.FittedMarginal((1,), 4)
    with pytest.raises(DomainError):
        layer(torch.tensor([[0.0]]))
    with pytest.raises(ShapeError, match="FittedMarginal works on"):
        layer(torch.ones(1, 2))


def test_actnorm_is_initialized_by_request_only():
    layer = lk.ActNorm(2)
    x = torch.stack([3 + 2 * torch.randn(500), torch.full((500,), 7.0)], 1)
    assert torch.equal(layer(x)[0], x)
    z = layer.initialize(x)
    assert torch.allclose(z[:, 0].mean(), torch.tensor(0.0), atol=1e-5)
    assert torch.allclose(z[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-5)
    assert float(z[:, 1].abs().max()) == 0
    assert float(layer.log_scale.detach()[1]) == 0


@pytest.mark.parametrize(("module", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (6, 3, 2, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalization_becomes_a_channel_affine_map(module, shape, affine):
    norm = module(3, affine=affine)
    for _ in range(3):
        norm(2 + 3 * torch.randn(*shape))
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
            norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    x = torch.randn(*shape)
    layer = ChannelAffine.from_batch_norm(norm)
    assert torch.allclose(layer(x)[0], norm.eval()(x), atol=1e-5)
    weight = norm.weight.detach() if affine else torch.ones(3)
    per_position = (weight.abs().log() - 0.5 * (norm.running_var + norm.eps).log()).sum()
    assert torch.allclose(layer(x)[1], per_position * math.prod(shape[2:]), atol=1e-5)


def test_a_channel_far_from_zero_is_not_taken_for_constant_in_float64():
    x = 1.7e9 + 100 * torch.randn(500, 2, dtype=torch.float64)
    layer = lk.ActNorm(2).double()
    z = layer.initialize(x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)
    constant = torch.full((20, 2), 0.1, dtype=torch.float64)
    assert lk.ActNorm(2).double().initialize(constant).abs().max() < 1e-12


def test_whole_numbers_become_real_ones():
    z, log_det = lk.Affine(shift=1, scale=2)(torch.tensor([[1, 2]]))
    assert z.tolist() == [[4.0, 6.0]]
    assert float(log_det) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("size", [1e-13, 1e-30, 1.0, 1e25])
def test_statistics_of_small_and_large_data_are_theirs(size):
    layer = lk.ActNorm(2)
    z = layer.initialize(size * torch.randn(50, 2))
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2))


def test_the_inverse_of_tanh_keeps_its_digits_near_the_ends():
    z = 1 - torch.linspace(1e-5, 1e-3, 100)
    found = lk.transforms.Tanh().inverse(z[:, None])[1]
    expected = lk.transforms.Tanh().inverse(z.double()[:, None])[1]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-6)
