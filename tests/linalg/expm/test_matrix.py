"""Exponentials of matrices that are formed, large and small."""

import math

import torch

import likelify as lk
from likelify import linalg
from likelify.linalg.expm.matrix import SmallExponential
from likelify.linalg.expm.polynomial import evaluate_polynomial, plan_polynomial
from tests.cases import normal
from tests.linalg.reference import exponential


def formed(matrix, tol):
    norm = float(torch.linalg.matrix_norm(matrix.detach(), 2).max())
    return evaluate_polynomial(matrix, plan_polynomial(norm, norm, tol * math.exp(norm), matrix.dtype))


def test_polynomials_of_matrices_in_batches_complex_and_with_accurate_gradients():
    for matrices in (0.5 * normal(3, 5, 5), torch.complex(normal(2, 4, 4), normal(2, 4, 4)), 20 * normal(3, 3)):
        exact = exponential(matrices)
        assert float((formed(matrices, 1e-15) - exact).abs().max() / exact.abs().max()) < 1e-11
    weight = torch.randn(64, 64) / 16
    leaf, double = weight.clone().requires_grad_(), weight.double().requires_grad_()
    (found,) = torch.autograd.grad(formed(leaf, 1e-8).square().sum(), leaf)
    (exact,) = torch.autograd.grad(exponential(double).square().sum(), double)
    assert float((found - exact).norm() / exact.norm()) < 1e-6
    assert plan_polynomial(0.8, 0.8, 1e-6, torch.float32).products == 3


def test_a_set_of_one_element_is_its_mean():
    theta = 1e6 * torch.eye(2, dtype=torch.float64)
    x = normal(3, 2, 1)
    assert torch.allclose(lk.exp_action(linalg.SetMap(theta, -theta), x).value, x)


def test_small_exponentials():
    for norm in (0.0, 1e-8, 0.03, 1.0, 30.0):
        matrices = normal(4, 3, 3)
        matrices = norm * matrices / torch.linalg.matrix_norm(matrices, 2)[:, None, None]
        value = SmallExponential.apply(matrices)
        scale = float(torch.linalg.matrix_norm(value, 2).max())
        torch.testing.assert_close(value, exponential(matrices), rtol=0, atol=1e-13 * scale)
    matrices = normal(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(SmallExponential.apply, matrices)
    assert torch.autograd.gradgradcheck(SmallExponential.apply, matrices)
    assert SmallExponential.apply(torch.full((1, 2, 2), math.nan)).isnan().all()
