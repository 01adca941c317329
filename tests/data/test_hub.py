"""Data sets of the library `datasets`, made in memory or saved: what their columns say, with their splits."""

import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.errors import DataError
from tests.data.kinds import kinds

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")
PIXELS = RNG.integers(0, 256, (40, 3, 8, 9)).astype(np.uint8)
CLASSES = [n % 3 for n in range(40)]


def pictures(pixels=PIXELS, classes=CLASSES):
    images = [Image.fromarray(each.transpose(1, 2, 0)) for each in pixels]
    kinds = {
        "image": datasets.Image(),
        "kind": datasets.ClassLabel(names=["a", "b", "c"]),
        "id": datasets.Value("int64"),
    }
    columns = {"image": images, "kind": classes, "id": list(range(len(images)))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def numbers(count=50):
    columns = {
        "length": RNG.normal(size=count).tolist(),
        "count": RNG.integers(0, 9, count).tolist(),
        "open": (RNG.integers(0, 2, count) == 1).tolist(),
        "kind": [n % 2 for n in range(count)],
    }
    types = {"length": "float64", "count": "int32", "open": "bool"}
    kinds = {name: datasets.Value(kind) for name, kind in types.items()}
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features({**kinds, "kind": datasets.ClassLabel(names=["no", "yes"])})
    )


def test_images_with_splits_from_a_folder(tmp_path):
    whole = pictures()
    splits = datasets.DatasetDict(
        {"train": whole.select(range(30)), "test": whole.select(range(30, 40)), "extra": whole.select([0])}
    )
    splits.save_to_disk(tmp_path)
    source = open_source(f"hub:{tmp_path}")
    assert [source.size(split) for split in SPLITS] == [27, 3, 10]
    assert (source.kind, source.event_shape, source.levels) == ("image", (3, 8, 9), 256)
    assert (source.classes, source.class_names) == (3, ("a", "b", "c"))
    assert "without the splits 'extra'" in source.description
    assert np.array_equal(source.read_all("test").x.numpy(), PIXELS[30:])
    order = np.random.default_rng(0).permutation(30)
    batch = source.read("validation", torch.tensor([2, 0]))
    assert np.array_equal(batch.x.numpy(), PIXELS[order[27:][[2, 0]]])
    assert batch.labels.tolist() == [CLASSES[n] for n in order[27:][[2, 0]]]
    again = open_source(f"hub:{tmp_path}")
    assert again.fingerprint() == source.fingerprint()
    changed = PIXELS.copy()
    changed[3, 0, 0, 0] ^= 1
    assert as_source(pictures(changed)).fingerprint() != as_source(pictures()).fingerprint()
    assert as_source(pictures()).fingerprint() == as_source(pictures()).fingerprint()


def test_images_are_brought_to_one_size(tmp_path):
    pictures().save_to_disk(tmp_path)
    source = open_source(f"hub:{tmp_path}", SourceOptions(image_size=4, crop="stretch"))
    assert source.event_shape == (3, 4, 4)
    assert "reduced to 4x4" in source.description


def test_a_table_with_classes():
    data = numbers()
    source = as_source(data)
    assert (source.columns, kinds(source)) == (
        ("length", "count", "open"),
        ("real", "integer", "boolean"),
    )
    assert (source.classes, source.class_names) == (2, ("no", "yes"))
    assert [source.size(split) for split in SPLITS] == [40, 5, 5]
    order = np.random.default_rng(0).permutation(50)[:40]
    train = source.read_all("train")
    expected = np.column_stack([np.array(data[name][:], float) for name in ("length", "count", "open")])
    assert np.array_equal(train.x.numpy(), expected[order])
    assert train.labels.tolist() == [n % 2 for n in order]
    items = open_items(data.select(range(49, -1, -1)), source.facts())
    batch = next(items.batches(50))
    assert items.carried == ("kind",)
    assert np.array_equal(batch.batch.x.numpy(), expected[::-1])


