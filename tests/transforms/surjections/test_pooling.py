"""What the laws do not say about pooling and upsampling."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import likelify as lk
from likelify import testing
from likelify.errors import ConfigError, ShapeError
from likelify.transforms.surjections import pooling
from tests.transforms.host_tables import HostTables

TRIPLES = torch.tensor(list(itertools.product(range(2), repeat=3)))[:, None]


def small_net(size_in, size_out):
    return nn.Sequential(nn.Linear(size_in, 4), nn.Tanh(), nn.Linear(4, size_out))


def image(*shape):
    return torch.randn(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [
        (2, None, 0, 1, False),
        (3, 2, 1, 1, False),
        (3, 2, 1, 1, True),
        ((2, 3), (2, 1), (1, 0), 1, False),
        (2, 1, 1, 3, False),
        (2, 3, 0, 1, True),
        (2, 3, 1, 1, False),
    ],
)
def test_max_pooling_is_that_of_torch(kernel, stride, padding, dilation, ceil):
    x = image(3, 8, 7) - 5
    layer = pooling.max_pool(
        (3, 8, 7), kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil
    ).double()
    expected = F.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    assert torch.equal(layer.mean_forward(x), expected)
    assert layer.out_shape((3, 8, 7)) == expected.shape[1:]
    if not layer[0].random_forward:
        assert torch.equal(layer(x)[0], expected)
    assert torch.equal(layer.mean_forward(layer.mean_inverse(expected)), expected) or stride != kernel


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [
        (2, None, 0, False),
        (3, 2, 1, False),
        (3, 2, 1, True),
        ((2, 3), (2, 1), (1, 0), False),
        (2, 3, 0, True),
        (2, 3, 1, True),
    ],
)
def test_average_pooling_is_that_of_torch(kernel, stride, padding, ceil, include):
    x = image(3, 8, 7)
    layer = pooling.average_pool(
        (3, 8, 7), kernel, stride=stride, padding=padding, count_include_pad=include, ceil_mode=ceil
    ).double()
    expected = F.avg_pool2d(x, kernel, stride, padding, ceil, include)
    assert torch.allclose(layer.mean_forward(x), expected, rtol=1e-13, atol=1e-13)
    assert layer.out_shape((3, 8, 7)) == expected.shape[1:]


def test_other_poolings_and_upsampling_are_those_of_torch():
    x = image(3, 4, 6)
    line = image(3, 7)
    for layer, value, expected in (
        (pooling.max_pool((3, 7), 3, stride=2, padding=1), line, F.max_pool1d(line, 3, 2, 1)),
        (pooling.average_pool((3, 7), 3), line, F.avg_pool1d(line, 3)),
        (pooling.average_pool((3, 4, 6), 2, divisor=3.0), x, F.avg_pool2d(x, 2, divisor_override=3)),
        (pooling.global_average_pool((3, 4, 6)), x, F.adaptive_avg_pool2d(x, 1)),
        (pooling.global_max_pool((3, 4, 6)), x, F.adaptive_max_pool2d(x, 1)),
        (pooling.global_max_pool((3, 7)), line, F.adaptive_max_pool1d(line, 1)),
        (pooling.upsample_nearest((3, 4, 6), 2), x, F.interpolate(x, scale_factor=2.0)),
        (pooling.upsample_nearest((3, 4, 6), (1, 3)), x, F.interpolate(x, scale_factor=(1.0, 3.0))),
        (pooling.upsample_nearest((3, 7), 3), line, F.interpolate(line, scale_factor=3.0)),
    ):
        found = layer.double().mean_forward(value)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-14, atol=1e-14)


def mass_by_order(flow):
    """The integral of a density on events (2,), each side of the diagonal by itself: there it may have a ridge."""
    larger = torch.linspace(-9, 9, 361, dtype=torch.float64)
    # Not from zero: of two equal entries the first counts as the maximum.
    below = torch.linspace(1e-9, 60, 2401, dtype=torch.float64)
    first, second = torch.meshgrid(larger, below, indexing="ij")
    first, second = first.flatten(), (first - second).flatten()
    with torch.no_grad():
        density = sum(flow.log_prob(torch.stack(pair, 1)).exp() for pair in ((first, second), (second, first)))
    return float(torch.trapezoid(torch.trapezoid(density.reshape(361, 2401), below), larger))


@pytest.mark.parametrize("net", [None, small_net])
@pytest.mark.parametrize("build", [pooling.MaxOfPatches, pooling.MeanOfPatches])
def test_exact_pooling_integrates_to_one_and_samples_follow_its_density(build, net):
    with lk.seeded(0):
        layer = testing.randomize(build(1, 2, net_factory=net))
        flow = lk.Flow(lk.Normal((1,)), lk.Chain([layer, lk.ActNorm(1)])).double()
    assert flow.likelihood == "exact"
    if build is pooling.MaxOfPatches:
        assert mass_by_order(flow) == pytest.approx(1, abs=1e-3)
    # The grid is only right to first order along the ridge.
    testing.check_flow(flow, box=[(-14.0, 8.0), (-14.0, 8.0)], points=1000, tol=1e-2)


def test_a_divisor_of_its_own_and_entries_that_do_not_count_keep_the_mass():
    valid = torch.tensor([True, False])
    for layer in (
        pooling.MeanOfPatches(1, 2, divisor=5.0),
        pooling.MeanOfPatches(1, 2, valid=valid, divisor=0.5),
        pooling.MaxOfPatches(1, 2, valid=valid),
    ):
        flow = lk.Flow(lk.Normal((1,)), testing.randomize(layer)).double()
        testing.check_flow(flow, box=[(-12.0, 12.0), (-12.0, 12.0)], points=500)


@pytest.mark.parametrize(
    "build",
    [
        lambda: pooling.max_pool((1, 3), 2, stride=1),
        lambda: pooling.max_pool((1, 3), 3, stride=2, padding=1),
        lambda: pooling.max_pool((1, 3), 2, padding=1, noise="uniform"),
        lambda: pooling.max_pool(
            (1, 3), 1, stride=2, net_factory=lambda size_in, size_out: nn.Conv1d(size_in, size_out, 1)
        ),
        lambda: pooling.average_pool((1, 3), 2, stride=1),
        lambda: pooling.average_pool((1, 3), 3, stride=2, padding=1, count_include_pad=False),
        lambda: pooling.average_pool((1, 3), 2, stride=2, ceil_mode=True),
        lambda: pooling.upsample_nearest((1, 3), 2),
    ],
)
def test_weights_are_unbiased_both_ways(build):
    with lk.seeded(0):
        layer = testing.randomize(build(), scale=0.2)
    layers = lk.Chain([lk.Dequantize(2), lk.Affine(scale=0.5), lk.Logit(), layer])
    testing.check_weights(lk.Flow(lk.Normal(layer.out_shape((1, 3))), layers).double(), TRIPLES, samples=40000)


def test_disjoint_windows_are_exact_and_padding_costs_nothing():
    assert pooling.max_pool((2, 4, 4), 2).likelihood == "exact"
    assert pooling.average_pool((2, 5, 4), 2).likelihood == "exact"
    assert pooling.max_pool((2, 4, 4), 3, stride=1).likelihood == "bound"
    padded = pooling.max_pool((1, 3), 2, padding=1).double()
    assert padded.likelihood == "bound"
    x = image(1, 3)
    one, other = padded(x), padded(x)
    assert torch.equal(one[0], other[0])
    assert torch.allclose(one[1], other[1], atol=1e-12)


def test_what_is_drawn_never_exceeds_the_maximum_in_float32():
    layer = pooling.global_max_pool((2, 3, 3))
    z = torch.tensor([0.0, 1e6, -1e-6, 3.0]).reshape(2, 2, 1, 1)
    x, _ = layer.inverse(z)
    assert torch.equal(x.amax((2, 3), keepdim=True), z)
    assert torch.equal(layer.mean_inverse(z), z.expand(2, 2, 3, 3))


def test_initialize_fits_the_trained_numbers_to_a_sample():
    z = torch.randn(3000, 1)
    distances = 2 * torch.empty(3000, 2).exponential_()
    x = torch.cat([z, z - distances], 1)
    layer = pooling.MaxOfPatches(1, 3)
    assert torch.equal(layer.initialize(x), z)
    assert float(layer.log_scale.detach().exp()) == pytest.approx(2, rel=0.1)
    assert float(layer.log_odds.detach().softmax(1)[0, 0]) == pytest.approx(1, abs=0.01)
    mean = pooling.MeanOfPatches(1, 3)
    mean.initialize(3 * torch.randn(3000, 3))
    assert float(mean.log_scale.detach().exp()) == pytest.approx(3, rel=0.1)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="half the window"):
        pooling.max_pool((1, 4, 4), 2, padding=2)
    with pytest.raises(ShapeError, match="does not fit"):
        pooling.average_pool((1, 2, 2), 3)
    with pytest.raises(ShapeError, match="stride"):
        pooling.max_pool((1, 4, 4), 2, stride=(1, 2, 3))
    with pytest.raises(ShapeError, match="12 channels"):
        pooling.MaxOfPatches(3, 4)(torch.zeros(1, 11))
    with pytest.raises(ShapeError, match="at least one counts"):
        pooling.MeanOfPatches(1, 2, valid=torch.tensor([[True, False], [True, False]]))
    with pytest.raises(ConfigError, match="divisor"):
        pooling.MeanOfPatches(1, 2, divisor=0.0)
    with pytest.raises(ShapeError, match="is needed"):
        pooling.MaxOfPatches(1, 2, net_factory=lambda size_in, size_out: nn.Linear(size_in, 2))(torch.zeros(1, 2))
    with pytest.raises(ShapeError, match="positions"):
        pooling.global_max_pool((3,))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.average_pool])
def test_nothing_is_made_on_the_host_by_a_call(pool, padding):
    layer, x = pool((2, 4, 4), 2, padding=padding).double(), image(2, 4, 4)
    with HostTables() as tables, torch.no_grad():
        z, _ = layer(x)
        layer.inverse(z)
    assert not tables.made
    assert not [name for name in layer.state_dict() if "counts" in name]
