"""Converted networks compute what the networks do, and have a likelihood."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.flowification import flowify
from likelify.zoo import converted_flow
from tests.flowification.networks import SMALL, evaluated, made, settle


@pytest.mark.parametrize("name", SMALL)
def test_the_mean_path_is_the_network_and_weights_stay_where_they_were(name):
    net, x = made(name)
    before = copy.deepcopy(net.state_dict())
    layer = flowify(net, x)
    assert net.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    other = torch.randn(5, *x.shape[1:])
    torch.testing.assert_close(layer.mean_forward(other).detach(), evaluated(net, other), atol=1e-5, rtol=1e-5)
    assert not {id(p) for p in layer.parameters()} & {id(p) for p in net.parameters()}
    assert layer.out_shape(x.shape[1:]) == layer.conversion.out_shape == tuple(evaluated(net, x).shape[1:])


@pytest.mark.parametrize("name", SMALL)
def test_flows_of_networks_score_draw_and_train(name):
    net, x = made(name)
    layer = flowify(net, x, hidden=8)
    flow = lk.Flow(lk.Normal(layer.conversion.out_shape), layer, event_shape=x.shape[1:])
    flow.initialize(torch.randn(64, *x.shape[1:]))
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-4, rtol=1e-4)
    elbo = flow.elbo(x).value
    assert elbo.shape == (3,)
    elbo.mean().backward()
    missing = [key for key, p in flow.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert missing == []
    assert flow.sample((2,)).shape == (2, *x.shape[1:])
    z = layer.mean_forward(x)
    assert layer.mean_inverse(z).shape == x.shape
    assert layer.mean_forward(layer.mean_inverse(z)).shape == z.shape


@pytest.mark.parametrize("method", ["free", "cayley", "exponential", "householder"])
def test_every_method_keeps_the_function(method):
    net, x = made("mlp")
    layer = flowify(net, x, method=method, learned_noise=True)
    layer.initialize(torch.randn(200, *x.shape[1:]))
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-5, rtol=1e-5)


def test_uniform_noise_keeps_the_function():
    net, x = made("unet")
    layer = flowify(net, x, noise="uniform")
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-5, rtol=1e-5)


def test_questions_about_shapes_are_answered():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            rows, channels, *_ = x.shape[:2]
            assert channels == 2, "two channels"
            y = x.flatten(1)
            if y.shape[1] % 2 == 0 and y.dim() == 2:
                y = y * 2
            return self.layer(y).view(rows, -1)

    net, x = Careful(), torch.randn(3, 2, 3)
    torch.testing.assert_close(flowify(net, x).mean_forward(x), net(x))


def test_shapes_that_python_needs_as_numbers_are_given():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(4)])

        def forward(self, x):
            half = int(x.shape[1] / 2)
            for i in range(x.shape[1] - len(x.shape)):
                x = self.layers[i](x)
            a, b = x.split(round(x.shape[1] / 2), 1)
            return self.layers[2](torch.cat([b, a], 1) / float(half)) * math.sqrt(x.shape[1])

    net, x = Halves(), torch.randn(3, 4)
    torch.testing.assert_close(flowify(net, x).mean_forward(x), net(x))


def test_constrained_and_lazy_weights():
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    net, x = nn.Sequential(normed, nn.LeakyReLU(), spectral, nn.LazyLinear(2)), torch.randn(3, 4)
    layer = flowify(net, x)
    torch.testing.assert_close(layer[:3].mean_forward(x).detach(), evaluated(net[:3], x))


def test_double_precision_is_kept():
    net, x = made("resnet")
    net, x = net.double(), x.double()
    layer = flowify(net, x)
    z, contribution = layer(x)
    assert z.dtype == contribution.dtype == torch.float64
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-11, rtol=1e-11)


def test_narrowing_networks_are_exact_and_widening_ones_bounds():
    x = torch.randn(2, 6)
    narrowing = nn.Sequential(nn.Linear(6, 4), nn.LeakyReLU(0.1), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert flowify(narrowing, x).likelihood == "exact"
    widening = flowify(nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3)), x)
    assert widening.likelihood == "bound"
    assert [layer.likelihood for layer in widening.conversion.layers] == ["bound", "exact", "exact"]


def test_contributions_are_the_log_determinant_of_the_network():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 2, stride=2), nn.PReLU(4), nn.BatchNorm2d(4), nn.PixelShuffle(2), nn.Flatten(), nn.Linear(8, 8)
    )
    settle(net.double())
    x = torch.randn(3, 1, 2, 4, dtype=torch.float64)
    layer = flowify(net, x)
    z, log_det = layer(x)
    assert not layer.random_forward
    assert not layer.random_inverse
    jacobian = torch.autograd.functional.jacobian(lambda v: net.eval()(v[None])[0], x[1]).reshape(8, 8)
    torch.testing.assert_close(log_det[1].detach(), torch.linalg.slogdet(jacobian)[1])
    torch.testing.assert_close(layer.inverse(z)[0], x)


def test_constants_stay_constants_and_parameters_are_trained():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.5, -0.5, 0.1]))
            self.gain = nn.Parameter(torch.tensor([2.0, -3.0, 1.0]))

        def forward(self, x):
            return (x - self.mean) * self.gain.abs()

    layer = flowify(Scaled(), torch.randn(2, 3))
    assert [[p.requires_grad for p in step.parameters()] for step in layer] == [[False] * 2, [True] * 2]


class Functional(nn.Module):
    """Functional forms of about everything."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.bias = nn.Parameter(torch.randn(4))
        self.shift = nn.Parameter(torch.randn(4))
        self.gain = nn.Parameter(torch.tensor([1.0, -2.0, 0.5, 3.0]).reshape(4, 1, 1))
        self.dense = nn.Parameter(torch.randn(6, 24))
        self.register_buffer("offset", torch.randn(6))
        self.slope = nn.Parameter(torch.tensor([0.3]))

    def forward(self, x):
        x = F.pad(x, (1, 1, 0, 2))
        x = F.conv2d(x[:, :, 1:-1], self.weight, self.bias, stride=2, padding=1)
        x = torch.add(x * self.gain, self.shift.view(4, 1, 1), alpha=2)
        x = F.prelu(F.leaky_relu(x, negative_slope=0.2), self.slope)
        x = 1 - torch.flip(x.roll(1, dims=3), dims=(1,)) / 2
        x = F.pixel_shuffle(x, 2).squeeze(1).unsqueeze(2).contiguous()
        x = x.movedim(3, 1).swapaxes(1, 2).flatten(1)
        x = F.dropout(x, 0.5, training=self.training)
        a, b = torch.split(x, [4, 20], dim=1)
        x = torch.cat([b.neg(), a], 1)
        return F.linear(x, self.dense) - self.offset


