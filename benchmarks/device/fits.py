"""Fits on a device: the held-out figure of the CPU, waits for the device in a step, times of a step of the defaults."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.device.syncs import counted_syncs
from benchmarks.device.timed import timed_fit
from benchmarks.report import Entry
from likelify import seeded
from likelify.data import Source, open_source
from likelify.fitting.choose import choose
from likelify.fitting.figures import Course, Figure
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.process import OneProcess

# Sources whose default models are pictures', tables' and point sets'.
DEFAULTS = ("sample-photos", "breast-cancer", "mog-9", "dw4")
# Steps of a fit whose time is measured.
MEASURED = 30
COMMAND = [sys.executable, "-m", "likelify.app.cli", "fit", "digits", "--steps", "20", "--no-report", "--device"]


def _fitted(source: Source, place: torch.device, steps: int, **settings: Any) -> tuple[Figure, Course, float]:
    """Return held-out nats, the course, and the seconds of a step, of the default model of a source."""
    choice = choose(source.facts(), fit_settings={"steps": steps, **settings})
    with seeded(0):
        flow = choice.model.build()
    course, seconds = timed_fit(flow, source, choice.fit, place)
    return evaluate(flow, source, iw_samples=0).elbo.nats, course, seconds


def _unrecorded(
    label: str, source: Source, place: torch.device, recorded: Course, held_out: Figure, seconds: float
) -> list[Entry]:
    """Measure the same steps without recording, where they were recorded."""
    entries = [Entry(f"{label}: steps replayed from a CUDA graph", recorded.recorded, f"of {recorded.steps}")]
    if not recorded.recorded:
        print(f"{label}: {recorded.unrecorded}")
        return entries
    figure, _, alone = _fitted(source, place, recorded.steps, cuda_graph=False)
    return [
        *entries,
        Entry(f"{label}: time of a step without recording", 1e3 * alone, "ms"),
        Entry(f"{label}: held-out figures with and without recording", abs(held_out.mean / figure.mean - 1), "apart"),
        Entry(f"{label}: recorded against not", alone / seconds, "x faster", better="higher"),
    ]


def _syncs_of_a_step(source: Source, place: torch.device) -> float:
    """Return how often a step of the loop waits for the device: of steps between two validations."""
    counts = []
    for steps in (10, 20):
        # A recording waits when it is made and proved, and never in a step.
        settings = {"steps": steps, "validations": 1, "cuda_graph": False}
        choice = choose(source.facts(), fit_settings=settings)
        with seeded(0):
            flow = choice.model.build()
        with counted_syncs() as found:
            fit(flow, source, choice.fit, fabric=OneProcess(place))
        counts.append(len(found))
    return (counts[1] - counts[0]) / 10


def _command(place: torch.device) -> int:
    """Return the exit code of a fit from the command line."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*COMMAND, place.type, "--out", str(Path(folder) / "run")], capture_output=True, text=True, env=os.environ
        )
        print(done.stdout[-500:] + done.stderr[-1000:])
        return done.returncode


def defaults(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Fit the default models of other kinds of data for some steps; what raises is printed and counted."""
    entries, raised, left_out = [], 0, 0
    for name in DEFAULTS[:: 2 if quick else 1]:
        if time.monotonic() > end:
            left_out += 1
            continue
        try:
            source = open_source(name)
            held_out, course, seconds = _fitted(source, device, MEASURED)
            label = f"fit of {name}, {device.type}"
            entries += [
                Entry(f"{label}: held-out ELBO after {MEASURED} steps", held_out.mean, "nats", better="higher"),
                Entry(f"{label}: time of a step", 1e3 * seconds, "ms"),
            ]
            if device.type == "cuda":
                entries += _unrecorded(label, source, device, course, held_out, seconds)
                entries.append(Entry(f"{label}: host syncs in a step", _syncs_of_a_step(source, device), "calls"))
        except Exception as error:  # noqa: BLE001 - what is counted
            raised += 1
            print(f"fit of {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
    return [
        *entries,
        Entry("fits of defaults that raised", raised, "fits", 0),
        Entry("fits of defaults left out for lack of time", left_out, "fits", 0),
    ]


def fits(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Fit the digits on the device and on the CPU."""
    source, steps = open_source("digits"), 20 if quick else 150
    entries = [Entry("fit --device: exit code", _command(device), "", 0)]
    there, course, seconds = _fitted(source, device, steps)
    entries += [
        Entry(f"fit of the digits, {steps} steps, {device.type}: held-out ELBO", there.mean, "nats", better="higher"),
        Entry(f"fit of the digits, {device.type}: time of a step", 1e3 * seconds, "ms"),
    ]
    if device.type == "cuda":
        entries += _unrecorded("fit of the digits", source, device, course, there, seconds)
        entries.append(Entry("fit: host syncs in a step", _syncs_of_a_step(source, device), "calls"))
    if time.monotonic() > end:
        return [*entries, Entry("fit: comparison with the CPU left out for lack of time", 1, "parts", 0)]
    here, _, _ = _fitted(source, torch.device("cpu"), steps)
    error = np.hypot(here.standard_error or np.nan, there.standard_error or np.nan)
    difference = float(abs(here.mean - there.mean) / error)
    return [*entries, Entry("fit: difference from the CPU over its standard error", difference, "errors", 1.0)]
