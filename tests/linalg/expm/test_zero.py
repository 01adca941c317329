"""Derivatives where the value needs no term at all: at zero maps, at multiples of the identity, and close to both."""

import pytest
import torch
from torch.autograd import forward_ad

import likelify as lk
from likelify import linalg
from likelify.errors import ConfigError
from tests.cases import MAPS, normal
from tests.linalg.reference import apply_exponential

# PyTorch's forward mode warns of itself.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

STRATEGIES = [linalg.Stored(), linalg.Recompute(), linalg.Unrolled()]
TRIES = [
    ("auto", None),
    *(("series", strategy) for strategy in STRATEGIES),
    ("chebyshev", None),
    ("chebyshev", linalg.Unrolled()),
    ("polynomial", None),
    ("dense", None),
    ("fourier", None),
]


def series(map_, x, terms):
    """Return `exp(map) x` as a sum that can be differentiated at will."""
    matrix = map_.materialize(tuple(x.shape[1:]), like=x)
    value = term = x.reshape(1, -1, 1) if map_.couples_rows else x.flatten(1)[:, :, None]
    for k in range(1, terms + 1):
        term = matrix @ term / k
        value = value + term
    return value.reshape(x.shape)


def derivatives(function, leaves, directions, upstream):
    """Return the value, the gradient and its derivative in a direction by two backward passes; then by tangents."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    first = torch.autograd.grad(value, leaves, upstream, create_graph=True)
    product = sum((grad * move).sum() for grad, move in zip(first, directions, strict=True))
    found = [value, *first, *torch.autograd.grad(product, leaves)]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, directions, strict=True)]
        value = function(*duals)
        tangent = forward_ad.unpack_dual(value).tangent
        found += [tangent, *torch.autograd.grad(tangent, leaves, upstream, retain_graph=True)]
        tangents = [forward_ad.unpack_dual(grad).tangent for grad in torch.autograd.grad(value, leaves, upstream)]
    return [tensor.detach() for tensor in [*found, *tangents]]


def is_used(build, leaves, x, method):
    try:
        lk.exp_action(build(*leaves), x, method=method)
    except ConfigError:
        return False
    return True


def check(build, leaves, x, tries, terms=6):
    """Compare all derivatives by the leaves and by `x` with those of a long sum."""
    directions, upstream = [torch.randn_like(leaf) for leaf in [*leaves, x]], torch.randn_like(x)
    exact = derivatives(lambda *t: series(build(*t[:-1]), t[-1], terms), [*leaves, x], directions, upstream)
    for method, gradient in tries:

        def function(*t, method=method, gradient=gradient):
            return lk.exp_action(build(*t[:-1]), t[-1], method=method, gradient=gradient).value

        if is_used(build, leaves, x, method):
            for mine, other in zip(derivatives(function, [*leaves, x], directions, upstream), exact, strict=True):
                assert float((mine - other).abs().max()) <= 1e-9 * max(1.0, float(other.abs().max())), method


def rebuilt(start, names):
    return lambda *leaves: start.with_tensors(start.tensors() | dict(zip(names, leaves, strict=True)))


# One of each kind of map, of padding, of symmetry and of rows of their own is looked at in every run of the tests.
VARIANTS = {
    *("conv-oblong", "conv-torus", "conv-1d", "conv-3d", "conv-circular-wraps", "conv-reflect", "conv-reflect-adjoint"),
    *("conv-groups", "conv-depthwise", "conv-mask", "conv-own-rows", "conv-p4", "pair-own-rows", "graph-complete"),
    *("dense-image-own-rows", "skew-own-rows", "diagonal-own-rows", "set-own-rows"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else [])
        for name in MAPS
        if not name.startswith("function")
    ],
)
def test_derivatives_at_zero_and_near_it(name):
    case = MAPS[name]
    start = case.build()
    tensors = {key: tensor for key, tensor in start.tensors().items() if tensor.is_floating_point()}
    x, build = normal(case.rows, *case.shape), rebuilt(start, list(tensors))
    # Maps of many parts take their time; one way through each path is enough for them.
    tries = TRIES[:2] if name.startswith("pair") else TRIES
    check(build, [0 * tensor for tensor in tensors.values()], x, tries)
    check(build, [1e-4 * tensor for tensor in tensors.values()], x, [tries[0], ("series", linalg.Unrolled())])


MULTIPLES = {
    "dense": (lk.Dense, torch.eye(3), (3,)),
    "dense-image": (lk.Dense, torch.eye(2), (2, 2, 2)),
    "dense-symmetric": (lambda m: lk.Dense(m, "symmetric"), torch.eye(3), (3,)),
    "conv": (lk.ConvMap, torch.eye(2)[:, :, None] * torch.tensor([0.0, 1, 0]), (2, 4)),
    "conv-circular": (
        lambda k: lk.ConvMap(k, "circular"),
        torch.eye(2)[:, :, None] * torch.tensor([0.0, 1, 0]),
        (2, 4),
    ),
    "set": (lambda m: linalg.SetMap(m, 0 * m), torch.eye(3), (3, 4)),
    "pair": (lambda m: linalg.PairMap(m), torch.eye(2) * (torch.arange(15) == 0)[:, None, None], (2, 3, 3)),
    "diagonal": (linalg.Diagonal, torch.ones(3), (3,)),
    "time": (lambda t: t[0] * lk.Dense(torch.ones(3, 3).double()), torch.zeros(1), (3,)),
}


@pytest.mark.parametrize("multiple", [-0.6, pytest.param(0.9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MULTIPLES)
def test_derivatives_at_multiples_of_the_identity(name, multiple):
    build, one, shape = MULTIPLES[name]
    tries = TRIES[:2] if name == "pair" and multiple < 0 else TRIES
    check(build, [multiple * one.double()], normal(1, *shape), tries, terms=20)


def layers():
    """Return fresh layers that start at the identity or close to it, and layers of modules with weights near zero."""
    for method in ("exponential", "cayley", "householder"):
        yield lk.rotation(3, method=method), normal(2, 3)
    yield lk.dense_exponential(3), normal(2, 3)
    yield lk.orthogonal_convolution(2, dims=1), normal(2, 2, 3)
    for gradient in (None, linalg.Recompute()):
        for scale in (0.0, 1e-7):
            module = torch.nn.Linear(3, 3, bias=False)
            module.weight.data.mul_(scale)
            yield lk.linear_exponential(module, gradient=gradient), normal(2, 3)


def test_fresh_layers_have_right_first_and_second_derivatives():
    for layer, x in layers():
        layer = layer.double()
        weight, upstream = next(layer.parameters()), torch.randn_like(x)

        def value(x, weight, layer=layer):
            name = next(name for name, _ in layer.named_parameters())
            return torch.func.functional_call(layer, {name: weight}, (x,))[0]

        assert torch.autograd.gradcheck(value, (x.requires_grad_(), weight), fast_mode=True)
        assert torch.autograd.gradgradcheck(value, (x, weight), upstream, atol=1e-6, fast_mode=True)


def test_hessians_at_zero():
    x, upstream = normal(2, 3), normal(2, 3)
    for build in (lk.Dense, lk.Skew, lambda m: linalg.SetMap(m, m.mT)):

        def loss(matrix, build=build):
            given = x if build is not lk.Skew else x[:1]
            value = lk.exp_action(build(matrix), given[:, :, None] if given is x else given).value
            return (value.flatten(1) * upstream[: len(value)]).sum()

        hessian = torch.autograd.functional.hessian(loss, torch.zeros(3, 3).double())
        steps = 1e-3 * torch.eye(9).double().reshape(9, 3, 3)
        quotients = [(loss(a + b) - loss(a - b) - loss(b - a) + loss(-a - b)) / 4e-6 for a in steps for b in steps]
        assert torch.allclose(hessian.flatten(), torch.stack(quotients), atol=1e-5)
        assert float(hessian.norm()) > 0.5


def test_a_vector_in_the_kernel_of_the_map_stops_no_sum_that_is_differentiated():
    # The terms vanish at this input, and the derivative in other directions still needs them all.
    differences = torch.tensor([[1.0, -1, 0], [0, 1, -1], [-1, 0, 1]]).double() / 2
    x, upstream = torch.ones(1, 3).double(), normal(1, 3)
    for gradient in STRATEGIES:
        hidden = lk.Function(lambda v: v @ differences.T)
        for map_ in (lk.Dense(differences), *([] if gradient == linalg.Stored() else [hidden])):
            leaf = x.clone().requires_grad_()
            value = lk.exp_action(map_, leaf, method="series", gradient=gradient).value
            (found,) = torch.autograd.grad(value, leaf, upstream)
            exact = apply_exponential(lk.Dense(differences.T), upstream)
            assert torch.allclose(found, exact, atol=1e-11)


@pytest.mark.parametrize("norm", [1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5])
def test_gradients_in_single_precision_are_as_exact_as_the_value(norm):
    weight, x, upstream = normal(3, 3), normal(1, 3), normal(1, 3)
    weight = norm * weight / torch.linalg.matrix_norm(weight, 2)
    exact = weight.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(apply_exponential(lk.Dense(exact), x), exact, upstream)
    tries = [(lk.Dense, method, gradient) for method, gradient in TRIES if method not in ("fourier", "chebyshev")]
    tries += [(lambda m: lk.Function(lambda x: x @ m.T, norm=1.01 * norm), "auto", None)]
    for build, method, gradient in tries:
        leaf = weight.float().requires_grad_()
        action = lk.exp_action(build(leaf), x.float(), method=method, gradient=gradient)
        (found,) = torch.autograd.grad(action.value, leaf, upstream.float())
        error = float((found - wanted).norm() / (x.norm() * upstream.norm()))
        assert error < 2e-6
        assert error <= action.diagnostics.gradient_error_bound + 1e-6


def test_what_is_not_differentiated_does_no_more_than_before():
    x, small = torch.randn(2, 3), 1e-8 * torch.eye(3)
    hidden = lk.Function(lambda x: x @ small)
    for build, method in ((lambda: lk.Dense(small), "series"), (lambda: hidden, "auto")):
        assert lk.exp_action(build(), x, method=method).diagnostics.degree == 0
        with torch.no_grad():
            assert lk.exp_action(build(), x.clone().requires_grad_(), method=method).diagnostics.degree == 0
    weight = torch.randn(3, 3).requires_grad_()
    with torch.no_grad():
        lazy = lk.exp_action(lk.Dense(weight), x, method="series").diagnostics.degree
    # The default way finds its gradient without the terms that a sum would need to be differentiated.
    assert lk.exp_action(lk.Dense(weight), x, method="series").diagnostics.degree == lazy
