"""Words of the command line for runs of graphs: what is drawn, and pictures of the least likely."""

import pytest
from PIL import Image

import likelify as lk
from likelify.data import open_source
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from tests.app.command import here, said
from tests.fitting.graph_runs import TinyGraphs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of point sets with the weights of its beginning."""
    source = open_source("mog-4")
    model = TinyGraphs(event_shape=(2,))
    run = Run.create(
        tmp_path_factory.mktemp("graphs") / "run", RunConfig(data=source.facts(), model=model, fit=FitSettings())
    )
    with lk.seeded(0):
        run.save_weights(model.build().state_dict())
    return run


def test_graphs_are_drawn_with_as_many_nodes_as_is_said(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = said(monkeypatch, capsys, "sample", str(run.path), "-n", "3", "-o", "drawn.csv")
    assert "3 samples: drawn.csv" in out
    lines = (tmp_path / "drawn.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 4
    _, warned = here(monkeypatch, capsys, "sample", str(run.path), "-n", "2", "--nodes", "6", "-o", "six.csv")
    assert "what it draws of 6 it has not learnt from data" in " ".join(warned.split())
    assert len((tmp_path / "six.csv").read_text().splitlines()) == 1 + 2 * 6
    out = said(monkeypatch, capsys, "sample", str(run.path), "--nodes", "6", "--given", "x=1", code=2)
    assert "--given and --nodes exclude one another" in out
    out = said(monkeypatch, capsys, "sample", str(run.path))
    assert (run.path / "drawn.png").exists()


def test_the_least_likely_graphs_are_drawn(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = said(monkeypatch, capsys, "score", str(run.path), "--picture", "odd.png", "--top", "5", "--reference", "none")
    assert "The least likely, with their ranks: odd.png" in out
    with Image.open(tmp_path / "odd.png") as picture:
        assert picture.width > picture.height
    out = said(monkeypatch, capsys, "score", str(run.path), "--picture", "odd.jpg", code=2)
    assert "--picture writes a picture in .png or .svg" in out
    out = said(monkeypatch, capsys, "score", str(run.path), "--heat", "heat.png", code=2)
    assert "--heat is for images" in out
