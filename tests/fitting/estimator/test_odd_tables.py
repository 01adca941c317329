"""Tables as users of pandas, polars and numpy have them: masks, zones, names with blanks, words for missing values."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pytest

import likelify as lk
from likelify.errors import DataError
from tests.fitting.estimator.tables import density

pytestmark = pytest.mark.filterwarnings("ignore:The fit never beat its start")
RNG = np.random.default_rng(0)


def loaded(fitted, folder):
    fitted.save(folder / "run")
    return lk.FlowDensity.load(folder / "run")


def test_masked_values_are_missing():
    rows = RNG.normal(size=(60, 2))
    masked = np.ma.array(np.where(np.arange(60)[:, None] % 5 == [0, 9], 1e6, rows))
    masked.mask = np.zeros((60, 2), dtype=bool)
    masked.mask[::5, 0] = True
    fitted = density().fit(masked)
    assert [column.missing for column in fitted.schema_] == [True, False]
    assert fitted.schema_[0].seen[1] < 10
    filled = fitted.impute(masked)
    assert np.isfinite(filled).all()
    assert np.abs(filled[::5, 0]).max() < 100


@pytest.mark.parametrize("word", ["NA", ""])
@pytest.mark.parametrize("form", [pd.DataFrame, lambda columns: np.array([*columns.values()], dtype=object).T])
def test_words_for_missing_values_are_filled_in(word, form):
    words = np.where(np.arange(60) % 6 == 0, word, np.where(RNG.random(60) < 0.5, "a", "b"))
    rows = form({"x": RNG.normal(size=60), "w": words.astype(object)})
    filled = density().fit(rows).impute(rows)
    column = filled["w"].tolist() if isinstance(filled, pd.DataFrame) else filled[:, 1].tolist()
    assert set(column) == {"a", "b"}


def test_moments_of_numpy_are_dates():
    days = np.datetime64("2024-01-01") + RNG.integers(0, 300, 60)
    days[3] = np.datetime64("NaT")
    arrays = np.stack([days, days[::-1]], 1), np.stack([days.astype(object), RNG.normal(size=60)], 1)
    for rows in arrays:
        fitted = density().fit(rows)
        assert (fitted.schema_[0].kind, fitted.schema_[0].missing) == ("date", True)
        assert fitted.sample(4, random_state=0).dtype == object


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame])
def test_names_keep_their_blanks(form, tmp_path):
    rows = form({" a": RNG.normal(size=60), "b ": np.where(np.arange(60) % 7 == 0, np.nan, RNG.normal(size=60))})
    fitted = density().fit(rows)
    for each in (fitted, loaded(fitted, tmp_path)):
        assert list(each.sample(3, random_state=0).columns) == [" a", "b "]
        assert list(each.impute(rows).columns) == [" a", "b "]
        assert list(each.blame(rows).columns) == [" a", "b "]
        assert float(np.ptp(np.asarray(each.sample(5, given={" a": 0.5}, random_state=0))[:, 0])) == 0.0


def test_zones_and_decimals_of_polars_outlive_a_run(tmp_path):
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    times = pl.Series([start + datetime.timedelta(hours=int(h)) for h in RNG.integers(0, 5000, 60)])
    rows = pl.DataFrame(
        {
            "t": times.dt.convert_time_zone("Asia/Tokyo"),
            "d": pl.Series([f"{value:.2f}" for value in RNG.normal(50, 5, 60)]).cast(pl.Decimal(10, 2)),
        }
    )
    fitted = density().fit(rows)
    before = fitted.sample(5, random_state=1)
    after = loaded(fitted, tmp_path).sample(5, random_state=1)
    assert before["t"].dtype.time_zone == "Asia/Tokyo"
    assert [moment.timestamp() for moment in before["t"]] == [
        moment.replace(tzinfo=moment.tzinfo or before["t"][0].tzinfo).timestamp() for moment in after["t"]
    ]
    assert [float(value) for value in before["d"]] == pytest.approx([float(value) for value in after["d"]], abs=0.006)


@pytest.mark.filterwarnings("ignore:.*lies outside of")
@pytest.mark.parametrize("form", [np.asarray, lambda rows: pd.DataFrame(rows, columns=["column 1", "b"])])
def test_draws_are_not_cut_to_whole_numbers(form):
    rows = RNG.normal(50, 5, (60, 2))
    whole = rows.round().astype(int)
    whole[::4, 0] = -999
    drawn = np.asarray(density(missing=[-999]).fit(form(rows)).impute(form(whole)))[:, 0]
    assert (drawn[::4] != np.rint(drawn[::4])).any()
    assert np.array_equal(np.delete(drawn, np.s_[::4]), np.delete(whole[:, 0], np.s_[::4]))


@pytest.mark.parametrize("column", [pd.cut(RNG.normal(size=60), 3), pd.period_range("2020-01", periods=60, freq="M")])
def test_columns_of_no_known_type_are_refused_in_words(column):
    rows = pd.DataFrame({"x": RNG.normal(size=60), "c": column})
    with pytest.raises(DataError, match=r"neither numbers, words nor dates.*astype\(str\)"):
        density().fit(rows)
