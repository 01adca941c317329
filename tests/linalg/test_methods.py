"""The methods behind exp_action: they agree, they say what they are, and they refuse what they cannot do."""

import math
from dataclasses import dataclass

import pytest
import torch

import likelify as lk
from likelify import linalg
from likelify.errors import ConfigError, ConvergenceError
from likelify.linalg.expm import recorded
from likelify.linalg.expm.chebyshev import bessel, degree_for
from likelify.linalg.expm.diagnostics import series_log_det, uniform_log_det
from likelify.linalg.expm.matrix import evaluate_polynomial, plan_polynomial
from likelify.linalg.expm.series import series_degree
from likelify.linalg.trace import estimate_trace
from tests.linalg.reference import apply_exponential, exponential


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


METHODS = {
    "dense": (lambda: lk.Dense(0.4 * normal(4, 4)), (4,), ("series", "polynomial", "dense"), "polynomial"),
    "skew": (lambda: lk.Skew(normal(4, 4)), (4, 2), ("series", "chebyshev", "polynomial", "dense"), "polynomial"),
    "skew-wide": (lambda: lk.Skew(normal(9, 9)), (9,), ("series", "chebyshev", "polynomial"), "chebyshev"),
    "conv": (lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 3)), (2, 4, 3), ("series", "dense"), "series"),
    "skew-conv": (
        lambda: lk.ConvMap(normal(2, 2, 3, 3), symmetry="skew"),
        (2, 4, 3),
        ("series", "chebyshev", "dense"),
        "chebyshev",
    ),
    "circular": (
        lambda: lk.ConvMap(0.3 * normal(4, 2, 3, 3), padding="circular", groups=2),
        (4, 4, 3),
        ("series", "dense", "fourier"),
        "series",
    ),
    "circular-sequence": (
        lambda: lk.ConvMap(0.5 * normal(2, 2, 5), padding="circular"),
        (2, 2),
        ("series", "fourier"),
        "series",
    ),
    "diagonal": (lambda: linalg.Diagonal(normal(3)), (3, 2), ("series", "chebyshev", "closed-form"), "closed-form"),
    "set": (
        lambda: linalg.SetMap(0.4 * normal(2, 2), 0.4 * normal(2, 2)),
        (2, 5),
        ("series", "dense", "closed-form"),
        "closed-form",
    ),
    "sum": (
        lambda: lk.Dense(normal(3, 3), "symmetric") + 0.5 * linalg.Diagonal(normal(3)),
        (3,),
        ("series", "chebyshev", "dense"),
        "chebyshev",
    ),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("time", [1.0, -0.6])
def test_all_methods_agree_and_the_rule_chooses_as_documented(name, time):
    build, shape, methods, chosen = METHODS[name]
    map_, x = build(), normal(5, *shape)
    exact = apply_exponential(map_, x, time)
    assert lk.exp_action(map_, x, time=time).diagnostics.method == chosen
    for method in methods:
        action = lk.exp_action(map_, x, time=time, method=method)
        assert action.diagnostics.method == method
        error = (action.value - exact).flatten(1).norm(dim=1)
        allowed = action.diagnostics.error_bound + action.diagnostics.round_off_allowance * x.flatten(1).norm(dim=1)
        assert bool((error <= allowed).all())


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_all_methods_and_strategies_agree(name):
    build, shape, methods, _ = METHODS[name]
    map_, x, upstream = build(), normal(3, *shape).requires_grad_(), normal(3, *shape)
    leaves = {key: tensor.requires_grad_() for key, tensor in map_.tensors().items()}
    value = apply_exponential(map_.with_tensors(leaves), x)
    expected = torch.autograd.grad(value, [x, *leaves.values()], upstream)
    for method in methods:
        strategies = (
            (linalg.Stored(), linalg.Recompute(), linalg.Unrolled()) if method in ("series", "chebyshev") else (None,)
        )
        for strategy in strategies:
            action = lk.exp_action(map_.with_tensors(leaves), x, method=method, gradient=strategy)
            found = torch.autograd.grad(action.value, [x, *leaves.values()], upstream)
            for mine, other in zip(found, expected, strict=True):
                assert float((mine - other).abs().max()) < 1e-8 * (1 + float(other.abs().max()))


