"""Results of fits that are kept in files: as a whole, and only for the recipe that they were measured with."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from benchmarks import cells, exp_tol, mixing_photos
from benchmarks import exponentials_pay as pay

CELLS = [
    (pay, pay.Cell("digits", "1x1", 0, 60.0)),
    (mixing_photos, mixing_photos.Cell("orthogonal", 0, 60.0)),
    (exp_tol, exp_tol.Cell(None, 0, 120)),
]


@dataclass(frozen=True)
class Cell(cells.Cell[dict[str, int]]):
    """The process that ran it."""

    name: str
    fails: bool = False

    def key(self):
        return ""

    def run(self):
        if self.fails:
            raise ValueError("nothing to fit")
        return {"process": os.getpid()}


@pytest.mark.parametrize(("module", "cell"), CELLS)
def test_a_changed_recipe_does_not_find_older_results(module, cell, tmp_path, monkeypatch):
    before = cell.file(tmp_path)
    assert before == type(cell)(**vars(cell)).file(tmp_path)
    monkeypatch.setitem(module.FIT, "lr", 5e-3)
    fit = cell.file(tmp_path)
    monkeypatch.setattr(cells, "code_hashes", lambda model: {"code": f"another {model}"})
    code = cell.file(tmp_path)
    assert len({before, fit, code}) == 3
    assert cells.found(cell, tmp_path) is None


@pytest.mark.parametrize("module", [pay, mixing_photos])
def test_another_model_does_not_find_older_results(module, tmp_path, monkeypatch):
    cell = next(cell for owner, cell in CELLS if owner is module)
    before = cell.file(tmp_path)
    if module is pay:
        monkeypatch.setattr(pay, "WIDTH", 47)
    else:
        monkeypatch.setitem(mixing_photos.WIDTHS, mixing_photos.AXIS, 47)
    assert cell.file(tmp_path) != before


def test_recipes_count_and_their_layout_does_not():
    keys = {cells.key_of(1), cells.key_of(2), cells.key_of(1, cells.found), cells.key_of(1, cells.keep)}
    assert len(keys) == 4
    assert cells.key_of({"a": 1, "b": 2}) == cells.key_of({"b": 2, "a": 1})


def test_a_result_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    cell = exp_tol.Cell(1e-3, 0, 120)
    cells.keep(cell, {"bits": 3.0}, tmp_path)
    assert cell.file(tmp_path).name.startswith("0-001-0-120-")

    def stopped(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        cells.keep(cell, {"bits": 4.0}, tmp_path)
    assert cells.found(cell, tmp_path) == {"bits": 3.0}


def test_found_results_are_read_as_they_were_written(tmp_path):
    cell, result = mixing_photos.Cell("1x1", 0, 60.0), mixing_photos.Found(3.5, 100, 60.0, 1234)
    cells.keep(cell, result, tmp_path)
    assert cells.found(cell, tmp_path) == result
    cells.forget(cell, tmp_path)
    assert cells.found(cell, tmp_path) is None


def test_a_process_runs_what_is_missing_and_nothing_else(tmp_path, monkeypatch, capsys):
    def start(command, **settings):
        monkeypatch.setattr(sys, "argv", command[2:])
        try:
            cells.main()
        except ValueError as error:
            return subprocess.CompletedProcess(command, 1, "", f"ValueError: {error}")

    monkeypatch.setattr(cells.subprocess, "run", start)
    first = cells.measured(Cell("one"), tmp_path)
    assert capsys.readouterr().out.strip() == str(tmp_path / "one-False.json")
    cells.keep(Cell("one"), {"process": -1}, tmp_path)
    start([sys.executable, "-m", "benchmarks.cells", __name__, '{"name": "one"}', str(tmp_path)])
    assert cells.measured(Cell("one"), tmp_path) == {"process": -1} != first
    with pytest.raises(RuntimeError, match="name='two', fails=True.* failed: ValueError: nothing to fit"):
        cells.measured(Cell("two", fails=True), tmp_path)


def test_code_that_changed_meanwhile_is_said(tmp_path, monkeypatch):
    def start(command, **settings):
        cells.keep(Cell("by other code"), {"process": 1}, tmp_path)
        return subprocess.CompletedProcess(command, 0, "", "a warning")

    monkeypatch.setattr(cells.subprocess, "run", start)
    with pytest.raises(RuntimeError, match="have changed since this run began"):
        cells.measured(Cell("one"), tmp_path)


def test_losses_are_paired_over_any_number_of_seeds():
    noise = [0.1 * (seed % 5) for seed in range(12)]
    full = [{"bits": 3 + each, "seconds": 10.0} for each in noise]
    loose = [{"bits": 3.01 + each + 0.001 * (-1) ** seed, "seconds": 6.0} for seed, each in enumerate(noise)]
    found = {entry.name: entry.value for entry in exp_tol.entries_of({None: full, 1e-3: loose})}
    title = "photos, exponentials in training to 0.001"
    assert found[f"{title}, loss, mean over seeds"] == pytest.approx(0.01)
    assert found[f"{title}, loss, largest of a seed"] == pytest.approx(0.011)
    # The 97.5 % point of Student's t with 11 degrees of freedom.
    assert found[f"{title}, loss, half of the 95 % interval"] == pytest.approx(2.201 * 1e-3 / 11**0.5, rel=1e-3)


@pytest.mark.slow
def test_a_cell_runs_in_a_process_of_its_own(tmp_path):
    assert cells.measured(Cell("one"), tmp_path)["process"] != os.getpid()
