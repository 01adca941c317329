import pytest

from likelify.data.published import published_facts
from likelify.errors import DataError
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Cell, Measuring
from likelify.reproduce.experiment import DataSet, Method
from likelify.reproduce.planning import _facts, estimates
from tests.reproduce.trial import TINY, experiment


def test_sets_that_the_user_does_not_have_are_planned_by_what_was_published():
    assert _facts(DataChoice(source="cifar-10")) == published_facts("cifar-10")
    limited = _facts(DataChoice(source="mnist", limits={"train": 300, "test": 20_000}))
    assert limited.sizes == {"train": 300, "validation": 5_000, "test": 10_000}
    data = (DataSet("MNIST", DataChoice(source="mnist"), from_files=True),)
    cell = experiment(data=data, methods=(Method("Splines", TINY),), baseline="Splines").cells()[0]
    assert isinstance(cell, Cell)
    (estimate,) = estimates([cell])
    assert estimate.measured
    assert estimate.steps == 4


def test_a_limit_on_time_ends_what_is_planned_by_a_step():
    unlimited = Measuring(iw_samples=0, seconds=None)
    trial = experiment(fit={"steps": 10**6, "batch_size": 32}, measuring=unlimited)
    (whole,), (short,) = (list(estimates(e.cells(seeds=1)[:1])) for e in (trial, trial.within(36.0)))
    assert (whole.steps, short.steps) == (10**6, None)
    assert 0.01 <= short.hours < 0.1 < whole.hours


def test_data_of_which_nothing_is_known_are_missed():
    with pytest.raises(DataError, match="nowhere"):
        _facts(DataChoice(source="mnist:nowhere"))
