"""The law of readers over every reader of `likelify.data`."""

import gzip
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify.data import open_source, resized, standardized, subset
from likelify.data.delimited import read_csv
from likelify.data.inert_pickle import read_plain
from likelify.data.remainders import nearly_dependent_columns
from likelify.data.screening import dependent_columns, rounded_columns
from likelify.errors import DataError
from tests.data import test_cifar, test_idx
from tests.fuzz import Reader, check

RNG = np.random.default_rng(0)


def read_table(name):
    """Read a table and do with it what a fit does first: what comes out is finite."""
    source = open_source(name)
    dependent_columns(source)
    nearly_dependent_columns(source)
    rounded_columns(source, torch.float32)
    assert torch.isfinite(standardized(source).read_all("train").x).all()
    layer = lk.transforms.Columns(source.event_shape[0])
    assert torch.isfinite(layer.initialize(source.read_all("train").x)).all()
    return source.facts()


def read_images(name):
    source = open_source(name)
    resized(subset(source, train=5), (2, 2), levels=5).read_all("train")
    return source.facts()


def rows(columns, count=30):
    return RNG.normal(size=(count, columns)).round(4)


def text(values, delimiter=",", header=""):
    return (header + "".join(delimiter.join(map(str, row)) + "\n" for row in values.tolist())).encode()


def table_reader(name, content):
    return Reader(
        f"table {name}",
        lambda folder: (folder / name).write_bytes(content),
        lambda folder: read_table(str(folder / name)),
    )


def array_reader(name, file, make):
    return Reader(
        name, lambda folder: np.save(folder / file, make()), lambda folder: read_table(f"{name.split()[0]}:{folder}")
    )


def text_reader(name, files, read=read_table):
    def write(folder):
        for file, content in files.items():
            (folder / file).write_bytes(content)

    return Reader(name, write, lambda folder: read(f"{name.split()[0]}:{folder}"))


def meter():
    values = RNG.uniform(1, 5, (30, 7)).round(3).tolist()
    lines = [f"16/12/2006;17:{n:02d}:00;" + ";".join(map(str, row)) for n, row in enumerate(values)]
    return "\n".join(["Date;Time;a;b;c;d;e;f;g", *lines, "28/4/2007;00:21:00;?;?;?;?;?;?;"]).encode()


def collisions(columns):
    values = np.concatenate([np.arange(60)[:, None] % 2, rows(columns - 1, 60)], 1)
    return text(values, ",", "# label,f0\n")


def signal():
    return b" 40 10\n" + text(rows(50, 50), "  ")


CIFAR_WORDS = {name: f"cifar-10 {name}" for name in ("python 2", "protocol 4", "binary")}
READERS = [
    table_reader("a.csv", text(rows(3), ",", 'one,"two, or more",three\n')),
    table_reader("b.csv", text(rows(2), ";")),
    table_reader("c.tsv", text(rows(3), "\t", "\ufeffx\ty\tz\n")),
    table_reader("d.csv.gz", gzip.compress(text(rows(3), " "))),
    table_reader("e.csv", text(np.concatenate([np.arange(30)[:, None], rows(2)], 1), "|", "|a|b\n")),
    Reader(
        "table f.npy",
        lambda folder: np.save(folder / "f.npy", rows(3)),
        lambda folder: read_table(str(folder / "f.npy")),
    ),
    Reader("mnist", test_idx.write, lambda folder: read_images(f"mnist:{folder}")),
    Reader(
        "mnist gz", lambda folder: test_idx.write(folder, packed=True), lambda folder: read_images(f"mnist:{folder}")
    ),
    *(text_reader(words, test_cifar.contents(version), read_images) for version, words in CIFAR_WORDS.items()),
    *(
        Reader(
            f"cifar-10 archive {version}",
            lambda folder, version=version: test_cifar.pack(
                folder / "cifar-10-python.tar.gz", test_cifar.contents(version)
            ),
            lambda folder: read_images(f"cifar-10:{folder}"),
        )
        for version in ("python 2", "binary")
    ),
    array_reader("power npy", "data.npy", lambda: rows(8)),
    text_reader("power text", {"household_power_consumption.txt": meter()}),
    array_reader("gas npy", "ethylene_CO.npy", lambda: rows(19)),
    text_reader("gas csv", {"ethylene_CO.csv": text(rows(19))}),
    text_reader("hepmass", {"1000_train.csv": collisions(28), "1000_test.csv": collisions(29)}),
    array_reader("miniboone npy", "data.npy", lambda: rows(43)),
    text_reader("miniboone text", {"MiniBooNE_PID.txt": signal()}),
]


def test_the_readers_of_files_keep_the_law():
    check(__name__, 300)


@pytest.mark.slow
def test_the_readers_of_files_keep_the_law_in_many_cases():
    check(__name__, 2500, seed=1)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e150, max_value=1e150)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=12),
    st.sampled_from([",", ";", "\t", "|", " ", ", ", "  "]),
    st.sampled_from(["", "a{0}b{0}c\n", '"a, b"{0}"b; c"{0}"c d"\n']),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_is_written_is_read(tmp_path, values, delimiter, header, end):
    path = tmp_path / "a.csv"
    lines = header.format(delimiter) + "\n".join(delimiter.join(map(repr, row)) for row in values) + "\n"
    path.write_bytes(lines.replace("\n", end).encode())
    assert np.array_equal(read_csv(path)[1], np.array(values))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=",;\t| \n\r\"'0123456789.eE+-naif_\0é٣#", max_size=80))
def test_any_text_is_a_table_or_an_error_of_ours(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    with suppress(DataError):
        names, values = read_csv(path)
        assert values.shape[1] == len(names)
        assert np.isfinite(values).all()


STEPS = st.sampled_from(
    [
        b"(",
        b")",
        b"]",
        b"}",
        b"N",
        b"K\x01",
        b"U\x01a",
        b"\x85",
        b"\x86",
        b"t",
        b"l",
        b"d",
        b"s",
        b"u",
        b"a",
        b"e",
        b"b",
    ]
    + [
        b"R",
        b"q\x00",
        b"h\x00",
        b"\x94",
        b"cos\nsystem\n",
        b"\x93",
        b"I7\n",
        b"\x8a\x01\x05",
        b"0",
        b"2",
        b"G" + bytes(8),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=40), st.binary(max_size=6))
def test_any_steps_of_a_pickle_give_a_value_or_an_error_of_ours(steps, rest):
    for content in (b"\x80\x02" + b"".join(steps) + b".", b"".join(steps) + rest):
        with suppress(DataError):
            read_plain(content, "it")
