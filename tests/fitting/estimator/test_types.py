"""Types of columns that come back as they were: lengths of time, time zones, categories, truth values, names."""

import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import likelify as lk
from likelify.data.zones import by_clocks, of_clocks
from likelify.errors import ConfigError, DataError
from likelify.fitting.drawing.sampling import sample_to
from likelify.fitting.estimator.forms import form_of
from likelify.fitting.estimator.ordering import order_of
from likelify.schema import ColumnSchema
from tests.fitting.estimator.tables import TINY, density

pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")
ZONE = "Europe/Berlin"


def times(count=200, seed=0):
    """Lengths of time, local midnights, and moments of a time zone; some are missing."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "whole": pd.to_timedelta(generator.integers(1, 10**5, count), unit="s"),
            "part": pd.to_timedelta(generator.random(count), unit="h"),
            "day": pd.date_range("2023-01-01", periods=count, tz=ZONE),
            "moment": pd.to_datetime(generator.integers(16e8, 17e8, count), unit="s", utc=True).tz_convert(ZONE),
        }
    )
    frame.loc[3, ["whole", "day"]] = pd.NaT
    return frame


@pytest.fixture(scope="module")
def fitted():
    return density(settings=TINY | {"steps": 20}).fit(times())


def assert_like(drawn, frame):
    """Lengths and moments lie where those of a table do, and days are days of the time zone."""
    for name in frame.columns:
        assert str(drawn[name].dtype).partition("[")[0] == str(frame[name].dtype).partition("[")[0]
        spread = frame[name].max() - frame[name].min()
        assert drawn[name].min() > frame[name].min() - spread
        assert drawn[name].max() < frame[name].max() + spread
    assert drawn["whole"].std() > frame["whole"].std() / 3
    assert (drawn["day"].dropna().dt.normalize() == drawn["day"].dropna()).all()
    assert drawn["day"].dt.tz.key == drawn["moment"].dt.tz.key == ZONE


def test_lengths_of_time_and_time_zones_come_back_as_they_were(fitted, tmp_path):
    frame = times()
    assert [(column.unit, column.zone) for column in fitted.schema_] == [
        *[("second", None)] * 2,
        *[("day", ZONE), ("second", ZONE)],
    ]
    drawn = fitted.sample(200, random_state=1)
    assert (drawn.dtypes == frame.dtypes).all()
    assert_like(drawn, frame)
    scores = fitted.score_samples(frame)
    fitted.save(tmp_path / "run")
    loaded = lk.FlowDensity.load(tmp_path / "run")
    assert (loaded.score_samples(frame) == scores).all()
    assert_like(loaded.sample(200, random_state=1), frame)
    sample_to(lk.Run.load(tmp_path / "run"), tmp_path / "drawn.parquet", 100)
    assert_like(pd.read_parquet(tmp_path / "drawn.parquet"), frame)
    filled = fitted.impute(frame)
    assert filled.notna().all(axis=None)
    assert filled.drop(index=3).equals(frame.drop(index=3))


def test_moments_are_the_same_in_whatever_zone_they_are_given(fitted):
    frame = times()
    scores = fitted.score_samples(frame)
    elsewhere = frame.assign(moment=frame["moment"].dt.tz_convert("America/New_York"))
    assert (fitted.score_samples(elsewhere) == scores).all()
    for table in (pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        assert (fitted.score_samples(table) == scores).all()
        drawn = density().fit(table).sample(3)
        assert drawn.schema == table.schema if isinstance(table, pl.DataFrame) else drawn.schema.types
    noon = pd.Timestamp("2022-05-05 12:00", tz=ZONE)
    given = {"moment": noon.tz_convert("America/New_York"), "whole": pd.Timedelta("1h")}
    drawn = fitted.sample(2, given=given)
    assert (drawn["moment"] == noon).all()
    assert (drawn["whole"] == pd.Timedelta("1h")).all()


def test_what_clocks_show_twice_or_never_is_a_moment_all_the_same():
    shown = np.array(["2024-03-31T02:30", "2024-10-27T02:30", "2024-07-01T00:00", "NaT"], dtype="M8[us]")
    moments = of_clocks(shown, ZONE).to_pylist()
    assert [None if moment is None else moment.isoformat() for moment in moments] == [
        *["2024-03-31T03:00:00+02:00", "2024-10-27T02:30:00+02:00", "2024-07-01T00:00:00+02:00", None],
    ]
    seconds = np.array([moments[2].timestamp(), np.nan])
    assert by_clocks(seconds, ZONE)[0] == shown[2].astype("M8[s]").astype(float)
    assert by_clocks(seconds, "+02:00")[0] == by_clocks(seconds, ZONE)[0]
    with pytest.raises(DataError, match="time zone 'Atlantis/Nowhere' is not known"):
        by_clocks(seconds, "Atlantis/Nowhere")


def test_categories_of_polars_come_back():
    numbers = np.random.default_rng(0).normal(size=100)
    frame = pl.DataFrame(
        {"free": ["x", "y"] * 50, "sure": ["high", "low", "low", "high", "low"] * 20, "number": numbers}
    ).with_columns(pl.col("free").cast(pl.Categorical), pl.col("sure").cast(pl.Enum(["low", "high"])))
    found = density().fit(frame)
    assert [column.kind for column in found.schema_] == ["category", "ordered", "real"]
    assert found.schema_[1].categories == ("low", "high")
    assert found.sample(5).schema == frame.schema
    assert np.isfinite(found.score_samples(frame)).all()


def test_truth_values_among_objects_are_truth_values():
    cells = np.array([["a", True], ["c", False]] * 50, dtype=object)
    cells[0, 1] = None
    found = density().fit(cells)
    assert [column.kind for column in found.schema_] == ["category", "boolean"]
    assert {type(value) for value in found.sample(20)[:, 1]} <= {bool, type(None)}
    assert np.isfinite(found.score_samples(cells)).all()


@pytest.mark.parametrize("saved", [False, True])
def test_names_of_columns_come_back_as_they_came(saved, tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=[1, 0])
    found = density(columns={1: "real(-100,)"}).fit(frame)
    assert found.schema_[0].lower == -100
    if saved:
        found.save(tmp_path / "run")
        found = lk.FlowDensity.load(tmp_path / "run")
    drawn = found.sample(3)
    assert list(drawn.columns) == [1, 0]
    assert {type(name) for name in drawn.columns} == {int}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(found.score_samples(drawn)).all()
    assert (found.sample(3, given={1: 0.5})[1] == 0.5).all()


def test_columns_of_several_levels_are_refused():
    names = pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=names)
    with pytest.raises(DataError, match="several levels .* Join them"):
        density().fit(frame)


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "3"])
def test_numbers_of_draws_that_are_none_are_refused(fitted, number):
    with pytest.raises(ConfigError, match="must be 1, 2, ..., got"):
        fitted.sample(number)
    with pytest.raises(ConfigError, match="must be 1, 2, ..., got"):
        fitted.sample(number, given={"whole": pd.Timedelta("1h")})
    with pytest.raises(ConfigError, match="must be 1, 2, ..., got"):
        fitted.impute(times(), draws=number)
    assert len(fitted.sample(np.int64(2))) == 2


@pytest.mark.parametrize("factor", [1000.0, 1024.0])
def test_units_decide_neither_the_split_nor_the_density(factor):
    rows = np.random.default_rng(0).lognormal(size=(300, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
    scaled = rows * np.array([1.0, factor, 1.0])
    assert (order_of(scaled) == order_of(rows)).all()
    assert (order_of(np.log(rows)) == order_of(rows)).all()
    assert (order_of(pa.table({"x": scaled[:, 1]})) == order_of(pa.table({"x": rows[:, 1]}))).all()
    settings = TINY | {"steps": 30}
    before = density(settings=settings).fit(rows).score_samples(rows)
    after = density(settings=settings).fit(scaled).score_samples(scaled) + np.log(factor)
    np.testing.assert_allclose(after, before, atol=1e-3)


def mixed(rng, column):
    return pd.DataFrame({"c": column, "z": rng.normal(size=len(column))})


@pytest.mark.parametrize("words", [[10, 20, 30], [0.5, 1.0, 2.0]])
@pytest.mark.parametrize("ordered", [False, True])
def test_categories_that_are_numbers_come_back(words, ordered):
    rng = np.random.default_rng(0)
    column = pd.Series(pd.Categorical(rng.choice(words, 200), categories=words, ordered=ordered))
    column[::5] = None
    table = mixed(rng, column)
    fitted = lk.FlowDensity(settings={"steps": 3}, random_state=0).fit(table)
    filled = fitted.impute(table)
    assert filled["c"].notna().all()
    assert filled["c"].dtype == table["c"].dtype
    drawn = fitted.sample(200)["c"]
    assert drawn.dtype == table["c"].dtype
    assert 0.6 < drawn.notna().mean() < 1
    if not ordered:
        assert fitted.sample(3, given={"c": words[1]})["c"].tolist() == [words[1]] * 3


FORMS = {
    "pandas": lambda table: table,
    "nullable": lambda table: table.astype({"c": "UInt8"}),
    "polars": pl.from_pandas,
    "arrow": lambda table: pa.Table.from_pandas(table, preserve_index=False),
}


def typed_like(restored):
    """Return the drawn values of the column c, as real numbers."""
    column = restored["c"]
    return np.array(column.to_pylist() if hasattr(column, "to_pylist") else column.to_list(), dtype=float)


@pytest.mark.parametrize("form", FORMS)
def test_draws_that_a_narrow_type_has_no_room_for_are_what_they_are(form):
    schema = (ColumnSchema(name="c", kind="integer", rest="steps", step=1.0), ColumnSchema(name="z"))
    table = FORMS[form](pd.DataFrame({"c": np.arange(100, dtype=np.uint8), "z": np.zeros(100)}))
    rows = np.array([[3.0, 0.0], [258.0, 0.0], [-7.0, 0.0]])
    restored = form_of(table).restored(rows, schema)
    assert typed_like(restored).tolist() == [3.0, 258.0, -7.0]
    assert "8" in str(form_of(table).restored(rows[:1], schema)["c"].dtype if form != "arrow" else "int8")
    lacking = pd.DataFrame({"c": pd.array([1, None, 3], dtype="UInt8"), "z": [0.0, 0.0, 0.0]})
    if form == "pandas":
        return
    data = FORMS[form](lacking)
    missing = np.array([[False, False], [True, False], [False, False]])
    filled = form_of(data).filled(data, rows, missing, schema)
    assert typed_like(filled).tolist() == [1.0, 258.0, 3.0]


def test_arrays_of_narrow_types_stay_wide_where_draws_are():
    form = form_of(np.zeros((4, 2), dtype=np.uint8))
    schema = tuple(ColumnSchema(name=name) for name in "ab")
    assert form.restored(np.array([[3.0, 255.0]]), schema).dtype == np.uint8
    assert form.restored(np.array([[3.0, 256.0]]), schema).tolist() == [[3.0, 256.0]]


def test_views_of_words_are_imputed():
    words = pa.array([None, "x", "y"] * 40, pa.string_view())
    table = pa.table({"c": words, "z": np.random.default_rng(0).normal(size=120)})
    filled = lk.FlowDensity(settings={"steps": 3}, random_state=0).fit(table).impute(table)
    assert set(filled["c"].to_pylist()) == {"x", "y"}


def test_columns_that_are_called_by_numbers_are_found_by_them():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({2020: rng.normal(size=80), 2021: 100 * rng.normal(size=80)})
    fitted = lk.FlowDensity(settings={"steps": 3}, random_state=0).fit(table)
    np.testing.assert_array_equal(fitted.score_samples(table[[2021, 2020]]), fitted.score_samples(table))
    with pytest.raises(ValueError, match="called 1, 2021, and those of the table that was fitted 2020, 2021"):
        fitted.score_samples(table.rename(columns={2020: 1}))


def test_settings_that_are_no_settings_and_columns_that_cannot_be_read_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="settings are names with values"):
        lk.FlowDensity(settings=3).fit(rng.normal(size=(50, 2)))
    column = pd.Series([1, "b"] * 30, dtype=object)
    with pytest.raises(DataError, match="The column 'c' of the data frame .object. holds several types"):
        lk.FlowDensity().fit(mixed(rng, column))
    sparse = pd.Series(pd.arrays.SparseArray([0.0, 1.0] * 30))
    with pytest.raises(DataError, match="The column 'c' of the data frame.*to_dense"):
        lk.FlowDensity().fit(mixed(rng, sparse))
    with pytest.raises(DataError, match="The column 'c' of the table is of the type extension"):
        lk.FlowDensity().fit(mixed(rng, pd.period_range("2020", periods=60, freq="D")))


@pytest.mark.parametrize("form", ["pandas", "polars", "arrow"])
def test_text_stays_text_as_the_data_write_it(form):
    random, count = np.random.default_rng(0), 60
    days = np.datetime64("2020-01-01") + random.integers(0, 500, count)
    frame = pd.DataFrame(
        {
            "day": [f"{day.item():%d.%m.%Y}" for day in days],
            "clock": [f"{hour:02d}:{minute:02d}" for hour, minute in random.integers((6, 0), (20, 60), (count, 2))],
            "flag": random.choice(["TRUE", "FALSE"], count),
            "price": [f"{value:.2f}" for value in random.normal(5, 1, count)],
            "comma": [f"{value:.2f}".replace(".", ",") for value in random.normal(500, 100, count)],
            "code": [int(f"{day.item():%Y%m%d}") for day in days[::-1]],
            "size": random.normal(size=count),
        }
    )
    as_form = {"pandas": pd.DataFrame, "polars": pl.from_pandas, "arrow": pa.Table.from_pandas}[form]
    fitted = density(columns={"code": "date[%Y%m%d]"}).fit(as_form(frame))
    drawn = fitted.sample(5)
    cells = drawn.to_pylist() if form == "arrow" else drawn.to_dicts() if form == "polars" else drawn.to_dict("records")
    patterns = {
        "day": r"\d\d\.\d\d\.20\d\d",
        "clock": r"\d\d:\d\d",
        "flag": "TRUE|FALSE",
        "price": r"-?\d+\.\d\d",
        "comma": r"-?\d+,\d\d",
    }
    for row in cells:
        assert all(re.fullmatch(pattern, row[name]) for name, pattern in patterns.items()), row
        assert 20190101 < row["code"] < 20231231
    assert fitted.score_samples(drawn).shape == (5,)


def test_columns_that_cannot_be_read_can_be_left_out():
    frame = pd.DataFrame({"a": np.arange(40.0) ** 1.1, "b": np.sin(np.arange(40)), "group": pd.cut(np.arange(40), 4)})
    with pytest.raises(DataError, match="leave it out"):
        density().fit(frame)
    assert density(drop=["group"]).fit(frame).score_samples(frame).shape == (40,)
    assert density(columns=["a", "b"]).fit(frame).score_samples(frame).shape == (40,)
