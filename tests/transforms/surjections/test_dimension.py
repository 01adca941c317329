"""Copies, pads, linear layers and convolutions: against torch's own, and against densities written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify import nets, transforms
from likelify.distributions import ChannelNoise
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.transforms.surjections.combinators import Parallel, concat, residual
from likelify.transforms.surjections.convolution import convolution, transposed_convolution
from likelify.transforms.surjections.copying import FoldSum, Repeat, Sum, Unfold
from likelify.transforms.surjections.dimension import Augment, Crop, Pad
from likelify.transforms.surjections.linear import linear
from tests.cases.common import normal

METHODS = ["exponential", "cayley", "householder", "free"]


def normal_log_density(u, scale):
    return (-0.5 * (u / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)).sum()


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "options"),
    [
        ((7, 6), (3, 4), 3, {"padding": 1}),
        ((7, 6), (3, 2), (2, 3), {"stride": (2, 1), "dilation": (2, 1)}),
        ((5, 5), (2, 3), 1, {"stride": 2}),
        ((8, 8), (2, 8), 2, {"stride": 2}),
        ((9, 7), (2, 3), 2, {"stride": 3, "padding": (1, 0)}),
        ((6, 6), (4, 6), 3, {"stride": 2, "groups": 2, "padding": 1}),
        ((6,), (4, 4), 3, {"groups": 4}),
        ((9,), (2, 3), 3, {"stride": 4, "dilation": 2}),
        ((6, 6), (4, 6), 3, {"padding": "same"}),
    ],
)
@pytest.mark.parametrize("method", ["cayley", "free"])
def test_convolution_has_the_mean_path_of_torch(size, channels, kernel, options, method):
    module = (nn.Conv1d if len(size) == 1 else nn.Conv2d)(*channels, kernel, **options).double()
    settings = {"bias": module.bias.detach(), "weight": module.weight.detach(), "method": method}
    layer = convolution((channels[0], *size), channels[1], kernel, **options, **settings).double()
    x = normal(3, channels[0], *size)
    z = layer.mean_forward(x)
    torch.testing.assert_close(z, module(x), rtol=1e-9, atol=1e-9)
    assert layer.out_shape(tuple(x.shape[1:])) == tuple(z.shape[1:]) == tuple(layer(x)[0].shape[1:])
    assert layer.inverse(z)[0].shape == layer.mean_inverse(z).shape == x.shape


@pytest.mark.parametrize(
    ("size", "channels", "kernel", "options"),
    [
        ((3, 4), (3, 2), 2, {"stride": 2}),
        ((3, 4), (3, 2), 3, {"stride": 2, "padding": 1, "output_padding": 1}),
        ((3, 4), (2, 3), 3, {"stride": 2, "output_padding": 1}),
        ((3,), (4, 2), 2, {"stride": 3}),
        ((3, 3), (4, 2), (3, 2), {"dilation": 2, "groups": 2, "padding": (1, 0)}),
    ],
)
@pytest.mark.parametrize("method", ["cayley", "free"])
def test_transposed_convolution_has_the_mean_path_of_torch(size, channels, kernel, options, method):
    module = (nn.ConvTranspose1d if len(size) == 1 else nn.ConvTranspose2d)(*channels, kernel, **options).double()
    settings = {"bias": module.bias.detach(), "weight": module.weight.detach(), "method": method}
    layer = transposed_convolution((channels[0], *size), channels[1], kernel, **options, **settings).double()
    x = normal(3, channels[0], *size)
    z = layer.mean_forward(x)
    torch.testing.assert_close(z, module(x), rtol=1e-9, atol=1e-9)
    assert layer.out_shape(tuple(x.shape[1:])) == tuple(z.shape[1:]) == tuple(layer(x)[0].shape[1:])
    assert layer.inverse(z)[0].shape == layer.mean_inverse(z).shape == x.shape


def test_convolutions_say_whether_they_are_exact():
    assert convolution((1, 4, 4), 4, 2, stride=2).likelihood == "exact"
    assert convolution((1, 5, 5), 4, 2, stride=3).likelihood == "exact"
    assert convolution((1, 4, 4), 5, 2, stride=2).likelihood == "bound"
    assert convolution((1, 4, 4), 4, 2).likelihood == "bound"
    assert convolution((1, 4, 4), 4, 2, stride=2, padding=1).likelihood == "bound"
    assert transposed_convolution((4, 2, 2), 1, 2, stride=2).likelihood == "exact"
    assert transposed_convolution((4, 2, 2), 1, 2, stride=3).likelihood == "bound"


def test_fit_pads_behind_as_the_paper_does():
    assert convolution((1, 28, 28), 16, 3, stride=2, padding="fit").out_shape((1, 28, 28)) == (16, 14, 14)
    assert convolution((32, 3, 3), 48, 2, padding="fit").out_shape((32, 3, 3)) == (48, 2, 2)
    assert convolution((2, 1, 1), 3, 3, stride=2, padding="fit").out_shape((2, 1, 1)) == (3, 1, 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("before", "after"), [(4, 4), (5, 3), (3, 5)])
def test_linear_takes_a_weight_as_it_is(method, before, after):
    module = nn.Linear(before, after).double()
    if before == after:
        with torch.no_grad():
            module.weight[0] *= -module.weight.detach().det().sign()
    layer = linear(before, after, method=method, weight=module.weight.detach(), bias=module.bias.detach()).double()
    x = normal(6, before)
    torch.testing.assert_close(layer.mean_forward(x), module(x), rtol=1e-10, atol=1e-10)
    if before == after:
        assert float(module.weight.detach().det()) < 0
        torch.testing.assert_close(layer(x)[1], torch.linalg.slogdet(module.weight)[1].expand(6))
    layer.initialize(x)
    torch.testing.assert_close(layer.mean_forward(x), module(x), rtol=1e-10, atol=1e-10)
    if method != "free":
        torch.testing.assert_close(layer.matrix(), module.weight, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_without_full_rank_is_refused(method):
    weight = torch.randn(3, 5)
    weight[2] = weight[0] + weight[1]
    with pytest.raises(DomainError, match="rank"):
        linear(5, 3, method=method, weight=weight)


def test_a_reducing_layer_has_the_density_of_its_parts():
    """sum log s + log N(dropped) against the same from the singular value decomposition, with a silent network."""
    weight = normal(2, 4)
    layer = linear(4, 2, weight=weight).double()
    x = normal(5, 4)
    _, s, vh = torch.linalg.svd(weight)
    expected = s.log().sum() + torch.stack([normal_log_density(row, 1.0) for row in x @ vh[2:].T])
    torch.testing.assert_close(layer(x)[1], expected)


def test_initialize_finds_principal_axes():
    spread = torch.diag(torch.tensor([0.1, 3.0, 1.0], dtype=torch.float64))
    turn, _ = torch.linalg.qr(normal(3, 3))
    x = normal(4000, 3) @ spread @ turn + 5
    layer = linear(3, 2).double()
    z = layer.initialize(x)
    torch.testing.assert_close(z.std(0), torch.ones(2, dtype=torch.float64), rtol=0.05, atol=0.05)
    # What is dropped is the narrowest direction.
    dropped = (x - x.mean(0)) @ turn.T[:, 0]
    assert float((torch.corrcoef(torch.stack([dropped, z[:, 0], z[:, 1]]))[0, 1:]).abs().max()) < 0.1
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0)).log_prob(x)
    flow = lk.Flow(lk.Normal((2,)).double(), layer)
    assert abs(float((flow.log_prob(x) - gaussian).detach().mean())) < 0.01


def test_initialize_survives_fewer_rows_than_channels():
    x = torch.randn(20, 30) @ torch.randn(30, 30)
    flow = lk.Flow(lk.Normal((8,)), lk.Chain([linear(30, 16), linear(16, 8)]))
    flow.initialize(x)
    assert float(flow.log_prob(torch.randn(100, 30) @ torch.randn(30, 30)).detach().min()) > -1e4


def test_repetition_noise_has_the_law_of_direction_and_radius():
    """The projected normal against a uniform direction and a chi-distributed radius, by moments of both."""
    copies, rows = 4, 20000
    t, contribution = (v.detach() for v in Repeat(1, copies).double()(torch.zeros(rows, 1, dtype=torch.float64)))
    radius = t.norm(dim=1)
    mean = math.sqrt(2) * math.gamma(copies / 2) / math.gamma((copies - 1) / 2)
    assert abs(float(radius.mean()) - mean) < 0.02
    assert abs(float((radius**2).mean()) - (copies - 1)) < 0.08
    direction = t / radius[:, None]
    assert float(direction.mean(0).abs().max()) < 0.02
    covariance = (torch.eye(copies) - 1 / copies) / (copies - 1)
    assert float((direction.T @ direction / rows - covariance).abs().max()) < 0.01
    expected = 0.5 * math.log(copies) + 0.5 * (copies - 1) * math.log(2 * math.pi) + 0.5 * radius**2
    torch.testing.assert_close(contribution, expected)


def test_uniform_repetition_noise_fills_the_ball():
    copies, rows = 4, 20000
    layer = Repeat(1, copies, noise="uniform").double()
    with torch.no_grad():
        layer.noise.log_scale.fill_(math.log(2.0))
    t, contribution = (v.detach() for v in layer(torch.zeros(rows, 1, dtype=torch.float64)))
    volume = t.norm(dim=1) / 2
    volume = volume ** (copies - 1)
    assert float(volume.max()) <= 1 + 1e-9
    assert abs(float(volume.mean()) - 0.5) < 0.01
    assert abs(float(volume.var()) - 1 / 12) < 0.005
    ball = math.pi**1.5 / math.gamma(2.5) * 2**3
    torch.testing.assert_close(contribution, torch.full((rows,), 0.5 * math.log(copies) + math.log(ball)).double())
    assert float(layer.inverse(torch.tensor([[9.0, -9.0, 0.0, 0.0]], dtype=torch.float64))[1].detach()) == -math.inf


def test_unfold_has_the_density_of_a_basis():
    """The contribution against the density in an explicit orthonormal basis of each pixel's copies."""
    shape, kernel = (1, 3, 4), 2
    layer = Unfold(shape, kernel).double()
    with torch.no_grad():
        layer.noise.log_scale.fill_(math.log(0.7))
    x = normal(1, *shape)
    t, contribution = layer(x)
    index = F.unfold(torch.arange(12.0).reshape(1, 1, 3, 4), kernel).flatten().long()
    expected = torch.zeros((), dtype=torch.float64)
    for pixel in range(12):
        copies = t.flatten()[index == pixel]
        n = len(copies)
        basis, _ = torch.linalg.qr(torch.cat([torch.ones(n, 1), torch.randn(n, n)], 1).double())
        torch.testing.assert_close(copies.mean(), x.flatten()[pixel])
        expected += 0.5 * math.log(n) - normal_log_density(basis[:, 1:n].T @ copies, 0.7)
    torch.testing.assert_close(contribution[0], expected)


