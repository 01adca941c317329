"""The command line on tables, and on data of the user."""

import csv
import gzip
import json
import struct

import numpy as np
import pytest

from tests.app.command import said as run

SMALL = ["--model", "flowified-mlp", "--set", "widths=[6,2]", "--set", "net_hidden=4", "--set", "bins=3"]


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(path, count=80):
    """Two columns on very different scales, of which one follows the other."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=count)
    rows = np.stack([1000 + 10 * first, 0.01 * (first + 0.3 * rng.normal(size=count)), rng.normal(size=count)], 1)
    lines = ['big,"small, and narrow",plain', *(",".join(map(repr, map(float, row))) for row in rows)]
    path.write_text("\n".join(lines))


def test_a_table_from_fit_to_rows(monkeypatch, capsys, here):
    write_rows(here / "rows.csv")
    output = run(monkeypatch, capsys, "fit", "rows.csv", "--steps", 20, *SMALL)
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("rows-2")
    assert "Evaluating on 8 test rows" in output
    assert "nats per row" in output
    assert "bits/dim" not in output
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "metrics.csv",
        "evaluation.json",
        "samples.csv",
        "course.json",
        "report.html",
        "made.json",
        "scores",
    }
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["elbo"]["nats"]["count"] == 8
    with open(folder / "metrics.csv", newline="") as file:
        points = list(csv.DictReader(file))
    assert list(points[0]) == ["step", "seconds", "train_nats", "validation_nats", "lr"]
    assert float(points[-1]["validation_nats"]) > float(points[0]["validation_nats"])
    best = max(float(point["validation_nats"]) for point in points)
    assert f"validation {best:.3f} nats." in output
    # A run knows the units of its rows, also where the data are gone.
    (here / "rows.csv").unlink()
    assert run(monkeypatch, capsys, "sample", folder, "-n", 30, "-o", "drawn.csv", "--seed", 1)
    with open("drawn.csv", newline="") as file:
        drawn = list(csv.reader(file))
    assert drawn[0] == ["big", "small, and narrow", "plain"]
    values = np.array(drawn[1:], dtype=float)
    assert values.shape == (30, 3)
    assert np.median(values, axis=0) == pytest.approx([1000, 0, 0], abs=20)
    assert abs(np.median(values[:, 1])) < 0.05
    message = run(monkeypatch, capsys, "evaluate", folder, code=2)
    assert "There is no file" in message
    message = run(monkeypatch, capsys, "sample", folder, "-o", "drawn.gif", code=2)
    assert ".csv" in message
    # Types of columns are those of the file.
    run(monkeypatch, capsys, "sample", folder, "--reconstruct", "validation", "-o", "back.csv", code=2)
    write_rows(here / "rows.csv")
    run(monkeypatch, capsys, "sample", folder, "--reconstruct", "validation", "-o", "back.csv")
    with open("back.csv", newline="") as file:
        assert next(csv.reader(file))[3:5] == ["big (reconstructed)", "small, and narrow (reconstructed)"]


def test_a_table_of_scikit_learn_and_its_evaluation(monkeypatch, capsys, here):
    output = run(monkeypatch, capsys, "fit", "iris", "--steps", 2, *SMALL, "--no-report", "-o", "run")
    row = next(line for line in output.splitlines() if "ELBO" in line)
    assert row in run(monkeypatch, capsys, "evaluate", "run")
    again = run(monkeypatch, capsys, "evaluate", "run", "--iw-items", 4, "--iw-samples", 5)
    weighted = next(line for line in again.splitlines() if "importance-weighted" in line)
    assert weighted.split()[-2:] == ["4", "│"]
    run(monkeypatch, capsys, "sample", "run")
    assert len((here / "run" / "drawn.csv").read_text().splitlines()) == 65


def test_a_dry_run_refuses_what_a_fit_refuses(monkeypatch, capsys, here):
    (here / "twice.csv").write_text("a,b\n" + "".join(f"{n * n % 17},{2 * (n * n % 17)}\n" for n in range(40)))
    assert "follow from others" in run(monkeypatch, capsys, "fit", "twice.csv", "--dry-run", code=2)


def test_a_dry_run_of_a_table(monkeypatch, capsys, here):
    output = run(monkeypatch, capsys, "fit", "wine", "--dry-run", *SMALL)
    assert "flowified-mlp: flowified-mlp for rows of 13, real numbers" in output
    assert "one training step on 8 rows" in output
    assert "fresh model on rows: -" in output
    assert " nats (likelihood: " in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("fit", "iris", "--model", "glow"),
            "The model 'glow' is not for rows, which 'iris' has.",
        ),
        (("fit", "digits", "--model", "flowified-mlp"), "is not for images, which 'digits' has."),
        (("fit", "iris", "--mixing", "1x1"), "There is no mixing '1x1'. Known are: lu, dense-exponential."),
        (
            ("fit", "iris", "--conditional"),
            "The model 'table-flow' does not read labels, so it cannot be conditional. For p(the other columns | some)",
        ),
        (
            ("fit", "diabetes", "--conditional"),
            "The source 'diabetes' has no labels, so no model of it can be conditional.",
        ),
        (("fit", "mnist"), "'mnist' is made of your own files: say where they are, 'mnist:PLACE'."),
        (("fit", "nowhere.csv"), "There is no file 'nowhere.csv'."),
        (("fit", "cifar-10:nowhere"), "There is no file or folder 'nowhere'. Get cifar-10-python.tar.gz"),
    ],
)
def test_what_does_not_fit_is_said(monkeypatch, capsys, here, words, message):
    error = run(monkeypatch, capsys, *words, code=2)
    assert message in error
    assert "Traceback" not in error


def test_images_from_files_of_the_user(monkeypatch, capsys, here):
    rng = np.random.default_rng(0)
    for name, shape in (("train-images-idx3", (40, 4, 4)), ("t10k-images-idx3", (12, 4, 4))):
        header = struct.pack(">4B3I", 0, 0, 8, 3, *shape)
        (here / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + rng.integers(0, 256, shape, np.uint8).tobytes()))
        header = struct.pack(">4BI", 0, 0, 8, 1, shape[0])
        (here / f"{name.replace('images-idx3', 'labels-idx1')}-ubyte").write_bytes(header + bytes(shape[0]))
    words = ["--model", "glow", "--set", "levels=1", "--set", "model.steps=1", "--set", "hidden=4", "--steps", 2]
    output = run(monkeypatch, capsys, "fit", "mnist:.", *words, "--no-report", "--set", "batch_size=8")
    (folder,) = (here / "runs").iterdir()
    assert folder.name.startswith("mnist-2")
    assert json.loads((folder / "config.json").read_text())["data"]["name"] == f"mnist:{here.resolve()}"
    assert (folder / "samples.png").exists()
    row = next(line for line in output.splitlines() if "ELBO" in line)
    monkeypatch.chdir(folder)
    again = run(monkeypatch, capsys, "evaluate", ".", "--iw-items", 5)
    assert row in again
    weighted = next(line for line in again.splitlines() if "importance-weighted" in line)
    assert weighted.split()[-4:] == ["128", "│", "5", "│"]
    refused = run(monkeypatch, capsys, "evaluate", ".", "--iw-items", 0, code=2)
    assert "These numbers of draws do not fit. iw_items: Input should be greater than or equal to 1." in refused


def test_what_columns_were_taken_for_is_printed_and_kept(monkeypatch, capsys, here):
    rng = np.random.default_rng(0)
    lines = [f"p{n},{n % 3},{x!r},{'SML'[n % 3]},{y!r}" for n, (x, y) in enumerate(rng.normal(size=(80, 2)).tolist())]
    (here / "rows.csv").write_text("\n".join(["id,n,x,size,y", *lines]))
    refused = run(monkeypatch, capsys, "fit", "rows.csv", "--steps", 2, code=2)
    assert "column 'id': nearly every row has a word of its own" in " ".join(refused.split())
    words = ["--drop", "auto", "--columns", "x=real[-9,9],n=integer[0,5]", "--steps", 2, *SMALL]
    kept = ["--labels", "size", "--no-report"]
    output = run(monkeypatch, capsys, "fit", "rows.csv", *words, *kept, "-o", "run")
    assert "taken for" in output
    assert "-9 to 9 (declared)" in " ".join(output.split())
    config = json.loads((here / "run" / "config.json").read_text())
    schema = {column["name"]: column for column in config["data"]["schema"]}
    assert list(schema) == ["n", "x", "y"]
    assert (schema["x"]["lower"], schema["x"]["declared"], schema["n"]["kind"]) == (-9.0, True, "integer")
    assert config["opened"]["options"]["drop"] == ["auto"]


@pytest.mark.parametrize("source", ["wine", "mixed.csv"])
def test_a_dry_run_takes_rows_that_can_be(monkeypatch, capsys, here, source):
    random = np.random.default_rng(0)
    rows = zip(random.integers(0, 90, 60), random.choice(["Rome", "Oslo"], 60), range(60), strict=True)
    lines = ["age,city,day", *(f"{age},{city},2024-03-{1 + row % 28:02d}" for age, city, row in rows)]
    (here / "mixed.csv").write_text("\n".join(lines))
    output = run(monkeypatch, capsys, "fit", source, "--dry-run")
    assert "one training step on 8 rows" in output
    assert "fresh model on rows: " in output
