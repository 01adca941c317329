"""Derivatives of solutions, of an equation whose solution is known."""

import pytest
import torch

from likelify.errors import UnsupportedError
from likelify.linalg import implicit
from likelify.linalg.implicit import Equation

# torch's own forward mode brings it about.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class Cubic(Equation):
    """`u + shift + scale u^3 = v` in every element; beside the solution, the logarithm of its slope."""

    layer, values = "Cubic", 2

    def evaluate(self, u, *theta):
        shift, scale = theta
        slope = 3 * scale * u**2
        return shift + scale * u**3, torch.log1p(slope).sum(1), slope

    def solve(self, v, *theta):
        shift, scale = theta
        u = torch.zeros_like(v)
        for _ in range(60):
            f, _, slope = self.evaluate(u, *theta)
            u = u - (u + f - v) / (1 + slope)
        return u, self.evaluate(u, *theta)[1]

    def solve_linear(self, at, h, *, transposed):
        # J is diagonal; both products see it.
        product = at.pull if transposed else at.push
        assert torch.allclose(product(h), at.values[2] * h)
        return h / (1 + at.values[2].detach())


def by_formula(v, shift, scale):
    """Cardano's formula, which automatic differentiation follows to any order."""
    p, q = 1 / scale, -(v - shift) / scale
    root = (q**2 / 4 + p**3 / 27).sqrt()
    signed = torch.stack([-q / 2 + root, -q / 2 - root])
    u = (signed.sign() * signed.abs() ** (1 / 3)).sum(0)
    return u, torch.log1p(3 * scale * u**2).sum(1)


def solution(v, shift, scale):
    return implicit.solve(Cubic(), v, shift, scale)


def inputs():
    torch.manual_seed(0)
    v, shift = torch.randn(2, 3).double().requires_grad_(), torch.randn(2, 3).double().requires_grad_()
    return v, shift, torch.tensor([0.3, 1.0, 2.0]).double().requires_grad_()


@pytest.mark.parametrize("at_first", [0, 1])
def test_derivatives_to_the_fourth_order_are_those_of_the_formula(at_first):
    given = inputs()
    directions = [torch.randn_like(t) for t in given]

    def derivatives(function):
        # The second gradient and all after it do not depend on the upstream one, which is constant.
        value, found = function(*given)[at_first].sum(), []
        for _ in range(4):
            grads = torch.autograd.grad(value, given, create_graph=True)
            found.extend(grads)
            value = sum((grad * direction).sum() for grad, direction in zip(grads, directions, strict=True))
        return found

    for one, two in zip(derivatives(solution), derivatives(by_formula), strict=True):
        assert torch.allclose(one, two, rtol=1e-8, atol=1e-9)


def test_all_modes_of_differentiation_agree_with_differences():
    given = inputs()
    assert torch.autograd.gradcheck(solution, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(solution, given, check_fwd_over_rev=True)


@pytest.mark.parametrize(
    "modes",
    [
        (torch.func.jacrev, torch.func.jacrev),
        (torch.func.jacfwd, torch.func.jacrev),
        (torch.func.jacrev, torch.func.jacfwd),
        (torch.func.jacfwd, torch.func.jacfwd),
    ],
)
def test_transforms_of_torch_in_any_order(modes):
    outer, inner = modes
    v, shift, scale = (t.detach() for t in inputs())

    def hessians(function):
        return outer(inner(lambda v, scale: function(v, shift, scale)[1].sum(), argnums=(0, 1)), argnums=(0, 1))

    for row, expected in zip(hessians(solution)(v, scale), hessians(by_formula)(v, scale), strict=True):
        for one, two in zip(row, expected, strict=True):
            assert torch.allclose(one, two, atol=1e-9)


def test_copies_with_shared_and_with_own_parameters():
    v, shift, scale = (t.detach() for t in inputs())
    more, scales = torch.stack([v, 2 * v]), torch.stack([scale, scale + 1])
    u, slope = torch.func.vmap(solution, in_dims=(0, None, None))(more, shift, scale)
    assert torch.allclose(u[1], solution(2 * v, shift, scale)[0])
    assert torch.allclose(slope[1], solution(2 * v, shift, scale)[1])
    u, slope = torch.func.vmap(solution, in_dims=(None, None, 0), out_dims=1)(v, shift, scales)
    assert torch.allclose(u[:, 1], solution(v, shift, scale + 1)[0])
    assert torch.allclose(slope[:, 1], solution(v, shift, scale + 1)[1])


def test_a_derivative_that_nobody_differentiates_keeps_no_graph():
    v, shift, scale = (t.detach() for t in inputs())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(v, torch.ones_like(v))
        tangent = torch.autograd.forward_ad.unpack_dual(solution(dual, shift, scale)[0]).tangent
    assert not tangent.requires_grad


def test_a_tensor_that_is_there_twice_gets_its_gradient_once_for_each_place():
    v, _, scale = inputs()
    both = scale.detach().expand(2, 3).clone().requires_grad_()
    found, expected = (torch.autograd.grad(f(v, both, both)[1].sum(), both)[0] for f in (solution, by_formula))
    assert torch.allclose(found, expected)


def test_batches_of_gradients_of_the_old_kind_are_refused_by_name():
    v, shift, scale = inputs()
    with pytest.raises(UnsupportedError, match=r"inverse of Cubic.*torch\.func\.jacrev"):
        torch.autograd.functional.jacobian(lambda v: solution(v, shift, scale)[0], v.detach(), vectorize=True)


def test_compilation_is_refused_by_name_and_left_out_where_it_may_be():
    given = [t.detach() for t in inputs()]
    with pytest.raises(Exception, match="inverse of Cubic is solved step by step"):
        torch.compile(solution, fullgraph=True, backend="eager")(*given)
    torch.compiler.reset()
    assert torch.equal(torch.compile(solution, backend="eager")(*given)[0], solution(*given)[0])


def test_gradients_belong_to_what_needed_them_when_it_was_solved():
    def gradients(*, later):
        v, shift, scale = inputs()
        shift.requires_grad_(False)
        u, logarithm = solution(v, shift, scale)
        shift.requires_grad_(later)
        (u.square().sum() + logarithm.sum()).backward()
        return v.grad, shift.grad, scale.grad

    torch.testing.assert_close(gradients(later=True), gradients(later=False))
    v, shift, scale = inputs()
    u, logarithm = solution(v, shift, scale)
    shift.requires_grad_(False)
    (u.square().sum() + logarithm.sum()).backward()
    assert shift.grad is None
    torch.testing.assert_close(scale.grad, gradients(later=False)[2])
