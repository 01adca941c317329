"""Splines against zuko's, their gradients, and the packed spline against the general one."""

import math

import pytest
import torch
import zuko

from likelify import testing
from likelify.transforms import splines


def zuko_spline(raw, bins, interval):
    """zuko's spline with our knots: it builds its own from other unconstrained numbers, so they are set."""
    knots = splines.knots_from_raw(raw, bins=bins, interval=interval)
    places, values, slopes = knots.split(bins + 1, dim=1)
    transform = zuko.transforms.MonotonicRQSTransform(
        torch.zeros(len(raw), bins), torch.zeros(len(raw), bins), torch.zeros(len(raw), bins - 1)
    )
    transform.horizontal, transform.vertical, transform.derivatives = places, values, slopes
    return transform


def test_splines_agree_with_zuko():
    raw = torch.randn(50, splines.raw_size(6), dtype=torch.float64)
    x = 4 * torch.randn(50, dtype=torch.float64)
    ours, log_slope = splines.evaluate(splines.knots_from_raw(raw, bins=6, interval=3.0), x)
    theirs, their_slope = zuko_spline(raw, 6, 3.0).call_and_ladj(x)
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.allclose(log_slope, their_slope, atol=1e-12)


def test_the_shared_path_equals_the_general_one():
    raw = torch.randn(3, splines.raw_size(4), dtype=torch.float64, requires_grad=True)
    x = 3 * torch.randn(3, 7, dtype=torch.float64)
    for inverse in (False, True):
        knots = splines.knots_from_raw(raw, bins=4, interval=2.0)
        shared = splines.evaluate_shared(knots, x, inverse=inverse)
        spread = splines.evaluate(knots[:, :, None].expand(-1, -1, 7), x, inverse=inverse)
        for one, other in zip(shared, spread, strict=True):
            assert torch.equal(one, other)
        one, other = (torch.autograd.grad(v.sum() + d.sum(), raw, retain_graph=True)[0] for v, d in (shared, spread))
        assert torch.allclose(one, other)


def test_spline_gradients_at_knots_tails_and_far_out():
    raw = torch.randn(6, splines.raw_size(3), dtype=torch.float64, requires_grad=True)
    x = torch.tensor([-2.0, 2.0, 0.0, 1e6, -1e6, 1.9999999], dtype=torch.float64, requires_grad=True)
    for inverse in (False, True):
        value, log_slope = splines.evaluate(splines.knots_from_raw(raw, bins=3, interval=2.0), x, inverse=inverse)
        grads = torch.autograd.grad(value.sum() + log_slope.sum(), (raw, x))
        assert all(bool(torch.isfinite(g).all()) for g in grads)
    inside = (1.5 * torch.rand(6, dtype=torch.float64)).requires_grad_()
    for inverse in (False, True):

        def function(raw, x, inverse=inverse):
            return splines.evaluate(splines.knots_from_raw(raw, bins=3, interval=2.0), x, inverse=inverse)

        assert torch.autograd.gradcheck(function, (raw, inside))
        assert torch.autograd.gradgradcheck(function, (raw, inside))


def test_extreme_spline_parameters_still_invert_in_float32():
    raw = 30 * torch.randn(2000, splines.raw_size(5))
    x = 3 * (2 * torch.rand(2000) - 1)
    knots = splines.knots_from_raw(raw, bins=5, interval=3.0)
    y, log_slope = splines.evaluate(knots, x)
    back, _ = splines.evaluate(knots, y, inverse=True)
    assert bool(torch.isfinite(log_slope).all())
    # Where the slope is tiny, rounding of y is magnified; measured in y the inverse is exact.
    again, _ = splines.evaluate(knots, back)
    assert float((again - y).abs().max()) < 1e-3


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
    with torch.autocast("cpu", torch.bfloat16):
        half = layer.float()(x.bfloat16())[0]
    assert half.dtype == torch.float32
    assert set(layer.state_dict()) == {"raw"}