def test_steps_and_rows_of_their_own_have_right_gradients():
    x = normal(3, 2, 3, 3).requires_grad_()
    own = (0.3 * normal(3, 2, 2, 3, 3)).requires_grad_()
    wide = (2.0 * normal(2, 2, 3, 3)).requires_grad_()
    for build, leaf in ((lambda k: lk.ConvMap(k, own_rows=True), own), (lk.ConvMap, wide)):
        grads = []
        for strategy in (linalg.Stored(), linalg.Recompute(), linalg.Unrolled()):
            action = lk.exp_action(build(leaf), x, gradient=strategy)
            grads.append(torch.autograd.grad(action.value.square().sum(), [x, leaf]))
        for other in grads[:2]:
            for mine, plain in zip(other, grads[2], strict=True):
                assert torch.allclose(mine, plain, rtol=1e-8, atol=1e-9 * float(plain.abs().max()))
        assert build is lk.ConvMap or action.diagnostics.gradient_error_bound is None
    assert len(action.diagnostics.degrees) > 1


def test_one_combination_is_enough_for_tiny_maps_with_rows_of_their_own():
    x, weight = normal(3, 2, 4), (1e-9 * normal(3, 2, 2, 3)).requires_grad_()
    value = lk.exp_action(lk.ConvMap(weight, own_rows=True), x, tol=1e-6).value
    (grad,) = torch.autograd.grad(value.sum(), weight)
    (exact,) = torch.autograd.grad(lk.ConvMap(weight, own_rows=True).apply(x).sum(), weight)
    assert torch.allclose(grad, exact, atol=1e-6)


@pytest.mark.parametrize("strategy", [linalg.Stored(), linalg.Recompute()])
def test_second_derivatives_do_not_take_what_was_kept_for_a_constant(strategy):
    x, weight = normal(2, 3).requires_grad_(), (0.3 * normal(3, 3)).requires_grad_()
    time = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def function(x, weight, time):
        # The map depends on x as well, so there are two paths to it.
        map_ = lk.Dense(weight * x.mean(0)) + lk.Dense(weight, "skew")
        return lk.exp_action(map_, x, time=time, method="series", gradient=strategy).value

    assert torch.autograd.gradcheck(function, (x, weight, time))
    assert torch.autograd.gradgradcheck(function, (x, weight, time), atol=1e-5)

    def rotated(x, weight):
        return lk.exp_action(lk.Skew(weight), x, method="chebyshev", gradient=strategy).value

    assert torch.autograd.gradcheck(rotated, (x, weight))
    assert torch.autograd.gradgradcheck(rotated, (x, weight), atol=1e-5)


def _kept(strategy, tol):
    x, kernel = torch.randn(4, 3, 8, 8).requires_grad_(), (0.05 * torch.randn(3, 3, 3, 3)).requires_grad_()
    sizes = {}

    def note(tensor):
        if tensor.shape[-2:] == (8, 8):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = lk.exp_action(lk.ConvMap(kernel, norm=1.8), x, tol=tol, gradient=strategy).value
    del value
    return sum(sizes.values()) / x.untyped_storage().nbytes()


def test_recompute_keeps_the_input_only_and_stored_less_than_the_terms():
    assert [_kept(linalg.Recompute(), tol) for tol in (1e-2, 1e-6)] == [1, 1]
    assert _kept(linalg.Stored(), 1e-6) < _kept(linalg.Unrolled(), 1e-6)


def test_the_gradient_certificate_holds():
    weight, x, upstream = 0.3 * normal(6, 6), normal(1, 6), normal(1, 6)
    direction = normal(6, 6)
    for method, build in (("series", lk.Dense), ("chebyshev", lk.Skew)):
        for tol in (1e-2, 1e-5, 1e-9):
            leaf = weight.clone().requires_grad_()
            action = lk.exp_action(build(leaf), x, tol=tol, method=method)
            (found,) = torch.autograd.grad(action.value, leaf, upstream)
            (exact,) = torch.autograd.grad(apply_exponential(build(leaf), x), leaf, upstream)
            moved = build(direction).materialize((6,))
            allowed = action.diagnostics.gradient_error_bound * float(torch.linalg.matrix_norm(moved, 2))
            error = abs(float(((found - exact) * direction).sum()))
            assert error <= allowed * float(x.norm() * upstream.norm()) + 1e-13


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


