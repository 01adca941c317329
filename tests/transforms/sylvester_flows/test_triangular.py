"""Triangular residuals: methods of the inverse, their gradients, memory and refusals."""

import copy
import math

import pytest
import torch

import likelify as lk
from likelify import nets, transforms
from likelify.errors import ConfigError, ConvergenceError, ShapeError
from likelify.testing import randomize
from tests.cases import normal
from tests.cases.common import check_slopes
from tests.cases.triangular import ArcResidual, residual


def hard(channels, size=(), scale=1.0, **options):
    """A layer whose heads are large, as training makes them: slopes come near the bound of one half."""
    torch.manual_seed(0)
    net = nets.AutoregressiveNet(channels, **({"hidden": 8 * channels} | options)).double()
    with torch.no_grad():
        net.leave.copy_(scale * torch.randn_like(net.leave) / (net.hidden * (net.taps + 1) / 2) ** 0.5)
    return lk.TriangularResidual(net).double(), normal(3, channels, *size)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_all_methods_that_converge_agree(scale):
    layer, x = hard(3, (5, 6), scale)
    with torch.no_grad():
        z, log_det = layer(x)
    for method in ("wavefront", "newton", "fixed-point"):
        layer.method = method
        found = layer.solve(z, throw=False)
        if method == "wavefront":
            assert found.residual <= 1e-10
            assert found.evaluations < 14
        if found.residual <= 1e-10:
            assert float((layer(found.value)[0] - z).detach().abs().max()) < 1e-9
            assert torch.allclose(found.log_det, log_det, atol=1e-5 if scale == 3.0 else 1e-8)


def test_the_fixed_point_never_fails_in_silence():
    layer, x = hard(4, (8, 8), 6.0)
    z = layer(x)[0].float()
    layer = layer.float()
    layer.method, layer.max_steps = "fixed-point", 40
    with pytest.raises(ConvergenceError, match=r"fixed-point.*relative residual.*float64") as caught:
        layer.inverse(z)
    assert caught.value.diagnostics.residual > 1e-5
    assert layer.solve(z, throw=False).residual > 1e-5
    layer.method, layer.max_steps = "auto", None
    assert layer.solve(z, dtype=torch.float64).residual <= 1e-12
    assert layer.solve(z, dtype=torch.float64).value.dtype == torch.float64


def test_without_a_diagonal_the_fixed_point_is_exact_after_as_many_steps_as_numbers():
    class Shift(transforms.ScalarResidual):
        size = 1

        def evaluate(self, u, raw):
            return raw[:, 0], torch.zeros_like(u)

    torch.manual_seed(0)
    net = nets.AutoregressiveNet(2, hidden=12, heads=1, small_heads=0, kernel_size=3).double()
    layer = lk.TriangularResidual(randomize(net, scale=0.5), Shift(), method="fixed-point", tol=1e-13)
    x = normal(2, 2, 3, 3)
    assert layer.solve(layer(x)[0]).evaluations <= x[0].numel() + 1
    # With slopes up to one half it needs them as well, and the paper's bound of d steps holds for all but tiny events.
    layer, x = hard(3, (6, 6), 0.5)
    layer.method = "fixed-point"
    assert layer.solve(layer(x)[0]).evaluations <= x[0].numel()


