"""Facts of a run that somebody has changed: whatever relies on them ends with what was meant, or a sentence of ours."""

import json
import warnings

import numpy as np
import pytest

import likelify as lk
from likelify import zoo
from likelify.data import open_source
from likelify.errors import LikelifyError
from likelify.fitting.drawing.sampling import sample_to
from likelify.fitting.report.page import BROKEN, as_html
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig

CHANGES = [
    {"kind": "image", "levels": 256},
    {"kind": "sequence"},
    {"levels": 4},
    {"event_shape": [5]},
    {"event_shape": [4, 1]},
    {"event_shape": [0]},
    {"columns": ["a", "b"]},
    {"columns": []},
    {"schema": [{"name": "a"}]},
    {"classes": 0},
    {"class_names": ["a"]},
    {"sizes": {"train": -1}},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    source = open_source("iris")
    model = zoo.MODELS["flowified-mlp"](event_shape=(4,), widths=(3,))
    run = Run.create(
        tmp_path_factory.mktemp("foreign") / "run", RunConfig(data=source.facts(), model=model, fit=FitSettings())
    )
    with lk.seeded(0):
        flow = model.build()
    flow.initialize(source.read_all("train").x)
    run.save_weights(flow.state_dict())
    return run


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_facts_that_do_not_belong_together_are_refused(run, change):
    config = json.loads((run.path / "config.json").read_text())
    with pytest.raises(LikelifyError, match="do not fit") as refused:
        RunConfig.parse(config | {"data": config["data"] | change})
    assert str(refused.value).isprintable()


def test_facts_that_are_not_those_of_the_model_are_refused(run):
    config = json.loads((run.path / "config.json").read_text())
    five = {"event_shape": [5], "columns": list("abcde"), "schema": None}
    with pytest.raises(LikelifyError, match="The model is of items of 4, the data have items of 5"):
        RunConfig.parse(config | {"data": config["data"] | five})
    graphs = {"event_shape": [4], "kind": "graph", "columns": None, "schema": None}
    with pytest.raises(LikelifyError, match="The model 'flowified-mlp' is not for graphs."):
        RunConfig.parse(config | {"data": config["data"] | graphs})
    known = {"classes": 3, "class_names": None}
    model = json.loads(zoo.MODELS["glow"](event_shape=(1, 4, 4), classes=2).model_dump_json())
    images = {"kind": "image", "event_shape": [1, 4, 4], "levels": 256, "columns": None, "schema": None} | known
    with pytest.raises(LikelifyError, match="The model is of 2 classes, the data have 3."):
        RunConfig.parse(config | {"model": model, "data": config["data"] | images})
    with pytest.raises(LikelifyError, match="The model is of 256 levels, the data have 17."):
        RunConfig.parse(config | {"model": model, "data": config["data"] | images | {"levels": 17}})


def everything(run, folder):
    """Do what a run is for."""
    assert run.sample(2).shape == (2, 4)
    sample_to(run, folder / "drawn.csv", 3)
    assert len({line.count(",") for line in (folder / "drawn.csv").read_text().splitlines()}) == 1
    assert len(run.score(np.zeros((3, 4)), reference=None)) == 3
    run.source()
    assert BROKEN not in as_html(run)


def test_what_facts_a_run_may_have_does_for_everything(run, tmp_path):
    everything(run, tmp_path)
    for number, change in enumerate(({"columns": None, "schema": None}, {"sizes": {}}, {"fingerprint": ""})):
        config = json.loads((run.path / "config.json").read_text())
        folder = tmp_path / str(number)
        other = Run.create(folder, RunConfig.parse(config | {"data": config["data"] | change}))
        (folder / "model.safetensors").write_bytes((run.path / "model.safetensors").read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert other.sample(2).shape == (2, 4)
            assert BROKEN not in as_html(Run.load(folder))
