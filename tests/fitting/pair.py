"""Functions run in two processes that torch.distributed has joined."""

import multiprocessing
import os
import signal
import traceback
import warnings

import torch

from likelify.errors import LikelifyWarning
from likelify.fitting.process import processes


def in_pair(tasks, place, *arguments, count=2):
    """Run functions of (processes, *arguments) one after the other in each process; return what they gave, by rank.

    An exception is what a function gave. `place` is an empty folder.
    """
    context = multiprocessing.get_context("spawn")
    lines = [context.Pipe(duplex=False) for _ in range(count)]
    started = [
        context.Process(target=_work, args=(rank, count, str(place / "store"), lines[rank][1], tasks, arguments))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    for _, end in lines:
        # So that a process that dies ends its line.
        end.close()
    try:
        return [line.recv() if line.poll(120) else None for line, _ in lines]
    finally:
        for process in started:
            process.join(20)
            process.kill()


def _work(rank, count, store, line, tasks, arguments):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", LikelifyWarning)
    found = []
    for task in tasks:
        try:
            found.append(task(processes(None), *arguments))
        except BaseException as error:  # noqa: BLE001 - what the tests look at
            traceback.print_exc()
            found.append(error)
    line.send(found)
    torch.distributed.destroy_process_group()


def signalled(number=signal.SIGINT):
    os.kill(os.getpid(), number)
