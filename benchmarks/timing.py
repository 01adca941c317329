"""Ratios of running times: interleaved runs in one process, medians of the CPU time of this thread."""

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

# glibc hands freed memory back to the system by default, and page faults then swamp what is measured.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "2147483648"}


def use_malloc_settings() -> None:
    """Start the program again with the malloc settings, unless it has them; the C library reads them at its start."""
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | MALLOC)


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median time of each run in seconds; two turns more warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 2):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            if turn >= 2:
                times[name].append(time.thread_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(ours: Callable[[], object], rival: Callable[[], object], repeats: int) -> float:
    """Return the median time of the rival over ours."""
    found = medians({"ours": ours, "rival": rival}, repeats)
    return found["rival"] / found["ours"]


def training(function: Callable[..., Tensor], leaves: tuple[Tensor, ...]) -> Callable[[], object]:
    """Return a forward and a backward pass, from the same random gradient each time."""
    leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    upstream = torch.randn_like(leaves[0])
    return lambda: torch.autograd.grad(function(*leaves), leaves, upstream)
