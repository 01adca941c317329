"""Items as files: each format gives back what was written, and nothing is overwritten or left half."""

import csv

import numpy as np
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from likelify.data import Batch, Facts
from likelify.errors import ConfigError
from likelify.fitting.drawing.writing import check_file, check_panels, endings, free_file, write_items, write_panels
from likelify.schema import ColumnSchema


def facts(kind, shape, **more):
    values = {"name": "made", "family": "made", "kind": kind, "event_shape": shape, "sizes": {}, "fingerprint": ""}
    return Facts(**values | more)


IMAGES = facts("image", (1, 4, 3), levels=256)
ROWS = facts("table", (2,), columns=("=time", "b"))
SEQUENCES = facts("sequence", (2, 3))


def batches(items, labels=None, size=3):
    for start in range(0, len(items), size):
        part = slice(start, start + size)
        yield Batch(items[part], None if labels is None else labels[part])


def rows(n=8):
    return 1.7e9 + 3 * torch.randn(n, 2, dtype=torch.float64)


def test_rows_keep_all_their_digits_in_every_format(tmp_path):
    items, labels = rows(), torch.arange(8) % 3
    for ending in (".csv", ".parquet", ".feather", ".npy", ".npz"):
        write_items(tmp_path / f"rows{ending}", ROWS, 8, batches(items, labels))
    with (tmp_path / "rows.csv").open(newline="") as handle:
        header, *lines = csv.reader(handle)
    assert header == ["'=time", "b", "label"]
    assert [[float(cell) for cell in line[:2]] for line in lines] == items.tolist()
    assert [line[2] for line in lines] == list("01201201")
    for table in (
        pyarrow.parquet.read_table(tmp_path / "rows.parquet"),
        pyarrow.feather.read_table(tmp_path / "rows.feather"),
    ):
        assert table.column_names == ["=time", "b", "label"]
        assert table["b"].to_pylist() == items[:, 1].tolist()
        assert str(table["label"].type) == "int64"
    assert np.array_equal(np.load(tmp_path / "rows.npy"), items)
    with np.load(tmp_path / "rows.npz") as arrays:
        assert np.array_equal(arrays["x"], items)
        assert np.array_equal(arrays["labels"], labels)


def test_a_column_called_label_stays_what_it_is(tmp_path):
    named = ROWS.model_copy(update={"columns": ("label", "b")})
    write_items(tmp_path / "rows.csv", named, 2, batches(rows(2), torch.tensor([0, 1])))
    assert (tmp_path / "rows.csv").read_text().splitlines()[0] == "label,b,label_2"


def test_columns_keep_their_types_and_classes_their_names(tmp_path):
    schema = (
        ColumnSchema(name="n", kind="integer", rest="steps", step=1),
        ColumnSchema(name="b", kind="boolean", states=(0, 1), rest="none"),
    )
    kinds = {"schema": schema, "class_names": ("=cat", "a dog/")}
    typed = ROWS.model_copy(update={"columns": ("n", "b"), **kinds})
    items, labels = torch.tensor([[2.6, 0.9], [-1.2, 0.1]], dtype=torch.float64), torch.tensor([1, 0])
    for name in ("x.csv", "x.parquet"):
        write_items(tmp_path / name, typed, 2, batches(items, labels))
    assert (tmp_path / "x.csv").read_text() == "n,b,label\n3,true,a dog/\n-1,false,'=cat\n"
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert [str(field.type) for field in table.schema] == ["int64", "bool", "string"]
    named = IMAGES.model_copy(update={"class_names": ("=cat", "a dog/")})
    write_items(tmp_path / "folder", named, 2, batches(torch.zeros(2, 1, 4, 3), labels))
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["0-a_dog_.png", "1-_cat.png"]


def test_rows_without_names_have_no_header_unless_classes_ask_for_one(tmp_path):
    nameless = ROWS.model_copy(update={"columns": None})
    write_items(tmp_path / "a.csv", nameless, 2, batches(torch.tensor([[1.0, 2.0], [3.0, 4.5]])))
    assert (tmp_path / "a.csv").read_text() == "1.0,2.0\n3.0,4.5\n"
    write_items(tmp_path / "a.parquet", nameless, 2, batches(torch.ones(2, 2)))
    assert pyarrow.parquet.read_table(tmp_path / "a.parquet").column_names == ["column_1", "column_2"]


def test_images_keep_their_integers(tmp_path):
    items, labels = torch.randint(256, (12, 1, 4, 3), dtype=torch.uint8), torch.arange(12) % 2
    for name in ("x.npy", "x.npz", "single", "x.png"):
        write_items(tmp_path / name, IMAGES, 12, batches(items, labels))
    assert np.load(tmp_path / "x.npy").dtype == np.uint8
    assert np.array_equal(np.load(tmp_path / "x.npy"), items)
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["x"], items)
    names = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert names[:2] == ["00-0.png", "01-1.png"]
    assert len(names) == 12
    for name, image in zip(names, items, strict=True):
        with Image.open(tmp_path / "single" / name) as read:
            assert np.array_equal(np.asarray(read), image[0])


