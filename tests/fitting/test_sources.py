"""Whatever holds items is fitted, and measured as items of the kind that a model was fitted to."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import likelify as lk
from likelify.data import SPLITS, as_source, open_items
from likelify.errors import ShapeError
from likelify.fitting.sources import in_memory

RNG = np.random.default_rng(0)
LENGTHS = RNG.normal(size=80)
COUNTS = np.rint(20 * LENGTHS + 5 * RNG.normal(size=80)).astype(int)
FRAME = pd.DataFrame({"a": LENGTHS, "b": COUNTS, "word": RNG.choice(["x", "y"], 80)})


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas])
def test_a_data_frame_is_fitted_directly(make):
    flow = lk.Flow(
        lk.Normal((2,)), lk.Chain([lk.transforms.Columns(2), lk.rotation(2), lk.ActNorm(2)]), event_shape=(2,)
    )
    course = lk.fit(flow, make(FRAME[["a", "b"]]), steps=60, batch_size=40, lr=0.02)
    assert np.isfinite(course.best.validation_nats)
    with pytest.raises(ShapeError, match=r"\(rows, 2\).*\(rows, 3\)"):
        lk.fit(flow, make(FRAME), steps=2)


def test_columns_of_what_is_measured_go_by_name(tmp_path):
    facts = as_source(FRAME[["a", "b"]]).facts()
    FRAME.to_csv(tmp_path / "a.csv", index=False)
    for data in (FRAME[["word", "b", "a"]], pl.from_pandas(FRAME), tmp_path / "a.csv", FRAME[["a", "b"]].to_numpy()):
        source = in_memory(open_items(data, facts), facts)
        for split in SPLITS:
            assert np.array_equal(source.read_all(split).x.numpy(), FRAME[["a", "b"]].to_numpy())


def test_arrays_and_data_sets_are_measured_in_their_order():
    pixels = torch.from_numpy(RNG.integers(0, 256, (30, 3, 8, 9))).to(torch.uint8)
    facts = as_source(pixels).facts()
    labels = torch.arange(30) % 2
    for data in (pixels, pixels.numpy(), pixels.permute(0, 2, 3, 1), torch.utils.data.TensorDataset(pixels, labels)):
        source = in_memory(open_items(data, facts), facts)
        assert torch.equal(source.read_all("test").x, pixels)
    assert torch.equal(in_memory(open_items(pixels[:1], facts), facts).read_all("test").x, pixels[:1])
