"""Words that the command line must not take for others, and files that are not its own."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

from likelify.app import cli, environment
from likelify.app.parsing import parse_settings
from likelify.app.show import command
from likelify.errors import ConfigError
from tests.app.command import here, said

FIT = ("--model", "flowified-mlp", "--set", "widths=[4]", "--set", "validations=2", "--steps", 4, "--no-report")


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "iris", "--seed", "1.5"),
        ("fit", "iris", "--steps", "2.5"),
        ("fit", "iris", "--threads", "1e0"),
        ("sample", "run", "-n", "2.5"),
        ("score", "run", "--top", "1.5"),
        ("evaluate", "run", "--iw-samples", "0.5"),
        ("reproduce", "figure-1", "--seeds", "1.5"),
    ],
)
def test_numbers_with_a_fraction_are_no_whole_ones(words, monkeypatch, capsys):
    assert f"it takes a whole number, and got '{words[-1]}'" in said(monkeypatch, capsys, *words, code=2)


def test_words_that_contradict_one_another_are_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for words, name in (
        (("--steps", "2", "--model", "table-flow", "--set", "steps=5"), "The setting steps is given twice"),
        (("--batch-size", "8", "--set", "batch-size=9"), "The setting batch_size is given twice"),
        (("--set", "lr=1e-3", "--set", "lr=0.1"), "--set lr is given twice"),
    ):
        assert name in said(monkeypatch, capsys, "fit", "iris", *words, code=2)
    with pytest.raises(ConfigError, match="twice"):
        parse_settings(["batch-size=1", "batch_size=2"])
    for word, value in {"--resume": "x", "--out": "x", "--device": "cpu", "--devices": "2", "--nodes": "2"}.items():
        error = said(monkeypatch, capsys, "fit", "iris", "--dry-run", word, value, code=2)
        assert f"leave out {word}." in error
    assert "leave out --html" in said(
        monkeypatch, capsys, "reproduce", "figure-1", "--dry-run", "--html", "a.html", code=2
    )


def test_a_page_takes_the_place_of_pages_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    for name, what in (("mine.html", "is no page of likelify"), ("notes.txt", "is none"), (".", "is none")):
        error = said(monkeypatch, capsys, "reproduce", "figure-3", "--out", "here", "--html", name, code=2)
        assert what in error
        assert not (tmp_path / "here").exists()
    assert (tmp_path / "mine.html").read_text() == (tmp_path / "notes.txt").read_text() == "mine"
    for _ in range(2):
        here(monkeypatch, capsys, "reproduce", "figure-3", "--out", "here", "--html", "figure.html")
    assert "<!DOCTYPE html>" in (tmp_path / "figure.html").read_text()


def test_a_refused_fit_leaves_no_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "images.npz", np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8))
    error = said(monkeypatch, capsys, "fit", "images.npz", "--trim", "0.1", "-o", "run", code=2)
    assert "Only rows of tables are trimmed" in error
    assert not (tmp_path / "run").exists()


def test_commands_to_copy_are_read_by_a_shell_as_they_are_meant(monkeypatch, capsys, tmp_path):
    assert shlex.split(command("fit", "--resume", "runs/a b $c"))[-1] == "runs/a b $c"
    monkeypatch.chdir(tmp_path)
    printed = said(monkeypatch, capsys, "fit", "iris", *FIT, "-o", "a run")
    assert "fit --resume 'a run'" in printed
    assert "sample 'a run' -n 100 -o samples.csv" in printed


def test_whoever_reads_no_more_ends_nothing(tmp_path):
    words = [sys.executable, "-m", "likelify.app.cli", "fit", "iris", *map(str, FIT), "-o", str(tmp_path / "run")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=120) == 0, process.stderr.read()
    assert json.loads((tmp_path / "run" / "course.json").read_text())["steps"] == 4


def test_an_interruption_is_said(monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr("likelify.app.models.models_command", stop)
    assert "Interrupted." in said(monkeypatch, capsys, "models", code=130)


def test_memory_is_full_where_that_is_said(monkeypatch):
    assert "not enough memory" in cli._in_words(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert "not enough memory" in cli._in_words(RuntimeError("DefaultCPUAllocator: not enough memory: you tried"))
    assert cli._in_words(RuntimeError("unsupported memory format option Preserve")) is None
    monkeypatch.setenv("NODE_RANK", "abc")
    with pytest.raises(ConfigError, match="NODE_RANK must be a whole number, and is 'abc'"):
        environment.number_of("NODE_RANK")


def test_letters_that_a_terminal_has_not_do_not_end_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "likelify.app.cli", "score", "run", "ñ表.csv"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"UnicodeEncodeError" not in done.stderr
