import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from likelify.errors import ConfigError, DataError, UnsupportedError
from likelify.fitting.estimator.forms import Form, as_arrow, form_of, is_frame
from likelify.fitting.estimator.given import missing_words, without_missing
from likelify.fitting.estimator.ordering import order_of
from likelify.schema import ColumnSchema

WORDS = {"age": [31.5, None, 18.0], "town": ["Bern", "Basel", None], "member": [True, False, True]}


@pytest.mark.parametrize(
    ("table", "name"),
    [
        (pd.DataFrame(WORDS), "pandas"),
        (pl.DataFrame(WORDS), "polars"),
        (pa.table(WORDS), "arrow"),
        (np.zeros((3, 3)), "array"),
        (np.array([["a", 1, None]], dtype=object), "objects"),
        (np.array([["a", "b", "c"]]), "objects"),
    ],
)
def test_a_table_is_read_and_its_form_is_known(table, name):
    form = form_of(table)
    assert form.name == name
    assert is_frame(table) == (name in ("pandas", "polars", "arrow"))
    read = as_arrow(table)
    assert len(read) == len(table)
    assert isinstance(read, np.ndarray) == (name == "array")
    if name != "array":
        assert tuple(read.column_names) == form.columns
    if is_frame(table):
        assert form.columns == ("age", "town", "member")
        assert read.column("town").to_pylist() == ["Bern", "Basel", None]
        assert read.column("age").to_pylist() == [31.5, None, 18.0]


def test_what_is_no_frame_is_none():
    assert not is_frame(pd.Series([1.0, 2.0]))
    assert not is_frame(pl.Series([1.0, 2.0]))
    assert not is_frame([[1.0, 2.0]])


def test_an_index_is_no_column_and_columns_may_have_numbers_for_names():
    frame = pd.DataFrame(np.zeros((3, 2)), index=["a", "b", "c"])
    assert as_arrow(frame).column_names == ["0", "1"]
    assert form_of(frame).columns == ("0", "1")
    assert as_arrow(frame, ("x", "y")).column_names == ["x", "y"]


def test_arrays_of_objects_are_numbers_or_words_column_by_column():
    table = as_arrow(np.array([[1, "a", 1.5], [2.5, 7, None], [np.nan, None, True]], dtype=object))
    assert table.column(0).to_pylist()[:2] == [1.0, 2.5]
    assert np.isnan(table.column(0).to_pylist()[2])
    assert table.column(1).to_pylist() == ["a", "7", None]
    assert table.column(2).type == pa.float64()
    assert table.column_names == ["column 1", "column 2", "column 3"]


@pytest.mark.parametrize("value", [{"a": 1}, [1], object()])
def test_arrays_of_other_objects_are_refused(value):
    cells = np.array([["a"], [None]], dtype=object)
    cells[1, 0] = value
    with pytest.raises(UnsupportedError, match="argument must be a string or a number"):
        as_arrow(cells)


def test_a_column_of_several_types_is_refused_in_words():
    with pytest.raises(DataError, match="several types"):
        as_arrow(pd.DataFrame({"x": [1, "a", None]}))


def mixed(count=60):
    generator = np.random.default_rng(0)
    day = datetime.date(2024, 1, 1)
    return pa.table(
        {
            "x": pa.array([None if n % 7 == 0 else float(n % 13) for n in range(count)]),
            "word": pa.array([f"w{n % 5}" for n in range(count)]),
            "code": pa.array([f"c{n % 3}" for n in range(count)]).dictionary_encode(),
            "day": pa.array([day + datetime.timedelta(n % 11) for n in range(count)]),
            "yes": pa.array(generator.random(count) < 0.5),
        }
    )


@pytest.mark.parametrize("table", [mixed(), np.random.default_rng(0).normal(size=(60, 4)).round(1)])
def test_the_order_of_rows_is_found_again_after_any_shuffling(table):
    def ordered(data):
        order = order_of(data)
        assert sorted(order.tolist()) == list(range(60))
        return data[order].tolist() if isinstance(data, np.ndarray) else data.take(order).to_pylist()

    shuffled = np.random.default_rng(1).permutation(60)
    again = table[shuffled] if isinstance(table, np.ndarray) else table.take(shuffled)
    assert ordered(again) == ordered(table)
    assert ordered(table) != (table.tolist() if isinstance(table, np.ndarray) else table.to_pylist())


def test_equal_values_are_one_in_the_order_whatever_their_bits():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [np.nan, 2.0], [-np.nan, 2.0]])
    places = order_of(np.concatenate([rows, np.arange(40.0).reshape(20, 2)])).tolist()
    assert abs(places.index(0) - places.index(1)) == 1
    assert abs(places.index(2) - places.index(3)) == 1


