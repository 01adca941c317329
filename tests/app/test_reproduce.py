"""The command `likelify reproduce`, with cells run in this process."""

import sys

import pytest
import torch

from likelify.app.cli import main
from likelify.app.reproduce import jobs_beside
from likelify.errors import ConfigError
from likelify.fitting.sources import DataChoice, open_data
from likelify.reproduce import catalog
from likelify.reproduce.measure import run_cell
from likelify.reproduce.runner import Event, Folders, run_cells
from likelify.reproduce.store import read_cells
from tests.reproduce.trial import experiment, silent


def run_in_this_process(cells, folders, *, jobs, on_event, devices=1):
    for cell in cells:
        on_event(Event("start", cell))
        run_cell(cell, folders, silent)
        on_event(Event("progress", cell, "fitting", 0.5, "1.0 bits/dim"))
        on_event(Event("finish", cell))
    return {}


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(catalog.EXPERIMENTS, "trial", lambda scale: experiment(scale=scale))

    def run(*words, code=0, runner=run_in_this_process):
        monkeypatch.setattr("likelify.app.reproduce.run_cells", runner)
        monkeypatch.setattr(sys, "argv", ["likelify", "reproduce", *map(str, words)])
        torch.set_num_threads(1)
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return run


def test_without_a_name_experiments_are_listed(command):
    output = command()
    for name in ("flowification-images", "flowification-noise", "flowification-tables", "flowification-figures"):
        assert name in output
    assert "Fashion-MNIST: 15 cells, at most 1.5 hours with --jobs 2" in output
    assert "POWER, GAS, HEPMASS, MINIBOONE, BSDS300 (your files, --data FOLDER): 60 cells" in output
    assert "30 cells, days" in command("--scale", "paper")


def test_a_table_is_run_once_and_shown_again(command, tmp_path):
    output = command("trial", "--quick", "--html", "page/report.html", "--jobs", 1)
    assert "0 of 4 cells are there; running 4, 1 at a time." in output
    assert "splines.digits.1: done (4 of 4)" in output
    assert "ELBO minus Plain <b> & simple [95 %]" in output
    assert "A <trial> of | things" in output
    folder = tmp_path / "runs" / "reproduce" / "trial-quick"
    assert (folder / "report.md").read_text().startswith("# A ")
    assert (tmp_path / "page" / "report.html").read_text().startswith("<!DOCTYPE html>")
    before = (folder / "cells.json").stat().st_mtime_ns
    again = command("trial", "--quick")
    assert "Nothing to run: 4 of 4 cells are there" in again
    assert (folder / "cells.json").stat().st_mtime_ns == before


def test_stale_cells_are_named_and_replaced_only_with_again(command, monkeypatch):
    words = ("trial", "--quick", "--seeds", 1)
    command(*words)
    fit = experiment().fit | {"steps": 5}
    monkeypatch.setitem(catalog.EXPERIMENTS, "trial", lambda scale: experiment(scale=scale, fit=fit))
    output = command(*words)
    assert "Stale: splines.digits.0: fit.steps 4 -> 5" in output
    assert "--again replaces them" in output
    alone = " ".join(command(*words, "--render-only", code=2, runner=None).split())
    assert "There is nothing to show" in alone
    assert "plain-b-simple.digits.0 is stale: fit.steps 4 -> 5" in alone

    def interrupt(cells, folders, *, jobs, devices, on_event):
        raise KeyboardInterrupt

    assert "2 are left" in command(*words, "--again", code=130, runner=interrupt)
    assert "running 2" in command(*words, "--again")
    assert "Nothing to run: 2 of 2" in command(*words)


def test_a_budget_has_results_of_its_own(command, tmp_path):
    command("trial", "--quick", "--seeds", 1)
    output = command("trial", "--quick", "--seeds", 1, "--budget", "30s")
    assert "Every fit has 30 s here (--budget)" in output
    folders = sorted(file.name for file in (tmp_path / "runs" / "reproduce").iterdir())
    assert folders == ["fits", "trial-quick", "trial-quick-30s"]
    assert "Nothing to run: 2 of 2" in command("trial", "--quick", "--seeds", 1)


def test_what_is_of_other_data_is_not_shown_after_a_run(command, monkeypatch):
    command("trial", "--quick", "--seeds", 1)
    other = DataChoice(source="digits", limits={"train": 199})
    monkeypatch.setattr("likelify.reproduce.session.open_data", lambda choice: open_data(other))
    output = command("trial", "--quick", "--seeds", 1)
    assert "Stale cells are left as they are and out of the table" in output
    assert "Left out, because they have other settings or data: plain-b-simple.digits.0" in " ".join(output.split())


