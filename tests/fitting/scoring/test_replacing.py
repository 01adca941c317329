import numpy as np
import pytest
import torch

import likelify as lk
from likelify import zoo
from likelify.data import ArraySource, as_source
from likelify.errors import ConfigError
from likelify.fitting.run import Run
from likelify.fitting.scoring.candidates import HELD, QUANTILES
from likelify.fitting.scoring.replacing import patch_gains, patch_of, replacements
from likelify.fitting.settings import RunConfig
from tests.fitting.scoring.runs import rows, table_run
from tests.fitting.toys import QUICK, tiny_config


def test_a_candidate_without_a_likelihood_does_not_hide_the_others():
    def score(x):
        found = -0.5 * (x**2).sum((1, 2, 3))
        return torch.where(x.flatten(1)[:, 0] == x.new_tensor(2.0), torch.nan, found)

    images = torch.full((1, 1, 2, 2), 3)
    others = np.stack([np.full((1, 2, 2), 2), np.zeros((1, 2, 2))])
    expected = score(torch.zeros(1, 1, 2, 2)) - score(images.float())
    assert patch_gains(lambda x: score(x.float()), images, others, 4) == pytest.approx(expected.item())


def smooth_images(count, seed=0):
    """Images of one grey level each with a little noise: what is of another level stands out."""
    generator = np.random.default_rng(seed)
    level = generator.integers(4, 12, size=(count, 1, 1, 1))
    return level + generator.integers(-1, 2, size=(count, 1, 8, 8))


def test_heat_is_where_the_patch_is_that_was_changed():
    def score(x):
        # Each pixel is near the mean of its image.
        return -((x - x.double().mean((2, 3), keepdim=True)) ** 2).sum((1, 2, 3))

    images, generator = smooth_images(40), np.random.default_rng(1)
    places = generator.integers(0, 6, size=(40, 2))
    for image, (top, left) in zip(images, places, strict=True):
        patch = image[0, top : top + 3, left : left + 3]
        patch[:] = np.where(patch < 8, 16, 0)
    heat = patch_gains(score, torch.from_numpy(images), smooth_images(12, seed=2), 17)
    assert heat.shape == (40, 8, 8)
    assert (heat >= 0).all()
    hottest = np.stack(np.unravel_index(heat.reshape(40, -1).argmax(1), (8, 8)), 1)
    assert ((hottest >= places) & (hottest < places + 3)).all()


def test_places_cover_images_of_any_size():
    assert patch_of(8, 8) == (2, 1)
    assert patch_of(64, 48) == (8, 4)
    for height, width in ((1, 1), (2, 5), (9, 14)):
        images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
        seen = []

        def score(x, seen=seen):
            seen.append(x)
            return x.double().sum((1, 2, 3))

        heat = patch_gains(score, images, np.ones((2, 3, height, width)), 4)
        assert (heat > 0).all()
        assert all(x.dtype == torch.uint8 for x in seen)


def test_replacements_are_what_stands_in_training_items(tmp_path, monkeypatch):
    run = table_run(tmp_path / "rows", monkeypatch)
    found = replacements(run)
    train = run.source().read_all("train").x.numpy()
    assert found.shape == (HELD, 3)
    # Real numbers have no states.
    assert np.isnan(found[:QUANTILES]).all()
    assert np.isin(found[QUANTILES:], train).all()
    assert (found[QUANTILES] == train.min(0)).all()
    assert (found[-1] == train.max(0)).all()
    monkeypatch.setattr(Run, "source", lambda _: pytest.fail("they are kept"))
    assert np.array_equal(replacements(run), found, equal_nan=True)
    few = ArraySource(
        "few", {"train": np.arange(8).reshape(2, 1, 2, 2), "validation": np.zeros((1, 1, 2, 2))}, kind="image", levels=9
    )
    other = Run.create(tmp_path / "images", RunConfig(data=few.facts(), model=tiny_config(pixel_levels=9), fit=QUICK))
    monkeypatch.setattr(Run, "source", lambda _: few)
    assert replacements(other).shape == (12, 1, 2, 2)
    series = as_source(np.zeros((12, 1, 4)))
    model = zoo.MODELS["series"](event_shape=(1, 4))
    third = Run.create(tmp_path / "series", RunConfig(data=series.facts(), model=model, fit=QUICK))
    with pytest.raises(ConfigError, match="rows of tables and in images of pixels, not in sequences"):
        replacements(third)


def test_noise_is_shared_by_an_item_and_its_replacements(tmp_path, monkeypatch):
    # Else the largest of many noisy values would be a gain of its own.
    run = table_run(tmp_path / "rows", monkeypatch)
    x = rows(12, seed=4)
    with lk.seeded(1):
        first = run.score(x, blame=True, draws=2)
    with lk.seeded(2):
        again = run.score(x, blame=True, draws=2)
    assert np.array_equal(first.gains, again.gains)
    fine = run.score(x, blame=True, draws=4)
    assert np.corrcoef(first.gains.ravel(), fine.gains.ravel())[0, 1] > 0.95
