"""Rotations: where they start, which they reach."""

import math

import pytest
import torch

import likelify as lk
from tests.cases import normal


@pytest.mark.parametrize("method", ["exponential", "cayley"])
def test_rotations_start_where_they_should_and_invert_by_the_transpose(method):
    start = torch.linalg.qr(normal(4, 4))[0]
    layer = lk.rotation(4, start=start, method=method).double()
    x = normal(3, 4)
    assert torch.allclose(layer(x)[0], x @ start.T, atol=1e-12)
    lk.testing.randomize(layer)
    z, log_det = layer(x)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(z.norm(dim=1), x.norm(dim=1))
    matrix = layer(torch.eye(4, dtype=torch.float64))[0].T
    assert torch.allclose(layer.inverse(x)[0], x @ matrix, atol=1e-10)


def test_every_rotation_is_reached_by_an_exponential():
    layer = lk.rotation(4).double()
    with torch.no_grad():
        # Half a turn in both planes, where Cayley's formula has a pole; the skew part of W is (W - W^T) / 2.
        layer.parametrization.weight[0, 1] = layer.parametrization.weight[2, 3] = 2 * math.pi
    x = normal(3, 4)
    assert torch.allclose(layer(x)[0], -x, atol=1e-10)
