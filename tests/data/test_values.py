"""Arrays and labels given in Python: what is not what it seems is refused in words."""

import numpy as np
import pytest
import torch

import likelify as lk
from likelify.data import ArraySource, as_source, open_source, subset, table
from likelify.data.tables import standardize
from likelify.data.values import moments
from likelify.errors import DataError

SPLITS = ("train", "validation", "test")


def rows(count=30, columns=2):
    return np.random.default_rng(0).normal(size=(count, columns))


def spoiled(value, dtype=np.float64):
    values = rows().astype(dtype)
    values[7, 1] = value
    return values


DATES = np.arange(60).reshape(30, 2).astype("datetime64[D]")


@pytest.mark.parametrize("make", [table, lambda data: as_source(data, kind="table")])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spoiled(-np.inf), "the value is -inf. Fill such values in"),
        (spoiled(1e200), r"the value is 1e\+200. Write it in other units, or mend the value"),
        (spoiled(1j, complex), "holds complex numbers. Give real and imaginary parts"),
        (rows()[:, 0], r"array\[:, None\]|data\[:, None\]"),
        (np.zeros((0, 2)), "at least 10 items|has no rows"),
        (np.zeros((30, 0)), r"rows have shape \(30, 0\)"),
        (torch.randn(30, 2).to_sparse(), "no array of numbers"),
        (np.full((30, 2), 1e-300) * [[1, 2]] * np.arange(30)[:, None], "too little to compute with|other units"),
    ],
)
def test_rows_that_are_no_rows_of_numbers(make, data, message):
    with pytest.raises(DataError, match=message):
        make(data)


