"""Derivatives of Sylvester layers and their inverses: of second order, in forward mode, under torch's transforms."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

import likelify as lk
from likelify import nets, testing, transforms
from tests.cases import normal
from tests.cases.triangular import ArcResidual, residual

# torch's own forward mode brings it about.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def graphs():
    edges = torch.tensor([[0, 1, 0, 3], [1, 2, 2, 4]])
    return lk.Context(structure=lk.GraphBatch(torch.tensor([3, 2]), edges).undirected())


def checkpointed():
    return residual(2, hidden=5, layers=1, checkpoint=True, method="wavefront")


KINDS = {
    "planar": (lambda: transforms.planar(3), (2, 3), None),
    "planar, condition": (lambda: transforms.planar(3, context_features=2), (2, 3), (2, 2)),
    "sylvester": (lambda: lk.sylvester(3, 2), (2, 3), None),
    "vectors": (lambda: lk.generalized_sylvester(3, hidden=5, context_features=2), (2, 3), (2, 2)),
    "images": (lambda: lk.conv_sylvester(2, hidden=5), (2, 2, 2, 3), None),
    "graphs": (lambda: lk.graph_sylvester(2, hidden=5), (5, 2), graphs),
    "wavefront": (lambda: residual(2, hidden=5, layers=2, method="wavefront"), (2, 2, 3, 2), None),
    "wavefront on graphs": (lambda: residual(2, hidden=5, dims="nodes", method="wavefront"), (5, 2), graphs),
    "newton": (lambda: residual(2, hidden=5, layers=1, method="newton"), (2, 2, 2, 2), None),
    "checkpoint": (checkpointed, (2, 2, 2, 2), None),
    "own scalar": (
        lambda: lk.TriangularResidual(nets.AutoregressiveNet(3, hidden=5, heads=3, dims=0), ArcResidual()),
        (2, 3),
        None,
    ),
}


def build(kind):
    """A layer, a latent and a context."""
    torch.manual_seed(0)
    make, shape, context = KINDS[kind]
    layer = testing.randomize(make().double(), scale=0.7)
    if context is not None:
        context = context() if callable(context) else normal(*context).requires_grad_()
    return layer, normal(*shape).requires_grad_(), context


class Loss(nn.Module):
    """A number made of both values of an inverse."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, z, context=None):
        x, contribution = self.layer.inverse(z, context)
        return (x * torch.linspace(-1, 2, x.numel()).view_as(x)).sin().sum() + contribution.cos().sum()


