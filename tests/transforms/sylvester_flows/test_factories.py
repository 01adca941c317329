"""Theorems 2 and 3 of the convolution exponential paper, its equations 9, 10 and 13, and what amortised means."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import testing, transforms
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.linalg.householder import householder_matrix
from likelify.nets.masked import AutoregressiveNet
from likelify.transforms.sylvester_flows.factories import LEAST, UNIT, PlanarHeads, SylvesterHeads
from likelify.transforms.sylvester_flows.scalar import FreeTanhResidual
from likelify.transforms.sylvester_flows.triangular import TriangularResidual
from tests.cases.common import check_slopes, normal


def jacobians(function, x):
    """The Jacobian of every row."""
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), row) for row in x]
    ).flatten(2)


def matrix_of(linear, size):
    return linear(torch.eye(size).double())[0].T


def randomized(layer, scale=0.7, seed=0):
    return testing.randomize(layer.double(), scale=scale, seed=seed)


# Special cases (theorem 3).


@pytest.mark.parametrize("condition", [False, True])
def test_gradients_through_the_inverses_of_all_forms(condition):
    torch.manual_seed(0)
    features, context = 2 if condition else 0, normal(3, 2) if condition else None
    image = normal(3, 2, 3, 2)
    layers = [
        (transforms.planar(4, context_features=features), normal(3, 4)),
        (lk.sylvester(4, 3, context_features=features), normal(3, 4)),
        (lk.generalized_sylvester(4, hidden=9, context_features=features), normal(3, 4)),
        (lk.conv_sylvester(2, hidden=8, context_features=features), image),
    ]
    for layer, x in layers:
        testing.randomize(layer.double())
        z = layer(x, context)[0].detach().requires_grad_()
        leaves = [z, *layer.parameters()]

        def loss(layer=layer, z=z):
            value, log_det = layer.inverse(z, context)
            return (value * torch.linspace(-1, 2, value.numel()).view_as(value)).sum() + log_det.cos().sum()

        check_slopes(loss, leaves)


def test_planar_flows_stay_bijections_in_float32():
    layer = transforms.planar(3)
    with torch.no_grad():
        layer.transform.heads.outer.fill_(-50.0)
        z, log_det = layer(torch.zeros(2, 3))
        assert bool(torch.isfinite(log_det).all())
        assert torch.allclose(layer.inverse(z)[1], -log_det, atol=1e-3)


def test_a_planar_layer_is_the_textbook_formula_with_its_determinant():
    layer = randomized(transforms.planar(4))
    turn = matrix_of(layer.basis, 4)
    scale, b, r = layer.transform.heads.vectors()
    w, u = scale * turn[0], turn.T @ r
    x = 2 * normal(6, 4)
    inner = x @ w + b
    z, log_det = layer(x)
    assert torch.allclose(z, x + torch.tanh(inner)[:, None] * u, atol=1e-12)
    psi = (1 - torch.tanh(inner)[:, None] ** 2) * w
    assert torch.allclose(log_det, (1 + psi @ u).log(), atol=1e-12)
    assert torch.allclose(log_det, torch.linalg.slogdet(jacobians(lambda v: layer(v)[0], x))[1], atol=1e-11)


@pytest.mark.parametrize("product", [-0.95, 0.0, 7.0])
def test_every_planar_flow_is_one_of_ours(product):
    # Any w, b and u with w . u > -0.98; also products at which the paper's fixed point iteration does not converge.
    w, b, u = normal(4), normal(1), normal(4)
    u = u + (product - w @ u) * w / (w @ w)
    layer = transforms.planar(4).double()
    vector = w - w.norm() * torch.eye(4).double()[0]
    turn = householder_matrix(vector[None])
    s, r = w.norm(), turn @ u
    with torch.no_grad():
        [p for name, p in layer.basis.named_parameters()][0].copy_(vector[None])
        heads = layer.transform.heads
        heads.log_scale.copy_(s.log())
        heads.bias.copy_(b)
        # Undo r_1 = (softplus(s raw + UNIT) - LEAST) / s.
        raw = (torch.expm1(s * r[0] + LEAST).log() - UNIT) / s
        heads.outer.copy_(torch.cat([raw[None], r[1:]]))
    x = 2 * normal(6, 4)
    z, log_det = layer(x)
    inner = (x @ w + b)[:, None]
    assert torch.allclose(z, x + u * torch.tanh(inner), atol=1e-12)
    assert torch.allclose(log_det, (1 + product * (1 - torch.tanh(inner[:, 0]) ** 2)).log(), atol=1e-12)
    assert torch.allclose(layer.inverse(z)[0], x, atol=1e-9)


@pytest.mark.parametrize("units", [1, 3, 5])
def test_a_sylvester_layer_is_the_original_form_with_its_determinant(units):
    layer = randomized(lk.sylvester(5, units, reflections=3))
    q = matrix_of(layer.basis, 5)[:units]
    inner, outer, b = layer.transform.heads.matrices()
    x = 2 * normal(6, 5)
    bend = torch.tanh(x @ (inner @ q).T + b)
    z, log_det = layer(x)
    assert torch.allclose(z, x + bend @ (q.T @ outer).T, atol=1e-12)
    # Sylvester's identity: the determinant of a D x D matrix by one of size M, and that by its diagonal.
    small = torch.eye(units).double() + (1 - bend**2)[:, :, None] * (inner @ outer)
    assert torch.allclose(log_det, torch.linalg.slogdet(small)[1], atol=1e-12)
    assert torch.allclose(log_det, torch.linalg.slogdet(jacobians(lambda v: layer(v)[0], x))[1], atol=1e-11)


def test_the_original_form_is_a_generalized_one():
    # The proof of theorem 3, in numbers: f(u) = R2 tanh(R1 u + b) has a lower triangular Jacobian, diagonal above -1.
    residual = TriangularResidual(randomized(SylvesterHeads(5, 3)), FreeTanhResidual())
    u = 2 * normal(4, 5)
    jacobian = jacobians(lambda v: residual(v)[0], u) - torch.eye(5).double()
    assert float(jacobian.triu(1).abs().max()) == 0
    assert float(jacobian.diagonal(dim1=1, dim2=2).min()) > -1
    assert float(jacobian.tril(-1).abs().max()) > 0.1
    # Only the first three numbers are read and changed.
    assert float(jacobian[:, 3:].abs().max()) == float(jacobian[:, :, 3:].abs().max()) == 0


@pytest.mark.parametrize("build", [lambda: SylvesterHeads(4, 3), lambda: PlanarHeads(4)])
def test_heads_are_strictly_autoregressive(build):
    heads = randomized(build())
    jacobian = jacobians(lambda v: heads(v), normal(2, 4)).reshape(2, 4, 4, 4)
    assert all(float(jacobian[:, head].triu().abs().max()) == 0 for head in range(4))
    assert float(jacobian.abs().max()) > 0.01


# Equations 9, 10 and 13, and theorem 2.


def basis(kind):
    layers = {
        "rotation": lambda: lk.rotation(4),
        "reflections": lambda: lk.rotation(4, method="householder", reflections=3),
        "exponential": lambda: lk.dense_exponential(4),
        "1x1": lambda: lk.Conv1x1(4),
        "affine": lambda: lk.ActNorm(4),
        "nonlinear": lambda: lk.Chain([lk.Conv1x1(4), transforms.Tanh()]),
    }
    return randomized(layers[kind](), scale=0.4)


def residual():
    return randomized(TriangularResidual(AutoregressiveNet(4, hidden=9, dims=0)), scale=0.5)


def equation_9(w, f, x):
    """`x + W^-1 f(W x)`, taken at its word."""
    u = w(x)[0]
    return x + w.inverse(f(u)[0] - u)[0]


@pytest.mark.parametrize("kind", ["rotation", "reflections", "exponential", "1x1"])
def test_for_linear_bases_the_conjugate_is_equation_9_and_its_determinant_equation_10(kind):
    w, f, x = basis(kind), residual(), normal(5, 4)
    layer = lk.Conjugate(w, f)
    z, log_det = layer(x)
    assert torch.allclose(z, equation_9(w, f, x), atol=1e-11)
    assert torch.allclose(layer.inverse(z)[0], x, atol=1e-9)
    # det dz/dx = det(I + J(W x) W W^-1) = det(I + J(W x)), and J is triangular.
    u = w(x)[0]
    jacobian = jacobians(lambda v: f(v)[0], u) - torch.eye(4).double()
    matrix = matrix_of(w, 4)
    left = torch.linalg.slogdet(torch.eye(4).double() + torch.linalg.inv(matrix) @ jacobian @ matrix)
    right = torch.linalg.slogdet(torch.eye(4).double() + jacobian)
    diagonal = (1 + jacobian.diagonal(dim1=1, dim2=2)).log().sum(1)
    observed = torch.linalg.slogdet(jacobians(lambda v: equation_9(w, f, v), x))
    for sign, value in (left, right, (torch.ones(5).double(), diagonal), observed):
        assert bool((sign > 0).all())
        assert torch.allclose(value, log_det, atol=1e-10)


@pytest.mark.parametrize("kind", ["affine", "nonlinear"])
def test_for_other_bases_the_conjugate_is_right_and_equation_9_is_not(kind):
    w, f, x = basis(kind), residual(), 0.5 * normal(5, 4)
    if kind == "nonlinear":
        w = lk.Inverse(w)
        # Numbers within (-1, 1), and a residual that keeps them there: tanh(v + f(v)) in other words.
        f, x = residual(), torch.tanh(x)
    layer = lk.Conjugate(w, f)
    z, log_det = layer(x)
    assert torch.allclose(log_det, torch.linalg.slogdet(jacobians(lambda v: layer(v)[0], x))[1], atol=1e-9)
    assert torch.allclose(layer.inverse(z)[0], x, atol=1e-8)
    wrong = equation_9(w, f, x)
    assert float((wrong - z).detach().abs().max()) > 0.05
    reported = sum_of_slopes(f, w(x)[0])
    true = torch.linalg.slogdet(jacobians(lambda v: equation_9(w, f, v), x))[1]
    if kind == "affine":
        # A shift that is added twice moves the values, not the determinant.
        assert torch.allclose(reported, true, atol=1e-10)
    else:
        assert float((reported - true).detach().abs().max()) > 0.05


def sum_of_slopes(f, u):
    return f(u)[1]


def test_slopes_below_minus_one_are_what_theorem_2_excludes():
    class Steep(nn.Module):
        def forward(self, u, context=None):
            one = torch.ones_like(u)
            return torch.cat([0 * one, one, -1.5 * one, 0 * one], 1)

    folded = TriangularResidual(Steep(), FreeTanhResidual())
    u = torch.tensor([[0.0], [0.9], [2.0]]).double()
    v = u + -1.5 * torch.tanh(u)
    # Not injective: zero is reached again between 0.9 and 2.
    assert v[0] == 0
    assert float(v[1]) < 0 < float(v[2])
    with pytest.raises(DomainError, match="slope of f is above -1"):
        folded(u)


@pytest.mark.parametrize("size", [3.0, 30.0])
def test_the_original_form_inverts_whatever_its_parameters(size):
    layer = lk.sylvester(6, 4).double()
    with torch.no_grad():
        for parameter in layer.transform.parameters():
            parameter.copy_(size * torch.randn_like(parameter))
        heads = layer.transform.heads
        # The worst diagonal: s1 s2 = -0.98 everywhere.
        heads.inner.diagonal().fill_(size)
        heads.outer.diagonal().fill_(-size)
    x = normal(20, 6)
    z, log_det = layer(x)
    assert bool(torch.isfinite(log_det).all())
    again, undone = layer.inverse(z)
    assert torch.allclose(layer(again)[0], z, atol=1e-8)
    assert torch.allclose(undone, -log_det, atol=1e-4)
    assert torch.allclose(again, x, atol=1e-6)


def test_equation_13():
    layer = randomized(lk.conv_sylvester(2, hidden=6), scale=0.3)
    x = normal(2, 2, 4, 3)
    turn, exponential = layer.basis
    m, q = exponential.map(), matrix_of(turn, 2)
    u = lk.exp_action(m, torch.einsum("ij,bjhw->bihw", q, x)).value
    f = layer.transform(u)[0] - u
    expected = x + torch.einsum("ji,bjhw->bihw", q, lk.exp_action(-m, f).value)
    assert torch.allclose(layer(x)[0], expected, atol=1e-10)
    # No part of the layer knows the size of the image.
    assert layer(normal(1, 2, 6, 5))[0].shape == (1, 2, 6, 5)


# Amortised parameters.


@pytest.mark.parametrize(
    "build",
    [
        lambda **k: transforms.planar(4, **k),
        lambda **k: lk.sylvester(4, 3, reflections=2, **k),
        lambda **k: lk.generalized_sylvester(4, hidden=8, reflections=2, exponential=True, **k),
    ],
)
def test_amortised_rows_are_independent_and_start_like_the_fixed_layer(build):
    fixed, amortised = build().double(), build(context_features=3).double()
    x, condition = normal(5, 4), normal(5, 3)
    assert torch.allclose(fixed(x)[0], x, atol=0.02)
    assert torch.allclose(amortised(x, condition)[0], x, atol=0.02)
    testing.randomize(amortised, scale=0.3)
    z, log_det = amortised(x, condition)
    one_by_one = [amortised(x[i : i + 1], condition[i : i + 1]) for i in range(5)]
    assert torch.allclose(z, torch.cat([value for value, _ in one_by_one]), atol=1e-11)
    assert torch.allclose(log_det, torch.cat([value for _, value in one_by_one]), atol=1e-11)
    assert float((amortised(x, condition.flip(0))[0] - z).detach().abs().max()) > 0.01


def test_an_amortised_row_is_the_fixed_layer_with_those_parameters():
    amortised = randomized(lk.sylvester(4, 3, context_features=2), scale=0.4)
    fixed = lk.sylvester(4, 3).double()
    x, condition = normal(1, 4), normal(1, 2)
    with torch.no_grad():
        for name, parameter in fixed.named_parameters():
            place, last = name.rpartition(".")[::2]
            parameter.copy_(amortised.get_submodule(place).value(last, condition)[0])
    assert torch.allclose(fixed(x)[0], amortised(x, condition)[0], atol=1e-12)


def test_convolutional_heads_read_the_condition_at_their_place():
    layer = randomized(lk.conv_sylvester(2, hidden=6, context_features=3), scale=0.3)
    x, condition = normal(2, 2, 3, 3), normal(2, 3, 3, 3)
    z = layer(x, condition)[0]
    moved = condition.clone()
    moved[:, :, 2, 2] += 1
    assert float((layer(x, moved)[0] - z).detach().abs().max()) > 1e-3
    inner = [layer.transform.heads(x, c) for c in (condition, moved)]
    change = (inner[1] - inner[0]).detach().abs().amax((0, 1))
    assert float(change[2, 2]) > 1e-3
    assert float(change[0].max()) == 0


def test_wrong_sizes_are_refused():
    with pytest.raises(ConfigError, match="hidden_units must be from 1 to the 3 features, got 4"):
        lk.sylvester(3, 4)
    with pytest.raises(ShapeError, match="SylvesterHeads works on inputs"):
        SylvesterHeads(3, 2)(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="PlanarHeads works on inputs"):
        PlanarHeads(3)(torch.zeros(2, 2))
    with pytest.raises(ShapeError, match=r"needs a condition \(rows, 5\)"):
        SylvesterHeads(3, 2, context_features=5)(torch.zeros(2, 3))


def test_layers_go_through_a_flow_and_its_distribution():
    layers = [transforms.planar(2), lk.sylvester(2), lk.generalized_sylvester(2, hidden=8)]
    flow = lk.Flow(lk.Normal((2,)), randomized(lk.Chain(layers), scale=0.3), event_shape=(2,)).double()
    testing.check_flow(flow, box=[(-12, 12), (-12, 12)], points=300, samples=5000)
