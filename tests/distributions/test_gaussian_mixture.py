"""Mixtures of normal vectors and heavy tails, against scikit-learn and scipy."""

import math
import sys

import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture as Reference

import likelify as lk
from likelify.distributions import GaussianMixture, StudentT
from likelify.distributions.student import student_log_prob
from likelify.errors import ConfigError, DomainError, MissingDependencyError, ShapeError


def clusters(rows=600, dtype=torch.float64):
    centre = 6 * torch.randint(3, (rows, 1)).to(dtype)
    return (torch.randn(rows, 2, dtype=dtype) @ torch.tensor([[1.0, 0.7], [0.0, 0.4]], dtype=dtype) + centre) * 100


def test_it_is_the_mixture_of_scikit_learn():
    x = clusters()
    mixture = GaussianMixture(2, 6).double()
    mixture.initialize(x)
    assert int((mixture.log_weights > -math.inf).sum()) == 3
    scaled = (x / 100).numpy()
    reference = Reference(3, random_state=0, tol=1e-3, max_iter=60).fit(scaled)
    exact = torch.as_tensor(reference.score_samples(scaled)) - 2 * math.log(100)
    assert torch.allclose(mixture.log_prob(x), exact, atol=1e-2)
    # Loaded into a fresh one, whose numbers of components are the same.
    fresh = GaussianMixture(2, 6).double()
    fresh.load_state_dict(mixture.state_dict())
    assert torch.equal(fresh.log_prob(x), mixture.log_prob(x))
    with torch.no_grad():
        assert torch.allclose(mixture.log_prob(x.repeat(5, 1)), mixture.log_prob(x).repeat(5))


def test_draws_follow_the_mixture():
    x = clusters(2000)
    mixture = GaussianMixture(2, 6).double()
    mixture.initialize(x)
    drawn, log_prob = mixture.sample_and_log_prob((2, 4000))
    assert torch.equal(log_prob[1], mixture.log_prob(drawn[1]))
    assert abs(float(log_prob.mean() - mixture.log_prob(x).mean())) < 0.05
    near = drawn.flatten(0, 1)[(drawn.flatten(0, 1)[:, 1]) < 300] / 100
    real = x[x[:, 1] < 300] / 100
    assert torch.allclose(near.T.cov(), real.T.cov(), atol=0.1)
    grid = torch.linspace(-600, 1900, 501, dtype=torch.float64)
    density = mixture.log_prob(torch.cartesian_prod(grid, grid)).exp().sum() * (grid[1] - grid[0]) ** 2
    assert abs(float(density) - 1) < 1e-3


def test_trained_by_gradients_or_not():
    assert not list(GaussianMixture(2).parameters())
    mixture = GaussianMixture(2, 3, trainable=True).double()
    mixture.initialize(clusters())
    x = clusters(4) / 100
    assert torch.autograd.gradcheck(lambda *_: mixture.log_prob(x), list(mixture.parameters()))
    assert mixture.log_prob(x).isfinite().all()


def test_gaussian_mixture_refusals(monkeypatch):
    with pytest.raises(DomainError, match="not finite"):
        GaussianMixture(2).initialize(torch.tensor([[1.0, torch.nan], [0.0, 0.0]]))
    GaussianMixture(2).initialize(torch.zeros(5, 2))
    monkeypatch.setitem(sys.modules, "sklearn.mixture", None)
    with pytest.raises(MissingDependencyError, match=r"likelify\[app\]"):
        GaussianMixture(2).initialize(torch.randn(9, 2))


def test_student_t_against_scipy():
    base = StudentT(3, df=2.5).double()
    with torch.no_grad():
        base.loc.copy_(torch.tensor([0.0, 1.0, -2.0]))
        base.log_scale.copy_(torch.tensor([0.0, 1.0, -1.0]))
    x = 10 * torch.randn(50, 3, dtype=torch.float64)
    exact = stats.t(2.5, base.loc.detach().numpy(), base.log_scale.detach().exp().numpy())
    assert torch.allclose(base.log_prob(x).detach(), torch.as_tensor(exact.logpdf(x.numpy()).sum(1)))
    drawn = base.sample((20_000,))
    assert all(
        stats.kstest(drawn[:, i].numpy(), stats.t(2.5, *pair).cdf).pvalue > 1e-3
        for i, pair in enumerate([(0.0, 1.0), (1.0, math.e), (-2.0, 1 / math.e)])
    )
    assert torch.autograd.gradcheck(lambda *_: base.log_prob(x[:3]), list(base.parameters()))
    huge = torch.tensor([[1e30, -1e25, 0.0]], requires_grad=True)
    value = base.float().log_prob(huge)
    assert value.isfinite()
    assert torch.autograd.grad(value, huge)[0].isfinite().all()
    drawn, log_prob = base.sample_and_log_prob((5,))
    assert torch.autograd.grad(log_prob.sum(), base.log_df)[0].isfinite().all()