def differences(gradient, leaves, directions, step=1e-5):
    """The derivative of a gradient along directions, by central differences."""
    sides = []
    for sign in (1, -1):
        moved = [(leaf + sign * step * d).detach().requires_grad_() for leaf, d in zip(leaves, directions, strict=True)]
        sides.append(gradient(moved))
    return [(a - b) / (2 * step) for a, b in zip(*sides, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_of_the_inverse_by_everything(kind):
    layer, z, context = build(kind)
    loss, names = Loss(layer), [f"layer.{name}" for name, _ in layer.named_parameters()]
    conditions = [context] if isinstance(context, torch.Tensor) else []
    leaves = [z, *conditions, *layer.parameters()]

    def gradient(leaves, *, create_graph=False):
        z, *rest = leaves
        given = rest.pop(0) if conditions else context
        value = functional_call(loss, dict(zip(names, rest, strict=True)), (z, given))
        options = {"allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad(value, leaves, create_graph=create_graph, **options)

    directions = [torch.randn_like(leaf) for leaf in leaves]
    # The upstream gradient is one, a constant: all of this derivative goes through the solution.
    along = sum((g * d).sum() for g, d in zip(gradient(leaves, create_graph=True), directions, strict=True))
    found = torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True)
    for one, two in zip(found, differences(gradient, leaves, directions), strict=True):
        assert float((one - two).abs().max()) <= 2e-5 * (1 + float(two.abs().max()))
    assert float(found[0].abs().max()) > 1e-3


def test_the_hessian_of_a_planar_flow_turned_round():
    layer = testing.randomize(transforms.planar(4).double(), scale=0.7, seed=0)
    flow, x = lk.Flow(lk.Normal((4,)), lk.Chain([lk.Inverse(layer)])).double(), normal(4)

    def log_prob(x):
        return flow.log_prob(x[None])[0]

    def gradient(leaves):
        return torch.autograd.grad(log_prob(leaves[0]), leaves)

    rows = [differences(gradient, [x], [direction])[0] for direction in torch.eye(4).double()]
    expected = torch.stack(rows)
    assert float(expected.diagonal().max()) < -0.5
    for hessian in (torch.autograd.functional.hessian(log_prob, x), torch.func.hessian(log_prob)(x)):
        assert torch.allclose(hessian, expected, atol=1e-7)


@pytest.mark.parametrize("kind", ["planar", "sylvester", "images"])
def test_a_gradient_penalty_trains_the_parameters(kind):
    layer, z, _ = build(kind)
    loss, parameters = Loss(layer), list(layer.parameters())

    def penalized():
        value = loss(z)
        (slope,) = torch.autograd.grad(value, z, create_graph=True)
        return value + slope.square().sum()

    total = penalized()
    total.backward()
    for parameter in parameters[:3]:
        direction, values = torch.randn_like(parameter), []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                parameter.add_(step * direction)
                with torch.enable_grad():
                    values.append(float(penalized().detach()))
            parameter.add_(1e-6 * direction)
        expected = (values[0] - values[1]) / 2e-6
        assert abs(expected - float((parameter.grad * direction).sum())) <= 1e-5 * (1 + abs(expected))


@pytest.mark.parametrize("kind", ["planar, condition", "vectors", "wavefront", "wavefront on graphs", "newton"])
def test_forward_mode_is_the_transpose_of_reverse_mode(kind):
    layer, z, context = build(kind)
    direction = torch.randn_like(z)
    for direct in (layer, layer.inverse):

        def both(z, direct=direct):
            value, contribution = direct(z, context)
            return torch.cat([value.flatten(), contribution])

        upstream = torch.randn_like(both(z))
        (back,) = torch.autograd.grad(both(z), z, upstream)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(z, direction)
            tangent = torch.autograd.forward_ad.unpack_dual(both(dual)).tangent
        assert torch.allclose((tangent * upstream).sum(), (back * direction).sum(), atol=1e-9)
        assert torch.allclose(torch.func.jvp(both, (z.detach(),), (direction,))[1], tangent, atol=1e-9)


@pytest.mark.parametrize("kind", ["planar", "vectors", "wavefront"])
def test_transforms_of_torch_over_inputs_and_parameters(kind):
    layer, z, context = build(kind)
    z = z.detach()
    loss, parameters = Loss(layer), {f"layer.{name}": p.detach() for name, p in layer.named_parameters()}
    rows = (z[:, None],) if context is None else (z[:, None], context.detach()[:, None])

    def of(parameters, *rows):
        return functional_call(loss, parameters, rows)

    in_dims = (None,) + (0,) * len(rows)
    per_row = torch.func.vmap(torch.func.grad(of), in_dims=in_dims)(parameters, *rows)
    for i in range(2):
        value = loss(*(row[i] for row in rows))
        expected = torch.autograd.grad(value, list(layer.parameters()), allow_unused=True, materialize_grads=True)
        for one, two in zip(per_row.values(), expected, strict=True):
            assert torch.allclose(one[i], two, atol=1e-9)
    # An ensemble: parameters of its own for every copy.
    stacked = {name: torch.stack([p, 1.1 * p]) for name, p in parameters.items()}
    first = tuple(row[0] for row in rows)
    both = torch.func.vmap(of, in_dims=(0,) + (None,) * len(rows))(stacked, *first)
    assert torch.allclose(both[1], of({name: 1.1 * p for name, p in parameters.items()}, *first))


def test_second_derivatives_are_those_of_the_parameters_of_the_forward_pass():
    layer, z, _ = build("wavefront")
    other = {f"layer.{name}": (p + 0.1).detach().requires_grad_() for name, p in layer.named_parameters()}
    upstream = torch.randn_like(z)

    def twice(parameters):
        value = functional_call(Loss(layer), parameters, (z,))
        grads = torch.autograd.grad(value, [z, *parameters.values()], create_graph=True)
        return torch.autograd.grad((grads[0] * upstream).sum() + grads[3].sum(), [z, *parameters.values()])

    expected = twice(other)
    # By now the layer holds its old parameters again, which were not those of the forward pass.
    value = functional_call(Loss(layer), other, (z,))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    grads = torch.autograd.grad(value, [z, *other.values()], create_graph=True)
    found = torch.autograd.grad((grads[0] * upstream).sum() + grads[3].sum(), [z, *other.values()])
    assert all(torch.allclose(one, two, atol=1e-10) for one, two in zip(found, expected, strict=True))


def test_parameters_that_are_changed_in_place_are_an_error():
    layer, z, _ = build("wavefront")
    value = Loss(layer)(z)
    (slope,) = torch.autograd.grad(value, z, create_graph=True)
    with torch.no_grad():
        layer.heads.leave.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        slope.sum().backward()


def test_second_derivatives_by_the_input_inside_frozen():
    layer, z, _ = build("wavefront")

    def second():
        (slope,) = torch.autograd.grad(Loss(layer)(z), z, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), z)[0]

    expected = second()
    with layer.frozen():
        assert torch.allclose(second(), expected, atol=1e-10)


@pytest.mark.parametrize("kind", ["wavefront", "newton"])
def test_second_derivatives_leave_autocast(kind):
    layer, z, _ = build(kind)
    layer, z = layer.float(), z.detach().float().requires_grad_()

    def second():
        (slope,) = torch.autograd.grad(Loss(layer)(z), z, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [z, layer.heads.leave])

    expected = [*second(), layer.solve(z).value]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [*second(), layer.solve(z).value]
    for one, two in zip(found, expected, strict=True):
        assert float((one - two).abs().max()) <= 1e-5 * float(two.abs().max())


def test_a_hook_of_a_parameter_hears_its_gradient_once():
    layer, z, _ = build("newton")
    parameter, heard = layer.heads.leave_bias, []
    (expected,) = torch.autograd.grad(Loss(layer)(z), parameter)
    parameter.register_hook(lambda grad: heard.append(grad))
    Loss(layer)(z).backward()
    assert len(heard) == 1
    assert torch.allclose(parameter.grad, expected)


def test_no_call_puts_other_tensors_into_the_layer():
    # Another thread may be running it.
    layer, z, _ = build("newton")
    own = [id(p) for p in layer.parameters()]
    seen = []
    layer.heads.register_forward_pre_hook(lambda module, args: seen.append([id(p) for p in layer.parameters()]))
    (slope,) = torch.autograd.grad(Loss(layer)(z), z, create_graph=True)
    slope.square().sum().backward()
    assert seen
    assert all(found == own for found in seen)
