"""Sources beside what a model was fitted to: columns and classes go by their names, whoever holds them."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from likelify.data import ArraySource, SourceOptions, as_source, open_items, table, weighted
from likelify.data.matching import Matched, matched
from likelify.errors import DataError

ROWS = np.random.default_rng(0).normal(size=(40, 3)).round(3)
FRAME = pd.DataFrame(ROWS, columns=["a", "b", "c"])
WORDS = ["cat", "dog", "horse"]
PIXELS = np.random.default_rng(1).integers(0, 256, (40, 1, 4, 5)).astype(np.uint8)


def labelled(names, words):
    """Return rows with their classes, numbered in the order of their names."""
    numbers = np.array([names.index(word) for word in words])
    return table(ROWS, columns=["a", "b", "c"], labels=numbers, classes=len(names), class_names=names)


def test_columns_of_a_source_go_by_their_names():
    facts = as_source(FRAME).facts()
    other = as_source(FRAME[["c", "a", "b"]])
    for split in ("train", "validation"):
        expected = as_source(FRAME).read_all(split).x
        items = open_items(other, facts, split=split)
        assert torch.equal(next(items.batches(40)).batch.x, expected)
        assert torch.equal(matched(other, facts).read(split, torch.tensor([2, 0])).x, expected[[2, 0]])
    found = matched(other, facts)
    assert (found.columns, found.schema) == (("a", "b", "c"), facts.schema)
    assert found.fingerprint() != other.fingerprint()
    same = as_source(FRAME)
    assert matched(same, facts) is same
    nameless = table(ROWS)
    assert matched(nameless, facts) is nameless
    with pytest.raises(DataError, match="has no column 'b', which the model is of, but 'weight'"):
        open_items(as_source(FRAME.rename(columns={"b": "weight"})), facts)


def test_weights_of_rows_stay():
    other = as_source(FRAME[["c", "a", "b"]])
    weights = np.arange(other.size("train")) + 1.0
    heavy = weighted(other, train=weights)
    found = matched(heavy, as_source(FRAME).facts())
    assert isinstance(found, Matched)
    assert torch.equal(found.item_weights("train"), heavy.item_weights("train"))
    assert torch.equal(found.read_all("train").weights, heavy.read_all("train").weights)
    assert found.read_all("train").weights[-1] == pytest.approx(36 / 18.5)
    assert found.item_weights("validation") is None


def test_classes_of_a_source_go_by_their_names():
    words = [WORDS[n % 3] for n in range(40)]
    source, facts = labelled(WORDS, words), labelled(WORDS, words).facts()
    expected = source.read_all("train").labels
    other = labelled(["horse", "cat", "dog"], words)
    assert not torch.equal(other.read_all("train").labels, expected)
    assert torch.equal(matched(other, facts).read_all("train").labels, expected)
    assert matched(other, facts).facts().class_names == tuple(WORDS)
    fewer = labelled(["dog", "horse"], ["dog", "horse"] * 20)
    assert set(matched(fewer, facts).read_all("train").labels.tolist()) == {1, 2}
    with pytest.raises(DataError, match="There is no class 'owl'"):
        matched(labelled(["cat", "owl"], ["cat", "owl"] * 20), facts)
    # Classes without names are numbers, and names can be numbers.
    numbers = table(ROWS, columns=["a", "b", "c"], labels=np.arange(40) % 3)
    assert matched(numbers, facts) is numbers
    with pytest.raises(DataError, match=r"has the classes 0\.\.4; the model has 0\.\.2, which are called cat, dog"):
        matched(table(ROWS, columns=["a", "b", "c"], labels=np.arange(40) % 5), facts)
    later = labelled(["1", "2"], ["1", "2"] * 20)
    assert set(matched(later, numbers.facts()).read_all("train").labels.tolist()) == {1, 2}
    # A model that knows no classes takes any.
    assert matched(other, facts.model_copy(update={"classes": None})) is other


def test_a_source_of_another_shape_is_refused():
    parts = {"train": PIXELS, "validation": PIXELS[:5], "test": PIXELS[:5]}
    source = ArraySource("pictures", parts, kind="image", levels=256)
    with pytest.raises(DataError, match=r"has images of shape \(1, 4, 5\); the model is of rows of shape \(3,\)"):
        matched(source, as_source(FRAME).facts())
    assert isinstance(matched(as_source(FRAME[["b", "a", "c"]]), as_source(FRAME).facts()), Matched)


def class_label(names, words, items, kind):
    kinds = {"x": kind, "kind": datasets.ClassLabel(names=names)}
    columns = {"x": items, "kind": [names.index(word) for word in words]}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.mark.parametrize("words_only", [True, False])
def test_classes_of_a_data_set_are_numbered_as_the_model_knows_them(words_only):
    array = datasets.Array3D((1, 4, 5), "uint8")
    facts = as_source(class_label(WORDS, [WORDS[n % 3] for n in range(40)], PIXELS, array)).facts()
    other = class_label(["dog", "horse"], ["dog", "horse"] * 20, PIXELS, array)
    if words_only:
        other = other.cast_column("kind", datasets.Value("int64")).rename_column("kind", "number")
        other = other.add_column("kind", ["dog", "horse"] * 20)
    batch = next(open_items(other, facts, SourceOptions(labels="kind")).batches(40))
    assert batch.batch.labels.tolist() == [1, 2] * 20
    assert list(batch.carried["label"]) == ["dog", "horse"] * 20
    strange = class_label(["dog", "owl"], ["dog", "owl"] * 20, PIXELS, array)
    with pytest.raises(DataError, match="column 'kind', row 1: There is no class 'owl'"):
        open_items(strange, facts)
    known = open_items(strange, facts.model_copy(update={"classes": None}))
    assert len(next(known.batches(40))) == 40


def test_classes_of_the_rows_of_a_data_set_go_by_their_names():
    facts = labelled(WORDS, [WORDS[n % 3] for n in range(40)]).facts()
    kinds = {**dict.fromkeys("abc", datasets.Value("float64")), "kind": datasets.ClassLabel(names=["horse", "dog"])}
    columns = {name: ROWS[:, place] for place, name in enumerate("abc")} | {"kind": [0, 1] * 20}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    batch = next(open_items(rows, facts).batches(40))
    assert batch.batch.labels.tolist() == [2, 1] * 20
    assert batch.carried["kind"] == ["horse", "dog"] * 20


def test_other_packages_can_be_called_datasets():
    from likelify.data.hub import is_dataset

    mine = type("Mine", (torch.utils.data.TensorDataset,), {"__module__": "datasets.mine"})(torch.from_numpy(PIXELS))
    assert not is_dataset(mine)
    assert is_dataset(datasets.Dataset.from_dict({"a": [1.0]}))
    facts = as_source(PIXELS).facts()
    assert torch.equal(next(open_items(mine, facts).batches(40)).batch.x, torch.from_numpy(PIXELS))
