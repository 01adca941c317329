"""Axis exponentials: what they compute, their sizes, their limit, and what is refused."""

import numpy as np
import pytest
import scipy.linalg
import torch

import likelify as lk
from likelify.errors import ConfigError, ShapeError
from likelify.linalg import AxisMatrix, Circulant, Toeplitz
from likelify.linalg.expm import recorded
from likelify.linalg.expm.polynomial import plan_polynomial
from likelify.linalg.toeplitz import transposed_matrices
from tests.cases import normal


def toeplitz(taps, size):
    """The matrix of the zero-padded convolution with these taps."""
    reach = len(taps) // 2
    return np.array([[taps[reach + j - i] if abs(j - i) <= reach else 0.0 for j in range(size)] for i in range(size)])


def whole(trained):
    """Kernels without centre taps, with a zero there."""
    half = trained.shape[1] // 2
    trained = trained.detach().numpy()
    return np.concatenate([trained[:, :half], np.zeros((len(trained), 1)), trained[:, half:]], 1)


@pytest.mark.parametrize("size", [1, 2, 4, 40])
@pytest.mark.parametrize("kind", [Toeplitz, Circulant])
def test_hollow_kernels_are_those_with_a_zero_in_the_centre(size, kind):
    given = normal(3, 2, 6)
    full = torch.cat([given[..., :3], torch.zeros(3, 2, 1, dtype=torch.float64), given[..., 3:]], -1)
    for symmetry in (None, "skew"):
        hollow, whole_ = kind(given, symmetry, hollow=True), kind(full, symmetry)
        for one, other in (
            (hollow, whole_),
            (hollow.adjoint(), whole_.adjoint()),
            (hollow.scaled(2.0), whole_.scaled(2.0)),
        ):
            assert torch.equal(one.matrix(size), other.matrix(size))
            assert torch.equal(transposed_matrices([one, one], size), transposed_matrices([other, other], size))
        assert torch.equal(hollow.norm_bound((2, size)), whole_.norm_bound((2, size)))
        if kind is Toeplitz:
            assert not hollow.group_traces(size).any()
    with pytest.raises(ShapeError, match="even number of taps, as it is hollow"):
        kind(full, hollow=True)


def autoregressive(*shape, along=(2, 3), share=0.8):
    """Noise in which each element is a share of the one before along two axes."""
    x = torch.randn(*shape, dtype=torch.float64)
    for axis in along:
        lines = x.movedim(axis, 0).clone()
        for place in range(1, len(lines)):
            lines[place] = share * lines[place - 1] + (1 - share**2) ** 0.5 * lines[place]
        x = lines.movedim(0, axis)
    return x


def neighbours(x):
    """The correlations of elements with the next one along the height and along the width."""
    pairs = (x[:, :, 1:], x[:, :, :-1]), (x[..., 1:], x[..., :-1])
    return [float((one * other).mean() / x.square().mean()) for one, other in pairs]


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"centre_taps": True}, {"groups": 1, "channel_factor": True}])
def test_it_starts_by_making_neighbours_independent(settings):
    torch.manual_seed(0)
    x = autoregressive(40, 2, 16, 12)
    x[:, 1] *= 5
    layer = lk.axis_exponential(2, positions=(16, 12), norm_limit=None, **settings).double()
    fresh = neighbours(layer(x)[0] / torch.tensor([1.0, 5.0]).view(2, 1, 1))
    layer.initialize(x)
    started = neighbours(layer(x)[0] / torch.tensor([1.0, 5.0]).view(2, 1, 1))
    assert min(fresh) > 0.75
    assert max(map(abs, started)) < 0.15