def test_hopeless_condition_numbers_are_refused():
    weight = torch.randn(20, 20)
    wild = lk.Dense(50 * weight / torch.linalg.matrix_norm(weight, 2))
    x = torch.randn(2, 20)
    with pytest.raises(ConvergenceError, match="no correct digit in float32"):
        lk.exp_action(wild, x)
    action = lk.exp_action(wild, x, throw=False)
    assert "condition number" in action.diagnostics.problem
    # A large multiple of the identity is harmless; only what is left without it counts.
    assert lk.exp_action(lk.Dense(20 * torch.eye(3)), torch.ones(1, 3)).diagnostics.problem is None


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


def test_the_bound_of_the_log_determinant_by_schur_is_tighter():
    norm, size = 0.9, 100
    frobenius = 0.3 * norm * math.sqrt(size)
    assert series_log_det(norm, frobenius, size, (5,)) < 0.1 * uniform_log_det(math.exp(norm) * 1e-3, size)
    # One eigenvalue of size b and zeros: P has the determinant p(b), and the bound must hold for it.
    error = abs(math.log(sum(norm**k / math.factorial(k) for k in range(4))) - norm)
    assert error <= series_log_det(norm, norm, size, (3,))
    assert series_log_det(0.0, 0.0, size, (0,)) == 0


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
    assert plan_polynomial(0.9, 0.9, 1e-6, torch.float32).products == 4


def test_methods_refuse_what_they_are_not_for():
    x = normal(2, 3, 4, 4)
    conv = lk.ConvMap(0.1 * normal(3, 3, 3, 3))
    for method, hint in (
        ("polynomial", "Dense"),
        ("fourier", "circular"),
        ("adjacency", "GraphMap"),
        ("closed-form", "SetMap"),
        ("chebyshev", "symmetric or skew by construction"),
        ("serie", "Did you mean 'series'"),
    ):
        with pytest.raises(ConfigError, match=hint):
            lk.exp_action(conv, x, method=method)
    with pytest.raises(ConfigError, match="fixed degree"):
        lk.exp_action(conv, x, method="dense", degree=4)
    with pytest.raises(ConfigError, match="fixed degree"):
        lk.exp_action(conv, x.requires_grad_(), gradient=linalg.Stored(), degree=4)


def test_hidden_tensors_get_their_gradients():
    weight = (0.3 * normal(3, 3)).requires_grad_()
    x = normal(2, 3)
    hidden = lk.Function(lambda v: v @ weight.T, norm=2.0)
    (found,) = torch.autograd.grad(lk.exp_action(hidden, x).value.sum(), weight)
    (lean,) = torch.autograd.grad(lk.exp_action(hidden, x, gradient=linalg.Recompute()).value.sum(), weight)
    (exact,) = torch.autograd.grad((x @ exponential(weight).T).sum(), weight)
    assert torch.allclose(found, exact, atol=1e-9)
    assert torch.allclose(lean, exact, atol=1e-9)
    with pytest.raises(lk.LikelifyError, match="tensors are known"):
        lk.exp_action(hidden, x, gradient=linalg.Stored())


def test_changing_the_input_before_the_backward_pass_is_an_error():
    x, weight = normal(2, 3), normal(3, 3).requires_grad_()
    value = lk.exp_action(lk.Dense(weight), x, method="series").value
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_and_functional_derivatives():
    weight, x, tangent = 0.3 * normal(3, 3), normal(2, 3), normal(2, 3)
    map_ = lk.Skew(weight, norm=2.0)

    def function(x):
        return lk.exp_action(map_, x).value

    exact = tangent @ exponential(map_.effective).T
    assert torch.allclose(torch.func.jvp(function, (x,), (tangent,))[1], exact, atol=1e-10)
    with torch.autograd.forward_ad.dual_level():
        dual = function(torch.autograd.forward_ad.make_dual(x, tangent))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(dual).tangent, exact, atol=1e-10)
    (grad,) = torch.func.vjp(function, x)[1](tangent)
    assert torch.allclose(grad, tangent @ exponential(map_.effective), atol=1e-10)


