"""What a session finds, runs and leaves out."""

import copy
import dataclasses
import shutil

import pytest
import torch

from likelify.errors import ConfigError
from likelify.fitting.sources import DataChoice, open_data
from likelify.reproduce.cell import Cell
from likelify.reproduce.experiment import DataSet
from likelify.reproduce.session import Session
from likelify.reproduce.store import read_cells, save_cell, save_failure, to_text
from tests.reproduce.trial import METHODS, experiment, run_here


def test_a_cell_leaves_one_complete_result(finished):
    folder = finished / "trial-quick"
    assert sorted(file.name for file in folder.iterdir()) == ["cells.json", "splines.digits.0.png"]
    assert (folder / "splines.digits.0.png").read_bytes().startswith(b"\x89PNG")
    cells = read_cells(folder)
    assert list(cells) == [
        "plain-b-simple.digits.0",
        "plain-b-simple.digits.1",
        "splines.digits.0",
        "splines.digits.1",
    ]
    values = cells["splines.digits.0"]
    assert values["facts"]["sizes"] == {"train": 200, "validation": 40, "test": 50}
    assert values["elbo"]["bits"]["count"] == 50
    assert values["iw"]["nats"]["count"] == 10
    assert values["iw"]["samples"] == 4
    assert values["course"]["steps"] == 4
    assert [point["step"] for point in values["course"]["points"]] == [0, 2, 4]
    assert values["settings"]["model"]["event_shape"] == [1, 8, 8]
    assert values["settings"]["fit"]["seed"] == 0
    assert values["versions"]["torch"] == torch.__version__
    assert values["machine"]["threads"] == 1
    assert '"points": [\n          {"step": 0, ' in (folder / "cells.json").read_text()


def test_seeds_pair_the_data_and_differ_in_their_figures(finished):
    states = Session.open(experiment(), out=finished).states
    results = {(s.result.method, s.result.seed): s.result for s in states}
    plain = METHODS[0].title
    assert results[plain, 0].elbo.bits.mean != results[plain, 1].elbo.bits.mean
    assert len({r.facts.fingerprint for r in results.values()}) == 1
    assert results["Splines", 0].settings["fit"] == results[plain, 0].settings["fit"]


def test_nothing_is_run_twice(finished):
    session = Session.open(experiment(), out=finished)
    assert [state.status for state in session.states] == ["finished"] * 4
    assert session.checked().todo() == []
    assert session.todo(again=True) == []


def test_changed_settings_make_stale_cells_that_are_named(finished):
    session = Session.open(experiment(fit={"steps": 5, "batch_size": 32, "clock": "processor"}), out=finished)
    assert {state.status for state in session.states} == {"stale"}
    assert session.states[0].why == "fit.steps 4 -> 5; fit.validations 2 -> 15"
    assert session.todo() == []
    assert len(session.todo(again=True)) == 4
    table = session.report().tables[0]
    assert table.rows[0][2] == "0"
    assert any("have other settings or data: plain-b-simple.digits.0" in note for note in table.notes)


def created(folder):
    folder.mkdir(parents=True)
    return folder


def _first_state(values, folder):
    """Return the state of the trial's first cell if this is its result."""
    save_cell(folder / "trial-quick", "plain-b-simple.digits.0", values)
    return Session.open(experiment(), out=folder).states[0]


def test_settings_that_came_later_do_not_make_old_cells_stale(finished, tmp_path):
    values = copy.deepcopy(read_cells(finished / "trial-quick")["plain-b-simple.digits.0"])
    del values["settings"]["model"]["pseudo_count"], values["settings"]["fit"]["patience"]
    assert _first_state(values, tmp_path).status == "finished"
    values["settings"]["model"]["abolished"] = 1
    state = _first_state(values, tmp_path)
    assert state.status == "stale"
    assert "abolished" in state.why


def test_a_tolerance_that_came_later_makes_old_cells_of_exponentials_stale(finished, tmp_path):
    values = copy.deepcopy(read_cells(finished / "trial-quick")["plain-b-simple.digits.0"])
    assert values["settings"]["fit"].pop("exp_tol") == 1e-3
    state = _first_state(values, tmp_path)
    assert (state.status, state.why) == ("stale", "fit.exp_tol None -> 0.001")
    # Nothing in a model without exponentials has a tolerance.
    values["settings"]["model"]["exponentials"] = 0
    assert Cell.refreshed(values["settings"])["fit"]["exp_tol"] == 1e-3


@pytest.mark.parametrize("values", [{}, None, [], {"method": "Splines"}, {"seed": "none"}, 3])
def test_damaged_results_are_run_again(tmp_path, values):
    state = _first_state(values, tmp_path)
    assert state.status == "damaged"
    assert state.why
    session = Session.open(experiment(), out=tmp_path)
    assert session.cells[0] in session.todo()
    assert any("cannot be read" in note for note in session.report().tables[0].notes)


