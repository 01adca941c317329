"""Log-determinants of contractions and their gradients: averages, truncation, pieces and second derivatives."""

import math
from unittest import mock

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import nets
from likelify.errors import ConvergenceError, UnsupportedError
from likelify.linalg import log_det
from likelify.linalg.log_det import Roulette, Truncated
from likelify.transforms.residual_flows import contraction
from tests.cases.common import normal
from tests.transforms.residual_flows.layers import Line, strong


def same_net(layer, method):
    return lk.LipschitzResidual(layer.net, log_det=method)


@pytest.mark.parametrize(
    "method", [Roulette(), Roulette(exact_terms=1, samples=2), Roulette(exact_terms=1, continuation=0.6)]
)
def test_the_roulette_is_right_on_average(method):
    layer, x = strong(method), normal(1, 3).expand(40, 3)
    with torch.no_grad():
        exact = float(same_net(layer, "exact")(x[:1])[1])
        # The number of terms is shared by the rows of a call, so the means of calls are what is independent.
        draws = torch.stack([layer(x)[1].mean() for _ in range(600)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(exact) > 0.2
    assert error < 0.03 * abs(exact)
    assert abs(float(draws.mean()) - exact) < 3 * error


def gradient_of(layer, x, repeats=1):
    """The gradient of a weighted sum of the log-determinants of two rows, as one vector."""
    wanted = [x, *layer.parameters()]
    contribution = layer(x.repeat(repeats, 1))[1].reshape(repeats, 2).mean(0)
    found = torch.autograd.grad(contribution[0] - 2 * contribution[1], wanted, allow_unused=True)
    return torch.cat([torch.zeros(1) if g is None else g.flatten() for g in found])


@pytest.mark.parametrize("method", [Roulette(exact_terms=1), Roulette(exact_terms=1, continuation=0.7, samples=2)])
def test_the_gradient_of_the_roulette_is_right_on_average(method):
    layer, x = strong(method), normal(2, 3).requires_grad_()
    exact = gradient_of(same_net(layer, "exact"), x)
    draws = torch.stack([gradient_of(layer, x, repeats=40) for _ in range(250)])
    error = draws.std(0) / math.sqrt(len(draws))
    gap = (draws.mean(0) - exact).abs()
    assert float(error.norm()) < 0.05 * float(exact.norm())
    assert bool((gap <= 4.5 * error + 1e-12).all())
    assert float(gap.norm()) < 2 * float(error.norm())


def test_the_gradient_of_a_truncated_series_is_near_the_exact_one():
    layer, x = strong(Truncated(1e-9)), normal(2, 3).requires_grad_()
    assert torch.allclose(gradient_of(layer, x), gradient_of(same_net(layer, "exact"), x), rtol=1e-6)


@pytest.mark.parametrize("method", [Roulette(samples=3), "exact", Truncated(1e-11)])
def test_every_row_gets_its_own_upstream_gradient(method):
    layer, x = strong(method), normal(3, 3).requires_grad_()
    weight = torch.tensor([1.0, 0.0, -2.5], dtype=torch.float64)
    wanted = [x, *layer.parameters()]

    def gradient(weight):
        with lk.seeded(7):
            z, contribution = layer(x)
        total = (contribution * weight).sum() + 0.3 * (z.sum(1) * weight).sum()
        return torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)

    alone = [gradient(torch.eye(3, dtype=torch.float64)[row]) for row in range(3)]
    together = gradient(weight)
    for place, found in enumerate(together):
        expected = sum(w * grads[place] for w, grads in zip(weight, alone, strict=True))
        assert torch.allclose(found, expected, atol=1e-12)
    assert torch.equal(together[0][1], torch.zeros(3, dtype=torch.float64))
    assert not torch.allclose(alone[0][1], alone[2][1])


def test_the_noise_of_the_roulette_is_that_of_its_random_vectors():
    # Terms of one sign, whose sum would be most uneven if it were cut at random.
    shift = nn.Linear(30, 30, bias=False).double()
    with torch.no_grad():
        shift.weight.copy_(-0.8 * torch.eye(30) + 0.15 * torch.linalg.qr(normal(30, 30))[0])
    layer, x = lk.LipschitzResidual(shift, lipschitz=0.95), normal(1, 30)

    def spread(method):
        with torch.no_grad():
            return float(torch.stack([same_net(layer, method)(x)[1] for _ in range(300)]).std())

    vectors_alone = spread(Roulette(exact_terms=100))
    assert spread(Roulette()) < 2 * vectors_alone
    assert spread(Roulette(continuation=0.5)) > 4 * vectors_alone


def test_the_roulette_takes_as_many_terms_as_the_jacobian_needs():
    calls = []
    for slope in (0.0, 0.05, 0.9):
        net = nets.DeclaredNet(Line(slope), 0.95)
        layer = lk.LipschitzResidual(net)
        with mock.patch.object(
            contraction.NetJacobian, "vjp", autospec=True, side_effect=contraction.NetJacobian.vjp
        ) as pull:
            layer(normal(1, 100))
        calls.append(pull.call_count)
    assert calls[0] == 2
    assert calls[1] <= 4
    assert calls[2] >= 8


@pytest.mark.parametrize(
    "method", [Truncated(), Truncated(1.0), Truncated(1e-3), Truncated(terms=1), Truncated(terms=3), Truncated(terms=9)]
)
def test_a_truncated_series_is_as_near_as_its_bound_says(method):
    layer, x = strong(method), normal(4, 3)
    with torch.no_grad(), log_det.truncations() as found:
        value = layer(x)[1]
        exact = same_net(layer, "exact")(x)[1]
    (bound,) = found
    gap = (value - exact).abs()
    assert bool((gap <= bound + 1e-12).all())
    if method.tol is not None:
        assert bool((bound <= method.tol).all())
        assert float(gap.max()) > 1e-9
    if method.terms is not None:
        limit, terms = layer.lipschitz_bound(), method.terms
        assert bool((bound <= 3 * limit ** (terms + 1) / ((terms + 1) * (1 - limit))).all())


@pytest.mark.parametrize("method", ["exact", Truncated(1e-11)])
def test_pieces_of_a_batch_give_what_the_batch_gives(method, monkeypatch):
    net = lk.testing.randomize(nets.LipschitzConvNet(2, 3, (3, 3), context_features=1).double(), seed=2)
    layer = lk.LipschitzResidual(net, log_det=method)
    x, condition = normal(5, 2, 2, 3).requires_grad_(), normal(5, 1).requires_grad_()
    upstream = normal(5)

    def run():
        z, contribution = layer(x, condition)
        total = (contribution * upstream).sum() + (z**2).sum()
        return [z, contribution, *torch.autograd.grad(total, [x, condition, *net.parameters()])]

    whole = run()
    monkeypatch.setattr(log_det, "CHUNK", 5 * 12 * 5)
    monkeypatch.setattr(log_det, "MATRICES", 2 * 144)
    for a, b in zip(whole, run(), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_gradients_through_the_inverse():
    layer = strong("exact")
    names, values = zip(*layer.named_parameters(), strict=True)
    z, kept = normal(2, 3).requires_grad_(), [value.detach().clone().requires_grad_() for value in values]

    def invert(z, *values):
        with mock.patch.object(layer, "forward", layer.inverse):
            return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (z,))

    assert torch.autograd.gradcheck(invert, (z, *kept), eps=1e-6, atol=1e-7)


def test_a_map_that_folds_space_is_noticed_by_the_determinant():
    layer = lk.LipschitzResidual(Line(-3.0), lipschitz=0.5, log_det="exact")
    with pytest.raises(ConvergenceError, match="not positive"):
        layer(normal(2, 3))


def test_what_is_not_finite_or_too_fine_is_an_error():
    layer = strong()
    z = normal(2, 3)
    z[1, 1] = math.nan
    with pytest.raises(ConvergenceError, match="inverse of LipschitzResidual"):
        layer.mean_inverse(z)
    with pytest.raises(ConvergenceError, match="floating format"):
        strong(tol=1e-19).mean_inverse(normal(50, 3))


def test_second_derivatives():
    layer, x = strong("exact"), normal(2, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(layer, x)
    truncated = same_net(layer, Truncated(1e-11))
    assert torch.autograd.gradgradcheck(truncated, x)
    z, contribution = strong("roulette")(x)
    torch.autograd.grad(z.sum(), x, create_graph=True)
    with pytest.raises(UnsupportedError, match="second derivatives"):
        torch.autograd.grad(contribution.sum(), x, create_graph=True)


def test_nothing_but_the_value_is_computed_where_nothing_else_is_asked_for():
    layer, x = strong("roulette"), normal(2, 3)
    with lk.seeded(0):
        state = torch.get_rng_state()
        z = layer.mean_forward(x)
        assert torch.equal(layer.initialize(x), z)
        assert torch.allclose(layer.mean_inverse(z), x)
        assert torch.equal(torch.get_rng_state(), state)
