"""Going on from the command line: what is said, what is refused, and what is left alone."""

import errno
import json
import os
import signal
import sys

import pytest

from likelify.app import after, resume
from likelify.fitting.locks import locked
from likelify.fitting.run import Run
from tests.app.command import here

FIT = ("fit", "iris", "--model", "flowified-mlp", "--set", "widths=[4]", "--set", "validations=2", "--no-report")
STEPS = ("--steps", 12, "--set", "checkpoint_seconds=0")


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys):
    """A run that Ctrl-C has ended at its fifth step."""
    monkeypatch.chdir(tmp_path)
    update = after.FitProgress.update

    def end(self, progress):
        update(self, progress)
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    # Whatever another test, or who started this one in the background, has made of it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(after.FitProgress, "update", end)
            output, _ = here(monkeypatch, capsys, *FIT, *STEPS, "-o", "run", code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Everything goes to run; if it is stopped: " in output
    assert output.endswith("fit --resume run\n")
    return tmp_path / "run"


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_run_alone_goes_on_to_the_same_result(stopped, monkeypatch, capsys):
    output, _ = here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    assert output.startswith("Going on with run: flowified-mlp of iris.\n")
    assert "Training ended (finished) after 12 steps" in output
    assert "exact" in output
    here(monkeypatch, capsys, *FIT, *STEPS, "-o", "whole")
    files, whole = content(stopped), content(stopped.parent / "whole")
    assert files.keys() == whole.keys()
    for name in ("model.safetensors", "samples.csv", "config.json", "evaluation.json"):
        assert files[name] == whole[name], name
    # Once more it says that there is nothing to do, and does nothing.
    output, _ = here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    assert output == "The fit of 'run' has ended (finished, 12 steps); nothing was changed.\n"
    assert content(stopped) == files


def test_what_is_missing_after_the_fit_is_made(stopped, monkeypatch, capsys):
    here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    files = content(stopped)
    (stopped / "samples.csv").unlink()
    output, _ = here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    assert "nats per row" not in output
    assert content(stopped) == files


def test_the_same_command_says_how_to_go_on(stopped, monkeypatch, capsys):
    before = content(stopped)
    _, error = here(monkeypatch, capsys, *FIT, *STEPS, "-o", "run", code=2)
    assert error.startswith(
        "Error: 'run' exists and is not empty; nothing was overwritten. It holds a run whose fit has not ended: it is "
        "at step 5. Go on with: "
    )
    assert content(stopped) == before


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 2)])
def test_on_a_terminal_it_asks(answer, code, stopped, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(type(resume.console), "is_terminal", True)
    monkeypatch.setattr(type(resume.console), "input", lambda self, words: sys.stdout.write(words) and answer)
    output, _ = here(monkeypatch, capsys, *FIT, *STEPS, "-o", "run", code=code)
    assert "holds a run whose fit has not ended: it is at step 5. Go on with it? [y/N]" in output
    assert Run.load(stopped).course().ended == (code == 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "13"), "steps is 12, not 13."),
        (("--max-time", "5m"), "max_time is None, not 300.0."),
        (("--seed", "1", "--lr", "0.5"), "seed is 0, not 1"),
        (("--model", "glow"), "the model is flowified-mlp, not glow"),
        (("--preset", "table1-1x1"), "the preset is none, not table1-1x1"),
        (("--conditional",), "it is not conditional"),
        (("--set", "widths=[5]"), "widths is (4,), not (5,)"),
        (("--set", "widht=3"), "Did you mean 'width"),
        (("--columns", "a"), "columns is None, not"),
        (("--out", "other"), "leave out --out"),
    ],
)
def test_words_that_contradict_the_run_are_refused(words, message, stopped, monkeypatch, capsys):
    before = content(stopped)
    _, error = here(monkeypatch, capsys, "fit", "--resume", "run", *words, code=2)
    assert message in error
    assert len(error.splitlines()) == 1
    assert content(stopped) == before


def test_the_words_of_the_run_and_its_data_elsewhere_are_taken(stopped, monkeypatch, capsys):
    _, error = here(monkeypatch, capsys, "fit", "diabetes", "--resume", "run", code=2)
    assert "The data 'diabetes' are not those that 'run' was fitted to" in error
    here(monkeypatch, capsys, *FIT, "--steps", 12, "--set", "checkpoint_seconds=9", "--resume", "run")
    assert Run.load(stopped).course().ended


def test_a_second_process_is_told(stopped, monkeypatch, capsys):
    import threading

    begun, ended = threading.Event(), threading.Event()

    def hold():
        with locked(stopped):
            begun.set()
            ended.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert begun.wait(60)
    try:
        _, error = here(monkeypatch, capsys, "fit", "--resume", "run", code=2)
        assert error.startswith("Error: Another process is at work in 'run'.")
        _, error = here(monkeypatch, capsys, *FIT, *STEPS, "-o", "run", code=2)
        assert "Another process is at work in it." in error
        _, error = here(monkeypatch, capsys, "evaluate", "run", "--iw-samples", 2)
    finally:
        ended.set()
        holder.join()
    assert "was interrupted" in error


def test_a_folder_that_cannot_be_written_is_an_error_and_stays_as_it_is(stopped, monkeypatch, capsys):
    before, opened = content(stopped), os.open

    def refuse(path, flags, *mode, **named):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(path).startswith("run"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags, *mode, **named)

    monkeypatch.setattr(os, "open", refuse)
    _, error = here(monkeypatch, capsys, "fit", "--resume", "run", code=2)
    assert "cannot be written: read-only file system" in error
    assert content(stopped) == before


