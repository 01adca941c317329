"""What importance weights say about their own mean: intervals that hold the truth, or a warning."""

import math
import warnings

import pytest
import torch

import likelify as lk
from likelify import importance, testing
from likelify.errors import HeavyTailWarning, LikelifyWarning

ITEMS = 600


def log_normal(deviation, draws, items=ITEMS):
    """Log-weights of mean one."""
    return deviation * torch.randn(draws, items, dtype=torch.float64) - deviation**2 / 2


def pareto(k, draws, items=ITEMS):
    """Log-weights of mean one whose tail has the shape k."""
    uniform = torch.rand(draws, items, dtype=torch.float64).clamp_min(1e-300)
    return (torch.expm1(-k * uniform.log()) / k * (1 - k)).log()


def coverage(estimate, truth=0.0):
    lower, upper = estimate.interval
    return (lower <= truth) & (truth <= upper)


LIGHT = [
    (lambda draws: log_normal(0.5, draws), 50),
    (lambda draws: log_normal(1.0, draws), 100),
    (lambda draws: log_normal(1.5, draws), 300),
    (lambda draws: pareto(0.3, draws), 100),
    (lambda draws: pareto(0.5, draws), 300),
    (lambda draws: pareto(0.6, draws), 1000),
]
HEAVY = [
    (lambda draws: log_normal(2.5, draws), 100),
    (lambda draws: log_normal(4.0, draws), 100),
    (lambda draws: pareto(0.8, draws), 300),
    (lambda draws: pareto(0.9, draws), 100),
]


@pytest.mark.parametrize("case", range(len(LIGHT)))
def test_intervals_hold_the_truth_where_most_weights_are_light(case):
    draw, draws = LIGHT[case]
    estimate = importance.weighted(draw(draws))
    found, reliable = coverage(estimate), estimate.reliable
    assert float(reliable.double().mean()) > 0.5
    # 90 % at nominal 95 %, also of those without a warning alone; three standard errors of the simulation.
    assert float(found[reliable].double().mean()) > 0.9 - 3 * math.sqrt(0.09 / int(reliable.sum()))
    assert float(found.double().mean()) > 0.9


@pytest.mark.parametrize("case", range(len(HEAVY)))
def test_heavy_weights_are_covered_or_warned_of(case):
    draw, draws = HEAVY[case]
    estimate = importance.weighted(draw(draws))
    assert float(estimate.reliable.double().mean()) < 0.4
    assert float((coverage(estimate) | ~estimate.reliable).double().mean()) > 0.88
    # What the standard error promises is far from it.
    normal = (estimate.value.abs() <= 1.96 * estimate.standard_error).double().mean()
    assert float(normal) < 0.75 < float(coverage(estimate).double().mean())


@pytest.mark.parametrize("k", [0.2, 0.5, 0.8])
def test_the_shape_of_known_tails_is_found(k):
    estimate = importance.weighted(pareto(k, 20_000, 20))
    assert abs(float(estimate.k.mean()) - k) < 0.06


def test_the_tail_is_fitted_as_a_reference_does_by_loops():
    """The estimator of Zhang and Stephens 2009, written as in their paper for one sample."""
    weights = log_normal(1.5, 200, 3).exp().sort(0).values
    tail = importance.fit_tail(weights)
    for item in range(3):
        over = [float(w - weights[-tail.count - 1, item]) for w in weights[-tail.count :, item]]
        n, quartile = len(over), sorted(over)[int(len(over) / 4 + 0.5) - 1]
        m = 30 + int(math.sqrt(n))
        theta = [1 / max(over) + (1 - math.sqrt(m / (j - 0.5))) / (3 * quartile) for j in range(1, m + 1)]
        profile = []
        for t in theta:
            shape = -sum(math.log1p(-t * y) for y in over) / n
            profile.append(n * (math.log(t / shape) + shape - 1))
        masses = [1 / sum(math.exp(other - own) for other in profile) for own in profile]
        ratio = sum(t * w for t, w in zip(theta, masses, strict=True))
        assert math.isclose(sum(math.log1p(-ratio * y) for y in over) / n, float(tail.k[item]), rel_tol=1e-9)


def test_intervals_are_not_symmetric_and_do_not_depend_on_the_scale():
    weights = log_normal(1.5, 100, 50)
    estimate, moved = importance.weighted(weights), importance.weighted(weights - 1e4)
    lower, upper = estimate.interval
    assert bool((upper - estimate.value > estimate.value - lower).all())
    assert torch.allclose(moved.interval[0] + 1e4, lower, atol=1e-8)
    assert torch.allclose(moved.k, estimate.k, atol=1e-8)


@pytest.mark.parametrize("draws", [1, 2, 24])
def test_few_draws_have_no_shape_and_are_not_reliable(draws):
    estimate = importance.weighted(log_normal(1.0, draws))
    lower, upper = estimate.interval
    assert bool(estimate.k.isnan().all())
    assert not bool(estimate.reliable.any())
    assert bool(((lower <= estimate.value) & (estimate.value <= upper)).all())
    assert draws > 1 or bool((lower == -math.inf).all() and (upper == math.inf).all())