@pytest.mark.parametrize("method", ["wavefront", "newton"])
@pytest.mark.parametrize("kind", ["vector", "image", "nodes", "condition", "own-scalar"])
def test_gradients_through_the_inverse(kind, method):
    torch.manual_seed(0)
    context, x = None, normal(2, 3)
    if kind == "vector":
        layer = residual(3, dims=0, layers=2)
    elif kind == "image":
        layer, x = residual(2, layers=1), normal(2, 2, 3, 2)
    elif kind == "nodes":
        layer, x = residual(2, dims="nodes"), normal(6, 2)
        edges = torch.tensor([[0, 1, 0, 3, 4], [1, 2, 2, 4, 5]])
        context = lk.Context(structure=lk.GraphBatch(torch.tensor([3, 3]), edges))
    elif kind == "condition":
        layer, context = residual(3, dims=0, context_features=2), normal(2, 2).requires_grad_()
    else:
        layer = lk.TriangularResidual(nets.AutoregressiveNet(3, hidden=9, heads=3, dims=0), ArcResidual())
    layer = randomize(layer.double())
    layer.method = method
    z = layer(x, context)[0].detach().requires_grad_()
    leaves = [z, *layer.parameters(), *([context] if isinstance(context, torch.Tensor) else [])]

    def loss():
        value, contribution = layer.inverse(z, context)
        return (value * torch.linspace(-1, 2, value.numel()).view_as(value)).sum() + contribution.cos().sum()

    check_slopes(loss, leaves, 2e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradients_are_those_of_the_parameters_of_the_forward_pass(checkpoint):
    layer = randomize(residual(2, method="wavefront", checkpoint=checkpoint).double())
    other = {name: (tensor + 0.1).detach().requires_grad_() for name, tensor in layer.named_parameters()}
    twin = copy.deepcopy(layer)
    twin.load_state_dict({name: tensor.detach() for name, tensor in other.items()})
    z, upstream = normal(2, 2, 3, 3).requires_grad_(), normal(2, 2, 3, 3)
    value = torch.func.functional_call(lk.Inverse(layer), {f"transform.{n}": t for n, t in other.items()}, (z,))[0]
    found = torch.autograd.grad((value * upstream).sum(), [z, *other.values()])
    expected = torch.autograd.grad((twin.inverse(z)[0] * upstream).sum(), [z, *twin.parameters()])
    assert all(torch.allclose(one, two, atol=1e-10) for one, two in zip(found, expected, strict=True))
    plain = torch.autograd.grad((layer.inverse(z)[0] * upstream).sum(), z)[0]
    assert not torch.allclose(found[0], plain, atol=1e-3)


def test_a_scalar_with_parameters_is_trained_through_the_inverse():
    class Scaled(torch.nn.Module, transforms.ScalarResidual):
        size = 1

        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(0.4))

        def evaluate(self, u, raw):
            return self.scale * torch.tanh(u) + raw[:, 0], self.scale * (1 - torch.tanh(u) ** 2)

    scalar = Scaled()
    layer = lk.TriangularResidual(nets.AutoregressiveNet(3, hidden=9, heads=1, dims=0), scalar).double()
    z = normal(4, 3)
    (grad,) = torch.autograd.grad(layer.inverse(z)[0].sum(), scalar.scale)
    values = []
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            scalar.scale.add_(step)
            values.append(float(layer.inverse(z)[0].sum()))
    assert float(grad) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_heads_that_do_more_than_their_weights_say_are_not_solved_by_the_wavefront():
    class Doubled(nets.AutoregressiveNet):
        def forward(self, u, context=None):
            return 2 * super().forward(u, context)

    layer = randomize(lk.TriangularResidual(Doubled(3, hidden=9, dims=0)).double())
    x = normal(3, 3)
    assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-9)
    with pytest.raises(ConfigError, match="wavefront needs"):
        lk.TriangularResidual(Doubled(3, hidden=9, dims=0), method="wavefront")
    hooked = randomize(residual(3, dims=0).double())
    hooked.heads.register_forward_hook(lambda module, args, output: 2 * output)
    assert torch.allclose(hooked.inverse(hooked(x)[0])[0], x, atol=1e-9)


@pytest.mark.parametrize(("shape", "kernel_size"), [((5, 1), 3), ((1, 5), 3), ((3, 2), 5), ((2, 2), 5)])
def test_narrow_images(shape, kernel_size):
    layer = randomize(residual(2, kernel_size=kernel_size, method="wavefront").double())
    x = normal(2, 2, *shape)
    assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-9)


