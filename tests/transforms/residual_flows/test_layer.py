"""Residual layers: exact twins, accuracy of the inverse, what is refused, and what they cost."""

from unittest import mock

import pytest
import torch
from benchmarks.memory import kept_bytes
from torch import nn

import likelify as lk
from likelify import nets
from likelify.errors import ConfigError, ConvergenceError, InexactLikelihoodError, ShapeError, UnsupportedError
from likelify.linalg.log_det import Exact, Roulette, Truncated
from likelify.transforms.core import Transform
from tests.cases.common import normal
from tests.transforms.residual_flows.layers import Line, strong


def test_the_certificate_counts_what_the_series_leave_out():
    layers = lk.Chain([strong(Truncated(1e-2)), lk.ActNorm(3).double(), strong(Truncated(1e-3))])
    flow, x = lk.Flow(lk.Normal((3,)), layers), normal(4, 3)
    certificate = flow.certificate(x)
    exact = lk.with_log_det(flow, "exact")
    assert certificate.series == 2
    assert 0 < float(certificate.nats.max()) <= 1.1e-2
    assert bool(((flow.log_prob(x) - exact.log_prob(x)).abs() <= certificate.nats).all())
    assert "2 log-determinants" in str(certificate)
    assert exact.certificate(x).series == 0
    graphs = lk.Context(structure=lk.GraphBatch(torch.tensor([1, 3]), torch.zeros(2, 0, dtype=torch.long)))
    per_graph = flow.certificate(x, graphs).nats
    assert torch.allclose(per_graph, torch.stack([certificate.nats[0], certificate.nats[1:].sum()]))


def test_whether_the_log_determinant_is_noisy_is_what_the_method_says():
    layer = lk.LipschitzResidual(nets.LipschitzMLP(2, (4,)), log_det=Exact())
    assert not layer.noisy_log_det
    with pytest.raises(AttributeError):
        layer.noisy_log_det = True


def test_too_large_events_are_refused_by_name():
    layer = lk.LipschitzResidual(nets.LipschitzMLP(10, (4,)), log_det=Exact(limit=9))
    with pytest.raises(ShapeError, match="truncated"):
        layer(torch.ones(1, 10))


def noisy_flow():
    layers = lk.Chain(
        [
            lk.Inverse(strong("roulette")),
            lk.Conjugate(lk.Conv1x1(3).double(), lk.Chain([strong(Roulette(samples=2)), lk.ActNorm(3).double()])),
        ]
    )
    return lk.Flow(lk.Normal((3,)), layers)


def test_a_flow_trained_by_roulette_can_be_evaluated_exactly():
    flow, x = noisy_flow(), normal(3, 3)
    assert flow.likelihood == "estimate"
    for refused in (flow.log_prob, lambda x: flow.iw_log_prob(x, samples=3), flow.certificate):
        with pytest.raises(InexactLikelihoodError, match="LipschitzResidual"):
            refused(x)
    for mode in ("exact", "truncated"):
        twin = lk.with_log_det(flow, mode)
        assert twin.likelihood == twin.transform.likelihood == "exact"
        log_prob = twin.log_prob(x)
        jacobians = [torch.autograd.functional.jacobian(lambda v: flow.transform(v)[0], row[None]) for row in x]
        slopes = torch.stack([torch.linalg.slogdet(j.reshape(3, 3))[1] for j in jacobians])
        expected = flow.base.log_prob(flow.transform(x)[0]) + slopes
        assert torch.allclose(log_prob, expected, atol=1e-8)
        assert torch.allclose(twin.iw_log_prob(x, samples=2).value, log_prob)
    assert flow.likelihood == "estimate"
    with torch.no_grad():
        estimate = flow.elbo(x, samples=100)
    assert bool(((estimate.value - log_prob).abs() < 4 * estimate.standard_error).all())


def test_the_twin_shares_its_parameters():
    flow, x = noisy_flow(), normal(3, 3)
    twin = lk.with_log_det(flow)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in flow.parameters()}
    before = twin.log_prob(x)
    lk.testing.randomize(flow, scale=0.1)
    assert not torch.allclose(twin.log_prob(x), before)
    assert flow.transform[0].transform.log_det == Roulette()
    loose = lk.with_log_det(strong("roulette"), Truncated(0.5))
    assert loose.log_det == Truncated(0.5)
    assert loose.likelihood == "exact"


