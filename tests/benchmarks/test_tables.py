"""The comparison of densities of tables: its data, its arithmetic, what it keeps, and one cell of each kind."""

import numpy as np
import pytest
from benchmarks.tables import nats, recipe, rivals
from benchmarks.tables.cells import METHODS, Cell
from benchmarks.tables.data import AS_WRITTEN, Split, split_of, step, table
from benchmarks.tables.rivals import RIVALS, SETTINGS, Measured
from scipy.stats import norm

from benchmarks import cells

MADE = "made: checkerboard"


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 3)) * [1.0, 50.0, 1e-3] + [0.0, 1e4, 0.0]
    return split_of(rows, 0)


def test_splits_hold_every_row_once():
    rows = np.arange(200.0)[:, None] * [1, 2, 3]
    parts = split_of(rows, 3)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [140, 20, 40]
    whole = np.concatenate([parts.known, parts.test])
    assert np.array_equal(np.sort(whole[:, 0]), rows[:, 0])
    assert not np.array_equal(split_of(rows, 4).test, parts.test)


def test_values_are_spread_over_their_steps_and_not_further():
    written, spread = table(f"diabetes{AS_WRITTEN}"), table("diabetes")
    steps = np.array([step(column) for column in written.T])
    assert written.shape == (442, 9)
    assert np.all(np.abs(spread - written) <= steps / 2)
    assert len(np.unique(spread[:, 0])) == len(spread)
    assert np.allclose(steps[[0, 1]], [1.0, 0.1])


def test_likelihoods_are_of_standardised_columns(split):
    found = RIVALS["mixture, BIC"](split, 3.0, 0)
    assert found.facts["components"] == 1
    z = split.standardized()
    truth = np.linalg.multi_dot(
        [z.test - z.known.mean(0), np.linalg.inv(np.cov(z.known.T)), (z.test - z.known.mean(0)).T]
    )
    expected = -0.5 * (np.diag(truth) + np.linalg.slogdet(2 * np.pi * np.cov(z.known.T))[1])
    assert np.allclose(found.log_probs, expected, atol=0.1)


def test_units_of_columns_change_nothing(split):
    factors = np.array([10.0, 1e-3, 1.0])
    other = Split(split.train * factors, split.validation * factors, split.test * factors)
    ours, theirs = (RIVALS["independent"](rows, 1.0, 0).log_probs.mean() for rows in (split, other))
    assert ours == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("method", ["coupling", "marginals, autoregressive"])
def test_spline_flows_are_fitted_with_the_rate_that_suits(split, method, monkeypatch):
    monkeypatch.setattr(rivals, "RATES" if method == "coupling" else "WIDER_RATES", (1e-9, 8e-3))
    monkeypatch.setattr(rivals, "ZUKO", {"transforms": 1, "bins": 4, "hidden_features": (16,)})
    found = RIVALS[method](split, 1.0, 0)
    assert found.facts["rate"] == 8e-3
    assert found.log_probs.mean() > -3 * norm.entropy() - 0.5


def test_independent_columns_are_the_sum_of_their_marginals():
    rng = np.random.default_rng(0)
    found = RIVALS["independent"](split_of(rng.normal(size=(3000, 2)) * [1, 1e5], 0), 1.0, 0)
    assert found.log_probs.mean() == pytest.approx(-2 * norm.entropy(), abs=0.08)


def test_what_a_cell_has_found_is_kept(tmp_path, monkeypatch):
    cell = Cell("diabetes", "independent", 0, 1.0)
    assert cells.found(cell, tmp_path) is None
    cells.keep(cell, Measured(np.arange(3.0), {"steps": 5}), tmp_path)
    assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]
    monkeypatch.setattr(cells.subprocess, "run", lambda *_, **__: pytest.fail("it is known"))
    found = cells.measured(cell, tmp_path)
    assert np.array_equal(found.log_probs, [0, 1, 2])
    assert found.facts == {"steps": 5}
    assert cell.file(tmp_path) != Cell("diabetes", "independent", 0, 10.0).file(tmp_path)


def test_files_have_a_hash_once_the_settings_are_others(tmp_path, monkeypatch):
    def names():
        return [Cell(f"diabetes{AS_WRITTEN}", method, 2, 30.0).file(tmp_path).name for method in METHODS]

    first = names()
    assert first[1] == "diabetes--as-written-mixture--BIC-2-30.npz"
    assert [name for name in first if not name.endswith("-2-30.npz")] == [first[5], first[7]]
    monkeypatch.setitem(SETTINGS, "mixture, BIC", [*SETTINGS["mixture, BIC"], 1e-9])
    assert [name for name in names() if name not in first] == [names()[1]]
    assert names()[1].startswith("diabetes--as-written-mixture--BIC-2-30-")


def test_settings_of_the_default_are_changed_one_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=400) * 10
    worth = {"dropout 0": -0.5, "rate 6e-3": 0.25}
    found = {name: rows + worth.get(name, 0) + 0.1 * rng.normal(size=400) for name in recipe.VARIANTS}
    monkeypatch.setattr(recipe, "fitted", lambda table, variant, seconds: (found[variant], 0.7))
    entries = {entry.name: entry.value for entry in recipe.recipe(quick=False)}
    assert entries["penbased, as it is: weight of the splines"] == 0.7
    assert entries["satimage, dropout 0: over the default"] == pytest.approx(-0.5, abs=0.03)
    assert entries["satimage, rate 6e-3: over the default"] == pytest.approx(0.25, abs=0.03)
    assert entries["satimage, rate 6e-3: error of that"] == pytest.approx(0.1 * 2**0.5 / 20, rel=0.2)
    assert "penbased, as it is: over the default" not in entries


def test_variants_change_what_they_say(split, monkeypatch):
    monkeypatch.setattr(recipe, "split_of", lambda table, number: split)
    monkeypatch.setattr(recipe, "table", lambda name: None)
    log_probs, weight = recipe.fitted("any", "splines alone", 0.5)
    assert log_probs.shape == (len(split.test),)
    assert weight > 0
    assert recipe.fitted("any", "mixtures alone", 0.5)[1] == 0.0


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    hard = [rng.normal(size=500) * 100 for _ in range(2)]
    ours = nats.Found(tuple(rows + 1 for rows in hard))
    theirs = nats.Found(tuple(rows + 0.1 * rng.normal(size=500) for rows in hard))
    gain = ours - theirs
    assert gain.mean == pytest.approx(1, abs=0.02)
    assert gain.error == pytest.approx(0.1 / 1000**0.5, rel=0.1)
    assert ours.error == pytest.approx(100 / 1000**0.5, rel=0.1)
    assert nats.won({"a": {nats.DEFAULT: ours, "independent": theirs}}) == 1
    assert nats.won({"a": {"independent": theirs}}) == 0
    # A first split that is won by far says nothing of those behind it.
    lucky = nats.Found((hard[0] + 5, hard[1]))
    entries = {e.name: e.value for e in nats.entries("a", {nats.DEFAULT: lucky, "independent": theirs})}
    assert entries["a: table-flow over independent, the best of the others"] == pytest.approx(2.5, abs=0.02)
    assert entries["a: the same without the first split"] == pytest.approx(0, abs=0.02)
    assert entries["a: standard error without the first split"] == pytest.approx(0.1 / 500**0.5, rel=0.1)
    assert nats.won({"a": {nats.DEFAULT: ours, "independent": theirs, "coupling": ours}}) == 0