def test_the_backward_pass_leaves_autocast():
    layer, x = randomize(residual(2, method="wavefront")), torch.randn(2, 2, 4, 4)
    z = layer(x)[0].detach().requires_grad_()
    (expected,) = torch.autograd.grad(layer.inverse(z)[0].square().sum(), z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = torch.autograd.grad(layer.inverse(z)[0].square().sum(), z)
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_solution_has_memory_of_its_own():
    layer = residual(2)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    z = torch.ones(1, 2, 2, 2)
    for method in ("newton", "wavefront", "fixed-point"):
        layer.method = method
        layer.solve(z).value.add_(1)
        assert torch.equal(z, torch.ones(1, 2, 2, 2))


def test_tiny_gradients_are_as_exact_as_large_ones():
    layer, x = hard(3, (4, 4), 1.0)
    layer = layer.float()
    layer.method = "wavefront"
    z = layer(x.float())[0].detach().requires_grad_()
    upstream = torch.randn(3, 3, 4, 4)
    large, tiny = (torch.autograd.grad(layer.inverse(z)[0], z, s * upstream)[0] / s for s in (1.0, 1e-12))
    assert torch.allclose(large, tiny, rtol=1e-3, atol=1e-4)


def test_the_inverse_keeps_its_solution_only():
    layer, x = hard(3, (6, 6))
    z = layer(x)[0].detach().requires_grad_()
    parameters = {p.data_ptr() for p in layer.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value, _ = layer.inverse(z)
    assert sum(size for place, size in kept.items() if place not in parameters) <= 2 * x.numel() * x.element_size()
    value.sum().backward()
    assert z.grad is not None


def test_few_rows_try_newton_first_and_end_with_the_wavefront():
    layer, x = hard(3, (4, 4), 0.1)
    assert layer.solve(layer(x)[0][:1]).method == "newton"
    layer, x = hard(4, (8, 8), 3.0)
    found = layer.solve(layer(x)[0][:1])
    assert found.method == "wavefront"
    assert found.residual <= 1e-12


def test_nothing_and_not_a_number():
    layer = residual(3).double()
    for method in ("wavefront", "newton", "fixed-point", "auto"):
        layer.method = method
        assert layer.inverse(normal(0, 3, 4, 4))[0].shape == (0, 3, 4, 4)
    for method in ("wavefront", "newton", "fixed-point", "auto"):
        layer.method = method
        with pytest.raises(ConvergenceError):
            layer.inverse(torch.full((2, 3, 4, 4), math.nan).double())


def test_wrong_settings_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="no method"):
        lk.TriangularResidual(nets.AutoregressiveNet(3), method="magic")
    with pytest.raises(ConfigError, match="needs an AutoregressiveNet"):
        lk.TriangularResidual(torch.nn.Identity(), method="wavefront")
    with pytest.raises(ConfigError, match="tol must be positive"):
        lk.TriangularResidual(nets.AutoregressiveNet(3), tol=0.0)
    with pytest.raises(ConfigError, match="slope_limit must lie"):
        transforms.TanhResidual(1.0)
    with pytest.raises(ConfigError, match="dims"):
        nets.AutoregressiveNet(3, dims=4)
    with pytest.raises(ShapeError, match="odd"):
        nets.AutoregressiveNet(3, kernel_size=2)
    with pytest.raises(ConfigError, match="hidden unit"):
        nets.AutoregressiveNet(30, hidden=20)
    with pytest.raises(ConfigError, match="norm_limit"):
        nets.AutoregressiveNet(3, norm_limit=0.0)
    with pytest.raises(ShapeError, match="3 channels, height, width"):
        residual(3)(torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="network has 3"):
        lk.TriangularResidual(nets.AutoregressiveNet(3, heads=3))
    with pytest.raises(ShapeError, match="heads returned"):
        lk.TriangularResidual(nets.MLP(3, 9))(torch.zeros(2, 3))
    with pytest.raises(ShapeError, match="condition of 2 features"):
        residual(3, context_features=2)(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ShapeError, match="GraphBatch"):
        residual(3, dims="nodes")(torch.zeros(2, 3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing does it
def test_forward_under_vmap_jacobians_and_compile():
    layer, x = residual(3).double(), normal(4, 3, 4, 3)
    randomize(layer)
    value, log_det = layer(x)
    assert torch.allclose(torch.func.vmap(lambda row: layer(row[None])[0][0])(x), value)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: layer(row[None])[0][0]))(x).reshape(4, 36, 36)
    assert torch.allclose(torch.linalg.slogdet(jacobians)[1], log_det)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x)[0], value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_root_and_is_said_to_be_so(bad):
    for layer in (transforms.planar(3), lk.sylvester(3)):
        z = torch.zeros(2, 3)
        z[1, 1] = bad
        with pytest.raises(ConvergenceError, match="not finite|residual of (nan|inf)"):
            layer.inverse(z)


def test_roots_that_are_not_finite_do_not_keep_others_from_theirs():
    function = transforms.TanhResidual(0.9)
    raw, v = torch.randn(4, 4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    v[0, 0], v[1, 1], v[2, 2] = math.nan, math.inf, 1e308
    u = torch.zeros_like(v)
    value, slope = function.evaluate(u, raw)
    found = function.step(u, raw, v, u + value - v, slope)
    good = v.isfinite()
    assert bool(found[~good].isnan().all())
    torch.testing.assert_close((found + function.evaluate(found, raw)[0])[good], v[good])


def test_a_row_that_is_not_known_leaves_the_others():
    flow = lk.Flow(lk.Normal((3,)), lk.Chain([lk.transforms.planar(3)]))
    x = torch.randn(4, 3)
    expected = flow.log_prob(x)
    x[1, 1] = torch.nan
    found = flow.log_prob(x)
    assert bool(found[1].isnan())
    assert torch.equal(found[[0, 2, 3]], expected[[0, 2, 3]])
