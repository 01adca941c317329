"""Costs measured side by side: shares of the baseline, memory, and weights that cells have fitted."""

import copy
import dataclasses
import shutil

import pytest
import torch

from likelify.reproduce import costing
from likelify.reproduce.costing import run_costs
from likelify.reproduce.costs import CostCell, Costing
from likelify.reproduce.runner import Folders, run_cells
from likelify.reproduce.session import Session
from likelify.reproduce.store import read_cells, save_cell
from tests.reproduce.trial import METHODS, experiment, silent

COSTING = Costing(baseline=METHODS[0].title, rounds=3, samples=2)


def cost_cell(**changed):
    return experiment(costing=COSTING, **changed).cells(seeds=1)[-1]


def test_costs_are_shares_of_the_baseline_in_the_same_round(finished, tmp_path, monkeypatch):
    cell = cost_cell()
    # A machine that grows slower: each call takes longer than the one before, and the second method twice as long.
    calls = iter(range(1, 100))
    times = {METHODS[0].title: 1.0, METHODS[1].title: 2.0}
    titles = [method.title for method in METHODS]

    def timed(model, batch, samples, clock):
        call = next(calls)
        assert (len(batch), samples) == (32, 2)
        seconds = times[titles[(call - 1) % 2]] * (1 + (call - 1) // 2)
        return seconds, 3 * seconds

    monkeypatch.setattr(costing, "_timed", timed)
    run_costs(cell, Folders(results=tmp_path, runs=finished / "fits"), silent)
    kept = read_cells(tmp_path)[cell.name]
    plain, splines = (kept["costs"][title] for title in titles)
    assert (plain["step_percent"], plain["sample_percent"]) == (100.0, 100.0)
    assert (splines["step_percent"], splines["sample_percent"]) == (200.0, 200.0)
    assert (splines["step_seconds"], splines["sample_seconds"]) == (4.0, 12.0)
    assert kept["rounds"] == 3


def test_costs_are_of_fitted_weights_where_there_are_some(finished, tmp_path):
    cell = cost_cell()
    run_costs(cell, Folders(results=tmp_path, runs=finished / "fits"), silent)
    fitted = read_cells(tmp_path)[cell.name]
    assert {cost["steps"] for cost in fitted["costs"].values()} <= {2, 4}
    assert all(cost["kept_bytes"] > 32 * 64 * 4 for cost in fitted["costs"].values())
    assert fitted["clock"] == "processor"
    run_costs(cell, Folders(results=tmp_path, runs=tmp_path / "none"), silent)
    fresh = read_cells(tmp_path)[cell.name]
    assert {cost["steps"] for cost in fresh["costs"].values()} == {0}
    late = cell.model_copy(update={"costing": COSTING.model_copy(update={"seconds": 1e-9})})
    run_costs(late, Folders(results=tmp_path, runs=tmp_path / "none"), silent)
    assert read_cells(tmp_path)[cell.name]["rounds"] == 1


def test_what_is_measured_stays_what_was_fitted(finished, tmp_path, monkeypatch):
    made, models = costing._model, []

    def kept(*given):
        model = made(*given)
        models.append((model, copy.deepcopy(model.flow.state_dict())))
        return model

    monkeypatch.setattr(costing, "_model", kept)
    run_costs(cost_cell(), Folders(results=tmp_path, runs=finished / "fits"), silent)
    assert models
    for model, before in models:
        assert all(model.optimizer.state[p]["step"] == 4 for p in model.flow.parameters())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.flow.state_dict().items())


def test_costs_are_a_cell_of_the_experiment(finished, tmp_path):
    measured = experiment(costing=COSTING)
    shutil.copytree(finished / "trial-quick", tmp_path / "trial-quick")
    session = Session.open(measured, out=tmp_path)
    (missing,) = session.todo()
    assert missing.name == "costs.digits"
    assert "1 of 5 cells are not there yet: costs.digits." in " ".join(session.report().tables[0].notes)
    run_costs(missing, Folders(results=session.results, runs=finished / "fits"), silent)
    session = session.again()
    assert session.todo() == []
    (table,) = (table for table in session.report().tables if table.title == "digits: costs")
    assert table.rows[0][2:4] == ["100", "100"]
    assert f"in each of {COSTING.rounds} rounds" in table.notes[0]
    assert not any("another version" in note for note in table.notes)
    values = copy.deepcopy(read_cells(session.results)[missing.name])
    values["versions"]["fitting"] = "0123"
    save_cell(session.results, missing.name, values)
    (table,) = (table for table in session.again().report().tables if table.title == "digits: costs")
    assert "By another version of the code than that of the fits." in table.notes
    del values["settings"]["data"]
    save_cell(session.results, missing.name, values)
    assert session.again().of("damaged")[0].why == "its settings lack 'data'"
    save_cell(session.results, missing.name, {})
    assert session.again().of("damaged")
    run_costs(missing, Folders(results=session.results, runs=finished / "fits"), silent)
    other = dataclasses.replace(measured, costing=COSTING.model_copy(update={"samples": 3}))
    (stale,) = Session.open(other, out=tmp_path).of("stale")
    assert stale.why == "costing.samples 2 -> 3"


def test_nothing_runs_beside_a_cell_of_costs(tmp_path, monkeypatch):
    running, most = set(), {}

    class Worker:
        def __init__(self, cell, folders, events, devices):
            from likelify.reproduce.runner import Event

            self.cell = cell
            running.add(cell.name)
            most[cell.name] = set(running)
            events.put(Event("finish", cell))

        def wait(self):
            running.discard(self.cell.name)

        def end(self):
            pass

    monkeypatch.setattr("likelify.reproduce.runner._Worker", Worker)
    cells = experiment(costing=COSTING).cells(seeds=2)
    (costs,) = (cell for cell in cells if isinstance(cell, CostCell))
    order = [cells[0], costs, *cells[1:4]]
    assert run_cells(order, Folders(results=tmp_path, runs=tmp_path), jobs=3) == {}
    assert most.pop(costs.name) == {costs.name}
    assert not any(costs.name in beside for beside in most.values())
    assert max(map(len, most.values())) == 3


def test_refusals_of_settings():
    with pytest.raises(ValueError, match="at least 1"):
        CostCell(experiment="x", cells=(), costing=COSTING)
