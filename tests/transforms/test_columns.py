import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, DataError, ShapeError
from likelify.transforms import Columns


def rows(count=500):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return torch.tensor([1.7e9, 0.0, -5.0]) + noise * torch.tensor([100.0, 1e-6, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_of_any_size_keep_their_digits(dtype):
    x, layer = rows(), Columns(3).to(dtype)
    z = layer.initialize(x)
    assert z.dtype == dtype
    assert z.mean(0).abs().max() < 1e-5
    assert (z.std(0, correction=0) - 1).abs().max() < 1e-5
    back, log_det = layer.inverse(z)
    assert back.dtype == log_det.dtype == torch.float64
    scale = torch.tensor([100.0, 1e-6, 2.0])
    assert ((back - x).abs() < 1e-5 * scale).all()
    forward = layer(x)[1]
    assert forward.dtype == dtype
    torch.testing.assert_close(forward.double(), -log_det, rtol=1e-6, atol=1e-5)


def test_the_likelihood_is_in_the_units_of_the_rows():
    x = rows()
    flow = lk.Flow(lk.Normal((3,)), lk.Chain([Columns(3)]), event_shape=(3,))
    flow.initialize(x)
    direct = torch.distributions.Normal(x.mean(0), x.std(0, correction=0)).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_prob(x).double(), direct, rtol=1e-5, atol=1e-4)
    drawn = flow.sample(20000)
    assert drawn.dtype == torch.float64
    assert ((drawn.mean(0) - x.mean(0)).abs() < 0.03 * x.std(0)).all()
    assert ((drawn.std(0) / x.std(0) - 1).abs() < 0.03).all()


def test_moving_a_flow_leaves_the_moments_in_float64():
    layer = Columns(3)
    layer.initialize(rows())
    mean = layer.mean.clone()
    for move in (torch.nn.Module.float, torch.nn.Module.double, torch.nn.Module.half, lambda m: m.to("cpu")):
        move(layer)
        assert layer.mean.dtype == layer.scale.dtype == torch.float64
        assert torch.equal(layer.mean, mean)
    assert layer(rows())[0].dtype == torch.float16
    assert layer.to("meta").mean.device.type == "meta"


def test_states_are_loaded_in_float64():
    layer, other = Columns(3), Columns(3)
    layer.initialize(rows())
    assert set(layer.state_dict()) == {"mean", "scale"}
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.mean, layer.mean)


def test_what_does_not_fit_is_refused():
    layer = Columns(2)
    with pytest.raises(ShapeError, match="shape \\(rows, 2\\)"):
        layer(torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="number of Columns must be at least 1"):
        Columns(0)
    with pytest.raises(DataError, match="empty sample"):
        layer.initialize(torch.zeros(0, 2))
    with pytest.raises(DataError, match=r"Column 1 \(from 0\)"):
        layer.initialize(torch.tensor([[0.0, math.nan], [1.0, 2.0]]))
    layer.initialize(torch.tensor([[0.0, 7.0], [2.0, 7.0]]))
    assert layer.scale.tolist() == [1.0, 1.0]


def test_behind_layers_of_the_flow_columns_can_be_drawn_too():
    x = 5 + 3 * torch.randn(40, 3)
    for columns in (lk.transforms.Columns(3), lk.transforms.KernelMarginal(3)):
        flow = lk.Flow(lk.Normal((3,)), lk.Chain([lk.ActNorm(3), columns]))
        flow.initialize(x)
        with lk.seeded(0):
            drawn = flow.sample((2000,))
        assert drawn.dtype == torch.float32
        torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0, atol=0.5)
