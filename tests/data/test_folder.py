import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from likelify.data import SPLITS, SourceOptions, folder, open_source, subset
from likelify.data.folder import image_folder
from likelify.data.listing import list_pictures
from likelify.errors import DataError
from tests.data.photographs import crop, save, write_photographs

RNG = np.random.default_rng(0)


def write(place, sizes, mode="RGB", ending="png"):
    """Write pictures of these sizes (height, width)."""
    for number, size in enumerate(sizes):
        save(crop(RNG, *size).convert(mode), place / f"{number:02d}.{ending}")
    return place


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), 30)


def sizes(source):
    return tuple(source.size(split) for split in SPLITS)


def test_a_folder_is_a_source_by_its_path_alone(photographs):
    source = open_source(str(photographs))
    assert source.name == f"images:{photographs}"
    assert (source.family, source.kind, source.event_shape, source.levels) == ("images", "image", (3, 32, 32), 256)
    assert sizes(source) == (24, 3, 3)
    assert source.classes is None
    again = open_source(source.name)
    assert again.fingerprint() == source.fingerprint()
    batch = source.read_all("train")
    assert (batch.x.dtype, batch.x.shape, batch.labels) == (torch.uint8, (24, 3, 32, 32), None)
    assert torch.equal(source.read("train", torch.tensor([3, 1])).x, batch.x[[3, 1]])
    with pytest.raises(DataError, match=r"has the items 0\.\.23"):
        source.read("train", torch.tensor([24]))


def test_all_that_was_decided_is_said(photographs):
    (photographs / "Thumbs.db").touch()
    (photographs / ".DS_Store").touch()
    said = open_source(photographs).description
    for words in (
        r"30 pictures (11 PNG, 7 WEBP, 7 TIFF, 5 JPEG)",
        "the middle of each, as large as the aspect allows, reduced to 32x32 by means over areas",
        "3 grey ones with three equal channels",
        "4 turned as their EXIF says",
        "3 with an alpha channel laid on white",
        "ignored: 1 .db, 1 hidden",
        "24 / 3 / 3 by the hash of their content",
    ):
        assert words in said, said


def test_reading_at_once_and_when_asked_gives_the_same_items(photographs, monkeypatch):
    at_once = image_folder(photographs)
    monkeypatch.setattr(folder, "AT_ONCE_FILES", 1000)
    lazy = image_folder(photographs)
    assert at_once.workers == 0
    assert lazy.workers > 0
    assert lazy.fingerprint() == at_once.fingerprint()
    assert lazy.description == at_once.description
    assert subset(lazy, train=3).workers == lazy.workers
    for split in SPLITS:
        assert torch.equal(lazy.read_all(split).x, at_once.read_all(split).x)


def test_options_decide_size_and_crop(photographs):
    source = image_folder(photographs, SourceOptions(image_size="16x24", crop="stretch"))
    assert source.event_shape == (3, 16, 24)
    assert "each as a whole reduced to 16x24 by means over areas, whatever its aspect" in source.description
    others = [SourceOptions(image_size="16x24"), SourceOptions(image_size="24x16", crop="stretch"), None]
    assert len({image_folder(photographs, options).fingerprint() for options in others} | {source.fingerprint()}) == 4


@pytest.mark.parametrize(
    ("given", "shape", "words"),
    [
        ([(28, 28)] * 5, (3, 28, 28), "of 28x28, as they are"),
        ([(64, 48)] * 5, (3, 64, 48), "of 64x48, as they are"),
        ([(65, 65)] * 5, (3, 32, 32), "of 65x65, each reduced to 32x32"),
        ([(90, 120)] * 5, (3, 32, 40), "the middle of each"),
        ([(96, 64), (192, 128), (48, 32)], (3, 48, 32), "of 48x32 to 192x128, each reduced to 48x32"),
        ([(300, 50)] * 4, (3, 64, 32), "the middle of each"),
        ([(21, 30), (40, 25), (30, 30)], (3, 20, 20), "reduced to 20x20"),
        ([(3, 4), (4, 3), (5, 5)], (3, 3, 3), "reduced to 3x3"),
    ],
)
def test_the_usual_size_follows_from_those_of_the_pictures(tmp_path, given, shape, words):
    source = image_folder(write(tmp_path, given))
    assert source.event_shape == shape
    assert words in source.description


def test_a_few_that_are_too_small_are_left_out_by_name(tmp_path):
    write(tmp_path, [*[(40, 50)] * 11, (8, 8)])
    source = image_folder(tmp_path)
    assert sum(sizes(source)) == 11
    assert "left out as smaller than that: '11.png'" in source.description
    with pytest.raises(DataError, match=r"12 of the 12 pictures .* are smaller than 48x48, such as '00.png', '01.png'"):
        image_folder(tmp_path, SourceOptions(image_size=48))


