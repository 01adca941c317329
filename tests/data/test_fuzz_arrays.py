"""The law of readers over archives and arrays of numpy, Parquet and Feather files, read as sources and as items."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from likelify.data import SourceOptions, open_items, open_source, table
from tests.fuzz import Reader, check

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "a": RNG.normal(size=60),
        "b": RNG.integers(0, 9, 60),
        "c": RNG.integers(0, 2, 60) == 1,
        "word": RNG.choice(["red", "green", "blue"], 60),
    }
)
FACTS = table(ROWS[["a", "b", "c"]].to_numpy(dtype=float), columns=["a", "b", "c"]).facts()
LABELS = RNG.integers(0, 3, 60)
IMAGES = RNG.integers(0, 256, (60, 8, 9, 3)).astype(np.uint8)


def read_whole(path, options=None):
    """Read a file as a fit does, then as scoring does."""
    source = open_source(path, options)
    for split in ("train", "validation", "test"):
        assert not torch.isinf(source.read_all(split).x.double()).any()
    facts = source.facts()
    for batch in open_items(path, facts, options).batches(17, 3):
        assert len(batch) <= 17
    return facts


def read_rows(path):
    """Read a table as scoring does, which carries its words, then as a fit does."""
    for batch in open_items(path, FACTS).batches(17, 3):
        assert not torch.isinf(batch.batch.x).any()
    return read_whole(path, SourceOptions(drop="word"))


def reader(name, write, read=read_whole):
    return Reader(name, lambda folder: write(folder / name), lambda folder: read(folder / name))


def frame_reader(name, write):
    return reader(name, write, read_rows)


READERS = [
    reader("images.npy", lambda path: np.save(path, IMAGES)),
    reader("series.npy", lambda path: np.save(path, np.asfortranarray(RNG.normal(size=(60, 2, 9))))),
    reader("plain.npz", lambda path: np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS, n=1)),
    reader("packed.npz", lambda path: np.savez_compressed(path, images=IMAGES[..., :8, 0], labels=LABELS)),
    frame_reader("a.parquet", lambda path: ROWS.to_parquet(path, row_group_size=25)),
    frame_reader("plain.parquet", lambda path: ROWS.to_parquet(path, compression=None)),
    frame_reader("b.parquet", lambda path: pl.from_pandas(ROWS).write_parquet(path, compression="zstd")),
    frame_reader("a.feather", ROWS.to_feather),
    frame_reader("c.feather", lambda path: ROWS.astype({"word": "category"}).to_feather(path, compression="zstd")),
    frame_reader("plain.feather", lambda path: ROWS.to_feather(path, compression="uncompressed")),
    frame_reader("p.arrow", pl.from_pandas(ROWS).write_ipc),
    frame_reader("stream.arrow", lambda path: pl.from_pandas(ROWS).write_ipc_stream(path, compression="lz4")),
]


def test_the_readers_of_arrays_keep_the_law():
    report = check(__name__, 300)
    # Some of what is changed does no harm.
    assert 0 < report.read < 300


@pytest.mark.slow
def test_the_readers_of_arrays_keep_the_law_in_many_cases():
    check(__name__, 1000, seed=1)
