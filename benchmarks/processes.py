"""One and two processes at equal global batches: held-out figures, what rounding alone changes, and cost of a step.

    python -m benchmarks.processes --json results/processes.json

Two processes of gloo on the CPU, one thread each, on one machine. The cost of a step is processor time of one process:
on a machine with nothing else to do it is what a step takes, and elsewhere it is not as long as the wait for a turn.
"""

import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from benchmarks.report import Entry, run_parts
from likelify import ActNorm, Chain, ChannelSplit, Coupling, Flow, Normal, SplineBijector, nets, rotation, seeded
from likelify.data import ArraySource, Batch, Source, SplitName, open_source
from likelify.fitting.choose import choose
from likelify.fitting.figures import Figure
from likelify.fitting.loop import Progress, fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings

# A batch that two processes cannot share evenly.
EXACT = FitSettings(batch_size=125, warmup=20, lr=4e-3, validations=4)


class Reversed(ArraySource):
    """A source that gives the items of a batch the other way round: the same sums but for their rounding."""

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Read the items with these numbers, the last first in training."""
        return super().read(split, indices.flip(0) if split == "train" else indices)


def rows(kind: type[ArraySource]) -> ArraySource:
    """Return points about a spiral, with a third column that depends on both others."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0.5, 3 * math.pi, 4000)
    x, y = angle * np.cos(angle) / 5 + 0.1 * rng.normal(size=4000), angle * np.sin(angle) / 5
    data = np.stack([x, y, np.sin(2 * x) + 0.2 * rng.normal(size=4000)], 1)
    parts: dict[SplitName, np.ndarray] = {"train": data[:2000], "validation": data[2000:3000], "test": data[3000:]}
    return kind("spiral", parts, kind="table", levels=None)


def exact_flow(*, double: bool) -> Flow:
    """Return a flow of splines without noise."""
    layers = []
    with seeded(0):
        for swap in (False, True, False):
            split, bijector = ChannelSplit(3, swap=swap), SplineBijector(8, 4.0)
            read, changed = split.sizes
            net = nets.MLP(read, changed * bijector.size, (32,))
            layers += [ActNorm(3), rotation(3), Coupling(split, bijector, net)]
        flow = Flow(Normal(3), Chain(layers))
    return flow.double() if double else flow


def fit_rows(place: Fabric | OneProcess, steps: int, double: bool, kind: type[ArraySource]) -> tuple[Figure, float]:  # noqa: FBT001
    """Fit an exact flow; return its held-out nats, and the processor seconds of a step."""
    return _fitted(place, exact_flow(double=double), rows(kind), EXACT.model_copy(update={"steps": steps}))


def fit_digits(place: Fabric | OneProcess, steps: int) -> tuple[Figure, float]:
    """Fit the default model of the digits; return its held-out nats, and the processor seconds of a step."""
    source = open_source("digits")
    choice = choose(source.facts(), fit_settings={"steps": steps, "validations": 4})
    with seeded(0):
        flow = choice.model.build()
    return _fitted(place, flow, source, choice.fit)


def _fitted(place: Fabric | OneProcess, flow: Flow, source: Source, settings: FitSettings) -> tuple[Figure, float]:
    torch.set_num_threads(1)
    times = [time.process_time()]

    def note(progress: Progress) -> None:  # noqa: ARG001 - as it is called
        times.append(time.process_time())

    fit(flow, source, settings, fabric=place, on_step=note)
    # The median leaves out the steps with a validation.
    seconds = statistics.median(np.diff(times))
    return evaluate(flow, source, iw_samples=0).elbo.nats, seconds


def in_two(run: Callable[..., tuple[Figure, float]], *arguments: Any) -> tuple[Figure, float]:
    """Return what the first of two processes found."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(run, *arguments)


def exact(*, quick: bool) -> list[Entry]:
    """Compare fits without noise, in both precisions."""
    entries = []
    # Rounding grows from step to step, also in float64: there is a length of a fit up to which figures must agree.
    cases = (
        [("float64", 100, 1e-4)] if quick else [("float64", 150, 1e-4), ("float64", 300, None), ("float32", 300, None)]
    )
    for name, steps, must in cases:
        double = name == "float64"
        one, _ = fit_rows(OneProcess("cpu"), steps, double, ArraySource)
        two, _ = in_two(fit_rows, steps, double, ArraySource)
        other, _ = fit_rows(OneProcess("cpu"), steps, double, Reversed)
        label = f"exact flow, {name}, {steps} steps"
        entries += [
            Entry(f"{label}: held-out log-likelihood of 1 process", one.mean, "nats", better="higher"),
            Entry(f"{label}: held-out log-likelihood of 2 processes", two.mean, "nats", better="higher"),
            Entry(f"{label}: difference", abs(one.mean - two.mean), "nats", must),
            Entry(f"{label}: difference if only the items of a batch are reversed", abs(one.mean - other.mean), "nats"),
            Entry(f"{label}: standard error of the figure", one.standard_error or math.nan, "nats"),
        ]
    return entries


def digits(*, quick: bool) -> list[Entry]:
    """Compare fits of dequantized images, whose noise is other in each process, and their times."""
    steps = 30 if quick else 300
    (one, alone), (two, shared) = fit_digits(OneProcess("cpu"), steps), in_two(fit_digits, steps)
    error = math.hypot(one.standard_error or math.nan, two.standard_error or math.nan)
    return [
        Entry(f"digits, {steps} steps: held-out ELBO of 1 process", one.mean, "nats", better="higher"),
        Entry(f"digits, {steps} steps: held-out ELBO of 2 processes", two.mean, "nats", better="higher"),
        Entry("digits: difference over its standard error", abs(one.mean - two.mean) / error, "errors", 1.0),
        Entry("digits, 128 images: processor time of a step, 1 process", 1e3 * alone, "ms"),
        Entry("digits, 128 images: processor time of a step, each of 2 processes", 1e3 * shared, "ms"),
        Entry("digits: processor time of a step, 1 process over each of 2", alone / shared, "x", better="higher"),
    ]


PARTS = {"exact": exact, "digits": digits}

if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
