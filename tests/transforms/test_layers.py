"""What the laws do not say about single layers."""

import math

import pytest
import torch
import zuko

import likelify as lk
from likelify import nets, transforms
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.transforms import splines
from likelify.zoo.marginal_spline import position_mask


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


def test_dequantized_noise_never_reaches_the_next_level():
    layer = lk.Dequantize(256)
    x = torch.full((200, 1, 32, 32), 255, dtype=torch.uint8)
    z, _ = layer(x)
    assert z.dtype == torch.float32
    assert float(z.max()) < 256
    assert float(z.min()) > 255
    assert abs(float((z - 255).mean()) - 0.5) < 2e-3
    assert torch.equal(layer.inverse(z)[0], x.float())
    assert layer.double()(x)[0].dtype == torch.float64
    assert layer.inverse(torch.tensor([[300.0, -2.0]]).double())[0].tolist() == [[255.0, 0.0]]
    assert layer.inverse(torch.tensor([[300.0]]).double())[1].tolist() == [-math.inf]
    assert torch.equal(layer.mean_inverse(layer.mean_forward(x)), x.double())


def test_inputs_outside_the_domain_are_refused():
    with pytest.raises(DomainError, match=r"Dequantize: 1 of 2 input values lie outside the integers 0..3"):
        lk.Dequantize(4)(torch.tensor([[1, 4]]))
    with pytest.raises(DomainError, match="the integers 0..3"):
        lk.Dequantize(4)(torch.tensor([[1.5]]))
    with pytest.raises(DomainError, match=r"Logit.*\[0, 1\]"):
        lk.Logit(0.05)(torch.tensor([[1.01]]))
    with pytest.raises(DomainError):
        lk.Logit()(torch.tensor([[0.0]]))
    with pytest.raises(DomainError):
        transforms.Tanh().inverse(torch.tensor([[1.0]]))
    with pytest.raises(DomainError):
        transforms.Softplus().inverse(torch.tensor([[0.0]]))
    with pytest.raises(DomainError):
        transforms.Sigmoid().inverse(torch.tensor([[math.nan]]))
    with pytest.raises(DomainError, match="FittedMarginal"):
        lk.FittedMarginal((1,), 4)(torch.tensor([[4.0]]))


def test_integers_short_dtypes_and_ends_of_the_range():
    z, log_det = lk.Affine(scale=1 / 256)(torch.tensor([[1, 2]]))
    assert log_det.dtype == z.dtype
    assert float(log_det) == pytest.approx(-2 * math.log(256))
    with pytest.raises(DomainError, match="too short for 256 levels"):
        lk.Dequantize(256).bfloat16()(torch.tensor([[3]]))
    layer = lk.FittedMarginal((1,), 4)
    with pytest.raises(DomainError):
        layer(torch.tensor([[0.0]]))
    with pytest.raises(ShapeError, match="FittedMarginal works on"):
        layer(torch.ones(1, 2))


def test_wrong_shapes_and_settings_are_refused():
    with pytest.raises(ShapeError, match="3 channels"):
        lk.ActNorm(3)(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="multiples of"):
        lk.Squeeze()(torch.zeros(1, 1, 3, 4))
    with pytest.raises(ShapeError, match="exactly once"):
        lk.Permute([0, 0, 1])
    with pytest.raises(ShapeError, match="sizes differ"):
        lk.Reshape((4,), (3,))
    with pytest.raises(ShapeError, match="returned"):
        lk.Coupling(lk.ChannelSplit(4), lk.AffineBijector(), nets.MLP(2, 3))(torch.zeros(1, 4))
    with pytest.raises(ShapeError, match="each side"):
        lk.MaskSplit(torch.ones(3))
    with pytest.raises(ShapeError, match="more than 2 channels"):
        lk.Slice(2, lk.Normal((1,)))(torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="norm_limit"):
        lk.conv_exponential(2, norm_limit=-1.0)
    with pytest.raises(ConfigError, match="bins"):
        lk.SplineBijector(1)
    with pytest.raises(UnsupportedError, match="Chain takes Transforms"):
        lk.Chain([torch.nn.Linear(2, 2)])
    with pytest.raises(UnsupportedError, match="draws noise"):
        lk.Conjugate(lk.Dequantize(3), lk.ActNorm(1))


