"""CIFAR-10 files are written here as Python 2 wrote those of the authors, instruction by instruction."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from likelify.data import open_source
from likelify.data.inert_pickle import Name, PickledCall, read_plain
from likelify.errors import DataError

BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
ROWS = 4


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()


def python_2(images, labels, title):
    """Spell the dict of batch_label, labels, data and filenames in protocol 2 of Python 2's cPickle."""
    long_text = b"T" + struct.pack("<i", images.nbytes) + images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85" + text("b") + b"\x87Rq\x07(K\x01"
        b"M" + struct.pack("<H", images.shape[0]) + b"M" + struct.pack("<H", images.shape[1]) + b"\x86"
        b"cnumpy\ndtype\nq\x08" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + long_text + b"tb"
    )
    numbers = b"]q\x03(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    names = b"](" + b"".join(text(f"cat_{i}.png") for i in range(len(labels))) + b"e"
    return (
        b"\x80\x02}q\x01(" + text("batch_label") + text(title) + text("labels") + numbers + text("data") + array
        + text("filenames") + names + b"u."
    )  # fmt: skip


def arrays(number):
    rng = np.random.default_rng(number)
    return rng.integers(0, 256, (ROWS, 3072), dtype=np.uint8), [(number + i) % 10 for i in range(ROWS)]


def title_of(name):
    return "testing batch 1 of 1" if name == "test_batch" else f"training batch {name[-1]} of 5"


def contents(version):
    made = {}
    for number, name in enumerate(BATCHES):
        images, labels = arrays(number)
        if version == "binary":
            made[f"{name}.bin"] = b"".join(bytes([k]) + row.tobytes() for k, row in zip(labels, images, strict=True))
        elif version == "python 2":
            made[name] = python_2(images, labels, title_of(name))
        else:
            whole = {b"batch_label": title_of(name).encode(), b"labels": labels, b"data": images}
            made[name] = pickle.dumps(whole, protocol=int(version[-1]))
    return made


def write(folder, made):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)


def pack(path, made):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in made.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def check(source):
    assert (source.event_shape, source.levels, source.classes) == ((3, 32, 32), 256, 10)
    assert [source.size(split) for split in ("train", "validation", "test")] == [18, 2, 4]
    images = np.concatenate([arrays(i)[0] for i in range(5)])
    labels = np.concatenate([arrays(i)[1] for i in range(5)])
    order = np.random.default_rng(0).permutation(20)
    for split, part in (("train", order[:18]), ("validation", order[18:])):
        batch = source.read_all(split)
        assert np.array_equal(batch.x.numpy(), images[part].reshape(-1, 3, 32, 32))
        assert batch.labels.tolist() == labels[part].tolist()
    assert np.array_equal(source.read_all("test").x.numpy().reshape(4, -1), arrays(5)[0])
    assert source.read_all("test").labels.tolist() == arrays(5)[1]


@pytest.mark.parametrize("version", ["python 2", "protocol 2", "protocol 3", "protocol 4", "binary"])
def test_every_version_gives_the_same_images(tmp_path, version):
    write(tmp_path / "cifar-10-batches-py", contents(version))
    check(open_source(f"cifar-10:{tmp_path}"))
    check(open_source(f"cifar-10:{tmp_path / 'cifar-10-batches-py'}"))


@pytest.mark.parametrize("version", ["python 2", "binary"])
def test_archives_are_read_in_place(tmp_path, version):
    archive = tmp_path / "cifar-10-python.tar.gz"
    pack(archive, contents(version) | {"../../escaped": b"x"})
    check(open_source(f"cifar-10:{archive}"))
    check(open_source(f"cifar-10:{tmp_path}"))
    assert list(tmp_path.iterdir()) == [archive]


def test_what_python_2_wrote_is_what_pickle_reads():
    """The writer of these tests is right."""
    images, labels = arrays(0)
    read = pickle.loads(python_2(images, labels, "t"), encoding="latin1")
    assert np.array_equal(read["data"], images)
    assert read["labels"] == labels


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_run(tmp_path, protocol):
    made = contents("python 2")
    victim = str(tmp_path / "victim")
    made["data_batch_3"] = pickle.dumps({"data": Evil(victim), "labels": [1], "evil": Evil(victim)}, protocol)
    write(tmp_path / "files", made)
    with pytest.raises(DataError, match="data_batch_3"):
        open_source(f"cifar-10:{tmp_path / 'files'}")
    found = read_plain(pickle.dumps(Evil(victim), protocol), "it")
    assert isinstance(found, PickledCall)
    assert found.function == Name(os.mkdir.__module__, "mkdir")
    assert not os.path.exists(victim)


