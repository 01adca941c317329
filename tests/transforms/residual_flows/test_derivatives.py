"""Derivatives of the residual-flow layer and its inverse: second order, forward mode, torch's transforms."""

import threading
from unittest import mock

import pytest
import torch
from torch import nn
from torch.func import functional_call

import likelify as lk
from likelify import nets
from likelify.errors import ConvergenceError, UnsupportedError
from likelify.linalg.log_det import Exact, Roulette, Truncated
from tests.cases.common import normal
from tests.transforms.residual_flows.layers import Line, strong

# torch's own forward mode brings it about.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


class Loss(nn.Module):
    """A number made of both values of a layer, or of its inverse; of the noise-free one where it is noisy."""

    def __init__(self, layer, *, inverse):
        super().__init__()
        self.layer, self.inverse = layer, inverse

    def forward(self, x, condition=None):
        if self.layer.noisy_log_det:
            return (self.layer.mean_inverse if self.inverse else self.layer.mean_forward)(x, condition).sin().sum()
        value, contribution = (self.layer.inverse if self.inverse else self.layer)(x, condition)
        return (value * torch.linspace(-1, 2, value.numel()).view_as(value)).sin().sum() + contribution.cos().sum()


def conditional(method):
    net = lk.testing.randomize(nets.LipschitzMLP(3, (6,), context_features=2).double())
    return lk.LipschitzResidual(net, log_det=method)


def declared(method):
    net = nn.Linear(3, 3).double()
    nn.init.eye_(net.weight).data.mul_(-0.7)
    return lk.LipschitzResidual(net, lipschitz=0.8, log_det=method)


CASES = {
    "exact": (lambda: strong("exact"), None),
    "truncated": (lambda: strong(Truncated(1e-12)), None),
    "roulette": (lambda: strong("roulette"), None),
    "condition": (lambda: conditional("exact"), (2, 2)),
    "declared": (lambda: declared("exact"), None),
}


def build(case):
    make, shape = CASES[case]
    layer = make()
    return layer, normal(2, 3).requires_grad_(), None if shape is None else normal(*shape).requires_grad_()


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_by_everything(case, inverse):
    layer, x, condition = build(case)
    loss = Loss(layer, inverse=inverse)
    names, parameters = zip(*loss.named_parameters(), strict=True)
    inputs = [x] if condition is None else [x, condition]

    def gradient(*leaves):
        rest = dict(zip(names, leaves[len(inputs) :], strict=True))
        value = functional_call(loss, rest, leaves[: len(inputs)])
        # The upstream gradient is a constant: the gradient of this one goes through the solution alone.
        return torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)

    leaves = [*inputs, *(p.detach().clone().requires_grad_() for p in parameters)]
    directions = [torch.randn_like(leaf) for leaf in leaves]
    along = sum((g * d).sum() for g, d in zip(gradient(*leaves), directions, strict=True))
    found = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
    step = 1e-5
    sides = [
        gradient(*((leaf + s * step * d).detach().requires_grad_() for leaf, d in zip(leaves, directions, strict=True)))
        for s in (1, -1)
    ]
    for one, plus, minus in zip(found, *sides, strict=True):
        two = (plus - minus).detach() / (2 * step)
        assert float((one - two).abs().max()) <= 1e-6 * (1 + float(two.abs().max()))
    # A linear layer alone has a log-determinant without second derivatives, but the loss bends its values.
    assert float(found[0].abs().max()) > 1e-3


def test_a_gradient_penalty_through_the_inverse():
    layer, z, _ = build("exact")
    weight = layer.net.weights[0]

    def penalized():
        loss = Loss(layer, inverse=True)(z)
        (slope,) = torch.autograd.grad(loss, z, create_graph=True)
        return loss + slope.square().sum()

    (found,) = torch.autograd.grad(penalized(), weight)
    direction, values = torch.randn_like(weight), []
    for step in (1e-6, -2e-6):
        weight.data.add_(step * direction)
        values.append(float(penalized().detach()))
    expected = (values[0] - values[1]) / 2e-6
    assert abs(float((found * direction).sum()) - expected) < 1e-6 * (1 + abs(expected))


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("case", ["exact", "truncated", "condition", "declared"])
def test_forward_mode_and_the_transforms_of_torch(case, inverse):
    layer, x, condition = build(case)
    loss, x = Loss(layer, inverse=inverse), x.detach()
    condition = None if condition is None else condition.detach()

    def value(x):
        return loss(x, condition)

    direction = torch.randn_like(x)
    expected = (torch.autograd.functional.jacobian(value, x) * direction).sum()
    with torch.autograd.forward_ad.dual_level():
        tangent = torch.autograd.forward_ad.unpack_dual(
            value(torch.autograd.forward_ad.make_dual(x, direction))
        ).tangent
    assert torch.allclose(tangent, expected, atol=1e-9)
    assert torch.allclose(torch.func.jvp(value, (x,), (direction,))[1], expected, atol=1e-9)
    hessian = torch.autograd.functional.hessian(value, x)
    assert float(hessian.abs().max()) > 1e-3
    assert torch.allclose(torch.func.hessian(value)(x), hessian, atol=1e-9)
    assert torch.allclose(torch.func.jacfwd(torch.func.jacfwd(value))(x), hessian, atol=1e-9)


