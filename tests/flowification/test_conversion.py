"""Converted networks compute what the networks do, and have a likelihood."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.flowification import DATA, Call, flowify, rule
from likelify.flowification.rules import RULES
from likelify.testing import check_mass, randomize
from likelify.transforms.elementwise import ChannelAffine
from tests.flowification.networks import SMALL, LeNet, Mixer, UNet, mlp, settle


@pytest.fixture(autouse=True)
def _rules_of_tests_end_with_them():
    kept = dict(RULES)
    yield
    RULES.clear()
    RULES.update(kept)


def made(name):
    make, shape = SMALL[name]
    return make(), torch.randn(3, *shape)


def evaluated(net, x):
    with torch.no_grad():
        return copy.deepcopy(net).eval()(x)


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


class Branching(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.f, self.g, self.h = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.kind = kind

    def forward(self, x):  # noqa: C901 - a list of cases
        f, g, h = self.f, self.g, self.h
        if self.kind == "three terms":
            return x + f(x) + g(x)
        if self.kind == "difference":
            return f(x) - 2 * g(x)
        if self.kind == "twice":
            y = f(x)
            return y + y + x
        if self.kind == "dense net":
            y = torch.cat([x, f(x)], 1)
            return torch.cat([y, torch.cat([g(x) * 3, h(x)], 1)], 1)
        if self.kind == "shared start":
            y = f(x)
            return torch.cat([g(y), x, h(y)], 1)
        if self.kind == "nested":
            y = x + f(x)
            return y + g(y) + h(y)
        if self.kind == "running sum":
            y = f(x)
            z = g(y)
            return y + z + h(z) - x
        if self.kind == "list of features":
            features = [x]
            for layer in (f, nn.functional.leaky_relu, lambda t: -t):
                features.append(layer(torch.cat(features, 1)[:, -4:]))
            return torch.cat(features, 1)[:, :, None].squeeze(2)
        if self.kind == "parts apart":
            a, b = x.chunk(2, 1)
            return torch.cat([b, a * 2, a + 1], 1)
        if self.kind == "parts mixed":
            a, b = x[:, :1], x[:, 1:3]
            return torch.cat([f(torch.cat([a, b, a], 1)), x[:, 3:]], 1)
        if self.kind == "parts dropped":
            a, b = x[:, :1], x[:, 2:3]
            return a + 3 * b
        a, b, c, d = x.split(1, dim=1)
        return torch.cat([a - 2 * c, b + d], 1)


@pytest.mark.parametrize(
    "kind",
    [
        "three terms",
        "difference",
        "twice",
        "dense net",
        "shared start",
        "nested",
        "running sum",
        "list of features",
        "parts apart",
        "parts mixed",
        "parts dropped",
        "couples",
    ],
)
def test_branches(kind):
    net, x = Branching(kind), torch.randn(4, 4)
    layer = flowify(net, x)
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-5, rtol=1e-5)
    flow = lk.Flow(lk.Normal(layer.conversion.out_shape), layer)
    assert flow.elbo(x).value.shape == (4,)
    assert flow.sample((3,)).shape == (3, 4)
    if kind in ("parts dropped", "couples"):
        assert flow.likelihood == "exact"


@pytest.mark.parametrize("kind", ["residual", "couples", "narrow", "noisy relu"])
def test_the_mass_of_tiny_networks_is_one(kind):
    nets = {
        "residual": nn.Sequential(_Residual(nn.Linear(1, 1)), nn.Linear(1, 1)),
        "couples": nn.Sequential(nn.Linear(2, 3), nn.LeakyReLU(0.5), _Halves()),
        "narrow": nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.5), nn.Linear(2, 1)),
        "noisy relu": nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)),
    }
    net, size = nets[kind].double(), 1 if kind in ("residual", "noisy relu") else 2
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Linear):
                # Far from singular, or the draws reach far out.
                part.weight.copy_(0.9 * torch.eye(*part.weight.shape) + 0.2 * torch.rand_like(part.weight))
    layer = flowify(net, torch.randn(3, size, dtype=torch.float64), relu="noisy", hidden=4)
    flow = lk.Flow(lk.Normal(layer.conversion.out_shape), layer).double()
    for name, p in flow.named_parameters():
        if "net" in name:
            p.data += 0.1 * torch.randn_like(p)
    sample = flow.sample((4000,)).flatten(1)
    reach = 1.6 * float(sample.abs().max())
    points = 2000 if size == 1 else 160
    check_mass(flow, -reach, reach, points, event_shape=(size,), tol=5e-3, draws=60)


class _Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class _Halves(nn.Module):
    def forward(self, x):
        a, b = x[:, :1], x[:, 1:]
        return a + b[:, :1] * 0.5


def test_contractive_blocks_become_exact_bijections():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3, padding=1)
            with torch.no_grad():
                self.a.weight *= 0.4
                self.b.weight *= 0.4

        def forward(self, x):
            return x - 0.5 * self.b(F.gelu(self.norm(self.a(F.leaky_relu(x, 0.3)))))

    net, x = nn.Sequential(Block(), Block()).double(), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    layer = flowify(net, x, residual="lipschitz")
    assert layer.likelihood == "exact"
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-12, rtol=1e-12)
    z, log_det = layer(x)
    torch.testing.assert_close(layer.inverse(z)[0], x, atol=1e-9, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda v: net.eval()(v[None])[0], x[0])
    torch.testing.assert_close(log_det[0].detach(), torch.linalg.slogdet(jacobian.reshape(18, 18))[1])
    with torch.no_grad():
        for p in layer.parameters():
            p *= 5
    assert all(block.lipschitz_bound() <= 0.99 for block in layer)
    with pytest.raises(UnsupportedError, match=r"gelu is not monotone"):
        flowify(net, x)


def test_blocks_that_are_not_contractions_are_refused_or_bounded():
    net, x = nn.Sequential(_Residual(nn.Linear(3, 3)), _Residual(nn.Linear(3, 3))), torch.randn(2, 3)
    with torch.no_grad():
        net[0].inner.weight.mul_(0.2)
        net[1].inner.weight.mul_(20)
    with pytest.raises(UnsupportedError, match=r"1\.add: the branch may multiply distances .*residual='repeat'"):
        flowify(net, x, residual="lipschitz")
    layers = flowify(net, x, residual="auto").conversion.layers
    assert [layer.kind for layer in layers] == ["contraction", "sum of 2", "Linear"]
    assert [layer.likelihood for layer in layers] == ["exact", "bound", "exact"]


def test_a_rule_of_the_user():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rotate = Quarter()
            self.factor = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return torch.asinh(self.rotate(x))

    class Quarter(nn.Module):
        def __init__(self):
            super().__init__()
            self.turns = 1

        def forward(self, x):
            return torch.stack([-x[:, 1], x[:, 0]], 1)

    x = torch.randn(3, 2)
    with pytest.raises(UnsupportedError, match=r"asinh.*there is no rule for asinh. Write one: @flowification.rule"):
        flowify(Net(), x)
    seen = []

    @rule(Quarter)
    def quarter(module, in_shape, options):
        seen.append((module.turns, in_shape, options.noise))
        return lk.Chain([lk.Permute([1, 0]), ChannelAffine(torch.tensor([-1.0, 1.0]))])

    @rule(torch.asinh)
    def asinh(call, in_shape, options):
        assert isinstance(call, Call)
        assert call.args == (DATA,)
        return Asinh()

    class Asinh(lk.Transform):
        def forward(self, x, context=None):
            return torch.asinh(x), -0.5 * (1 + x * x).log().flatten(1).sum(1)

        def inverse(self, z, context=None):
            return torch.sinh(z), z.cosh().log().flatten(1).sum(1)

    layer = flowify(Net(), x)
    assert seen == [(1, (2,), "normal")]
    assert layer.likelihood == "exact"
    assert layer.conversion.unused == ("factor",)
    assert "factor" in str(layer.conversion)


def test_a_rule_that_computes_something_else_is_found_out():
    class Wrong(nn.Module):
        def forward(self, x):
            return 3 * x

    @rule(Wrong)
    def wrong(module, in_shape, options):
        return lk.Affine(scale=2.0)

    with pytest.raises(UnsupportedError, match="noise-free path of the result is off by"):
        flowify(Wrong(), torch.randn(2, 3))


def test_inputs_and_options_are_checked():
    net = nn.Linear(3, 2)
    with pytest.raises(ShapeError, match="rows in front"):
        flowify(net, torch.randn(3))
    with pytest.raises(UnsupportedError, match="Dequantize"):
        flowify(net, torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="relo"):
        flowify(net, torch.randn(2, 3), relo="noisy")
    with pytest.raises(ConfigError, match="no relu .yes.*refuse, noisy"):
        flowify(net, torch.randn(2, 3), relu="yes")
    with pytest.raises(ConfigError, match="learned noise is normal"):
        flowify(net, torch.randn(2, 3), noise="uniform", learned_noise=True)


def test_flowify_at_the_top_is_the_function():
    assert lk.flowify is flowify


def test_own_networks_for_what_is_dropped():
    sizes = []

    def net(size_in, size_out, dims):
        sizes.append((size_in, size_out, dims))
        return nn.Linear(size_in, size_out)

    layer = flowify(nn.Linear(5, 2), torch.randn(2, 5), net_factory=net)
    assert sizes
    assert all(entry[2] == 0 for entry in sizes)
    assert layer.conversion.options.net_factory is net


def test_the_conversion_is_a_record():
    net, x = made("resnet")
    conversion = flowify(net, x).conversion
    names = {name for name, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d)}
    assert names <= {layer.name for layer in conversion.layers}
    for layer in conversion.layers:
        if " of " not in layer.kind:
            assert math.prod(layer.in_shape) + layer.added - layer.dropped == layer.kept
    change = sum(layer.added - layer.dropped for layer in conversion.layers)
    assert math.prod(conversion.in_shape) + change == math.prod(conversion.out_shape)
    table = str(conversion)
    assert "layers.1.add" in table
    assert "lower bound" in table
    assert max(map(len, table.splitlines()[:-1])) < 140
    convolution = next(layer for layer in conversion.layers if layer.name == "layers.0.conv1")
    assert convolution.cost == 4 * 4 * 9 * 16 * 16
    assert convolution.net_parameters > 0
    assert convolution.depth == 1


def test_fingerprints_are_of_the_architecture():
    def fingerprint(net, shape, **options):
        return flowify(net, torch.randn(2, *shape), **options).conversion.fingerprint

    first = fingerprint(mlp((12, 6, 3)), (12,))
    assert fingerprint(mlp((12, 6, 3)), (12,)) == first
    others = [
        fingerprint(mlp((12, 6, 4)), (12,)),
        fingerprint(mlp((12, 6, 3), slope=0.2), (12,)),
        fingerprint(mlp((12, 6, 3)), (12,), hidden=8),
        fingerprint(nn.Sequential(nn.Linear(12, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3)), (12,)),
        fingerprint(UNet(2, (3, 4)), (2, 4, 4)),
    ]
    assert len({first, *others}) == 6
    assert fingerprint(LeNet(16, widths=(2, 3)), (1, 16, 16)) != fingerprint(
        LeNet(16, widths=(2, 3), pool="average"), (1, 16, 16)
    )


def test_copies_and_pickles_of_the_layer():
    net, x = made("mixer")
    layer = flowify(net, x)
    twin = copy.deepcopy(layer)
    assert twin.conversion == layer.conversion
    assert str(pickle.loads(pickle.dumps(layer)).conversion) == str(layer.conversion)
    assert torch.equal(twin.mean_forward(x), layer.mean_forward(x))
    fresh = flowify(Mixer(4, 6), x)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.mean_forward(x), layer.mean_forward(x))
    assert randomize(fresh) is fresh
