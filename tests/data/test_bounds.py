"""Files made to fill the memory or to take forever; each is refused after little of it has been read."""

import gzip
import pickle
import struct
import tarfile
import time
import tracemalloc

import numpy as np
import pytest

from likelify.data import open_source
from likelify.data.idx import read_idx
from likelify.data.inert_pickle import read_plain
from likelify.data.limits import require_values
from likelify.data.npy import read_array
from likelify.data.unpacking import opened
from likelify.errors import DataError

MILLION = gzip.compress(bytes(2**20))


def bomb(start=b"", filling=0, count=200):
    """Pack a file that starts so and goes on with that many million bytes."""
    part = MILLION if not filling else gzip.compress(bytes([filling]) * 2**20)
    return gzip.compress(start) + part * count


@pytest.fixture
def memory():
    """Give the most memory taken so far, in megabytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()


def test_an_idx_file_that_unpacks_without_end(tmp_path, memory):
    path = tmp_path / "images.gz"
    path.write_bytes(bomb(struct.pack(">4B3I", 0, 0, 8, 3, 1900, 300, 300)))
    with pytest.raises(DataError, match=r"images\.gz' unpacks to more than 30 times its size.*gunzip"):
        read_idx(path, 3)
    path.write_bytes(bomb(struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 3)))
    with pytest.raises(DataError, match="announces 2x3x3 = 18 values and holds more"):
        read_idx(path, 3)
    assert memory() < 150


@pytest.mark.parametrize(
    ("start", "filling", "message"),
    [
        (b"a,b\n1,2\n", 0, "line 3 has more than 2,097,152 characters"),
        (b"a,b\n1,2\n", ord("\n"), "a million blanks and blank lines"),
        (b"", ord("1"), "line 1 has more than"),
        (b"", ord(","), "line 1 has more than"),
        (b"", ord('"'), "line 1 has more than"),
    ],
)
def test_a_csv_file_that_unpacks_without_end(tmp_path, memory, monkeypatch, start, filling, message):
    monkeypatch.setattr("likelify.data.unpacking.FREE", 2**24)
    path = tmp_path / "a.csv.gz"
    for count, said in ((10, message), (100, "unpacks to more than 30 times its size")):
        path.write_bytes(bomb(start, filling, count))
        with pytest.raises(DataError, match=said):
            open_source(str(path))
    assert memory() < 150


def test_rows_that_unpack_without_end_are_refused_before_they_are_read(tmp_path, memory):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 2**18) * 160)
    begin = time.process_time()
    with pytest.raises(DataError, match="unpacks to more than 30 times its size"):
        open_source(str(tmp_path / "a.csv.gz"))
    assert time.process_time() - begin < 2
    assert memory() < 5


def test_an_archive_that_unpacks_without_end(tmp_path, memory):
    path, member = tmp_path / "cifar-10-python.tar.gz", tarfile.TarInfo("data_batch_1")
    for name, size, message in (
        ("readme", 2**28, "unpacks to more than 30 times"),
        ("data_batch_1", 2**27, "not a batch of CIFAR-10"),
        ("data_batch_1", 2**31, "holds more than the files of the data set"),
    ):
        member.name, member.size = name, size
        path.write_bytes(bomb(member.tobuf()))
        with pytest.raises(DataError, match=message):
            open_source(f"cifar-10:{path}")
    member.name, member.size = "readme", 0
    path.write_bytes(gzip.compress(member.tobuf() * 2000))
    with pytest.raises(DataError, match="holds more than the files of the data set"):
        open_source(f"cifar-10:{path}")
    assert memory() < 150


def test_a_file_of_many_tiny_packed_parts(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"") * 20_000)
    begin = time.process_time()
    with pytest.raises(DataError, match="tiny parts"):
        open_source(str(tmp_path / "a.csv.gz"))
    assert time.process_time() - begin < 2


def test_honest_files_of_several_packed_parts_are_read(tmp_path):
    parts = [f"{n},{n * n}\n".encode() for n in range(2, 40)]
    (tmp_path / "a.csv.gz").write_bytes(b"".join(map(gzip.compress, parts)) + bytes(77))
    assert open_source(str(tmp_path / "a.csv.gz")).event_shape == (2,)
    with opened(tmp_path / "a.csv.gz") as handle:
        pieces = iter(lambda: handle.read(3), b"")
        assert b"".join(pieces) == b"".join(parts)
    (tmp_path / "a.csv.gz").write_bytes(b"".join(map(gzip.compress, parts)) + b"trailing")
    with pytest.raises(DataError, match="what follows is not packed"):
        open_source(str(tmp_path / "a.csv.gz"))


def test_what_is_waiting_inside_the_packer_is_given_to_the_last_byte(tmp_path):
    content = np.random.default_rng(0).integers(0, 3, 300_000).astype(np.uint8).tobytes() + bytes(70_000)
    (tmp_path / "a").write_bytes(gzip.compress(content))
    for size in (1, 7, 258, 65536):
        with opened(tmp_path / "a") as handle:
            wanted = content if size > 1 else content[:5000]
            read = bytearray()
            while len(read) < len(wanted):
                read += handle.read(size)
            assert read[: len(wanted)] == wanted


def test_the_number_of_values_is_bounded_and_the_bound_can_be_set(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{n * n},{n}\n" for n in range(100)))
    np.save(tmp_path / "a.npy", np.zeros((100, 2)))
    monkeypatch.setenv("LIKELIFY_MAX_VALUES", "199")
    for name in ("a.csv", "a.npy"):
        with pytest.raises(DataError, match=r"more than 199 values.*LIKELIFY_MAX_VALUES"):
            open_source(str(tmp_path / name))
    monkeypatch.setenv("LIKELIFY_MAX_VALUES", "200")
    assert open_source(str(path)).event_shape == (2,)
    monkeypatch.delenv("LIKELIFY_MAX_VALUES")
    require_values(str(path), 10_000_000 * 8)
    with pytest.raises(DataError, match=r"take 1\.0 GiB"):
        require_values(str(path), 10_000_000 * 20)
    for wrong in ("", "many", "0", "-5", "1e9", "9" * 40):
        monkeypatch.setenv("LIKELIFY_MAX_VALUES", wrong)
        with pytest.raises(DataError, match="LIKELIFY_MAX_VALUES must be a whole number"):
            open_source(str(path))


def test_numpy_files_that_announce_more_than_they_hold(tmp_path, memory):
    np.save(tmp_path / "a.npy", np.zeros((10, 2)))
    content = (tmp_path / "a.npy").read_bytes()
    for shape in ("(10000000, 2)", "(10, 4)", "(-5, -4)", "(10 ** 9, 9 ** 99999999)"):
        header = content[10:128].replace(b"(10, 2)", shape.encode())
        header = header.strip()[:118].ljust(117) + b"\n"
        (tmp_path / "a.npy").write_bytes(content[:10] + header + content[128:])
        with pytest.raises(DataError, match=r"a\.npy' is not a whole numpy file of numbers"):
            read_array(tmp_path / "a.npy")
    assert memory() < 10


SHARED = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 60
LISTS = b"\x80\x02)q\x00" + b"](h\x00h\x00eq\x00" * 60
DEEP = b"\x80\x02)" + b"\x85" * 100_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SHARED + b".", "nested or shared"),
        (SHARED + b"}h\x00K\x01s.", "a key that is no text or number"),
        (SHARED + b"h\x00h\x00\x93.", "a name that is no text"),
        (SHARED + b"h\x00h\x00RU\x01ab.", "nested or shared"),
        (LISTS + b".", "nested or shared"),
        (b"\x80\x02]q\x00h\x00a.", "nested or shared"),
        (DEEP + b".", "nested or shared"),
        (DEEP + b"q\x00}h\x00K\x01s.", "a key that is no text or number"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "not a complete pickle"),
        (b"\x80\x02](" + b"N" * 600_000 + b"e.", "more than 500000 instructions"),
        (b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b".", "more than 128 bits"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "not a complete pickle"),
        (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", "not a complete pickle"),
        (b"I" + b"9" * 100_000 + b"\n.", "not a complete pickle"),
    ],
)
def test_pickles_that_never_end_are_refused_at_once(content, message):
    begin = time.process_time()
    with pytest.raises(DataError, match=message):
        read_plain(content, "it")
    assert time.process_time() - begin < 5


def test_marks_are_found_at_once_and_frames_are_passed_over():
    begin = time.process_time()
    assert read_plain(b"\x80\x02" + b"N" * 200_000 + b"(t" * 100_000 + b".", "it") == ()
    assert read_plain(b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "it") is None
    assert time.process_time() - begin < 5


def test_a_batch_of_nested_tuples_is_refused(tmp_path):
    entry = SHARED + b"}(U\x0bbatch_labelh\x00U\x06labels]U\x04dataNu."
    number = pickle.dumps({2**120: 1, "labels": [2**120], "data": 1, "batch_label": "\u1234"}, 2)
    for content in (entry, number):
        (tmp_path / "data_batch_1").write_bytes(content)
        with pytest.raises(DataError, match="data_batch_1"):
            open_source(f"cifar-10:{tmp_path}")
