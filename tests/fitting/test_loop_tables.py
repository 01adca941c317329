"""Fits to tables: densities in nats."""

import math

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import table, weighted
from likelify.errors import NonFiniteError
from likelify.fitting.figures import Unit
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings
from tests.fitting.toys import trap

NATS = Unit.of("table")


def normal_rows(count=2000, correlation=0.8):
    covariance = [[1, correlation], [correlation, 1]]
    rows = np.random.default_rng(0).multivariate_normal([3, -1], covariance, count) * [5, 0.2]
    return table(rows, name="normal")


def exact_flow(dtype=torch.float32):
    """A flow that can be any normal density of two numbers."""
    layers = [lk.transforms.Columns(2), lk.ActNorm(2), lk.rotation(2), lk.ActNorm(2)]
    return lk.Flow(lk.Normal((2,)), lk.Chain(layers), event_shape=(2,)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_normal_table_is_fitted_to_its_entropy(dtype):
    source = normal_rows()
    flow = exact_flow(dtype)
    result = fit(flow, source, FitSettings(steps=200, lr=2e-2, batch_size=256, validations=2))
    test = source.read_all("test").x.double()
    train = source.read_all("train").x.double()
    best = torch.distributions.MultivariateNormal(train.mean(0), train.T.cov()).log_prob(test)
    measured = evaluate(flow, source, elbo_samples=1, iw_samples=2)
    assert measured.elbo.nats.mean == pytest.approx(float(best.mean()), abs=0.03)
    assert measured.iw.nats.mean == pytest.approx(measured.elbo.nats.mean, abs=1e-5)
    rows = result.rows(NATS)
    assert set(rows[0]) == {"step", "seconds", "train_nats", "validation_nats", "lr"}
    assert rows[-1]["validation_nats"] == pytest.approx(-result.points[-1].validation_bits * 2 * math.log(2))
    assert max(row["validation_nats"] for row in rows) == result.best.validation_nats
    assert rows[-1]["validation_nats"] > rows[0]["validation_nats"]


def test_a_large_offset_costs_no_digits():
    """A column like 1.7e9 +- 100, which float32 cannot even hold, under a float32 flow."""
    moments = np.random.default_rng(0).normal(size=(2000, 2)) * [100, 3] + [1.7e9, -5]
    source, flow = table(moments, name="moments"), exact_flow()
    fit(flow, source, FitSettings(steps=100, lr=2e-2, batch_size=256, validations=2))
    entropy = 1 + math.log(2 * math.pi) + math.log(300)
    measured = evaluate(flow, source, elbo_samples=1, iw_samples=0)
    assert measured.elbo.nats.mean == pytest.approx(-entropy, abs=0.15)
    drawn = flow.sample(4000)
    assert float((drawn[:, 0] - 1.7e9).mean()) == pytest.approx(0, abs=10)
    assert float(drawn[:, 0].std()) == pytest.approx(100, rel=0.1)


def test_a_failed_fit_of_a_table_speaks_of_nats():
    flow = exact_flow()
    flow = lk.Flow(flow.base, lk.Chain([*flow.transform, trap(60)]), event_shape=(2,))
    with pytest.raises(NonFiniteError, match=r"validation -\d\.\d+ nats"):
        fit(flow, normal_rows(200), FitSettings(steps=200, batch_size=20))


def test_a_weighted_fit_finds_the_weighted_distribution():
    """Rows of two clouds; weights make the second count nine times as much."""
    rows = np.random.default_rng(0).normal(size=(2000, 2)) + np.repeat([[0.0], [4.0]], 1000, 0)
    source = table(rows)
    parts = {split: source.read_all(split).x.numpy() for split in ("train", "validation")}
    weights = {split: np.where(part.sum(1) < 4, 0.1, 0.9) for split, part in parts.items()}
    flow = exact_flow(torch.float64)
    result = fit(flow, weighted(source, **weights), FitSettings(steps=300, lr=2e-2, batch_size=256, validations=2))
    train, held_out = (torch.from_numpy(parts[split]) for split in parts)
    count = torch.from_numpy(weights["train"])
    mean = (train * count[:, None]).sum(0) / count.sum()
    best = torch.distributions.MultivariateNormal(mean, train.T.cov(aweights=count, correction=0))
    with torch.no_grad():
        gap = best.log_prob(held_out) - flow.log_prob(held_out)
        mine = float((flow.log_prob(held_out) * torch.from_numpy(weights["validation"])).sum())
    assert float(gap.abs().mean()) < 0.03
    assert result.best.validation_nats == pytest.approx(mine / weights["validation"].sum())
    assert float(flow.transform.transforms[0].mean[0]) == pytest.approx(float(mean[0]), abs=0.02)
