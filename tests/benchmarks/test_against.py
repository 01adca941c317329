"""The comparison with another checkout."""

from pathlib import Path

import pytest

from benchmarks import against


@pytest.mark.parametrize("name", ["rotation of 64", "32 small layers of vectors"])
def test_steps_train_every_parameter_of_what_they_name(name, monkeypatch):
    flow, x = against.STEPS[name]()
    monkeypatch.setitem(against.STEPS, name, lambda: (flow, x))
    against.step(name)()
    assert flow.likelihood == "exact"
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_both_trees_are_asked_in_turn():
    here = Path(__file__).parents[2]
    with against.start(here) as ours, against.start(here) as other:
        found = against.ratios(ours, other, "rotation of 64", turns=3)
    assert len(found) == 3
    assert all(0 < ratio < 100 for ratio in found)


def test_the_interval_holds_the_median():
    low, high = against.interval([1.0, 1.1, 0.9, 1.0, 1.05])
    assert 0.9 <= low <= 1.0 <= high <= 1.1
