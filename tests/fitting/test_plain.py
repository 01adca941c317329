import numpy as np
import pandas as pd
import pytest

from likelify.data import as_source
from likelify.errors import ConfigError
from likelify.fitting.plain import require_plain
from likelify.schema import all_plain, mixed_in, real_columns

RNG = np.random.default_rng(0)
PLAIN = pd.DataFrame({"x": RNG.normal(size=50), "n": RNG.integers(0, 5, 50), "ok": RNG.integers(0, 2, 50) == 1})


def test_numbers_and_truth_values_are_plain():
    schema = as_source(PLAIN).schema
    assert not any(map(mixed_in, schema))
    assert not all_plain(schema)
    assert all_plain(real_columns(2))
    require_plain("glow", schema, ["table-flow"])


def test_what_models_of_real_numbers_cannot_take_is_named_with_those_that_can():
    frame = PLAIN.assign(word=["a", "b"] * 25, city=["c", "d"] * 25, one=1, part=[None, 2.5] * 25, age=PLAIN["x"] + 1)
    frame["age"] += RNG.normal(size=50)
    schema = as_source(frame, given="age").schema
    assert not all_plain(real_columns(1) + schema[-1:])
    with pytest.raises(ConfigError) as caught:
        require_plain("flat", schema, ["table-flow", "table-coupling"])
    assert str(caught.value) == (
        "The model 'flat' is of real numbers, and the table has columns of words ('word', 'city'); that follow from "
        "others, or have one value only ('one'); with missing values ('part'); that are conditions ('age'). Such "
        "tables are for table-flow or table-coupling; or leave the columns out (--drop)."
    )
