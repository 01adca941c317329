"""The packed spline against the general one, its derivatives, bins and memory layout."""

import math

import pytest
import torch

from likelify import testing
from likelify.transforms import splines


@pytest.mark.parametrize(("channels", "numbers"), [(1, 50), (1, 5000), (3, 700)])
def test_the_packed_spline_equals_the_general_one(channels, numbers):
    raw = torch.randn(channels, splines.raw_size(7), dtype=torch.float64, requires_grad=True)
    x = (2 * torch.randn(channels, numbers, dtype=torch.float64)).requires_grad_()
    weights = torch.randn(2, channels, numbers, dtype=torch.float64)
    results = []
    for evaluate in (splines.evaluate_packed, splines.evaluate_shared):
        outputs = evaluate(splines.knots_from_raw(raw, bins=7, interval=2.0), x)
        results.append([*outputs, *torch.autograd.grad(outputs, (raw, x), tuple(weights))])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def test_derivatives_of_the_packed_spline():
    raw = torch.randn(2, splines.raw_size(3), dtype=torch.float64, requires_grad=True)
    x = (2 * torch.randn(2, 6, dtype=torch.float64)).requires_grad_()

    def function(raw, x):
        return splines.evaluate_packed(splines.knots_from_raw(raw, bins=3, interval=2.0), x)

    assert torch.autograd.gradcheck(function, (raw, x))
    assert torch.autograd.gradgradcheck(function, (raw, x))
    assert torch.autograd.gradcheck(lambda raw: function(raw, x.detach()), (raw,))
    assert torch.autograd.gradcheck(lambda x: function(raw.detach(), x), (x,))


def test_every_bin_is_found_also_at_knots_and_with_the_narrowest_bins():
    raw = torch.zeros(1, splines.raw_size(10))
    raw[0, :10] = torch.tensor([0.0, -60, -60, 5, -60, -60, -60, 20, -60, -60])
    places = splines.knots_from_raw(raw, bins=10, interval=2.0)[:, :11]
    x = torch.cat([places[0], places[0].nextafter(torch.tensor(9.0)), places[0].nextafter(torch.tensor(-9.0))])
    x = torch.cat([x, 3 * torch.rand(3000) - 1.5, torch.tensor([math.inf, -math.inf, 1e30])])[None]
    expected = torch.searchsorted(places, x, right=True)
    assert torch.equal(splines._find_in_cells(x, places).long(), expected[0])
    assert torch.equal(splines._find_by_comparing(x, places).long(), expected)


def test_far_out_the_packed_spline_is_the_identity():
    layer = testing.randomize(splines.SharedSpline())
    x = torch.tensor([[math.inf, -math.inf, 1e30, -2.0, 2.0, 2.5, -1e5]])
    for repeats in (1, 500):
        z, log_det = layer(x.expand(repeats, -1))
        assert torch.equal(z[0], x[0])
        assert float(log_det[0].detach().abs()) < 1e-6
    assert bool(torch.isnan(layer(torch.full((1, 3000), math.nan))[0]).all())


def test_a_shared_spline_keeps_the_memory_layout_and_works_in_torch_func():
    layer = testing.randomize(splines.SharedSpline(bins=5)).double()
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    z, log_det = layer(x)
    last, same = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(last, z)
    assert torch.allclose(same, log_det)
    mapped, by_row = torch.func.vmap(lambda v: layer(v[None]))(x)
    assert torch.allclose(mapped[:, 0], z)
    assert torch.allclose(by_row[:, 0], log_det)
    half = layer.float()(x.half())[0]
    assert half.dtype == torch.float32
    assert set(layer.state_dict()) == {"raw"}
