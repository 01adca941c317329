"""Cells in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from likelify.fitting.run import Run
from likelify.reproduce.experiment import Method
from likelify.reproduce.runner import REQUEST, Folders, last_words, run_cells
from likelify.reproduce.session import Session
from tests.reproduce.trial import METHODS, experiment


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Two cells of which one fails, in processes of their own."""
    out = tmp_path_factory.mktemp("processes")
    bad = Method("Bad", {"model": "glow", "levels": 4})
    session = Session.open(experiment(methods=(bad, METHODS[1]), baseline=None, seeds=1), out=out)
    events = []
    failures = run_cells(session.todo(), session.folders(), jobs=2, on_event=events.append)
    return session.again(), failures, events


def test_processes_run_cells_and_report_failures(processes):
    session, failures, events = processes
    assert [state.status for state in session.states] == ["failed", "finished"]
    assert session.states[0].why == failures["bad.digits.0"]
    assert list(failures) == ["bad.digits.0"]
    assert "glow with 4 levels" in failures["bad.digits.0"]
    kinds = {kind: [e.cell.method for e in events if e.kind == kind] for kind in ("start", "finish", "fail")}
    assert sorted(kinds["start"]) == ["Bad", "Splines"]
    assert kinds["finish"] == ["Splines"]
    assert kinds["fail"] == ["Bad"]
    assert any(event.kind == "progress" and event.phase for event in events)
    assert [cell.name for cell in session.todo()] == ["bad.digits.0"]


def test_bytes_that_are_no_text_end_nothing(tmp_path, monkeypatch):
    said = "import os; os.write(1, b'\\xff\\n'); raise SystemExit(3)"
    started = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda words, **options: started([words[0], "-c", said], **options))
    (cell, *_) = experiment().cells()
    failures = run_cells([cell], Folders(results=tmp_path, runs=tmp_path / "fits"))
    assert failures == {cell.name: "the process ended with code 3"}


def test_processes_give_the_figures_of_this_process(processes, finished):
    here = Session.open(experiment(), out=finished).states[1].result
    there = processes[0].states[1].result
    assert there.elbo == here.elbo
    assert there.machine["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", ["parent", "signal"])
def test_an_ended_worker_leaves_its_best_weights(tmp_path, end):
    cell = experiment(budget=300.0, fit={"clock": "processor"}).cells()[0]
    request = {
        "costs": False,
        "threads": 1,
        "cell": cell.model_dump(mode="json"),
        "folders": {"results": f"{tmp_path}/results", "runs": f"{tmp_path}/fits"},
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "likelify.reproduce.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", REQUEST: json.dumps(request)},
    )
    while json.loads(worker.stdout.readline())["phase"] != "fitting":
        pass
    if end == "parent":
        worker.stdin.close()
    else:
        worker.send_signal(signal.SIGTERM)
    start = time.monotonic()
    worker.wait(20)
    assert time.monotonic() - start < 10
    assert worker.returncode not in (0, None)
    assert [folder.name for folder in tmp_path.iterdir()] == ["fits"]
    (run,) = (tmp_path / "fits").iterdir()
    names = ["checkpoint.safetensors", "config.json", "course.json", "metrics.csv", "model.safetensors"]
    assert sorted(file.name for file in run.iterdir()) == names
    assert Run.load(run).flow().likelihood == "bound"
    worker.stdout.close()
    if not worker.stdin.closed:
        worker.stdin.close()


@pytest.mark.slow
def test_an_error_of_the_caller_ends_the_processes(tmp_path):
    cells = experiment(budget=300.0, fit={"clock": "processor"}).cells()[:2]

    def interrupt(event):
        if event.kind == "progress" and event.phase == "fitting":
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, Folders(results=tmp_path / "results", runs=tmp_path / "fits"), jobs=2, on_event=interrupt)
    # Either cell would have taken five minutes of the processor.
    assert time.monotonic() - start < 200
    assert [folder.name for folder in tmp_path.iterdir()] == ["fits"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_two_processes_work_on_one_cell(tmp_path):
    session = Session.open(experiment(device="auto", methods=METHODS[1:], baseline=None, seeds=1), out=tmp_path)
    events = []
    assert run_cells(session.todo(), session.folders(), devices=2, on_event=events.append) == {}
    (state,) = session.again().states
    assert state.result.course.reason == "finished"
    assert (session.results / state.result.picture).is_file()
    assert {event.phase for event in events} >= {"fitting"}
    # Once more: the model is there, and the second process has nothing to do.
    (session.results / "cells.json").unlink()
    assert run_cells(session.todo(), session.folders(), devices=2) == {}
    assert session.again().states[0].result.trained_here is False


LAUNCHER = """
[rank0]: Traceback (most recent call last):
[rank0]:   File "somewhere.py", line 3, in <module>
[rank0]: RuntimeError: the connection was closed
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: 
============================================================
likelify.reproduce.worker FAILED
============================================================
"""


def test_what_a_failed_process_said_last_is_its_error():
    assert last_words(LAUNCHER) == "[rank0]: RuntimeError: the connection was closed"
    assert last_words("Fatal Python error: Aborted\n\n=====\n") == "Fatal Python error: Aborted"
    assert last_words("\n") == ""