def test_grey_pictures_have_one_channel_also_in_files_of_colours(tmp_path):
    write(tmp_path, [(8, 8)] * 4, "L")
    assert image_folder(tmp_path).event_shape == (1, 8, 8)
    for number in range(4):
        Image.open(tmp_path / f"{number:02d}.png").convert("RGB").save(tmp_path / f"{number:02d}.png")
    source = image_folder(tmp_path)
    assert source.event_shape == (1, 8, 8)
    assert "grey, though in files of colours" in source.description


def test_levels_are_those_of_the_files(tmp_path):
    write(tmp_path / "bits", [(8, 8)] * 4, "1")
    source = image_folder(tmp_path / "bits")
    assert (source.event_shape, source.levels) == ((1, 8, 8), 2)
    assert set(source.read_all("train").x.unique().tolist()) == {0, 1}
    assert image_folder(tmp_path / "bits", SourceOptions(image_size=4)).levels == 256
    for number in range(4):
        values = RNG.integers(65536, size=(8, 8)).astype(np.uint16)
        save(Image.fromarray(values), tmp_path / "deep" / f"{number}.png")
    source = image_folder(tmp_path / "deep")
    assert (source.levels, source.read_all("train").x.dtype) == (65536, torch.int32)
    save(crop(RNG, 8, 8), tmp_path / "deep" / "other.png")
    with pytest.raises(
        DataError, match=r"0\.png' has 16 bits a pixel, and .*other\.png' is in colours of 8 bits or less"
    ):
        image_folder(tmp_path / "deep")


def test_folders_of_splits_are_the_splits(tmp_path):
    for split, count in {"train": 5, "val": 2, "Test": 3}.items():
        write(tmp_path / split, [(8, 8)] * count)
    source = image_folder(tmp_path)
    assert sizes(source) == (5, 2, 3)
    assert source.files["test"] == ("Test/00.png", "Test/01.png", "Test/02.png")
    assert "5 / 2 / 3 by their folders" in source.description
    shutil.copy(tmp_path / "train" / "00.png", tmp_path / "val" / "copy.png")
    assert "(1 held-out pictures are copies of training pictures)" in image_folder(tmp_path).description
    save(crop(RNG, 8, 8), tmp_path / "beside.png")
    with pytest.raises(DataError, match=r"1 pictures beside them, such as 'beside.png'"):
        image_folder(tmp_path)


def test_splits_that_have_no_folder_are_taken_from_train(tmp_path):
    write(tmp_path / "train", [(8, 8)] * 20)
    assert sizes(image_folder(tmp_path)) == (16, 2, 2)
    write(tmp_path / "test", [(8, 8)] * 3)
    source = image_folder(tmp_path)
    assert sizes(source) == (18, 2, 3)
    assert "validation being taken from train by the hash of the content" in source.description
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DataError, match="in a folder 'test' and none in a folder 'train'"):
        image_folder(tmp_path)


def test_two_folders_of_one_split_are_refused(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / name, [(8, 8)])
    with pytest.raises(DataError, match="two folders for one split: train, val, valid"):
        image_folder(tmp_path)


def test_splits_stay_when_pictures_are_renamed_and_hardly_change_when_some_are_added(tmp_path):
    write(tmp_path, [(8, 8)] * 40)
    before = image_folder(tmp_path)
    held = before.read_all("test").x
    os.rename(tmp_path / before.files["test"][0], tmp_path / "zz.png")
    after = image_folder(tmp_path)
    assert sorted(map(str, after.read_all("test").x)) == sorted(map(str, held))
    assert after.fingerprint() != before.fingerprint()
    save(crop(RNG, 8, 8), tmp_path / "new.png")
    moved = set(after.files["train"]) & {name for split in SPLITS[1:] for name in image_folder(tmp_path).files[split]}
    assert len(moved) <= 1


def test_copies_are_in_one_split(tmp_path):
    write(tmp_path, [(8, 8)] * 10)
    for number in range(10):
        shutil.copy(tmp_path / f"{number:02d}.png", tmp_path / f"{number:02d} (copy).png")
    source = image_folder(tmp_path)
    assert sizes(source) == (16, 2, 2)
    for split in SPLITS:
        assert {name.replace(" (copy)", "") for name in source.files[split]} == {
            name for name in source.files[split] if "copy" not in name
        }
    for path in tmp_path.iterdir():
        path.write_bytes((tmp_path / "00.png").read_bytes())
    with pytest.raises(DataError, match="are copies of each other"):
        image_folder(tmp_path)


def test_three_pictures_are_enough_and_two_are_not(tmp_path):
    assert sizes(image_folder(write(tmp_path, [(8, 8)] * 3))) == (1, 1, 1)
    os.remove(tmp_path / "00.png")
    with pytest.raises(DataError, match="to train on that can be read: 2. At least 3 are needed"):
        image_folder(tmp_path)


