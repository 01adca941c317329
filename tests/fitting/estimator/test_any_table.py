"""Whatever table comes, there is a density of its rows or an error in words: never a crash, and never NaN."""

import datetime
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from likelify.errors import LikelifyError
from tests.fitting.estimator.tables import TINY, density

DAY = datetime.date(1999, 12, 25)
# What makes a column: a function of the number of rows and a generator.
KINDS = {
    "normal": lambda n, g: g.normal(size=n),
    "tiny": lambda n, g: 1e-140 * g.normal(size=n),
    "huge": lambda n, g: 1e140 * g.normal(size=n),
    "cauchy": lambda n, g: g.standard_cauchy(n),
    "far": lambda n, g: 1.7e9 + 1e-3 * g.normal(size=n),
    "outlier": lambda n, g: np.r_[g.normal(size=n - 1), 1e30],
    "zeros": lambda n, g: np.where(g.random(n) < 0.7, 0.0, g.exponential(size=n)),
    "signed zeros": lambda n, g: g.choice([0.0, -0.0, 1.0], n),
    "caps": lambda n, g: np.clip(g.normal(size=n), -1, 1),
    "constant": lambda n, g: np.full(n, 3.5),
    "two values": lambda n, g: g.choice([-1.5, 2.5], n),
    "rounded": lambda n, g: g.normal(size=n).round(1),
    "counts": lambda n, g: g.poisson(3, n),
    "many counts": lambda n, g: g.poisson(3000, n),
    "large integers": lambda n, g: g.integers(-(2**62), 2**62, n),
    "small integers": lambda n, g: g.integers(0, 2, n).astype(np.int8),
    "truth": lambda n, g: g.random(n) < 0.5,
    "words": lambda n, g: g.choice(["a", "b", "ä ö\n", "NA", ""], n),
    "one word": lambda n, g: np.full(n, "same"),
    "ids": lambda n, g: np.array([f"id {number}" for number in range(n)]),
    "days": lambda n, g: np.array([DAY + datetime.timedelta(int(k)) for k in g.integers(0, 400, n)], dtype=object),
    "moments": lambda n, g: pd.to_datetime("2020-02-29T12:00:00") + pd.to_timedelta(g.integers(0, 9**9, n), unit="s"),
    "nothing": lambda n, g: np.full(n, np.nan),
    "infinite": lambda n, g: np.r_[g.normal(size=n - 1), np.inf],
    "copy": None,
    "sum": None,
}


@st.composite
def tables(draw):
    """A table of some columns of any kinds, with any share of values missing, in one of three forms."""
    count = draw(st.integers(10, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    columns = {}
    for place, kind in enumerate(kinds):
        make = KINDS[kind]
        numbers = [np.asarray(c, dtype=float) for c in columns.values() if np.asarray(c).dtype.kind in "iuf"]
        if make is None:
            values = (
                sum(numbers) if kind == "sum" and numbers else numbers[0] if numbers else generator.normal(size=count)
            )
        else:
            values = make(count, generator)
        columns[f"{kind} {place}"] = values
    frame = pd.DataFrame(columns)
    for name in frame:
        share = draw(st.sampled_from([0.0, 0.0, 0.1, 0.9]))
        if share:
            frame[name] = frame[name].astype(object).where(generator.random(count) > share, None)
            frame[name] = frame[name].infer_objects()
    return frame


def look_at(frame, form):
    """Fit a table and ask everything of the estimator; return why it was refused, or None if it was not."""
    if form == "polars":
        frame = pl.from_pandas(frame, nan_to_null=True)
    elif form == "array":
        frame = frame.to_numpy(dtype=object)
    fresh = density(drop="auto" if form != "array" else None, settings=TINY | {"steps": 1})
    refusal = None
    try:
        fresh.fit(frame)
    except (LikelifyError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        assert len(refusal) > 20
        assert "object at 0x" not in refusal
        return refusal
    scores = fresh.score_samples(frame)
    assert np.isfinite(scores).all()
    assert np.isfinite(fresh.decision_function(frame)).all()
    assert np.isfinite(fresh.transform(frame)).all()
    drawn = fresh.sample(7, random_state=0)
    assert len(drawn) == 7
    numbers = fresh._fitted.sample(7, 0)
    assert not np.isinf(numbers).any()
    never = [not column.missing and column.is_modelled for column in fresh.schema_]
    assert not np.isnan(numbers[:, never]).any()
    assert len(fresh.impute(frame)) == len(frame)
    return None


def looked_at(frame, form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return look_at(frame, form)


FORMS = st.sampled_from(["pandas", "polars", "array"])


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables(), FORMS)
def test_any_table_has_a_density_or_an_error_in_words(frame, form):
    looked_at(frame, form)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tables(), FORMS)
def test_500_tables_have_densities_or_errors_in_words(frame, form):
    looked_at(frame, form)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"infinite", "nothing", "ids", "copy", "sum", "outlier"}))
def test_tables_of_all_kinds_that_can_be_modelled_are(kind):
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"x": generator.normal(size=60), kind: KINDS[kind](60, generator)})
    assert not looked_at(frame, "pandas")
