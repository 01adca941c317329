"""Scalar residuals: roots by bisection and Newton steps, steep slopes and refusals."""

import pytest
import torch

import likelify as lk
from likelify import nets, transforms
from likelify.errors import ConvergenceError, DomainError
from likelify.testing import randomize
from likelify.transforms.sylvester_flows.scalar import find_roots
from tests.cases import normal


def test_roots_of_steep_and_flat_functions():
    v = torch.tensor([-40.0, -1.0, 0.0, 0.3, 1e6], dtype=torch.float64)
    start = torch.zeros_like(v)

    def steep(x):
        return 50 * torch.tanh(40 * x), 2000 / torch.cosh((40 * x).clamp(-300, 300)) ** 2

    found = find_roots(steep, v, start, start + steep(start)[0] - v)
    assert torch.allclose(found + steep(found)[0], v, atol=1e-9)

    def flat(x):
        return -x + torch.atan(x), -1 + 1 / (1 + x * x)

    good = torch.tensor([-1.5, 0.2, 1.57], dtype=torch.float64)
    found = find_roots(flat, good, 0 * good, -good)
    assert torch.allclose(found.atan(), good, atol=1e-12)
    with pytest.raises(ConvergenceError, match="bounded"):
        find_roots(flat, v, start, -v)


def test_large_slopes_of_the_free_form_are_found_by_bisection():
    class Constant(torch.nn.Module):
        def forward(self, u, context=None):
            raw = torch.tensor([0.3, 6.0, 4.0, -1.0], dtype=u.dtype) + torch.zeros_like(u)[..., None]
            return raw.movedim(-1, 1).flatten(1)

    layer = lk.TriangularResidual(Constant(), transforms.FreeTanhResidual())
    x = 3 * normal(20, 3)
    assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-9)
    wide = lk.TriangularResidual(
        nets.AutoregressiveNet(3, dims=0, hidden=9), transforms.TanhResidual(slope_limit=0.99)
    ).double()
    randomize(wide, scale=2.0)
    z = wide(x)[0]
    assert float((wide(wide.inverse(z)[0])[0] - z).detach().abs().max()) < 1e-9


def test_slopes_that_are_too_steep_are_refused():
    class Steep(transforms.ScalarResidual):
        size = 1

        def evaluate(self, u, raw):
            return -2 * u + raw[:, 0], torch.full_like(u, -2.0)

    layer = lk.TriangularResidual(nets.AutoregressiveNet(2, hidden=4, heads=1, dims=0), Steep())
    with pytest.raises(DomainError, match="slope of f is above -1"):
        layer(torch.ones(1, 2))
