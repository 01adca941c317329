import os

import pytest
import torch

import likelify as lk
from likelify.data import folder, open_source
from likelify.data.folder import image_folder
from likelify.errors import DataError
from likelify.fitting.feeding import Feed, in_order, together
from likelify.fitting.settings import FitSettings
from likelify.zoo import build
from tests.data.photographs import write_photographs

SETTINGS = FitSettings(steps=7, batch_size=8, lr=1e-3, validations=2, initialize_items=20, warmup=0)


@pytest.fixture
def lazy(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "AT_ONCE_FILES", 1000)
    return image_folder(write_photographs(tmp_path, 30, least=10, most=20), lk.data.SourceOptions(image_size=8))


def tiny():
    with lk.seeded(0):
        return build("glow", event_shape=(3, 8, 8), levels=1, steps=1, hidden=4)


def with_workers(number):
    return SETTINGS.model_copy(update={"workers": number})


@pytest.mark.parametrize("workers", [0, 1, 2, None])
def test_steps_have_their_batches_in_any_order(lazy, workers):
    flow = tiny()
    reference = Feed(flow, lazy, with_workers(0))
    with Feed(flow, lazy, with_workers(workers)) as feed:
        for step in (0, 1, 2, 5, 6, 3, 4, 5, 9):
            assert torch.equal(feed.batch(step).x, reference.batch(step).x), step


def test_a_fit_to_a_large_folder_is_the_same_with_any_number_of_workers(lazy):
    weights = []
    for workers in (0, 1, 2):
        flow = tiny()
        course = lk.fit(flow, lazy, with_workers(workers))
        weights.append((course.best.validation_nats, flow.state_dict()))
    for nats, state in weights[1:]:
        assert nats == weights[0][0]
        assert all(torch.equal(state[name], tensor) for name, tensor in weights[0][1].items())


def test_splits_and_samples_are_read_by_several_processes_as_by_one(lazy):
    flow = tiny()
    for split, count in (("train", None), ("validation", None), ("train", 7)):
        one, two = ([each.x for each in in_order(flow, lazy, split, 4, count=count, workers=n)] for n in (0, 2))
        assert [len(part) for part in one] == [len(part) for part in two]
        assert torch.equal(torch.cat(one), torch.cat(two))
        assert torch.equal(torch.cat(one), lazy.read_all(split).x[:count])
    order = torch.randperm(lazy.size("train"))
    assert torch.equal(together(flow, lazy, order, workers=2).x, lazy.read("train", order).x)
    digits = open_source("digits")
    batch, expected = together(flow, digits, torch.arange(200), workers=1), digits.read("train", torch.arange(200))
    assert torch.equal(batch.x, expected.x)
    assert torch.equal(batch.labels, expected.labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_goes_bad_during_a_fit_is_named(lazy, workers):
    os.truncate(lazy.folder / lazy.files["train"][3], 50)
    with pytest.raises(DataError, match=rf"{lazy.files['train'][3]}' (is not a whole|cannot be read)"):
        lk.fit(tiny(), lazy, with_workers(workers))


def test_evaluating_reads_ahead_too(lazy):
    flow = tiny()
    from likelify.fitting.metrics import evaluate

    assert evaluate(flow, lazy, split="train", elbo_samples=1, iw_samples=2, batch_size=5).elbo.nats.count == 24