@pytest.mark.parametrize("case", ["exact", "declared"])
@pytest.mark.parametrize("inverse", [False, True])
def test_batches_of_rows_and_of_parameters(case, inverse):
    layer, x, _ = build(case)
    x, loss = x.detach(), Loss(layer, inverse=inverse)
    parameters = {name: p.detach() for name, p in loss.named_parameters()}

    def of(parameters, x):
        return functional_call(loss, parameters, (x,))

    per_row = torch.func.vmap(torch.func.grad(of), in_dims=(None, 0))(parameters, x[:, None])
    for i in range(2):
        grads = torch.autograd.grad(loss(x[i : i + 1]), list(layer.parameters()))
        assert all(torch.allclose(one[i], two, atol=1e-9) for one, two in zip(per_row.values(), grads, strict=True))
    stacked = {name: torch.stack([p, 0.9 * p]) for name, p in parameters.items()}
    both = torch.func.vmap(of, in_dims=(0, None))(stacked, x)
    assert torch.allclose(both[1], of({name: 0.9 * p for name, p in parameters.items()}, x))


@pytest.mark.parametrize("method", ["roulette", Roulette(continuation=0.5, samples=2)])
def test_estimates_under_torch_func_have_their_first_gradient_and_refuse_the_rest(method):
    layer, x = strong(method), normal(2, 3)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, x):
        z, contribution = functional_call(layer, parameters, (x,))
        return z.sin().sum() + contribution.cos().sum()

    with lk.seeded(3):
        by_parameters, by_x = torch.func.grad(loss, argnums=(0, 1))(parameters, x)
    given = x.clone().requires_grad_()
    with lk.seeded(3):
        value = loss(dict(layer.named_parameters()), given)
    expected = torch.autograd.grad(value, [*layer.parameters(), given], allow_unused=True, materialize_grads=True)
    for one, two in zip([*by_parameters.values(), by_x], expected, strict=True):
        assert torch.allclose(one, two, atol=1e-12)
    refused = {
        "no second derivatives": lambda: torch.func.grad(
            lambda v: torch.func.grad(lambda w: loss(parameters, w))(v).sum()
        )(x),
        "LipschitzResidual draws": lambda: torch.func.jvp(lambda v: layer(v)[1], (x,), (x,)),
        "LipschitzResidual.*vmap": lambda: torch.vmap(lambda v: layer(v[None])[1], randomness="different")(x),
    }
    for match, call in refused.items():
        with pytest.raises(UnsupportedError, match=match):
            call()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(UnsupportedError, match="with_log_det"):
        layer(torch.autograd.forward_ad.make_dual(x, x))


def test_events_that_are_too_large_for_a_matrix_are_refused_by_name():
    layer, x = lk.LipschitzResidual(nets.LipschitzMLP(4097, (2,)), log_det="truncated"), torch.zeros(1, 4097)
    with pytest.raises(UnsupportedError, match="LipschitzResidual forms its Jacobian.*up to 4096 .* have 4097"):
        torch.func.jvp(lambda v: layer(v)[1], (x,), (x,))
    wide = lk.LipschitzResidual(layer.net, log_det=Exact(limit=5000))
    with mock.patch.object(Exact, "differentiable", autospec=True, return_value=x.sum(1)) as formed:
        torch.func.jvp(lambda v: wide(v)[1], (x,), (x,))
    assert formed.call_args.args[0].limit == 5000


@pytest.mark.parametrize("case", ["exact", pytest.param("truncated", marks=pytest.mark.slow), "declared"])
def test_compilation_of_the_forward_pass(case):
    torch.compiler.reset()
    layer, x, _ = build(case)
    z, contribution = torch.compile(layer, fullgraph=True, backend="eager")(x.detach())
    assert torch.allclose(z, layer(x)[0])
    assert torch.allclose(contribution, layer(x)[1], atol=1e-10)
    with pytest.raises(Exception, match="inverse of LipschitzResidual is solved step by step"):
        torch.compile(layer.mean_inverse, fullgraph=True, backend="eager")(x.detach())


@torch.no_grad()
def test_a_solution_says_how_good_it_is():
    layer, x = strong("exact"), normal(4, 3)
    z = layer.mean_forward(x).detach()
    found = layer.solve(z)
    off = (found.value - x).norm(dim=1) / z.norm(dim=1).clamp_min(1)
    left = (layer.mean_forward(found.value) - z).norm(dim=1) / z.norm(dim=1).clamp_min(1)
    assert float(off.max()) <= found.error <= 1e-12
    assert float(left.max()) <= 1.01 * found.residual + 1e-15
    assert found.steps > 1
    wrong = lk.LipschitzResidual(Line(1.5), lipschitz=0.5)
    with pytest.raises(ConvergenceError, match="The inverse of LipschitzResidual"):
        wrong.solve(z)
    assert wrong.solve(z, throw=False).residual > 0.1


@pytest.mark.parametrize("direction", ["mean_forward", "mean_inverse", "forward", "inverse"])
def test_autocast_changes_nothing(direction):
    layer, x = strong("exact").float(), torch.randn(3, 3)
    expected = getattr(layer, direction)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = getattr(layer, direction)(x)
        assert torch.equal(layer.solve(x).value, layer.mean_inverse(x))
    assert torch.equal(found[0], expected[0])
    assert found[0].dtype == torch.float32


def test_two_threads_differentiate_one_layer():
    # In each, the network is left in the middle of a call until the other one is there as well.
    meet, layer = threading.Barrier(2, timeout=20), declared("exact")
    x = [normal(2, 3), normal(2, 3)]
    expected = [torch.autograd.grad(Loss(layer, inverse=False)(v), layer.net.net.weight)[0] for v in x]
    calls, found = threading.local(), [None, None]

    def wait(module, args):
        calls.count = getattr(calls, "count", 0) + 1
        if calls.count <= 2:
            meet.wait()

    layer.net.net.register_forward_pre_hook(wait)

    def work(i):
        (found[i],) = torch.autograd.grad(Loss(layer, inverse=False)(x[i]), layer.net.net.weight)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.allclose(one, two) for one, two in zip(found, expected, strict=True))
