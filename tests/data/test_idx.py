import gzip
import struct

import numpy as np
import pytest
import torch

from likelify.data import open_source
from likelify.data.idx import DEBIAN_FASHION, read_idx
from likelify.data.published import published_facts
from likelify.errors import DataError

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", 40),
    "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 12),
}


def idx(values):
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write(folder, packed=False, side=5):
    """Write four files as MNIST has them; give the images and labels."""
    rng, made = np.random.default_rng(1), {}
    folder.mkdir(exist_ok=True)
    for part, (images, labels, count) in NAMES.items():
        made[part] = rng.integers(0, 256, (count, side, side), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for name, values in zip((images, labels), made[part], strict=True):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (folder / name).write_bytes(idx(values))
    return made


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_split_as_documented(tmp_path, packed):
    made = write(tmp_path, packed)
    source = open_source(f"mnist:{tmp_path}")
    assert (source.event_shape, source.levels, source.classes) == ((1, 5, 5), 256, 10)
    assert [source.size(split) for split in ("train", "validation", "test")] == [36, 4, 12]
    order = np.random.default_rng(0).permutation(40)
    images, labels = made["train"]
    held = source.read_all("validation")
    assert np.array_equal(held.x[:, 0].numpy(), images[order[36:]])
    assert held.labels.tolist() == labels[order[36:]].tolist()
    assert np.array_equal(source.read_all("train").x[:, 0].numpy(), images[order[:36]])
    assert np.array_equal(source.read_all("test").x[:, 0].numpy(), made["t10k"][0])
    assert open_source(source.name).fingerprint() == source.fingerprint()
    assert open_source(f"fashion-mnist:{tmp_path}").family == "fashion-mnist"


def test_dotted_names_are_understood(tmp_path):
    write(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
    assert open_source(f"mnist:{tmp_path}").size("test") == 12


def spoil(folder, case):
    images, labels = (folder / name for name in NAMES["train"][:2])
    content = images.read_bytes()
    tests, test_labels = (folder / name for name in NAMES["t10k"][:2])
    changes = {
        "missing": lambda: labels.unlink(),
        "truncated": lambda: images.write_bytes(content[:-1]),
        "too long": lambda: images.write_bytes(content + b"\0"),
        "header cut off": lambda: images.write_bytes(content[:9]),
        "empty": lambda: images.write_bytes(b""),
        "foreign": lambda: images.write_bytes(b"\x89PNG" + content),
        "floats": lambda: images.write_bytes(b"\0\0\x0d\x03" + content[4:]),
        "exchanged": lambda: images.write_bytes(labels.read_bytes()),
        "none": lambda: images.write_bytes(idx(np.zeros((0, 5, 5), np.uint8))),
        "mixed parts": lambda: labels.write_bytes(test_labels.read_bytes()),
        "mixed sizes": lambda: tests.write_bytes(idx(np.zeros((12, 6, 6), np.uint8))),
        "letters": lambda: labels.write_bytes(idx(np.full(40, 26, np.uint8))),
        "packed and cut off": lambda: images.write_bytes(gzip.compress(content)[:-20]),
        "packed and damaged": lambda: images.write_bytes(gzip.compress(content)[:200] + bytes(900)),
        "boastful": lambda: images.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *[2**31] * 3) + content)),
    }
    changes[case]()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"needs the file train-labels-idx1-ubyte or .*\.gz\. Nothing of that name is in .*mirrors"),
        ("truncated", "announces 40x5x5 = 1000 values and holds only 999"),
        ("too long", "holds more"),
        ("header cut off", "ends inside its header"),
        ("empty", "is not an IDX file"),
        ("foreign", "is not an IDX file"),
        ("floats", "number kind 13 with 3 axes"),
        ("exchanged", "images and labels are exchanged"),
        ("none", "holds nothing"),
        ("mixed parts", "40 images and .* 12 labels: they do not belong together"),
        ("mixed sizes", "5x5 and .* 6x6: they are not of one data set"),
        ("letters", r"the label 26; labels of this data set are 0\.\.9"),
        ("packed and cut off", "damaged or cut off"),
        ("packed and damaged", "damaged or cut off"),
        ("boastful", "holds only 1016"),
    ],
)
def test_files_that_are_not_right_are_refused(tmp_path, case, message):
    write(tmp_path)
    spoil(tmp_path, case)
    with pytest.raises(DataError, match=message):
        open_source(f"mnist:{tmp_path}")


def test_places_that_are_not_there(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="There is no folder"):
        open_source(f"fashion-mnist:{tmp_path / 'nowhere'}")
    monkeypatch.setattr("likelify.data.idx.DEBIAN_FASHION", tmp_path)
    with pytest.raises(DataError, match="Install Debian's package dataset-fashion-mnist, or name a folder"):
        open_source("fashion-mnist")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "folder", 3)


@pytest.mark.skipif(not DEBIAN_FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_of_debian():
    source = open_source("fashion-mnist")
    assert source.name == "fashion-mnist"
    assert (source.event_shape, source.levels, source.classes) == ((1, 28, 28), 256, 10)
    assert [source.size(split) for split in ("train", "validation", "test")] == [55000, 5000, 10000]
    known = published_facts("fashion-mnist")
    assert source.facts().model_copy(update={"description": "", "fingerprint": ""}) == known
    counts = torch.bincount(torch.cat([source.read_all(split).labels for split in ("train", "validation")]))
    assert counts.tolist() == [6000] * 10
    assert float(source.read_all("test").x.float().mean()) == pytest.approx(73.15, abs=0.01)