def test_a_file_that_may_not_grow_keeps_the_previous_checkpoint(stopped, monkeypatch, capsys):
    import resource

    kept = content(stopped)["checkpoint.safetensors"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    update = after.FitProgress.update

    def end(self, progress):
        update(self, progress)
        if progress.step == 7:
            signal.raise_signal(signal.SIGINT)

    try:
        with monkeypatch.context() as patched:
            patched.setattr(after.FitProgress, "update", end)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
            output, error = here(monkeypatch, capsys, "fit", "--resume", "run", code=130)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The state of the fit was not saved, and the fit goes on." in error
    assert "The fit is saved at step 5, and goes on with: " in output
    assert content(stopped)["checkpoint.safetensors"] == kept
    here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    assert json.loads((stopped / "course.json").read_text())["reason"] == "finished"


def test_what_was_made_of_weights_before_the_fit_had_ended_is_made_again(stopped, monkeypatch, capsys):
    from likelify.fitting.report import page

    monkeypatch.setattr(page, "SECTIONS", [each for each in page.SECTIONS if each[1] == "Fit"])
    here(monkeypatch, capsys, "report", "run")
    here(monkeypatch, capsys, "score", "run", "iris")
    here(monkeypatch, capsys, "sample", "run", "-o", "run/samples.csv", "-n", 3)
    own = (stopped / "samples.csv").read_bytes()
    assert "was interrupted" in (stopped / "report.html").read_text()
    output, _ = here(monkeypatch, capsys, "fit", "--resume", "run")
    assert "was interrupted" not in (stopped / "report.html").read_text()
    # What may be the user's is kept under another name.
    assert "run/samples.csv was there before the fit had ended, and is run/samples-before.csv now." in output
    assert (stopped / "samples-before.csv").read_bytes() == own
    assert len((stopped / "samples.csv").read_text().splitlines()) == 1001
    about = json.dumps(Run.load(stopped).digest())
    assert all(
        about in file.read_bytes().decode("latin1").replace("\\", "")
        for file in (stopped / "scores").glob("validation-*")
    )
    files = content(stopped)
    output, _ = here(monkeypatch, capsys, "fit", "--resume", "run")
    assert output == "The fit of 'run' has ended (finished, 12 steps); nothing was changed.\n"
    assert content(stopped) == files
    # Other weights, or a note that cannot be read: made again.
    (stopped / "made.json").write_text("{")
    (stopped / "samples-before.csv").unlink()
    here(monkeypatch, capsys, "fit", "--resume", "run")
    assert content(stopped)["made.json"] == files["made.json"]


@pytest.mark.parametrize(
    "words", [("score", "run", "iris"), ("sample", "run", "-n", 2), ("report", "run"), ("evaluate", "run")]
)
def test_commands_say_that_the_fit_has_not_ended(words, stopped, monkeypatch, capsys):
    from likelify.fitting.report import page

    monkeypatch.setattr(page, "SECTIONS", [each for each in page.SECTIONS if each[1] == "Fit"])
    _, error = here(monkeypatch, capsys, *words)
    best = Run.load(stopped).course().best_step
    said = f"Warning: The fit of 'run' was interrupted. Its weights are the best that were kept so far, of step {best}."
    assert error.splitlines().count(said) == 1


def test_a_run_that_has_ended_refuses_other_data_too(stopped, monkeypatch, capsys):
    here(monkeypatch, capsys, "fit", "--resume", "run", "--no-report")
    (stopped / "checkpoint.safetensors").write_bytes(b"left by a kill at the very end")
    files = content(stopped)
    _, error = here(monkeypatch, capsys, "fit", "diabetes", "--resume", "run", "--no-report", code=2)
    assert "The data 'diabetes' are not those that 'run' was fitted to" in error
    assert content(stopped) == files
    output, _ = here(monkeypatch, capsys, "fit", "iris", "--resume", "run", "--no-report")
    assert output == "The fit of 'run' has ended (finished, 12 steps); nothing was changed.\n"
    assert not (stopped / "checkpoint.safetensors").exists()


def test_weights_that_are_gone_or_no_file_are_said_to_be_so(stopped, monkeypatch, capsys):
    file, step = stopped / "model.safetensors", Run.load(stopped).course().best_step
    file.unlink()
    _, error = here(monkeypatch, capsys, "sample", "run", "-n", 2, code=2)
    assert f"'run' has no model.safetensors: the file is gone. Those of step {step} were kept in it" in error
    for make in (os.mkfifo, os.mkdir):
        make(file)
        _, error = here(monkeypatch, capsys, "sample", "run", "-n", 2, code=2)
        assert "'run/model.safetensors' is not an ordinary file, and was not opened." in error
        (os.unlink if make is os.mkfifo else os.rmdir)(file)


def test_names_are_printed_as_they_are_and_terminals_obey_none(stopped, tmp_path, monkeypatch, capsys):
    output, error = here(monkeypatch, capsys, "score", "run", "d [/b]/x[red].csv", code=2)
    assert output == "Scoring 'd [/b]/x[red].csv' with 'run'.\n"
    assert "d [/b]/x[red].csv" in error
    config = json.loads((stopped / "config.json").read_text())
    config["data"]["name"] = "\x1b]0;pwned\x07[red]"
    (stopped / "config.json").write_text(json.dumps(config))
    output, error = here(monkeypatch, capsys, "fit", "--resume", "run", code=2)
    assert output == "Going on with run: flowified-mlp of ?]0;pwned?[red].\n"
    assert "\x1b" not in error