def test_sum_is_the_dual_of_repeat():
    x = normal(4, 6)
    layer = Sum(3, 2).double()
    z, contribution = layer(x)
    torch.testing.assert_close(z, x[:, ::2] + x[:, 1::2])
    difference = (x[:, ::2] - x[:, 1::2]) / math.sqrt(2)
    expected = 1.5 * math.log(2) + torch.stack([normal_log_density(row, 1.0) for row in difference])
    torch.testing.assert_close(contribution, expected)


def test_fold_sum_is_the_adjoint_of_unfold():
    shape = (2, 5, 6)
    unfold, fold = Unfold(shape, 3, stride=2), FoldSum(shape, 3, stride=2)
    x, t = torch.randn(1, *shape), torch.randn(1, *unfold.out_shape(shape))
    torch.testing.assert_close((unfold.mean_forward(x) * t).sum(), (x * fold.mean_forward(t)).sum())


def test_residual_and_concat_have_the_mean_path_of_torch():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    main = convolution((3, 4, 4), 3, 3, padding=1, weight=conv.weight, bias=conv.bias)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(residual(main, (3, 4, 4)).mean_forward(x), x + conv(x), rtol=1e-4, atol=1e-5)
    both = concat([None, main], (3, 4, 4))
    torch.testing.assert_close(both.mean_forward(x), torch.cat([x, conv(x)], 1), rtol=1e-4, atol=1e-5)
    assert both.likelihood == "bound"


