"""What the command line does when something outside it goes wrong: disks, signals, kills, names that are taken."""

import errno
import json
import math
import os
import re
import signal
import sys

import numpy as np
import pandas as pd
import pytest

import likelify as lk
from likelify.app import after, models
from likelify.app import fit as fitting
from likelify.app.cli import main
from likelify.app.progress import share_done
from likelify.app.show import Terminal, show_evaluation
from likelify.app.signals import ended_like_ctrl_c
from likelify.data import Facts, open_source
from likelify.errors import DataError
from likelify.fitting.figures import Evaluation, Figure, Score
from likelify.fitting.run import Run
from tests.app.command import here

FIT = ("--model", "flowified-mlp", "--set", "widths=[4]", "--set", "validations=2", "--steps", 4, "--no-report")


@pytest.fixture
def fitted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    here(monkeypatch, capsys, "fit", "iris", *FIT, "-o", "run")
    return tmp_path / "run"


def test_fits_of_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "default_folder", lambda facts: tmp_path / "runs" / "iris-now")
    for _ in range(3):
        here(monkeypatch, capsys, "fit", "iris", *FIT)
    names = {folder.name for folder in (tmp_path / "runs").iterdir()}
    assert names == {"iris-now", "iris-now-2", "iris-now-3"}
    _, error = here(monkeypatch, capsys, "fit", "iris", *FIT, "-o", "runs/iris-now", code=2)
    assert error.startswith("Error: 'runs/iris-now' exists and is not empty; nothing was overwritten.")


def test_values_far_from_all_others_are_named_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(100, 4)).round(3)
    rows[3, 1], rows[5, 2] = 1e30, -1e40
    lines = [",".join(map(str, row)) for row in rows.tolist()]
    (tmp_path / "far.csv").write_text("\n".join(["near,far out,farther,last", *lines]))
    _, error = here(monkeypatch, capsys, "fit", "far.csv", *FIT, "-o", "run", code=2)
    assert "column 'far out', 'farther' has values so far from the others that float32 cannot tell" in error
    assert "--model table-flow; in Python lk.zoo.build('table-flow', event_shape=4)" in error
    assert not (tmp_path / "run").exists()
    here(monkeypatch, capsys, "fit", "far.csv", *FIT, "--set", "trim=0.1", "-o", "trimmed")
    flow = lk.Flow(lk.Normal((4,)), lk.Chain([lk.transforms.Columns(4), lk.ActNorm(4)]))
    with pytest.raises(DataError, match="'far out', 'farther'"):
        lk.fit(flow, pd.DataFrame(rows, columns=["near", "far out", "farther", "last"]), steps=1)


def test_evaluate_on_a_read_only_disk_prints_first_and_warns(fitted, monkeypatch, capsys):
    kept = (fitted / "evaluation.json").read_text()

    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", fail)
    words = ("evaluate", "run", "--iw-samples", 200)
    output, error = here(monkeypatch, capsys, *words)
    assert "importance-weighted" in output
    assert error == (
        "Warning: These figures were not kept. 'run/evaluation.json' cannot be written: read-only file system. Name a "
        "place that you may write to, or have the permissions changed.\n"
    )
    assert (fitted / "evaluation.json").read_text() == kept
    _, error = here(monkeypatch, capsys, "sample", "run", "-n", 2, code=2)
    assert error.startswith("Error: 'run/drawn.csv' cannot be written: read-only file system.")


def test_evaluate_keeps_finer_figures_and_says_so(fitted, monkeypatch, capsys):
    here(monkeypatch, capsys, "evaluate", "run", "--elbo-samples", 5)
    kept = (fitted / "evaluation.json").read_text()
    output, error = here(monkeypatch, capsys, "evaluate", "run")
    assert "exact" in output
    assert "'run/evaluation.json' holds figures of more draws" in error
    assert (fitted / "evaluation.json").read_text() == kept


def test_evaluate_says_that_a_fit_was_killed(fitted, monkeypatch, capsys):
    run = Run.load(fitted)
    run.save_course(run.course().model_copy(update={"reason": "running"}))
    output, error = here(monkeypatch, capsys, "evaluate", "run")
    assert "exact" in output
    assert "Warning: The fit of 'run' did not end: it was killed." in error


def test_a_damaged_run_is_one_paragraph(fitted, monkeypatch, capsys):
    values = json.loads((fitted / "config.json").read_text())
    values["model"]["widths"] = [65536, 65536]
    (fitted / "config.json").write_text(json.dumps(values))
    _, error = here(monkeypatch, capsys, "evaluate", "run", code=2)
    assert error.startswith("Error: The settings in 'run' make a model that is far larger than its weights")
    assert len(error.splitlines()) == 1


@pytest.fixture
def heard():
    """Let a signal have its usual effect, which nohup takes from what it starts, for the test."""
    before = {}
    yield lambda number: before.setdefault(number, signal.signal(number, signal.SIG_DFL))
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_fit_as_ctrl_c_does(number, tmp_path, monkeypatch, capsys, heard):
    heard(number)
    monkeypatch.chdir(tmp_path)
    update = after.FitProgress.update

    def end(self, progress):
        update(self, progress)
        if progress.step == 5:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(after.FitProgress, "update", end)
    words = [word if word != 4 else 1_000 for word in FIT]
    output, _ = here(monkeypatch, capsys, "fit", "iris", *words, "-o", "run", code=130)
    assert "Training ended (interrupted) after" in output
    assert re.search(r"The fit is saved at step [5-9], and goes on with: .*fit --resume run$", output)
    course = Run.load("run").course()
    assert course.reason == "interrupted"
    # The steps since the last validation are validated first.
    assert [point.step for point in course.points] == [0, course.steps]
    assert 5 <= course.steps < 10