def test_weights_that_are_all_alike_are_certain_and_those_that_are_all_zero_are_not():
    weights = torch.full((100, 2), -7.0, dtype=torch.float64)
    weights[:, 1] = -math.inf
    estimate = importance.weighted(weights)
    lower, upper = estimate.interval
    assert torch.allclose(torch.stack([lower[0], upper[0], estimate.value[0]]), weights[:3, 0])
    assert float(estimate.k[0]) == 0
    assert float(lower[1]) == -math.inf
    assert float(upper[1]) == math.inf
    assert estimate.reliable.tolist() == [True, False]


def test_means_have_plain_intervals():
    estimate = importance.mean(torch.randn(400, 5))
    lower, upper = estimate.interval
    assert torch.allclose(upper - lower, 2 * 1.959964 * estimate.standard_error)
    assert estimate.k is None
    assert bool(estimate.reliable.all())


def heavy_flow():
    """A base far wider than the noise that is drawn, so that weights have heavy tails."""
    return lk.Flow(lk.Normal((2,)), lk.Chain([lk.transforms.Augment(1, lk.distributions.ChannelNoise(1, scale=0.3))]))


def test_a_flow_warns_once_a_call_and_only_of_figures():
    flow, x = heavy_flow(), torch.zeros(7, 1)
    with torch.no_grad(), pytest.warns(HeavyTailWarning, match="of 7 items have heavy tails") as found:
        flow.iw_log_prob(x, samples=200)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not bool(flow.iw_log_prob(x, samples=200, warn=False).reliable.all())
        # The objective of training, and too few draws to tell.
        assert flow.iw_log_prob(x, samples=200).value.requires_grad
        with torch.no_grad():
            flow.iw_log_prob(x, samples=10)


def test_a_warning_is_about_the_items_with_heavy_tails_alone():
    weights = pareto(0.9, 100, 8)
    weights[:, 0], weights[3, 1], weights[3, 2] = -math.inf, math.nan, math.inf
    estimate = importance.weighted(weights)
    heavy = ~estimate.reliable
    heavy[:3] = False
    largest = float(estimate.k[heavy].max())
    with pytest.warns(LikelifyWarning) as found:
        estimate.warn()
    broken, tails = (str(each.message) for each in found)
    assert "weights of 2 of 8 items are not finite" in broken
    assert f"weights of {int(heavy.sum())} of 8 items have heavy tails" in tails
    assert f"the largest is {largest:.2f})" in tails


def test_what_is_broken_or_has_no_density_has_no_heavy_tails():
    weights = log_normal(0.3, 400, 4)
    weights[:, 0] = -math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importance.weighted(weights).warn()
    weights[0, 1] = math.nan
    with pytest.warns(LikelifyWarning, match="1 of 4 items are not finite") as found:
        importance.weighted(weights).warn()
    assert [each.category for each in found] == [LikelifyWarning]


@pytest.mark.parametrize("draws", [2, 100])
def test_empty_batches_are_no_reason_for_a_warning(draws):
    nothing = torch.zeros(draws, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for estimate in (importance.weighted(nothing), importance.mean(nothing), importance.gap(nothing, 1)):
            estimate.warn()
            assert estimate.value.shape == estimate.interval[0].shape == estimate.reliable.shape == (0,)
            assert estimate.standard_error.shape == (0,)


def test_gradients_are_those_of_the_plain_mean():
    flow, x = testing.randomize(heavy_flow().double()), torch.zeros(3, 1, dtype=torch.float64)
    with lk.seeded(0):
        value = flow.iw_log_prob(x, samples=50, warn=False).value.sum()
    with lk.seeded(0):
        weights = flow._log_weights(x, lk.Context(), 50, None)
    plain = (weights.softmax(0).detach() * weights).sum()
    for one, other in zip(
        torch.autograd.grad(value, list(flow.parameters()), allow_unused=True),
        torch.autograd.grad(plain, list(flow.parameters()), allow_unused=True),
        strict=True,
    ):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other)


def test_a_single_draw_has_no_known_error():
    single = importance.weighted(torch.randn(1, 3, dtype=torch.float64))
    assert bool(single.standard_error.isnan().all())
    exact = lk.Flow(lk.Normal(2), lk.ActNorm(2)).iw_log_prob(torch.zeros(3, 2), samples=1)
    assert exact.standard_error.tolist() == [0.0] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_weights_have_an_interval_of_no_length(dtype):
    found = importance.weighted(torch.full((100, 2), -3000.0, dtype=dtype))
    low, high = found.interval
    torch.testing.assert_close(low, torch.full((2,), -3000.0, dtype=dtype))
    torch.testing.assert_close(high, torch.full((2,), -3000.0, dtype=dtype))


def test_the_error_of_a_mean_is_the_spread_over_the_root_of_the_draws():
    draws = torch.randn(50, 3, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0])
    estimate = importance.mean(draws)
    torch.testing.assert_close(estimate.value, draws.mean(0))
    torch.testing.assert_close(estimate.standard_error, draws.std(0) / 50**0.5)
