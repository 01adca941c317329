"""Certificates: observed errors stay below them, and declarations that are wrong are contradicted."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify.errors import ConvergenceError
from likelify.linalg.expm import expansion
from likelify.linalg.expm.diagnostics import series_log_det, uniform_log_det
from likelify.linalg.expm.problem import ExpProblem
from tests.cases import normal
from tests.linalg.reference import apply_exponential


@settings(max_examples=60, deadline=None)
@given(
    norm=st.floats(0.0, 6.0),
    tol=st.sampled_from([1e-2, 1e-4, 1e-8, 1e-12]),
    kind=st.sampled_from(["dense", "skew", "conv"]),
    static=st.booleans(),
    seed=st.integers(0, 10**6),
)
@example(norm=5e-324, tol=1e-2, kind="dense", static=True, seed=0)
def test_the_observed_error_stays_below_the_certificate(norm, tol, kind, static, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, 3) if kind == "conv" else (6,)
    raw = torch.randn(*((2, 2, 3, 3) if kind == "conv" else (6, 6)), dtype=torch.float64, generator=generator)
    raw = raw - raw.T if kind == "skew" else raw
    map_ = lk.ConvMap(raw) if kind == "conv" else lk.Dense(raw)
    true = float(torch.linalg.matrix_norm(map_.materialize(shape), 2))
    map_ = map_.with_tensors({name: tensor * norm / true for name, tensor in map_.tensors().items()})
    x = torch.randn(3, *shape, dtype=torch.float64, generator=generator)
    if static:
        declared = lk.Function(map_.apply, norm=max(norm, 1e-9) * (1 + 1e-12), like=raw)
        with mock.patch.object(ExpProblem, "may_sync", new=False):
            action = lk.exp_action(declared, x, tol=tol)
    else:
        action = lk.exp_action(map_, x, tol=tol)
    error = (action.value - apply_exponential(map_, x)).flatten(1).norm(dim=1)
    size = x.flatten(1).norm(dim=1)
    round_off = 1e-14 * math.exp(norm) * size
    assert bool((error <= action.diagnostics.error_bound + round_off).all())
    assert bool((action.diagnostics.error_bound <= tol * size * (1 + 1e-9)).all())
    assert action.diagnostics.converged


def test_tiny_inputs_are_certified_like_any_other():
    x = torch.randn(2, 4)
    map_ = lk.Dense(0.9 * torch.eye(4))
    full, tiny = lk.exp_action(map_, x), lk.exp_action(map_, 1e-25 * x)
    assert tiny.diagnostics.degree == full.diagnostics.degree
    assert torch.allclose(1e25 * tiny.value, full.value, rtol=1e-5)


def test_certificates_hold_at_the_ends_of_double_precision():
    x = torch.randn(1, 4, dtype=torch.float64)
    map_ = lk.Dense(torch.randn(4, 4, dtype=torch.float64))
    for scale in (1e-170, 1.0, 1e160):
        action = lk.exp_action(map_, scale * x)
        assert torch.allclose(action.value / scale, apply_exponential(map_, x), rtol=1e-10)
        assert 0 < float(action.diagnostics.error_bound / scale) < 1e-11
    mixed = lk.exp_action(map_, torch.cat([1e-170 * x, 1e160 * x]))
    assert bool((mixed.diagnostics.error_bound > 0).all())


def test_small_terms_of_many_steps_do_not_vanish_from_the_certificate():
    skew = torch.randn(6, 6)
    skew = 80 * (skew - skew.T) / torch.linalg.matrix_norm(skew - skew.T, 2)
    x = torch.randn(3, 6)
    usual = lk.exp_action(lk.Dense(skew), x).diagnostics
    with mock.patch.object(expansion, "PLAIN", (math.inf, 0.0)):
        careful = lk.exp_action(lk.Dense(skew), x).diagnostics
    assert usual.degrees == careful.degrees
    assert torch.allclose(usual.error_bound.double(), careful.error_bound.double())


def test_diagnostics_of_hopeless_degrees_are_infinite():
    diagnostics = lk.exp_action(lk.Dense(1000 * torch.eye(2)), torch.ones(1, 2), degree=3).diagnostics
    assert diagnostics.log_det_error_bound == math.inf
    assert diagnostics.round_off_allowance == math.inf


def test_a_norm_that_is_declared_too_low_is_contradicted_by_the_terms():
    matrix = 3 * torch.eye(3, dtype=torch.float64)
    x = normal(2, 3)
    for map_ in (
        lk.Function(lambda v: v @ matrix, norm=1.0),
        lk.ConvMap(matrix[:, :, None], norm=2.0),
        lk.Skew(9 * normal(3, 3), norm=0.5),
    ):
        rows = x[:, :, None] if isinstance(map_, lk.ConvMap) else x
        with pytest.raises(ConvergenceError, match="norm bound is wrong|bound is wrong"):
            lk.exp_action(map_, rows)
        if not isinstance(map_, lk.Function):  # a function is refused before anything is computed
            assert lk.exp_action(map_, rows, throw=False).diagnostics.problem


def test_a_norm_declared_too_low_is_found_where_a_matrix_is_formed():
    x = normal(20, 3)
    skew = lk.Skew(9 * normal(3, 3), norm=0.5)
    for method in ("polynomial", "dense"):
        with pytest.raises(ConvergenceError, match="bound is wrong"):
            lk.exp_action(skew, x, method=method)
    layer = lk.Exponential(skew)
    with layer.frozen(), pytest.raises(ConvergenceError, match="bound is wrong"):
        layer(x)


def test_the_bound_of_the_log_determinant_by_schur_is_tighter():
    norm, size = 0.9, 100
    frobenius = 0.3 * norm * math.sqrt(size)
    assert series_log_det(norm, frobenius, size, (5,)) < 0.1 * uniform_log_det(math.exp(norm) * 1e-3, size)
    # One eigenvalue of size b and zeros: P has the determinant p(b), and the bound must hold for it.
    error = abs(math.log(sum(norm**k / math.factorial(k) for k in range(4))) - norm)
    assert error <= series_log_det(norm, norm, size, (3,))
    assert series_log_det(0.0, 0.0, size, (0,)) == 0


def test_a_loose_declaration_does_not_cost_the_certificate_of_a_small_function():
    layer = lk.linear_exponential(torch.nn.Linear(4, 4, bias=False), norm=3.0)
    assert float(lk.Flow(lk.Normal((4,)), layer).certificate(torch.randn(2, 4)).nats.max()) < 1e-3


@pytest.mark.parametrize(("size", "norm"), [(64, 1e-4), (256, 1e-4), (512, 3e-5), (512, 0.02), (2048, 1e-4)])
def test_the_allowance_for_rounding_grows_with_the_matrix(size, norm):
    # All entries alike: each is small beside the diagonal of the exponential, and lost alone.
    matrix, x = torch.full((size, size), norm / size), torch.ones(16, size)
    sums = (size * matrix[0, 0].double()).expm1()
    for method in ("polynomial", "series"):
        action = lk.exp_action(lk.Dense(matrix, norm=1.01 * norm), x, method=method)
        error = torch.linalg.vector_norm(action.value.double() - 1 - sums, dim=1)
        allowed = action.diagnostics.round_off_allowance * torch.linalg.vector_norm(x.double(), dim=1)
        assert bool((error <= action.diagnostics.error_bound.double() + allowed).all())
