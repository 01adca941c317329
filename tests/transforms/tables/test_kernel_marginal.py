import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify.errors import ConfigError, DataError, DomainError, ShapeError, StateError
from likelify.support import rows_outside_allowed
from likelify.transforms import KernelMarginal
from likelify.transforms.tables.kernel_marginal import NARROWEST


def draws(name, count, seed=0):
    u = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return {
        "normal": lambda: torch.special.ndtri(u),
        "cauchy": lambda: 3 + 2 * (math.pi * (u - 0.5)).tan(),
        "beta": lambda: (math.pi / 2 * u).sin().square(),
        "exponential": lambda: -u.log(),
    }[name]()


def fitted(x, **settings):
    layer = KernelMarginal(x.shape[1], **settings)
    layer.initialize(x)
    return layer.double()


def log_prob(layer, x):
    with torch.no_grad():
        return lk.Flow(lk.Normal((layer.columns,)).double(), layer).log_prob(x)


@pytest.mark.parametrize(
    ("name", "ranges", "entropy", "off"),
    [
        ("normal", {}, 0.5 * math.log(2 * math.pi * math.e), 0.01),
        ("cauchy", {}, math.log(8 * math.pi), 0.02),
        ("beta", {"lower": 0.0, "upper": 1.0}, math.log(math.pi / 4), 0.02),
        ("beta", {"lower": 0.0, "upper": 1.0, "declared": False}, math.log(math.pi / 4), 0.02),
        ("exponential", {"lower": 0.0}, 1.0, 0.01),
    ],
)
def test_the_density_of_new_rows_comes_near_the_truth(name, ranges, entropy, off):
    layer = fitted(draws(name, 20_000), **ranges)
    new = draws(name, 20_000, seed=1)
    found = log_prob(layer, new)
    error = float(found.std()) / len(new) ** 0.5
    assert -entropy - off - 4 * error < float(found.mean()) < -entropy + 4 * error


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("deviation", [3.0, 5.0])
def test_values_that_span_many_decades_above_an_end_have_the_density_of_their_logarithm(deviation, declared, side):
    ends = {"lower": 0.0} if side > 0 else {"upper": 0.0}
    sample, new = (side * (deviation * draws("normal", 2000, seed)).exp() for seed in (0, 1))
    layer = fitted(sample, declared=declared, **ends)
    truth = torch.distributions.LogNormal(torch.zeros((), dtype=torch.float64), deviation).log_prob(side * new)[:, 0]
    assert float((truth - log_prob(layer, new)).mean()) < 0.02
    z = draws("normal", 2000, seed=2)
    drawn, _ = layer.inverse(z)
    bulk = z.abs() < 2
    torch.testing.assert_close((side * drawn).log()[bulk], deviation * side * z[bulk], atol=0.3 * deviation, rtol=0)
    torch.testing.assert_close(layer(drawn)[0][bulk], z[bulk], atol=1e-9, rtol=0)


def test_an_infinite_density_at_an_end_that_is_not_zero_keeps_its_digits():
    # A gamma distribution of shape 0.3: the lowest hundredth lies within 1e-7 of the end.
    numbers = np.random.default_rng(0)
    sample, new = (7.0 + torch.from_numpy(numbers.gamma(0.3, size=(3000, 1))) for _ in range(2))
    truth = torch.distributions.Gamma(torch.full((), 0.3, dtype=torch.float64), 1.0).log_prob(new - 7.0)
    assert float((truth[:, 0] - log_prob(fitted(sample, lower=7.0), new)).mean()) < 0.03


def test_scores_of_all_that_a_double_can_hold_are_finite():
    x = torch.tensor(
        [[-1.7e308], [-1e300], [-1e100], [0.0], [1e-300], [1e100], [1e300], [1.7e308]], dtype=torch.float64
    )
    for sample in (draws("normal", 500), 1e-300 * draws("normal", 500), 1e290 * draws("cauchy", 500)):
        layer = fitted(sample)
        z, contribution = layer(x)
        assert z.isfinite().all()
        assert contribution.isfinite().all()
        assert (z.diff(dim=0) >= 0).all()
        assert float(z.abs().max()) < 10
        back, _ = layer.inverse(torch.linspace(-40, 40, 81, dtype=torch.float64)[:, None])
        assert back.isfinite().all()
        assert (back.diff(dim=0) >= 0).all()