def test_rows_of_other_kinds_are_read_as_they_are():
    values = rows()
    wanted = table(values).fingerprint()
    given = [
        values.tolist(),
        torch.tensor(values, requires_grad=True),
        np.ma.MaskedArray(values),
        values[:, ::-1][:, ::-1],
    ]
    assert {table(each).fingerprint() for each in given} == {wanted}
    assert table(values.astype(np.float16)).fingerprint() == table(torch.tensor(values).half()).fingerprint()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.linspace(0, 3, 30), "Labels must be classes .* Real numbers are not rounded to classes"),
        (np.zeros(30), "Real numbers are not rounded to classes.*labels.astype"),
        (np.full(30, np.nan), "Real numbers are not rounded"),
        (np.array(["a"] * 30), r"got <U1 .*numpy\.unique\(labels, return_inverse=True\)"),
        (np.array([None] * 30), "got object"),
        (np.arange(30) - 1, "the lowest is -1"),
        (np.arange(30) * 10**6, "the highest is 29000000"),
        (np.arange(29), r"of shape \(30,\), got int64 of shape \(29,\)"),
        (np.arange(30)[:, None], r"of shape \(30, 1\)"),
        (np.ma.masked_equal(np.arange(30), 3), "masked"),
        (np.arange(30) + 0j, "got complex128"),
        ([[0]] * 29 + [[0, 1]], "no array of numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused_everywhere(labels, message):
    values = rows()
    parts = {"train": np.arange(20), "validation": np.arange(20, 30)}
    for make in (
        lambda: table(values, labels=labels),
        lambda: as_source(values, labels=labels),
        lambda: ArraySource.cut("a", values, parts, labels=labels, kind="table", levels=None),
    ):
        with pytest.raises(DataError, match=message):
            make()


def test_labels_that_are_classes():
    values, classes = rows(), np.arange(30) % 2
    for labels in (classes, classes.astype(bool), classes.astype(np.uint8), torch.tensor(classes), classes.tolist()):
        source = table(values, labels=labels)
        assert source.classes == 2
        batch = source.read_all("train")
        assert batch.labels.dtype == torch.int64
        order = np.random.default_rng(0).permutation(30)
        assert batch.labels.tolist() == classes[order[:24]].tolist()


def test_splits_that_there_are_not():
    source = open_source("iris")
    for one in (source, subset(source, train=12)):
        for ask in (one.read_all, one.size, lambda split, one=one: one.read(split, torch.arange(2))):
            with pytest.raises(DataError, match=r"There is no split 'valid'\. Did you mean 'validation'\?"):
                ask("valid")
    with pytest.raises(DataError, match="There is no split 'valid'"):
        ArraySource("a", {"train": rows(), "valid": rows()}, kind="table", levels=None)
    with pytest.raises(DataError, match="There is no split 'tests'"):
        ArraySource("a", dict.fromkeys(SPLITS, rows()), labels={"tests": 1}, kind="table", levels=None)
    with pytest.raises(DataError, match="needs its arrays by split"):
        ArraySource("a", rows(), kind="table", levels=None)


def test_items_that_there_are_not():
    source = open_source("iris")
    for indices in (torch.tensor([15]), torch.tensor([0.5]), torch.tensor([-16])):
        with pytest.raises(DataError, match=r"The split 'test' of 'iris' has the items 0\.\.14"):
            source.read("test", indices)
        with pytest.raises(DataError, match=r"The split 'test' of .* has the items 0\.\.14"):
            subset(source, train=12).read("test", indices)


def test_a_source_says_what_it_is():
    assert repr(open_source("iris")).startswith("<iris: table of 4, 120 train, 15 validation, 15 test; scikit-learn")
    assert repr(open_source("digits")).startswith("<digits: image of 1x8x8, 1293 train")


def test_parts_of_an_array_source_that_do_not_fit():
    arrays = {split: np.zeros((4, 3), dtype=np.uint8) for split in SPLITS}
    for levels in (1, 0, -3, 2**40):
        with pytest.raises(DataError, match="need 2 to 2147483647 levels, a whole number, got"):
            ArraySource("a", arrays, kind="image", levels=levels)
    labels = {split: np.arange(4) for split in SPLITS}
    with pytest.raises(DataError, match="labels up to 3; with 3 classes"):
        ArraySource("a", arrays, kind="image", levels=2, labels=labels, classes=3)
    with pytest.raises(DataError, match="Labels must be classes"):
        ArraySource("a", arrays, kind="image", levels=2, labels={"train": np.arange(4)})
    with pytest.raises(DataError, match="complex"):
        ArraySource("a", {**arrays, "test": np.zeros((4, 3), complex)}, kind="image", levels=2)
    tensors = {split: torch.from_numpy(part) for split, part in arrays.items()}
    assert ArraySource("a", tensors, kind="image", levels=2).size("train") == 4


@pytest.mark.parametrize("unit", [1.0, 1e140, 1e-200, 1e300, 1e-280, 2.0**900])
def test_moments_of_columns_in_any_unit(unit):
    values = rows(50) * [1, 3] + [5, -2]
    scaled = values * unit
    mean, scale = moments(scaled)
    np.testing.assert_allclose(mean / unit, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale / unit, values.std(0), rtol=1e-12)
    standard = standardize({"train": scaled}, scaled)["train"]
    np.testing.assert_allclose(standard.std(0), 1.0, rtol=1e-12)
    layer = lk.transforms.Columns(2)
    z = layer.initialize(torch.from_numpy(scaled))
    np.testing.assert_allclose(z.numpy(), standard, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        layer.inverse(layer(torch.from_numpy(scaled))[0])[0], scaled, rtol=1e-5, atol=unit * 1e-5
    )
    assert float(layer._log_volume()) == pytest.approx(float(np.log(scale).sum()))


@pytest.mark.parametrize("value", [1e200, 1e60, 1e12])
def test_columns_refuse_a_value_that_hides_the_others(value):
    layer = lk.transforms.Columns(2)
    data = torch.from_numpy(spoiled(value))
    with pytest.raises(DataError, match=r"Column 1 .* so far from the others that float32 cannot tell"):
        layer.initialize(data)
    if value < 1e15:
        assert layer.double().initialize(data).dtype == torch.float64


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_columns_refuse_what_is_not_finite(value):
    with pytest.raises(DataError, match=r"Column 1 \(from 0\) of the sample has values that are not finite"):
        lk.transforms.Columns(2).initialize(torch.from_numpy(spoiled(value)))
    wide = torch.tensor([[-1.5e308], [1.5e308], [0.0]], dtype=torch.float64)
    with pytest.raises(DataError, match="too large"):
        lk.transforms.Columns(1).initialize(wide)
