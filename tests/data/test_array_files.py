"""Images and sequences in numpy's files: what they are is found or asked, and they stay in the file."""

import zipfile

import numpy as np
import pytest
import torch

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.npy import map_array
from likelify.errors import DataError

RNG = np.random.default_rng(0)


def pixels(*shape, dtype=np.uint8, levels=256):
    return RNG.integers(0, levels, shape).astype(dtype)


def saved(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return folder / name


@pytest.mark.parametrize(
    ("array", "options", "kind", "event", "levels", "said"),
    [
        (pixels(50, 3, 8, 9), {}, "image", (3, 8, 9), 256, "3 channels first, 8x9"),
        (pixels(50, 8, 9, 3), {}, "image", (3, 8, 9), 256, "3 channels last, 8x9"),
        (pixels(50, 9, 8, 1), {}, "image", (1, 9, 8), 256, "1 channel last, 9x8"),
        (pixels(50, 1, 4, 4), {}, "image", (1, 4, 4), 256, "1 channel first, 4x4"),
        (pixels(50, 3, 4, 4), {"channels": "last"}, "image", (4, 3, 4), 256, "4 channels last, 3x4"),
        (pixels(50, 6, 8, 9), {"channels": "first"}, "image", (6, 8, 9), 256, "6 channels first"),
        (pixels(50, 8, 8), {}, "image", (1, 8, 8), 256, "grey, 8x8"),
        (pixels(50, 6, 8), {"kind": "image"}, "image", (1, 6, 8), 256, "grey, 6x8"),
        (pixels(50, 6, 8), {"kind": "sequence"}, "sequence", (6, 8), 256, "6 channels, length 8"),
        (pixels(50, 1, 6, 8) > 99, {}, "image", (1, 6, 8), 2, "1 channel first"),
        (pixels(50, 3, 8, 8, dtype=np.int64, levels=17), {"levels": 17}, "image", (3, 8, 8), 17, "3 channels first"),
        (
            pixels(50, 8, dtype=np.int16, levels=1000),
            {"levels": 1000, "kind": "sequence"},
            "sequence",
            (1, 8),
            1000,
            "1 ch",
        ),
        (RNG.normal(size=(50, 3, 64)), {}, "sequence", (3, 64), None, "3 channels, length 64"),
        (RNG.normal(size=(50, 64)).astype(np.float32), {"kind": "sequence"}, "sequence", (1, 64), None, "length 64"),
        (RNG.normal(size=(50, 3, 8, 8)), {"kind": "image"}, "image", (3, 8, 8), None, "3 channels first"),
    ],
)
def test_what_an_item_is_is_found_or_said(tmp_path, array, options, kind, event, levels, said):
    for stored in (array, np.asfortranarray(array)):
        path = saved(tmp_path, stored)
        source = open_source(path, SourceOptions(**options))
        assert (source.kind, source.event_shape, source.levels) == (kind, event, levels)
        assert said in source.facts().description
        assert [source.size(split) for split in ("train", "validation", "test")] == [40, 5, 5]
        order = np.random.default_rng(0).permutation(50)
        arranged = np.moveaxis(array, -1, 1) if "last" in said else array
        found = source.read("test", torch.tensor([4, 0]))
        assert np.array_equal(found.x.numpy(), arranged[order[45:][[4, 0]]].reshape(2, *event))
        assert found.x.dtype == {None: torch.from_numpy(array).dtype, 1000: torch.int32}.get(levels, torch.uint8)
        items = open_items(path, source.facts(), SourceOptions(**options))
        assert np.array_equal(next(items.batches(50)).batch.x.numpy(), arranged.reshape(50, *event))
        memory = as_source(array, **options)
        assert (memory.kind, memory.event_shape, memory.levels) == (kind, event, levels)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (pixels(50, 3, 4, 4), {}, "both its first and its last axis can be the channels. Say --channels first or"),
        (pixels(50, 6, 8, 9), {}, "neither its first nor its last axis seems to be the channels"),
        (pixels(50, 6, 8), {}, "can be grey images or sequences .* --kind image or --kind sequence"),
        (pixels(50, 3, 8, 8, dtype=np.int32), {}, "Say --levels N for pixels"),
        (pixels(50, 3, 8, dtype=np.int32), {"kind": "sequence"}, "Say --levels N"),
        (RNG.normal(size=(50, 3, 8, 8)), {}, "can be scaled pixels.*say --kind image"),
        (RNG.normal(size=(50, 3, 8)), {"channels": "last"}, "--channels has no effect"),
        (RNG.normal(size=50), {}, "items along the first axis"),
        (
            pixels(50, 3, 8, 8, dtype=np.int64),
            {"levels": 100},
            r"item \d+, element .*; it must hold integers 0\.\.99",
        ),
        (np.full((50, 3, 8), np.nan), {}, r"item 0, element \(0, 0\): the value is nan"),
        (pixels(50, 3, 8, 8), {"drop": "a"}, "--drop have no effect|--drop has no effect"),
        (pixels(4, 3, 8, 8), {}, "at least 10 items"),
    ],
)
def test_what_is_not_clear_is_asked_for(tmp_path, array, options, message):
    with pytest.raises(DataError, match=message):
        open_source(saved(tmp_path, array), SourceOptions(**options))