def test_many_levels_are_written_in_sixteen_bits(tmp_path):
    deep, items = IMAGES.model_copy(update={"levels": 65536}), torch.randint(65536, (2, 1, 4, 3), dtype=torch.int32)
    write_items(tmp_path / "deep", deep, 2, batches(items))
    write_items(tmp_path / "x.npy", deep, 2, batches(items))
    with Image.open(tmp_path / "deep" / "1.png") as read:
        assert np.array_equal(np.asarray(read), items[1, 0])
    assert np.load(tmp_path / "x.npy").dtype == np.uint16


def test_sequences_are_written_in_long_format(tmp_path):
    items = torch.arange(12.0).reshape(2, 2, 3)
    write_items(tmp_path / "x.csv", SEQUENCES, 2, batches(items, size=1))
    first, second, *_, last = (tmp_path / "x.csv").read_text().splitlines()
    assert first == "sequence,position,channel_1,channel_2"
    assert (second, last) == ("0,0,0.0,3.0", "1,2,8.0,11.0")
    write_items(tmp_path / "x.png", SEQUENCES, 2, batches(items))
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_exists_is_left_alone(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"'.*rows.csv' exists, and was left as it is.*--force"):
        write_items(file, ROWS, 2, batches(rows(2)))
    assert file.read_text() == "mine"
    write_items(file, ROWS, 2, batches(rows(2)), force=True)
    assert file.read_text() != "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        write_items(tmp_path / "full", IMAGES, 1, [], force=True)
    assert free_file(tmp_path / "rows", ".csv") == tmp_path / "rows-2.csv"


def test_a_file_that_came_meanwhile_is_left_alone(tmp_path):
    file = tmp_path / "rows.csv"

    def slow():
        file.write_text("another's")
        yield Batch(rows(2))

    with pytest.raises(ConfigError, match="exists"):
        write_items(file, ROWS, 2, slow())
    assert file.read_text() == "another's"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


@pytest.mark.parametrize(("name", "kind"), [("x.csv", ROWS), ("folder", IMAGES), ("x.npy", ROWS), ("x.parquet", ROWS)])
def test_an_interrupted_write_leaves_nothing(tmp_path, name, kind):
    def interrupted():
        yield Batch(torch.zeros(1, *kind.event_shape))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_items(tmp_path / name, kind, 2, interrupted())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "count", "message"),
    [
        ("x.jpg", IMAGES, 1, r"Images are written to files in .png, .npy or .npz, or a folder .*'x.jpg' is none"),
        ("x.txt", ROWS, 1, r"Rows are written to files in .csv, .parquet, .feather, .npy, .npz or .png; 'x.txt'"),
        ("x", ROWS, 1, "is none of them"),
        ("x.png", IMAGES.model_copy(update={"levels": None}), 1, "in .npy or .npz; 'x.png'"),
        ("x.png", IMAGES, 20_000, "at most 10,000 images, not 20,000; name a file in .npy or .npz"),
        ("x.npy", facts("graph", (2,)), 1, "Graphs are written to files in .png, .svg, .csv"),
    ],
)
def test_files_that_do_not_fit_are_refused(name, kind, count, message):
    from pathlib import Path

    with pytest.raises(ConfigError, match=message):
        check_file(Path(name), kind, count)


def test_versions_of_items_are_written_beside_one_another(tmp_path):
    one, other = rows(3), rows(3)
    write_panels(tmp_path / "x.csv", ROWS, {"original": one, "new": other})
    header, first, *_ = (tmp_path / "x.csv").read_text().splitlines()
    assert header == "'=time,b,'=time (new),b (new)"
    assert [float(cell) for cell in first.split(",")] == [*one[0].tolist(), *other[0].tolist()]
    images = torch.zeros(3, 1, 4, 3, dtype=torch.uint8)
    write_panels(tmp_path / "x.npz", IMAGES, {"a b": images, "c": images + 1})
    with np.load(tmp_path / "x.npz") as arrays:
        assert sorted(arrays) == ["a_b", "c"]
    write_panels(tmp_path / "x.npy", IMAGES, {"a": images, "c": images + 1})
    assert np.load(tmp_path / "x.npy").max() == 1
    with pytest.raises(ConfigError, match="beside one another are written to a file in .png, .npy or .npz"):
        check_panels(tmp_path / "folder", IMAGES)
    assert endings(SEQUENCES)[0] == ".png"