def test_translations_commute_with_circular_exponentials_only():
    x = normal(2, 2, 5, 4)
    kernel = 0.3 * normal(2, 2, 3, 3)
    for padding, commutes in (("circular", True), ("zeros", False)):
        map_ = lk.ConvMap(kernel, padding=padding)
        moved = lk.exp_action(map_, x.roll((2, 1), (2, 3))).value
        assert torch.allclose(moved, lk.exp_action(map_, x).value.roll((2, 1), (2, 3))) == commutes


def test_a_set_of_one_element_is_its_mean():
    theta = 1e6 * torch.eye(2, dtype=torch.float64)
    x = normal(3, 2, 1)
    assert torch.allclose(lk.exp_action(linalg.SetMap(theta, -theta), x).value, x)


def test_a_layer_checks_a_function_once_a_call():
    calls = []
    layer = lk.Exponential(lk.Function(lambda v: calls.append(len(v)) or 0.1 * v, norm=0.1))
    layer(normal(50, 3))
    assert sum(length == 6 for length in calls) == 1


def test_functions_that_are_not_linear_are_refused_without_touching_the_random_stream():
    x = normal(3, 4)
    torch.manual_seed(0)
    expected = torch.randn(2)
    torch.manual_seed(0)
    lk.exp_action(lk.Function(lambda v: 0.5 * v, norm=0.5), x)
    assert torch.equal(torch.randn(2), expected)
    with pytest.raises(lk.errors.DomainError, match="affine"):
        lk.exp_action(lk.Function(lambda v: 0.5 * v + 1), x)
    with pytest.raises(lk.errors.DomainError, match="not linear"):
        lk.exp_action(lk.Function(lambda v: v.relu()), x)
    with pytest.raises(lk.errors.DomainError, match="affine"):
        lk.linear_exponential(torch.nn.Linear(4, 4))(x.float())
    assert lk.exp_action(lk.Function(lambda v: v.clamp(-1e9), norm=1.0, trusted=True), x).value.shape == x.shape


def test_traces_can_be_estimated_with_their_error():
    map_ = lk.Dense(normal(30, 30) @ torch.diag(0.5 ** torch.arange(30).double()))
    exact = float(map_.trace((30,)))
    for method in ("hutchinson", "hutch++"):
        with lk.seeded(0):
            found = [estimate_trace(map_, (30,), samples=30, method=method, like=normal(1)) for _ in range(60)]
        values = torch.stack([estimate.value for estimate in found])
        errors = torch.stack([estimate.standard_error for estimate in found])
        assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(60)
        assert 0.3 < float(errors.mean() / values.std()) < 3
    for arguments in ({"method": "magic"}, {"samples": 0}, {"samples": 2, "method": "hutch++"}):
        with pytest.raises(ConfigError):
            estimate_trace(map_, (30,), like=normal(1), **arguments)
    with pytest.raises(lk.errors.UnsupportedError, match="one map for all rows"):
        estimate_trace(lk.Dense(normal(2, 3, 3)), (3,), like=normal(1))


def test_recorded_collects_what_happens_inside():
    with recorded() as outer:
        lk.exp_action(lk.Dense(normal(2, 2)), normal(1, 2))
        with recorded() as inner:
            lk.exp_action(lk.Dense(normal(2, 2)), normal(1, 2))
    assert len(outer) == len(inner) == 1


def test_a_norm_declared_too_low_is_found_where_a_matrix_is_formed():
    x = normal(20, 3)
    skew = lk.Skew(9 * normal(3, 3), norm=0.5)
    for method in ("polynomial", "dense"):
        with pytest.raises(ConvergenceError, match="bound is wrong"):
            lk.exp_action(skew, x, method=method)
    layer = lk.Exponential(skew)
    with layer.frozen(), pytest.raises(ConvergenceError, match="bound is wrong"):
        layer(x)


