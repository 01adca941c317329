"""Seconds of a training step of whole models at CIFAR-10 size: eager, compiled, as CUDA graphs; two precisions."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from benchmarks.device.exponentials import device_seconds
from benchmarks.report import Entry
from likelify import Flow, seeded, zoo

SHAPE, ROWS = (3, 32, 32), 64
MODELS: dict[str, dict[str, Any]] = {
    "glow, 1x1": {"model": "glow", "mixing": "1x1", "levels": 3, "steps": 8},
    "glow, conv-exponential": {"model": "glow", "mixing": "conv-exponential", "levels": 3, "steps": 8},
    "sylvester": {"model": "sylvester", "levels": 2, "steps": 4},
    "fconv2": {"model": "fconv2"},
}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


def build(name: str, device: torch.device) -> Flow:
    """Return a fresh model, initialized with random images."""
    settings = dict(MODELS[name])
    with seeded(0):
        flow = zoo.build(settings.pop("model"), event_shape=SHAPE, pixel_levels=256, **settings).to(device)
        flow.initialize(torch.randint(256, (ROWS, *SHAPE), device=device))
    return flow


def step_of(flow: Flow, x: Tensor, precision: torch.dtype | None, loss: Callable[[Tensor], Tensor]) -> Callable:
    """Return a training step: forward, backward and Adam."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-4, capturable=x.device.type == "cuda")

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with nullcontext() if precision is None else torch.autocast(x.device.type, precision):
            value = loss(x).mean()
        value.backward()
        optimizer.step()

    return run


def captured(run: Callable[[], None]) -> Callable[[], None]:
    """Record a step as a CUDA graph, and return what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


# Recording that fails leaves the random numbers of the device unusable, so it comes last.
MODES = ("eager", "compiled", "graph")
# Seconds that compiling a model may take, for which there must be time.
COMPILING = 60


def _measured(name: str, mode: str, precision: str, device: torch.device) -> list[Entry]:
    flow, x = build(name, device), torch.randint(256, (ROWS, *SHAPE), device=device)
    loss = torch.compile(flow) if mode == "compiled" else flow
    run = step_of(flow, x, PRECISIONS[precision], loss)
    if mode == "graph":
        run = captured(run)
    run()
    torch.cuda.reset_peak_memory_stats()
    seconds = device_seconds(run, 5)
    label = f"{name}, {mode}, {precision}"
    return [
        Entry(f"step of {label}", 1e3 * seconds, f"ms for {ROWS} images"),
        Entry(f"peak memory of {label}", torch.cuda.max_memory_allocated() / 2**30, "GiB"),
    ]


def steps(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Measure all models; what does not work is listed with its error, and counted."""
    entries: list[Entry] = []
    broken = left_out = 0
    for mode in MODES[:1] if quick else MODES:
        for name in MODELS:
            for precision in PRECISIONS:
                label = f"{name}, {mode}, {precision}"
                if time.monotonic() > end - (COMPILING if mode == "compiled" else 0):
                    left_out += 1
                    print(f"left out for lack of time: {label}")
                    continue
                try:
                    entries += _measured(name, mode, precision, device)
                except Exception as error:  # noqa: BLE001 - what is counted
                    broken += 1
                    print(f"does not work: {label}: {type(error).__name__}: {str(error)[:200]}")
                torch.cuda.empty_cache()
    return [
        *entries,
        Entry("steps that do not work", broken, "steps", 0),
        Entry("steps left out for lack of time", left_out, "steps", 0),
    ]
