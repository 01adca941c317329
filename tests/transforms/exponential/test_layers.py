"""Layers made of exponentials: frozen forms, norm limits, rows of their own, certificates of flows."""

from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

import likelify as lk
from likelify import linalg, transforms
from likelify.errors import (
    ConfigError,
    ConvergenceError,
    DomainError,
    InexactLikelihoodError,
    LikelifyError,
    ShapeError,
    StateError,
    UnsupportedError,
)
from likelify.linalg.expm import frozen, recorded
from tests.cases import normal


@pytest.mark.parametrize(
    ("build", "shape", "method"),
    [
        (lambda: lk.conv_exponential(2), (2, 4, 3), "dense"),
        (lambda: lk.dense_exponential(3), (3, 5), "polynomial"),
        (lambda: lk.orthogonal_convolution(2), (2, 4, 4), "dense"),
        (lambda: lk.rotation(4), (4,), "polynomial"),
        (lambda: lk.conv_exponential(4, padding="circular"), (4, 20, 20), "fourier"),
        (lambda: lk.conv_exponential(4), (4, 20, 20), "series"),
        (lambda: transforms.equivariant_exponential(2, "sets"), (2, 5), "closed-form"),
    ],
)
def test_frozen_forms_small_exponentials_once(build, shape, method):
    layer = lk.testing.randomize(build().double(), scale=0.1)
    x = normal(3, *shape).requires_grad_()
    z, log_det = layer(x)
    with (
        layer.frozen(),
        recorded() as found,
        mock.patch.object(frozen, "_form", wraps=frozen._form) as forming,
    ):
        first, second = layer(x), layer(x)
        back, _ = layer.inverse(first[0])
    assert forming.call_count == 2
    assert found[0].method == found[1].method == method
    for value, det in (first, second):
        assert torch.allclose(value, z, atol=1e-10)
        assert torch.equal(det, log_det)
    assert torch.allclose(back, x, atol=1e-9)
    (grad,) = torch.autograd.grad(first[0].sum(), x)
    (expected,) = torch.autograd.grad(z.sum(), x)
    assert torch.allclose(grad, expected, atol=1e-9)


def test_a_frozen_exponential_notices_that_its_parameters_changed():
    layer = lk.conv_exponential(2)
    x = torch.randn(2, 2, 4, 4)
    with torch.no_grad(), layer.frozen():
        layer(x)
        layer.parametrization.weight.mul_(2)
        with pytest.raises(StateError):
            layer(x)


def test_frozen_maps_with_rows_of_their_own_and_inference_mode():
    x, map_ = normal(3, 2, 5), lk.ConvMap(0.2 * normal(3, 2, 2, 3), own_rows=True)
    expected = lk.Exponential(map_)(x)[0]
    for layer in (lk.Exponential(map_), lk.Exponential(lk.Dense(0.2 * normal(2, 2)))):
        with torch.inference_mode(), layer.frozen():
            inside = layer(x)[0]
        with layer.frozen():
            assert torch.allclose(layer(x)[0], inside)
    assert torch.allclose(lk.Exponential(map_)(x)[0], expected)