def test_parallel_is_exact_where_its_branches_are():
    layer = Parallel([lk.Conv1x1(2), None, linear(3, 1)], [2, 1, 3], [2, 1, 1])
    assert layer.likelihood == "exact"
    assert layer.out_shape((6,)) == (4,)
    with pytest.raises(ShapeError, match="6 channels"):
        layer(torch.zeros(1, 5))


def _expected_weight(layer, event, draws=40000):
    """Average the weights of a tiny flow, `E[p(z) exp(contribution)] / proposal(x)` over a wide proposal: one."""
    flow = lk.Flow(lk.Normal(layer.out_shape(event)).double(), layer)
    proposal = 2.0
    x = proposal * normal(draws, *event)
    log_q = torch.stack([normal_log_density(row, proposal) for row in x[:1]])
    log_q = (-0.5 * (x / proposal) ** 2 - math.log(proposal) - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    weights = (flow.elbo(x).value.detach() - log_q).exp()
    return float(weights.mean()), float(weights.std()) / math.sqrt(draws)


@pytest.mark.parametrize(
    ("build", "event"),
    [
        (lambda: Pad((1, 2), ((1, 1),)), (1, 2)),
        (lambda: Repeat(1, 3), (1,)),
        (lambda: Unfold((1, 3), 2), (1, 3)),
        (lambda: linear(1, 2), (1,)),
        (lambda: linear(3, 2, net_factory=nets.density_nets(0, hidden=4)), (3,)),
        (lambda: convolution((1, 3), 1, 2), (1, 3)),
        (lambda: convolution((1, 3), 1, 1, stride=2), (1, 3)),
        (lambda: residual(None, (1,)), (1,)),
        (lambda: transposed_convolution((1, 1), 1, 2, stride=2), (1, 1)),
        (lambda: Crop((1, 3), ((1, 0),)), (1, 3)),
    ],
)
def test_weights_average_to_one(build, event):
    torch.manual_seed(0)
    layer = lk.testing.randomize(build().double(), scale=0.2)
    mean, error = _expected_weight(layer, event)
    assert error < 0.03
    assert abs(mean - 1) < 4 * error + 1e-3


def test_a_learned_posterior_closes_the_gap():
    """In a Gaussian model the mean of p(u | x) is linear in x: a learned q(u | x) reaches it, plain noise does not."""
    torch.manual_seed(0)
    turn = transforms.Orthogonal(torch.tensor([[0.8, 0.6], [-0.6, 0.8]]))
    base = lk.Normal((2,), trainable=True)
    with torch.no_grad():
        base.log_scale.copy_(torch.tensor([0.7, -0.7]))
    x = torch.randn(500, 1)

    def gap(noise):
        flow = lk.Flow(base, lk.Chain([Augment(1, noise), turn]))
        optimizer = torch.optim.Adam(noise.parameters(), lr=0.05)
        for _ in range(200):
            optimizer.zero_grad()
            (-flow.elbo(x, samples=2).value.mean()).backward()
            optimizer.step()
        with torch.no_grad():
            return float((flow.iw_log_prob(x, samples=100, warn=False).value - flow.elbo(x, samples=20).value).mean())

    assert gap(ChannelNoise(1)) > 0.1
    assert abs(gap(lk.ConditionalNormal(nn.Linear(1, 2)))) < 0.02


def test_uniform_noise_has_no_density_outside():
    pad = Pad((1, 1), ((0, 1),), noise="uniform")
    assert float(pad.inverse(torch.tensor([[[0.0, 0.7]]]))[1].detach()) == -math.inf
    augment = Augment(1, ChannelNoise(1, "uniform"))
    assert float(augment.inverse(torch.tensor([[0.0, 0.7]]))[1].detach()) == -math.inf


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Unfold((1, 2, 2), 3), ShapeError, "do not fit"),
        (lambda: Unfold((1, 2, 2, 2), 1), UnsupportedError, "one or two position axes"),
        (lambda: Unfold((1, 4), 2, stride=0), ConfigError, "at least 1"),
        (lambda: Repeat(1, 0), ConfigError, "at least one"),
        (lambda: Pad((1, 2), ((1,),)), ShapeError, "before, after"),
        (lambda: Pad((1, 2), ((-1, 0),)), ShapeError, "not negative"),
        (lambda: Pad((1, 2), ((1, 0),), noise="laplace"), ConfigError, "laplace"),
        (lambda: Crop((1, 2), ((1, 1),)), ShapeError, "leaves nothing"),
        (lambda: linear(3, 2, method="svd"), ConfigError, "cayley"),
        (lambda: linear(3, 2, weight=torch.eye(3)), ShapeError, r"\(2, 3\)"),
        (lambda: convolution((3, 4, 4), 4, 1, groups=2), ConfigError, "groups"),
        (lambda: convolution((1, 4, 4), 4, 3, stride=2, padding="same"), ConfigError, "stride one"),
        (lambda: residual(linear(2, 3), (2,)), ShapeError, "must be alike"),
        (lambda: Parallel([None], [2], [3]), ShapeError, "passes its part"),
        (lambda: Repeat(2, 2).inverse(torch.zeros(1, 3)), ShapeError, "4 channels"),
        (lambda: Augment(3, ChannelNoise(2))(torch.zeros(1, 1)), ShapeError, "draws 2"),
    ],
)
def test_what_cannot_be_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_reducing_transposed_convolutions_need_no_net():
    layer = transposed_convolution((8, 3), 1, 2, stride=2).double()
    x = normal(2, 8, 3)
    z, contribution = layer(x)
    assert z.shape == (2, 1, 6)
    assert contribution.shape == (2,)


