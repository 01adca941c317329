import pytest

from likelify.data.published import published_facts
from likelify.errors import DataError
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Cell
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


def test_data_of_which_nothing_is_known_are_missed():
    with pytest.raises(DataError, match="nowhere"):
        _facts(DataChoice(source="mnist:nowhere"))