def test_orthogonal_convolutions_keep_norms_and_volume_exactly():
    layer = lk.testing.randomize(lk.orthogonal_convolution(3).double(), scale=1.0)
    x = normal(2, 3, 5, 4)
    z, log_det = layer(x)
    assert torch.equal(log_det, torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(z.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-11)


def test_what_is_not_orthogonal_or_does_not_fit_is_refused():
    with pytest.raises(DomainError, match="not orthogonal"):
        transforms.Orthogonal(torch.ones(2, 2))
    with pytest.raises(ShapeError, match="square"):
        transforms.Orthogonal(torch.ones(2, 3))
    with pytest.raises(ShapeError, match=r"got shape \(\)"):
        transforms.Orthogonal(3)
    factories = (lk.conv_exponential, lk.dense_exponential, lk.graph_exponential, lk.orthogonal_convolution)
    for factory in (*factories, lambda channels: transforms.equivariant_exponential(channels, "pairs")):
        with pytest.raises(ConfigError, match="must be at least 1, got 0"):
            factory(0)
    with pytest.raises(ShapeError, match="start must have shape"):
        lk.rotation(3, start=torch.eye(2))
    with pytest.raises(ConfigError, match="cayley"):
        lk.rotation(3, method="magic")
    with pytest.raises(ConfigError, match="rotations"):
        transforms.equivariant_exponential(4, "magic")
    with pytest.raises(ConfigError, match="multiple of four"):
        transforms.equivariant_exponential(6, "rotations")
    with pytest.raises(ConfigError, match="groups"):
        lk.conv_exponential(4, groups=3)
    with pytest.raises(ShapeError, match="1 position axes"):
        lk.conv_exponential(4, (3, 3), dims=1)
    with pytest.raises(ConfigError, match="neighbours"):
        lk.graph_exponential(4, neighbours=0)
    with pytest.raises(ShapeError, match="GraphBatch"):
        lk.graph_exponential(2)(torch.ones(3, 2))
    with pytest.raises(ShapeError, match="condition"):
        lk.conv_exponential(2, context_features=3)(torch.ones(2, 2, 4, 4))
    with pytest.raises(ConfigError, match="no trace .magic."):
        lk.Exponential(lk.Dense(torch.eye(2)), trace="magic")


@pytest.mark.parametrize("make", [lk.conv_exponential, lk.axis_exponential])
def test_a_row_with_its_own_kernel_is_as_if_alone(make):
    layer = lk.testing.randomize(make(2, 3, context_features=3).double())
    x, condition = normal(3, 2, 4, 5), normal(3, 3)
    together = layer(x, condition)[0]
    alone = torch.cat([layer(x[i : i + 1], condition[i : i + 1])[0] for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-10)
    assert not torch.allclose(together, layer(x, condition.flip(0))[0], atol=1e-3)


def test_the_norm_limit_holds_for_rows_and_groups():
    for options in ({"context_features": 2}, {"groups": 2}, {"padding": "reflect"}, {"padding": "circular"}):
        layer = lk.conv_exponential(4, **options).double()
        lk.testing.randomize(layer, scale=5.0)
        context = normal(2, 2) if "context_features" in options else None
        matrices = layer.map(context).materialize((4, 5, 4)).detach()
        assert 0.2 < float(torch.linalg.matrix_norm(matrices, 2).max()) <= 1.8
    dense = lk.testing.randomize(lk.dense_exponential(5, norm_limit=0.7).double(), scale=3.0)
    assert float(torch.linalg.matrix_norm(dense.map().effective.detach(), 2)) <= 0.7


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


@pytest.mark.parametrize("bound", ["reshape", "torus"])
def test_the_map_declares_what_its_norm_is_known_to_be_at_most(bound):
    torch.manual_seed(0)
    layer = lk.conv_exponential(3, norm_limit=0.9, norm_bound=bound)
    for size in (0.0, 0.02, 0.06, 1.0):
        torch.nn.init.normal_(layer.parametrization.weight, std=size)
        map_ = layer.map()
        norm = float(torch.linalg.matrix_norm(map_.materialize((3, 5, 5)).detach(), 2))
        assert norm <= map_.norm <= 0.9
        assert map_.norm < 2.5 * norm + 1e-5 or size == 1.0
        # Where values cannot be looked at, the limit is declared, and the kernel is the same.
        traced = torch.func.vmap(lambda x: layer.map().apply(x[None])[0])(torch.eye(3 * 25).reshape(75, 3, 5, 5))
        assert torch.allclose(traced.flatten(1).T, map_.materialize((3, 5, 5)), atol=1e-6)


def test_an_estimated_trace_makes_the_likelihood_an_estimate():
    layer = lk.linear_exponential(torch.nn.Linear(5, 5, bias=False), trace="hutchinson", trace_samples=2000)
    flow = lk.Flow(lk.Normal((5,)), layer)
    x = torch.randn(2, 5)
    exact = lk.linear_exponential(layer.parametrization.module)(x)[1]
    with lk.seeded(0):
        assert float((layer(x)[1] - exact).detach().abs().max()) < 0.3
    assert flow.likelihood == "estimate"
    with pytest.raises(InexactLikelihoodError):
        flow.log_prob(x)
    with pytest.raises(InexactLikelihoodError, match="certificate"):
        flow.certificate(x)


def test_the_certificate_bounds_what_truncation_does_to_the_likelihood():
    layer = lk.testing.randomize(lk.conv_exponential(2, tol=1e-2).double(), scale=0.5)
    flow = lk.Flow(lk.Normal((2, 3, 3)), lk.Chain([layer, lk.ActNorm(2).double()]))
    x = normal(1, 2, 3, 3)
    certificate = flow.certificate(x)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[0], x).reshape(18, 18)
    # The degree adapts to x but is the same nearby, so this is the map that was applied.
    observed = abs(float((torch.linalg.slogdet(jacobian)[1] - layer(x)[1]).detach()))
    assert 1e-9 < observed <= float(certificate.nats)
    assert certificate.exponentials == 1
    assert "nats" in str(certificate)
    sharp = lk.Flow(lk.Normal((2, 3, 3)), lk.conv_exponential(2).double())
    assert float(sharp.certificate(x).nats) < 1e-9


def test_certificates_count_per_graph():
    graphs = lk.GraphBatch.complete([2, 3]), lk.GraphBatch(torch.tensor([2, 3]), torch.tensor([[0, 1], [1, 0]]))
    for structure in graphs:
        layers = lk.Chain([lk.graph_exponential(2, tol=1e-3), lk.dense_exponential(2, tol=1e-3)]).double()
        lk.testing.randomize(layers)
        flow = lk.Flow(lk.Normal((2,)), layers)
        nats = flow.certificate(normal(5, 2), lk.Context(structure=structure)).nats
        assert nats.shape == (2,)
        assert 0 < float(nats[0]) < float(nats[1])


def test_graph_exponentials_meet_the_rule_of_thumb():
    structure = lk.GraphBatch.complete([4])
    layer = lk.testing.randomize(lk.graph_exponential(3, neighbours=3), scale=5.0)
    map_ = layer.map(lk.Context(structure=structure))
    assert float(torch.linalg.matrix_norm(map_.theta0.detach(), 2)) <= 1 / 3
    assert float(torch.linalg.matrix_norm(map_.theta1.detach(), 2)) <= 1


def exponential_layers():
    return {
        "conv": (lk.conv_exponential, (3, 4, 4)),
        "conv-1d": (lambda channels: lk.conv_exponential(channels, dims=1), (3, 4)),
        "orthogonal": (lk.orthogonal_convolution, (3, 4, 4)),
        "dense": (lk.dense_exponential, (3,)),
        "rotation": (lk.rotation, (3,)),
        "cayley": (lambda channels: lk.rotation(channels, method="cayley"), (3,)),
        "householder": (lambda channels: lk.rotation(channels, method="householder"), (3,)),
        "sets": (lambda channels: transforms.equivariant_exponential(channels, "sets"), (3, 4)),
        "pairs": (lambda channels: transforms.equivariant_exponential(channels, "pairs"), (3, 4, 4)),
    }


@pytest.mark.parametrize("name", exponential_layers())
def test_every_layer_says_in_the_same_words_what_it_works_on(name):
    build, shape = exponential_layers()[name]
    for bad in (0, -1):
        with pytest.raises(ConfigError, match="at least"):
            build(bad)
    layer = build(np.int64(3))
    x = torch.ones(2, *shape)
    assert layer(x)[0].shape == x.shape
    for wrong in (torch.ones(2, 2, *shape[1:]), torch.ones(2)):
        for method in (layer.forward, layer.inverse):
            with pytest.raises(ShapeError, match=f"{type(layer).__name__} works on inputs of shape"):
                method(wrong)


def test_constant_maps_look_at_channels_where_nothing_is_left_of_them():
    for map_ in (lk.Dense(torch.eye(3)), linalg.Diagonal(torch.ones(3)), lk.Dense(torch.zeros(3, 3))):
        layer = lk.Exponential(map_)
        with pytest.raises(ShapeError, match=r"3 channels"):
            layer(torch.ones(4, 2))
        with layer.frozen(), pytest.raises(ShapeError, match=r"3 channels"):
            layer(torch.ones(4, 2))


def test_unknown_words_are_refused_when_a_layer_is_built():
    for build in (
        lambda: lk.conv_exponential(2, padding="cirular"),
        lambda: lk.orthogonal_convolution(2, padding="cirular"),
        lambda: lk.conv_exponential(2, norm_bound="tours"),
        lambda: lk.Exponential(lk.Dense(torch.eye(2)), method="serie"),
        lambda: lk.ConvMap(torch.ones(1, 1, 3), padding="cirular"),
    ):
        with pytest.raises(ConfigError, match="Did you mean '(circular|torus|series)'"):
            build()
    with pytest.raises(ConfigError, match="reflect"):
        lk.orthogonal_convolution(2, padding="reflect")
    with pytest.raises(ConfigError, match="degree"):
        lk.conv_exponential(2, degree=-1)
    with pytest.raises(UnsupportedError, match="Stored"):
        lk.conv_exponential(2, gradient="stored")


@pytest.mark.parametrize("method", ["exponential", "cayley", "householder"])
def test_a_start_in_single_precision_serves_a_model_that_is_made_double(method):
    start = torch.linalg.qr(torch.randn(5, 5))[0]
    layer = lk.rotation(5, start=start, method=method).double()
    x = normal(3, 5)
    with torch.no_grad():
        z, back = layer(x)[0], layer.inverse(layer(x)[0])[0]
    assert float((back - x).abs().max()) < 1e-11
    assert float((z.norm(dim=1) - x.norm(dim=1)).abs().max()) < 1e-11
    assert torch.allclose(z, x @ start.double().T, atol=1e-5)
    mirror = transforms.Orthogonal.signs([1, -1]).double()
    assert torch.equal(mirror(x[:, :2])[0], x[:, :2] * torch.tensor([1.0, -1.0]))


def test_the_exponential_of_a_graph_does_not_depend_on_the_others():
    layer = lk.testing.randomize(lk.graph_exponential(2, neighbours=3), scale=5.0).double()
    sizes = [2, 4, 3]
    x = normal(sum(sizes), 2)
    together, _ = layer(x, lk.Context(structure=lk.GraphBatch.complete(sizes)))
    alone = [
        layer(part, lk.Context(structure=lk.GraphBatch.complete([size])))[0]
        for part, size in zip(x.split(sizes), sizes, strict=True)
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)


def test_what_a_backward_pass_computes_again_has_the_parameters_of_the_call():
    layer = lk.linear_exponential(torch.nn.Conv1d(2, 2, 3, padding=1, bias=False), gradient=linalg.Recompute()).double()
    other = lk.linear_exponential(torch.nn.Conv1d(2, 2, 3, padding=1, bias=False)).double()
    x, (name, start) = normal(2, 2, 4), next(iter(layer.named_parameters()))
    weight = (start.detach() + 0.5).requires_grad_()
    found = []
    for each in (layer, other):
        value, _ = torch.func.functional_call(each, {name: weight}, (x,))
        (first,) = torch.autograd.grad(value.square().sum(), weight, create_graph=True)
        found.append((first, torch.autograd.grad(first.square().sum(), weight)[0]))
    for mine, exact in zip(*found, strict=True):
        assert torch.allclose(mine, exact, rtol=1e-8)


def test_circular_convolutions_in_half_precision_work_frozen_too():
    layer = lk.conv_exponential(3, padding="circular").half()
    x = torch.randn(5, 3, 20, 20, dtype=torch.float16)
    with torch.no_grad():
        expected = layer(x)[0]
        with layer.frozen():
            torch.testing.assert_close(layer(x)[0], expected, atol=2e-3, rtol=1e-2)


def test_a_series_that_is_cut_off_early_is_not_trusted_with_inverses():
    torch.manual_seed(0)
    turned = lk.rotation(8)
    turned.parametrization.weight.data.normal_(0, 3.0)
    with pytest.raises(ConvergenceError, match="cannot be trusted"):
        lk.Exponential(turned.parametrization, degree=12).inverse(torch.randn(5, 8))
    # What the docs say is enough.
    norm = torch.linalg.matrix_norm(turned.parametrization(None).materialize(8), ord=2)
    turned.parametrization.weight.data.mul_(2.0 / norm.detach())
    layer, x = lk.Exponential(turned.parametrization, degree=12), torch.randn(5, 8)
    assert torch.allclose(layer(x)[0], turned(x)[0], atol=1e-5)
    assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-5)


