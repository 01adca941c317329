"""Cells: their names, their order in an experiment, and how their settings are completed."""

import json

import pytest

from likelify.errors import ConfigError
from likelify.fitting.sources import open_data, public_facts
from likelify.reproduce.catalog import experiment as committed
from likelify.reproduce.cell import Cell, changes, slug
from likelify.reproduce.experiment import most_hours
from tests.reproduce.trial import METHODS, experiment


def test_cells_of_a_seed_stay_together_and_settle():
    cells = experiment().cells(seeds=2)
    assert [cell.seed for cell in cells] == [0, 0, 1, 1]
    assert [cell.picture for cell in cells] == [None, "inverses", None, None]
    facts = public_facts(open_data(cells[0].data), cells[0].data)
    assert facts.name == "digits"
    epochs = cells[0].model_copy(update={"epochs": 3})
    assert epochs.settle(facts)["fit"]["steps"] == 3 * (200 // 32)
    timed = experiment(fit={}, budget=60.0).within(5.0).cells()[0].settle(facts)["fit"]
    assert timed["max_time"] == 5.0
    assert timed["steps"] > 10**6
    assert Cell.parse(json.loads(cells[1].model_dump_json())).settle(facts) == cells[1].settle(facts)
    assert experiment(budget=60.0).within(5.0).folder == "trial-quick-5s"
    assert experiment(budget=60.0).within(5.0).caveat.startswith("Every fit has 5 s here")
    assert most_hours(experiment(budget=60.0).cells(), 2) == pytest.approx(4 * (120 + 6) / 2 / 3600)
    assert most_hours(cells, 2) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: experiment().cells(seeds=0), "seeds must be at least 1"),
        (lambda: experiment().within(0.0), "budget must be longer"),
        (lambda: experiment(methods=(METHODS[1], METHODS[1])).cells(), "share a name"),
        (lambda: slug("+"), "no letters or digits"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def test_changes_name_both_values():
    assert changes({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 3, "z": 0}}) == ["a.y 2 -> 3", "a.z nothing -> 0"]


def test_a_trial_of_a_table_takes_a_minute_or_two():
    minutes = 60 * most_hours(committed("flowification-images", "quick").cells(), 2)
    assert 1 < minutes < 2
