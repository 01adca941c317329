"""Text files as people have them: headers of years, rows of nothing, decimal commas, codes, years of two digits."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.delimited import TextFrame
from likelify.data.encoding import encode
from likelify.errors import DataError

RANDOM = np.random.default_rng(0)


def written(tmp_path, text, name="rows.csv"):
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def meaning(tmp_path, text, name="rows.csv", **options):
    facts = open_source(written(tmp_path, text, name), SourceOptions(**options) if options else None).facts()
    return sum(facts.sizes.values()), facts.meaning


def lines(*columns):
    return "".join(f"{','.join(cells)}\n" for cells in zip(*columns, strict=True))


def numbers(count=60, decimals=3):
    return [f"{value:.{decimals}f}" for value in RANDOM.normal(size=count)]


def words(*some, count=60):
    return RANDOM.choice(some, count).tolist()


@pytest.mark.parametrize(
    ("header", "first"),
    [("city,2019,2020", words("Rome", "Paris", "Oslo")), ("gdp,inf,unemp", numbers()), ("rate,2019,2020", numbers())],
)
def test_names_may_be_numbers_where_no_row_is_like_them(tmp_path, header, first):
    count, found = meaning(tmp_path, f"{header}\n" + lines(first, numbers(), numbers()))
    assert (count, [column.name for column in found]) == (60, header.split(","))


def test_rows_of_years_have_no_header(tmp_path):
    years = [RANDOM.integers(low, low + 100, 60).astype(str).tolist() for low in (1700, 1800)]
    count, found = meaning(tmp_path, lines(words("a", "b"), *years))
    assert (count, found[1].name) == (60, "column 2")


def test_a_file_that_is_scored_has_the_names_that_the_model_knows(tmp_path):
    columns = {name: RANDOM.normal(size=60).round(3) for name in ("2019", "2020", "2021")}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    facts = open_source(str(tmp_path / "rows.parquet")).facts()
    turned = list(columns)[::-1]
    whole = lines(*(columns[name].astype(int).astype(str).tolist() for name in turned))
    items = open_items(written(tmp_path, f"{','.join(turned)}\n{whole}"), facts)
    (batch,) = items.batches(100)
    assert np.array_equal(batch.batch.x[:, 0], columns["2019"].astype(int))
    assert len(batch.batch) == 60


def test_rows_of_nothing_at_the_end_are_no_rows(tmp_path):
    rows = lines(numbers(), numbers()).replace(",", "\t")
    cut = rows.index("\n") + 1
    for delimiter in ("\t", ";", ","):
        text = (f"a\tb\n{rows[:cut]}\t\n{rows[cut:]}" + "\t\n" * 3).replace("\t", delimiter)
        count, found = meaning(tmp_path, text, "rows.tsv" if delimiter == "\t" else "rows.csv")
        assert (count, [column.missing for column in found]) == (61, [True, True])


def test_the_end_may_come_behind_a_piece_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("likelify.data.lines.BLOCK", 64)
    text = "a,b\n" + "1,2\n" * 9 + ",\n" * 40 + "3,4\n" + ",\n" * 70
    frame = TextFrame(tmp_path.joinpath(written(tmp_path, text)))
    rows = np.concatenate([part.values for part in frame.rows(["a", "b"])])
    assert rows.shape == (50, 2)
    assert np.isnan(rows[9:49]).all()
    assert rows[49].tolist() == [3, 4]
    assert frame.place(49) == "line 51"


def test_decimal_commas_are_a_fact_of_the_model(tmp_path):
    prices = RANDOM.normal(200, 50, 60).round(2)
    text = [f"{price:.2f}".replace(".", ",") for price in prices]
    sizes = words("3", "4", "4,5")
    rows = "".join(f"{a};{b}\n" for a, b in zip(text, sizes, strict=True))
    count, found = meaning(tmp_path, f"price;size\n{rows}")
    assert [(column.comma, column.kind != "category") for column in found] == [(True, True), (True, True)]
    facts = open_source(str(tmp_path / "rows.csv")).facts()
    for new, value in (("312,25;3,5\n", 312.25), ("312,250;3\n", 312.25), ("1.312,5;4\n", 1312.5), ("7.5;4\n", 7.5)):
        (batch,) = open_items(written(tmp_path, f"price;size\n{new}", "new.csv"), facts).batches(9)
        assert batch.batch.x[0, 0] == value
    of_frame = as_source(pa.table({"price": text, "size": RANDOM.normal(size=60)})).facts().meaning
    assert (of_frame[0].comma, of_frame[0].decimals) == (True, 2)
    assert encode({"price": ["170,5", "1.170,5"], "size": [1, 2]}, of_frame)[:, 0].tolist() == [170.5, 1170.5]
    with pytest.raises(DataError, match="'1.170' is no number"):
        encode({"price": ["1.170"], "size": [3]}, of_frame)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1 234,50", "2 345,00"], "has blanks or apostrophes between thousands.*(1234.50|2345.00)"),
        (["1\u202f234,50", "2\u00a0345,00"], "has blanks or apostrophes between thousands"),
        (["1'234.50", "2'345.00"], "has blanks or apostrophes between thousands"),
    ],
)
def test_blanks_between_thousands_are_no_words(tmp_path, cells, said):
    text = "a;b\n" + "".join(f"{cell};{number}\n" for cell, number in zip(words(*cells), numbers(), strict=True))
    with pytest.raises(DataError, match=said):
        meaning(tmp_path, text)
    with pytest.raises(DataError, match=said):
        as_source(pa.table({"a": words(*cells), "b": RANDOM.normal(size=60)}))


def test_what_comes_late_decides(tmp_path):
    late = [""] * 1100 + words("x", "y", count=300)
    _, found = meaning(tmp_path, "a,b\n" + lines(numbers(1400), late))
    assert found[1].categories == ("x", "y")
    late = [*words("1.5", "2.5", "3.25", count=1100), *words("x", "y", count=300)]
    with pytest.raises(DataError, match="Words that go on: --columns 'b=category'"):
        meaning(tmp_path, "a,b\n" + lines(numbers(1400), late))


def test_codes_stay_codes(tmp_path):
    _, found = meaning(tmp_path, "zip,a\n" + lines(words("01067", "04109", "80331"), numbers()))
    assert found[0].categories == ("01067", "04109", "80331")
    with pytest.raises(DataError, match="Words that go on: --columns 'house=category'"):
        meaning(tmp_path, "house,a\n" + lines(words("12", "6a", "7", "8", "9"), numbers()))


def test_years_of_two_digits_are_asked_for(tmp_path):
    born = [f"{day:02d}/13/{year:02d}" for day, year in RANDOM.integers((1, 30), (12, 99), (60, 2))]
    with pytest.raises(DataError, match=r"would be a day to come.*--columns 'born=date\[%m/%d/%y\]'"):
        meaning(tmp_path, "born,a\n" + lines(born, numbers()))
    _, found = meaning(tmp_path, "born,a\n" + lines(born, numbers()), columns={"born": "date[%m/%d/%y]"})
    assert found[0].kind == "date"
    lately = [f"{day:02d}/13/{year:02d}" for day, year in RANDOM.integers((1, 0), (12, 20), (60, 2))]
    assert meaning(tmp_path, "seen,a\n" + lines(lately, numbers()))[1][0].kind == "date"


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("place\nNew York\nRio de Janeiro\nRome\n", ["New York", "Rio de Janeiro", "Rome"]),
        ("when\n2020-01-05 12:00\n2020-01-06 13:00\n", ["2020-01-05 12:00", "2020-01-06 13:00"]),
        ("price\n12,50\n13,25\n", ["12,50", "13,25"]),
    ],
)
def test_one_column_is_not_cut(tmp_path, text, cells):
    frame = TextFrame(tmp_path.joinpath(written(tmp_path, text)))
    (rows,) = frame.rows((), [column.name for column in frame.columns])
    assert list(rows.carried.values()) == [cells]


def test_numbers_for_missing_values_are_no_truth_values_and_no_dates(tmp_path):
    count = 60
    columns = {
        "size": np.where(RANDOM.random(count) < 0.5, RANDOM.normal(size=count), RANDOM.choice([0.0, -999.0], count)),
        "flag": RANDOM.random(count) < 0.5,
        "born": [datetime.date(1967, 4, 8) + datetime.timedelta(days=int(n)) for n in RANDOM.integers(-2, 3, count)],
    }
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    for missing in ("0", "-999"):
        facts = open_source(str(tmp_path / "rows.parquet"), SourceOptions(missing=missing)).facts()
        assert [column.missing for column in facts.meaning] == [True, False, False]


def test_numbers_are_dates_as_these_are_written(tmp_path):
    days = np.datetime64("2001-01-01") + RANDOM.integers(0, 900, 60)
    coded = [int(str(day).replace("-", "")) for day in days]
    parquet.write_table(pa.table({"day": coded, "a": RANDOM.normal(size=60)}), tmp_path / "rows.parquet")
    options = SourceOptions(columns={"day": "date[%Y%m%d]"})
    facts = open_source(str(tmp_path / "rows.parquet"), options).facts()
    (batch,) = open_items(str(tmp_path / "rows.parquet"), facts).batches(100)
    assert np.array_equal(batch.batch.x[:, 0], days.astype("M8[D]").astype(int))


def test_endings_may_be_capital_letters(tmp_path):
    text = "a,b\n" + lines(numbers(), numbers())
    assert meaning(tmp_path, text, "ROWS.CSV")[0] == 60
