"""Data beside those of a run: opened as the run's own were, and nothing is downloaded because a run names it."""

import shutil
import socket

import datasets
import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import torch

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.errors import ConfigError, DataError, LikelifyError
from likelify.fitting.evaluating import _own_kind
from likelify.fitting.run import Run
from likelify.fitting.scoring.scorer import Scorer, Wanted
from likelify.fitting.scoring.scoring import facts_for, items_of
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import DataChoice
from tests.data.photographs import write_photographs
from tests.fitting.scoring.runs import COLUMNS, image_run, rows, table_run
from tests.fitting.toys import QUICK, tiny_config


def picture_run(folder, options):
    """A run of photographs without weights."""
    write_photographs(folder / "photos", 20, least=20, most=40)
    source = open_source(folder / "photos", options)
    opened = DataChoice(source=source.name, options=options)
    model = tiny_config(event_shape=source.event_shape, pixel_levels=source.levels)
    return Run.create(folder / "run", RunConfig(data=source.facts(), opened=opened, model=model, fit=QUICK))


def test_other_pictures_are_measured_as_those_of_the_run(tmp_path):
    run = picture_run(tmp_path, SourceOptions(image_size=8, crop="stretch"))
    others = write_photographs(tmp_path / "others", 5, least=20, most=40)
    found = _own_kind(run, str(others)).read_all("test").x
    stretched = next(open_items(others, run.config.data, SourceOptions(crop="stretch")).batches(5)).batch.x
    assert torch.equal(found, stretched)
    assert not torch.equal(found, next(open_items(others, run.config.data).batches(5)).batch.x)


def test_rows_in_other_units_are_not_measured(tmp_path):
    run = table_run(tmp_path / "run")
    run.config = run.config.model_copy(update={"opened": DataChoice(source="rows", standardized=True)})
    with pytest.raises(ConfigError, match="in units of their standard deviations"):
        run.evaluate(rows(20))


def test_a_source_is_scored_and_measured_by_the_names_of_its_columns(tmp_path, monkeypatch):
    run = table_run(tmp_path / "run", monkeypatch)
    frame = pd.DataFrame(rows(60, seed=3), columns=COLUMNS)
    source, turned = as_source(frame), as_source(frame[[*COLUMNS[::-1]]])
    scores = [run.score(each, split="validation", draws=4).nats for each in (source, turned)]
    assert np.array_equal(*scores)
    measured = [
        run.evaluate(each, split="validation", iw_samples=0, keep=False).elbo.nats.mean for each in (source, turned)
    ]
    assert measured[0] == measured[1]
    strange = as_source(frame.rename(columns={"length": "depth"}))
    for use in (run.score, run.evaluate):
        with pytest.raises(DataError, match="no column 'length', which the model is of, but 'depth'"):
            use(strange, split="validation")


def test_only_conditional_models_ask_for_their_classes(tmp_path):
    run = image_run(tmp_path / "run")
    run.config = run.config.model_copy(update={"conditional": True})
    assert facts_for(run).classes == run.config.data.classes == 3
    run.config = run.config.model_copy(update={"conditional": False})
    assert facts_for(run).classes is None


def test_a_conditional_run_says_how_classes_are_given(tmp_path):
    run = image_run(tmp_path / "run")
    data = run.config.data.model_copy(update={"class_names": ("cats", "dogs")})
    run.config = run.config.model_copy(update={"conditional": True, "data": data})
    batch = next(open_items(np.zeros((2, *data.event_shape), np.uint8), data).batches(2)).batch
    with pytest.raises(DataError, match=r"classes \(cats, dogs\) as names of the subfolders .* --labels folders"):
        Scorer(run, Wanted(draws=1))(batch, 0, "'mixed'")


def test_pictures_of_another_kind_are_left_out_and_named_where_that_is_asked_for(tmp_path):
    from PIL import Image

    run = picture_run(tmp_path, SourceOptions(image_size=8))
    others = write_photographs(tmp_path / "others", 5, least=20, most=40)
    Image.fromarray(np.full((30, 30), 999, np.uint16)).save(others / "deep.png")
    cut = sorted(others.glob("*.png"))[-1]
    cut.write_bytes(cut.read_bytes()[:-200])
    with pytest.raises(DataError, match="deep.png' has 16 bits a pixel, where 8 bits are wanted.*--skip-unreadable"):
        items_of(run, others)
    items = items_of(run, others, skip_unreadable=True)
    assert items.left_out == ("deep.png", cut.name)
    assert len(next(items.batches(10))) == items.count == 4
    with pytest.raises(ConfigError, match="Only pictures of a folder can be left out .* The data is none"):
        items_of(run, np.zeros((2, 3, 8, 8), np.uint8), skip_unreadable=True)


@pytest.fixture
def reached(monkeypatch):
    """Note what is asked of the network."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return asked


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("hub:somebody/evil", None),
        ("hub:buckets/a/b", None),
        ("hub:https://a.example/x.csv", None),
        ("hub:hf://datasets/a/b", None),
        ("hub:x", DataChoice(source="hub", folder="somebody/evil")),
        ("hub:x", DataChoice(source="hub:somebody/evil:part", limits={"train": 3})),
    ],
)
def test_what_a_foreign_run_names_is_not_downloaded(tmp_path, reached, name, choice):
    run = table_run(tmp_path / "run")
    data = run.config.data.model_copy(update={"name": name})
    run.config = run.config.model_copy(update={"data": data, "opened": choice})
    with pytest.raises(LikelifyError) as refused:
        run.source()
    assert not reached
    assert "no name of a data set" in str(refused.value) or "What a run names is not downloaded" in str(refused.value)
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_data_sets_that_are_here_are_opened_again(tmp_path, reached):
    rows_of = datasets.Dataset.from_dict({name: rows(40)[:, place] for place, name in enumerate(COLUMNS)})
    rows_of.save_to_disk(tmp_path / "kept")
    source = open_source(f"hub:{tmp_path / 'kept'}")
    run = table_run(tmp_path / "run")
    run.config = run.config.model_copy(update={"data": source.facts()})
    assert run.source().fingerprint() == source.fingerprint()
    assert not reached
    shutil.rmtree(tmp_path / "kept")
    with pytest.raises(DataError):
        run.source()
