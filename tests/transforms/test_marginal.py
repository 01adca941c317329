"""Fitted marginals against the independent-pixel model."""

import pytest
import torch

import likelify as lk
from likelify.errors import DomainError


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


def test_scores_far_out_keep_their_digits():
    layer = lk.FittedMarginal((1,), 4)
    z = torch.tensor([[-6.0], [-5.5], [6.0]])
    back, _ = layer.inverse(z)
    torch.testing.assert_close(layer(back)[0][:2], z[:2], rtol=1e-3, atol=0)
    assert 0 < float(back[0]) < 1e-7


@pytest.mark.parametrize("wrong", [40.0, float("nan"), -1.0])
def test_a_sample_that_is_refused_is_not_counted(wrong):
    layer = lk.transforms.FittedMarginal((2,), 4)
    before = layer.mass.clone()
    x = 4 * torch.rand(20, 2)
    x[3, 1] = wrong
    with pytest.raises(DomainError):
        layer.initialize(x)
    assert torch.equal(layer.mass, before)
