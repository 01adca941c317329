"""Splines under the transforms of torch: second derivatives, tangents, vmap and compilation."""

import pytest
import torch
from torch.autograd import forward_ad

import likelify as lk
from likelify import nets, testing, transforms

# torch.func imports what torch deprecates, and vmap hands searchsorted its own layout.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*searchsorted.*non-contiguous:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]

SPLINE = lk.SplineBijector(4)
LAYERS = {
    "channels": (lambda: transforms.ChannelSpline(4, bins=4), 4),
    "shared": (lambda: transforms.SharedSpline(bins=4), 4),
    "coupling": (lambda: lk.Coupling(lk.ChannelSplit(4), SPLINE, nets.MLP(2, 2 * SPLINE.size, (8,))), 4),
    "marginals": (lambda: lk.FittedMarginal((4,), 4), 4),
}
WAYS = ("forward", "inverse")


def case(name, way):
    """A layer, a point, and a scalar function of value and contribution."""
    build, size = LAYERS[name]
    layer = testing.randomize(build().double(), scale=0.3)
    x = torch.randn(2, size, dtype=torch.float64)
    x = x.sigmoid() * 3.9 + 0.05 if name == "marginals" else x
    point = x if way == "forward" else layer(x)[0].detach().contiguous()
    g = torch.randn(2, size, dtype=torch.float64)

    def scalar(v):
        value, contribution = layer(v) if way == "forward" else layer.inverse(v)
        return (value * g).sum() + contribution[0] - 2 * contribution[1]

    return layer, point, g, scalar


def differences(scalar, point, step=1e-5):
    """The Hessian by central differences of gradients."""
    rows = []
    for i in range(point.numel()):
        off = torch.zeros(point.numel(), dtype=point.dtype).index_fill_(0, torch.tensor([i]), step).view_as(point)
        up, down = ((point + sign * off).requires_grad_() for sign in (1, -1))
        rows.append((torch.autograd.grad(scalar(up), up)[0] - torch.autograd.grad(scalar(down), down)[0]) / (2 * step))
    return torch.stack(rows).flatten(1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives_are_right_in_every_order_of_modes(name, way):
    _, point, _, scalar = case(name, way)
    expected = differences(scalar, point)
    reverse, forward = torch.func.jacrev, torch.func.jacfwd
    for outer, inner in ((forward, reverse), (forward, forward), (reverse, forward)):
        found = outer(inner(scalar))(point).reshape(expected.shape)
        # What difference quotients are good for, relative to the largest of all.
        assert float((found - expected).detach().abs().max()) < 1e-6 * (1 + float(expected.abs().max()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["channels", "shared", "coupling"])
def test_second_derivatives_by_parameters_are_right(name, way):
    layer, point, _, scalar = case(name, way)
    assert torch.autograd.gradgradcheck(lambda *_: scalar(point), [p for p in layer.parameters() if p.ndim < 3][-1:])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_tangents_agree_with_gradients_also_inside_frozen(name, way):
    layer, point, g, scalar = case(name, way)
    expected = float((torch.func.grad(scalar)(point) * g).sum().detach())
    assert abs(float(torch.func.jvp(scalar, (point,), (g,))[1].detach()) - expected) < 1e-9
    with layer.frozen(), forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(scalar(forward_ad.make_dual(point, g))).tangent
        assert abs(float(tangent.detach()) - expected) < 1e-9
    with layer.frozen():
        assert scalar(point).isfinite()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_rows_can_be_mapped_and_layers_compiled(name, way):
    torch._dynamo.reset()
    layer, point, _, _ = case(name, way)
    run = layer.forward if way == "forward" else layer.inverse
    value, contribution = run(point)
    mapped, contributions = torch.func.vmap(lambda v: tuple(t[0] for t in run(v[None])))(point)
    compiled = torch.compile(run, backend="eager", fullgraph=True)(point)
    for found in ((mapped, contributions), compiled):
        assert torch.allclose(found[0], value, atol=1e-12)
        assert torch.allclose(found[1], contribution, atol=1e-12)