def test_functional_forms():
    net, x = Functional(), torch.randn(3, 2, 4, 4)
    layer = flowify(net, x)
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-5, rtol=1e-5)
    assert layer.conversion.unused == ()


def test_inputs_and_options_are_checked():
    net = nn.Linear(3, 2)
    with pytest.raises(ShapeError, match="rows in front"):
        flowify(net, torch.randn(3))
    with pytest.raises(UnsupportedError, match="Dequantize"):
        flowify(net, torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(ConfigError, match="no setting 'relo'. Did you mean 'relu'"):
        flowify(net, torch.randn(2, 3), relo="noisy")
    with pytest.raises(ConfigError, match="no relu .yes.*refuse, noisy"):
        flowify(net, torch.randn(2, 3), relu="yes")
    with pytest.raises(ConfigError, match="Learned noise is normal"):
        flowify(net, torch.randn(2, 3), noise="uniform", learned_noise=True)


def test_flowify_at_the_top_is_the_function():
    assert lk.flowify is flowify


def test_own_networks_for_what_is_dropped():
    sizes = []

    def density_nets(dims):
        def net(size_in, size_out):
            sizes.append((size_in, size_out, dims))
            return nn.Linear(size_in, size_out)

        return net

    layer = flowify(nn.Linear(5, 2), torch.randn(2, 5), density_nets=density_nets)
    assert sizes
    assert all(entry[2] == 0 for entry in sizes)
    assert layer.conversion.options.density_nets is density_nets


class Made(nn.Module):
    """A module of a function and what it is to hold."""

    def __init__(self, function, *modules, **buffers):
        super().__init__()
        self.function = function
        for number, module in enumerate(modules):
            setattr(self, f"m{number}", module)
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    def forward(self, x):
        return self.function(self, x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))

    def forward(self, x):
        return x + 0.1 * self.f(x)


