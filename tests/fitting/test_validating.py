"""How many items validations look at in a fit that has a limit on time; the clock is one of the tests."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import likelify as lk
from likelify.data import ArraySource, table, weighted
from likelify.errors import DataError, LikelifyWarning
from likelify.fitting import validating
from likelify.fitting.loop import fit
from likelify.fitting.process import OneProcess
from likelify.fitting.run import Run
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.fitting.validating import Validation
from tests.fitting.toys import QUICK, stripes, tiny_config, tiny_flow

# A validation may take a second.
TIMED = QUICK.model_copy(update={"max_time": 8.0, "validations": 4})


class Clock:
    """Time that goes on by so many seconds with each item that is validated."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds, self.looked_at = 0.0, seconds, []
        measure = validating.log_likelihoods

        def slowly(flow, batch, context, *, samples):
            self.now += self.seconds * len(batch)
            self.looked_at.append(len(batch))
            return measure(flow, batch, context, samples=samples)

        monkeypatch.setattr(validating, "log_likelihoods", slowly)

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Four batches of the 60 items, one draw of each."""
    for name, value in {"BATCH": 16, "VALUES": 60, "FEWEST": 10}.items():
        monkeypatch.setattr(validating, name, value)


def validation(settings, clock, place=None):
    return Validation(stripes(), settings, place or OneProcess("cpu"), conditional=False, clock=clock)


def test_the_first_validation_finds_how_many_items_have_the_time(monkeypatch):
    flow, clock = tiny_flow(), Clock(monkeypatch, 3 / 128)
    timed = validation(TIMED, clock)
    first = timed.figures(flow)
    # Three batches took 1.125 seconds, so that 42 items have a second.
    assert (timed.size, timed.items) == (42, 42)
    assert clock.looked_at == [16, 16, 16, 16, 16, 10]
    clock.seconds = 0.0
    assert timed.figures(flow) == first
    by_name = TIMED.model_copy(update={"validation_items": 42})
    assert validation(by_name, clock).figures(flow) == first


def test_a_few_items_are_looked_at_in_any_case(monkeypatch):
    timed = validation(TIMED, Clock(monkeypatch, 10.0))
    timed.figures(tiny_flow())
    assert timed.items == 10


def test_where_all_items_have_the_time_a_limit_changes_nothing(monkeypatch):
    flow, clock = tiny_flow(), Clock(monkeypatch, 0.016)
    timed = validation(TIMED, clock)
    assert timed.figures(flow) == validation(QUICK, clock).figures(flow)
    assert (timed.size, timed.items) == (60, None)
    # Later ones are as the first one, however long they take.
    clock.seconds = 1.0
    timed.figures(flow)
    assert timed.size == 60


@pytest.mark.parametrize("changed", [{"validation_items": 50}, {"max_time": None}])
def test_items_that_the_user_wants_are_looked_at_however_long_it_takes(monkeypatch, changed):
    settings, clock = TIMED.model_copy(update=changed), Clock(monkeypatch, 10.0)
    timed = validation(settings, clock)
    timed.figures(tiny_flow())
    assert timed.items is None
    assert sum(clock.looked_at) == changed.get("validation_items", 60)


class OneOfTwo(OneProcess):
    """A process whose other one is a thread."""

    count = 2

    def __init__(self, rank, said, barrier):
        super().__init__("cpu")
        self.rank, self.said, self.barrier = rank, said, barrier

    def gather(self, value):
        self.said[self.rank] = value
        self.barrier.wait(20)
        found = list(self.said)
        self.barrier.wait(20)
        return found


def test_processes_of_other_speeds_look_at_the_same_items(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(100, 2))
    source = ArraySource("rows", {split: rows for split in ("train", "validation", "test")}, kind="table", levels=None)
    monkeypatch.setattr(validating, "ROWS", 20)
    said, barrier, flow = [None, None], threading.Barrier(2), lk.Flow(lk.Normal(2), lk.ActNorm(2))
    clocks = [iter(np.arange(0.0, 1e6, step)) for step in (0.25, 1.25)]

    def run(rank):
        timed = Validation(source, TIMED, OneOfTwo(rank, said, barrier), conditional=False, clock=clocks[rank].__next__)
        return timed.figures(flow), timed.size

    with ThreadPoolExecutor(2) as threads:
        (first, size), (second, other) = threads.map(run, range(2))
    # When the second has looked at 20 rows, in 1.25 seconds, the first has looked at all of its 60.
    assert size == other == int(80 / 1.25)
    assert first == second
    alone = Validation(source, FitSettings(validation_items=size), OneProcess("cpu"), conditional=False)
    assert alone.figures(flow) == first


def test_a_fit_that_goes_on_looks_at_as_many_items_as_it_began_with(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, 3 / 128)
    monkeypatch.setattr(time, "process_time", clock)
    settings = TIMED.model_copy(update={"steps": 4, "clock": "processor", "checkpoint_seconds": 0.0})
    run = Run.create(tmp_path / "run", RunConfig(data=stripes().facts(), model=tiny_config(), fit=settings))

    def interrupt(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.warns(LikelifyWarning, match="best on the first 42 items of the validation split"):
        assert fit(tiny_flow(), stripes(), run=run, on_step=interrupt).validation_items == 42
    assert run.saved().facts.position.validation_items == 42
    clock.seconds, clock.looked_at = 0.0, []
    with pytest.warns(LikelifyWarning, match="best on the first 42 items"):
        course = run.resume(stripes())
    assert course.validation_items == run.course().validation_items == 42
    assert set(clock.looked_at) == {16, 10}


def test_items_that_weigh_nothing_validate_nothing():
    source = table(np.random.default_rng(0).normal(size=(60, 2)))
    weights = np.zeros(source.size("validation"))
    weights[-1] = 1
    flow = lk.Flow(lk.Normal(2), lk.ActNorm(2))
    with pytest.raises(DataError, match=r"first 3 items of the validation split.*weight 0"):
        lk.fit(flow, weighted(source, validation=weights), steps=2, validation_items=3)
