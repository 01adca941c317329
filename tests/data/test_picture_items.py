import os
import shutil

import pytest
import torch
from PIL import Image

from likelify.data import SourceOptions, folder, open_items, open_source, picture_items, subset
from likelify.data.folder import image_folder
from likelify.data.picture_items import PictureItems
from likelify.data.tiles import TileItems
from likelify.errors import DataError
from tests.data.photographs import write_photographs

SIZE = SourceOptions(image_size="12x16", labels="folders")


@pytest.fixture
def fitted(tmp_path):
    """Return a source of two classes that a model may have been fitted to."""
    for name in ("cats", "dogs"):
        write_photographs(tmp_path / "fitted" / name, 12, least=20, most=40)
    return image_folder(tmp_path / "fitted", SIZE)


@pytest.fixture
def others(tmp_path):
    return write_photographs(tmp_path / "others", 11, least=20, most=40)


def read(items, size, start=0):
    batches = list(items.batches(size, start))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    carried = {name: [each for batch in batches for each in batch.carried[name]] for name in items.carried}
    return torch.cat([batch.batch.x for batch in batches]), carried


def test_pictures_come_in_order_with_their_names_in_the_form_of_the_model(fitted, others):
    items = open_items(others, fitted.facts())
    assert isinstance(items, PictureItems)
    assert (items.count, items.carried) == (11, ("file",))
    x, carried = read(items, 4)
    assert carried["file"] == sorted(os.listdir(others))
    assert x.shape == (11, 3, 12, 16)
    again, names = read(items, 3, start=5)
    assert torch.equal(again, x[5:])
    assert names["file"] == carried["file"][5:]
    assert list(items.batches(3, start=11)) == []
    expected = image_folder(others, SourceOptions(image_size="12x16"))
    for split in ("train", "test"):
        numbers = [carried["file"].index(name) for name in expected.files[split]]
        assert torch.equal(x[numbers], expected.read_all(split).x)


def test_what_is_done_to_pictures_is_said(fitted, others, tmp_path):
    said = open_items(others, fitted.facts()).said
    assert "the middle of each, as large as the aspect allows, reduced to 12x16" in said
    (tmp_path / "grey").mkdir()
    Image.new("L", (16, 12), 7).save(tmp_path / "grey" / "a.png")
    assert open_items(tmp_path / "grey", fitted.facts()).said == "1 grey ones with three equal channels"
    assert TileItems(tmp_path / "grey", fitted.facts()).said == "1 grey ones with three equal channels"
    Image.new("RGB", (32, 24), "red").save(tmp_path / "grey" / "b.png")
    tiles = TileItems(tmp_path / "grey", fitted.facts())
    assert [large.said for large in tiles.pictures] == ["1 grey ones with three equal channels", ""]
    (tmp_path / "grey" / "b.png").unlink()
    Image.new("RGB", (16, 12)).save(tmp_path / "grey" / "a.png")
    assert open_items(tmp_path / "grey", fitted.facts()).said == ""


def test_options_of_the_fit_are_those_of_the_items(fitted, others):
    centre, _ = read(open_items(others, fitted.facts(), SourceOptions(image_size="12x16")), 11)
    stretched, _ = read(open_items(others, fitted.facts(), SourceOptions(image_size="12x16", crop="stretch")), 11)
    assert not torch.equal(centre, stretched)


def test_a_single_picture_is_one_item(fitted, others):
    name = sorted(os.listdir(others))[3]
    items = open_items(others / name, fitted.facts())
    x, carried = read(items, 5)
    assert carried["file"] == [name]
    assert torch.equal(x[0], read(open_items(others, fitted.facts()), 11)[0][3])


def test_labels_are_subfolders_and_numbers_where_the_model_knows_them(fitted, tmp_path):
    items = open_items(f"images:{tmp_path / 'fitted'}", fitted.facts(), SIZE)
    batches = list(items.batches(20))
    assert items.carried == ("file", "label")
    assert batches[0].carried["label"] == ["cats"] * 12 + ["dogs"] * 8
    assert batches[0].batch.labels.tolist() == [0] * 12 + [1] * 8
    shutil.move(tmp_path / "fitted" / "dogs", tmp_path / "fitted" / "owls")
    strange = next(open_items(tmp_path / "fitted", fitted.facts(), SIZE).batches(24))
    assert set(strange.carried["label"]) == {"cats", "owls"}
    assert strange.batch.labels is None


def test_many_are_read_by_several_processes(fitted, others, monkeypatch):
    alone = read(open_items(others, fitted.facts()), 4)
    monkeypatch.setattr(picture_items, "FEW", 3)
    ahead = read(open_items(others, fitted.facts()), 4)
    assert torch.equal(alone[0], ahead[0])
    assert alone[1] == ahead[1]


def test_the_fingerprint_is_that_of_the_content_in_its_order(fitted, others):
    def digest(options=None):
        return open_items(others, fitted.facts(), options).fingerprint()

    before = digest()
    assert digest() == before
    assert digest(SourceOptions(crop="stretch")) != before
    first, second = sorted(os.listdir(others))[:2]
    os.rename(others / first, others / f"zz {first}")
    assert digest() != before
    os.rename(others / f"zz {first}", others / first)
    assert digest() == before
    shutil.copy(others / second, others / first)
    assert digest() != before


def test_what_the_model_cannot_take_is_named_before_anything_is_read(fitted, others, tmp_path):
    facts = fitted.facts()
    with pytest.raises(DataError, match="There is no file or folder"):
        open_items(tmp_path / "nothing.png", facts)
    with pytest.raises(DataError, match="is of pictures; the model is of rows"):
        open_items(others, open_source("iris").facts())
    with pytest.raises(DataError, match="with 17 levels, which no files of pictures have"):
        open_items(others, open_source("digits").facts())
    write_photographs(others / "small", 1, least=8, most=10)
    with pytest.raises(DataError, match=r"small/photo 000\.png' has .* pixels; the model is of images of 12x16"):
        open_items(others, facts)
    items = open_items(others, facts, SourceOptions(skip_unreadable=True))
    assert (items.count, items.left_out) == (11, ("small/photo 000.png",))
    grey = facts.model_copy(update={"event_shape": (1, 12, 16)})
    shutil.rmtree(others / "small")
    with pytest.raises(DataError, match="is in colours, where grey pictures are wanted"):
        read(open_items(others, grey), 11)


def test_items_of_a_source_have_the_names_of_its_files(fitted, monkeypatch, tmp_path):
    items = open_items(fitted, fitted.facts(), split="validation")
    x, carried = read(items, 2)
    assert carried["file"] == list(fitted.files["validation"])
    assert [name.partition("/")[0] for name in carried["file"]] == carried["label"]
    assert torch.equal(x, fitted.read_all("validation").x)
    part = subset(fitted, train=5)
    names = read(open_items(part, part.facts(), split="train"), 3)[1]["file"]
    assert len(names) == 5
    assert names == [fitted.files["train"][n] for n in part._kept["train"].tolist()]
    monkeypatch.setattr(folder, "AT_ONCE_FILES", 10)
    lazy = image_folder(tmp_path / "fitted", SIZE)
    assert torch.equal(read(open_items(lazy, lazy.facts(), split="train"), 7)[0], fitted.read_all("train").x)