class Twice(Transform):
    """A container that the library does not know."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.noisy_log_det = layer.noisy_log_det


def test_what_cannot_be_made_exact_is_refused():
    with pytest.raises(ConfigError, match="without noise"):
        lk.with_log_det(noisy_flow(), Roulette())
    with pytest.raises(UnsupportedError, match="Twice"):
        lk.with_log_det(Twice(strong("roulette")))
    estimated = lk.linear_exponential(nn.Linear(3, 3, bias=False), trace="hutchinson")
    flow = lk.Flow(lk.Normal((3,)), lk.Chain([strong("roulette"), estimated]))
    assert lk.with_log_det(flow).likelihood == "estimate"


def test_an_exact_residual_flow_is_a_density():
    layers = [lk.LipschitzResidual(nets.LipschitzMLP(2, (16,)), log_det="exact") for _ in range(2)]
    flow = lk.Flow(lk.Normal((2,)), lk.Chain(layers)).double()
    lk.testing.randomize(flow, scale=1.0)
    lk.testing.check_flow(flow, box=[(-9, 9), (-9, 9)], points=200, samples=4000)


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5, 1e-9, None])
def test_the_error_of_the_inverse_is_what_was_asked_for(tol):
    layer, x = strong(tol=tol), 3 * normal(50, 3)
    with torch.no_grad():
        z, _ = layer(x)
        observed = (layer.inverse(z)[0] - x).norm(dim=1)
    allowed = (1e-12 if tol is None else tol) * z.norm(dim=1).clamp_min(1)
    assert bool((observed <= allowed).all())
    if tol is not None and tol >= 1e-5:
        assert float(observed.max()) > 1e-4 * tol


@pytest.mark.parametrize("limit", [0.5, 0.98, 0.995])
def test_the_inverse_settles_in_single_precision_near_one(limit):
    # A linear map at its limit: the iteration cannot be faster than its slope, nor the tolerance finer than rounding.
    net = lk.testing.randomize(nets.LipschitzMLP(20, (), norm_limit=limit), scale=2.0)
    layer, x = lk.LipschitzResidual(net), torch.randn(10, 20)
    with torch.no_grad():
        z = layer.mean_forward(x)
        error = (layer.mean_inverse(z) - x).norm(dim=1) / z.norm(dim=1).clamp_min(1)
    assert net.lipschitz_bound() > 0.99 * limit
    assert float(error.max()) < max(1e-5, 5e-7 / (1 - limit))


def test_a_condition_gets_its_gradient_in_both_directions():
    net = lk.testing.randomize(nets.LipschitzMLP(3, (6,), context_features=2).double())
    layer = lk.LipschitzResidual(net, log_det="exact")
    inputs = normal(2, 3).requires_grad_(), normal(2, 2).requires_grad_()
    assert torch.autograd.gradcheck(layer, inputs)
    assert torch.autograd.gradcheck(layer.inverse, inputs)


@pytest.mark.parametrize("slope", [0.9, -0.9, 1.5, -3.0])
def test_a_declaration_that_is_not_true_is_noticed(slope):
    x = normal(3, 2)
    honest = lk.LipschitzResidual(Line(0.49), lipschitz=0.5, log_det="exact")
    assert torch.allclose(honest.inverse(honest(x)[0])[0], x)
    for method in ("roulette", "truncated"):
        layer = lk.LipschitzResidual(Line(slope), lipschitz=0.5, log_det=method)
        with pytest.raises(ConvergenceError, match="Lipschitz constant 0.5"):
            layer(x)
    with pytest.raises(ConvergenceError, match="The inverse of LipschitzResidual: a step shrinks"):
        layer.inverse(x)
    if abs(slope) < 1:
        z = x.requires_grad_()
        with mock.patch.object(layer.net, "lipschitz", 0.95):
            solution = layer.mean_inverse(z)
            torch.autograd.grad(solution.sum(), z)
            solution = layer.mean_inverse(z)
        # What the backward pass is told is the constant of its forward pass, so only that is changed here.
        solution.grad_fn.equation.call.lipschitz_bound = 0.5
        with pytest.raises(ConvergenceError, match="The gradient of the inverse"):
            solution.sum().backward()


def test_networks_without_a_bound_and_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="declare one"):
        lk.LipschitzResidual(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="below 1"):
        lk.LipschitzResidual(nn.Linear(2, 2), lipschitz=1.0)
    with pytest.raises(ConfigError, match="leave out"):
        lk.LipschitzResidual(nets.LipschitzMLP(2), lipschitz=0.5)
    with pytest.raises(ConfigError, match="roulette, exact, truncated"):
        lk.LipschitzResidual(nets.LipschitzMLP(2), log_det="magic")
    with pytest.raises(ConfigError, match="tol"):
        lk.LipschitzResidual(nets.LipschitzMLP(2), tol=0.0)
    for wrong in ({"samples": 0}, {"exact_terms": 0}, {"continuation": 1.0}):
        with pytest.raises(ConfigError):
            Roulette(**wrong)
    for wrong in ({"tol": 0.0}, {"terms": 0}):
        with pytest.raises(ConfigError):
            Truncated(**wrong)
    with pytest.raises(ShapeError, match="turned"):
        lk.LipschitzResidual(nn.Linear(2, 3), lipschitz=0.5)(torch.ones(1, 2))


@pytest.mark.parametrize(("method", "inputs"), [("roulette", 2.25), ("exact", 1.0), ("truncated", 1.0)])
def test_training_keeps_little_more_than_the_input(method, inputs):
    layer = lk.LipschitzResidual(nets.LipschitzConvNet(2, 16), log_det=method)

    def per_row(call):
        # The difference between two batches leaves out what is kept of the weights.
        few, many = (torch.randn(rows, 2, 4, 4, requires_grad=True) for rows in (20, 40))
        return (kept_bytes(lambda: call(many)) - kept_bytes(lambda: call(few))) / (20 * 32 * 4)

    assert per_row(layer) == inputs
    # The solution is kept once for its own gradient and for that of the log-determinant.
    assert per_row(layer.inverse) == inputs
    assert per_row(layer.mean_forward) > 30


@pytest.mark.parametrize("method", ["roulette", "exact", "truncated"])
def test_inference_mode_no_rows_and_half_precision(method):
    layer = strong(method).float()
    x = torch.randn(4, 3)
    with torch.inference_mode():
        z, contribution = layer(x.clone())
        back, _ = layer.inverse(z)
    assert torch.allclose(back, x, atol=1e-4)
    assert contribution.shape == (4,)
    z, contribution = layer(x[:0])
    assert z.shape == (0, 3)
    assert layer.inverse(z)[1].shape == contribution.shape == (0,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, contribution = layer(x)
        back, _ = layer.inverse(z)
    assert z.dtype == contribution.dtype == torch.float32
    assert torch.allclose(back, x, atol=1e-4)


def test_frozen_limits_the_weights_once():
    layer, x = strong("exact"), normal(2, 3)
    with (
        mock.patch.object(layer.net, "constrained", wraps=layer.net.constrained) as constrained,
        layer.frozen(),
        torch.no_grad(),
    ):
        z, contribution = layer(x)
        _, undone = layer.inverse(z)
    assert constrained.call_count == 1
    assert torch.allclose(contribution, -undone)


def test_inverses_end_where_rounding_does():
    """The slope is the constant, and errors keep their direction: nothing finer is to be had in single precision."""
    turn = torch.linalg.qr(normal(6, 6))[0].float()
    for limit, hidden in ((0.96, ()), (0.99, ()), (0.98, (16,))):
        net = nets.LipschitzMLP(6, hidden, norm_limit=limit)
        with torch.no_grad():
            net.weights[0].copy_(5 * turn if not hidden else 5 * turn.repeat(3, 1)[:16])
            if hidden:
                net.weights[1].copy_(5 * turn.repeat(3, 1)[:16].T)
                net.biases[0].fill_(4.0)
        layer, z = lk.LipschitzResidual(net, log_det="exact").requires_grad_(False), normal(20, 6).float()
        found = layer.solve(z)
        assert float((layer(found.value)[0] - z).norm(dim=1).max()) < 5e-5
        assert found.error < 2e-2
        with pytest.raises(ConvergenceError):
            lk.LipschitzResidual(net, log_det="exact", tol=1e-8).solve(z)


@pytest.mark.parametrize("size", [1e18, 1e20, 1e30])
def test_inverses_of_values_whose_square_overflows(size):
    layer = lk.LipschitzResidual(nets.LipschitzMLP(3, ()), log_det="exact")
    z = torch.full((4, 3), size, requires_grad=True)
    x = layer.inverse(z)[0]
    torch.testing.assert_close(layer(x)[0], z, rtol=1e-4, atol=0)
    torch.autograd.grad(x.sum(), z)
    with pytest.raises(ConvergenceError):
        layer.inverse(torch.full((4, 3), torch.inf))
