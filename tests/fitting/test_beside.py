"""Simple densities of a table beside a model of it."""

import shutil
import sys

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import likelify as lk
from likelify.data import table
from likelify.fitting import beside as module
from likelify.fitting.beside import simple_densities
from likelify.fitting.choose import choose
from likelify.fitting.evaluating import evaluation_file
from likelify.fitting.loop import fit
from likelify.fitting.report.blocks import Section, Table
from likelify.fitting.report.material import Material
from likelify.fitting.report.sections import standing as standing_module
from likelify.fitting.run import Run
from likelify.fitting.settings import RunConfig
from likelify.schema import ColumnSchema, real_columns

MIXED = (ColumnSchema.category("colour", ("red", "blue")), ColumnSchema(name="size", missing=True))


def normal_rows(count):
    covariance = [[1.0, 0.9], [0.9, 1.0]]
    return np.random.default_rng(0).multivariate_normal([3, -1], covariance, count) * [100, 0.01], covariance


def mixed_rows(count):
    rng = np.random.default_rng(0)
    colour = rng.integers(2, size=count).astype(float)
    size = 10 * colour + rng.normal(size=count)
    return np.stack([colour, np.where(rng.random(count) < 0.1, np.nan, size)], 1)


def means(found):
    return {each.name: each.nats.mean() for each in found}


def test_a_gaussian_is_found_and_is_in_the_units_of_the_rows():
    rows, covariance = normal_rows(3000)
    found = means(simple_densities(real_columns(2), rows[:2000], rows[2000:2400], rows[2400:]))
    held = rows[2400:] / [100, 0.01]
    best = multivariate_normal([3, -1], covariance).logpdf(held).mean()
    assert found["Gaussian copula"] == pytest.approx(best, abs=0.1)
    assert found["Gaussian mixture"] == pytest.approx(best, abs=0.15)
    assert found["independent columns"] == pytest.approx(best - 0.83, abs=0.15)


def test_columns_of_every_kind_have_groups_of_rows():
    rows = mixed_rows(1500)
    found = means(simple_densities(MIXED, rows[:1000], rows[1000:1200], rows[1200:]))
    assert list(found) == ["independent columns", "Gaussian copula", "groups of rows"]
    # Groups know which size goes with which colour: the logarithm of two where the size is there.
    assert found["groups of rows"] > found["independent columns"] + 0.4
    never = np.array([[np.nan, np.nan], [0.0, 1e6]])
    for each in simple_densities(MIXED, rows[:1000], rows[1000:1200], never):
        assert np.isfinite(each.nats).all(), each.name


def test_each_class_has_densities_of_its_own():
    rows, _ = normal_rows(1000)
    labels = np.arange(1000) % 2
    rows[labels == 1] += [1e4, 0]
    parts, told = (rows[:600], rows[600:800], rows[800:]), (labels[:600], labels[600:800], labels[800:])
    apart = simple_densities(real_columns(2), *parts, told)
    assert apart[0].what.startswith("For each class: ")
    assert means(apart)["independent columns"] > means(simple_densities(real_columns(2), *parts))["independent columns"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    source = table(normal_rows(400)[0], name="normal")
    small = {"members": ("autoregressive",), "width": 8, "components": 2, "normals": 2}
    chosen = choose(source.facts(), settings=small, fit_settings={"steps": 4, "validations": 2})
    run = Run.create(tmp_path_factory.mktemp("beside") / "run", RunConfig(data=source.facts(), **chosen.configured()))
    with lk.seeded(0):
        fit(chosen.model.build(), source, run=run)
    return run, source


def test_a_run_is_measured_beside_them_row_by_row(run):
    run, source = run
    measured = run.evaluate(source)
    assert [simple.name for simple in measured.beside] == ["independent columns", "Gaussian copula", "Gaussian mixture"]
    assert run.evaluation() == measured
    assert measured.exact
    assert (measured.elbo.samples, measured.iw) == (1, None)
    for simple in measured.beside:
        assert simple.gain.mean == pytest.approx(measured.elbo.nats.mean - simple.nats.mean, abs=1e-4)
    copula = measured.beside[1]
    # The differences vary far less than the likelihoods.
    assert copula.gain.standard_error < 0.3 * copula.nats.standard_error


def test_large_splits_are_compared_on_some_rows(run, monkeypatch):
    run, source = run
    monkeypatch.setattr(module, "HELD", 11)
    assert {simple.gain.count for simple in module.beside(run, run.flow(), source)[0]} == {11}
    assert run.evaluate(source, limit=5).beside == ()
    assert run.evaluate(source.read_all("test").x, keep=False).beside == ()


def test_a_density_that_cannot_be_fitted_is_left_out_with_the_reason(monkeypatch):
    rows = mixed_rows(300)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    found = simple_densities(MIXED, rows[:200], rows[200:250], rows[250:])
    assert [len(each.nats) for each in found] == [50, 50, 0]
    assert found[2].what.startswith("Left out: This needs the package 'scikit-learn'")

    def singular(*_):
        raise torch.linalg.LinAlgError("not positive-definite")

    monkeypatch.setattr(torch.linalg, "cholesky", singular)
    found = simple_densities(MIXED, rows[:200], rows[200:250], rows[250:])
    assert [len(each.nats) for each in found] == [50, 0, 0]
    assert found[1].what == "Left out: not positive-definite"


def test_they_are_fitted_once_for_the_weights_of_a_run(run, tmp_path, monkeypatch):
    run, source = run
    copied = Run.load(shutil.copytree(run.path, tmp_path / "run"))
    evaluation_file(copied.path, "test").unlink(missing_ok=True)
    calls = []
    real = module.simple_densities
    monkeypatch.setattr(module, "simple_densities", lambda *given: calls.append(1) or real(*given))
    monkeypatch.setattr(standing_module, "simple_densities", module.simple_densities)
    assert copied.evaluate(source, keep=False).beside == ()
    assert not calls
    measured = copied.evaluate(source)
    assert copied.evaluate(source, keep=False).beside == copied.evaluate(source).beside == measured.beside
    assert len(calls) == 1
    # The report shows these very figures.
    section = Section("standing", "Held-out")
    standing_module.standing(Material(copied, source), section)
    assert len(calls) == 1
    rows = next(block for block in section.blocks if isinstance(block, Table)).rows
    shown = {simple.name: standing_module.show(simple.nats, 3) for simple in measured.beside}
    assert {row[0]: row[1] for row in rows[1:]} == shown
    assert rows[0][1] == standing_module.show(measured.beside[0].model, 3)
