"""Mixtures over levels: probabilities, their gradients, bisection; and the bijector made of them."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify.errors import ConfigError, DomainError
from likelify.transforms import LevelBijector
from likelify.transforms.levels import mixture
from likelify.transforms.levels.mixture import Levels, level_at, log_mass, noise_of, probability_below


def mixtures(levels, n, dtype=torch.float64, scale=2.0):
    torch.manual_seed(0)
    raw = scale * torch.randn(levels.size, n, dtype=torch.float64)
    return raw.to(dtype), torch.randn(n, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("count", [2, 3, 17, 256, 2**16])
def test_levels_have_probabilities_that_sum_to_one(count):
    levels = Levels(count, 3)
    raw, centre = mixtures(levels, 4)
    every = torch.arange(count, dtype=torch.float64)[:, None].expand(-1, 4)
    each = log_mass(levels, raw[:, None].expand(-1, count, -1), centre.expand(count, -1), every).exp()
    assert float((each.sum(0) - 1).abs().max()) < 1e-12
    ends = torch.cat([torch.zeros(1, 4, dtype=torch.float64), each.cumsum(0)])
    knots = torch.arange(count + 1, dtype=torch.float64)[:, None].expand(-1, 4)
    below = probability_below(levels, raw[:, None].expand(-1, count + 1, -1), centre.expand(count + 1, -1), knots)
    assert torch.allclose(below, ends, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [3, 256, 2**16])
def test_probabilities_in_single_precision_keep_their_digits(count):
    levels = Levels(count, 5)
    raw, centre = mixtures(levels, 500, scale=1.0)
    level = torch.randint(count, (500,)).double()
    exact = log_mass(levels, raw, centre, level)
    single = log_mass(levels, raw.float(), centre.float(), level.float())
    assert single.dtype == torch.float32
    # Narrow logistics of 65,536 levels move by the rounding of their locations.
    assert float((single.double() - exact).abs().max()) < (2e-2 if count == 2**16 else 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_are_written_out_are_those_of_the_formula(dtype):
    levels = Levels(7, 3)
    raw, centre = mixtures(levels, 200, dtype)
    # Some beyond the limits of scales.
    raw[-3:] *= 3
    level = torch.randint(7, (200,)).to(dtype)
    leaves = raw.requires_grad_(), centre.requires_grad_()
    found = torch.autograd.grad(log_mass(levels, raw, centre, level).sum(), leaves)
    expected = torch.autograd.grad(mixture._plain_log_mass(levels, raw, centre, level).sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-4)
    value = log_mass(levels, raw, centre, level)
    assert torch.allclose(value, mixture._plain_log_mass(levels, raw, centre, level), rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 100, 256, 2**16])
def test_bisection_finds_the_level_of_the_noise_in_its_middle(count):
    levels = Levels(count, 4)
    raw, centre = mixtures(levels, 1000, torch.float32)
    level = torch.randint(count, (1000,)).double()
    noise = noise_of(levels, raw, centre, level)
    for given in (noise, noise.float().double()):
        assert torch.equal(level_at(levels, raw, centre, torch.special.ndtr(given)), level)
    ends = level_at(levels, raw, centre, torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(500))
    assert ends[:2].tolist() == [0, count - 1]


@torch.no_grad()
def test_behind_the_bijector_a_normal_base_is_the_mixture_itself():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw = nn.Parameter(torch.randn(8, 1))

        def forward(self, x):
            return self.raw.T.expand(len(x), -1)

    torch.manual_seed(0)
    split = lk.ChannelSplit(2)
    flow = lk.Flow(lk.Normal((2,)), lk.Coupling(split, LevelBijector(5, 2), Fixed())).double()
    read = torch.zeros(5, 1, dtype=torch.float64)
    noisy = torch.arange(5.0, dtype=torch.float64)[:, None] + torch.rand(5, 1, dtype=torch.float64)
    log_prob = flow.log_prob(torch.cat([read, noisy], 1)) - lk.Normal((1,)).double().log_prob(read)
    assert abs(float(log_prob.exp().sum()) - 1) < 1e-12
    outside = torch.tensor([[0.0, -0.1], [0.0, 5.0]], dtype=torch.float64)
    assert flow.log_prob(outside).tolist() == [-torch.inf] * 2
    with pytest.raises(DomainError, match=r"lie outside \(0, 5\)"):
        flow.transform(outside)


def test_sizes_that_are_refused():
    for levels, components in ((1, 5), (2**16 + 1, 5), (8, 0), (8, 1.5)):
        with pytest.raises(ConfigError, match="of LevelBijector"):
            LevelBijector(levels, components)
    with pytest.raises(lk.errors.ShapeError, match="2 logistics has 8 parameters, got 7"):
        LevelBijector(5, 2).forward(torch.ones(1, 1), torch.zeros(1, 7, 1))
    with pytest.raises(DomainError, match="dequantized levels and got integers"):
        LevelBijector(5, 2).forward(torch.tensor([[4]]), torch.zeros(1, 8, 1))
