"""What a user says is known: values by name, tables, words of the command line; and what is refused, in words."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow
import pytest

from likelify.errors import ConfigError, DataError
from likelify.fitting.drawing.conditions import conditions, parse_given, rows_of
from likelify.schema import ColumnSchema, LinearFunction
from tests.fitting.conditioning.tables import LIVED

NAN = np.nan


def test_values_by_name_are_one_condition():
    found = conditions({"sort": "Gala", "day": date(2025, 3, 1), "seeds": 4, "ripe": True}, LIVED)
    assert found.single
    assert np.array_equal(found.rows, [[NAN, 1, 4, 20148, 1, NAN, NAN]], equal_nan=True)
    assert found.known.tolist() == [False, True, True, True, True, False, False]
    # As words, which the command line has.
    words = conditions({"sort": "Gala", "day": "01.03.2025", "seeds": "4", "ripe": "yes"}, LIVED)
    assert np.array_equal(found.rows, words.rows, equal_nan=True)


def test_missing_is_a_condition_where_values_are_missing():
    assert np.isnan(conditions({"sort": None}, LIVED).rows).all()
    assert conditions({"sort": ""}, LIVED).known[1]
    with pytest.raises(DataError, match="'size' is missing in row 0, and was never missing"):
        conditions({"size": None}, LIVED)


def test_tables_are_several_conditions(tmp_path):
    lists = {"size": [5.0, 6.5], "sort": ["Gala", "Cox, red"]}
    (tmp_path / "c.csv").write_text('size,sort\n5.0,Gala\n6.5,"Cox, red"\n')
    for given in (lists, pyarrow.table(lists), tmp_path / "c.csv", str(tmp_path / "c.csv")):
        found = conditions(given, LIVED)
        assert not found.single
        assert found.rows[:, :2].tolist() == [[5, 1], [6.5, 0]]
        assert found.known.sum() == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sorts": "Gala"}, "no column 'sorts'. Did you mean 'sort'"),
        ({"sort": "Galla"}, "no word 'Galla'. Did you mean 'Gala'"),
        ({"seeds": 9}, "'seeds' = 9 in row 0 is no value that the model knows. It knows 0, 1, 2"),
        ({"seeds": "many"}, "'many' is no number"),
        ({"day": 20148.5}, "'20148.5' is no date as %d.%m.%Y writes it"),
        ({"both": 150}, "'both' follows from 'size', 'weight'; give these instead"),
        ({}, "Nothing is given"),
        ({"size": 5.0, "sort": ["Gala"]}, "equally long lists"),
        ({"size": []}, "has no rows"),
        (7, "must be values by the names of columns, a data frame or a file, got int"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises((DataError, ConfigError), match=message):
        conditions(given, LIVED)


def test_words_of_the_command_line():
    assert parse_given("sort=Cox, red,size=5", LIVED) == {"sort": "Cox, red", "size": "5"}
    assert parse_given(" size = 5 , day=1=2", LIVED) == {"size": "5", "day": "1=2"}
    assert parse_given("rows.csv", LIVED) == Path("rows.csv")
    with pytest.raises(ConfigError, match="says twice what 'size' is"):
        parse_given("size=5,size=6", LIVED)
    with pytest.raises(ConfigError, match="says twice what 'size', 'nope' is"):
        parse_given("size=5,size=6,nope=1,nope=2", LIVED)


def test_all_that_is_wrong_is_said_at_once():
    given = parse_given("sizes=5,nope=1,a,sort=Galla,seeds=9,both=1", LIVED)
    assert given["nope"] == "1,a"
    with pytest.raises(DataError) as error:
        conditions(given, LIVED)
    for said in ("'sizes' (did you mean 'size' or 'seeds'?), 'nope'. Known", "'both' follows from", "no word 'Galla'"):
        assert said in str(error.value)
    with pytest.raises(DataError, match=r"What is given: 'size' is missing in row 0, .*'seeds' = 9 in row 0"):
        conditions({"size": None, "seeds": 9}, LIVED)
    with pytest.raises(DataError, match=r"column 'seeds': 'many' is no number.*column 'weight': 'much' is no number"):
        conditions({"seeds": "many", "weight": "much"}, LIVED)
    with pytest.raises(DataError, match="no column 'nope'"):
        conditions({"nope": 1}, LIVED)


def test_rows_need_the_columns_of_the_model_and_no_others():
    table = {
        "id": ["a", "b"],
        **{column.name: [1, 0] for column in LIVED if column.name not in ("sort", "both", "day")},
    }
    table |= {"sort": ["Gala", None], "day": ["02.01.1970", None]}
    assert np.array_equal(rows_of(table, LIVED)[1], [0, NAN, 0, NAN, 0, 0, 0], equal_nan=True)
    assert np.array_equal(rows_of(pyarrow.table(table), LIVED), rows_of(table, LIVED), equal_nan=True)
    del table["weight"]
    with pytest.raises(DataError, match="weight"):
        rows_of(table, LIVED)
    assert np.isnan(rows_of(table, LIVED, [5])[:, 5]).all()


def test_files_are_read_in_pieces_and_not_beyond_the_limit(tmp_path, monkeypatch):
    (tmp_path / "c.csv").write_text("size,sort\n5.0,Gala\n6.5,Galla\n")
    with pytest.raises(DataError, match="no word 'Galla'. Did you mean 'Gala'"):
        conditions(tmp_path / "c.csv", LIVED)
    (tmp_path / "many.csv").write_text("size\n" + "5.0\n" * 100)
    (tmp_path / "rows.csv").write_text("size,sort,seeds,day,ripe,weight\n" + "5.0,Gala,1,01.03.2025,true,3\n" * 100)
    assert len(conditions(tmp_path / "many.csv", LIVED)) == len(rows_of(tmp_path / "rows.csv", LIVED)) == 100
    monkeypatch.setenv("LIKELIFY_MAX_VALUES", "50")
    for read, name in ((conditions, "many.csv"), (rows_of, "rows.csv")):
        with pytest.raises(DataError, match="holds more than 50 values"):
            read(tmp_path / name, LIVED)


def test_columns_that_are_absent_and_follow_from_others_through_others_are_computed():
    schema = (
        ColumnSchema(name="c", function=LinearFunction(of=("b",), factors=(2.0,))),
        ColumnSchema(name="b", function=LinearFunction(of=("a",), factors=(3.0,))),
        ColumnSchema(name="a"),
    )
    for table in ({"a": [1.0, 2.0]}, pyarrow.table({"a": [1.0, 2.0]})):
        assert rows_of(table, schema).tolist() == [[6, 3, 1], [12, 6, 2]]


def test_many_conditions_are_longer_than_the_name_of_a_file():
    columns = [ColumnSchema(name=f"a rather long name {number}") for number in range(40)]
    text = ",".join(f"{column.name}={number}" for number, column in enumerate(columns))
    assert parse_given(text, columns) == {column.name: str(number) for number, column in enumerate(columns)}


def test_a_column_without_a_value_is_told_what_to_write():
    with pytest.raises(ConfigError, match="'size=...', or the name of a file"):
        parse_given("size", LIVED)