@pytest.mark.parametrize(
    "layer",
    [
        linear(3, 2),
        linear(3, 2, method="free"),
        Sum(1, 3),
        Crop((3, 2), ((1, 0),)),
        residual(None, (3,)),
        lk.ActNorm(3),
    ],
)
def test_samples_that_are_not_finite_are_refused(layer):
    event = (3, 2) if isinstance(layer, Crop) else (3,)
    x = torch.randn(16, *event)
    x[3, 1] = math.nan
    with pytest.raises(DomainError, match="not finite"):
        layer.initialize(x)
    with pytest.raises(ShapeError, match="empty sample"):
        layer.initialize(x[:0])
    layer.initialize(torch.randn(16, *event))
    assert all(bool(torch.isfinite(p).all()) for p in layer.parameters())


@pytest.mark.parametrize(
    "layer",
    [
        Unfold((2, 4, 4), 2, stride=2),
        Unfold((2, 4, 4), 3),
        FoldSum((2, 4, 4), 2, stride=2),
        Pad((2, 4, 4), ((1, 0), (0, 1))),
    ],
)
def test_batches_without_rows_keep_their_shapes(layer):
    event = (8, 2, 2) if isinstance(layer, FoldSum) else (2, 4, 4)
    z, contribution = layer(torch.zeros(0, *event))
    assert z.shape == (0, *layer.out_shape(event))
    assert contribution.shape == (0,)
    assert layer.inverse(z)[0].shape == (0, *event)


def test_uniform_noise_of_large_numbers_is_found_inside_its_ball():
    layer = Repeat(1, 3, noise="uniform")
    with torch.no_grad():
        layer.noise.log_scale.fill_(-6.0)
        z, _ = layer(1e3 * torch.randn(5000, 1))
        assert bool(torch.isfinite(layer.inverse(z)[1]).all())


def test_a_border_of_no_width_has_no_moments():
    layer = Crop((1, 4), ((0, 0),))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.initialize(torch.randn(8, 1, 4))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("size", [1e4, 1e5])
def test_uniform_noise_beside_large_values_stays_in_its_ball(size):
    with lk.seeded(0):
        x = size * torch.randn(3000, 2)
        free = transforms.FreeLinear(2, 4, noise="uniform")
        learned = Repeat(2, 3, noise="uniform", posterior_factory=nets.density_nets(0))
        for layer in (free, learned):
            if layer is learned:
                with torch.no_grad():
                    for parameter in layer.parameters():
                        parameter.add_(0.1 * torch.randn_like(parameter))
            z, _ = layer(x)
            assert bool(layer.inverse(z)[1].isfinite().all())
