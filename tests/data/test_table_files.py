"""Which columns of a file are fitted: types, words, labels, what is missing; the same from text and from Parquet."""

import numpy as np
import pandas as pd
import pytest

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.table_files import as_classes
from likelify.errors import ConfigError, DataError
from tests.data.kinds import kinds

RNG = np.random.default_rng(0)
PEOPLE = pd.DataFrame(
    {
        "id": [f"p{n}" for n in range(60)],
        "age": RNG.integers(18, 90, 60),
        "height": RNG.normal(170, 10, 60).round(1),
        "smokes": RNG.integers(0, 2, 60) == 1,
        "city": RNG.choice(["Rome", "Oslo", "Bonn"], 60),
        "born": pd.date_range("1950-01-01", periods=60).strftime("%Y-%m-%d"),
    }
)
NUMBERS = ["age", "height", "smokes"]


def write(path, frame=PEOPLE):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet"])
def test_a_file_says_the_same_whatever_its_format(tmp_path, name):
    path = write(tmp_path / name)
    with pytest.raises(
        DataError, match=r"'id' \(words.*'city' \(words.*'born' \(.* --drop 'id,city,born' leaves them out"
    ):
        open_source(path)
    source = open_source(path, SourceOptions(drop=["id", "born"], labels="city"))
    assert (source.columns, kinds(source)) == (
        tuple(NUMBERS),
        ("integer", "real", "boolean"),
    )
    assert (source.classes, source.class_names) == (3, ("Bonn", "Oslo", "Rome"))
    order = np.random.default_rng(0).permutation(60)
    test = source.read_all("test")
    assert np.array_equal(test.x.numpy(), PEOPLE[NUMBERS].to_numpy(dtype=float)[order[54:]])
    assert [source.class_names[n] for n in test.labels.tolist()] == PEOPLE["city"].to_numpy()[order[54:]].tolist()
    assert "its classes in 'city': Bonn, Oslo, Rome" in source.description
    assert source.fingerprint() == as_fitted(tmp_path).fingerprint()
    items = open_items(path, source.facts(), SourceOptions(labels="city"))
    batch = next(items.batches(60))
    assert batch.carried["id"] == PEOPLE["id"].tolist()
    assert [source.class_names[n] for n in batch.batch.labels.tolist()] == PEOPLE["city"].tolist()


def as_fitted(folder):
    return open_source(write(folder / "plain.csv", PEOPLE[NUMBERS]))


def test_a_column_of_dates_or_words_is_refused_with_its_line(tmp_path):
    for column, message in (
        ("born", r"line 2, column 'born': '1950-01-01' is several numbers with '-' .* --drop 'born' leaves it out"),
        ("city", r"line 2, column 'city': '\w+' is not a number\. .* --drop 'city' leaves it out"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(write(tmp_path / "a.csv", PEOPLE[["age", column, "height"]]))


def test_missing_values_are_counted(tmp_path):
    spoiled = PEOPLE[NUMBERS].astype({"age": float})
    spoiled.loc[[3, 50], "age"] = np.nan
    spoiled.loc[7, "height"] = np.nan
    with pytest.raises(
        DataError, match=r"a\.csv', line 5, column 'age': the value is missing, as are 3 in all \('age' 2, 'h"
    ):
        open_source(write(tmp_path / "a.csv", spoiled))


def test_a_label_that_the_model_does_not_know(tmp_path):
    facts = open_source(write(tmp_path / "a.csv"), SourceOptions(drop="id,born", labels="city")).facts()
    other = PEOPLE.assign(city=["Rome"] * 40 + ["Oslp"] * 20)
    with pytest.raises(DataError, match=r"column 'city', row 40: There is no class 'Oslp'. Did you mean 'Oslo'"):
        list(open_items(write(tmp_path / "b.csv", other), facts, SourceOptions(labels="city")).batches(7))


def test_classes_are_numbered_in_their_order():
    for labels, names in (
        ([2, 0, 1, 1], None),
        (["2", "0", "1"], None),
        ([3, 10, -1], ("-1", "3", "10")),
        (["b", "a", "10", "9"], ("9", "10", "a", "b")),
        ([True, False], ("False", "True")),
    ):
        numbers, found = as_classes(labels, "it")
        assert found == names
        known = names or [str(n) for n in range(len(set(labels)))]
        assert [known[n] for n in numbers] == [str(label) for label in labels]
    for labels, message in (
        ([0.5], "got '0.5' in row 0"),
        (["a", None], "row 1 is missing"),
        (["", "a"], "row 0 is mis"),
    ):
        with pytest.raises(DataError, match=message):
            as_classes(labels, "it")
    with pytest.raises(DataError, match="1,001 different labels"):
        as_classes(list(range(1001)), "it")


def test_names_of_columns_are_read_as_in_a_text_file():
    assert SourceOptions(drop='a, "b, c" ,d').drop == ("a", "b, c", "d")
    for wrong in ("", [], "a,,b"):
        with pytest.raises(ConfigError, match="columns"):
            SourceOptions(columns=wrong)


def test_a_frame_takes_its_labels_from_a_column_or_from_beside(tmp_path):
    source = as_source(PEOPLE[NUMBERS], labels=np.arange(60) % 2)
    assert (source.classes, source.class_names) == (2, None)
    with pytest.raises(DataError, match="kind=, levels= and channels= have no effect"):
        as_source(PEOPLE[NUMBERS], kind="image")
