"""Parquet and Feather files and data frames: types are kept, columns go by name, what is missing is counted."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.arrow import FeatherFrame, MemoryFrame, ParquetFrame, as_numbers
from likelify.data.encoding import decode
from likelify.data.frames import complete
from likelify.errors import DataError
from tests.data.kinds import kinds

COUNT = 20_000
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "length": RNG.normal(size=COUNT),
        "count": RNG.integers(0, 1000, COUNT),
        "open": RNG.integers(0, 2, COUNT) == 1,
        "colour": RNG.choice(["red", "green", "blue"], COUNT),
        "day": pd.date_range("2020-01-01", periods=COUNT),
    }
)
NUMBERS = ["length", "count", "open"]
POLARS = pl.from_pandas(FRAME)


def in_parts(path):
    with parquet.ParquetWriter(path, pa.Schema.from_pandas(FRAME)) as writer:
        for start in range(0, COUNT, 6_000):
            writer.write_table(pa.Table.from_pandas(FRAME[start : start + 6_000], preserve_index=False))


WRITERS = {
    "pandas.parquet": FRAME.to_parquet,
    "parts.parquet": in_parts,
    "polars.parquet": POLARS.write_parquet,
    "brotli.parquet": lambda path: FRAME.to_parquet(path, compression="brotli"),
    "pandas.feather": FRAME.to_feather,
    "plain.feather": lambda path: feather.write_feather(FRAME, path, compression="uncompressed"),
    "polars.arrow": POLARS.write_ipc,
    "zstd.arrow": lambda path: POLARS.write_ipc(path, compression="zstd"),
    "stream.arrow": POLARS.write_ipc_stream,
}


def frames(folder):
    for name, write in WRITERS.items():
        write(folder / name)
        yield (ParquetFrame if name.endswith("parquet") else FeatherFrame)(folder / name)
    yield MemoryFrame(FRAME)
    yield MemoryFrame(POLARS)
    yield MemoryFrame(FRAME.astype({"colour": "category"}))
    yield MemoryFrame(pa.table(FRAME))


def test_types_and_values_are_kept_from_any_row_on(tmp_path):
    wanted = ["count", "open", "length"]
    for frame in frames(tmp_path):
        found = {column.name: column.type for column in frame.columns}
        types = {"length": "real", "count": "integer", "open": "boolean", "colour": "words", "day": "date"}
        assert found == types
        assert frame.count == COUNT
        for start in (0, 5, 6_000, 12_345, COUNT - 1, COUNT):
            rows = list(complete(frame, wanted, ["colour", "day"], start))
            values = np.concatenate([np.empty((0, 3)), *(part.values for part in rows)])
            assert np.array_equal(values, FRAME[wanted].to_numpy(dtype=float)[start:])
            assert [word for part in rows for word in part.carried["colour"]] == FRAME["colour"].tolist()[start:]
        assert rows == []
        first = next(complete(frame, wanted, ["day"], 1)).carried["day"][0]
        assert (first.year, first.month, first.day) == (2020, 1, 2)


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_a_source_of_numbers_words_and_dates(tmp_path, name):
    WRITERS[name](tmp_path / name)
    whole = open_source(tmp_path / name)
    assert kinds(whole) == ("real", "integer", "boolean", "category", "date")
    back = decode(whole.read_all("test").x.numpy(), whole.schema)
    order = np.random.default_rng(0).permutation(COUNT)[18_000:]
    assert back["colour"] == FRAME["colour"][order].tolist()
    assert back["day"] == FRAME["day"][order].dt.strftime("%Y-%m-%d").tolist()
    assert np.array_equal(back["count"], FRAME["count"][order])
    source = open_source(tmp_path / name, SourceOptions(drop="colour, day"))
    assert source.columns == tuple(NUMBERS)
    assert kinds(source) == ("real", "integer", "boolean")
    assert "without 'colour', 'day'" in source.description
    kept = open_source(tmp_path / name, SourceOptions(columns=["open", "length"]))
    assert kept.columns == ("open", "length")
    order = np.random.default_rng(0).permutation(COUNT)[:16_000]
    assert np.array_equal(kept.read_all("train").x.numpy(), FRAME[["open", "length"]].to_numpy(dtype=float)[order])


@pytest.mark.parametrize("name", WRITERS)
def test_items_carry_the_other_columns(tmp_path, name):
    WRITERS[name](tmp_path / name)
    facts = open_source(tmp_path / name, SourceOptions(drop="colour,day")).facts()
    items = open_items(tmp_path / name, facts)
    assert (items.count, items.carried) == (COUNT, ("colour", "day"))
    batches = list(items.batches(999, 17))
    assert [len(batch) for batch in batches[:-1]] == [999] * (len(batches) - 1)
    values = np.concatenate([batch.batch.x.numpy() for batch in batches])
    assert np.array_equal(values, FRAME[NUMBERS].to_numpy(dtype=float)[17:])
    assert [word for batch in batches for word in batch.carried["colour"]] == FRAME["colour"].tolist()[17:]


def test_an_index_is_left_out_of_a_fit_and_carried_by_items(tmp_path):
    shuffled = FRAME[NUMBERS].sample(frac=1, random_state=0)
    named = FRAME[NUMBERS].set_axis([f"r{n}" for n in range(COUNT)]).rename_axis("id")
    for frame, index in ((shuffled, "__index_level_0__"), (named, "id")):
        frame.to_parquet(tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet")
        assert source.columns == tuple(NUMBERS)
        assert f"without '{index}', which names the rows" in source.description
        memory = as_source(frame)
        assert memory.columns == tuple(NUMBERS)
        for what in (tmp_path / "a.parquet", frame):
            batch = next(open_items(what, source.facts()).batches(3))
            assert batch.carried == {index: frame.index[:3].tolist()}
    assert as_source(FRAME[NUMBERS]).columns == tuple(NUMBERS)


@pytest.mark.parametrize("make", [lambda frame: frame, pl.from_pandas, pa.table])
def test_a_data_frame_in_memory(make):
    source = as_source(make(FRAME[["length", "open", "colour"]]), labels="colour", validation=0.2)
    assert (source.kind, source.columns, kinds(source)) == (
        "table",
        ("length", "open"),
        ("real", "boolean"),
    )
    assert (source.classes, source.class_names) == (3, ("blue", "green", "red"))
    order = np.random.default_rng(0).permutation(COUNT)[:16_000]
    train = source.read_all("train")
    assert np.array_equal(train.x.numpy(), FRAME[["length", "open"]].to_numpy(dtype=float)[order])
    assert [source.class_names[n] for n in train.labels.tolist()] == FRAME["colour"].to_numpy()[order].tolist()
    items = open_items(make(FRAME[["colour", "open", "length"]]), source.facts(), SourceOptions(labels="colour"))
    batch = next(items.batches(50, 7))
    assert np.array_equal(batch.batch.x.numpy(), FRAME[["length", "open"]].to_numpy(dtype=float)[7:57])
    assert [source.class_names[n] for n in batch.batch.labels.tolist()] == batch.carried["colour"]


def test_names_are_shown_on_one_line_and_found_as_they_are(tmp_path):
    frame = FRAME[["length", "count"]].set_axis(["length\n(mm)", ""], axis=1)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_feather(tmp_path / "a.feather")
    for what in (tmp_path / "a.parquet", tmp_path / "a.feather", frame):
        items = open_items(what, as_source(frame).facts())
        assert next(items.batches(9)).batch.x.tolist() == FRAME[["length", "count"]][:9].to_numpy(dtype=float).tolist()
    assert as_source(frame).columns == ("length (mm)", "column 2")
    with pytest.raises(DataError, match="two columns called 'a b'"):
        MemoryFrame(pa.table([[1.0], [2.0]], names=["a\nb", "a b"]))


def test_missing_values_are_kept_as_such(tmp_path):
    spoiled = FRAME[NUMBERS].astype({"count": "Int64"})
    spoiled.loc[[30, 9_000, 19_999], "count"] = None
    spoiled.loc[40, "length"] = np.nan
    spoiled.to_parquet(tmp_path / "a.parquet")
    POLARS.select(
        pl.when(pl.int_range(pl.len()) == 11_000).then(None).otherwise(pl.col("length")).alias("x"), "count"
    ).write_ipc(tmp_path / "a.arrow")
    for source in (open_source(tmp_path / "a.parquet"), as_source(spoiled)):
        assert [column.missing for column in source.schema] == [True, True, False]
        assert sum(int(source.read_all(split).x.isnan().sum()) for split in ("train", "validation", "test")) == 4
    assert [column.missing for column in open_source(tmp_path / "a.arrow").schema] == [True, False]
    facts = as_source(FRAME[NUMBERS]).facts()
    rows = next(open_items(tmp_path / "a.parquet", facts).batches(COUNT)).batch.x
    assert rows.isnan().nonzero().tolist() == [[30, 1], [40, 0], [9_000, 1], [19_999, 1]]


def test_values_that_cannot_be_computed_with_are_named(tmp_path):
    for value, message in ((np.inf, "the value is inf"), (-1e200, r"the value is -1e\+200\. Write it in other units")):
        spoiled = FRAME[NUMBERS].copy()
        spoiled.loc[13_000, "length"] = value
        spoiled.to_feather(tmp_path / "a.feather")
        with pytest.raises(DataError, match=f"a.feather', row 13000, column 'length': {message}"):
            open_source(tmp_path / "a.feather")


def test_columns_that_are_not_there_or_no_numbers_of_their_own(tmp_path):
    FRAME.to_parquet(tmp_path / "a.parquet")
    for options, message in (
        (SourceOptions(drop="color"), "There is no column 'color'. Did you mean 'colour'"),
        (SourceOptions(drop="length,count,open,colour,day"), "has no columns left"),
        (SourceOptions(labels="length", drop="day,colour"), "labels are words, truth values or whole numbers"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "a.parquet", options)
    with pytest.raises(DataError, match="two columns called 'a'"):
        MemoryFrame(pa.table([[1.0], [2.0]], names=["a", "a"]))
    mixed = pd.DataFrame({"a": [1, "x", None], "b": [datetime.date(2020, 1, 1), 2, {}]})
    with pytest.raises(DataError, match="a column of several types or of objects"):
        as_source(mixed)
    with pytest.raises(DataError, match="column 'a': it holds values that are neither.* No other column is left"):
        as_source(pl.DataFrame({"a": [[1.0, 2.0]] * 20}))


def test_damaged_files_are_named(tmp_path):
    for name in ("pandas.parquet", "pandas.feather", "stream.arrow"):
        WRITERS[name](tmp_path / name)
        content = (tmp_path / name).read_bytes()
        for spoiled in (b"", content[:100], content[: len(content) // 2], b"PAR1" + content[4:-8] + b"\xff" * 8):
            (tmp_path / name).write_bytes(spoiled)
            with pytest.raises(DataError, match=rf"{name}'.*"):
                open_source(tmp_path / name, SourceOptions(columns="length"))
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(DataError, match="Feather file of version 1"):
        open_source(tmp_path / "old.feather")


def test_files_that_unpack_to_much_more_are_refused_before(tmp_path):
    zeros = pa.table({"a": pa.array(np.zeros(20_000_000, np.int64))})
    feather.write_feather(zeros, tmp_path / "a.feather", compression="zstd")
    parquet.write_table(zeros, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "a.feather").stat().st_size < 10**6
    for name in ("a.feather", "a.parquet"):
        with pytest.raises(DataError, match="unpacks to more than 30 times its size"):
            open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("counts", "kind", "seconds"),
    [
        ([100, 998, None], pa.duration("ns"), [1e-7, 9.98e-7, np.nan]),
        ([10**13, -3], pa.duration("s"), [1e13, -3.0]),
        ([10**16, 1500], pa.timestamp("ms"), [1e13, 1.5]),
        ([10**13], pa.timestamp("s", "UTC"), [1e13]),
        ([1_700_000_000_123_456_000], pa.timestamp("ns"), [1_700_000_000.123456]),
        ([90_500], pa.time32("ms"), [90.5]),
        ([1, -1], pa.time64("ns"), [1e-9, -1e-9]),
    ],
)
def test_times_have_all_their_digits(counts, kind, seconds):
    assert np.array_equal(as_numbers(pa.array(counts, kind)), seconds, equal_nan=True)


def test_an_order_of_words_is_that_of_all_parts_or_none(tmp_path):
    def parts(*dictionaries):
        kind = pa.dictionary(pa.int8(), pa.string(), ordered=True)
        chunks = [
            pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), words, ordered=True)
            for words in dictionaries
        ]
        return MemoryFrame(pa.table({"size": pa.chunked_array(chunks, kind)}), "frame")

    assert parts(["small", "large"], ["small", "large"]).ordered("size") == ("small", "large")
    assert parts(["small", "large"], ["large", "small"]).ordered("size") is None


def test_the_fingerprint_of_a_data_frame_is_that_of_its_values():
    words = pa.array(["x", "y", "x", None])
    rows = pa.table({"size": [1.0, 2.0, None, 4.0], "word": words.dictionary_encode(), "list": [[1, 2], [3], None, []]})
    cut = pa.concat_tables([rows.slice(0, 1), rows.slice(1)])
    again = rows.set_column(1, "word", pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, None]), pa.array(["y", "x"])))
    other = rows.set_column(1, "word", pa.array(["x", "z", "x", None]).dictionary_encode())
    prints = [MemoryFrame(table).fingerprint() for table in (rows, cut, again, other)]
    assert prints[0] == prints[1] == prints[2] != prints[3]
