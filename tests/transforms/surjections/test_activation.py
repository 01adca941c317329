"""What the laws do not say about activations."""

import itertools
import math

import numpy
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify import testing, transforms
from likelify.distributions.normal import normal_log_prob
from likelify.distributions.rectified import RectifiedNormal
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.transforms.elementwise import ChannelAffine
from likelify.transforms.surjections import activation, truncated_normal

PAIRS = torch.tensor(list(itertools.product(range(3), repeat=2)))


GRID = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]


def mass(flow, grid=GRID):
    """The integral of a density on events (1,)."""
    with torch.no_grad():
        return float(torch.trapezoid(flow.log_prob(grid).exp(), grid[:, 0]))


def test_the_values_are_those_of_torch():
    x = 3 * torch.randn(4, 3, 2, dtype=torch.float64)
    module = nn.PReLU(3).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor([0.1, 0.5, 1.5]))
    for layer, function in (
        (activation.LeakyReLU(0.2), lambda v: F.leaky_relu(v, 0.2)),
        (activation.PReLU.from_module(module), module),
        (activation.ELU(0.7), lambda v: F.elu(v, 0.7)),
        (activation.celu(0.7), lambda v: F.celu(v, 0.7)),
        (activation.selu(), F.selu),
        (activation.Abs(), torch.abs),
        (activation.ReLU(), F.relu),
        (activation.NoisyReLU(), F.relu),
    ):
        assert torch.allclose(layer.double().mean_forward(x), function(x), atol=1e-12), layer


def test_maps_that_are_no_bijections_are_refused():
    for build in (
        lambda: activation.LeakyReLU(0.0),
        lambda: activation.LeakyReLU(-0.1),
        lambda: activation.PReLU(init=0.0),
        lambda: activation.ELU(-1.0),
        lambda: activation.NoisyReLU(noise_scale=0.0),
    ):
        with pytest.raises(ConfigError, match="positive"):
            build()
    module = nn.PReLU(2)
    with torch.no_grad():
        module.weight[0] = -0.1
    with pytest.raises(DomainError, match="1 of 2 slopes"):
        activation.PReLU.from_module(module)
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.weight[1] = 0.0
    with pytest.raises(DomainError, match="1 of 2 channels"):
        ChannelAffine.from_batch_norm(norm)
    with pytest.raises(UnsupportedError, match="running statistics"):
        ChannelAffine.from_batch_norm(nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ShapeError, match="channels"):
        ChannelAffine(torch.ones(2), torch.ones(3))
    with pytest.raises(ShapeError, match="3 channels"):
        activation.PReLU(3)(torch.zeros(1, 2))
    with pytest.raises(ShapeError, match=r"\(2, 12\) is needed"):
        activation.NoisyReLU(net=nn.Linear(3, 6))(torch.zeros(2, 3))


def test_numbers_outside_the_image_are_refused():
    below = torch.tensor([[-2.0]])
    for layer in (activation.ELU(), activation.selu(), activation.Abs(), activation.ReLU()):
        with pytest.raises(DomainError, match=type(layer).__name__):
            layer.inverse(below)
    assert torch.isfinite(activation.NoisyReLU().inverse(below)[1]).all()


def test_the_mass_beyond_the_image_of_elu_is_not_wasted_in_silence():
    with pytest.raises(UnsupportedError, match=r"end in \(-1, inf\), and its base Normal reaches over \(-inf, inf\)"):
        lk.Flow(lk.Normal((1,)), activation.ELU())
    fine = torch.linspace(-40, 12, 52001, dtype=torch.float64)[:, None]
    on_the_line = lk.Normal((1,)).double()
    z, log_slope = activation.ELU()(fine)
    density = (on_the_line.log_prob(z) + log_slope).exp()
    assert float(torch.trapezoid(density, fine[:, 0])) == pytest.approx(scipy.stats.norm.cdf(1), abs=1e-4)
    base = lk.Flow(lk.Normal((1,)), lk.Inverse(activation.ELU()))
    assert mass(lk.Flow(base, activation.ELU()).double(), fine) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("net", [lambda: None, lambda: nn.Linear(1, 1)])
def test_densities_behind_abs_integrate_to_one_and_samples_follow_them(net):
    layers = lk.Chain([activation.Abs(net()), lk.Inverse(transforms.Softplus()), lk.ActNorm(1)])
    flow = testing.randomize(lk.Flow(lk.Normal((1,)), layers)).double()
    assert flow.likelihood == "exact"
    testing.check_flow(flow, box=[(-8.0005, 8.0)], points=16000)


