import math
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.expm import expansion, series
from likelify.linalg.expm.problem import ExpProblem
from tests.linalg.reference import apply_exponential


@settings(max_examples=60, deadline=None)
@given(
    norm=st.floats(0.0, 6.0),
    tol=st.sampled_from([1e-2, 1e-4, 1e-8, 1e-12]),
    kind=st.sampled_from(["dense", "skew", "conv"]),
    static=st.booleans(),
    seed=st.integers(0, 10**6),
)
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
        with mock.patch.object(ExpProblem, "looks", new=False):
            action = lk.exp_action(declared, x, tol=tol)
    else:
        action = lk.exp_action(map_, x, tol=tol)
    error = (action.value - apply_exponential(map_, x)).flatten(1).norm(dim=1)
    size = x.flatten(1).norm(dim=1)
    round_off = 1e-14 * math.exp(norm) * size
    assert bool((error <= action.diagnostics.error_bound + round_off).all())
    assert bool((action.diagnostics.error_bound <= tol * size * (1 + 1e-9)).all())
    assert action.diagnostics.converged


def test_the_degree_adapts_to_the_batch_unless_nobody_may_look():
    matrix = torch.diag(torch.tensor([0.9, 0.0, -0.9])).double()
    easy, hard = torch.tensor([[0.0, 1.0, 0.0]]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    declared = lk.Function(lambda x: x @ matrix.T, norm=0.9)
    for map_ in (declared, lk.Dense(matrix)):
        low, high = (lk.exp_action(map_, x, method="series").diagnostics.degree for x in (easy, hard))
        assert low < high <= 14
    degrees = []

    def traced(row):
        action = lk.exp_action(declared, row[None])
        degrees.append(action.diagnostics.degree)
        return action.value

    torch.func.vmap(traced)(torch.cat([easy, hard]))
    assert degrees == [14]


def test_large_norms_are_taken_in_steps_in_float32():
    skew = torch.randn(6, 6)
    skew = skew - skew.T
    skew = 40 * skew / torch.linalg.matrix_norm(skew, 2)
    x = torch.randn(4, 6)
    action = lk.exp_action(lk.Dense(skew), x)
    assert len(action.diagnostics.degrees) >= 13
    reference = apply_exponential(lk.Dense(skew.double()), x)
    assert float((action.value - reference).abs().max()) < 1e-4
    assert float((lk.exp_action(-lk.Dense(skew), action.value).value - x).abs().max()) < 1e-4


def test_gradients_reach_input_map_and_time():
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    kernel = (0.3 * torch.randn(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    time = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def adaptive(x, kernel, time):
        return lk.exp_action(lk.ConvMap(kernel), x, time=time).value

    def fixed(x, kernel, time):
        return lk.exp_action(lk.ConvMap(kernel, norm=3.0), x, time=time, degree=6).value

    for function in (adaptive, fixed):
        assert torch.autograd.gradcheck(function, (x, kernel, time))
        assert torch.autograd.gradgradcheck(function, (x, kernel, time), atol=1e-4)


def test_zero_padding_breaks_translation_and_the_exponential_keeps_permutation_symmetry():
    mean = lk.Function(lambda x: x.mean(1, keepdim=True).expand_as(x), norm=1.0)
    x = torch.randn(2, 5, dtype=torch.float64)
    order = torch.randperm(5)
    assert torch.allclose(lk.exp_action(mean, x).value[:, order], lk.exp_action(mean, x[:, order]).value)
    conv = lk.ConvMap(torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9)
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    rolled = lk.exp_action(conv, image.roll(1, 3)).value
    assert not torch.allclose(lk.exp_action(conv, image).value.roll(1, 3), rolled)


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


def test_time_is_one_number():
    with pytest.raises(ShapeError, match="one number"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(2, 2), time=torch.tensor([0.1, 0.2]))


def test_functions_are_probed_in_the_dtype_of_the_input():
    matrix = torch.randn(3, 3, dtype=torch.float64)
    layer = lk.Exponential(lk.Function(lambda x: x @ matrix.T) + lk.Function(lambda x: 0.1 * x))
    _, log_det = layer(torch.randn(2, 3, dtype=torch.float64))
    assert float((log_det - matrix.trace() - 0.3).abs().max()) < 1e-14


def test_diagnostics_of_hopeless_degrees_are_infinite():
    diagnostics = lk.exp_action(lk.Dense(1000 * torch.eye(2)), torch.ones(1, 2), degree=3).diagnostics
    assert diagnostics.log_det_error_bound == math.inf
    assert diagnostics.round_off_allowance == math.inf


def test_what_cannot_work_is_an_error_that_says_so():
    wild = lk.Dense(1e5 * torch.eye(2))
    with pytest.raises(ConvergenceError, match="no floating format"):
        lk.exp_action(wild, torch.ones(1, 2))
    with pytest.raises(DomainError, match="not finite"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.tensor([[math.nan, 1.0]]))
    with pytest.raises(DomainError, match="too large for torch.float32"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.full((1, 2), 2e38))
    for map_ in (lk.Function(lambda v: 0.1 * v, norm=0.1), lk.Dense(torch.eye(2))):
        with pytest.raises(DomainError, match="input that is not finite"):
            lk.exp_action(map_, torch.tensor([[math.inf, 1.0]]), degree=4 if map_.tensors() else None)
    with pytest.raises(DomainError, match="norm bound of the map is not finite"):
        lk.exp_action(lk.Dense(torch.full((2, 2), math.inf)), torch.ones(1, 2))
    with pytest.raises(DomainError, match="floating"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ConfigError, match="degree"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(1, 2), degree=-1)
    with pytest.raises(UnsupportedError, match="degree="):
        torch.func.vmap(lambda row: lk.exp_action(lk.Dense(torch.eye(2)), row[None]).value)(torch.ones(3, 2))


def test_with_throw_false_the_diagnostics_say_that_it_failed():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    x = torch.ones(1, 2).double()
    with mock.patch.object(series, "MAX_DEGREE", 5):
        action = lk.exp_action(lk.Dense(turn), x, throw=False)
        assert action.diagnostics.converged is False
        with pytest.raises(ConvergenceError, match="reached degree 5") as caught:
            lk.exp_action(lk.Dense(turn), x)
    assert caught.value.diagnostics.converged is False


def test_static_degrees_work_under_vmap_and_compile():
    layer = lk.conv_exponential(2)
    x = torch.randn(3, 2, 4, 4)
    expected, log_det = layer(x)
    value, det = torch.func.vmap(lambda image: layer(image[None]))(x)
    assert torch.allclose(value[:, 0], expected, atol=1e-6)
    assert torch.allclose(det[:, 0], log_det, atol=1e-6)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x)[0], expected, atol=1e-6)


def test_the_norm_limit_holds_after_any_training():
    layer = lk.conv_exponential(4, norm_limit=1.8)
    torch.nn.init.normal_(layer.parametrization.weight, std=10.0)
    map_ = layer.map()
    norm = float(torch.linalg.matrix_norm(map_.materialize((4, 6, 6)).detach(), 2))
    assert 0.5 < norm <= 1.8
    tight = lk.conv_exponential(4, norm_limit=0.9, norm_bound="torus")
    torch.nn.init.normal_(tight.parametrization.weight, std=10.0)
    assert 0.7 < float(torch.linalg.matrix_norm(tight.map().materialize((4, 6, 6)).detach(), 2)) <= 0.9
    small = lk.conv_exponential(4)
    assert torch.equal(small.map().tensors()["kernel"], small.parametrization.weight)


def test_function_declares_itself():
    with pytest.raises(UnsupportedError, match="too large"):
        lk.Function(lambda x: x).trace((70, 70))
    with pytest.raises(UnsupportedError, match="Wrap a linear callable"):
        lk.Exponential(lambda x: x)
