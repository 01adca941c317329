"""Drawn rows as tables: the types, words and dates that the data had, in every format."""

import csv

import numpy as np
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch

from likelify.data import Batch, Facts
from likelify.fitting.drawing.writing import write_items, write_panels
from likelify.fitting.typed import arrow_table
from likelify.schema import ColumnSchema

NAN = np.nan
SCHEMA = (
    ColumnSchema(name="a size", step=0.01, lower=0.0, missing=True),
    ColumnSchema(name="rooms", kind="integer", rest="steps", step=1.0, missing=True),
    ColumnSchema.category("=city", ("Rome", "-Oslo", "a,b"), missing=True),
    ColumnSchema.category("grade", ("low", "high"), kind="ordered"),
    ColumnSchema(name="paid", kind="boolean", states=(0.0, 1.0), rest="none", missing=True),
    ColumnSchema(name="day", kind="date", unit="day", rest="steps", step=1.0, written="%d.%m.%Y", missing=True),
    ColumnSchema(name="at", kind="date", unit="second", rest="steps", step=1.0, written="%Y-%m-%d %H:%M:%S"),
    ColumnSchema(name="clock", kind="date", unit="second", rest="steps", step=60.0, written="%H:%M"),
)
ROWS = np.array(
    [
        [0.30000000000000004, 3.0, 2, 1, 1, 19_000, 1.7e9, 3660],
        [NAN, NAN, NAN, 0, NAN, NAN, 0.0, 0],
        [1234.5, -2.0, 1, 0, 0, 0, 86_399, 86_340],
    ]
)
FACTS = Facts(
    name="made",
    family="made",
    kind="table",
    event_shape=(8,),
    sizes={},
    fingerprint="",
    columns=tuple(column.name for column in SCHEMA),
    schema=SCHEMA,
)


def batches(size=1):
    return [Batch(torch.from_numpy(ROWS[at : at + size])) for at in range(0, len(ROWS), size)]


def test_a_table_has_the_types_of_the_columns():
    table = arrow_table(ROWS, SCHEMA)
    words = "dictionary<values=string, indices=int32, ordered="
    assert [str(field.type) for field in table.schema] == [
        *("double", "int64", f"{words}0>", f"{words}1>", "bool", "date32[day]", "timestamp[us]", "time64[us]")
    ]
    first, second, _ = table.to_pylist()
    assert list(first.values())[:5] == [0.3, 3, "a,b", "high", True]
    assert [str(first[name]) for name in ("day", "at", "clock")] == ["2022-01-08", "2023-11-14 22:13:20", "01:01:00"]
    assert [second[name] for name in ("a size", "rooms", "=city", "paid", "day")] == [None] * 5


def test_pandas_and_polars_take_it():
    polars = pytest.importorskip("polars")
    table = arrow_table(ROWS, SCHEMA)
    frame = table.to_pandas()
    assert frame["=city"].dtype.name == "category"
    assert frame["day"].isna().tolist() == [False, True, False]
    assert polars.from_arrow(table)["rooms"].to_list() == [3, None, -2]


def test_csv_has_dates_and_decimals_as_they_were_written(tmp_path):
    write_items(tmp_path / "x.csv", FACTS, 3, batches())
    with (tmp_path / "x.csv").open(newline="") as handle:
        header, *lines = csv.reader(handle)
    assert header[2] == "'=city"
    assert lines[0] == ["0.3", "3", "a,b", "high", "true", "08.01.2022", "2023-11-14 22:13:20", "01:01"]
    assert lines[1] == ["", "", "", "low", "", "", "1970-01-01 00:00:00", "00:00"]
    assert lines[2][:3] == ["1234.5", "-2", "'-Oslo"]


def test_decimals_are_as_many_as_the_data_have():
    schema = (
        ColumnSchema(name="price", step=0.01, decimals=2, missing=True),
        ColumnSchema(name="whole", kind="integer", rest="steps", step=1.0, decimals=1),
        ColumnSchema(name="free", step=0.01),
        ColumnSchema(name="finer", step=0.001, decimals=2),
    )
    rows = np.array([[0.0, 3, 0.5, 0.125], [-12.5, 4, 0.25, 1.0], [NAN, 5, 1.0, 1.0]])
    columns = arrow_table(rows, schema, written=True).to_pydict()
    assert columns["price"] == ["0.00", "-12.50", None]
    assert columns["whole"] == ["3.0", "4.0", "5.0"]
    assert columns["free"] == [0.5, 0.25, 1.0]
    assert columns["finer"] == [0.125, 1.0, 1.0]
    assert arrow_table(rows, schema).column("price").to_pylist() == [0.0, -12.5, None]


@pytest.mark.parametrize("ending", [".parquet", ".feather"])
def test_binary_files_keep_types_however_they_are_cut(tmp_path, ending):
    read = pyarrow.parquet.read_table if ending == ".parquet" else pyarrow.feather.read_table
    found = []
    for size in (1, 3):
        write_items(tmp_path / f"{size}{ending}", FACTS, 3, batches(size))
        found.append(read(tmp_path / f"{size}{ending}"))
    assert found[0].equals(found[1])
    assert found[0].to_pylist() == arrow_table(ROWS, SCHEMA).to_pylist()


def test_versions_of_rows_beside_one_another_keep_their_types(tmp_path):
    rows = torch.from_numpy(ROWS)
    write_panels(tmp_path / "x.csv", FACTS, {"original": rows, "new": rows})
    first = (tmp_path / "x.csv").read_text().splitlines()[1]
    assert first.count("08.01.2022") == 2


def test_pictures_of_rows_with_missing_values_are_drawn(tmp_path):
    write_items(tmp_path / "x.png", FACTS, 3, batches())
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
