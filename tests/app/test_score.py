"""likelify score, in this process where that is possible."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.app.cli import main
from likelify.data import open_source
from likelify.fitting.run import Run
from likelify.fitting.scoring import sharing
from likelify.fitting.settings import FitSettings, RunConfig
from tests.app.command import said
from tests.app.test_first_line import SECONDS, processor_seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of digits and one of a table, with the weights of their beginning."""
    folder = tmp_path_factory.mktemp("score")
    photos = zoo.MODELS["marginal-spline"](event_shape=(1, 8, 8), pixel_levels=256, couplings=2, hidden=(8,), bins=4)
    for name, model in (
        ("photos", photos),
        ("digits", zoo.MODELS["marginal-spline"](event_shape=(1, 8, 8), pixel_levels=17, couplings=2, hidden=(8,))),
        ("iris", zoo.MODELS["flowified-mlp"](event_shape=(4,), widths=(6,))),
    ):
        source = open_source("digits" if name == "photos" else name)
        facts = source.facts().model_copy(update={"levels": 256} if name == "photos" else {})
        run = Run.create(folder / name, RunConfig(data=facts, model=model, fit=FitSettings()))
        with lk.seeded(0):
            flow = model.build()
        flow.initialize(source.read_all("train").x)
        run.save_weights(flow.state_dict())
    images = open_source("digits").read_all("test").x.numpy()[:30]
    images[11, 0, 2:5, 3:6] = 16 - images[11, 0, 2:5, 3:6]
    np.save(folder / "digits.npy", images)
    rows = open_source("iris").read_all("test").x.numpy()
    with (folder / "rows.csv").open("w") as file:
        file.write(",".join(["id", *open_source("iris").columns]) + "\n")
        file.writelines(f"=A{number},{','.join(map(str, row))}\n" for number, row in enumerate(rows.tolist()))
    return folder


def score(monkeypatch, capsys, *words, code=0):
    return said(monkeypatch, capsys, "score", *words, code=code)


