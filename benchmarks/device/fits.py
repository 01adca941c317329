"""Fits on a device: the held-out figure of the CPU, waits for the device in a step, times of a step of the defaults."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.device.syncs import counted_syncs
from benchmarks.report import Entry
from likelify import seeded
from likelify.data import Source, open_source
from likelify.fitting.choose import choose
from likelify.fitting.figures import Figure
from likelify.fitting.loop import Progress, fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.process import OneProcess

# Sources whose default models are pictures', tables' and point sets'.
DEFAULTS = ("sample-photos", "breast-cancer", "mog-9", "dw4")
COMMAND = [sys.executable, "-m", "likelify.app.cli", "fit", "digits", "--steps", "20", "--no-report", "--device"]


def _fitted(source: Source, place: torch.device, steps: int) -> tuple[Figure, float]:
    """Return held-out nats, and the seconds of a step, of the default model of a source."""
    choice = choose(source.facts(), fit_settings={"steps": steps, "validations": 2})
    with seeded(0):
        flow = choice.model.build()
    times = [time.perf_counter()]

    def note(progress: Progress) -> None:  # noqa: ARG001 - as it is called
        times.append(time.perf_counter())

    fit(flow, source, choice.fit, fabric=OneProcess(place), on_step=note)
    return evaluate(flow, source, iw_samples=0).elbo.nats, statistics.median(np.diff(times))


def _syncs_of_a_step(source: Source, place: torch.device) -> float:
    """Return how often a step of the loop waits for the device: of steps between two validations."""
    counts = []
    for steps in (10, 20):
        choice = choose(source.facts(), fit_settings={"steps": steps, "validations": 1})
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
            held_out, seconds = _fitted(source, device, 30)
            label = f"fit of {name}, {device.type}"
            entries += [
                Entry(f"{label}: held-out ELBO after 30 steps", held_out.mean, "nats", better="higher"),
                Entry(f"{label}: time of a step", 1e3 * seconds, "ms"),
            ]
            if device.type == "cuda":
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
    there, seconds = _fitted(source, device, steps)
    entries += [
        Entry(f"fit of the digits, {steps} steps, {device.type}: held-out ELBO", there.mean, "nats", better="higher"),
        Entry(f"fit of the digits, {device.type}: time of a step", 1e3 * seconds, "ms"),
    ]
    if device.type == "cuda":
        entries.append(Entry("fit: host syncs in a step", _syncs_of_a_step(source, device), "calls"))
    if time.monotonic() > end:
        return [*entries, Entry("fit: comparison with the CPU left out for lack of time", 1, "parts", 0)]
    here, _ = _fitted(source, torch.device("cpu"), steps)
    error = np.hypot(here.standard_error or np.nan, there.standard_error or np.nan)
    difference = float(abs(here.mean - there.mean) / error)
    return [*entries, Entry("fit: difference from the CPU over its standard error", difference, "errors", 1.0)]