@pytest.mark.parametrize("channels", [12, 48])
def test_a_limited_convolution_is_the_same_in_double_precision(channels):
    torch.manual_seed(0)
    layer, x = lk.conv_exponential(channels), torch.randn(2, channels, 8, 8)
    layer.parametrization.weight.data.mul_(100)
    flow = lk.Flow(lk.Normal((channels, 8, 8)), layer)
    single = flow.log_prob(x)
    assert torch.allclose(flow.double().log_prob(x.double()).float(), single, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: lk.Exponential(nn.Linear(3, 3, bias=False)), r"take linear_exponential\(Linear"),
        (lambda: lk.Exponential(lk.Function(nn.Linear(3, 3, bias=False))), "take linear_exponential"),
        (lambda: lk.Exponential(lk.Function(nn.Linear(3, 3, bias=False).forward) * 0.5), "take linear_exponential"),
        (lambda: lk.Exponential(lk.Dense(nn.Parameter(torch.eye(3)))), "builds the map from its parameters"),
        (lambda: lk.Exponential(nn.Sequential(nn.Identity()))(torch.ones(2, 3)), "a parametrization gives a LinearMap"),
        (lambda: lk.rotation(3, method="cayley", tol=0.1), "tol belongs to the method 'exponential'"),
        (lambda: lk.linear_exponential(nn.Conv2d(3, 3, 3, padding=1, bias=False))(torch.ones(1, 3, 64, 64)), "hutch"),
    ],
)
def test_what_would_not_be_trained_or_is_no_map_is_refused(build, said):
    with pytest.raises(LikelifyError, match=said):
        build()


def test_whole_numbers_are_limits_and_starts_too():
    layer = lk.dense_exponential(3, norm_limit=1)
    x = torch.randn(2, 3)
    mapped = torch.vmap(lambda row: layer(row[None])[0][0], randomness="same")(x)
    assert torch.allclose(mapped, layer(x)[0], atol=1e-6)
    assert lk.rotation(2, start=[[0, 1], [1, 0]])(x[:, :2])[0].tolist() == x[:, [1, 0]].tolist()


def test_no_rows_have_no_norm():
    layer = lk.dense_exponential(3, norm_limit=1.0, context_features=2)
    assert layer(torch.ones(0, 3), torch.ones(0, 2))[0].shape == (0, 3)
