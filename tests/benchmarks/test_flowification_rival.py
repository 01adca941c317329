"""The re-implementation that the benchmarks of flowified models are measured against computes what it should."""

import math

import pytest
import torch
from torch.nn import functional

from benchmarks import flowification_rival as rival
from likelify.seeding import seeded
from tests.linalg.reference import exponential


@pytest.fixture(autouse=True)
def _seed():
    with seeded(0):
        yield


@pytest.mark.parametrize("sizes", [(6, 6), (7, 3)])
@pytest.mark.parametrize("noise", [False, True])
def test_linear_undoes_its_inverse(sizes, noise):
    layer = rival.Linear(*sizes)
    z = torch.randn(5, sizes[1])
    torch.testing.assert_close(layer(layer.inverse(z, noise=noise))[0], z, atol=1e-4, rtol=1e-4)


def test_reducing_linear_contribution():
    layer = rival.Linear(7, 3).double()
    x = torch.randn(5, 7, dtype=torch.double)
    z, gain = layer(x)
    turn_in, turn_out = (exponential(turn.free - turn.free.mT) for turn in (layer.turn_in, layer.turn_out))
    weight = (turn_in[:, 4:] * layer.log_scale.exp()) @ turn_out
    torch.testing.assert_close(z, x @ weight + layer.bias)
    kept = layer.turn_out.inverse(z - layer.bias)
    mean, log_std = layer.net(kept).chunk(2, -1)
    lost = layer.turn_in(x)[:, :4]
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(lost).sum(1) + weight.svd()[1].log().sum()
    torch.testing.assert_close(gain, expected)


def test_increasing_linear_keeps_its_input():
    layer = rival.Linear(3, 7)
    x = torch.randn(5, 3)
    z, gain = layer(x)
    torch.testing.assert_close(layer.inverse(z), x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gain, layer.log_scale.sum().expand(5))


@pytest.mark.parametrize("sizes", [(2, 5, 2, 2, 8), (2, 5, 3, 2, 9)])
def test_mean_path_of_a_convolution_is_a_convolution(sizes):
    layer = rival.Convolution(*sizes)
    channels, outputs, kernel, stride, side = sizes
    x = torch.randn(3, channels, side, side)
    turn_in, turn_out = (
        exponential(turn.free - turn.free.mT).float() for turn in (layer.kernel.turn_in, layer.kernel.turn_out)
    )
    weight = (turn_in[:, layer.kernel.dropped :] * layer.kernel.log_scale.exp()) @ turn_out
    expected = functional.conv2d(x, weight.mT.unflatten(1, (channels, kernel, kernel)), layer.kernel.bias, stride)
    torch.testing.assert_close(layer(x, noise=False)[0], expected, atol=1e-4, rtol=1e-4)


def test_convolution_without_overlap_undoes_its_inverse():
    layer = rival.Convolution(2, 5, 2, 2, 8)
    z = torch.randn(3, 5, 4, 4)
    torch.testing.assert_close(layer(layer.inverse(z))[0], z, atol=1e-4, rtol=1e-4)


def test_tile_noise():
    layer = rival.Tile(2, 5, 3, 1).double()
    layer.count = layer.count.double()
    torch.nn.init.constant_(layer.log_std, 0.3)
    x = torch.randn(200, 2, 5, 5, dtype=torch.double)
    tiles, gain = layer(x)
    # The copies of a pixel have the pixel as their mean; what is left is sqrt(N) times the noise.
    torch.testing.assert_close(layer.inverse(tiles), x)
    squares = layer.fold((tiles.mT - layer.unfold(x)) ** 2) / layer.count / math.exp(0.6)
    torch.testing.assert_close(squares.mean(0), (layer.count[0] - 1), atol=0.4, rtol=0.25)
    spare = layer.count - 1
    normal = 0.5 * squares + spare * (0.3 + 0.5 * math.log(2 * math.pi))
    expected = (normal + 0.5 * layer.count.log() + spare * 0.5 * layer.count.log()).flatten(1).sum(1)
    # The published guard of the division moves draws with a short direction a little.
    assert (gain - expected).abs().median() < 1e-3


def test_pad_noise():
    layer = rival.Pad(7, 2, 2)
    torch.nn.init.constant_(layer.log_std, 0.3)
    x = torch.randn(3, 2, 7, 7)
    z, gain = layer(x)
    assert z.shape == (3, 2, 8, 8)
    torch.testing.assert_close(layer.inverse(z), x)
    drawn = torch.cat([z[..., 7, :], z[..., :7, 7]], -1)
    expected = -torch.distributions.Normal(0.0, math.exp(0.3)).log_prob(drawn).flatten(1).sum(1)
    torch.testing.assert_close(gain, expected)


def test_spline_inverse_and_slope():
    layer = rival.Spline().double()
    x = torch.linspace(-3, 3, 101, dtype=torch.double)[:, None].requires_grad_()
    z, gain = layer(x)
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(gain, slope.log().squeeze(1))
    torch.testing.assert_close(layer.inverse(z), x)


@pytest.mark.parametrize("name", list(rival.PUBLISHED))
def test_model(name):
    model = rival.model(name)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert abs(count / rival.PUBLISHED[name] - 1) < 0.005
    x = torch.randint(256, (2, 1, rival.SIDE, rival.SIDE))
    if name == "mlp":
        # The gradient of its exponentials takes seconds; that of the layers is the same code as in the other models.
        with torch.no_grad():
            assert model(x).isfinite().all()
    else:
        model(x).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        unused = ("pad.log_std", "tile.log_std")
        assert all(p.grad.any() for label, p in model.named_parameters() if not label.endswith(unused))
    with torch.no_grad():
        assert model.sample(2).shape == x.shape
