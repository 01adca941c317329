"""Columns that follow from others: refused, left out, or kept as functions."""

import numpy as np
import pandas as pd
import pytest

from likelify.data import as_source, open_items
from likelify.data.encoding import decode
from likelify.data.screening import dependent_columns
from likelify.errors import ConfigError, DataError
from likelify.fitting.checks import check_columns

RNG = np.random.default_rng(0)
SEX = RNG.choice(["m", "f", "x"], 200)
FRAME = pd.DataFrame({"a": RNG.normal(size=200), "b": RNG.integers(0, 900, 200), "sex": SEX})
FRAME = FRAME.assign(
    twice=2 * FRAME["a"] + 1,
    total=FRAME["a"] - 3 * FRAME["b"],
    word=[{"m": "Man", "f": "Woman", "x": "?!"}[sex] for sex in SEX],
    one=3,
    partly=np.where(RNG.random(200) < 0.2, np.nan, FRAME["a"] + RNG.normal(size=200)),
)
FRAME["again"] = -FRAME["partly"]
FOLLOW = ["twice", "total", "word", "again"]


def test_they_are_named_and_refused_before_a_fit():
    source = as_source(FRAME)
    assert [each.column for each in dependent_columns(source)] == FOLLOW
    with pytest.raises(DataError, match=r"'word' says the same as 'sex'.*--dependent drop.*--dependent function"):
        check_columns(source)
    with pytest.raises(
        DataError, match=r"column 'id': nearly.*column 'twice': it follows from others: 'twice' is 2 \*"
    ):
        as_source(FRAME.assign(id=[f"u{n}" for n in range(200)]))
    with pytest.raises(ConfigError, match="There is no dependent 'drip'. Did you mean 'drop'"):
        as_source(FRAME, dependent="drip")


def test_they_are_left_out():
    source = as_source(FRAME, dependent="drop")
    assert source.columns == ("a", "b", "sex", "one", "partly")
    assert "without 'twice', since 'twice' is 2 * 'a' + 1" in source.description
    check_columns(source)


def test_they_are_kept_as_functions_of_the_others():
    source = as_source(FRAME, dependent="function")
    check_columns(source)
    functions = {column.name: column.function for column in source.schema if column.function is not None}
    assert set(functions) == {*FOLLOW, "one"}
    rows = np.concatenate([source.read_all(split).x.numpy() for split in ("train", "validation")])
    places = {name: place for place, name in enumerate(source.columns)}
    for name, function in functions.items():
        of = rows[:, [places[other] for other in function.of]]
        away = np.abs(of @ np.array(function.factors) + function.offset - rows[:, places[name]])
        assert np.nanmax(away) <= function.tolerance < 1e-5
    order = np.random.default_rng(0).permutation(200)
    assert decode(rows, source.schema)["word"] == FRAME["word"][order].tolist()
    # New rows may come without them.
    items = open_items(FRAME[["a", "b", "sex", "partly"]], source.facts())
    np.testing.assert_allclose(next(items.batches(200)).batch.x.numpy()[order], rows, atol=1e-6)


def test_sums_of_several_columns_need_more_rows_than_these():
    few = np.repeat(RNG.normal(size=(12, 30)), 10, axis=0)
    assert dependent_columns(as_source(few)) == []
    same = as_source(RNG.normal(size=(20, 1)) @ np.ones((1, 3)), dependent="function")
    assert [column.is_modelled for column in same.schema] == [True, False, False]
