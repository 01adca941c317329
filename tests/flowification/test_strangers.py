"""Networks as others write them: constants, defaults, counters, wrappers, NumPy's words."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify.errors import UnsupportedError
from likelify.flowification import flowify, rule

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))

SETTINGS, SHIFT = {"scale": 2.0}, torch.ones(4)


class Body(nn.Module):
    """A linear layer, buffers, and a forward that is given."""

    def __init__(self, call):
        super().__init__()
        self.call, self.layer = call, nn.Linear(4, 4)
        self.register_buffer("turn", torch.linalg.qr(torch.randn(4, 4))[0])
        self.register_buffer("slope", torch.full((1,), 0.3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        return self.call(self, x)


@pytest.mark.parametrize("method", ["exponential", "free"])
@pytest.mark.parametrize(
    ("call", "trained"),
    [
        (lambda self, x: F.linear(x, self.turn), 0),
        (lambda self, x: x @ self.turn, 0),
        (lambda self, x: F.prelu(self.layer(x), self.slope), None),
        (lambda self, x: F.linear(x, self.layer.weight), None),
    ],
)
def test_weights_in_buffers_stay_as_they_are(call, trained, method):
    net = Body(call)
    layer = flowify(net, X, method=method)
    own = layer.network_parameters()
    if trained == 0:
        assert not any(parameter.requires_grad for parameter in own)
        torch.testing.assert_close(layer.mean_forward(X), net(X))
    else:
        assert any(parameter.requires_grad for parameter in own)
    slopes = [p for part in layer for name, p in part.named_parameters() if isinstance(part, lk.transforms.PReLU)]
    assert not any(parameter.requires_grad for parameter in slopes)


def test_networks_that_count_their_calls():
    def call(self, x):
        self.calls += 1
        return self.layer(x)

    net = Body(call)
    torch.testing.assert_close(flowify(net, X).mean_forward(X), net(X))


def test_defaults_of_other_arguments_stay_what_they_are():
    class Settled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x, shape=(2, 2), settings=SETTINGS, act=F.leaky_relu, shift=SHIFT, skip=(None,)):
            return act(self.layer(x) * settings["scale"] + shift).reshape(-1, *shape).flatten(len(skip))

    net = Settled()
    torch.testing.assert_close(flowify(net, X).mean_forward(X), net(X))


def test_compiled_parts_are_looked_into():
    net = nn.Sequential(nn.Linear(4, 4), torch.compile(nn.Linear(4, 3), backend="eager"))
    plain = nn.Sequential(net[0], net[1]._orig_mod)
    torch.testing.assert_close(flowify(net, X).mean_forward(X), plain(X))


class Positions(nn.Module):
    """A convolution, and what is given behind it."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.call = nn.Conv1d(4, 4, 1), call

    def forward(self, x):
        return self.call(self, self.conv(x))


def test_the_word_axis_is_read():
    x = torch.randn(3, 4, 8)
    for call in (lambda self, h: torch.cat([h, 2 * h], axis=1), lambda self, h: h.mean(axis=2)):
        net = Positions(call)
        torch.testing.assert_close(flowify(net, x).mean_forward(x), net(x))


def test_parts_are_the_whole_along_the_channels_only():
    x = torch.randn(3, 4, 8)
    net = Positions(lambda self, h: torch.cat(h.chunk(2, 1), 1))
    torch.testing.assert_close(flowify(net, x).mean_forward(x), net(x))
    with pytest.raises(UnsupportedError, match="joins along axis 2"):
        flowify(Positions(lambda self, h: torch.cat(h.chunk(2, 1), 2)), x)


def test_a_matrix_from_the_left_is_named_as_such():
    with pytest.raises(UnsupportedError, match="multiplies by a matrix from the left. Write"):
        flowify(Positions(lambda self, h: torch.eye(4) @ h), torch.randn(3, 4, 8))


class Scaled(nn.Module):
    """Multiplies by settings that are kept in lists and dictionaries."""

    def __init__(self, **settings):
        super().__init__()
        self.settings = settings

    def forward(self, x):
        return x * self.settings["scales"][0]


@rule(Scaled)
def scaled(module, in_shape, options):
    return lk.Affine(scale=module.settings["scales"][0])


def test_settings_in_lists_and_dictionaries_tell_networks_apart():
    prints = [
        flowify(Scaled(scales=scales, **more), X).conversion.fingerprint
        for scales, more in (([2.0, 3.0], {}), ([2.0, 4.0], {}), ([2.0, 3.0], {"kinds": {"a", "b"}}))
    ]
    assert len(set(prints)) == 3
    assert prints[0] == flowify(Scaled(scales=[2.0, 3.0]), X).conversion.fingerprint


def test_parameters_are_told_apart_behind_a_domain():
    class Shrunk(nn.Module):
        def forward(self, x):
            return x + torch.log(-torch.expm1(-x))

    @rule(Shrunk)
    def shrunk(module, in_shape, options):
        return lk.Inverse(lk.transforms.Softplus())

    layer = flowify(nn.Sequential(Shrunk(), nn.Linear(4, 3)), X.abs() + 0.1)
    assert len(layer.network_parameters()) > 0
    assert len(layer.network_parameters()) + len(layer.density_parameters()) == len(list(layer.parameters()))


def test_slopes_of_celu_that_folds_are_not_certified():
    class Block(nn.Module):
        def __init__(self, alpha):
            super().__init__()
            self.layer, self.act = nn.Linear(2, 2), nn.CELU(alpha)

        def forward(self, x):
            return x + self.act(self.layer(x))

    x = torch.randn(5, 2)
    assert flowify(Block(1.0), x, residual="lipschitz").likelihood == "exact"
    with pytest.raises(UnsupportedError):
        flowify(Block(-1.0), x, residual="lipschitz")


def test_a_transposed_view_is_the_call():
    def turned(self, x):
        return self.layer(x.unflatten(1, (2, 2)).mT.flatten(1))

    net = Body(turned)
    torch.testing.assert_close(flowify(net, X).mean_forward(X), net(X))
