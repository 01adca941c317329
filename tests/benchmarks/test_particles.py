"""Particles: gaps to densities that are known, references that belong to the data, and a page that says what it has."""

import json
import math

import pytest
from benchmarks.cells import keep
from benchmarks.particles_page import page

import likelify as lk
from benchmarks import cells, particles
from likelify.data.simulated import configurations as module
from likelify.data.simulated.configurations import Sampling
from likelify.data.simulated.particles import SYSTEMS
from likelify.distributions import CentredNormal
from likelify.errors import LikelifyWarning
from likelify.transforms import Centre


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Sample little, into a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    quick = Sampling(levels=60, burn_in=20, draws=4, thin=5, steps=5)
    monkeypatch.setattr(module, "SAMPLINGS", dict.fromkeys(SYSTEMS, quick))
    monkeypatch.setattr(module, "PARTS", {"train": 40, "validation": 20, "test": 80})
    caches = (particles.opened, particles.choice)
    for each in caches:
        each.cache_clear()
    with pytest.warns(LikelifyWarning, match="sampled now"):
        particles.opened("dw4")
    yield
    for each in caches:
        each.cache_clear()


def energies():
    return lk.data.energy("dw4", particles.opened("dw4").read_all("test").x)


def entries(mean_energy):
    words = {"reference E U + ln Z": 7.1, "reference, standard error": 0.02, "ln Z": 29.7, "ln Z, standard error": 0.01}
    words |= {"draws that count as independent": 0.8, "mean energy": mean_energy}
    return [{"name": f"dw4: {word}", "value": value} for word, value in words.items()]


@pytest.mark.usefixtures("few")
def test_normal_positions_are_missed_by_as_much_as_the_closed_form_says():
    source = particles.opened("dw4")
    flow = lk.Flow(CentredNormal((2,)), Centre(2), event_shape=(2,))
    batch = source.read_all("train")
    flow.initialize(batch.x.float(), batch.context())
    score = particles.above(flow, source, "test", 80)
    assert score["nats"] == pytest.approx(particles.normal(source), abs=1e-4)
    assert score["above"] == pytest.approx(score["nats"] - float(energies().mean()), abs=1e-3)
    assert 0 < score["above_error"] < 10
    assert score["items"] == 80


def test_the_gap_is_what_is_left_above_the_normalizer_with_errors_of_independent_configurations():
    score = {"nats": 8.0, "nats_error": 0.3, "above": 30.5, "above_error": 0.02}
    reference = {"log_normalizer": 29.5, "log_normalizer_error": 0.03}
    found = particles.compared(score, reference, share=0.25)
    assert found["gap"] == pytest.approx(1.0)
    assert found["gap_error"] == pytest.approx(0.05)
    assert found["nats_error"] == pytest.approx(0.6)


@pytest.mark.usefixtures("few")
def test_a_reference_is_that_of_these_test_configurations(tmp_path):
    file = tmp_path / "truth.json"
    with pytest.raises(SystemExit, match=r"does not say 'dw4: reference E U \+ ln Z'.*graph_truth --json"):
        particles.references(["dw4"], file)
    file.write_text(json.dumps(entries(float(energies().mean()))))
    found = particles.references(["dw4-1000", "dw4"], file)
    assert found == {
        "dw4": {"nats": 7.1, "error": 0.02, "log_normalizer": 29.7, "log_normalizer_error": 0.01, "independent": 0.8}
    }
    file.write_text(json.dumps(entries(float(energies().mean()) + 0.01)))
    with pytest.raises(SystemExit, match="of other test configurations of 'dw4'"):
        particles.references(["dw4"], file)


@pytest.mark.usefixtures("few")
def test_a_fit_is_measured_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(particles, "SOLVED", 4)
    monkeypatch.setattr(particles, "TRAINED", 10)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(entries(float(energies().mean()))))
    monkeypatch.setattr(particles.references, "__defaults__", (truth,))
    (cell,) = particles.cells(["dw4"], 1, 0.3, 20)
    result = cell.run()
    keep(cell, result, tmp_path)
    content = particles.figures([cell], tmp_path)
    assert result["model"] == "point-flow"
    assert result["steps"] >= result["best_step"] > 0
    assert (result["test"]["items"], result["train"]["items"]) == (20, 10)
    assert math.isfinite(result["solver"])
    (known,) = content["cells"]
    assert known["test"]["gap"] == pytest.approx(result["test"]["above"] - 29.7)
    assert "`dw4`, 40 configurations" in page(content)


