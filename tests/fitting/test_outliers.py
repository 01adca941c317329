"""The outlier score: what it is worth for values of every kind, and that units do not count."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import likelify as lk
from likelify.distributions import AutoregressiveColumns
from likelify.errors import ShapeError
from likelify.fitting.outliers import log_volume, outlier_score
from likelify.schema import ColumnSchema, LinearFunction
from likelify.transforms import MixedColumns

COLOUR = ColumnSchema.category("colour", ("blue", "red"))
COUNT = ColumnSchema(name="count", kind="integer", rest="steps", step=1.0, lower=0.0)
MONEY = ColumnSchema(name="money", states=(0.0,))
LENGTH = ColumnSchema(name="length")


def rows(count, seed=0):
    """Rows of a length, a colour, a count and an amount of money with many zeros."""
    generator = np.random.default_rng(seed)
    length, colour = generator.normal(5, 2, count), generator.random(count) < 0.2
    money = np.where(generator.random(count) < 0.4, 0.0, generator.lognormal(3, 1, count))
    return torch.tensor(np.stack([length, colour, generator.poisson(40, count), money], 1))


def independent(schema, sample):
    """Independent columns behind their marginals."""
    flow = lk.Flow(
        AutoregressiveColumns(schema, linear=False), MixedColumns(schema), event_shape=(len(schema),)
    ).double()
    flow.initialize(sample)
    return flow


@pytest.fixture(scope="module")
def mixed():
    return independent((LENGTH, COLOUR, COUNT, MONEY), rows(2000))


def scores(flow, x):
    with torch.no_grad():
        return outlier_score(flow, x)


def fitted_normal(cells, column):
    """The normal distribution of the scores of a column; of a step what is expected of a normal score inside of it."""
    cells = cells[cells[:, 0, column] == cells[:, 0, column].max()] if column == 3 else cells
    z, width = cells[:, 1, column].numpy(), cells[:, 2, column].numpy()
    mean, variance = z, np.zeros(len(z))
    if width.any():
        low, high = z - width / 2, z + width / 2
        mass = norm.cdf(high) - norm.cdf(low)
        mean = (norm.pdf(low) - norm.pdf(high)) / mass
        variance = 1 + (low * norm.pdf(low) - high * norm.pdf(high)) / mass - mean**2
    return norm(mean.mean(), math.sqrt(mean.var() + variance.mean()))


def test_real_values_count_by_their_z_and_states_by_their_probability(mixed):
    sample, x = rows(2000), rows(400, seed=1)
    (_, colour, _, money), found = x.T.numpy(), scores(mixed, x)
    fitted, cells = (mixed.transform(some)[0].double() for some in (sample, x))
    z, width = cells[:, 1].numpy(), cells[:, 2].numpy()
    lengths, counts, amounts = (fitted_normal(fitted, column) for column in (0, 2, 3))
    # Independent columns add what each is worth by itself.
    red, zeros = (float(where.double().mean()) for where in (sample[:, 1] == 1, sample[:, 3] == 0))
    state = -np.log(np.where(colour == 1, red, 1 - red))
    low, high = z[:, 2] - width[:, 2] / 2, z[:, 2] + width[:, 2] / 2
    middle = norm.ppf((norm.cdf(low) + norm.cdf(high)) / 2)
    ratio = (counts.cdf(high) - counts.cdf(low)) / (norm.cdf(high) - norm.cdf(low))
    step = -np.log(ratio) - norm.logpdf(middle)
    amount = np.where(money == 0, -np.log(zeros), -np.log(1 - zeros) - amounts.logpdf(z[:, 3]))
    assert found.dtype == torch.float64
    # But for the smoothing of probabilities by a row in two thousand.
    np.testing.assert_allclose(found, state + step + amount - lengths.logpdf(z[:, 0]), atol=0.01)


def test_a_narrow_step_is_worth_what_its_density_is():
    fine = ColumnSchema(name="fine", rest="steps", step=1e-3)
    sample = torch.randn(3000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round(decimals=3)
    as_steps, as_reals = (independent((column,), sample) for column in (fine, ColumnSchema(name="fine")))
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None].round(decimals=3)
    np.testing.assert_allclose(scores(as_steps, x), scores(as_reals, x), atol=0.03)


def test_units_and_growing_functions_of_a_column_change_nothing():
    sample, x = rows(2000)[:, :1], rows(300, seed=1)[:, :1]
    found = scores(independent((LENGTH,), sample), x)
    np.testing.assert_allclose(scores(independent((LENGTH,), 1e-6 * sample + 3e-6), 1e-6 * x + 3e-6), found, atol=1e-6)
    # Of the logarithm the marginals are not quite those of the values.
    grown = scores(independent((LENGTH,), sample.exp()), x.exp())
    assert np.corrcoef(grown, found)[0, 1] > 0.9
    # The log-likelihood ranks these rows by their units.
    flow = independent((LENGTH,), sample.exp())
    assert np.corrcoef(flow.log_prob(x.exp()), -found)[0, 1] < 0.6


def test_missing_values_count_by_how_rare_they_are():
    column = ColumnSchema(name="length", missing=True)
    sample = rows(2000)[:, :1].clone()
    sample[:20] = math.nan
    found = scores(independent((column,), sample), torch.tensor([[math.nan], [5.0]], dtype=torch.float64))
    assert found[0] == pytest.approx(-math.log(0.01), abs=0.1)
    assert found[1] == pytest.approx(0.92, abs=0.1)


def test_rows_that_cannot_be_are_infinitely_odd():
    double = ColumnSchema(name="double", rest="none", function=LinearFunction(of=("length",), factors=(2.0,)))
    length = ColumnSchema(name="length", lower=0.0, declared=True)
    sample = rows(500)[:, :1].abs() + 0.1
    flow = independent((length, double), torch.cat([sample, 2 * sample], 1))
    x = torch.tensor([[5.0, 10.0], [5.0, 11.0], [-1.0, -2.0]], dtype=torch.float64)
    found = scores(flow, x)
    assert found.isinf().tolist() == [False, True, True]
    assert (found[1:] > 0).all()


def test_conditions_do_not_count():
    given = (LENGTH.model_copy(update={"given": True}), COLOUR)
    sample = rows(2000)[:, :2]
    flow = independent(given, sample)
    x = sample[:200].clone()
    found = scores(flow, x)
    np.testing.assert_allclose(found, -flow.log_prob(x).detach(), atol=1e-9)


def test_a_likelihood_at_hand_is_not_computed_again(mixed, monkeypatch):
    x = rows(50, seed=2)
    with torch.no_grad():
        nats = mixed.log_prob(x)
        found = outlier_score(mixed, x)
        monkeypatch.setattr(type(mixed), "log_prob", lambda *_: pytest.fail("it is at hand"))
        assert torch.equal(outlier_score(mixed, x, nats), found)
        np.testing.assert_allclose(outlier_score(mixed, x, nats - 1), found + 1)


def test_a_flow_of_other_layers_is_taken_at_its_word():
    flow = lk.Flow(lk.Normal((2,)), lk.ActNorm(2))
    x = torch.randn(20, 2)
    assert torch.equal(scores(flow, x), -flow.log_prob(x).detach().double())
    with pytest.raises(ShapeError, match="among rows"):
        outlier_score(flow, torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize("high", [10**10, 10**13, 8 * 10**15])
def test_narrow_steps_count_like_the_number_in_their_middle(high):
    x = torch.tensor(np.random.default_rng(0).integers(0, high, (2000, 1)).astype(np.float64))
    flow = independent((COUNT,), x)
    with torch.no_grad():
        cells, _ = flow.transform(x)
    width = cells[:, 2, 0]
    assert float(width.max()) < 1e-3
    assert torch.allclose(log_volume(flow.transform, x), width.log(), atol=1e-6)
    # The median of a uniform column is no outlier, and its ends are two or three nats odder.
    assert -1 < float(scores(flow, x).mean() - math.log(2 * math.pi * math.e) / 2) < 1
    assert float(scores(flow, x).min()) > 0
