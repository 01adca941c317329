"""Numbers of narrow types, weights that are fractions, fits that do not end: what the estimator makes of them."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from likelify.data.values import widened
from tests.fitting.estimator.tables import blobs, density

pytestmark = pytest.mark.filterwarnings("ignore::likelify.errors.LikelifyWarning")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_narrow_numbers_are_the_decimals_that_they_were_written_as(dtype):
    written = np.array([0.1, -0.3, 2.5, 1e-4, 7.0, 12.25, 0.0, np.nan, np.inf, -np.inf])
    found = widened(written.astype(dtype))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, written)
    any_ = np.random.default_rng(0).normal(size=1000).astype(dtype)
    assert np.array_equal(widened(any_).astype(dtype), any_)
    shortest = [float(str(value)) for value in any_]
    np.testing.assert_allclose(widened(any_), shortest, rtol=1e-15)


def test_scores_do_not_depend_on_the_precision_that_a_table_is_kept_in():
    numbers = np.random.default_rng(0)
    a = np.where(numbers.random(200) < 0.4, 0.1, numbers.normal(size=200).round(3))
    frame = pd.DataFrame({"a": a, "b": numbers.random(200).round(4) * 0.1})
    fitted = density(columns={"b": "real[0,0.1]"}).fit(frame)
    expected = fitted.score_samples(frame)
    np.testing.assert_array_equal(fitted.score_samples(frame.astype("float32")), expected)
    rows = frame.to_numpy()
    array = density(columns={1: "real[0,0.1]"}).fit(rows.astype(np.float32))
    np.testing.assert_array_equal(array.score_samples(rows), array.score_samples(rows.astype(np.float32)))
    assert np.isfinite(array.score_samples(np.array([[0.1, 0.1]], dtype=np.float32))).all()


def test_imputed_numbers_do_not_wrap_round():
    numbers = np.random.default_rng(0)
    rows = np.clip(np.rint(numbers.normal(120, 6, (200, 2))), 100, 127).astype(np.int8)
    rows[:5, 0] = -1
    fitted = density(missing=[-1]).fit(rows)
    drawn = fitted.impute(rows, draws=20, random_state=0)
    assert min(float(each.min()) for each in drawn) > 60


def test_held_out_rows_count_as_much_as_they_weigh():
    numbers = np.random.default_rng(0)
    rows = np.concatenate([numbers.normal(0, 1, (400, 1)), numbers.normal(30, 1, (100, 1))])
    # The far ones are nine tenths of what is fitted.
    weights = np.where(np.arange(500) < 400, 0.1 / 400, 0.9 / 100)
    fitted = density(validation=0.5).fit(rows, sample_weight=weights)
    new = np.concatenate([numbers.normal(0, 1, (100, 1)), numbers.normal(30, 1, (900, 1))])
    p = fitted.p_values(new)
    for share in (0.05, 0.2, 0.5):
        assert (p <= share).mean() < share + 0.1


def test_an_interruption_reaches_the_caller_and_what_was_fitted_is_kept(monkeypatch):
    def stop(progress):
        if progress.step >= 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("likelify.fitting.estimator.density.tell", lambda: stop)
    estimator = density(settings={"steps": 50, "validations": 10}, verbose=1)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(blobs())
    assert estimator.course_.reason == "interrupted"
    assert np.isfinite(estimator.score_samples(blobs(5))).all()


def test_after_a_fit_that_failed_there_is_no_fitted_estimator():
    estimator = density(columns={0: "no such kind"})
    with pytest.raises(ValueError, match="no such kind"):
        estimator.fit(blobs())
    with pytest.raises(NotFittedError):
        estimator.score_samples(blobs())


def test_numbers_of_numpy_are_numbers():
    rows = blobs()
    fitted = density(contamination=np.float32(0.2), validation=np.float32(0.2), trim=np.float32(0.1)).fit(rows)
    assert 0.1 < (fitted.predict(rows) < 0).mean() < 0.3
    fitted = density(time_budget=np.int64(100), drop=1).fit(rows)
    assert len(fitted.schema_) == rows.shape[1] - 1
