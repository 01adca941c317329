"""`likelify sample` in all its forms, on a run that is made in a second."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import likelify as lk
from likelify.data import table
from likelify.fitting.loop import fit
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo import MODELS
from tests.app.test_cli_tables import run as typed


def made(path, source, model, *, conditional=False):
    """Fit for a step, in a run folder."""
    config = RunConfig(
        data=source.facts(),
        conditional=conditional,
        model=model,
        fit=FitSettings(steps=1, batch_size=8, validations=1, initialize_items=64),
    )
    run = Run.create(path, config)
    fit(model.build(), source, run=run)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    images = {"event_shape": (1, 8, 8), "pixel_levels": 17}
    glow = MODELS["glow"](**images, levels=2, steps=1, hidden=4)
    labelled = MODELS["marginal-spline"](**images, couplings=2, hidden=(8,), classes=10)
    made(folder / "glow", lk.data.open_source("digits"), glow)
    made(folder / "classes", lk.data.open_source("digits"), labelled, conditional=True)
    rows = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 5.0, 0.1]
    source = table(rows, columns=["a", "=b", "c"])
    made(folder / "rows", source, MODELS["flowified-mlp"](event_shape=(3,)))
    np.savetxt(folder / "new.csv", rows[:5], delimiter=",", header="a,=b,c", comments="")
    return folder


@pytest.fixture
def here(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    return lambda *words: typed(monkeypatch, capsys, "sample", *words)


def test_classes_are_drawn_in_turn_and_written_along(here, folder):
    here("classes", "-n", 5, "--label", 3, "--label", 7, "-o", "two.npz")
    with np.load(folder / "two.npz") as arrays:
        assert arrays["labels"].tolist() == [3, 7, 3, 7, 3]
        assert arrays["x"].shape == (5, 1, 8, 8)
    here("classes", "-n", 11, "-o", "all")
    assert sorted(path.name for path in (folder / "all").iterdir())[-1] == "10-0.png"


def test_the_same_seed_gives_the_same_file_and_run_sample_the_same_items(here, folder):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        here("glow", "-n", 3, "-o", f"seed-{name}.npy", "--seed", seed)
    one, same, other = (np.load(folder / f"seed-{name}.npy") for name in "abc")
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert torch.equal(Run.load(folder / "glow").sample(3, seed=1), torch.from_numpy(one))


def test_rows_come_with_their_names(here, folder):
    here("rows", "-n", 5000, "-o", "drawn.csv")
    with (folder / "drawn.csv").open(newline="") as handle:
        header, *lines = csv.reader(handle)
    assert header == ["a", "'=b", "c"]
    wanted = Run.load(folder / "rows").sample(5000)
    assert torch.equal(torch.tensor([[float(cell) for cell in line] for line in lines], dtype=torch.float64), wanted)
    here("rows", "-n", 50, "-o", "pairs.png")
    with Image.open(folder / "pairs.png") as shown:
        assert shown.size[0] > 300


def test_without_a_name_each_file_gets_a_new_one(here, folder):
    for _ in range(2):
        output = here("glow", "-n", 1)
    assert "1 samples: glow/drawn-2.png" in output
    assert (folder / "glow" / "drawn.png").exists()


def test_reconstructions_are_the_originals(here, folder):
    output = here("glow", "--reconstruct", "validation", "-n", 7, "-o", "back.npz")
    assert "7 of 7 are as they were" in output
    with np.load(folder / "back.npz") as arrays:
        assert sorted(arrays) == ["from_the_last_latent", "original", "reconstructed"]
        assert np.array_equal(arrays["original"], arrays["reconstructed"])
        np.save(folder / "mine.npy", arrays["original"])
    assert "3 of 3" in here("glow", "--reconstruct", "mine.npy", "-n", 3, "-o", "back.png")
    here("rows", "--reconstruct", "new.csv", "-o", "back.csv")
    header, first, *_ = (folder / "back.csv").read_text().splitlines()
    assert header.startswith("a,'=b,c,a (reconstructed)")
    values = [float(cell) for cell in first.split(",")]
    assert len(values) == 6


def test_the_way_between_two_items_has_both_ends(here, folder):
    assert "5 images from 3 to validation:4" in here("glow", "--interpolate", 3, "validation:4", "--steps", 5)
    here("glow", "--interpolate", 3, "validation:4", "--steps", 5, "-o", "way.npy")
    way, source = np.load(folder / "way.npy"), lk.data.open_source("digits")
    assert np.array_equal(way[0], source.read_all("test").x[3])
    assert np.array_equal(way[-1], source.read_all("validation").x[4])


def test_hidden_pixels_are_drawn_and_the_others_kept(here, folder, monkeypatch):
    from likelify.fitting.drawing import inpainting
    from likelify.fitting.drawing.tempering import Effort

    monkeypatch.setattr(inpainting, "Effort", lambda: Effort(8, 32, 1, 2))
    words = ("--inpaint", "test", "--mask", "0,0,1,2", "-n", 2, "--draws", 3)
    output = here("classes", *words, "-o", "hidden.npz")
    assert "3 draws for each of 2 images" in output
    assert "Effective sample size of their 256 particles: " in output
    with np.load(folder / "hidden.npz") as arrays:
        completed, original, mask = arrays["completed"], arrays["original"], arrays["mask"]
    assert completed.shape == (2, 3, 1, 8, 8)
    assert mask.sum() == 2
    assert np.array_equal(completed[:, :, ~mask], np.broadcast_to(original[:, None, ~mask], (2, 3, 62)))
    here("classes", *words, "-o", "hidden.png")
    with Image.open(folder / "hidden.png") as shown:
        wide, high = shown.size
    assert 2.2 < wide / high < 2.8  # a row for each image: it, what is seen of it, and three draws


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("glow", "-o", "x.gif"), "Images are written to files in .png, .npy or .npz, or a folder"),
        (("glow", "--label", "1"), "this run has no classes"),
        (("classes", "--label", "1", "--label", "10"), "The label 10 does not fit: its classes are 0..9."),
        (("glow", "--temperature", "-1"), "The temperature must be a number that is not negative"),
        (("glow", "--seed", "-1"), "A seed is a whole number"),
        (("glow", "--reconstruct", "test", "--inpaint", "test"), "--reconstruct and --inpaint exclude one another"),
        (("glow", "--mask", "left"), "--mask says what --inpaint hides"),
        (
            ("glow", "--reconstruct", "test", "--temperature", "0.5"),
            "--temperature is for samples and --upscale; leave it out",
        ),
        (("glow", "--inpaint", "test"), "--inpaint needs to know what is hidden: --mask left"),
        (("glow", "--inpaint", "test", "--mask", "lef"), "no mask 'lef'. Did you mean 'left'"),
        (("glow", "--interpolate", "1", "999"), "has the images 0..359"),
        (("glow", "--interpolate", "1", "2", "--steps", "1"), "at least 2 steps"),
        (("glow", "--interpolate", "test", "2"), "One item is needed at each end of the way, and 'test' has more"),
        (("glow", "--reconstruct", "nowhere.npy"), "There is no file 'nowhere.npy'"),
        (("rows", "--reconstruct", "test", "-o", "x.gif"), "Rows beside one another are written to a file in .csv"),
    ],
)
def test_errors_are_one_paragraph(folder, words, message, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert message in typed(monkeypatch, capsys, "sample", *words, code=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rows", "--steps", 3), "--steps is for --interpolate"),
        (("rows", "--interpolate", 0, 1, "-n", 3), "--interpolate takes no -n: say how many items with --steps"),
        (("rows", "--inpaint", "test"), "what is hidden: the names of columns, --mask age,city"),
        (("rows", "--reconstruct", "test", "--seed", 3), "--reconstruct draws nothing, and takes no --seed"),
        (("rows", "--interpolate", 0, 1, "--seed", 0), "--interpolate draws nothing, and takes no --seed"),
        (("rows", "--given", "a"), "--given says what is known: 'a=...'"),
    ],
)
def test_words_that_a_form_has_no_use_for_are_refused(folder, monkeypatch, capsys, words, said):
    monkeypatch.chdir(folder)
    assert said in " ".join(typed(monkeypatch, capsys, "sample", *words, "-o", "never.csv", code=2).split())
    assert not (folder / "never.csv").exists()