@pytest.mark.parametrize("net", [lambda: None, lambda: nn.Linear(1, 1)])
def test_densities_behind_relu_integrate_to_one_and_samples_follow_them(net):
    flow = testing.randomize(lk.Flow(RectifiedNormal((1,)), activation.ReLU(net()))).double()
    testing.check_flow(flow, box=[(-8.0005, 8.0)], points=16000)


def test_a_relu_behind_a_rotation_has_an_exact_density_in_the_plane():
    rotation = lk.Exponential(lk.Dense(torch.tensor([[0.0, 0.7], [-0.7, 0.0]]).double()))
    flow = testing.randomize(lk.Flow(RectifiedNormal((2,)), lk.Chain([rotation, activation.ReLU()]))).double()
    testing.check_flow(flow, box=[(-9.0, 9.0), (-9.0, 9.0)], points=700)


def test_the_rectified_normal_is_the_law_of_a_rectified_normal_number():
    base = RectifiedNormal((2,)).double()
    x = torch.relu(torch.randn(4000, 2, dtype=torch.float64) * torch.tensor([1.0, 2.0]))
    base.initialize(x)
    assert torch.allclose(base.log_odds.flatten(), torch.zeros(2).double(), atol=0.1)
    assert torch.allclose(base.log_scale.exp().flatten(), torch.tensor([1.0, 2.0]).double(), atol=0.1)
    drawn, log_prob = base.sample_and_log_prob((5000,))
    assert torch.allclose(log_prob, base.log_prob(drawn))
    assert (drawn == 0).double().mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.min() == 0
    zero, above = base.log_prob(torch.zeros(1, 2).double()), torch.tensor([[0.5, 1.0]]).double()
    assert torch.allclose(zero, F.logsigmoid(base.log_odds).sum())
    half = F.logsigmoid(-base.log_odds) + math.log(2) + normal_log_prob(above[0], torch.zeros(2), base.log_scale)
    assert torch.allclose(base.log_prob(above), half.sum())
    assert base.log_prob(-above).tolist() == [-math.inf]
    assert base.sample((3,), lk.Context(torch.zeros(4, 1))).shape == (3, 4, 2)
    with pytest.raises(ShapeError):
        base.log_prob(torch.zeros(1, 3))


def randomized(net=lambda: None):
    with lk.seeded(0):
        return testing.randomize(activation.NoisyReLU(noise_scale=0.3, net=net())).double()


@pytest.mark.parametrize("net", [lambda: None, lambda: nn.Linear(1, 4)])
@pytest.mark.parametrize("z", [-3.0, -0.4, 0.05, 0.6, 4.0])
def test_what_noisy_relu_draws_has_the_density_that_it_tells(net, z):
    layer = randomized(net)
    latent = torch.full((len(GRID), 1), z, dtype=torch.float64)
    with torch.no_grad():
        contribution = layer._contribution(GRID, latent, layer._posterior(latent, None), None)
        log_p = contribution + normal_log_prob(latent, torch.relu(GRID), layer.log_noise)[:, 0]
        # The density jumps at zero, where the grid has a point.
        p, step = log_p.exp(), GRID[1, 0] - GRID[0, 0]
        assert float(p.sum() * step) == pytest.approx(1, abs=5e-3)
        with lk.seeded(1):
            drawn = layer.inverse(torch.full((4000, 1), z, dtype=torch.float64))[0][:, 0]
    places, cdf = GRID[:, 0].numpy(), (p.cumsum(0) * step).numpy()
    found = scipy.stats.kstest(drawn.numpy(), lambda v: numpy.interp(v, places, cdf))
    assert found.pvalue > 1e-4


def test_the_bound_of_noisy_relu_is_tight_when_the_data_follow_its_prior():
    layer = randomized()
    noise, odds, above, below = layer.log_noise, layer.log_odds, layer.log_above, layer.log_below
    x = torch.randn(200, 1, dtype=torch.float64)
    z, contribution = layer(x)

    def half(v, log_scale):
        return math.log(2) + normal_log_prob(v, torch.zeros(()), log_scale)

    prior = torch.where(x > 0, F.logsigmoid(odds) + half(x, above), F.logsigmoid(-odds) + half(x, below))
    total = 0.5 * torch.logaddexp(2 * noise, 2 * above)
    ratio = z * torch.exp(above - noise - total)
    upper = F.logsigmoid(odds) + half(z, total) + torch.special.log_ndtr(ratio)
    made = torch.logaddexp(upper, F.logsigmoid(-odds) + normal_log_prob(z, torch.zeros(()), noise))
    assert torch.allclose(contribution, (prior - made)[:, 0], atol=1e-9)