def test_rows_of_numbers_are_a_table_by_default(tmp_path):
    values = RNG.normal(size=(50, 4))
    path = saved(tmp_path, values)
    assert open_source(path).kind == "table"
    assert open_source(path, SourceOptions(drop="column 2")).columns == ("column 1", "column 3", "column 4")
    items = open_items(path, open_source(path, SourceOptions(drop="column 2")).facts())
    assert np.array_equal(next(items.batches(50)).batch.x.numpy(), values[:, [0, 2, 3]])
    said = SourceOptions(kind="table")
    counts = open_source(saved(tmp_path, pixels(50, 4)), said)
    assert counts.kind == "table"
    assert open_source(counts.name, said).fingerprint() == counts.fingerprint()


def test_items_stay_in_the_file(tmp_path):
    path = saved(tmp_path, pixels(2000, 3, 64, 64))
    source = open_source(path)
    assert np.shares_memory(source._events("train"), source._arrays["test"].values)
    assert not source._arrays["train"].values.flags.owndata
    with pytest.raises(DataError, match="cannot be read by the numbers"):
        source.read("test", torch.tensor([200]))


def test_a_changed_file_is_another_source(tmp_path):
    array = RNG.normal(size=(50, 3, 8))
    before = open_source(saved(tmp_path, array)).fingerprint()
    assert open_source(saved(tmp_path, array)).fingerprint() == before
    array[33, 2, 7] += 1e-12
    assert open_source(saved(tmp_path, array)).fingerprint() != before


def archive(folder, packed=False, **arrays):
    (np.savez_compressed if packed else np.savez)(folder / "a.npz", **arrays)
    return folder / "a.npz"


