"""Networks with a guaranteed Lipschitz constant."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import aimed_at
from likelify.nets import lipschitz


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def activation(t, beta):
    return t * torch.sigmoid(beta * t) / lipschitz.SWISH_SLOPE


def test_the_derivatives_of_the_activation():
    t = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)

    def slope(t):
        return torch.autograd.grad(lipschitz._Swish.apply(t).sum(), t, create_graph=True)[0]

    assert torch.equal(lipschitz._Swish.apply(t), nn.functional.silu(t))
    for function in (lipschitz._Swish.apply, slope):
        assert torch.autograd.gradcheck(function, t)
        assert torch.autograd.gradgradcheck(function, t)
    (bend,) = torch.autograd.grad(slope(t).sum(), t, retain_graph=True)
    (again,) = torch.autograd.grad(slope(t).sum(), t, create_graph=True)
    assert torch.allclose(bend, again)


NETS = {
    "mlp": (lambda: nets.LipschitzMLP(5, (9, 7), norm_limit=0.9), (5,), None, 0.9**3),
    "linear": (lambda: nets.LipschitzMLP(5, ()), (5,), None, 0.98),
    "torus": (lambda: nets.LipschitzConvNet(3, 8), (3, 5, 4), None, 0.98**3),
    "reshape": (lambda: nets.LipschitzConvNet(3, 8, (3, 5), norm_bound="reshape"), (3, 5, 4), None, 0.98**2),
    "condition": (lambda: nets.LipschitzConvNet(3, 8, (1, 3), context_features=2), (3, 4, 4), (2,), 0.98**2),
    "image-condition": (lambda: nets.LipschitzConvNet(3, 8, context_features=2), (3, 4, 4), (2, 4, 4), 0.98**3),
}


@pytest.mark.parametrize("beta", [1e-3, 0.3, 1.0, 20.0])
def test_the_activation_has_a_slope_below_one(beta):
    t = torch.linspace(-40, 40, 400001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(activation(t / beta, beta).sum(), t)
    steepest = float((slope.abs() * beta).max())
    assert 0.999 < steepest < 1


@pytest.mark.parametrize("scale", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("name", NETS)
def test_no_pair_of_points_contradicts_the_bound(name, scale):
    build, shape, condition_shape, limit = NETS[name]
    net = lk.testing.randomize(build().double(), scale=scale)
    condition = None if condition_shape is None else 10 * normal(400, *condition_shape)
    x = normal(400, *shape)
    bound = net.lipschitz_bound()
    assert bound <= limit
    for distance in (1e-5, 1.0, 100.0):
        y = x + distance * normal(400, *shape)
        with torch.no_grad():
            rise = (net(x, condition) - net(y, condition)).flatten(1).norm(dim=1)
        slope = rise / (x - y).flatten(1).norm(dim=1)
        assert float(slope.max()) <= bound * (1 + 1e-9)
    # The steepest slope at a point, too.
    own = None if condition is None else condition[:1]
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, own), x[:1]).reshape(x[0].numel(), -1)
    assert float(torch.linalg.matrix_norm(jacobian, 2)) <= bound


@pytest.mark.parametrize("net", [nets.LipschitzMLP(6, ()), nets.LipschitzConvNet(4, kernel_sizes=(3,))])
def test_the_bound_of_a_linear_network_is_tight(net):
    lk.testing.randomize(net.double(), scale=1.0)
    shape = (6,) if isinstance(net, nets.LipschitzMLP) else (4, 8, 8)
    x = torch.zeros(1, *shape, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(net, x).reshape(x.numel(), -1)
    assert 0.8 < float(torch.linalg.matrix_norm(matrix, 2)) <= net.lipschitz_bound() <= 0.98


def test_the_activations_are_what_their_formula_says():
    net = lk.testing.randomize(nets.LipschitzMLP(3, (4, 5), context_features=2).double())
    x, condition = normal(6, 3), normal(6, 2)
    h = x
    for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        bound = float(lipschitz.gram_bound(weight.detach()))
        h = h @ (weight * min(1, aimed_at(0.98, weight) / bound)).T + bias
        if i == 0:
            h = h + condition @ net.context_weight.T
        if i < 2:
            h = activation(h, nn.functional.softplus(net.raw_betas[i]) + lipschitz.SMALLEST_BETA)
    assert torch.allclose(net(x, condition), h, rtol=1e-10)


def test_fresh_networks_are_small_and_keep_the_layout_of_images():
    net = nets.LipschitzConvNet(3, 16)
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last)
    assert net.lipschitz_bound() < 0.1
    assert net(x).is_contiguous(memory_format=torch.channels_last)
    assert net(torch.randn(2, 3, 4, 9)).shape == (2, 3, 4, 9)


def test_hidden_sizes_may_be_a_number_or_a_sequence():
    assert [tuple(weight.shape) for weight in nets.LipschitzMLP(3, 4).weights] == [(4, 3), (3, 4)]
    wide, each = nets.LipschitzConvNet(3, 4), nets.LipschitzConvNet(3, (4, 5))
    assert [len(weight) for weight in wide.weights] == [4, 4, 3]
    assert [len(weight) for weight in each.weights] == [4, 5, 3]


def test_any_network_may_read_the_context_or_not():
    plain = nets.DeclaredNet(nn.Linear(3, 3), 0.5)
    reading = nets.DeclaredNet(nets.MLP(3, 3, (4,), context_features=2), 0.5)
    x, condition = torch.randn(2, 3), torch.randn(2, 2)
    assert torch.equal(plain(x, condition), plain.net(x))
    lk.testing.randomize(reading)
    assert torch.equal(reading(x, condition), reading.net(x, condition))
    assert reading.lipschitz_bound() == 0.5


def test_wrong_settings_and_shapes_are_refused():
    for lipschitz_constant in (1.0, 2.5, -0.1, float("nan")):
        with pytest.raises(ConfigError, match="below 1"):
            nets.DeclaredNet(nn.Identity(), lipschitz_constant)
    with pytest.raises(ConfigError, match="limit"):
        nets.LipschitzMLP(3, norm_limit=1.0)
    with pytest.raises(ShapeError, match="odd"):
        nets.LipschitzConvNet(3, 4, (3, 2))
    with pytest.raises(ConfigError, match="kernel_sizes"):
        nets.LipschitzConvNet(3, hidden=(4,))
    for build in (lambda: nets.LipschitzConvNet(3, kernel_sizes=()), lambda: nets.LipschitzMLP(0)):
        with pytest.raises(ConfigError, match="one kernel|features must be at least 1"):
            build()
    with pytest.raises(ConfigError, match="torus"):
        nets.LipschitzConvNet(3, 4, norm_bound="power")
    with pytest.raises(ShapeError, match="missing"):
        nets.LipschitzMLP(3, context_features=2)(torch.ones(2, 3))
    with pytest.raises(ShapeError, match="context_features=0"):
        nets.LipschitzMLP(3)(torch.ones(2, 3), torch.ones(2, 2))
    for condition in (torch.ones(2, 3), torch.ones(1, 2), torch.ones(2, 2, 3, 4)):
        with pytest.raises(ShapeError, match="condition must be"):
            nets.LipschitzConvNet(3, 4, context_features=2)(torch.ones(2, 3, 4, 4), condition)
    with pytest.raises(ShapeError, match="3 channels, height, width"):
        nets.LipschitzConvNet(3, 4)(torch.ones(2, 4, 4, 4))