def test_what_is_scored_is_never_replaced(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = Path("rows.csv").read_text()
    error = score(monkeypatch, capsys, "iris", "rows.csv", "-o", "rows.csv", "--force", code=2)
    assert "is the file that is scored" in error
    assert Path("rows.csv").read_text() == before


def test_a_file_is_scored_with_its_ids_and_the_oddest_are_shown(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    out = tmp_path / "new" / "scores.csv"
    output = score(monkeypatch, capsys, "iris", "rows.csv", "-o", out, "--top", 3, "--draws", 4, "--blame")
    assert output.startswith("Scoring 'rows.csv' with 'iris'.\n")
    assert "importance weighting of 4 draws, ranked among 15 validation rows" in output
    assert re.search(r"15 rows, on average -?\d+\.\d{3} nats\.", output)
    assert "have an outlier rank of at most 0.05; of rows like the held-out ones at most 1 % and 5 % would." in output
    assert re.search(r"Among 1\d held-out rows no rank is below 0\.0\d+: rarer ones cannot be told\.", output)
    assert f"Scores: {out}" in output
    with out.open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows] == [f"'=A{number}" for number in range(15)]
    assert set(rows[0]) >= {"nats", "rank", "outlier", "outlier_rank", "blame", "blame_petal width (cm)"}
    shown = output.split("The 3 oddest rows")[1]
    oddest = sorted(rows, key=lambda row: -float(row["outlier"]))[:3]
    assert [line.split("│")[1].strip() for line in shown.splitlines() if "=A" in line] == [
        row["item"] for row in oddest
    ]
    again = score(monkeypatch, capsys, "iris", "rows.csv", "-o", out, code=2)
    assert "exists, and was left as it is" in again
    score(monkeypatch, capsys, "iris", "rows.csv", "-o", out, "--draws", 2, "--force", "--top", 0)
    assert "blame" not in out.read_text()


def test_rows_are_marked_as_outliers(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    out = tmp_path / "scores.csv"
    words = ["-o", out, "--draws", 2, "--top", 1]
    output = score(monkeypatch, capsys, "iris", "rows.csv", *words, "--contamination", 0.2)
    with out.open() as handle:
        marks = [row["is_outlier"] for row in csv.DictReader(handle)]
    said_so = f"{marks.count('True')} of them are marked as outliers: at most 0.2 of the held-out rows are as odd."
    assert said_so in output
    for share, fault in ((0.01, "Take a contamination of at least"), (1.5, "is a share between 0 and 1")):
        assert fault in score(monkeypatch, capsys, "iris", "rows.csv", "--contamination", share, "--draws", 2, code=2)
    assert "Outliers are marked among rows of tables" in score(
        monkeypatch, capsys, "digits", "digits.npy", "--contamination", 0.1, code=2
    )


def test_images_are_scored_and_shown_with_where_they_are_unlikely(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    words = ["-o", tmp_path / "s.parquet", "--picture", tmp_path / "odd.png", "--heat", tmp_path / "where.png"]
    output = score(monkeypatch, capsys, "digits", "digits.npy", *words, "--top", 2, "--draws", 2)
    assert "30 images, on average" in output
    assert "bits/dim" in output
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["item", "nats", "bits_per_dim", "standard_error", "rank"]
    assert table.num_rows == 30
    for name in ("odd.png", "where.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert "Where they are unlikely, with their ranks:" in output


def test_pictures_that_cannot_be_read_are_named(folder, monkeypatch, capsys, tmp_path):
    from PIL import Image

    monkeypatch.chdir(folder)
    photo = np.random.default_rng(0).integers(0, 256, size=(9, 8), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "whole.png").read_bytes()[:20])
    assert "broken.png" in score(monkeypatch, capsys, "photos", tmp_path, code=2)
    words = ["--skip-unreadable", "--draws", 2, "--reference", "none"]
    output = score(monkeypatch, capsys, "photos", tmp_path, *words)
    assert "Left out (unreadable, too small or of other pixels): broken.png." in output
    assert "1 images, on average" in output
    assert "whole.png" in output


def test_without_a_file_the_data_of_the_run_are_scored(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    output = score(monkeypatch, capsys, "iris", "--split", "validation", "--reference", "none", "--draws", 2)
    assert "Scoring the validation split of its data with 'iris'." in output
    assert "iris, validation: log-likelihoods by importance weighting of 2 draws.\n" in output
    assert "rank" not in output
    assert "To keep all scores, name a file: -o scores.csv" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("iris", "nothere.csv"), "There is no file 'nothere.csv'."),
        (("iris", "cats"), "There is no source 'cats'"),
        (("nowhere", "rows.csv"), "'nowhere' is not a run folder"),
        (("iris", "rows.csv", "-o", "scores.xlsx"), "Scores are written to files in .csv or .parquet"),
        (("iris", "rows.csv", "--heat", "h.png"), "--heat is for images, and 'iris' is a model of rows."),
        (("digits", "--picture", "h.jpg"), "--picture writes a picture in .png; 'h.jpg' is none."),
        (("digits", "--picture", "h.png", "--top", "0"), "--top 0 leaves none"),
        (("iris", "rows.csv", "--top", "-1"), "--top must be 0, 1, 2, ..., got -1."),
        (("iris", "rows.csv", "--draws", "0"), "numbers of draws do not fit"),
        (("iris", "rows.csv", "--jobs", "0"), "number of processes must be 1, 2, ..., got 0."),
        (("digits", "--blame"), "Columns are blamed in rows of tables"),
        (("iris", "digits.npy"), "digits.npy"),
    ],
)
def test_errors_are_one_paragraph(folder, monkeypatch, capsys, words, message):
    monkeypatch.chdir(folder)
    error = score(monkeypatch, capsys, *words, code=2)
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_ctrl_c_says_how_to_go_on(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(folder)
    passes = sharing.scored_passes

    def interrupted(*arguments, **words):
        yield from passes(*arguments, **words)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("likelify.fitting.scoring.scoring.scored_passes", interrupted)
    words = ("iris", "rows.csv", "--draws", 2)
    for extra, message in (
        (["-o", tmp_path / "s.csv"], f"kept in '{tmp_path / 's.csv'}.parts'; the same command goes on with it."),
        ([], "Nothing is kept without a file: -o scores.csv."),
    ):
        threads = torch.get_num_threads()
        monkeypatch.setattr(sys, "argv", ["likelify", "score", *map(str, [*words, *extra])])
        with pytest.raises(SystemExit, match="130"):
            main()
        torch.set_num_threads(threads)
        assert f"Interrupted after 15 rows. {'What is done is ' if extra else ''}{message}" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    score(monkeypatch, capsys, *words, "-o", tmp_path / "s.csv")
    assert not (tmp_path / "s.csv.parts").exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs the times that Linux keeps of a process")
def test_the_first_line_comes_before_what_takes_long(folder):
    words = [sys.executable, "-m", "likelify.app.cli", "score", "iris", "rows.csv"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=folder) as command:
        assert command.stdout.readline() == "Scoring 'rows.csv' with 'iris'.\n"
        spent = processor_seconds(command.pid)
        command.kill()
    assert spent < SECONDS


@pytest.mark.slow
def test_a_real_ctrl_c_and_the_same_words_give_the_same_file(folder, tmp_path):
    np.save(tmp_path / "many.npy", np.tile(np.load(folder / "digits.npy"), (400, 1, 1, 1)))
    words = [sys.executable, "-m", "likelify.app.cli", "score", str(folder / "digits"), str(tmp_path / "many.npy")]
    words += ["--draws", "2", "--jobs", "2", "-o"]
    subprocess.run([*words, str(tmp_path / "whole.csv")], check=True, capture_output=True)
    process = subprocess.Popen(
        [*words, str(tmp_path / "cut.csv")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("cut.csv.parts/0*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert "the same command goes on with it" in output
    subprocess.run([*words, str(tmp_path / "cut.csv")], check=True, capture_output=True)
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
