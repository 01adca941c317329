"""The Chebyshev expansion: Bessel functions, fewer terms, large skew maps."""

import math

import torch

import likelify as lk
from likelify.linalg.expm.chebyshev import bessel, degree_for
from likelify.linalg.expm.series import series_degree
from tests.linalg.reference import exponential


def test_structure_saves_terms_and_a_skew_map_may_be_large():
    assert degree_for(5.0, 1e-6, skew=True) < series_degree(5.0, 1e-6, 150)
    weight = torch.randn(12, 12)
    skew = lk.Skew(50 * weight / torch.linalg.matrix_norm(lk.Skew(weight).effective, 2))
    x = torch.randn(4, 12)
    action = lk.exp_action(skew, x, method="chebyshev")
    exact = x.double() @ exponential(skew.effective).T
    assert float((action.value - exact).norm() / x.norm()) < 2e-5
    assert len(action.diagnostics.degrees) == 1
    assert torch.allclose(action.value.norm(dim=1), x.norm(dim=1), rtol=1e-5)
    assert torch.allclose(lk.exp_action(-skew, action.value).value, x, atol=1e-4)


def test_bessel_functions():
    from scipy.special import iv, jv

    for radius in (1e-6, 0.9, 5.0, 40.0, 300.0):
        for k in (0, 1, 5, 30):
            assert math.isclose(bessel(radius, k, skew=True), jv(k, radius), rel_tol=1e-9, abs_tol=1e-13)
            assert math.isclose(bessel(radius, k, skew=False), iv(k, radius), rel_tol=1e-9, abs_tol=1e-200)