def test_hidden_tensors_of_users_maps_get_their_gradients():
    weight = (0.3 * normal(3, 3)).requires_grad_()

    @dataclass(frozen=True, eq=False)
    class Hidden(lk.LinearMap):
        scale: torch.Tensor

        def apply(self, x):
            return self.scale * (x @ weight.T)

        def adjoint(self):
            return lk.Dense(self.scale * weight.T)

        def trace(self, event_shape):
            return self.scale * weight.trace()

        def norm_bound(self, event_shape):
            return 3.0

    x = normal(2, 3).requires_grad_()
    hidden = Hidden(torch.ones((), dtype=torch.float64))
    for strategy in (None, linalg.Recompute()):
        value = lk.exp_action(hidden, x, gradient=strategy).value
        (found,) = torch.autograd.grad(value.sum(), weight)
        (exact,) = torch.autograd.grad((x @ exponential(weight).T).sum(), weight)
        assert torch.allclose(found, exact, atol=1e-9)
    with pytest.raises(lk.LikelifyError, match="not among its fields"):
        lk.exp_action(hidden, x, gradient=linalg.Stored())


def test_small_maps_over_long_times_keep_their_digits():
    matrix = torch.randn(5, 5) / 5
    x = torch.randn(3, 5)
    exact = x.double() @ exponential(2 * matrix.double()).T
    for scale in (1e-4, 1e-8, 1e-20):
        value = lk.exp_action(lk.Dense(matrix * scale), x, time=2 / scale, method="series").value
        assert float((value - exact).abs().max()) < 1e-5


def test_autocast_does_not_reach_into_exponentials():
    x, layer = torch.randn(2, 2, 4, 4), lk.testing.randomize(lk.conv_exponential(2))
    (z, log_det), map_ = layer(x), layer.map()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, det = layer(x)
        assert torch.equal(lk.exp_action(map_, x).value, z)
    assert torch.equal(inside, z)
    assert torch.equal(det, log_det)


def test_values_are_never_the_input_and_reports_never_of_another_one():
    x = normal(2, 3)
    value = lk.exp_action(lk.Dense(torch.zeros(3, 3, dtype=torch.float64)), x, method="series").value
    assert value.data_ptr() != x.data_ptr()
    diagnostics = lk.exp_action(linalg.Diagonal(normal(3)), x).diagnostics
    x.mul_(2)
    with pytest.raises(lk.errors.StateError, match="was changed"):
        _ = diagnostics.error_bound


def test_what_does_not_fit_is_refused_with_a_reason():
    x = normal(2, 3)
    dense = lk.Dense(normal(3, 3))
    for error, text, call in (
        (lk.errors.ConfigError, "tol must be", lambda: lk.exp_action(dense, x, tol=0.0)),
        (lk.errors.ConfigError, "at most 150", lambda: lk.exp_action(dense, x, degree=1000)),
        (lk.errors.ShapeError, "rows of events", lambda: lk.exp_action(dense, x[0])),
        (lk.errors.DomainError, "same precision", lambda: lk.exp_action(dense, x.float())),
        (
            lk.errors.ShapeError,
            "different numbers of rows",
            lambda: lk.Dense(normal(2, 3, 3)) + lk.Dense(normal(3, 3, 3)),
        ),
        (lk.errors.ShapeError, "one number", lambda: dense * normal(3)),
        (lk.errors.ConfigError, "positive and finite", lambda: lk.Function(lambda v: v, norm=0.0)),
        (lk.errors.ShapeError, "shape and dtype", lambda: lk.exp_action(lk.Function(lambda v: v[:, :1]), x)),
        (lk.errors.DomainError, "in place", lambda: lk.exp_action(lk.Function(lambda v: v.mul_(0.5)), x)),
        (lk.errors.DomainError, "by itself", lambda: lk.exp_action(lk.Function(lambda v: v / v.abs().max()), x)),
        (
            lk.errors.ShapeError,
            "SetMap on 2",
            lambda: lk.exp_action(linalg.SetMap(normal(2, 2), normal(2, 2)), normal(2, 2, 3, 1)),
        ),
    ):
        with pytest.raises(error, match=text):
            call()
    assert lk.exp_action(dense, x[:0]).value.shape == (0, 3)