@pytest.mark.parametrize("whole", [True, False])
def test_images_in_order(whole):
    facts = as_source(pictures()).facts()
    data = pictures() if whole else datasets.DatasetDict(train=pictures(PIXELS[:5], CLASSES[:5]), test=pictures())
    items = open_items(data, facts)
    assert (items.count, items.carried) == (40, ("label",))
    batches = list(items.batches(16, 3))
    assert np.array_equal(np.concatenate([batch.batch.x.numpy() for batch in batches]), PIXELS[3:])
    assert [label for batch in batches for label in batch.carried["label"]] == ["abc"[n] for n in CLASSES[3:]]
    assert [label for batch in batches for label in batch.batch.labels.tolist()] == CLASSES[3:]


def test_arrays():
    features = datasets.Features({"x": datasets.Array3D((3, 8, 9), "uint8")})
    data = datasets.Dataset.from_dict({"x": PIXELS}, features=features)
    source = as_source(data)
    assert (source.kind, source.event_shape, source.levels) == ("image", (3, 8, 9), 256)
    assert np.array_equal(next(open_items(data, source.facts()).batches(40)).batch.x.numpy(), PIXELS)
    features = datasets.Features({"x": datasets.Array2D((2, 9), "float32")})
    values = RNG.normal(size=(20, 2, 9)).astype(np.float32)
    sequences = as_source(datasets.Dataset.from_dict({"x": values}, features=features))
    assert (sequences.kind, sequences.event_shape) == ("sequence", (2, 9))
    assert sequences.read_all("train").x.dtype == torch.float32


def test_what_is_done_to_images_of_another_size_is_said():
    facts = as_source(pictures()).facts()
    assert open_items(pictures(), facts).said == ""
    smaller = facts.model_copy(update={"event_shape": (1, 4, 4)})
    said = open_items(pictures(), smaller).said
    assert "of 8x9, the middle of each, as large as the aspect allows, reduced to 4x4" in said
    assert "grey, though in files of colours" in said


def test_what_is_not_clear_is_said():
    one = pictures().select_columns(["image"])
    several = datasets.concatenate_datasets(
        [one.rename_column("image", "first"), one.rename_column("image", "second")], axis=1
    )
    with pytest.raises(DataError, match="several columns that can be the items: 'first', 'second'"):
        as_source(several)
    with pytest.raises(DataError, match="column 'text': nearly every row has a word of its own"):
        as_source(numbers().add_column("text", [f"w{n}" for n in range(50)]))
    with pytest.raises(DataError, match="no training split, but 'test'"):
        as_source(datasets.DatasetDict(test=numbers()))
    with pytest.raises(DataError, match="IterableDataset, which cannot be read in any order"):
        as_source(numbers().to_iterable_dataset())
    with pytest.raises(DataError, match="There is no column 'kid'. Did you mean 'kind'"):
        as_source(numbers(), labels="kid")
    with pytest.raises(DataError, match="no column of images"):
        open_items(numbers(), as_source(pictures()).facts())


def test_a_damaged_image_is_named():
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0].transpose(1, 2, 0)).save(stream, "PNG")
    stored = [{"bytes": stream.getvalue(), "path": None}] * 20 + [{"bytes": b"no picture", "path": None}]
    data = datasets.Dataset.from_dict({"image": stored}, features=datasets.Features({"image": datasets.Image()}))
    with pytest.raises(DataError, match="data, train, item 20' is not a whole PNG"):
        as_source(data)


def test_a_data_set_that_cannot_be_loaded(monkeypatch, tmp_path):
    def load(*_):
        raise ConnectionError("Couldn't reach the Hub.\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="'some/name:part' cannot be loaded .*: Couldn't reach the Hub\\.$"):
        open_source("hub:some/name:part")
    pictures().save_to_disk(tmp_path)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DataError, match="cannot be loaded"):
        open_source(f"hub:{tmp_path}")
