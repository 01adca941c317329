"""Mixtures of normal distributions of single numbers: intervals, quantiles, gradients."""

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import jvp, vmap

from likelify.distributions.intervals import log_interval, mixture_log_mass
from likelify.distributions.normal_mixtures import NormalMixtures, mixture_log_density, normal_quantile
from likelify.errors import ConvergenceError
from likelify.nets.cells import expected_score

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def mixtures(batch=5, components=3):
    weights = torch.randn(components, batch, dtype=torch.float64).log_softmax(0)
    means, log_scales = torch.randn(2, components, batch, dtype=torch.float64)
    return NormalMixtures(weights, 2 * means, log_scales)


def exact_log_interval(t, half):
    """Return the logarithm of the difference of two tails in 120 digits."""
    with mpmath.workdps(120):
        root = mpmath.sqrt(2)
        upper, lower = (mpmath.erfc((mpmath.mpf(t) + sign * mpmath.mpf(half)) / root) for sign in (-1, 1))
        return float(mpmath.log((upper - lower) / 2))


def test_masses_of_intervals_against_quadrature():
    t = np.array([0, 1e-3, 0.3, 1.0, 2.5, 5.0, 12.0, 39.0, 200.0])
    half = np.array([1e-30, 1e-12, 1e-6, 1e-3, 0.006, 0.02, 0.1, 0.24, 0.299, 0.301, 0.6, 2.0, 9.0])
    t, half = (grid.ravel() for grid in np.meshgrid(t, half))
    exact = np.array([exact_log_interval(*pair) for pair in zip(t.tolist(), half.tolist(), strict=True)])
    found = log_interval(torch.tensor(t), torch.tensor(half)).numpy()
    assert (np.abs(found - exact) / (1 + np.abs(exact))).max() < 1e-9
    single = log_interval(torch.tensor(-t).float(), torch.tensor(half).float()).numpy()
    assert (np.abs(single - exact) / (1 + np.abs(exact))).max() < 3e-6


