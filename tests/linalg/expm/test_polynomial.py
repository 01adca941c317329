"""Polynomials of matrices in few products: against scipy, to all derivatives."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from likelify.linalg.expm.polynomial import SCHEMES, PolynomialPlan, evaluate_polynomial, plan_polynomial
from tests.cases import normal

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("norm", [0.05, 0.8, 6.0, 20.0])
def test_values_and_gradients_against_scipy(norm, dtype):
    matrices, upstream = normal(3, 8, 8), normal(3, 8, 8).to(dtype)
    matrices = (norm * matrices / torch.linalg.matrix_norm(matrices, 2)[:, None, None]).to(dtype).requires_grad_()
    plan = plan_polynomial(norm, norm, TOLERANCE[dtype], dtype)
    value = evaluate_polynomial(matrices, plan)
    (grad,) = torch.autograd.grad(value, matrices, upstream)
    exact = np.stack([scipy.linalg.expm(m) for m in matrices.detach().double().numpy()])
    gap = np.linalg.norm(value.detach().double().numpy() - exact, ord=2, axis=(1, 2)).max()
    assert plan.error <= TOLERANCE[dtype]
    rounding = 40 * torch.finfo(dtype).eps * np.abs(exact).max()
    assert gap <= plan.error + rounding
    pairs = zip(matrices.detach().double().numpy(), upstream.double().numpy(), strict=True)
    slopes = np.stack([scipy.linalg.expm_frechet(m.T, g, compute_expm=False) for m, g in pairs])
    assert np.abs(grad.double().numpy() - slopes).max() <= 20 * TOLERANCE[dtype] * np.abs(slopes).max()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.degree)
def test_every_chain_is_its_taylor_polynomial(scheme):
    # On a nilpotent shift the entries of the first row are the coefficients themselves.
    size = scheme.degree + 3
    shift = torch.diag(torch.ones(size - 1, dtype=torch.float64), 1)
    value = evaluate_polynomial(shift, PolynomialPlan(scheme, 0, 0.0))
    expected = [1 / math.factorial(k) for k in range(scheme.degree + 1)]
    torch.testing.assert_close(
        value[0, : scheme.degree + 1], torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-16
    )
    assert not value[0, scheme.degree + 1 :].any()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("scheme", [SCHEMES[0], SCHEMES[2], SCHEMES[3]], ids=lambda scheme: scheme.degree)
def test_derivatives_of_all_kinds(scheme):
    plan = PolynomialPlan(scheme, 1, 0.0)

    def run(matrices):
        return evaluate_polynomial(matrices, plan, time=0.7)

    for matrices in (0.5 * normal(2, 2, 2), torch.complex(normal(1, 2, 2), normal(1, 2, 2))):
        matrices.requires_grad_()
        assert torch.autograd.gradcheck(run, matrices, check_forward_ad=not matrices.is_complex())
        assert torch.autograd.gradgradcheck(run, matrices)
    matrices = 0.5 * normal(3, 2, 2)
    mapped = torch.func.vmap(torch.func.jacrev(run))(matrices)
    plain = torch.stack([torch.autograd.functional.jacobian(run, m) for m in matrices])
    torch.testing.assert_close(mapped, plain)


def test_none_at_all_and_extreme_shifts():
    plan = plan_polynomial(0.8, 0.8, 1e-6, torch.float32)
    for shape in ((0, 3, 3), (2, 0, 3, 3)):
        none = torch.zeros(*shape, requires_grad=True)
        value = evaluate_polynomial(none, plan)
        assert value.shape == none.shape
        assert torch.autograd.grad(value.sum(), none)[0].shape == none.shape
    plan = plan_polynomial(100.0, 100.0, 1e-6, torch.float32)
    value = evaluate_polynomial(100 * torch.eye(2), plan, exponent=-100.0)
    torch.testing.assert_close(value, torch.eye(2), rtol=1e-3, atol=0)
