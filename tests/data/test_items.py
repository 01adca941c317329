"""Items in order: of arrays, files and sources, the same whatever the batches and wherever reading begins."""

import numpy as np
import pytest
import torch

from likelify.data import ArraySource, open_items, open_source, table
from likelify.errors import DataError

VALUES = np.random.default_rng(0).normal(size=(300, 3)).round(4)
FACTS = table(VALUES, columns=["a", "b", "c"]).facts()


def images(count=40, levels=256):
    return np.random.default_rng(1).integers(0, levels, (count, 1, 4, 5)).astype(np.uint8)


def image_source(count=40):
    parts = {"train": images(), "validation": images()[:5], "test": images(count)}
    labels = {split: np.arange(len(part)) % 3 for split, part in parts.items()}
    return ArraySource("pictures", parts, kind="image", levels=256, labels=labels, classes=3)


def csv(path, values=VALUES, header="a,b,c"):
    np.savetxt(path, values, delimiter=",", header=header, comments="", fmt="%.4f")
    return path


def npy(path, values=VALUES):
    np.save(path, values)
    return path


def collected(items, size, start=0):
    """Return the elements and what is carried, and check the sizes of the batches."""
    batches = list(items.batches(size, start))
    assert all(len(batch) == size for batch in batches[:-1])
    carried = {name: [entry for batch in batches for entry in batch.carried[name]] for name in items.carried}
    assert all(set(batch.carried) == set(items.carried) for batch in batches)
    x = torch.cat([batch.batch.x for batch in batches]) if batches else torch.empty(0)
    return x, carried


CASES = {
    "array": lambda folder: (VALUES, FACTS),
    "tensor": lambda folder: (torch.from_numpy(VALUES), FACTS),
    "npy": lambda folder: (npy(folder / "a.npy"), FACTS),
    "npy by column": lambda folder: (npy(folder / "f.npy", np.asfortranarray(VALUES)), FACTS),
    "csv": lambda folder: (csv(folder / "a.csv"), FACTS),
    "csv without names": lambda folder: (csv(folder / "b.csv", header=""), FACTS),
}


@pytest.mark.parametrize("case", CASES)
def test_all_items_come_in_order_whatever_the_batches(tmp_path, case):
    items = open_items(*CASES[case](tmp_path))
    assert items.count in (None, 300)
    for size in (1, 7, 100, 300, 1000):
        for start in (0, 1, 299, 300):
            x, _ = collected(items, size, start)
            assert np.array_equal(x.numpy().reshape(-1, 3), VALUES[start:])


def test_a_split_of_a_source_carries_its_labels():
    source = image_source()
    items = open_items(source, source.facts(), split="test")
    x, carried = collected(items, 16, 3)
    assert items.count == 40
    assert x.dtype == torch.uint8
    assert torch.equal(x, source.read_all("test").x[3:])
    assert carried == {"label": (np.arange(40) % 3)[3:].tolist()}
    assert next(items.batches(4)).batch.labels.tolist() == [0, 1, 2, 0]
    assert items.fingerprint() != open_items(source, source.facts(), split="train").fingerprint()


def test_columns_are_found_by_their_names_and_others_are_carried_as_they_are_written(tmp_path):
    lines = ["id,c,note,a,b"]
    lines += [f'00{n},{c!r},"x, {n}\nof two lines ",{a!r},{b!r}' for n, (a, b, c) in enumerate(VALUES.tolist())]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    items = open_items(tmp_path / "a.csv", FACTS)
    assert items.carried == ("id", "note")
    x, carried = collected(items, 13)
    assert np.array_equal(x.numpy(), VALUES)
    assert carried["id"] == [f"00{n}" for n in range(300)]
    assert carried["note"][1] == "x, 1\nof two lines"


def test_a_quoted_cell_can_go_over_the_end_of_a_piece(tmp_path):
    long = "word\n" * 20_000
    rows = [f'{n},"{long}",{n / 4}' for n in range(30)]
    (tmp_path / "a.csv").write_text("a,text,b\n" + "\n".join(rows))
    items = open_items(tmp_path / "a.csv", table(VALUES[:, :2], columns=["a", "b"]).facts())
    x, carried = collected(items, 4)
    assert x[:, 1].tolist() == [n / 4 for n in range(30)]
    assert set(carried["text"]) == {long.strip()}


def test_a_fault_far_into_a_file_is_named_by_line_and_column(tmp_path):
    values = np.random.default_rng(2).normal(size=(60_000, 3))
    lines = csv(tmp_path / "a.csv", values).read_text().splitlines()
    for number, cell, said in ((59_001, "x", "'x' is not a number"), (58_001, "inf", "the value is inf")):
        spoiled = [*lines[: number - 1], f"1,{cell},2", *lines[number:]]
        (tmp_path / "a.csv").write_text("\n".join(spoiled))
        batches = open_items(tmp_path / "a.csv", FACTS).batches(1000)
        # What stands before it is given.
        assert sum(len(next(batches)) for _ in range(30)) == 30_000
        with pytest.raises(DataError, match=rf"a\.csv', line {number}, column 'b': {said}"):
            list(batches)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["a,b", *(line.rpartition(",")[0] for line in lines[1:])], "lacks columns .* no column 'c'"),
        (lambda lines: ["a,b,c", *(f"{n},red,2" for n in range(20))], r"line 2, column 'b': 'red' is no number"),
        (lambda lines: [line.rpartition(",")[0] for line in lines[1:]], r"has 2 columns without names; .* of 3: a, b"),
        (lambda lines: [], "is empty"),
    ],
)
def test_tables_that_do_not_fit_the_model(tmp_path, change, message):
    lines = csv(tmp_path / "a.csv").read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(change(lines)))
    with pytest.raises(DataError, match=message):
        next(open_items(tmp_path / "a.csv", FACTS).batches(9))


def test_arrays_that_do_not_fit_the_model(tmp_path):
    facts = image_source().facts()
    with pytest.raises(DataError, match=r"has shape \(300, 3\); the model is of images of shape \(1, 4, 5\)"):
        open_items(VALUES, facts)
    wrong = images().astype(np.int64)
    wrong[31, 0, 2, 3] = 256
    with pytest.raises(DataError, match=r"item 31, element \(0, 2, 3\): the value is 256; .* integers 0\.\.255"):
        list(open_items(wrong, facts).batches(8))
    spoiled = VALUES.copy()
    spoiled[217, 1] = np.inf
    with pytest.raises(DataError, match="row 217, column 'column 2': the value is inf"):
        list(open_items(npy(tmp_path / "a.npy", spoiled), FACTS).batches(50))
    with pytest.raises(DataError, match="There is no file"):
        open_items(tmp_path / "none.csv", FACTS)
    with pytest.raises(DataError, match=r"has images of shape \(1, 4, 5\); the model is of rows of shape \(3,\)"):
        open_items(image_source(), FACTS)


@pytest.mark.parametrize("make", [csv, npy])
def test_a_changed_file_is_noticed(tmp_path, make):
    suffix = "csv" if make is csv else "npy"
    path = make(tmp_path / f"a.{suffix}")
    before = open_items(path, FACTS).fingerprint()
    assert open_items(make(tmp_path / f"b.{suffix}"), FACTS).fingerprint() == before
    changed = VALUES.copy()
    changed[200, 2] += 1e-4
    make(path, changed)
    assert open_items(path, FACTS).fingerprint() != before


def test_a_source_by_name():
    items = open_items("iris", open_source("iris").facts())
    assert collected(items, 4)[0].shape == (15, 4)
