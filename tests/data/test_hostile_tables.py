"""Tables of anything: what cannot be fitted is refused in words, the rest is read, scored and written back."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likelify.data import SourceOptions, as_source, open_items, open_source
from likelify.data.encoding import decode, encode
from likelify.errors import LikelifyError, LikelifyWarning

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6)
SCALARS = {
    "real": st.floats(allow_nan=True, allow_infinity=True),
    "small": st.integers(-3, 3),
    "whole": st.integers(-(2**60), 2**60),
    "flag": st.booleans(),
    "word": st.sampled_from(["a", "b", "", "NA", "NaN", "?", '"', "1,5", "2020-01-01", "true", " x ", "=1", "12:30"]),
    "text": WORDS,
    "day": st.dates(datetime.date(1, 1, 1), datetime.date(9999, 12, 31)).map(str),
    "moment": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)),
    "mixed": st.one_of(st.floats(), st.integers(), WORDS, st.none(), st.booleans()),
}


@st.composite
def frames(draw):
    """Return a data frame of a few columns of any kind, with missing values, constants and copies."""
    rows = draw(st.integers(1, 40))
    columns = {}
    for number in range(draw(st.integers(1, 4))):
        name = draw(st.one_of(st.sampled_from(["a", "id", "x=y", "a,b", ""]), WORDS)) or f"n{number}"
        values = SCALARS[draw(st.sampled_from(sorted(SCALARS)))]
        values = values if draw(st.booleans()) else st.one_of(values, st.none())
        columns[name] = draw(st.lists(values, min_size=rows, max_size=rows))
    if draw(st.booleans()):
        columns["copy"] = columns[draw(st.sampled_from(sorted(columns)))]
    frame = pd.DataFrame(columns)
    return pd.concat([frame] * draw(st.sampled_from([1, 5])), ignore_index=True)


OPTIONS = st.sampled_from(
    [
        {},
        {"drop": "auto"},
        {"drop": "auto", "dependent": "function"},
        {"dependent": "drop"},
        {"columns": {"a": "category", "id": "real"}, "dependent": "function"},
    ]
)


def read(what, options):
    """Read data as a fit does and as scoring does, and write them back."""
    try:
        source = open_source(what, SourceOptions(**options)) if isinstance(what, str) else as_source(what, **options)
    except LikelifyError:
        return
    facts = source.facts()
    assert type(facts).parse(facts.model_dump(mode="json")) == facts
    items = open_items(what, facts)
    rows = np.concatenate([batch.batch.x.numpy() for batch in items.batches(7)])
    assert rows.shape == (sum(facts.sizes.values()), len(facts.schema))
    assert not np.isinf(rows).any()
    for column, values in zip(facts.schema, rows.T, strict=True):
        present = values[~np.isnan(values)]
        assert column.rest != "none" or column.function is not None or np.isin(present, column.states).all()
        assert not column.declared or ((present >= column.range[0]) & (present <= column.range[1])).all()
    back = encode(decode(rows, facts.schema), facts.schema)
    for column, (values, again) in zip(facts.schema, zip(rows.T, back.T, strict=True), strict=True):
        if column.kind != "real":
            np.testing.assert_array_equal(values, again, err_msg=column.name)


@settings(max_examples=40, deadline=None)
@given(frames(), OPTIONS)
def test_frames_of_anything_are_read_or_refused_in_words(frame, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LikelifyWarning)
        read(frame, options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@settings(max_examples=40, deadline=None)
@given(frames(), OPTIONS)
def test_files_of_anything_are_read_or_refused_in_words(folder, frame, options):
    path = folder / "a.csv"
    frame.to_csv(path, index=False, lineterminator="\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LikelifyWarning)
        read(str(path), options)


@settings(max_examples=20, deadline=None)
@given(frames(), OPTIONS)
def test_arrays_of_objects_are_read_or_refused_in_words(frame, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LikelifyWarning)
        read(frame.to_numpy(dtype=object), {name: value for name, value in options.items() if name != "columns"})