def _both_orders(value, leaf):
    (first,) = torch.autograd.grad(value().square().sum(), leaf)
    (tracked,) = torch.autograd.grad(value().square().sum(), leaf, create_graph=True)
    return first, tracked


@pytest.mark.parametrize("strategy", [linalg.Stored(), linalg.Recompute(), None])
def test_no_path_of_a_gradient_is_counted_twice(strategy):
    a, rows = (0.3 * normal(3, 3)).requires_grad_(), normal(2, 3)
    graph = lk.GraphBatch.complete([3, 3])
    kernel, image = (0.3 * normal(2, 2, 3)).requires_grad_(), normal(2, 2, 5)
    normal_rows = normal(6, 3)
    layer = lk.testing.randomize(lk.conv_exponential(2, dims=1, gradient=strategy).double())
    reflect = lk.ConvMap(kernel, "reflect")
    cases = [
        (a, lambda: lk.exp_action(lk.Dense(a) + lk.Dense(a) @ lk.Dense(a), rows, gradient=strategy)),
        (a, lambda: lk.exp_action(lk.Dense(a, "skew"), rows @ a, method="series", gradient=strategy)),
        (a, lambda: lk.exp_action(lk.GraphMap(a, a.sin(), graph), normal_rows @ a)),
        (kernel, lambda: lk.exp_action(reflect + reflect.adjoint(), image, gradient=strategy)),
    ]
    for leaf, action in cases:
        first, tracked = _both_orders(lambda action=action: action().value, leaf)
        assert torch.allclose(first, tracked, atol=1e-9 * float(first.abs().max()))
    first, tracked = _both_orders(lambda: layer.inverse(2 * layer(image)[0])[0], layer.parametrization.weight)
    assert torch.allclose(first, tracked, atol=1e-9)


def test_traces_of_products_of_graph_maps_are_counted_once_for_each_node():
    graph = lk.GraphBatch.complete([3, 2])
    eye = torch.eye(1)
    map_ = lk.GraphMap(eye, 0 * eye, graph)
    for product in (map_ @ map_, lk.Dense(eye) @ map_, map_ + map_ @ map_ - map_):
        _, log_det = lk.Exponential(product)(torch.ones(5, 1), lk.Context(structure=graph))
        assert torch.allclose(log_det, torch.tensor([3.0, 2.0]))


def test_conditional_convolutions_have_right_gradients_in_every_strategy_and_layout():
    x, condition = normal(2, 2, 4, 4), normal(2, 3)
    found = []
    for settings in ({"gradient": linalg.Unrolled()}, {"gradient": linalg.Stored()}, {"degree": 25}):
        with lk.seeded(0):
            layer = lk.testing.randomize(lk.conv_exponential(2, context_features=3, **settings).double())
        (grad,) = torch.autograd.grad(layer(x, condition)[0].square().sum(), layer.parametrization.weight)
        found.append(grad)
    assert torch.allclose(found[0], found[1], rtol=1e-9)
    assert torch.allclose(found[0], found[2], rtol=1e-9)


def test_a_loose_declaration_does_not_cost_the_certificate_of_a_small_function():
    layer = lk.linear_exponential(torch.nn.Linear(4, 4, bias=False), norm=3.0)
    assert float(lk.Flow(lk.Normal((4,)), layer).certificate(torch.randn(2, 4)).nats.max()) < 1e-3


def test_layers_with_a_norm_limit_compile_and_vectorize():
    x = torch.randn(3, 2, 4, 4)
    for layer in (
        lk.conv_exponential(2, norm_bound="torus", norm_limit=0.9),
        lk.dense_exponential(2, norm_limit=1.0),
        lk.orthogonal_convolution(2, norm_limit=2.0),
    ):
        expected = layer(x)[0]
        torch.compiler.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x)[0], expected, atol=1e-5)
        assert torch.allclose(torch.func.vmap(lambda row, layer=layer: layer(row[None])[0][0])(x), expected, atol=1e-5)