@pytest.mark.parametrize(
    "ranges", [{}, {"lower": -4.0}, {"upper": 4.0, "declared": False}, {"lower": -4.0, "upper": 5.0}]
)
def test_the_total_mass_is_one(ranges):
    layer = fitted(draws("normal", 300).clamp(-3.9, 3.9), cells=101, **ranges)
    # The squashed scale makes heavy tails short; its cells, and more beyond them.
    center, unit = float(layer.center), float(layer.unit)
    low, high = layer.ends[0]
    edges = torch.linspace(float(low), float(high), 101 * 8 + 1, dtype=torch.float64)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges.diff()
    far = torch.logspace(-6, 2, 200_001, dtype=torch.float64)
    parts = [(middle, width)]
    if -math.inf == float(layer.lower):
        parts.append((float(low) - (far[1:] + far[:-1]) / 2, far.diff()))
    if float(layer.upper) == math.inf or not layer.hard:
        parts.append((float(high) + (far[1:] + far[:-1]) / 2, far.diff()))
    mass = 0.0
    for a, size in parts:
        density = log_prob(layer, (center + unit * a.sinh())[:, None])
        mass += float(((density + math.log(unit) + a.cosh().log()).exp() * size).sum())
    assert mass == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("ranges", [{}, {"lower": 0.0}, {"lower": 0.0, "declared": False}])
def test_other_units_change_the_density_by_their_jacobian(ranges):
    x, new = draws("exponential", 2000), draws("exponential", 200, seed=1)
    x[::7] = (x[::7] * 8).round() / 8
    before = log_prob(fitted(x, **ranges), new)
    for factor, shift in ((1e-9, 0.0), (1.8, 32.0), (1e12, -3e12)):
        moved = {name: factor * end + shift if name == "lower" else end for name, end in ranges.items()}
        after = log_prob(fitted(factor * x + shift, **moved), factor * new + shift)
        torch.testing.assert_close(after + math.log(factor), before, rtol=0, atol=1e-9)


def test_outside_of_a_declared_range_there_is_nothing():
    x = draws("exponential", 1000)
    layer = fitted(x, lower=0.0, upper=[50.0])
    rows = torch.tensor([[-1e-12], [51.0], [math.inf], [0.0], [50.0], [1.0]], dtype=torch.float64)
    with pytest.raises(DomainError, match="3 of 6 input values lie outside the ranges"):
        layer(rows)
    found = log_prob(layer, rows)
    assert (found[:3] == -math.inf).all()
    assert found[3:].isfinite().all()
    with rows_outside_allowed():
        assert layer(rows)[0].isfinite().all()
    z = torch.cat([torch.linspace(-50, 50, 1001), torch.randn(1000)]).double()[:, None]
    back, _ = layer.inverse(z)
    assert float(back.min()) > 0
    assert float(back.max()) < 50
    assert str(layer.domain) == "[0, 50]"


def test_outside_of_a_range_that_was_found_there_is_less_than_half_a_row():
    x = draws("beta", 400)
    layer = fitted(x, lower=0.0, upper=1.0, declared=False)
    outside = torch.tensor([[-1e9], [-1e-3], [1.01], [1e300]], dtype=torch.float64)
    assert log_prob(layer, outside).isfinite().all()
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z, _ = layer(ends)
    beyond = torch.special.ndtr(z[0]) + torch.special.ndtr(-z[1])
    assert 0 < float(beyond) < 0.5 / 400 + 1e-12
    back, _ = layer.inverse(torch.tensor([[-9.0], [9.0]], dtype=torch.float64))
    assert 0 < float(back[0]) < 1e-9
    assert 1 - 1e-9 < float(back[1]) < 1


def test_missing_values_are_left_out_column_by_column():
    x = torch.cat([draws("normal", 400), draws("cauchy", 400)], 1)
    some = x.clone()
    some[:100, 0] = math.nan
    together, alone = fitted(some), fitted(x[100:, :1])
    torch.testing.assert_close(together.mass[0], alone.mass[0])
    torch.testing.assert_close(together.mass[1], fitted(x[:, 1:]).mass[0])
    z, _ = together(some)
    assert torch.equal(z.isnan(), some.isnan())
    nothing = fitted(torch.full((3, 1), math.nan, dtype=torch.float64))
    assert nothing(torch.tensor([[-5.0], [0.0], [5.0]], dtype=torch.float64))[1].isfinite().all()


def test_draws_follow_the_density_of_the_data():
    x = torch.cat([draws("normal", 4000), draws("cauchy", 4000), draws("exponential", 4000)], 1)
    layer = fitted(x, lower=[None, None, 0.0])
    with lk.seeded(0), torch.no_grad():
        drawn = lk.Flow(lk.Normal((3,)).double(), layer).sample(4000)
    for column in range(3):
        both = torch.cat([x[:, column], drawn[:, column]]).argsort()
        steps = torch.where(both < 4000, 1.0, -1.0).cumsum(0) / 4000
        # Kolmogorov and Smirnov: the critical value of one in ten thousand.
        assert float(steps.abs().max()) < 2.23 * math.sqrt(2 / 4000)


