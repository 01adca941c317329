import numpy as np
import pytest
import torch

from likelify.data import FROM_FILES, SOURCES, ArraySource, open_source
from likelify.errors import DataError


def test_digits_are_split_as_documented():
    source = open_source("digits")
    assert [source.size(split) for split in ("train", "validation", "test")] == [1293, 144, 360]
    assert (source.event_shape, source.levels, source.classes) == ((1, 8, 8), 17, 10)
    order = np.random.default_rng(0).permutation(1797)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    batch = source.read("test", torch.tensor([0, 359]))
    assert torch.equal(batch.x.flatten(1), torch.from_numpy(images[order[[1437, 1796]]]).to(torch.uint8))
    assert batch.labels.tolist() == labels[order[[1437, 1796]]].tolist()


@pytest.mark.slow
def test_photos_share_no_pixels_between_splits():
    source = open_source("sample-photos")
    assert [source.size(split) for split in ("train", "validation", "test")] == [16000, 500, 1000]
    assert (source.event_shape, source.levels, source.classes) == ((3, 32, 32), 256, None)
    from sklearn.datasets import load_sample_images

    photos = np.stack(load_sample_images().images).transpose(0, 3, 1, 2)
    windows = np.lib.stride_tricks.sliding_window_view(photos, (32, 32), axis=(2, 3))
    for split, (left, right) in {"train": (0, 440), "validation": (440, 480), "test": (480, 640)}.items():
        crop = source.read(split, torch.tensor([3])).x[0].numpy()
        found = np.argwhere((windows == crop[None, :, None, None]).all((1, 4, 5)))
        assert len(found) >= 1
        assert left <= found[0][2] <= right - 32


def test_fingerprints_tell_data_apart_and_stay():
    prints = {name: open_source(name).fingerprint() for name in ("digits",)}
    assert prints == {name: open_source(name).fingerprint() for name in prints}
    arrays = {split: np.zeros((2, 3)) for split in ("train", "validation", "test")}
    other = {split: np.ones((2, 3)) for split in arrays}
    one, two = (ArraySource("a", events, kind="image", levels=2) for events in (arrays, other))
    assert one.fingerprint() != two.fingerprint()


def test_bad_data_are_refused():
    good = {split: np.zeros((2, 3)) for split in ("train", "validation", "test")}
    with pytest.raises(DataError, match="no items in its split 'test'"):
        ArraySource("a", {**good, "test": np.zeros((0, 3))}, kind="image", levels=2)
    with pytest.raises(DataError, match="no items in its split 'validation'"):
        ArraySource("a", {"train": good["train"]}, kind="image", levels=2)
    untested = ArraySource("a", {"train": good["train"], "validation": good["validation"]}, kind="image", levels=2)
    assert untested.size("test") == 0
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), 2)}, kind="image", levels=2)
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), 0.5)}, kind="image", levels=2)
    with pytest.raises(DataError, match=r"integers 0\.\.1"):
        ArraySource("a", {**good, "test": np.full((1, 3), np.nan)}, kind="image", levels=2)
    with pytest.raises(DataError, match="events"):
        ArraySource("a", {**good, "test": np.zeros((1, 4))}, kind="image", levels=2)
    with pytest.raises(DataError, match="infinite or not a number"):
        ArraySource("a", {**good, "test": np.full((1, 3), np.inf)}, kind="table", levels=None)


def test_names_that_are_no_source():
    with pytest.raises(
        DataError, match=r"no source 'digit'. Did you mean 'digits'\? Known are: digits, .*mnist:PLACE.*FILE\.csv"
    ):
        open_source("digit")
    for name in ("mnist", "mnist:", "power"):
        with pytest.raises(DataError, match=f"made of your own files: say where they are, '{name.rstrip(':')}:PLACE'"):
            open_source(name)
    with pytest.raises(DataError, match="no source 'digits:here'"):
        open_source("digits:here")
    assert set(SOURCES) >= {"digits", "sample-photos", "fashion-mnist", "breast-cancer"}
    assert set(FROM_FILES) >= {"fashion-mnist", "mnist", "cifar-10", "power", "gas", "hepmass", "miniboone", "bsds300"}


def test_a_source_does_not_change_with_the_array_it_was_made_of():
    arrays = {split: np.zeros((2, 3), dtype=np.uint8) for split in ("train", "validation", "test")}
    source = ArraySource("a", arrays, kind="image", levels=2)
    arrays["test"][:] = 1
    assert int(source.read_all("test").x.max()) == 0
