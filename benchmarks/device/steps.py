"""Seconds of a training step of whole models at CIFAR-10 size: one by one, recorded, and compiled."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.device.exponentials import device_seconds
from benchmarks.device.timed import timed_fit
from benchmarks.report import Entry
from likelify import Flow, seeded, zoo
from likelify.data import as_source
from likelify.fitting.settings import FitSettings

SHAPE, ROWS = (3, 32, 32), 64
MODELS: dict[str, dict[str, Any]] = {
    "glow, 1x1": {"model": "glow", "mixing": "1x1", "levels": 3, "steps": 8},
    "glow, conv-exponential": {"model": "glow", "mixing": "conv-exponential", "levels": 3, "steps": 8},
    "sylvester": {"model": "sylvester", "levels": 2, "steps": 4},
    "fconv2": {"model": "fconv2"},
}
# Steps of the fits in which they are timed.
STEPS = 30
MODES = ("recorded", "eager", "compiled")
# Seconds that compiling a model may take, for which there must be time.
COMPILING = 60


def build(name: str, device: torch.device) -> Flow:
    """Return a fresh model, initialized with random images."""
    settings = dict(MODELS[name])
    with seeded(0):
        flow = zoo.build(settings.pop("model"), event_shape=SHAPE, pixel_levels=256, **settings).to(device)
        flow.initialize(torch.randint(256, (ROWS, *SHAPE), device=device))
    return flow


def compiled_step(flow: Flow, x: Tensor) -> Callable[[], None]:
    """Return a training step of the compiled flow: forward, backward and Adam."""
    optimizer, loss = torch.optim.Adam(flow.parameters(), lr=1e-4, fused=True), torch.compile(flow)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(x).mean().backward()
        optimizer.step()

    return run


def _measured(name: str, mode: str, device: torch.device) -> list[Entry]:
    flow, label = build(name, device), f"{name}, {mode}"
    torch.cuda.reset_peak_memory_stats()
    if mode == "compiled":
        run = compiled_step(flow, torch.randint(256, (ROWS, *SHAPE), device=device))
        run()
        seconds = device_seconds(run, 5)
    else:
        pixels = torch.randint(256, (4 * ROWS, *SHAPE), dtype=torch.uint8)
        settings = FitSettings(steps=STEPS, batch_size=ROWS, validation_items=ROWS, cuda_graph=mode == "recorded")
        course, seconds = timed_fit(flow, as_source(pixels, levels=256), settings, device)
        if mode == "recorded" and not course.recorded:
            raise RuntimeError(course.unrecorded)
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
            label = f"{name}, {mode}"
            if time.monotonic() > end - (COMPILING if mode == "compiled" else 0):
                left_out += 1
                print(f"left out for lack of time: {label}")
                continue
            try:
                found = _measured(name, mode, device)
                print("; ".join(f"{entry.name}: {entry.value:.4g} {entry.unit}" for entry in found), flush=True)
                entries += found
            except Exception as error:  # noqa: BLE001 - what is counted
                broken += 1
                print(f"does not work: {label}: {type(error).__name__}: {str(error)[:200]}")
            torch.cuda.empty_cache()
    return [
        *entries,
        Entry("steps that do not work", broken, "steps", 0),
        Entry("steps left out for lack of time", left_out, "steps", 0),
    ]