@pytest.mark.parametrize("packed", [False, True])
def test_an_archive_with_splits_and_labels(tmp_path, packed):
    images, labels = pixels(70, 8, 8), RNG.integers(0, 3, 70)
    labels[:3] = 0, 1, 2
    names = [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")]
    for name in names:
        arrays = dict(zip(name, (images[:50], labels[:50], images[50:], labels[50:, None]), strict=True))
        path = archive(tmp_path, packed, **arrays, mean=np.ones(3))
        source = open_source(path)
        assert [source.size(split) for split in ("train", "validation", "test")] == [45, 5, 20]
        assert (source.classes, source.event_shape) == (3, (1, 8, 8))
        assert "without 'mean'" in source.description
        order = np.random.default_rng(0).permutation(50)
        for split, part in (("train", order[:45]), ("validation", order[45:]), ("test", np.arange(50, 70))):
            batch = source.read_all(split)
            assert np.array_equal(batch.x.numpy()[:, 0], images[part])
            assert np.array_equal(batch.labels.numpy(), labels[part])
        items = open_items(path, source.facts())
        assert items.carried == ("label",)
        assert next(items.batches(20)).carried["label"].tolist() == labels[50:].tolist()


def test_archives_of_other_kinds(tmp_path):
    rows = RNG.normal(size=(50, 4))
    assert open_source(archive(tmp_path, whatever=rows)).kind == "table"
    assert open_source(archive(tmp_path, data=RNG.normal(size=(50, 2, 9)))).kind == "sequence"
    whole = open_source(archive(tmp_path, train=pixels(50, 8, 8), val=pixels(9, 8, 8), test=pixels(8, 8, 8)))
    assert [whole.size(split) for split in ("train", "validation", "test")] == [50, 9, 8]
    without = open_source(archive(tmp_path, train=pixels(50, 8, 8), val=pixels(9, 8, 8)))
    assert [without.size(split) for split in ("train", "validation", "test")] == [45, 9, 5]
    assert "test: the last tenth of the training items" in without.description


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones((20, 3)), "b": np.ones((20, 3))}, r"the arrays 'a', 'b', which do not tell"),
        ({"x": np.ones((20, 3)), "images": np.ones((20, 3))}, "several arrays that can be the items"),
        ({"x_test": np.ones((20, 3)), "y_test": np.ones(20)}, "do not tell which are the training items"),
        ({"x": pixels(20, 8, 8), "y": np.zeros(19, np.int64)}, r"labels of shape \(19,\) for 20 items"),
        ({"x": pixels(20, 8, 8), "y": np.zeros(20)}, "Labels must be classes"),
        ({"x_train": pixels(20, 8, 8), "x_test": pixels(20, 8, 9), "y_train": np.zeros(20, int)}, "some of its splits"),
        ({"x_train": pixels(20, 8, 8), "x_test": pixels(20, 9, 9)}, r"'test' have shape \(1, 9, 9\), 'train' has"),
        ({"x": np.array([{}], dtype=object)}, "Python objects"),
        ({"x": np.array(["a"] * 20)}, "does not hold rows of numbers"),
    ],
)
def test_archives_that_are_not_clear(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_source(archive(tmp_path, **arrays))


def test_damaged_archives(tmp_path):
    path = archive(tmp_path, x=pixels(50, 8, 8))
    content = path.read_bytes()
    for spoiled in (content[:-30], content[:50], b"", b"PK" + bytes(100), content.replace(b"(50, 8", b"(51, 8")):
        path.write_bytes(spoiled)
        with pytest.raises(DataError, match=r"a\.npz'"):
            open_source(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as packed:
        packed.writestr("x.npy", b"")
    with pytest.raises(DataError, match="packed in a way that numpy does not use"):
        open_source(path)
    path = archive(tmp_path, packed=True, x=np.zeros((60_000_000, 1), np.uint8))
    with pytest.raises(DataError, match="unpacks to more than 30 times its size"):
        open_source(path)


def test_arrays_that_announce_another_size(tmp_path):
    path = saved(tmp_path, pixels(50, 3, 8, 8))
    content = path.read_bytes()
    for spoiled in (content[:-1], content + b"0", content.replace(b"(50, ", b"(99, ")):
        path.write_bytes(spoiled)
        with pytest.raises(DataError, match=r"announces \d+ bytes and holds \d+"):
            map_array(path)


@pytest.mark.parametrize("option", [{"given": ("column 1",)}, {"missing": ("0",)}, {"dependent": "drop"}])
@pytest.mark.parametrize("name", ["rows.npz", "pictures.npy", "graphs.npz"])
def test_options_of_columns_are_refused_where_there_are_none(tmp_path, option, name):
    rows = RNG.normal(size=(60, 3))
    if name == "pictures.npy":
        np.save(tmp_path / name, pixels(50, 8, 8))
    elif name == "rows.npz":
        np.savez(tmp_path / name, rows)
    else:
        np.savez(tmp_path / name, x=rows, sizes=np.full(20, 3))
    with pytest.raises(DataError, match=f"--{next(iter(option))}"):
        open_source(tmp_path / name, SourceOptions(**option))
