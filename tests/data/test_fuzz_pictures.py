"""The law of readers over folders of pictures: spoiled files of every format, and folders with odd things in them."""

import os
import shutil
from contextlib import suppress
from random import Random

import numpy as np
import pytest
from PIL import Image

from likelify.data import SPLITS, SourceOptions, open_items, open_source
from likelify.errors import LikelifyError
from tests.data.photographs import crop
from tests.fuzz import Reader, check

SKIP = SourceOptions(skip_unreadable=True)
SIDE = 24


def pictures(form, count=4):
    """Return pictures that differ."""
    random = np.random.default_rng(0)
    found = [crop(random, SIDE + 3 * number, SIDE) for number in range(count)]
    if form == "deep":
        return [Image.fromarray(257 * np.asarray(image.convert("L")).astype(np.uint16)) for image in found]
    if form == "clear":
        for image in found:
            image.putalpha(128)
        return found
    return [image.quantize(32) if form == "P" else image.convert(form) for image in found]


def reader(name, ending, form="RGB", options=None, *, frames=1, **settings):
    """Return a reader of a folder of four pictures."""

    def write(folder):
        for number, image in enumerate(pictures(form)):
            others = {"save_all": True, "append_images": [Image.new("RGB", image.size, "red")] * (frames - 1)}
            image.save(folder / f"{number}.{ending}", **settings, **(others if frames > 1 else {}))

    def read(folder):
        source = open_source(folder, options)
        for split in SPLITS:
            assert int(source.read_all(split).x.max()) < source.levels
        assert source.description.isprintable()
        for batch in open_items(folder, source.facts(), options).batches(3):
            assert len(batch.carried["file"]) == len(batch)

    return Reader(name, write, read)


def exif():
    found = Image.Exif()
    found[0x0112] = 6
    found[0x9286] = "a comment"
    return found


READERS = [
    reader("png", "png", options=SKIP),
    reader("png exif", "png", exif=exif(), dpi=(72, 72)),
    reader("png grey", "png", "L"),
    reader("png palette", "png", "P", options=SKIP),
    reader("png deep", "png", "deep"),
    reader("png clear", "png", "clear"),
    reader("png bits", "png", "1"),
    reader("apng", "png", frames=3),
    reader("jpeg", "jpg", options=SKIP, exif=exif()),
    reader("jpeg progressive", "jpg", progressive=True),
    reader("jpeg cmyk", "jpg", "CMYK"),
    reader("webp", "webp", options=SKIP, exif=exif()),
    reader("webp lossless", "webp", "clear", lossless=True),
    reader("webp frames", "webp", frames=3),
    reader("tiff", "tiff", options=SKIP),
    reader("tiff lzw", "tiff", "P", compression="tiff_lzw"),
    reader("tiff deflate", "tiff", "deep", compression="tiff_adobe_deflate"),
    reader("tiff jpeg", "tiff", compression="jpeg"),
    reader("tiff fax", "tiff", "1", compression="group4"),
    reader("tiff frames", "tiff", frames=3),
    reader("gif", "gif", "P", options=SKIP),
    reader("gif frames", "gif", frames=3),
    reader("bmp", "bmp", options=SKIP),
]


def test_folders_of_pictures_keep_the_law():
    check(__name__, 150)


@pytest.mark.slow
def test_folders_of_pictures_keep_the_law_in_many_cases():
    check(__name__, 1000, seed=1)


def odd(folder, random):
    """Put something odd into a folder, or change something in it."""
    names = ["train", "test", "val", "Train", ".hidden", "a b", "ü", os.fsdecode(b"\xff"), "x" * 200, "__MACOSX", "-o"]
    place = folder / random.choice(names)
    choice = random.randrange(8)
    with suppress(FileExistsError):
        if choice == 0:
            place.mkdir()
        elif choice == 1:
            os.mkfifo(place.with_suffix(".png"))
        elif choice == 2:
            place.symlink_to(random.choice([folder, place, folder / "nothing", "/dev/zero"]))
        elif choice == 3:
            place.with_suffix(".JPG").symlink_to(random.choice(["/dev/zero", folder / "nothing", "0.png"]))
        elif choice == 4:
            place.mkdir()
            shutil.copy(folder / "0.png", place / "copy.png")
        elif choice == 5:
            place.with_suffix(".png").write_bytes(random.choice([b"", b"x", b"\x89PNG\r\n\x1a\n"]))
        elif choice == 6:
            (folder / "1.png").unlink(missing_ok=True)
        else:
            place.with_suffix(".tiff").mkdir()


@pytest.mark.parametrize("seed", range(60))
def test_odd_folders_are_read_or_refused_in_words(tmp_path, seed):
    random = Random(seed)
    for number, image in enumerate(pictures("RGB", 5)):
        image.save(tmp_path / f"{number}.png")
    for _ in range(random.choice((1, 2, 4))):
        odd(tmp_path, random)
    options = random.choice([None, SKIP, SourceOptions(labels="folders"), SourceOptions(image_size=4, crop="stretch")])
    with suppress(LikelifyError):
        source = open_source(tmp_path, options)
        assert sum(len(source.read_all(split)) for split in SPLITS) >= 3
        assert not any(name.startswith((".", "__")) for split in SPLITS for name in source.files[split])
