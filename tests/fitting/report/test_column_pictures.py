"""Pictures of columns in reports: what they show of odd values."""

import numpy as np
import pytest
import torch

from likelify.fitting.report.column_pictures import Pair, _places, marginal, points
from likelify.fitting.report.sections.columns import _lines, _marginals
from likelify.fitting.report.sections.latents import MOST, _flat
from likelify.fitting.report.showing import sequence_range
from likelify.schema import ColumnSchema

DAYS = ColumnSchema(name="until", kind="date", unit="day")
WORDS = ColumnSchema.category("town", ("Rome", "Oslo", "Bern"))


def pair(column, real, drawn):
    return Pair(column, column.name, np.asarray(real, dtype=float), np.asarray(drawn, dtype=float))


def test_the_last_day_of_the_calendar_is_drawn():
    last = 2_932_896.0
    days = np.concatenate([np.arange(19_000.0, 19_070.0), np.full(30, last)])
    until = pair(DAYS, days, days)
    numbers = pair(ColumnSchema(name="b"), np.linspace(0, 1, 100), np.linspace(0, 1, 100))
    assert marginal(until, "until", "")
    assert points(until, numbers, "real", "both")
    repeated = pair(DAYS, [last, 19_000.0] * 50, [last, 19_000.0] * 50)
    assert marginal(repeated, "repeated", "")


def test_words_of_two_columns_have_jitter_of_their_own():
    rng = np.random.default_rng(0)
    columns = [pair(WORDS, rng.integers(0, 3, 600), rng.integers(0, 3, 600)) for _ in range(2)]
    apart = [_places(each, "real", axis) - np.rint(_places(each, "real", axis)) for axis, each in enumerate(columns)]
    assert abs(np.corrcoef(apart)[0, 1]) < 0.15


def test_a_column_without_values_differs_most():
    good = pair(ColumnSchema(name="a"), np.arange(50.0), np.arange(50.0))
    lost = pair(ColumnSchema(name="b"), np.arange(50.0), np.full(50, np.nan))
    cards = _marginals([good, lost], np.array([1.0, np.nan]))[0].cards
    assert [card.lines[0] for card in cards] == ["D = 0.000", "no drawn values"]
    assert _lines(lost, 1.0)[1] == "missing 0.0% real, 100.0% drawn"


def test_latents_are_looked_at_wherever_they_are():
    z = torch.zeros(2000, 400)
    z[:, 1::2] = 1000.0
    assert z.numel() > MOST
    assert float((_flat(z) > 500).mean()) == pytest.approx(0.5, abs=0.01)


def test_sequences_that_are_not_finite_have_a_range():
    assert sequence_range(torch.tensor([[1.0, torch.inf, 3.0, torch.nan]])) == (1.0, 3.0)
    assert sequence_range(torch.full((2, 3), torch.nan)) == (0.0, 1.0)
