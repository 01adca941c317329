"""The action of exponentials on a device against torch.matrix_exp and the unrolled series."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.exponential import CONVOLUTIONS, TRAINING_DEGREE, random_kernel, unrolled
from benchmarks.report import Entry
from benchmarks.timing import training
from likelify import ConvMap, Dense, Skew, exp_action

REPEATS = 20


def device_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median time of a call on the device, in seconds, as events on its stream measure it."""
    times = []
    for turn in range(repeats + 3):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        if turn >= 3:
            times.append(start.elapsed_time(stop) / 1000)
    return statistics.median(times)


def _convolution(shape: tuple[int, ...], device: torch.device) -> tuple[Callable[[], object], ...]:
    torch.manual_seed(0)
    x, kernel = torch.randn(shape, device=device), random_kernel(*shape[1:]).to(device)

    def ours(x: Tensor, kernel: Tensor) -> Tensor:
        return exp_action(ConvMap(kernel, norm=0.9), x, tol=1e-4).value

    return training(ours, (x, kernel)), training(lambda x, k: unrolled(x, k, TRAINING_DEGREE), (x, kernel))


def _rotation(size: int, device: torch.device) -> tuple[Callable[[], object], ...]:
    torch.manual_seed(0)
    weight = torch.randn(size, size, device=device) / math.sqrt(size)
    weight = weight / torch.linalg.matrix_norm((weight - weight.mT) / 2, 2)
    x = torch.randn(128, size, device=device)
    return (
        training(lambda x, w: exp_action(Skew(w, norm=1.0), x).value, (x, weight)),
        training(lambda x, w: x @ torch.linalg.matrix_exp((w - w.mT) / 2).mT, (x, weight)),
    )


def _dense(size: int, device: torch.device) -> tuple[Callable[[], object], ...]:
    torch.manual_seed(0)
    weight, x = torch.randn(size, size, device=device), torch.randn(512, size, device=device)
    weight = 0.9 * weight / torch.linalg.matrix_norm(weight, 2)
    return (
        training(lambda x, w: exp_action(Dense(w, norm=0.9), x).value, (x, weight)),
        training(lambda x, w: x @ torch.linalg.matrix_exp(w).mT, (x, weight)),
    )


def exponentials(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Compare forward and backward passes; the same shapes as in `benchmarks.exponential`, and larger batches."""
    shapes = [*CONVOLUTIONS, (256, 12, 16, 16), (256, 48, 8, 8)]
    runs = {f"conv {shape} against the series": partial(_convolution, shape) for shape in shapes}
    runs |= {f"rotation d={size}, 128 rows, against matrix_exp": partial(_rotation, size) for size in (64, 512, 1024)}
    runs["1x1 c=192, 512 rows, against matrix_exp"] = partial(_dense, 192)
    entries, left_out = [], 0
    for name, make in runs.items():
        if time.monotonic() > end:
            left_out += 1
            print(f"left out for lack of time: {name}")
            continue
        ours, rival = make(device)
        repeats = 3 if quick else REPEATS
        fast, slow = device_seconds(ours, repeats), device_seconds(rival, repeats)
        entries.append(Entry(f"{name}: ours", 1e3 * fast, "ms"))
        entries.append(Entry(name, slow / fast, "x faster", better="higher"))
    return [*entries, Entry("exponentials left out for lack of time", left_out, "cases", 0)]