def test_columns_are_named_by_their_places():
    form = Form("array", ("column 1", "column 2"))
    assert (form.named(0), form.named(-1), form.named("column 2")) == ("column 1", "column 2", "column 2")
    with pytest.raises(ConfigError, match="no column 2; there are 2"):
        form.named(2)


@pytest.mark.parametrize("wrong", [5.5, [{}], {"a": 1}])
def test_words_for_missing_values_are_a_list_or_a_text(wrong):
    with pytest.raises(ConfigError, match=r"list of words and numbers, such as missing=\[-99"):
        missing_words(wrong)
    assert missing_words([-99, "?"]) == ("-99", "?")


SCHEMA = (ColumnSchema(name="x", missing=True), ColumnSchema.category("word", ("a", "b", "z"), missing=True))
DRAWN = np.array([[9.0, 2.0], [8.0, 2.0], [7.0, 2.0]])


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table])
def test_what_is_missing_is_filled_and_the_rest_is_untouched(kind):
    data = kind({"id": ["1", "2", None], "x": [1.25, None, 3.0], "word": ["a", "b", None]})
    if kind is pd.DataFrame:
        data.index = [5, 6, 7]
        data["word"] = data["word"].astype(pd.CategoricalDtype(["b", "a", "z"]))
    missing = np.array([[False, False], [True, False], [False, True]])
    filled = form_of(data).filled(data, DRAWN, missing, SCHEMA)
    assert type(filled) is type(data)
    cells = filled.to_pydict() if kind is pa.table else {name: list(filled[name]) for name in filled.columns}
    assert (cells["x"], cells["word"], cells["id"][:2]) == ([1.25, 8.0, 3.0], ["a", "b", "z"], ["1", "2"])
    if kind is pd.DataFrame:
        assert filled.index.tolist() == [5, 6, 7]
        assert (filled.dtypes == data.dtypes).all()


def test_arrays_are_filled():
    form, schema = Form("array", ("column 1", "column 2")), (ColumnSchema(name="column 2"),)
    rows = np.array([[1.0, np.nan], [np.nan, 3.0]])
    filled = form.filled(rows, np.full((2, 1), 9.0), np.isnan(rows[:, 1:]), schema)
    assert filled[:, 1].tolist() == [9, 3]
    assert np.isnan(filled[1, 0])
    words = np.array([["a", None], [None, "q"]], dtype=object)
    schema = (ColumnSchema.category("column 2", ("y", "q")),)
    gone = np.array([[True], [False]])
    assert form_of(words).filled(words, np.zeros((2, 1)), gone, schema).tolist() == [["a", "y"], [None, "q"]]


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table])
def test_words_and_numbers_for_missing_values_are_none(kind):
    data = kind({"n": [1, -999, 3], "x": [1.5, -999.0, None], "word": ["a", "-", "-999"], "yes": [True, False, True]})
    for words in (["-", -999], "-,-999"):
        plain = without_missing(as_arrow(data), missing_words(words))
        assert plain.column("n").to_pylist() == [1, None, 3]
        assert plain.column("word").to_pylist() == ["a", None, None]
        assert [plain.column(name).null_count for name in ("x", "yes")] == [2, 0]
    codes = as_arrow(pd.DataFrame({"code": pd.Categorical(["b", "-", "a"])}))
    assert without_missing(codes, ("-",)).column(0).to_pylist() == ["b", None, "a"]
    rows = np.array([[1.0, -999.0]])
    assert np.isnan(without_missing(rows, ("-999",))).tolist() == [[False, True]]
    assert without_missing(rows, ()) is rows


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table, lambda table: np.array([*table.values()]).T])
def test_a_number_for_each_cell_is_a_table_of_the_same_form(kind):
    data = kind({"x": [1.0, 2.0], "word": [3.0, 4.0]})
    given = form_of(data).numbers(data, np.array([[0.5, 1.5], [2.5, 3.5]]), SCHEMA)
    assert type(given) is type(data)
    assert np.asarray(given).tolist() == [[0.5, 1.5], [2.5, 3.5]]


def test_draws_of_whole_numbers_are_whole_where_none_is_missing():
    form = form_of(np.zeros((3, 2), dtype=np.int32))
    drawn = form.restored(np.array([[1.0, 2.0]]), ())
    assert drawn.dtype == np.int32
    assert form.restored(np.array([[1.0, np.nan]]), ()).dtype == np.float64