@pytest.mark.parametrize("net", [lambda: None, lambda: nn.Linear(2, 8)])
def test_weights_of_noisy_relu_are_unbiased_both_ways(net):
    mix = lk.Exponential(lk.Dense(torch.tensor([[0.1, 0.5], [-0.3, 0.2]]).double()))
    layers = [lk.Dequantize(3), lk.Affine(scale=1 / 3), lk.Logit(), mix, randomized(net), lk.ActNorm(2)]
    testing.check_weights(lk.Flow(lk.Normal((2,)), lk.Chain(layers)).double(), PAIRS)


@pytest.mark.parametrize("layer", [activation.Abs(nn.Linear(2, 2)), activation.ReLU(), activation.NoisyReLU()])
def test_temperature_zero_gives_the_likeliest(layer):
    z = torch.tensor([[0.0, 2.0]])
    cold = layer.inverse(z, lk.Context(temperature=0.0))[0]
    mean = layer.mean_inverse(z)
    close = 0.05 if isinstance(layer, activation.NoisyReLU) else 0.0
    assert float((cold - mean).detach().abs().max()) <= close
    assert torch.equal(layer.mean_forward(mean), z)


def test_draws_cut_off_at_zero_follow_their_law_and_keep_their_digits():
    for ratio in (-50.0, -3.0, -0.5, 0.0, 0.5, 4.0):
        loc, log_scale = torch.full((3000,), ratio * 2.0), torch.tensor(math.log(2.0))
        for dtype in (torch.float32, torch.float64):
            with lk.seeded(3):
                drawn = truncated_normal.sample_positive_normal(loc.to(dtype), log_scale.to(dtype))
            distribution = scipy.stats.truncnorm(-ratio, math.inf, loc=2 * ratio, scale=2)
            assert float(drawn.min()) >= 0
            assert scipy.stats.kstest(drawn.double().numpy(), distribution.cdf).pvalue > 1e-4
            x = drawn[:50]
            expected = torch.as_tensor(distribution.logpdf(x.double().numpy()))
            log_prob = truncated_normal.positive_normal_log_prob(x, loc[:50].to(dtype), log_scale.to(dtype))
            assert torch.allclose(log_prob.double(), expected, rtol=1e-5, atol=1e-5 if dtype == torch.float64 else 1e-4)


def test_noisy_relu_is_finite_far_out_in_float32():
    layer = activation.NoisyReLU(noise_scale=1e-3)
    z = torch.tensor([[-300.0, -3.0, 0.0, 3.0, 300.0]])
    x, contribution = layer.inverse(z)
    assert torch.isfinite(x).all()
    assert torch.isfinite(contribution).all()
    grads = torch.autograd.grad(contribution.sum(), list(layer.parameters()))
    assert all(bool(torch.isfinite(grad)) for grad in grads)


def test_initialize_fits_the_trained_numbers_to_a_sample():
    x = torch.where(torch.rand(4000, 2) < 0.8, 2.0, -3.0) * torch.randn(4000, 2).abs()
    noisy, relu, absolute = activation.NoisyReLU(), activation.ReLU(), activation.Abs()
    for layer in (noisy, relu, absolute):
        layer.initialize(x)
    for found, true in (
        (torch.sigmoid(noisy.log_odds), 0.8),
        (noisy.log_above.exp(), 2.0),
        (noisy.log_below.exp(), 3.0),
        (relu.log_scale.exp(), 3.0),
        (torch.sigmoid(absolute.log_odds), 0.8),
    ):
        assert float(found.detach()) == pytest.approx(true, rel=0.05)


def test_a_flow_refuses_a_relu_before_a_base_without_atoms():
    with pytest.raises(UnsupportedError, match="RectifiedNormal"):
        lk.Flow(lk.Normal((2,)), lk.Chain([lk.ActNorm(2), transforms.ReLU()]))
    assert lk.Flow(lk.distributions.RectifiedNormal((2,)), transforms.ReLU()).likelihood == "exact"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_tail_far_below_zero_has_its_slope(dtype):
    r = torch.tensor([-1e5, -1e4, -1e3, -60.0, -50.1, -49.9, -20.0, -3.0], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(truncated_normal.log_scaled_tail(r).sum(), r)
    # The derivative is r plus the inverse Mills ratio, -1/r + 2/r^3 - 10/r^5 + ... far out.
    exact = [float(scipy.stats.norm.pdf(v) / scipy.stats.norm.cdf(v) + v) for v in (-20.0, -3.0)]
    x = r.detach().double()[:6]
    series = -1 / x + 2 / x**3 - 10 / x**5 + 74 / x**7
    expected = torch.cat([series, torch.tensor(exact, dtype=torch.float64)])
    torch.testing.assert_close(slope.double(), expected, rtol=5e-4 if dtype == torch.float32 else 1e-9, atol=0)
