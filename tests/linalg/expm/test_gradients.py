"""Gradients of exponentials: every strategy, every order, every path once, with a certificate."""

from dataclasses import dataclass

import pytest
import torch

import likelify as lk
from likelify import linalg
from tests.cases import normal
from tests.linalg.reference import apply_exponential, exponential


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
        assert action.diagnostics.gradient_error_bound < 1e-6
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


def test_maps_inside_a_tuple_have_no_names_for_their_tensors():
    weight = (0.3 * normal(3, 3)).requires_grad_()

    @dataclass(frozen=True, eq=False)
    class Total(lk.LinearMap):
        maps: tuple

        def apply(self, x):
            return sum(map_.apply(x) for map_ in self.maps)

        def adjoint(self):
            return Total(tuple(map_.adjoint() for map_ in self.maps))

        def trace(self, event_shape):
            return sum(map_.trace(event_shape) for map_ in self.maps)

        def norm_bound(self, event_shape):
            return sum(map_.norm_bound(event_shape) for map_ in self.maps)

    total = Total((lk.Dense(weight), lk.Dense(weight)))
    assert not total.declared
    x = normal(2, 3)
    (found,) = torch.autograd.grad(lk.exp_action(total, x).value.sum(), weight)
    (exact,) = torch.autograd.grad((x @ exponential(2 * weight).T).sum(), weight)
    assert torch.allclose(found, exact, atol=1e-9)


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