def test_other_data_make_stale_cells(finished, monkeypatch):
    from likelify.reproduce import session as module

    other = DataChoice(source="digits", limits={"train": 199})
    monkeypatch.setattr(module, "open_data", lambda choice: open_data(other))
    session = Session.open(experiment(), out=finished).checked()
    assert {state.status for state in session.states} == {"stale"}
    assert "fingerprint" in session.states[0].why
    # And they stay it, so that the report of after a run has no figures of theirs.
    assert {state.status for state in session.again().states} == {"stale"}
    assert session.again().report().tables[0].rows[0][2] == "0"


def test_a_lost_picture_is_drawn_again(finished, tmp_path):
    shutil.copy(finished / "trial-quick" / "cells.json", created(tmp_path / "trial-quick"))
    session = Session.open(experiment(), out=tmp_path)
    assert [state.cell.name for state in session.of("damaged")] == ["splines.digits.0"]
    assert "picture" in session.of("damaged")[0].why
    run_here(session.todo(), session.results, finished / "fits", reuse=True)
    assert [state.status for state in session.again().states] == ["finished"] * 4


def test_a_failure_is_kept_and_tried_again_but_never_in_place_of_a_result(finished, tmp_path):
    results = tmp_path / "trial-quick"
    shutil.copytree(finished / "trial-quick", results)
    kept = read_cells(results)
    save_failure(results, "splines.digits.0", "no memory")
    assert read_cells(results) == kept
    remaining = {name: values for name, values in kept.items() if name != "splines.digits.1"}
    (results / "cells.json").write_text(to_text({"format": 2, "cells": remaining}))
    save_failure(results, "splines.digits.1", "the loss is not finite.")
    session = Session.open(experiment(), out=tmp_path)
    assert [state.why for state in session.of("failed")] == ["the loss is not finite."]
    assert [cell.name for cell in session.todo()] == ["splines.digits.1"]
    notes = " ".join(session.report().tables[0].notes)
    assert "Failed, so that means are those of the other seeds: splines.digits.1: the loss is not finite." in notes
    save_cell(results, "splines.digits.1", kept["splines.digits.1"])
    assert [state.status for state in Session.open(experiment(), out=tmp_path).states] == ["finished"] * 4


def test_results_of_another_budget_have_a_folder_of_their_own(finished, tmp_path, monkeypatch):
    session = Session.open(experiment(), out=finished, budget=5.0)
    assert {state.status for state in session.states} == {"missing"}
    assert session.results.name == "trial-quick-5s"
    monkeypatch.chdir(tmp_path)
    for folder in ("docs/results", "results"):
        (tmp_path / folder).mkdir(parents=True)
    assert Session.open(experiment(scale="cpu")).results.as_posix() == "results/trial"
    trial = Session.open(experiment(scale="cpu"), budget=5.0)
    assert trial.results.as_posix() == "runs/reproduce/trial-5s"
    assert trial.page.parent == trial.results


def test_a_method_may_be_spelled_anew(finished):
    methods = (METHODS[0], dataclasses.replace(METHODS[1], title="SPLINES"))
    session = Session.open(experiment(methods=methods), out=finished)
    assert [state.status for state in session.states] == ["finished"] * 4
    assert session.report().tables[0].rows[1][:3:2] == ["SPLINES", "2"]


def test_data_that_are_not_there_are_left_out(tmp_path):
    data = (
        *experiment().data,
        DataSet("MNIST", DataChoice(source="mnist"), from_files=True),
    )
    without = Session.open(experiment(data=data), out=tmp_path)
    assert {cell.data.source for cell in without.cells} == {"digits"}
    session = Session.open(experiment(data=data), files=str(tmp_path), out=tmp_path).checked()
    assert "mnist needs the file" in session.absent["mnist"]
    assert {cell.data.source for cell in session.todo()} == {"digits"}
    with pytest.raises(ConfigError, match="needs your files of MNIST: name their folder"):
        Session.open(experiment(data=data[1:]), out=tmp_path)


def test_in_a_checkout_pages_are_in_the_documentation_with_their_pictures(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "results" / "trial").mkdir(parents=True)
    picture = "splines.digits.0.png"
    for source, target in (("cells.json", "cells.json"), (picture, picture)):
        content = (finished / "trial-quick" / source).read_bytes()
        (tmp_path / "results" / "trial" / target).write_bytes(content)
    session = Session.open(experiment(scale="cpu"))
    (page,) = session.write(session.report())
    assert page.as_posix() == "docs/results/trial.md"
    assert f"](trial/{picture})" in page.read_text()
    copy = tmp_path / "docs" / "results" / "trial" / picture
    assert copy.read_bytes() == (finished / "trial-quick" / picture).read_bytes()
    assert Session.open(experiment()).page.as_posix() == "runs/reproduce/trial-quick/report.md"
    assert to_text(read_cells(session.results)) == to_text(read_cells(finished / "trial-quick"))