@pytest.mark.filterwarnings("ignore:The fit never beat its start")
def test_residual_flows_are_copied_and_fitted():
    x = torch.randn(40, 4)
    flow = converted_flow(Block(), x, residual="lipschitz")
    torch.testing.assert_close(copy.deepcopy(flow).log_prob(x), flow.log_prob(x))
    assert lk.fit(flow, x.numpy(), steps=2).steps == 2


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Made(lambda s, x: F.leaky_relu(s.m0(x), s.a), nn.Linear(4, 4), a=torch.tensor(0.3)), "a tensor as its slope"),
        (Made(lambda s, x: F.pad(x[:, None], (1, 1), value=s.a), a=torch.tensor(0.3)), "pads with a tensor"),
        (Made(lambda s, x: s.m0(x) / 0, nn.Linear(4, 4)), "divides by zero"),
        (Made(lambda s, x: s.m0(x).view(-1, 2), nn.Linear(4, 4)), "because of one construct"),
        (nn.DataParallel(nn.Linear(4, 4)), "inside of a DataParallel. Give the network itself: net.module"),
        (nn.Linear(4, 4, device="meta"), "on the meta device"),
        (nn.Bilinear(4, 4, 2), "needs 'input2' beside its first input"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(module, said):
    with pytest.raises(UnsupportedError, match=said):
        flowify(module, torch.randn(3, 4))


def test_weights_that_are_no_numbers_are_named_with_all_else():
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan
    with pytest.raises(UnsupportedError, match=r"2 constructs(.|\n)*values that are not finite"):
        flowify(net, torch.randn(3, 4))


def test_constants_of_modules_with_weights_are_trained():
    embedded = Made(lambda s, x: s.m1(x + s.m0(s.i)), nn.Embedding(1, 4), nn.Linear(4, 3), i=torch.tensor([0]))
    layer = flowify(embedded, torch.randn(3, 4))
    assert all(parameter.requires_grad for parameter in layer.network_parameters())


def test_questions_about_the_shapes_of_weights_are_answered():
    def checked(self, x):
        assert x.shape[1] == self.b.shape[0]
        return abs(+self.m0(x + self.b)) if self.b.ndim == 1 else x

    layer = flowify(Made(checked, nn.Linear(4, 4), b=torch.randn(4)), torch.randn(3, 4))
    assert layer.likelihood == "exact"


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
        nn.Sequential(nn.Unflatten(1, (1, 6)), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(3, 2)),
        nn.Sequential(nn.Unflatten(1, (1, 6)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(3, 5)),
        Made(lambda s, x: s.m0(x)[:, :2], nn.Linear(6, 6)),
    ],
)
def test_densities_are_told_from_the_network(net):
    x = torch.randn(50, 6)
    layer = flowify(net, x)
    layer.initialize(x)
    expected = layer.mean_forward(x).detach()
    densities, network = layer.density_parameters(), layer.network_parameters()
    assert len(densities) + len(network) == len(list(layer.parameters()))
    assert densities
    with torch.no_grad():
        for parameter in densities:
            parameter.add_(torch.randn_like(parameter))
        torch.testing.assert_close(layer.mean_forward(x), expected)
        for parameter in network:
            parameter.mul_(1.1)
    assert not torch.allclose(layer.mean_forward(x), expected)
    assert all(parameter.requires_grad for parameter in layer.parameters())