def test_student_t_finds_heavy_tails():
    with lk.seeded(4):
        x = torch.distributions.Cauchy(3.0, 2.0).sample((4000, 2))
        new = torch.distributions.Cauchy(3.0, 2.0).sample((20_000, 2))
    base = StudentT(2)
    base.initialize(x)
    entropy = 2 * math.log(4 * math.pi * 2)
    assert abs(-float(base.log_prob(new).mean().detach()) - entropy) < 0.05
    assert torch.allclose(base.log_df.detach().exp(), torch.ones(2), atol=0.1)
    normal = StudentT(1)
    normal.initialize(torch.randn(2000, 1))
    assert float(normal.log_df.detach().exp()) > 20
    fixed = StudentT(2, df=1.0, trainable=False)
    fixed.initialize(x)
    assert not list(fixed.parameters())
    assert float(fixed.loc.abs().max()) == 0
    StudentT(1).initialize(torch.ones(10, 1))
    with pytest.raises(ConfigError, match="positive"):
        StudentT(2, df=0.0)


def test_student_t_finds_the_same_in_all_units():
    with lk.seeded(5):
        x = torch.distributions.StudentT(1.5, 40.0, 3.0).sample((3000, 1)).double()
    units = 10.0 ** torch.arange(-12, 13, 3, dtype=torch.float64)
    alone = StudentT(1).double()
    alone.initialize(x)
    assert abs(float(alone.log_df.detach().exp()) - 1.5) < 0.15
    together = StudentT(len(units)).double()
    together.initialize(x * units)
    assert torch.allclose(together.log_df, alone.log_df, atol=1e-4)
    assert torch.allclose(together.loc / units, alone.loc, rtol=1e-5)
    for unit in units:
        base = StudentT(1).double()
        base.initialize(x * unit)
        nats = base.log_prob(x * unit).mean() + unit.log()
        assert torch.allclose(nats, alone.log_prob(x).mean(), atol=1e-6)


def test_student_t_of_a_value_that_is_met_often_has_a_scale():
    with lk.seeded(6):
        x = torch.where(torch.rand(500, 1) < 0.8, 3.0, torch.randn(500, 1))
    for unit in (1e-9, 1.0, 1e9):
        base = StudentT(1)
        base.initialize(x * unit)
        assert base.log_prob(x * unit).isfinite().all()


def test_the_nodes_of_a_graph_are_one_item():
    base = GaussianMixture(2, components=3, trainable=True).double()
    with torch.no_grad():
        base.means.normal_()
    x, graphs = torch.randn(5, 2, dtype=torch.float64), lk.GraphBatch.complete([2, 3])
    each = base.log_prob(x)
    together = torch.stack([each[:2].sum(), each[2:].sum()])
    torch.testing.assert_close(base.log_prob(x, lk.Context(structure=graphs)), together)
    drawn, log_prob = base.sample_and_log_prob(4, lk.Context(structure=graphs))
    assert (drawn.shape, log_prob.shape) == ((4, 5, 2), (4, 2))
    torch.testing.assert_close(log_prob[1], base.log_prob(drawn[1], lk.Context(structure=graphs)))
    assert lk.Flow(base, lk.ActNorm(2)).double().log_prob(x, lk.Context(structure=graphs)).shape == (2,)


def test_half_precision_costs_these_densities_nothing():
    base = GaussianMixture(3, components=2, trainable=True)
    with torch.no_grad():
        base.log_diagonals.fill_(4.0)
        base.factors.normal_(std=10.0)
    x = 0.02 * torch.randn(50, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = base.log_prob(x)
    torch.testing.assert_close(half, base.log_prob(x), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("df", [3.0, 29.9, 30.1, 1e3, 1e5, 1e8])
def test_many_degrees_of_freedom_lose_no_digits(df):
    base = StudentT(1, df=df)
    base.log_prob(torch.full((1, 1), 0.5)).sum().backward()
    wide = torch.tensor(math.log(df), dtype=torch.float64, requires_grad=True)
    value = student_log_prob(torch.tensor(0.5, dtype=torch.float64), torch.zeros(()), torch.zeros(()), wide)
    value.backward()
    assert float(value.detach()) == pytest.approx(stats.t(df).logpdf(0.5), abs=1e-10)
    assert float(base.log_prob(torch.full((1, 1), 0.5)).detach()) == pytest.approx(stats.t(df).logpdf(0.5), abs=3e-6)
    assert float(base.log_df.grad) == pytest.approx(float(wide.grad), abs=2e-5)


def test_the_constant_of_student_is_smooth_where_its_forms_meet():
    log_df = torch.tensor(math.log(30.0) + 1e-6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: student_log_prob(torch.zeros(1).double(), 0 * t, 0 * t, t), (log_df,))


@pytest.mark.parametrize(
    ("sample", "message"), [(torch.tensor([[1.0], [math.nan]]), "not finite"), (torch.zeros(0, 1), "empty")]
)
def test_student_refuses_a_sample_that_says_nothing(sample, message):
    with pytest.raises((DomainError, ShapeError), match=message):
        StudentT(1).initialize(sample)
