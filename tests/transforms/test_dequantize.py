"""Integers and their noise."""

import math

import torch

import likelify as lk


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
