"""A folder of photographs from nothing to samples and scores, on the command line."""

import csv
import subprocess
import sys

import pytest
import torch

from likelify import Run
from likelify.data import open_items
from likelify.errors import RunError
from tests.data.photographs import write_photographs


def likelify(place, *words):
    done = subprocess.run(
        [sys.executable, "-m", "likelify.app.cli", *words], capture_output=True, text=True, cwd=place, check=False
    )
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    return said


def scored(place, run, folder):
    likelify(place, "score", run, folder, "-o", "scores.csv")
    with open(place / "scores.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert all(0 < float(row["rank"]) <= 1 for row in rows)
    return [row["file"] for row in rows]


def test_a_folder_is_fitted_with_options_that_its_run_remembers(tmp_path):
    photographs = write_photographs(tmp_path / "my-photos", 12, least=20, most=40)
    words = ["--image-size", "4x8", "--crop", "stretch", "--steps", "2", "--set", "validations=1", "--workers", "1"]
    tiny = ["--mixing", "1x1", "--set", "levels=1", "--set", "model.steps=1", "--set", "hidden=4"]
    said = likelify(tmp_path, "fit", "my-photos", *words, *tiny, "--out", "run", "--no-report")
    assert "each as a whole reduced to 4x8 by means over areas, whatever its aspect" in said
    run = Run.load(tmp_path / "run")
    assert run.source().event_shape == (3, 4, 8)
    assert (tmp_path / "run" / "samples.png").stat().st_size > 1000
    batch = next(open_items(photographs, run.config.data, run.config.opened.options).batches(12))
    assert batch.carried["file"] == sorted(path.name for path in photographs.iterdir())
    assert torch.isfinite(run.flow().elbo(batch.batch.x).value).all()
    (photographs / "photo 000.png").rename(photographs / "other.png")
    with pytest.raises(RunError, match="are not those that .* was fitted to"):
        run.source()


@pytest.mark.slow
def test_fifty_photographs_need_nothing_but_the_path(tmp_path):
    write_photographs(tmp_path / "my-photos" / "sub", 50)
    (tmp_path / "my-photos" / "Thumbs.db").touch()
    # With a limit on time, so that the test ends; all else is as usual.
    said = likelify(tmp_path, "fit", "my-photos", "--max-time", "5s", "--out", "run")
    assert "50 pictures (18 PNG, 12 WEBP, 12 TIFF, 8 JPEG); of 74x69 to 195x190" in said
    assert "reduced to 32x32 by means over areas" in said
    assert "40 / 5 / 5 by the hash of their content" in said
    assert (tmp_path / "run" / "report.html").is_file()
    write_photographs(tmp_path / "more", 6, least=40, most=60)
    assert len(scored(tmp_path, "run", "more")) == 6
