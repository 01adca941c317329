from itertools import product

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import multivariate_normal

from likelify.errors import DataError
from likelify.fitting.report import baselines as baselines_module
from likelify.fitting.report import baselines as module
from likelify.fitting.report.baselines import Split, baselines, counted_mixture, gaussian, independent, mixture


def grid(low, high, points, columns):
    line = np.linspace(low, high, points + 1)
    middle = (line[1:] + line[:-1]) / 2
    return np.array(list(product(middle, repeat=columns))), (line[1] - line[0]) ** columns


def integers(levels=5, elements=2, count=300):
    """Neighbours that agree more often than not, one value that never occurs."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, levels - 1, size=(count, elements)).astype(float)
    x[:, 1:] = np.where(rng.random((count, elements - 1)) < 0.6, x[:, :1], x[:, 1:])
    return x


def everything(levels, elements):
    return np.array(list(product(range(levels), repeat=elements)), dtype=float)


@pytest.mark.parametrize("cells", [10**6, 1], ids=["counted", "normal in cells"])
def test_densities_of_integers_are_probabilities_or_below(cells, monkeypatch):
    monkeypatch.setattr(module, "MOST_CELLS", cells)
    x = integers()
    split = Split(x[:200], x[200:], everything(5, 2), levels=5)
    totals = {make.__name__: np.exp(make(split).nats).sum() for make in (independent, gaussian, mixture)}
    assert totals["independent"] == pytest.approx(1, abs=1e-9)
    assert 0.3 < totals["gaussian"] <= 1
    assert 0.3 < totals["mixture"] <= 1
    if cells > 1:
        assert np.exp(counted_mixture(split).nats).sum() == pytest.approx(1, abs=1e-9)


def test_densities_of_real_numbers_integrate_to_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.8], [0.0, 0.5]]) + 3
    points, cell = grid(-5, 11, 160, 2)
    for make in (independent, gaussian, mixture):
        found = make(Split(x[:300], x[300:], points, levels=None))
        assert np.exp(found.nats).sum() * cell == pytest.approx(1, abs=0.02), make.__name__
        # In other units the density is another: that of the units.
        scaled = make(Split(7 * x[:300], 7 * x[300:], 7 * points, levels=None))
        assert scaled.nats == pytest.approx(found.nats - 2 * np.log(7), abs=1e-6)


def test_the_bound_of_a_gaussian_lies_below_the_mass_of_the_cell():
    x = integers(levels=9, elements=1)
    found = gaussian(Split(x[:200], x[200:], everything(9, 1), levels=9))
    mean, scale = x[:200].mean(), np.sqrt(x[:200].var() + 1 / 12)
    values = everything(9, 1)[:, 0]
    mass = np.log(ndtr((values + 0.5 - mean) / scale) - ndtr((values - 0.5 - mean) / scale))
    assert (found.nats < mass).all()
    assert found.nats == pytest.approx(mass, abs=0.05)


@pytest.mark.parametrize("items", [200, 8], ids=["more items than elements", "more elements than items"])
def test_a_gaussian_has_the_shrunken_covariance(items, monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(items + 60, 12)) @ rng.normal(size=(12, 12))
    train, held = x[:items], x[items:]
    monkeypatch.setattr(module, "SHRINKAGE", (0.3,))
    found = gaussian(Split(train, held, held, levels=None))
    scale = train.std(0)
    inner = np.cov(train / scale, rowvar=False, bias=True)
    covariance = 0.7 * inner + 0.3 * np.trace(inner) / 12 * np.eye(12)
    expected = multivariate_normal(train.mean(0) / scale, covariance).logpdf(held / scale) - np.log(scale).sum()
    assert found.nats == pytest.approx(expected, abs=1e-8)


def test_what_belongs_together_is_found_by_those_that_can():
    x = integers(elements=4, count=900)
    found = {each.name: each.nats.mean() for each in baselines(Split(x[:600], x[600:700], x[700:], levels=5))}
    assert list(found) == ["independent elements", "one Gaussian", "Gaussian mixture", "groups of items"]
    assert found["groups of items"] > found["independent elements"] + 0.3
    rng = np.random.default_rng(0)
    two = rng.normal(size=(900, 3)) + 8 * rng.integers(0, 2, size=(900, 1))
    found = {each.name: each.nats.mean() for each in baselines(Split(two[:600], two[600:700], two[700:], levels=None))}
    assert found["Gaussian mixture"] > found["one Gaussian"] + 0.5
    exact = -0.5 * 3 * np.log(2 * np.pi * np.e) - np.log(2)
    assert found["Gaussian mixture"] == pytest.approx(exact, abs=0.25)


def test_rounded_values_are_not_described_finer_than_they_are():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=(3000, 1)), 1)
    found = independent(Split(x[:2000], x[2000:2500], x[2500:], levels=None))
    assert found.nats.mean() == pytest.approx(-0.5 * np.log(2 * np.pi * np.e), abs=0.1)


def test_with_labels_each_item_is_measured_by_the_density_of_its_class():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 2)) + 20 * labels[:, None]
    parts = (slice(0, 300), slice(300, 340), slice(340, 400))
    split = Split(*(x[part] for part in parts), levels=None, labels=tuple(labels[part] for part in parts))
    told, alone = baselines(split)[1], gaussian(Split(*(x[part] for part in parts), levels=None))
    assert told.what.startswith("For each class: ")
    one = labels[parts[2]] == 1
    own = [x[part][labels[part] == 1] for part in parts]
    assert told.nats[one] == pytest.approx(gaussian(Split(*own, levels=None)).nats)
    assert told.nats.mean() > alone.nats.mean() + 1


def test_what_cannot_be_fitted_says_so():
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[:, 1] = 2.0
    with pytest.raises(DataError, match="one value in all training items"):
        baselines(Split(x[:20], x[20:30], x[30:], levels=None))
    few = np.random.default_rng(0).normal(size=(14, 3))
    found = baselines(Split(few[:10], few[10:12], few[12:], levels=None))
    assert len(found[1].nats) == 2
    assert not len(found[2].nats)
    assert found[2].what == "Left out: 10 training items are too few for it."
    wide = np.random.default_rng(0).normal(size=(60, 200_000))
    with pytest.raises(DataError, match="200,000 elements in an item it would take long"):
        mixture(Split(wide[:50], wide[50:55], wide[55:], levels=None))


def test_a_mixture_without_a_finite_likelihood_says_so(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(300, 2))
    split = Split(rows[:200], rows[200:250], rows[250:], levels=None)
    monkeypatch.setattr(baselines_module, "_mixture_nats", lambda x, *rest: np.full(len(x), np.nan))
    found = {each.name: each for each in baselines(split)}
    assert "not a finite number" in found["Gaussian mixture"].what
    assert len(found["Gaussian mixture"].nats) == 0
    assert len(found["one Gaussian"].nats) == 50