def test_subfolders_are_classes_on_request(tmp_path):
    for name, count in {"cats": 8, "dogs": 8, "dogs/small": 8}.items():
        write(tmp_path / name, [(8, 8)] * count)
    assert image_folder(tmp_path).read_all("train").labels is None
    source = image_folder(tmp_path, SourceOptions(labels="folders"))
    assert (source.classes, source.class_names) == (2, ("cats", "dogs"))
    assert "classes: 0 cats, 1 dogs" in source.description
    for split in SPLITS:
        expected = [int(name.startswith("dogs")) for name in source.files[split]]
        assert source.read_all(split).labels.tolist() == expected
    assert source.fingerprint() != image_folder(tmp_path).fingerprint()
    save(crop(RNG, 8, 8), tmp_path / "beside.png")
    with pytest.raises(DataError, match=r"beside\.png' is in no subfolder, which would be its class"):
        image_folder(tmp_path, SourceOptions(labels="folders"))
    with pytest.raises(DataError, match=r"--labels of a folder of images: There is no kind of labels 'cats'"):
        image_folder(tmp_path, SourceOptions(labels="cats"))


def test_classes_are_below_folders_of_splits_and_need_training_pictures(tmp_path):
    for split in ("train", "validation", "test"):
        for name in ("cats", "dogs"):
            write(tmp_path / split / name, [(8, 8)] * 2)
    source = image_folder(tmp_path, SourceOptions(labels="folders"))
    assert source.read_all("test").labels.tolist() == [0, 0, 1, 1]
    write(tmp_path / "test" / "owls", [(8, 8)])
    with pytest.raises(DataError, match="no training pictures of the class 'owls', only held-out ones"):
        image_folder(tmp_path, SourceOptions(labels="folders"))
    shutil.rmtree(tmp_path / "test")
    for split in ("train", "validation"):
        shutil.rmtree(tmp_path / split / "dogs")
    write(tmp_path / "train" / "cats", [(8, 8)] * 3)
    with pytest.raises(DataError, match="are in one subfolder, 'cats'"):
        image_folder(tmp_path, SourceOptions(labels="folders"))


def spoil(path):
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])


@pytest.mark.parametrize("lazy", [False, True])
def test_a_file_that_cannot_be_read_is_named_or_skipped(tmp_path, monkeypatch, lazy):
    write(tmp_path, [(40, 40)] * 12)
    if lazy:
        monkeypatch.setattr(folder, "AT_ONCE_FILES", 100)
    spoil(tmp_path / "03.png")
    (tmp_path / "05.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"05\.png' is not a whole .* leave such files out with --skip-unreadable"):
        image_folder(tmp_path)
    (tmp_path / "05.png").unlink()
    if lazy:
        source = image_folder(tmp_path)
        with pytest.raises(DataError, match=r"03\.png' is not a whole .*: image file is truncated"):
            [source.read_all(split) for split in SPLITS]
    else:
        with pytest.raises(DataError, match=r"03\.png' is not a whole .*: image file is truncated"):
            image_folder(tmp_path)
    (tmp_path / "05.png").write_bytes(b"nothing")
    source = image_folder(tmp_path, SourceOptions(skip_unreadable=True))
    assert "left out since they cannot be read: '05.png', '03.png'" in source.description
    assert sizes(source) == (8, 1, 1)
    assert [source.read_all(split).x.shape[1:] for split in SPLITS] == [(3, 40, 40)] * 3


def test_nothing_readable_is_said(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"None of the 2 pictures of .* can be read\. '.*a\.png' is not a whole"):
        image_folder(tmp_path, SourceOptions(skip_unreadable=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "There is no folder"),
        (lambda place: place.touch(), "is a file; images are read from a folder"),
        (lambda place: place.mkdir(), r"has no pictures whose names end in \.png, .*It is empty"),
        (
            lambda place: (place.mkdir(), (place / "a.heic").touch(), (place / "b.TXT").touch()),
            r"What is there instead: 1 \.heic, 1 \.txt",
        ),
    ],
)
def test_what_is_no_folder_of_pictures_is_said(tmp_path, make, message):
    make(tmp_path / "place")
    with pytest.raises(DataError, match=message):
        image_folder(tmp_path / "place")


def test_links_are_followed_once_and_odd_names_are_names(tmp_path):
    write(tmp_path / "pictures", [(8, 8)] * 3, ending="PNG")
    os.symlink(tmp_path / "pictures", tmp_path / "pictures" / "loop")
    os.symlink(tmp_path / "pictures", tmp_path / "link")
    os.symlink(tmp_path / "nowhere.png", tmp_path / "dangling.png")
    assert len(list_pictures(tmp_path).names) == 3
    odd = os.fsdecode(b"odd \xff\n.png")
    shutil.copy(tmp_path / "pictures" / "00.PNG", tmp_path / "pictures" / odd)
    source = image_folder(tmp_path / "pictures")
    assert sum(sizes(source)) == 4
    assert source.description.isprintable()


def test_a_single_picture_is_no_data_to_fit(photographs):
    picture = sorted(photographs.glob("*.png"))[0]
    with pytest.raises(
        DataError, match=rf"is a single picture; a model is fitted to a folder of them: '{photographs}'"
    ):
        open_source(picture)
