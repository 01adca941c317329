"""Tables for the tests of the estimator, and the least effort of a fit."""

import numpy as np
import pandas as pd

import likelify as lk

TINY = {"steps": 2, "validations": 1, "members": ["autoregressive"], "width": 8, "components": 2}


def density(**parameters):
    return lk.FlowDensity(**{"random_state": 0, "settings": TINY} | parameters)


def blobs(count=60, columns=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, columns)) + 3 * generator.integers(0, 2, size=(count, 1))


def people(count=200, seed=0):
    """A mixed table: numbers, whole numbers, words, truth values, dates, missing values."""
    generator = np.random.default_rng(seed)
    age = generator.integers(18, 90, count)
    income = np.exp(generator.normal(10, 0.5, count) + age / 100).round(2)
    income[generator.random(count) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "income": income,
            "home town": generator.choice(["Bern", "Basel", "Chur"], count, p=[0.5, 0.3, 0.2]),
            "member": generator.random(count) < 0.3,
            "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(generator.integers(0, 1000, count), unit="D"),
        }
    )