def test_actnorm_is_initialized_by_request_only():
    layer = lk.ActNorm(2)
    x = torch.stack([3 + 2 * torch.randn(500), torch.full((500,), 7.0)], 1)
    assert torch.equal(layer(x)[0], x)
    z = layer.initialize(x)
    assert torch.allclose(z[:, 0].mean(), torch.tensor(0.0), atol=1e-5)
    assert torch.allclose(z[:, 0].std(correction=0), torch.tensor(1.0), atol=1e-5)
    assert float(z[:, 1].abs().max()) == 0
    assert float(layer.log_scale.detach()[1]) == 0


def test_a_fitted_marginal_is_the_independent_pixel_model():
    counts = torch.randint(5, (300, 3))
    layer = lk.FittedMarginal((3,), 5, pseudo_count=0.5)
    flow = lk.Flow(lk.Normal((3,)), lk.Chain([lk.Dequantize(5), layer])).double()
    flow.initialize(counts)
    mass = torch.stack([(counts == level).double().sum(0) for level in range(5)], 1) + 0.5
    mass = mass / mass.sum(1, keepdim=True)
    x = torch.randint(5, (20, 3))
    expected = mass.log().gather(1, x.T).sum(0)
    assert torch.allclose(flow.elbo(x).value, expected, atol=1e-9)


def test_a_fitted_marginal_keeps_its_digits_near_one_in_float32():
    layer = lk.FittedMarginal((1,), 17)
    layer.initialize(torch.cat([torch.full((1200, 1), 0.5), torch.full((93, 1), 16.5)]))
    single, double = layer, lk.FittedMarginal((1,), 17)
    double.load_state_dict(layer.state_dict())
    double.double()
    v = torch.cat([torch.linspace(1e-5, 16.9999, 5001), torch.tensor([17 - 2.0**-18, 2.0**-18])])[:, None]
    z, log_det = single(v)
    z_exact, log_det_exact = double(v.double())
    assert float((z - z_exact).abs().max()) < 1e-4
    assert float((log_det - log_det_exact).abs().max()) < 1e-3
    assert float((single.inverse(z)[0] - v).abs().max()) < 1e-3


def test_position_masks_cover_every_pixel_both_ways():
    for shape in ((1, 8, 8), (3, 4, 4), (1, 1, 6)):
        for index in range(0, 12, 2):
            mask, complement = position_mask(shape, index), position_mask(shape, index + 1)
            assert torch.equal(mask, ~complement)
            assert 0 < int(mask.sum()) < mask.numel()


def test_conjugation_by_a_linear_basis_keeps_the_inner_log_determinant():
    basis = lk.Exponential(lk.Dense(0.3 * torch.randn(4, 4).double()))
    inner = lk.Chain([lk.ActNorm(4), transforms.Softplus()]).double()
    x = torch.randn(3, 4).double()
    conjugate = lk.Conjugate(basis, inner)
    assert torch.allclose(conjugate(x)[1], inner(basis(x)[0])[1])


def test_chains_are_sequences():
    chain = lk.Chain([lk.ActNorm(2), lk.Conv1x1(2), lk.Squeeze()])
    assert len(chain) == 3
    assert isinstance(chain[1], lk.Conv1x1)
    assert [type(t) for t in chain[:2]] == [lk.ActNorm, lk.Conv1x1]
    assert chain.out_shape((2, 4, 4)) == (8, 2, 2)
    with pytest.raises(ShapeError, match="empty"):
        lk.Chain([])(torch.zeros(1, 2))
