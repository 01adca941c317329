"""Real processes that are killed at random instants, also while they write."""

import os
import signal
import subprocess
import sys
import time

import pytest
from benchmarks.kills import survive

from likelify.errors import RunError
from likelify.fitting.interrupts import Interrupts
from likelify.fitting.locks import LOCK, is_locked, locked
from likelify.fitting.process import OneProcess


def test_runs_of_killed_fits_go_on_to_the_same_result(tmp_path):
    fate = survive(4, 0, tmp_path)
    assert (fate.kills, fate.lost, fate.differ) == (4, 0, 0)


@pytest.mark.slow
def test_runs_of_many_killed_fits_go_on_to_the_same_result(tmp_path):
    fate = survive(20, 1, tmp_path)
    assert (fate.kills, fate.lost, fate.differ) == (20, 0, 0)
    assert fate.saving > 0


HOLD = """
import sys, time
from pathlib import Path
from likelify.fitting.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_in_a_folder_is_told_and_a_killed_one_locks_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert is_locked(tmp_path)
    with pytest.raises(RunError, match="Another process is at work in"), locked(tmp_path, wait=False):
        pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK).exists()
    assert not is_locked(tmp_path)
    with locked(tmp_path, wait=False):
        # The same thread has it already.
        with locked(tmp_path, wait=False):
            assert is_locked(tmp_path)
        assert is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_outlives_its_process_locks_nothing(tmp_path):
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with locked(tmp_path):
            if os.fork() == 0:
                os.write(writing, b"x")
                time.sleep(2)
                os._exit(0)
            os.read(reading, 1)
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    assert not is_locked(tmp_path)


def test_a_worker_that_leaves_the_block_does_not_let_go_for_its_process(tmp_path):
    with locked(tmp_path):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                with locked(tmp_path, wait=False):
                    pass
            except RunError:
                code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
        assert is_locked(tmp_path)


def test_what_waits_for_a_folder_gets_it_when_it_is_free(tmp_path):
    order = []
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("60", "0.3"), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    with locked(tmp_path):
        order.append("ours")
        assert is_locked(tmp_path)
    process.communicate()
    assert process.returncode == 0


def interrupted(interrupts, times, done):
    """Do something whole, and press Ctrl-C so many times while it is done."""
    with interrupts.whole():
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        done.append(times)


def test_ctrl_c_waits_until_a_piece_of_work_is_whole():
    done = []
    with Interrupts(OneProcess()) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            interrupted(interrupts, 1, done)
        assert not interrupts.broken
        with pytest.raises(KeyboardInterrupt):
            interrupted(interrupts, 2, done)
        assert interrupts.broken
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_others_are_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with Interrupts(OneProcess()) as interrupts, interrupts.whole():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
