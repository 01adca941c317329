"""Linear layers with a free weight: their densities against dense algebra, total mass, pretrained layers, refusals."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import likelify as lk
from likelify import testing
from likelify.errors import ConfigError, DomainError, ShapeError, StateError
from likelify.nets import density_nets
from likelify.transforms.mixing.circular import CircularConv
from likelify.transforms.surjections.fibre import FreeLinear
from tests.cases.common import normal
from tests.cases.fibre import LAYERS


def randomized(layer, scale=0.3):
    return testing.randomize(layer.double(), scale=scale)


def matrix_of(layer, shape):
    """Return the matrix and the offset of a layer's noise-free map."""
    size = math.prod(shape)
    with torch.no_grad():
        offset = layer.mean_forward(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        return (layer.mean_forward(units).flatten(1) - offset).T, offset


@pytest.mark.parametrize("name", LAYERS)
def test_laws(name):
    case = LAYERS[name]
    testing.check_transform(randomized(case.build(), case.scale), case.data(), case.context())


REDUCING = {
    "rows": (lambda: FreeLinear(5, 2), (5,)),
    "groups": (lambda: FreeLinear(6, 4, groups=2), (6,)),
    "sequence": (lambda: FreeLinear(4, 2, groups=2, dims=1), (4, 3)),
    "conv": (lambda: CircularConv(3, 2), (3, 3, 2)),
    "conv-groups": (lambda: CircularConv(4, 2, groups=2, dims=1), (4, 4)),
}


def law_on_fibres(layer, x):
    """Return mean and covariance of `N(m(z), S)` in data space, for one row, read off the network of the layer."""
    density, shape = layer.density, tuple(x.shape[1:])
    with torch.no_grad():
        raw = density.net(layer(x)[0])
        log_scale = 3 * torch.tanh(raw[:, : layer.groups] / 3)
        if isinstance(layer, CircularConv):
            log_scale = log_scale.mean(tuple(range(2, log_scale.ndim)), keepdim=True)
        deviations = density.deviations(x.ndim)
        scales = (log_scale.exp().repeat_interleave(shape[0] // layer.groups, 1) * deviations).expand_as(x)
        raw_mean = raw[:, layer.groups :] + density.location.reshape(-1, *(1,) * (x.ndim - 2))
        return (raw_mean * deviations).flatten(), scales.flatten().square().diag()


@pytest.mark.parametrize("name", REDUCING)
def test_the_contribution_is_the_ratio_of_two_normal_densities(name):
    build, shape = REDUCING[name]
    layer = randomized(build())
    weight, _ = matrix_of(layer, shape)
    for x in normal(3, 1, *shape):
        mean, covariance = law_on_fibres(layer, x)
        ratio = MultivariateNormal(mean, covariance).log_prob(x.flatten())
        ratio -= MultivariateNormal(weight @ mean, weight @ covariance @ weight.T).log_prob(weight @ x.flatten())
        assert abs(float(layer(x)[1].detach() - ratio)) < 1e-9


@pytest.mark.parametrize("name", REDUCING)
def test_the_contribution_is_that_of_the_singular_value_form(name):
    """1/2 log det W W^T, and a density of the coordinates along an orthonormal basis of the null space."""
    build, shape = REDUCING[name]
    layer = randomized(build())
    weight, offset = matrix_of(layer, shape)
    basis = torch.linalg.svd(weight)[2][len(weight) :]
    for x in normal(3, 1, *shape):
        mean, covariance = law_on_fibres(layer, x)
        start = torch.linalg.pinv(weight) @ (layer(x)[0].detach().flatten() - offset)
        solved = torch.linalg.solve(covariance, basis.T)
        precision = basis @ solved
        own_mean = torch.linalg.solve(precision, solved.T @ (mean - start))
        log_prob = MultivariateNormal(own_mean, precision_matrix=precision).log_prob(basis @ x.flatten())
        assert abs(float(layer(x)[1].detach() - log_prob - 0.5 * torch.logdet(weight @ weight.T))) < 1e-9


@pytest.mark.parametrize("name", REDUCING)
def test_a_linear_model_is_the_normal_law_that_it_is(name):
    """With a constant network x = W^+ z + noise on the fibre is normal, with a covariance to be written down."""
    build, shape = REDUCING[name]
    layer = randomized(build(), scale=0.2)
    for parameter in layer.density.net.parameters():
        parameter.detach().zero_()
    weight, offset = matrix_of(layer, shape)
    mean, covariance = law_on_fibres(layer, normal(1, *shape))
    right = covariance @ weight.T @ torch.linalg.inv(weight @ covariance @ weight.T)
    rest = torch.eye(len(mean), dtype=torch.float64) - right @ weight
    expected = MultivariateNormal(rest @ mean - right @ offset, right @ right.T + rest @ covariance @ rest.T)
    flow = lk.Flow(lk.Normal(layer.out_shape(shape)).double(), layer)
    x = normal(4, *shape)
    assert torch.allclose(flow.log_prob(x), expected.log_prob(x.flatten(1)), atol=1e-9)
    with lk.seeded(0), torch.no_grad():
        drawn = flow.sample((40000,)).flatten(1)
    assert torch.allclose(drawn.T.cov(), expected.covariance_matrix, atol=0.1 * float(expected.covariance_matrix.max()))
    assert torch.allclose(drawn.mean(0), expected.mean, atol=0.1)


@pytest.mark.parametrize("noise", ["normal", "uniform"])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_noise_is_that_of_the_complement(noise, shape):
    """Density against the sampler's own moments: orthogonal to W, with the variance of the noise in every direction."""
    layer = FreeLinear(2, 5, noise=noise) if len(shape) == 1 else CircularConv(2, 5, dims=1, noise=noise)
    layer = randomized(layer, 0.1)
    shape = (2, *shape[1:])
    dense, _ = matrix_of(layer, shape)
    basis = torch.linalg.svd(dense)[0][:, dense.shape[1] :]
    x = normal(1, *shape)
    with torch.no_grad(), lk.seeded(0):
        rows = x.expand(20000, *shape)
        u = (layer(rows)[0] - layer.mean_forward(rows)).flatten(1)
        contribution = layer(x)[1]
    assert float((u @ dense).abs().max()) < 1e-9
    scale, freedom = float(layer.noise.log_scale.detach().exp()), basis.shape[1]
    variance = scale**2 if noise == "normal" else scale**2 / (freedom + 2)
    assert torch.allclose((u @ basis).T.cov() / variance, torch.eye(freedom, dtype=torch.float64), atol=0.07)
    if noise == "uniform":
        assert float(u.norm(dim=1).max()) <= scale
        volume = math.pi ** (freedom / 2) * scale**freedom / math.gamma(freedom / 2 + 1)
        assert abs(float(contribution) - 0.5 * float(torch.logdet(dense.T @ dense)) - math.log(volume)) < 1e-9


def test_what_lies_outside_of_uniform_noise_has_no_density():
    layer = FreeLinear(1, 3, noise="uniform").double()
    z = torch.cat([layer(normal(1, 1))[0], 50 * normal(1, 3)])
    assert torch.isinf(layer.inverse(z)[1]).tolist() == [False, True]


MASSES = {
    "2 -> 2": (lambda: [FreeLinear(2, 2)], (2,)),
    "2 -> 1": (lambda: [FreeLinear(2, 1)], (2,)),
    "1 -> 2": (lambda: [FreeLinear(1, 2)], (1,)),
    "2 -> 3": (lambda: [FreeLinear(2, 3)], (2,)),
    "2 -> 3 -> 2": (lambda: [FreeLinear(2, 3), FreeLinear(3, 2)], (2,)),
    "1 -> 3 with a posterior": (lambda: [FreeLinear(1, 3, posterior_factory=density_nets(0))], (1,)),
    "convolution 2 -> 1": (lambda: [CircularConv(2, 1, dims=1)], (2, 1)),
    "convolution 1 -> 1": (lambda: [CircularConv(1, 1, dims=1)], (1, 2)),
    "convolution 1 -> 2": (lambda: [CircularConv(1, 2, dims=1)], (1, 2)),
}


def tiny_flow(layers, shape):
    chain = lk.Chain(layers)
    return randomized(lk.Flow(lk.Normal(chain.out_shape(shape)), chain), 0.2)


@pytest.mark.parametrize("name", MASSES)
def test_total_mass(name):
    build, shape = MASSES[name]
    torch.manual_seed(0)
    flow = tiny_flow(build(), shape)
    testing.check_mass(flow, -9, 9, 400 if shape == (1,) else 120, event_shape=shape, draws=60)


def test_uniform_noise_loses_mass_and_the_law_says_so():
    torch.manual_seed(0)
    flow = tiny_flow([FreeLinear(1, 3, noise="uniform")], (1,))
    with pytest.raises(AssertionError, match="below 1"):
        testing.check_mass(flow, -9, 9, event_shape=(1,))
    testing.check_mass(flow, -9, 9, event_shape=(1,), leaky=True)


class Constant(nn.Module):
    """A network that looks at nothing."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(out_channels))

    def forward(self, z):
        return self.value.reshape(-1, *(1,) * (z.ndim - 2)).expand(len(z), -1, *z.shape[2:])


class Wrong(lk.Transform):
    """A constant is missing."""

    def __init__(self, layer, nats):
        super().__init__()
        self.layer, self.nats = layer, nats
        self.random_forward = layer.random_forward

    def forward(self, x, context=None):
        z, contribution = self.layer(x, context)
        return z, contribution + self.nats


@pytest.mark.parametrize("layer", [lambda: FreeLinear(1, 1), lambda: FreeLinear(1, 2)])
@pytest.mark.parametrize(("nats", "message"), [(0.05, "above 1"), (-0.05, "below 1")])
def test_the_law_of_total_mass_sees_a_missing_constant(layer, nats, message):
    torch.manual_seed(0)
    flow = lk.Flow(lk.Normal(layer().out_shape((1,))), Wrong(layer(), nats)).double()
    with pytest.raises(AssertionError, match=f"(density|weight) integrates.*{message}"):
        testing.check_mass(flow, [-9.0], [9.0], 400, event_shape=(1,))


def test_the_law_of_total_mass_needs_a_grid():
    with pytest.raises(AssertionError, match="no grid"):
        testing.check_mass(lk.Flow(lk.Normal((3,)), FreeLinear(3, 3)), -5, 5, event_shape=(3,))


@pytest.mark.parametrize("out", [3, 5, 8])
def test_a_pretrained_linear_layer_is_taken_as_it_is(out):
    module = nn.Linear(5, out)
    layer = FreeLinear(5, out, weight=module.weight, bias=module.bias)
    x = torch.randn(7, 5)
    layer.initialize(x)
    assert torch.allclose(layer.mean_forward(x), module(x), atol=1e-5)
    assert torch.equal(layer.matrix(), module.weight)
    assert torch.equal(layer.bias, module.bias)
    assert layer.weight.data_ptr() != module.weight.data_ptr()
    if out != 8:
        assert torch.allclose(layer(x)[0], module(x), atol=1e-5)
        assert torch.allclose(module(layer.mean_inverse(module(x))), module(x), atol=1e-4)
    if out != 3:
        assert torch.allclose(layer.mean_inverse(module(x)), x, atol=1e-4)


@pytest.mark.parametrize("out", [2, 4, 6])
@pytest.mark.parametrize(("kind", "dims"), [(nn.Conv1d, 1), (nn.Conv2d, 2)])
@pytest.mark.parametrize(("groups", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_a_pretrained_circular_convolution_is_taken_as_it_is(kind, dims, out, groups, dilation):
    settings = {"dilation": dilation, "groups": groups}
    module = kind(4, out, 3, padding="same", padding_mode="circular", **settings).double()
    layer = CircularConv(4, out, 3, dims=dims, weight=module.weight, bias=module.bias, **settings).double()
    x = normal(3, 4, *(6, 5)[:dims])
    layer.initialize(x)
    assert torch.allclose(layer.mean_forward(x), module(x), atol=1e-12)


def test_a_pointwise_convolution_is_a_matrix():
    module = nn.Conv2d(4, 6, 1, groups=2)
    layer = FreeLinear(4, 6, weight=module.weight.flatten(1), bias=module.bias, groups=2, dims=2)
    x = torch.randn(2, 4, 3, 3)
    assert torch.allclose(layer.mean_forward(x), module(x), atol=1e-6)
    assert layer.matrix().shape == (6, 4)
    assert int((layer.matrix() == 0).sum()) == 12


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (3, 2)])
def test_a_weight_without_full_rank_is_refused(shape):
    out, in_ = shape
    with pytest.raises(DomainError, match="FreeLinear has no full rank.*drop the outputs or inputs"):
        FreeLinear(in_, out, weight=torch.ones(shape))
    with pytest.raises(DomainError, match="CircularConv has no full rank"):
        CircularConv(in_, out, dims=1, weight=torch.ones(*shape, 3))
    layer = FreeLinear(in_, out)
    layer.weight.detach().fill_(1.0)
    for call in (layer, layer.inverse, layer.mean_forward):
        with pytest.raises(DomainError, match="FreeLinear has lost its full rank.*smaller learning rate"):
            call(torch.randn(2, in_ if call != layer.inverse else out))


def test_a_frequency_without_full_rank_is_refused_with_its_size():
    layer = CircularConv(1, 1, dims=1, weight=torch.tensor([[[0.5, 1.0, 0.5]]]))
    layer(torch.randn(2, 1, 5))
    with pytest.raises(DomainError, match=r"on \(4,\) has lost its full rank: for 1 of 3"):
        layer(torch.randn(2, 1, 4))


def test_settings_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="groups"):
        FreeLinear(4, 3, groups=2)
    with pytest.raises(ConfigError, match="Noise"):
        FreeLinear(2, 3, noise="cauchy")
    with pytest.raises(ShapeError, match="kernel_size"):
        CircularConv(2, 3, (3, 3), dims=1)
    with pytest.raises(ShapeError, match="odd"):
        CircularConv(2, 3, 4)
    with pytest.raises(ShapeError, match="weight"):
        FreeLinear(2, 3, weight=torch.ones(2, 3))
    with pytest.raises(ShapeError, match="bias"):
        FreeLinear(2, 3, bias=torch.ones(2))
    with pytest.raises(ShapeError, match="3 channels"):
        FreeLinear(3, 2)(torch.randn(2, 4))
    with pytest.raises(ShapeError, match="dims=2"):
        FreeLinear(3, 2)(torch.randn(2, 3, 4, 4))
    with pytest.raises(ShapeError, match="height, width"):
        CircularConv(3, 2)(torch.randn(2, 3, 4))
    with pytest.raises(ShapeError, match="3 channels"):
        CircularConv(3, 2).out_shape((2, 4, 4))


INVERSES = [lambda: (FreeLinear(5, 2), (2,)), lambda: (CircularConv(4, 2, dims=1), (2, 5))]


@pytest.mark.parametrize("build", INVERSES)
def test_temperature_scales_what_the_inverse_draws(build):
    layer, shape = build()
    layer = randomized(layer)
    z = normal(1, *shape).expand(3000, *shape)
    with torch.no_grad(), lk.seeded(0):
        mean = layer.mean_inverse(z)
        assert torch.allclose(layer.inverse(z, lk.Context(temperature=0.0))[0], mean, atol=1e-12)
        spreads = [(layer.inverse(z, lk.Context(temperature=t))[0] - mean).std() for t in (0.5, 1.0)]
    assert abs(float(spreads[1] / spreads[0]) - 2) < 0.1
    assert torch.allclose(layer(mean)[0], z, atol=1e-9)


@pytest.mark.parametrize("out", [2, 4, 6])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_fresh_layer_starts_at_the_principal_directions(out, groups):
    scales = torch.tensor([5.0, 0.3, 2.0, 1.0], dtype=torch.float64)
    x = normal(2000, 4) @ normal(4, 4) * scales + 3
    layer = FreeLinear(4, out, groups=groups).double()
    z = layer.initialize(x)
    assert float(z.mean(0).abs().max()) < 0.1
    assert torch.allclose(z.std(0), torch.ones(out, dtype=torch.float64), atol=0.15)


@pytest.mark.parametrize("out", [2, 4, 6])
def test_a_fresh_convolution_starts_at_the_principal_directions(out):
    x = 4 * normal(300, 4, 5, 6) + 3
    z = CircularConv(4, out).double().initialize(x)
    assert float(z.mean((0, 2, 3)).abs().max()) < 0.1
    assert torch.allclose(z.std((0, 2, 3)), torch.ones(out, dtype=torch.float64), atol=0.2)


STARTS = [(FreeLinear, ()), (CircularConv, (3, 4))]


def average(layer, x):
    with torch.no_grad():
        return float(layer(x)[1].mean()) / math.prod(x.shape[2:])


@pytest.mark.parametrize(("build", "positions"), STARTS)
def test_a_pretrained_layer_starts_at_the_likeliest_variances(build, positions):
    """Data that are normal with a diagonal covariance: the start reaches the true conditional distribution."""
    axes = (1,) * len(positions)
    deviations, mean = normal(6, *axes).exp(), 4 * normal(6, *axes)
    x = deviations * normal(2000, 6, *positions) + mean
    layer = build(6, 2, weight=torch.randn_like(build(6, 2).weight)).double()
    best = copy.deepcopy(layer)
    best.density.log_deviation.detach().copy_(deviations.flatten().log())
    best.density.location.detach().copy_((mean / deviations).flatten())
    layer.initialize(x)
    assert abs(average(layer, x) - average(best, x)) < 0.02


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize(("build", "positions"), STARTS)
def test_the_start_climbs_the_likelihood(build, positions, pretrained):
    """With strong factors the variances of the channels, where the climb begins, are far from the best."""
    x = normal(2000, 2, *positions)
    x = FreeLinear(2, 8, weight=5 * normal(8, 2)).double().mean_forward(x).detach()
    x = x + normal(2000, 8, *positions) * normal(8, *(1,) * len(positions)).exp()
    weight = torch.randn_like(build(8, 2).weight) if pretrained else None
    layer = build(8, 2, weight=weight, net_factory=Constant).double()
    layer.initialize(x)
    reached = average(layer, x)
    started = copy.deepcopy(layer)
    started.density.log_deviation.detach().copy_(x.movedim(1, -1).flatten(0, -2).std(0).log())
    assert reached > average(started, x) + (0 if pretrained else 0.5)
    if not pretrained:
        return
    optimizer = torch.optim.Adam(layer.density.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        (-layer(x[:300])[1].mean()).backward()
        optimizer.step()
    assert average(layer, x) < reached + 0.1


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_the_scale_of_the_noise_follows_the_data(noise):
    weight = normal(4, 2)
    layer = FreeLinear(2, 4, weight=weight, noise=noise).double()
    x = 100 * normal(4000, 2)
    z = layer.initialize(x)
    values = torch.linalg.eigvalsh(z.T.cov()) / 1e4
    signal = torch.linalg.eigvalsh(weight @ weight.T)[2:].mean()
    assert torch.allclose(values.sum() / (4 * signal), torch.ones((), dtype=torch.float64), atol=0.1)


def test_constant_channels_do_not_break_the_start():
    x = torch.cat([torch.randn(50, 2), torch.zeros(50, 2)], 1)
    for out in (3, 4, 6):
        layer = FreeLinear(4, out)
        z = layer.initialize(x)
        assert bool(torch.isfinite(z).all())
        assert bool(torch.isfinite(layer(x)[1]).all())


def test_large_layers_in_single_precision():
    layer = FreeLinear(200, 190, weight=torch.randn(190, 200))
    z = torch.randn(20, 190)
    with torch.no_grad(), lk.seeded(0):
        x, undone = layer.inverse(z)
        again, contribution = layer(x)
    assert float((again - z).abs().max()) < 1e-3
    assert float((undone + contribution).abs().max()) < 1e-2


def test_frozen_layers_keep_factorizations_and_notice_changes():
    for layer, shape in ((FreeLinear(4, 2), (4,)), (CircularConv(4, 2, dims=1), (4, 5))):
        x = torch.randn(3, *shape)
        with layer.frozen():
            z, contribution = layer(x)
            layer.inverse(z)
            assert len(layer._cache) == 2
            assert torch.equal(layer(x)[1], contribution)
            with torch.no_grad():
                layer.weight.mul_(2)
            with pytest.raises(StateError):
                layer(x)


def test_autocast_changes_nothing():
    x = torch.randn(3, 4)
    for layer in (FreeLinear(4, 2), FreeLinear(4, 6), FreeLinear(4, 4)):
        expected = layer.mean_forward(x)
        with torch.autocast("cpu", torch.bfloat16), lk.seeded(0):
            z, contribution = layer(x)
        assert z.dtype == contribution.dtype == torch.float32
        if not layer.random_forward:
            assert torch.allclose(z, expected, atol=1e-6)


def test_layers_can_be_vectorized_over_weights():
    layer = FreeLinear(3, 2).double()
    weights, x = normal(4, 2, 3), normal(5, 3)

    def contribution(weight):
        return torch.func.functional_call(layer, {"weight": weight}, (x,))[1]

    expected = torch.stack([contribution(weight) for weight in weights])
    assert torch.allclose(torch.vmap(contribution)(weights), expected)
