"""The folder of emoji, from a small archive written here."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from benchmarks.table_archives import ArchiveError
from PIL import Image

from benchmarks import emoji

# A woman astronaut, who has a variant; a flag; and another flag that looks the same.
INDEX = [
    {
        "unified": "1F469-200D-1F680",
        "image": "1f469-200d-1f680.png",
        "skin_variations": {"1F3FB": {"image": "1f469-1f3fb-200d-1f680.png"}},
    },
    {"unified": "1F1E6-1F1FA", "image": "1f1e6-1f1fa.png"},
    {"unified": "1F1ED-1F1F2", "image": "1f1ed-1f1f2.png"},
]
NAMES = ("1f469-200d-1f680.png", "1f469-1f3fb-200d-1f680.png", "1f1e6-1f1fa.png", "1f1ed-1f1f2.png")


def picture(shade):
    """A picture that is see-through above and has a colour below."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[32:] = (shade, 0, 0, 255)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELIFY_BENCHMARK_DATA", str(tmp_path / "kept"))
    file = tmp_path / "made.tgz"

    def make(index=INDEX, names=NAMES):
        shades = dict(zip(names, (10, 20, 30, 30), strict=False))
        files = {emoji.INDEX: json.dumps(index).encode(), "package/sheet.png": b"large"}
        files |= {f"{emoji.PICTURES}{name}": picture(shades[name]) for name in names}
        with tarfile.open(file, "w:gz") as packed:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
        return file

    monkeypatch.setattr(emoji, "_downloaded", lambda place: make())
    return make


def test_families_and_copies_share_a_split(archive):
    place = emoji.prepared()
    splits = {file.name: file.parent.name for file in place.rglob("*.png")}
    assert set(splits) == set(NAMES)
    assert splits[NAMES[0]] == splits[NAMES[1]] == emoji.split_of("1F9D1-200D-1F680")
    assert splits[NAMES[2]] == splits[NAMES[3]] == emoji.split_of("1F1E6-1F1FA")
    # Copies would not have shared one by their names alone.
    assert emoji.split_of("1F1E6-1F1FA") != emoji.split_of("1F1ED-1F1F2")
    assert sorted(part.name for part in place.iterdir()) == ["test", "train", "validation"]


def test_what_is_there_is_not_fetched_again(archive, monkeypatch):
    first = emoji.prepared()
    monkeypatch.setattr(emoji, "_downloaded", None)
    assert emoji.prepared() == first


def test_another_process_may_have_laid_the_folder_out_meanwhile(archive, tmp_path, monkeypatch):
    target = tmp_path / "kept" / f"{emoji.NAME}-{emoji.VERSION}"

    def overtaken(place):
        (target / "train").mkdir(parents=True)
        (target / "train" / "theirs.png").touch()
        return archive()

    monkeypatch.setattr(emoji, "_downloaded", overtaken)
    assert emoji.prepared() == target
    assert [file.name for file in target.rglob("*.png")] == ["theirs.png"]
    assert list(target.parent.iterdir()) == [target]


def test_families_differ_only_by_what_pictures_share():
    for code in ("1F468-1F3FD-200D-1F680", "1F9D1-200D-1F680", "1f469-1f3fb-200d-1f680"):
        assert emoji.family(code) == "1F9D1-1F680"
    assert emoji.family("1F3C3-200D-2642-FE0F-200D-27A1-FE0F") == "1F3C3"
    assert emoji.family("1F1E6-1F1FA") != emoji.family("1F1ED-1F1F2")
    # A sign that is nothing but a variant is a family of its own.
    assert emoji.family("2642-FE0F") == "2642-FE0F"


def test_most_families_train():
    found = [emoji.split_of(f"{code:X}") for code in range(0x1F300, 0x1F700)]
    assert 0.74 < found.count("train") / len(found) < 0.82
    assert found.count("validation") > 60
    assert found.count("test") > 80


def test_an_archive_of_another_form_is_refused_and_nothing_is_left(archive, tmp_path, monkeypatch):
    with pytest.raises(ArchiveError, match="'made.tgz' is not in its index"):
        emoji.laid_out(archive(INDEX[1:]), tmp_path / "out")
    monkeypatch.setattr(emoji, "_downloaded", lambda place: archive(INDEX[1:]))
    with pytest.raises(ArchiveError):
        emoji.prepared()
    assert list((tmp_path / "kept").iterdir()) == []
    (tmp_path / "made.tgz").write_bytes(b"not an archive")
    with pytest.raises(ArchiveError, match="is not the archive that it was"):
        emoji.laid_out(tmp_path / "made.tgz", tmp_path / "other")


def test_pictures_lie_on_white_at_the_size_asked_for(archive, tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "kept" / f"{emoji.NAME}-{emoji.VERSION}" / split).mkdir(parents=True)
        (tmp_path / "kept" / f"{emoji.NAME}-{emoji.VERSION}" / split / "a.png").write_bytes(picture(len(split)))
    source = emoji.emoji(16)
    x = source.read("test", torch.arange(1)).x
    assert source.event_shape == (3, 16, 16)
    assert (x[0, :, :8] == 255).all()
    assert (x[0, 0, 8:] == 4).all()
