"""Types of columns that come back as they were: lengths of time, time zones, categories, truth values, names."""

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
from likelify.fitting.estimator.forms import order_of
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