def test_instructions_that_data_do_not_need_are_refused():
    for content, name in (
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02(cos\nsystem\no.", "OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02U\x01aQ.", "BINPERSID"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ):
        with pytest.raises(DataError, match=f"'it' holds the pickle instruction {name}, which plain data do not need"):
            read_plain(content, "it")
    broken = [b"", b"\x80", b"\x80\x02", b"\x80\x02t.", b"\x80\x02u.", b"\x80\x02.", b"\x80\x02Ka", b"\xff" * 9]
    broken += [b"\x80\x02h\x07.", b"\x80\x02]K\x01K\x02s.", b"\x80\x02}](K\x01u.", b"\x80\x02]Nb.", b"\x80\x02q\x00."]
    for content in broken:
        with pytest.raises(DataError, match="not a complete pickle"):
            read_plain(content, "it")


def test_plain_values_come_back():
    values = {"a": [1, -5, 2**70, 1.5, None, True], "b": ("x", b"\xff", (), (1,), (1, 2, 3, 4)), 3: {"c": []}}
    for protocol in (3, 4):
        assert read_plain(pickle.dumps(values, protocol), "it") == values


def changed(case):
    made = contents("python 2")
    images, labels = arrays(0)
    broken = {
        "missing": lambda: made.pop("data_batch_4"),
        "cut off": lambda: made.update(data_batch_2=made["data_batch_2"][:5000]),
        "foreign": lambda: made.update(data_batch_2=b"\x89PNG" + bytes(100)),
        "not a dict": lambda: made.update(data_batch_2=pickle.dumps([1, 2], 2)),
        "cifar-100": lambda: made.update(data_batch_2=pickle.dumps({"fine_labels": [1], "data": 1}, 2)),
        "mixed": lambda: made.update(data_batch_2=made["test_batch"]),
        "mixed test": lambda: made.update(test_batch=made["data_batch_1"]),
        "labels": lambda: made.update(data_batch_2=python_2(images, [1, 2, 3, 40], "training")),
        "too few labels": lambda: made.update(data_batch_2=python_2(images, labels[:3], "training")),
        "texts as labels": lambda: made.update(data_batch_2=pickle.dumps({"data": images, "labels": ["1"] * 4}, 2)),
        "smaller images": lambda: made.update(data_batch_2=python_2(images[:, :300], labels, "training")),
        "floats": lambda: made.update(data_batch_2=pickle.dumps({"data": images / 2, "labels": labels}, 2)),
        "objects": lambda: made.update(data_batch_2=pickle.dumps({"data": images.astype(object), "labels": labels}, 2)),
        "no array": lambda: made.update(data_batch_2=pickle.dumps({"data": [1, 2], "labels": labels}, 2)),
        "fewer pixels than said": lambda: made.update(
            data_batch_2=python_2(images, labels, "training").replace(b"M\x04\x00", b"M\x05\x00")
        ),
    }
    broken[case]()
    return made


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "lacks data_batch_4"),
        ("cut off", "'data_batch_2' is not a complete pickle"),
        ("foreign", "'data_batch_2' is not a batch of CIFAR-10: it is no pickle, and its 104 bytes"),
        ("not a dict", "no entries 'data' and 'labels'"),
        ("cifar-100", "'data_batch_2' is of CIFAR-100"),
        ("mixed", "'data_batch_2' calls itself 'testing batch 1 of 1': the files are mixed up"),
        ("mixed test", "'test_batch' calls itself 'training batch 1 of 5'"),
        ("labels", r"labels up to 40; CIFAR-10 has 0\.\.9"),
        ("too few labels", "4 images and 3 labels"),
        ("texts as labels", "not a list of whole numbers"),
        ("smaller images", "The pixels in 'data_batch_2' are not"),
        ("floats", "The pixels in 'data_batch_2' are not"),
        ("objects", "The pixels in 'data_batch_2' are not|pickle instruction"),
        ("no array", "The pixels in 'data_batch_2' are not"),
        ("fewer pixels than said", "The pixels in 'data_batch_2' are not"),
    ],
)
def test_files_that_are_not_right_are_refused(tmp_path, case, message):
    write(tmp_path, changed(case))
    with pytest.raises(DataError, match=message):
        open_source(f"cifar-10:{tmp_path}")


def test_places_and_archives_that_are_not_right(tmp_path):
    with pytest.raises(DataError, match=r"There is no file or folder '.*Get cifar-10-python\.tar\.gz from"):
        open_source(f"cifar-10:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="No such file is in"):
        open_source(f"cifar-10:{tmp_path}")
    archive = tmp_path / "cifar-10-python.tar.gz"
    pack(archive, contents("python 2"))
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"not an archive at all", whole[:100] + bytes(500) + whole[600:]):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="damaged, cut off or not a .tar.gz|is damaged or cut off"):
            open_source(f"cifar-10:{tmp_path}")
    pack(archive, {"readme.html": b"x"})
    with pytest.raises(DataError, match="lacks data_batch_1, "):
        open_source(f"cifar-10:{archive}")
    bad = contents("binary")
    bad["data_batch_1.bin"] = bad["data_batch_1.bin"][:-1]
    write(tmp_path / "binary", bad)
    with pytest.raises(DataError, match="not a multiple of 3073"):
        open_source(f"cifar-10:{tmp_path / 'binary'}")
