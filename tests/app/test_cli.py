"""The command line as a user runs it: a fit and what comes first after it in processes of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from likelify.app.cli import main
from likelify.app.parsing import parse_duration, parse_settings
from likelify.errors import ConfigError
from tests.app.command import said

PROGRAM = Path(sys.executable).with_name("likelify")


def likelify(*words, folder, code=0):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run([PROGRAM, *map(str, words)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    words = ["--steps", 20, "--set", "couplings=1", "--set", "hidden=[8]", "--conditional", "-o", "run", "--seed", 3]
    return folder, likelify("fit", "digits", *words, folder=folder)


def test_fit_leaves_a_complete_run_and_says_what_comes_next(fitted):
    folder, output = fitted
    assert "ELBO" in output
    assert "importance-weighted" in output
    following = output.split("Next: ")[1].splitlines()[0].split()
    assert following[1:3] == ["evaluate", "run"]
    assert shutil.which(following[0]) == str(PROGRAM)
    names = {path.name for path in (folder / "run").iterdir()}
    kept = {
        "config.json",
        "model.safetensors",
        "course.json",
        "metrics.csv",
        "evaluation.json",
        "samples.png",
        "report.html",
        "made.json",
    }
    assert names == kept | {"scores"}
    scores = sorted(path.name for path in (folder / "run" / "scores").iterdir())
    assert scores == ["replacements.safetensors", "test-100-draws.safetensors", "validation-100-draws.safetensors"]
    config = json.loads((folder / "run" / "config.json").read_text())
    assert config["model"]["couplings"] == 1
    assert config["fit"]["seed"] == 3
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())
    assert evaluation["elbo"]["bits"]["count"] == 360
    assert evaluation["elbo"]["bits"]["standard_error"] > 0


def test_fit_leaves_a_report_and_report_makes_it_again_elsewhere(fitted, monkeypatch, capsys):
    folder, output = fitted
    monkeypatch.chdir(folder)
    assert re.search(r"Report: run/report.html \(\d+ kB, made in \d+\.\d s\)", output)
    made = said(monkeypatch, capsys, "report", "run", "-o", "pages/digits.html")
    assert made.startswith("Making a report of run (marginal-spline on digits)")
    pages = [(folder / name).read_text() for name in ("run/report.html", "pages/digits.html")]
    assert pages[0].partition("Made on")[0] == pages[1].partition("Made on")[0]
    command = "likelify fit digits --model marginal-spline --conditional --steps 20 --seed 3 --set couplings=1 --set "
    assert f"<pre><code>{command}&#39;hidden=[8]&#39;</code></pre>" in pages[0]


def test_evaluate_repeats_the_figures_of_the_fit(fitted, monkeypatch, capsys):
    folder, output = fitted
    monkeypatch.chdir(folder)
    again = likelify("evaluate", "run", folder=folder)
    row = next(line for line in again.splitlines() if "ELBO" in line)
    assert row in output
    validation = said(monkeypatch, capsys, "evaluate", "run", "--split", "validation", "--iw-samples", 0)
    assert "144 images" in validation
    assert "importance" not in validation


def test_evaluate_prints_the_gap_of_the_bound(fitted, monkeypatch, capsys):
    monkeypatch.chdir(fitted[0])
    words = ["--elbo-samples", 1, "--iw-samples", 8, "--iw-items", 5, "--gap"]
    output = said(monkeypatch, capsys, "evaluate", "run", *words)
    assert re.search(r"above the ELBO by \(nats per image\): 2 draws 0\.\d+ \+- .*, 8 draws \d", output)


def test_sample_writes_a_picture(fitted, monkeypatch, capsys):
    monkeypatch.chdir(fitted[0])
    said(monkeypatch, capsys, "sample", "run", "-n", 5, "--label", 7, "-o", "seven.png", "--temperature", 0.5)
    assert (fitted[0] / "seven.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit", "zebras"), "There is no source 'zebras'. Known are: digits, "),
        (("fit",), "likelify fit needs data, such as 'likelify fit digits'; only --dry-run does without."),
        (
            ("fit", "digits", "--model", "sylvester", "--mixing", "1x1"),
            "The setting 'mixing' does not apply to the model 'sylvester'.",
        ),
        (("fit", "digits", "--preset", "table9"), "There is no preset 'table9'. Did you mean 'table1-1x1'"),
        (("fit", "digits", "--model", "glwo"), "There is no model 'glwo'. Did you mean 'glow'"),
        (("fit", "digits", "--mixing", "emergin"), "There is no mixing 'emergin'. Did you mean 'emerging'"),
        (("fit", "digits", "--size", "small"), "Only presets have sizes: name a preset too"),
        (
            ("fit", "digits", "--preset", "table2-sylvester", "--model", "glow"),
            "The preset 'table2-sylvester' is of the model 'sylvester', not of 'glow'.",
        ),
        (("fit", "--dry-run", "--preset", "table1-1x1", "--threads", "0"), "--threads must be at least 1, got 0."),
        (("fit", "--dry-run", "--model", "sylvester", "--batch-size", "0"), "batch_size"),
        (("evaluate", "run", "--set", "bins=9"), "with bins changed"),
        (("evaluate", "run", "--iw-samples", "0", "--gap"), "at least 2 draws for weighting; iw_samples is 0"),
        (("evaluate", "run", "--set", "log_det=exact"), "There is no setting 'log_det'"),
        (
            ("fit", "digits", "--set", "widht=3"),
            "no setting of the model marginal-spline or of the fit 'widht'",
        ),
        (("fit", "digits", "--set", "couplings=zero"), "couplings"),
        (("fit", "digits", "--max-time", "soon"), "Write it like 90s, 10m or 1h30m."),
        (("fit", "digits", "--model", "glow", "--set", "levels=4"), "is not a multiple of 16"),
        (("evaluate", "nowhere"), "'nowhere' is not a run folder"),
        (("sample", "run", "--label", "10"), "its classes are 0..9"),
        (("sample", "run", "-n", "0"), "The number of samples must be 1, 2, ..., got 0."),
    ],
)
def test_errors_are_one_paragraph(fitted, words, message, monkeypatch, capsys):
    # In this process: starting one for each would take most of the time of all tests.
    monkeypatch.chdir(fitted[0])
    monkeypatch.setattr(sys, "argv", ["likelify", *words])
    with pytest.raises(SystemExit, match="2"):
        main()
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_a_noisy_model_is_fitted_and_says_what_its_figures_are(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["--steps", 3, "--model", "residual", "--set", "levels=1", "--set", "hidden=8", "--set", "validations=1"]
    output = said(monkeypatch, capsys, "fit", "digits", *words, "--no-report", "-o", "run")
    assert "ELBO" in output
    assert "No importance weighting: the log-determinant is a random estimate here" in output
    assert output.split("Next: ")[1].split()[1:3] == ["sample", "run"]
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert evaluation["iw"] is None
    words = ["--set", "log_det=exact", "--split", "validation", "--elbo-samples", 1, "--iw-samples", 2]
    exact = said(monkeypatch, capsys, "evaluate", "run", *words)
    assert "importance-weighted" in exact
    assert "No importance weighting" not in exact
    # Figures of another model than the run's are shown and not kept.
    assert not (tmp_path / "run" / "evaluation-validation.json").exists()
    said(monkeypatch, capsys, "sample", "run", "-n", 2)
    assert (tmp_path / "run" / "drawn.png").exists()


def test_dry_run_counts_and_times_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ("fit", "--dry-run", "--preset", "table1-emerging", "--size", "small", "--set", "growth=2", "--seed", "1")
    output = said(monkeypatch, capsys, *words)
    assert "table1-emerging (small size, with growth=2): mixing-flow for images of 3x32x32, 256 levels" in output
    total, *rest = [line for line in output.splitlines() if line.startswith(("parameters", "  "))]
    numbers = [int(line.split()[-1].replace(",", "")) for line in (total, *rest)]
    assert sum(numbers[1:]) == numbers[0]
    for part in ("dequantizer", "split priors", "AutoregressiveConv", "Coupling", "base"):
        assert part in output
    assert "one training step on 8 images" in output
    assert "peak memory" in output
    assert "bits/dim (likelihood: bound)" in output
    assert list(tmp_path.iterdir()) == []


def test_dry_run_takes_the_shape_of_a_source(monkeypatch, capsys):
    words = ("fit", "digits", "--dry-run", "--model", "sylvester", "--conditional", "--batch-size", "3")
    output = said(monkeypatch, capsys, *words)
    assert "sylvester: sylvester for images of 1x8x8, 17 levels" in output
    assert "one training step on 3 images" in output


def test_a_mixing_layer_alone_asks_for_a_glow(monkeypatch, capsys):
    output = said(monkeypatch, capsys, "fit", "digits", "--dry-run", "--mixing", "emerging", "--set", "hidden=4")
    assert "glow: glow for images of 1x8x8" in output
    assert "AutoregressiveConv" in output


def test_models_lists_every_model_and_preset_with_a_line_each(monkeypatch, capsys):
    from likelify.zoo import MODELS, PRESETS

    lines = said(monkeypatch, capsys, "models").splitlines()
    for name in (*MODELS, *PRESETS):
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert len(line) <= 120
        assert len(line.split()) > 3


def test_debug_shows_the_traceback(fitted):
    assert "Traceback" in likelify("evaluate", "nowhere", "--debug", folder=fitted[0], code=1)


def test_changed_data_are_noticed(fitted, monkeypatch, capsys):
    monkeypatch.chdir(fitted[0])
    config = fitted[0] / "run" / "config.json"
    kept = config.read_text()
    values = json.loads(kept)
    config.write_text(json.dumps(values | {"data": values["data"] | {"fingerprint": "f" * 16}}))
    assert "not those that 'run' was fitted to" in said(monkeypatch, capsys, "evaluate", "run", code=2)
    config.write_text(kept)


def test_help_fits_a_screen_and_has_an_example(fitted):
    for command in ("fit", "evaluate", "score", "sample", "report", "models"):
        text = likelify(command, "--help", folder=fitted[0])
        assert f"likelify {command}" in text.split("Example:")[1]
        # All that there is to say of a fit is in three panels.
        assert len(text.splitlines()) <= (51 if command == "fit" else 40)
    assert "likelify fit digits" in likelify("--help", folder=fitted[0])


def test_durations_and_settings():
    assert [parse_duration(t) for t in ("90", "90s", "1.5s", "10m", "1h30m", "2h")] == [90, 90, 1.5, 600, 5400, 7200]
    for text in ("", "m", "10x", "-5s"):
        with pytest.raises(ConfigError):
            parse_duration(text)
    assert parse_settings(["a-b=3", "c=[1,2]", "d=word", "e=null"]) == {"a_b": 3, "c": [1, 2], "d": "word", "e": None}
    assert parse_settings(["exp_tol=None", "clip=none", "word=nones"]) == {
        "exp_tol": None,
        "clip": None,
        "word": "nones",
    }
    with pytest.raises(ConfigError, match="name=value"):
        parse_settings(["a"])