def test_handlers_are_put_back_and_what_ignores_a_signal_goes_on_ignoring_it(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_like_ctrl_c():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_dependent_columns_are_refused_before_a_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"{i % 17 + 0.5},{i * i % 23},{2 * (i % 17) + 1}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c", *lines]) + "\n")
    _, error = here(monkeypatch, capsys, "fit", "rows.csv", "--steps", 2, code=2)
    assert "'c' is 2 * 'a'" in error
    assert "Leave one of each out" in error
    assert [file.name for file in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_is_said_in_words(error, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(models, "models_command", fail)
    _, shown = here(monkeypatch, capsys, "models", code=2)
    assert (
        shown == "Error: There is not enough memory. Of a fit, try smaller batches (--batch-size) or a smaller model.\n"
    )


def test_errors_that_are_nobodys_fault_keep_their_traceback(monkeypatch):
    def fail():
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(models, "models_command", fail)
    monkeypatch.setattr(sys, "argv", ["likelify", "models"])
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main()


@pytest.mark.parametrize(("heavy", "warned"), [(0.31, True), (0.01, False), (None, False)])
def test_heavy_tails_of_importance_weights_are_a_warning(heavy, warned, capsys):
    figure = Figure(mean=1.5, standard_error=0.1, count=20)
    elbo = Score(bits=figure, nats=figure, samples=1)
    weighted = Score(bits=figure, nats=figure, samples=100, ess=7.0, k=None if heavy is None else 0.8, heavy=heavy)
    show_evaluation(Evaluation(source="iris", split="test", elbo=elbo, iw=weighted), open_source("iris").facts())
    shown = capsys.readouterr().out
    words = "Warning: the importance weights of 31% of these rows have heavy tails (median shape k = 0.80)."
    assert (words in shown) == warned
    assert ("--iw-samples 1000" in shown) == warned
    assert "were weighted" not in shown


@pytest.mark.parametrize(("bits", "said"), [(135.9, True), (8.01, True), (7.99, False)])
def test_figures_that_are_worse_than_equal_chances_of_all_levels_are_said_to_be(bits, said, capsys):
    figure = Figure(mean=bits, standard_error=0.1, count=20)
    elbo = Score(bits=figure, nats=figure, samples=1)
    facts = Facts(name="x", family="x", kind="image", event_shape=(1, 4, 4), levels=256, sizes={}, fingerprint="")
    show_evaluation(Evaluation(source="x", split="test", elbo=elbo, exact=True), facts)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("were all 256 levels equally likely, it would be 8 bits/dim" in shown) == said


@pytest.mark.parametrize(("left_out", "ess"), [(2, 7.0), (20, None)])
def test_items_without_weights_are_said_to_be_left_out(left_out, ess, capsys):
    figure = Figure(mean=-math.inf, standard_error=None, count=20)
    weighted = Score(bits=figure, nats=figure, samples=100, ess=ess, left_out=left_out)
    elbo = Score(bits=figure, nats=figure, samples=1)
    show_evaluation(Evaluation(source="iris", split="test", elbo=elbo, iw=weighted), open_source("iris").facts())
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Warning: {left_out} of the 20 rows that were weighted have no weights above zero" in shown
    assert ("sample size of the importance weights: 7.0" in shown) == (ess is not None)


def test_names_are_printed_as_they_are_and_obeyed_by_nobody(tmp_path, monkeypatch, capsys):
    place = tmp_path / "d [/b] :cat: x[red]"
    place.mkdir(parents=True)
    name = f"{place.relative_to(tmp_path)}/t.csv"
    lines = "\n".join(f"{number % 11}.25,{number % 7}.5" for number in range(40))
    (place / "t.csv").write_text(f"a[/b],b\n{lines}\n")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    out, _ = here(monkeypatch, capsys, "fit", name, *FIT, "-o", run)
    assert f"Opening {name}\n" in out
    out, _ = here(monkeypatch, capsys, "score", run, name, "--top", 3, "--reference", "none")
    assert f"Scoring '{name}'" in out
    config = json.loads((run / "config.json").read_text())
    config["data"]["name"] = "table:/a\x1b]0;pwned\x07\x1b[2J[/b].csv"
    (run / "config.json").write_text(json.dumps(config))
    out, err = here(monkeypatch, capsys, "report", run)
    assert "table:/a?]0;pwned??[2J[/b].csv" in out
    assert not {"\x1b", "\x07"} & set(out + err)


def test_cells_of_tables_are_plain_text(capsys):
    from rich.table import Table

    table = Table("a [/b]", "c")
    table.add_row("[red]x :cat:", "\x1b[2J\u202e")
    Terminal(width=60).print(table)
    shown = capsys.readouterr().out
    assert "a [/b]" in shown
    assert "[red]x :cat:" in shown
    assert "?[2J?" in shown


def test_titles_of_bars_are_plain_text():
    import io

    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, width=80)
    with share_done(terminal, "of [/b] {x}") as show:
        show(0.5)
    assert "of [/b] {x}" in file.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "run"], "What you want may be 'report'."),
        (["sample", "run", "--interpolate", "test"], "from one item to another: --interpolate 0 7 of the test split"),
        (["frobnicate"], 'Unknown command "frobnicate".'),
    ],
)
def test_words_that_are_none_lead_on(words, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["likelify", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert said in " ".join(capsys.readouterr().err.split())