@torch.no_grad()
def test_where_it_starts_is_within_its_limit_and_finite():
    x = autoregressive(10, 3, 16, 12, share=0.99).float()
    x[:, 1] = 4.0
    layer = lk.axis_exponential(3, 5, norm_limit=1.0)
    layer.initialize(x)
    for axis in ("height", "width"):
        taps = layer.parametrization.get_parameter(f"taps_{axis}").detach()
        sums = taps.abs().sum(1)
        # A channel that is constant says nothing.
        assert torch.allclose(sums, torch.tensor([0.375, 0.0, 0.375]), atol=1e-6)
        assert torch.equal(taps, taps.flip(1))
    skew = lk.axis_exponential(3, 5, orthogonal=True)
    before = {name: value.clone() for name, value in skew.state_dict().items()}
    skew.initialize(x)
    assert all(torch.equal(value, before[name]) for name, value in skew.state_dict().items())
    single = lk.axis_exponential(3, positions=(1, 12))
    single.initialize(x[:, :, :1])
    assert single(x[:, :, :1])[0].isfinite().all()


def test_each_channel_is_multiplied_by_two_small_exponentials():
    layer = lk.testing.randomize(lk.axis_exponential(4, positions=(5, 3), groups=2).double(), scale=0.2)
    x = normal(2, 4, 5, 3)
    down, across = (whole(layer.parametrization.get_parameter(f"taps_{axis}")) for axis in ("height", "width"))
    assert (down.shape, across.shape) == ((2, 9), (2, 5))
    z, log_det = layer(x)
    assert not log_det.any()
    for channel in range(4):
        first, second = (scipy.linalg.expm(toeplitz(taps[channel // 2], n)) for taps, n in ((down, 5), (across, 3)))
        expected = first @ x[:, channel].numpy() @ second.T
        assert np.allclose(z[:, channel].detach().numpy(), expected, atol=1e-10)


def test_it_is_the_convolution_exponential_of_a_cross():
    layer = lk.testing.randomize(lk.axis_exponential(2, 5, centre_taps=True).double(), scale=0.2)
    kernel = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    kernel[:, 0, :, 2] += layer.parametrization.taps_height.detach()
    kernel[:, 0, 2, :] += layer.parametrization.taps_width.detach()
    convolution = lk.Exponential(lk.ConvMap(kernel, groups=2))
    # Images as small as the kernel, smaller, and larger.
    for shape in ((5, 5), (2, 3), (7, 9)):
        x = normal(3, 2, *shape)
        z, log_det = layer(x)
        expected, expected_log_det = convolution(x)
        assert torch.allclose(z, expected, atol=1e-9)
        assert torch.allclose(log_det, expected_log_det)
        assert torch.allclose(layer.inverse(z)[0], x, atol=1e-9)


def test_orthogonal_ones_keep_norms_and_volume_exactly():
    layer = lk.axis_exponential(4, 7, groups=2, orthogonal=True, channel_factor=True, norm_limit=None).double()
    lk.testing.randomize(layer, scale=1.0)
    x = normal(2, 4, 6, 5)
    z, log_det = layer(x)
    assert not log_det.any()
    assert torch.allclose(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-10)
    assert not torch.allclose(z, x, atol=0.1)


def test_taps_are_all_that_there_are_unless_said():
    counts = {
        (63, 63): lk.axis_exponential(2),
        (11, 7): lk.axis_exponential(2, positions=(6, 4)),
        (7, 7): lk.axis_exponential(2, positions=4),
        (3, 5): lk.axis_exponential(2, (3, 5)),
        (127,): lk.axis_exponential(2, positions=64, dims=1),
        (1, 5): lk.axis_exponential(2, positions=(1, 3)),
    }
    for taps, layer in counts.items():
        assert layer.parametrization.taps == taps
    # With one position along an axis there is nothing to mix.
    alone = lk.testing.randomize(lk.axis_exponential(2, positions=(1, 3)))
    x = torch.randn(2, 2, 1, 3)
    assert torch.allclose(alone.inverse(alone(x)[0])[0], x, atol=1e-5)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_norm_stays_within_its_limit(orthogonal):
    layer = lk.axis_exponential(2, 5, norm_limit=1.0, orthogonal=orthogonal).double()
    for scale in (0.01, 3.0):
        lk.testing.randomize(layer, scale=scale)
        map_ = layer.map()
        norm = float(torch.linalg.matrix_norm(map_.materialize((2, 4, 3)).detach(), 2))
        assert norm <= map_.norm_bound((2, 4, 3)) <= 1.0
        # Kernels within the limit are not touched, and their own bound is known.
        assert (map_.norm_bound((2, 4, 3)) < 0.9) == (scale < 1)
        (x,) = torch.autograd.grad(layer(normal(2, 2, 4, 3))[0].sum(), layer.parametrization.taps_width)
        assert torch.isfinite(x).all()


@torch.no_grad()
def test_what_is_known_of_a_norm_is_neither_computed_nor_planned_again(monkeypatch):
    layer = lk.axis_exponential(4, 5, groups=2, channel_factor=True)
    x = torch.randn(2, 4, 4, 3)
    layer(x)
    planned = plan_polynomial.cache_info().misses
    monkeypatch.setattr(AxisMatrix, "bounds", None)
    for _ in range(8):
        # As the steps of a fit: far less than what another polynomial would be for.
        for parameter in layer.parameters():
            parameter.mul_(1.0001)
        layer(x)
    # One of the norms may have crossed a line of the grid, which moves what the three parts are allowed.
    assert plan_polynomial.cache_info().misses <= planned + 6


def test_exponentials_are_formed_once_inside_frozen():
    layer = lk.testing.randomize(lk.axis_exponential(2, positions=(4, 3)).double(), scale=0.1)
    x = normal(3, 2, 4, 3)
    expected = layer(x)[0]
    with layer.frozen(), recorded() as found:
        first, second = layer(x)[0], layer(x)[0]
        back = layer.inverse(first)[0]
    assert found[0].method == "closed-form"
    assert torch.equal(first, second)
    assert torch.allclose(first, expected, atol=1e-10)
    assert torch.allclose(back, x, atol=1e-10)


def test_half_precision():
    layer = lk.testing.randomize(lk.axis_exponential(2, positions=(4, 3)), scale=0.05)
    x = torch.randn(3, 2, 4, 3)
    z = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x)[0], z)
    half, log_det = layer.half()(x.half())
    assert half.dtype == log_det.dtype == torch.float16
    assert torch.allclose(half.float(), z, atol=0.02)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="channels"):
        lk.axis_exponential(0)
    with pytest.raises(ShapeError, match="odd"):
        lk.axis_exponential(2, 4)
    with pytest.raises(ShapeError, match="taps must be a whole number, got True"):
        lk.axis_exponential(2, True)
    with pytest.raises(ShapeError, match="taps is \\[3, 3, 3\\]; it must be one number"):
        lk.axis_exponential(2, [3, 3, 3])
    with pytest.raises(ConfigError, match="norm_limit must be positive and finite, or None for no limit, got '4'"):
        lk.axis_exponential(2, norm_limit="4")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="no word for taps 'al'. Did you mean 'all'"):
        lk.axis_exponential(2, "al")
    with pytest.raises(ConfigError, match="3 channels cannot be split into 2 groups"):
        lk.axis_exponential(3, groups=2)
    with pytest.raises(ConfigError, match="with groups=channels none do"):
        lk.axis_exponential(3, groups=3, channel_factor=True)
    with pytest.raises(ConfigError, match="Leave centre_taps out"):
        lk.axis_exponential(3, orthogonal=True, centre_taps=True)
    with pytest.raises(ConfigError, match="fit images of any size"):
        lk.axis_exponential(3, 5, positions=(4, 4))
    with pytest.raises(ConfigError, match="dims must be 1, 2 or 3"):
        lk.axis_exponential(3, dims=4)
    with pytest.raises(ShapeError, match="2 position axes"):
        lk.axis_exponential(3, positions=(4, 4, 4))
    with pytest.raises(ConfigError, match="norm_limit"):
        lk.axis_exponential(3, norm_limit=0.0)
    with pytest.raises(ShapeError, match="condition"):
        lk.axis_exponential(2, context_features=3)(torch.ones(2, 2, 4, 4))
    with pytest.raises(ShapeError, match="channels"):
        lk.axis_exponential(2)(torch.ones(2, 3, 4, 4))