def test_gradients_of_intervals_are_right_and_finite():
    t = torch.tensor([0.0, 0.5, -3.0, 30.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    half = torch.tensor([0.3, 0.05, 1.0, 0.4, 1e-9, 1e-4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_interval, (t[:4], half[:4]))
    extreme = torch.tensor([0.0, 1e4, -1e4, 3e3, 0.0], requires_grad=True)
    widths = torch.tensor([1e-35, 1e-20, 50.0, 1.0, 1e4], requires_grad=True)
    found = torch.autograd.grad(log_interval(extreme, widths).sum(), (extreme, widths))
    assert all(grad.isfinite().all() for grad in found)
    # The log-density of a narrow interval is that of its middle.
    slope = torch.autograd.grad(log_interval(t, half).sum(), t)[0]
    assert torch.allclose(slope[4:], -t[4:], rtol=1e-7)


def test_densities_masses_and_quantiles_against_scipy():
    found = mixtures(1)
    weights, means, scales = found.log_weights[:, 0].exp(), found.means[:, 0], found.log_scales[:, 0].exp()
    z = torch.linspace(-6, 6, 41, dtype=torch.float64)
    parts = stats.norm(means.numpy(), scales.numpy())
    density = (parts.pdf(z[:, None]) * weights.numpy()).sum(1)
    below = (parts.cdf(z[:, None]) * weights.numpy()).sum(1)
    many = NormalMixtures(*(t.expand(-1, 41) for t in (found.log_weights, found.means, found.log_scales)))
    assert np.allclose(many.log_prob(z).exp(), density)
    assert np.allclose(many.log_cdf(z).exp(), below)
    assert np.allclose(many.log_sf(z).exp(), 1 - below)
    edges = (parts.cdf(z[:, None] + 0.1) - parts.cdf(z[:, None] - 0.1)) @ weights.numpy()
    assert np.allclose(many.log_mass(z, torch.full_like(z, 0.2)).exp(), edges)
    assert np.allclose(many.to_noise(z), stats.norm.ppf(below), atol=1e-6)
    level = torch.linspace(0.001, 0.999, 41, dtype=torch.float64)
    assert torch.allclose(many.log_cdf(many.quantile(level)).exp(), level)
    drawn = NormalMixtures(*(t.expand(-1, 20_000) for t in (found.log_weights, found.means, found.log_scales))).draw()
    assert stats.kstest(drawn.numpy(), lambda x: (parts.cdf(x[:, None]) * weights.numpy()).sum(1)).pvalue > 1e-3


def test_quantiles_far_out_and_between_separated_components():
    far = torch.tensor([-37.0, -300.0, 250.0, 0.0], dtype=torch.float64)
    found = mixtures(4)
    assert torch.allclose(found.to_noise(found.from_noise(far)), far, atol=1e-8, rtol=1e-10)
    apart = NormalMixtures(
        torch.full((2, 3), 0.5, dtype=torch.float64).log(),
        torch.tensor([[-1e3], [1e3]], dtype=torch.float64).expand(2, 3),
        torch.full((2, 3), -3.0, dtype=torch.float64),
    )
    noise = torch.tensor([-1.0, 0.3, 1e-9], dtype=torch.float64)
    assert torch.allclose(apart.to_noise(apart.from_noise(noise)), noise, atol=1e-7)
    with pytest.raises(ConvergenceError, match="1 of 4 quantiles"):
        found.from_noise(torch.tensor([0.0, float("nan"), 1.0, 2.0], dtype=torch.float64))


def test_normal_quantiles_of_tiny_probabilities():
    x = torch.tensor([-1.0, 0.0, 2.0, -12.0, -50.0, -1e4, 1e3], dtype=torch.float64)
    found = normal_quantile(torch.special.log_ndtr(x), torch.special.log_ndtr(-x))
    assert torch.allclose(found, x, rtol=1e-12, atol=1e-12)


def test_the_backward_pass_of_its_own():
    heads = torch.randn(3, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixture_log_density, (heads, u))
    assert torch.autograd.gradgradcheck(mixture_log_density, (heads, u))
    value = mixture_log_density(heads, u)
    as_class = NormalMixtures(heads[0].log_softmax(0), heads[1], heads[2]).log_prob(u)
    assert torch.allclose(value, as_class)
    with torch.no_grad():
        assert torch.allclose(mixture_log_density(heads, u), value)
    # Under torch.func it is plain operations.
    tangent = jvp(lambda x: mixture_log_density(heads.detach(), x), (u.detach(),), (torch.ones_like(u),))[1]
    assert torch.allclose(tangent, torch.autograd.grad(value.sum(), u)[0])
    rows = vmap(lambda h, x: mixture_log_density(h, x), in_dims=(3, 1))(heads.detach(), u.detach())
    assert torch.allclose(rows.T, value)


@pytest.mark.parametrize("size", [1e-3, 0.3, 5.0])
def test_the_backward_pass_of_masses(size):
    heads = torch.randn(3, 4, 2, 3, dtype=torch.float64, requires_grad=True)
    u = (2 * torch.randn(2, 3, dtype=torch.float64)).requires_grad_()
    half = (size * (0.5 + torch.rand(2, 3, dtype=torch.float64))).requires_grad_()
    assert torch.autograd.gradcheck(mixture_log_mass, (heads, u, half))
    assert torch.autograd.gradgradcheck(mixture_log_mass, (heads, u, half))
    as_class = NormalMixtures(heads[0].log_softmax(0), heads[1], heads[2]).log_mass(u, 2 * half)
    assert torch.allclose(mixture_log_mass(heads, u, half), as_class)
    with torch.no_grad():
        assert torch.allclose(mixture_log_mass(heads, u, half), as_class)
    extreme = torch.tensor([0.0, 1e6, -1e6, 3e5, 0.0, 30.0], requires_grad=True)
    widths = torch.tensor([0.0, 1e-20, 50.0, 1.0, 1e4, 0.01])
    single = heads[:, :, 0, :1].detach().float().expand(3, 4, 6).clone().requires_grad_()
    found = torch.autograd.grad(mixture_log_mass(single, extreme, widths).sum(), (single, extreme))
    assert all(grad.isfinite().all() for grad in found)


def test_derivatives_are_right_in_the_middle():
    half = torch.tensor(0.1, dtype=torch.float64)
    for t in (0.0, 1e-9, -1e-9):
        at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(log_interval(at, half), at, create_graph=True)
        (second,) = torch.autograd.grad(first, at)
        assert float(second) == pytest.approx(-0.99667, abs=1e-4)
    heads = torch.zeros(3, 2, 1, dtype=torch.float64)
    heads[1, 1] = 0.7
    u = torch.zeros(1, dtype=torch.float64)
    halves = torch.full((1,), 0.2, dtype=torch.float64)
    inputs = tuple(each.requires_grad_() for each in (heads, u, halves))
    assert torch.autograd.gradgradcheck(mixture_log_mass, inputs)


def test_the_expected_score_of_a_wide_cell_in_the_middle_has_its_slope():
    z = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    width = torch.full((1, 1), 0.5, dtype=torch.float64)
    (slope,) = torch.autograd.grad(expected_score(z, width)[0].sum(), z)
    step = 1e-5
    moved = [float(expected_score(torch.full_like(width, at), width)[0]) for at in (-step, step)]
    assert float(slope.detach()) == pytest.approx((moved[1] - moved[0]) / (2 * step), abs=1e-6)
    assert float(expected_score(z.detach(), width)[0]) == 0.0
