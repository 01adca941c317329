import gc
import os
import signal
import time

import numpy as np
import pytest
import torch

from likelify.data import ArraySource, Batch, open_source
from likelify.data.ahead import read_ahead
from likelify.data.source import Source
from likelify.errors import DataError

DIGITS = open_source("digits")
PARTS = [torch.tensor(part) for part in ([5, 3], [0], [1292, 7, 7], [2], [4, 4], [6], [8])]


class Odd(Source):
    """Items that are what a test needs: the process that read them, an error, or the end of their process."""

    name, kind, event_shape = "odd", "table", (1,)

    def size(self, split):
        return 100

    def fingerprint(self):
        return "odd"

    def read(self, split, indices):
        if 13 in indices:
            raise DataError("the file 'thirteen.png' cannot be read")
        if 66 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        if 99 in indices:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
        return Batch(torch.full((len(indices), 1), float(os.getpid())))


def alive(pids):
    """Return the processes that are still there, after a moment to end."""
    for _ in range(100):
        left = [pid for pid in pids if os.path.exists(f"/proc/{pid}") and "Z" not in state(pid)]
        if not left:
            return []
        time.sleep(0.05)
    return left


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as handle:
            return handle.read().split(") ")[1][0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_whoever_reads_them(workers):
    before = torch.get_rng_state()
    batches = list(read_ahead(DIGITS, "train", PARTS, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(batches) == len(PARTS)
    for part, batch in zip(PARTS, batches, strict=True):
        expected = DIGITS.read("train", part)
        assert torch.equal(batch.x, expected.x)
        assert torch.equal(batch.labels, expected.labels)
        assert batch.x.dtype == expected.x.dtype


def test_as_many_read_as_are_asked_for_and_they_end_with_the_iterator():
    numbers = iter([torch.tensor([n]) for n in range(50)])
    batches = read_ahead(Odd(), "train", numbers, workers=2)
    pids = {int(next(batches).x) for _ in range(6)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    # Two for each process are ready or on their way, and no more.
    assert next(numbers).item() <= 6 + 2 * 2
    batches.close()
    assert alive(pids) == []


@pytest.mark.parametrize("way", ["forgotten", "interrupted", "used up"])
def test_no_process_is_left(way):
    pids = set()
    try:
        for batch in read_ahead(Odd(), "train", [torch.tensor([n]) for n in range(5)], workers=1):
            pids.add(int(batch.x))
            if way == "interrupted":
                raise KeyboardInterrupt
            if way == "forgotten":
                break
    except KeyboardInterrupt:
        pass
    gc.collect()
    assert len(pids) == 1
    assert alive(pids) == []


def test_errors_of_processes_are_errors_here():
    parts = [torch.tensor([1]), torch.tensor([13]), torch.tensor([2])]
    batches = read_ahead(Odd(), "train", parts, workers=1)
    pid = int(next(batches).x)
    with pytest.raises(DataError, match="^the file 'thirteen.png' cannot be read$"):
        next(batches)
    assert alive({pid}) == []


def test_a_process_that_is_killed_is_said_to_be():
    with pytest.raises(DataError, match="ended from outside, perhaps for lack of memory. With --workers 0"):
        list(read_ahead(Odd(), "train", [torch.tensor([66])], workers=1))


def test_signals_of_a_terminal_are_left_to_the_first_process():
    first, second = read_ahead(Odd(), "train", [torch.tensor([99]), torch.tensor([1])], workers=1)
    assert first.x.item() == second.x.item() != os.getpid()


def test_items_of_more_levels_and_real_numbers_are_as_they_are():
    whole = np.arange(60).reshape(10, 1, 2, 3) * 1000
    deep = ArraySource("deep", {"train": whole, "validation": whole}, kind="image", levels=65536)
    batch = next(read_ahead(deep, "validation", [torch.tensor([9])], workers=1))
    assert batch.x.dtype == torch.int32
    assert batch.x.flatten().tolist() == whole[9].flatten().tolist()
    assert batch.labels is None