@pytest.mark.usefixtures("few")
def test_cells_are_of_data_settings_and_seed(tmp_path, monkeypatch):
    wanted = particles.cells(["dw4"], 2, 600.0, 40)
    files = {cell.file(tmp_path) for cell in wanted}
    assert len(files) == 2
    monkeypatch.setattr(particles, "TRAINED", 7)
    assert files.isdisjoint(cell.file(tmp_path) for cell in wanted)


@pytest.mark.usefixtures("few")
def test_no_more_cells_are_run_than_asked_for(tmp_path, monkeypatch, capsys):
    run = []

    def started(command, **settings):
        assert command[2:4] == ["benchmarks.cells", "benchmarks.particles"]
        cell = particles.Cell(**json.loads(command[4]))
        run.append(cell.seed)
        test = {"nats": 7.5, "nats_error": 0.1}
        keep(cell, {"test": test, "steps": 9, "spent": 1.0, "measuring": 2.0}, tmp_path)

    monkeypatch.setattr(cells.subprocess, "run", started)
    wanted = particles.cells(["dw4"], 3, 600.0, 40)
    particles.run_missing(wanted, tmp_path, 2, particles.said)
    particles.run_missing(wanted, tmp_path, 2, particles.said)
    assert run == [0, 1, 2]
    assert "dw4, seed 2: 7.500 +- 0.100 nats per configuration after 9 steps" in capsys.readouterr().out


def fitted(gap, *, error=0.02, own=None, solver=0.0, seed=0):
    test = {"nats": 7.1 + gap, "nats_error": 0.03, "gap": gap, "gap_error": error, "items": 10_000}
    train = {"gap": gap if own is None else own, "gap_error": error, "items": 1000}
    counts = {"parameters": 8267, "steps": 70_000, "best_step": 60_000}
    return {"data": "dw4-1000", "seed": seed, "model": "point-flow", "solver": solver} | counts | {
        "test": test,
        "train": train,
    }  # fmt: skip


def content(*results):
    reference = {"nats": 7.1, "error": 0.02, "independent": 0.875}
    data = {"system": "dw4", "dimension": 6, "configurations": 1000, "normal": 12.1}
    return {
        "seconds": 600.0,
        "wanted": len(results),
        "references": {"dw4": reference},
        "data": {"dw4-1000": data},
        "cells": list(results),
    }


def verdict(result):
    return next(line for line in page(content(result)).splitlines() if line.startswith("- `dw4`"))


def test_what_is_said_of_a_fit_is_what_its_errors_allow():
    said = "0.30 nats per configuration above the entropy, where normal positions are 5.00 above it."
    assert verdict(fitted(0.3)) == f"- `dw4`, 1,000 configurations: {said}"
    assert "not told from the system itself (a gap of 0.03 +- 0.02 nats)" in verdict(fitted(0.03))
    assert "0.10 nats below the entropy, which no density can be" in verdict(fitted(-0.1))
    assert verdict(fitted(0.3, own=0.1)).endswith("misses by 0.20 nats less: so much is learnt by heart.")
    assert verdict(fitted(0.3, solver=0.2)).endswith("the solver the gap changes by +0.20 nats.")


def test_every_fit_is_on_the_page():
    text = page(content(fitted(0.3, own=0.1), fitted(0.4, seed=1)))
    figures = "12.10 | 7.40 +- 0.03 | 7.10 +- 0.02 | **0.30 +- 0.02** | 0.10 +- 0.02 |"
    assert f"| `dw4`, 1,000 configurations, seed 0 | {figures}" in text
    assert "| `dw4`, 1,000 configurations, seed 1 | `point-flow` | 8,267 | 70,000 | 60,000 | +0.0000 |" in text
    assert "over 10,000 test configurations" in text
    assert "of\n  dimension 6 (`dw4`)." in text
    assert "88 % of those of `dw4`" in text
    assert "not been run yet" not in text
    assert "2 of 4 fits have not been run yet." in page(content(fitted(0.3), fitted(0.4)) | {"wanted": 4})
    assert "4 of 4 fits have not been run yet." in page(content() | {"wanted": 4})