def test_results_of_a_checkout_are_committed_and_weights_are_not(command, tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    assert "Report: docs/results/trial.md" in command("trial", "--seeds", 1)
    assert len(read_cells(tmp_path / "results" / "trial")) == 2
    assert not [*(tmp_path / "docs").rglob("*.safetensors"), *(tmp_path / "results").rglob("*.safetensors")]
    command("trial", "--seeds", 1, "--out", "elsewhere")
    assert len(read_cells(tmp_path / "elsewhere" / "trial")) == 2


def test_results_that_cannot_be_read_stop_everything(command, tmp_path):
    file = tmp_path / "runs" / "reproduce" / "trial-quick" / "cells.json"
    file.parent.mkdir(parents=True)
    file.write_text("<<<<<<<")
    assert "cells.json' cannot be read: Expecting value" in command("trial", "--quick", code=2, runner=None)
    assert file.read_text() == "<<<<<<<"


def test_render_only_runs_nothing(command, tmp_path):
    output = command("trial", "--quick", "--render-only", runner=None, code=2)
    assert "There is nothing to show: no cell of trial has been run in" in " ".join(output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_plan_runs_nothing(command, tmp_path):
    output = command("trial", "--quick", "--dry-run", "--seeds", 3, "--budget", "2m", runner=None)
    assert "by time" in output
    assert "at most 0.05" in output  # 2 minutes, a minute of measuring, and what is around
    assert "6 cells, at most 10 minutes, 2 at a time." in output
    measured = command("trial", "--quick", "--dry-run", "--jobs", 1, runner=None)
    assert "4 cells, about 0.0 hours, 1 at a time: from one training step of each model on cpu" in measured
    assert list(tmp_path.iterdir()) == []


def test_failures_are_an_error_after_the_report(command):
    def fail(cells, folders, *, jobs, devices, on_event):
        on_event(Event("start", cells[0]))
        on_event(Event("fail", cells[0], message="no more memory"))
        return {cells[0].name: "no more memory"}

    output = command("trial", "--quick", code=2, runner=fail)
    assert "plain-b-simple.digits.0: FAILED: no more memory (1 of 4)" in output
    assert "1 of 4 cells failed; the others are kept. plain-b-simple.digits.0: no more memory" in output
    assert "Traceback" not in output


def test_an_interruption_says_how_to_go_on(command):
    def interrupt(cells, folders, *, jobs, devices, on_event):
        run_in_this_process(cells[:1], folders, jobs=jobs, on_event=on_event)
        raise KeyboardInterrupt

    output = command("trial", "--quick", "--seeds", 2, code=130, runner=interrupt)
    assert "Finished cells are kept; 3 are left. Go on with:" in output
    assert "reproduce trial --quick --seeds 2" in output
    assert "1 of 4 cells are there; running 3" in command("trial", "--quick", "--seeds", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("unheard-of",), "There is no experiment 'unheard-of'. Known are: table-1, table-2,"),
        (("flowification-table",), "Did you mean 'flowification-tables'"),
        (("trial", "--jobs", "0"), "--jobs must be at least 1"),
        (("trial", "--devices", "0"), "--devices must be at least 1"),
        (("trial", "--devices", "2"), "--devices 2 is for --scale paper"),
        (("trial", "--seeds", "0"), "seeds must be at least 1"),
        (("trial", "--budget", "soon"), "--budget 'soon' is not a time"),
        (("trial", "--budget", "0"), "budget must be longer than nothing"),
        (("trial", "--data", "nowhere"), "--data 'nowhere' is not a folder"),
        (("trial", "--scale", "papr"), "There is no scale 'papr'. Did you mean 'paper'?"),
        (("trial", "--quick", "--scale", "paper"), "leave it or --scale paper out"),
        (("--budget", "5m"), "--budget needs the name of an experiment"),
        (("--dry-run",), "--dry-run needs the name of an experiment"),
        (("flowification-images", "--scale", "paper"), "needs your files of MNIST, CIFAR-10: name their folder"),
    ],
)
def test_errors_are_one_paragraph(command, words, message):
    output = command(*words, code=2, runner=None)
    assert message in output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


def test_devices_are_not_shared_by_jobs():
    assert [jobs_beside(devices, None) for devices in (1, 2)] == [2, 1]
    assert [jobs_beside(1, 3), jobs_beside(2, 1)] == [3, 1]
    with pytest.raises(ConfigError, match="--devices 2 all devices share one cell, so that --jobs 2"):
        jobs_beside(2, 2)
    with pytest.raises(ConfigError, match="would be on the same ones"):
        run_cells([], Folders(results="a", runs="b"), jobs=2, devices=2)


def test_a_plan_of_a_figure_without_cells_says_so(command):
    output = command("figure-1", "--dry-run", runner=None)
    assert output.strip() == "figure-1 has no cells: its figure is drawn in seconds."
