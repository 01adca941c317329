"""Tables of words, dates and numbers as rows of float64, and back."""

from datetime import date, datetime, time

import numpy as np
import pytest

from likelify.data.encoding import as_word, decode, encode
from likelify.errors import DataError, LikelifyWarning
from likelify.schema import ColumnSchema

SCHEMA = (
    ColumnSchema.category("city", ("Bonn", "Rome")),
    ColumnSchema(name="rooms", kind="integer", rest="steps", step=1),
    ColumnSchema(name="price", step=0.01),
    ColumnSchema(name="sold", kind="boolean", states=(0, 1), rest="none"),
    ColumnSchema(name="day", kind="date", rest="steps", step=1, unit="day", written="%d.%m.%Y"),
    ColumnSchema(name="seen", kind="date", rest="steps", step=1, unit="second", written="%Y-%m-%d %H:%M:%S"),
    ColumnSchema(name="at", kind="date", rest="steps", step=1, unit="second", written="%H:%M"),
)
COLUMNS = {
    "city": ["Rome", "", "Bonn"],
    "rooms": [3, None, 4],
    "price": ["1.50", 2.25, float("nan")],
    "sold": ["yes", False, None],
    "day": ["31.12.1999", date(1970, 1, 2), None],
    "seen": [datetime(1970, 1, 1, 0, 1), "1970-01-02 00:00:00", np.datetime64("NaT")],
    "at": ["12:30", time(0, 1), "?"],
}


def test_columns_of_all_kinds_and_back():
    rows = encode(COLUMNS, SCHEMA)
    nan = np.nan
    expected = [[1, 3, 1.5, 1, 10956, 60, 45000], [nan, nan, 2.25, 0, 1, 86400, 60], [0, 4, nan, nan, nan, nan, nan]]
    np.testing.assert_array_equal(rows, expected)
    back = decode(rows, SCHEMA)
    assert back == {
        "city": ["Rome", None, "Bonn"],
        "rooms": [3, None, 4],
        "price": [1.5, 2.25, None],
        "sold": [True, False, None],
        "day": ["31.12.1999", "02.01.1970", None],
        "seen": ["1970-01-01 00:01:00", "1970-01-02 00:00:00", None],
        "at": ["12:30", "00:01", None],
    }
    np.testing.assert_array_equal(encode(back, SCHEMA), rows)
    typed = decode(rows, SCHEMA, written=False)
    assert typed["day"][0] == np.datetime64("1999-12-31")
    assert typed["at"][:2] == [time(12, 30), time(0, 1)]
    np.testing.assert_array_equal(encode(typed, SCHEMA), rows)


def test_what_is_drawn_is_rounded_to_what_the_data_have():
    drawn = np.array([[0.6, 2.4, 1.2345, 0.7, 10.6, 59.7, 86400.0]])
    found = {name: list(values)[0] for name, values in decode(drawn, SCHEMA).items()}
    assert found == {
        "city": "Rome",
        "rooms": 2,
        "price": 1.23,
        "sold": True,
        "day": "12.01.1970",
        "seen": "1970-01-01 00:01:00",
        "at": "23:59",
    }


def test_words_that_are_not_known_are_named_or_refused():
    columns = {"city": ["Rome", "Oslo", "Rome ", None]}
    with pytest.warns(LikelifyWarning, match=r"count as never seen: 'city': 'Oslo'\."):
        rows = encode(columns, SCHEMA[:1])
    np.testing.assert_array_equal(rows[:, 0], [1, -1, 1, np.nan])
    assert decode(rows, SCHEMA[:1]) == {"city": ["Rome", None, "Rome", None]}
    with pytest.raises(DataError, match="column 'city': There is no word 'Oslo'"):
        encode(columns, SCHEMA[:1], unknown="refuse")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rooms": ["three"]}, "row 0, column 'rooms': 'three' is no number"),
        ({"rooms": [1.0, np.inf]}, "row 1, column 'rooms': the value is inf, which is too large"),
        ({"sold": ["maybe"]}, "'maybe' is no truth value"),
        ({"day": ["31.13.1999"]}, "'31.13.1999' is no date as %d.%m.%Y writes it"),
        ({"price": [[1], 2]}, "is no number"),
        ({}, "There is no column 'city', 'rooms', .*'at'. Known are: other"),
    ],
)
def test_values_of_another_kind_name_row_and_column(columns, message):
    schema = [column for column in SCHEMA if column.name in columns] or SCHEMA
    with pytest.raises(DataError, match=message):
        encode({"other": [1]} | columns, schema)


@pytest.mark.parametrize("written", [True, False])
def test_dates_beyond_the_calendar_are_put_at_its_ends(written):
    day = ColumnSchema(name="day", kind="date", rest="steps", step=1.0, unit="day", written="%Y-%m-%d")
    found = decode(np.array([[-1e9], [0.0], [1e9]]), [day], written=written)["day"]
    assert [str(date) for date in found] == ["0001-01-01", "1970-01-01", "9999-12-31"]


def test_what_pandas_has_for_nothing_is_missing():
    nothing = pytest.importorskip("pandas").NA
    assert as_word(nothing) == as_word(None) == as_word(np.datetime64("NaT")) == as_word(float("nan")) == ""
    column = ColumnSchema(name="a", missing=True)
    assert np.isnan(encode({"a": [1.0, nothing]}, [column])[1, 0])