def test_rounded_values_do_not_become_spikes():
    x, new = draws("normal", 3000), draws("normal", 3000, seed=1)
    smooth = log_prob(fitted(x), new).mean()
    rounded = log_prob(fitted((5 * x).round() / 5), new).mean()
    assert abs(float(rounded - smooth)) < 0.02
    # What is met far too often for a density is.
    x[:1000] = 0.123456
    assert float(log_prob(fitted(x), torch.tensor([[0.123456]], dtype=torch.float64))) > 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_fitted_is_kept(dtype):
    layer = fitted(draws("exponential", 300), lower=0.0).to(dtype)
    x = draws("exponential", 50, seed=1)
    z, contribution = layer(x)
    assert z.dtype == contribution.dtype == dtype
    assert layer.mass.dtype == layer.below.dtype == torch.float64
    assert layer.inverse(z)[0].dtype == torch.float64
    other = KernelMarginal(1, lower=0.0).to(dtype)
    other.load_state_dict(layer.state_dict())
    for each in (other, copy.deepcopy(layer)):
        assert torch.equal(each(x)[0], z)
        assert torch.equal(each.inverse(z)[0], layer.inverse(z)[0])
    assert "near" not in layer.state_dict()
    broken = layer.state_dict()
    broken["mass"] = broken["mass"] * 0
    with pytest.raises(StateError, match="'mass' of KernelMarginal must be finite and positive"):
        other.load_state_dict(broken)


def test_what_is_refused():
    with pytest.raises(ConfigError, match="lower < upper, .* column 1"):
        KernelMarginal(2, lower=[None, 3.0], upper=3.0)
    with pytest.raises(ConfigError, match="lower < upper, .* column 0"):
        KernelMarginal(2, lower=math.nan)
    with pytest.raises(ShapeError, match="2 columns, and upper is of shape"):
        KernelMarginal(2, upper=[1.0, 2.0, 3.0])
    layer = KernelMarginal(2, upper=[1.0, None])
    with pytest.raises(DataError, match="empty sample"):
        layer.initialize(torch.empty(0, 2))
    for row in ([2.0, 0.0], [0.0, math.inf]):
        with pytest.raises(DataError, match="Column . .from 0. of the sample has the value"):
            layer.initialize(torch.tensor([[0.0, 1.0], row]))


HOSTILE = st.one_of(
    st.floats(-1e300, 1e300),
    st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, -1e300, 5e-324, 1.0 + 2**-52, 1.7e9, math.nan]),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(HOSTILE, min_size=1, max_size=12), st.lists(HOSTILE, min_size=1, max_size=4), st.booleans())
def test_no_column_is_too_odd(values, new, declared):
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    known = x[~x.isnan()]
    ends = [float(known.min()), float(known.max())] if len(known) else [0.0, 0.0]
    ranges = {"lower": ends[0], "upper": ends[1]} if ends[1] - ends[0] > NARROWEST else {}
    layer = fitted(x, cells=101, declared=declared, **ranges)
    rows = torch.cat([x, torch.tensor(new, dtype=torch.float64)[:, None]])
    with rows_outside_allowed():
        z, contribution = layer(rows)
    inside = layer.inside(rows)[:, 0] & ~rows[:, 0].isnan()
    assert z[inside].isfinite().all()
    assert contribution[inside].isfinite().all()
    assert (contribution[~layer.inside(rows)[:, 0]] == -math.inf).all()
    back, _ = layer.inverse(torch.linspace(-9, 9, 19, dtype=torch.float64)[:, None])
    assert back.isfinite().all()
    assert (back.diff(dim=0) >= -1e-12 * layer.unit).all()


def test_rounded_numbers_with_a_large_offset_have_the_density_that_they_have_without():
    with lk.seeded(3):
        x = (torch.randn(2000, 1, dtype=torch.float64) * 8).round() / 8
    found = []
    for offset in (0.0, 1e14, -3e14):
        layer = KernelMarginal(1)
        layer.initialize(x + offset)
        found.append(layer.scores(x + offset))
    for z, log_slope in found[1:]:
        # The cells are about a centre that is rounded as numbers of that size are.
        assert torch.allclose(z, found[0][0], atol=1e-3)
        assert torch.allclose(log_slope, found[0][1], atol=0.05)


def test_a_state_that_is_no_density_is_refused():
    layer = lk.transforms.KernelMarginal(1)
    state = layer.state_dict()
    for name, wrong in (("mass", state["mass"] / 2), ("ends", state["ends"].flip(1))):
        with pytest.raises(StateError, match="must sum to one, and its ends must rise"):
            layer.load_state_dict(state | {name: wrong})
