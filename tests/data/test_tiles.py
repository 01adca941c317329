"""Large pictures cut into tiles."""

import numpy as np
import pytest
import torch
from PIL import Image

from likelify.data import SourceOptions
from likelify.data.folder import image_folder
from likelify.data.tiles import TileItems, tile_starts
from likelify.errors import DataError
from tests.data.photographs import PHOTOS, write_photographs

SIZE = SourceOptions(image_size="12x16", labels="folders")


@pytest.fixture
def facts(tmp_path):
    for name in ("cats", "dogs"):
        write_photographs(tmp_path / "fitted" / name, 6, least=20, most=40)
    return image_folder(tmp_path / "fitted", SIZE).facts()


@pytest.fixture
def large(tmp_path):
    """Two photographs of 30x40 and 24x16 in folders of classes."""
    parts = {"cats": PHOTOS[0][100:130, 50:90], "dogs": PHOTOS[1][:24, 30:46]}
    for name, part in parts.items():
        (tmp_path / "large" / name).mkdir(parents=True)
        Image.fromarray(part).save(tmp_path / "large" / name / "1.png")
    return tmp_path / "large", list(parts.values())


def read(items, size, start=0):
    batches = list(items.batches(size, start))
    assert all(len(batch) == size for batch in batches[:-1])
    carried = {name: [each for batch in batches for each in batch.carried[name]] for name in items.carried}
    labels = [batch.batch.labels for batch in batches]
    return torch.cat([batch.batch.x for batch in batches]), carried, labels


def test_tiles_cover_every_pixel_and_are_parts_as_they_are(facts, large):
    folder, photos = large
    items = TileItems(folder, facts, SIZE)
    x, carried, labels = read(items, 4)
    assert items.count == len(x) == 3 * 3 + 2
    assert carried["file"] == ["cats/1.png"] * 9 + ["dogs/1.png"] * 2
    assert (carried["top"][-3:], carried["left"][-3:]) == ([18, 0, 12], [24, 0, 0])
    assert torch.cat(labels).tolist() == [0] * 9 + [1] * 2
    for photo, name in zip(photos, ("cats/1.png", "dogs/1.png"), strict=True):
        seen = np.full_like(photo, 0)
        for tile, file, top, left in zip(x.numpy(), carried["file"], carried["top"], carried["left"], strict=True):
            if file == name:
                seen[top : top + 12, left : left + 16] = tile.transpose(1, 2, 0)
        assert np.array_equal(seen, photo)


def test_reading_begins_anywhere(facts, large):
    items = TileItems(large[0], facts, SIZE)
    x, carried, _ = read(items, 4)
    for start in (0, 4, 8, 12):
        if start < len(x):
            again, names, _ = read(items, 4, start)
            assert torch.equal(again, x[start:])
            assert names == {name: values[start:] for name, values in carried.items()}
    assert list(items.batches(4, 12)) == []


def test_arrays_are_cut_likewise_channels_first_or_last(facts, large):
    folder, photos = large
    x, _, _ = read(TileItems(folder / "cats" / "1.png", facts, SIZE), 4)
    for array in (photos[0], photos[0].transpose(2, 0, 1), photos[0][None], torch.from_numpy(photos[0].copy())):
        found, carried, _ = read(TileItems(array, facts), 4)
        assert torch.equal(found, x)
        assert carried["picture"] == [0] * 9
    assert TileItems(photos[0], facts).fingerprint() != TileItems(photos[0][::-1].copy(), facts).fingerprint()


def test_grey_arrays_need_no_channel(facts):
    grey = facts.model_copy(update={"event_shape": (1, 12, 16)})
    array = np.random.default_rng(0).integers(256, size=(2, 1, 14, 20)).astype(np.uint8)
    x, carried, _ = read(TileItems(array, grey), 4)
    assert carried["picture"] == [0] * 4 + [1] * 4
    assert torch.equal(read(TileItems(array[:, 0], grey), 4)[0], x)
    assert torch.equal(read(TileItems(array[1, 0], grey), 4)[0], x[4:])
    for wrong in (array, np.zeros((20, 20), np.uint8), np.zeros((0, 3, 20, 20), np.uint8)):
        with pytest.raises(DataError, match="channels first or last"):
            TileItems(wrong, facts)


def test_what_has_no_tiles_is_refused(facts, large):
    with pytest.raises(DataError, match="not enlarged"):
        TileItems(_saved(large[0].parent / "small.png", np.zeros((11, 40, 3), np.uint8)), facts)
    with pytest.raises(DataError, match="at least 12x16"):
        TileItems(np.zeros((3, 11, 40), np.uint8), facts)
    with pytest.raises(DataError, match="no picture"):
        TileItems("digits", facts)
    with pytest.raises(DataError, match="tiles|Tiles"):
        TileItems(large[0], facts.model_copy(update={"levels": None}))


def _saved(file, pixels):
    Image.fromarray(pixels).save(file)
    return file


def test_places_of_tiles():
    assert tile_starts(5, 5) == [0]
    assert tile_starts(11, 5) == [0, 5, 6]
