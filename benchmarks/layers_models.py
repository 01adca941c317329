"""Whole models of the first paper on a CPU: training and sampling time by mixing layer, layout, recomputation, memory.

    python -m benchmarks.layers_models --quick
    python -m benchmarks.layers_models --part mixing-paper --json mixing.json

Without --part everything is measured, about 20 minutes. Times are CPU times of one thread; all models of a comparison
take turns, and ratios come with a bootstrap interval over the turns (95 %).
"""

import copy
import ctypes
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.memory import kept_bytes
from benchmarks.report import Entry, run_parts
from benchmarks.timing import MALLOC, medians
from likelify import Flow, seeded, testing, zoo
from likelify.fitting.memory import in_memory_of
from likelify.fitting.metrics import bits_per_dim
from likelify.nets import AutoregressiveNet, DenseConvBlock

MIXINGS = ("1x1", "emerging", "woodbury", "conv-exponential")
# Goals for the whole model in percent of 1x1: (must for training, must for sampling).
GOALS = {"conv-exponential": (108.0, 108.0), "emerging": (None, 125.0)}
RESIDUALS = ("table2-coupling", "table2-sylvester", "table2-residual", "table2-residual-equal-memory")
SHAPE = (3, 32, 32)
# Published parameters in millions, without the dequantizer. The residual and coupling models of table 2 have other
# split priors there; see docs/models-convexp.md.
PUBLISHED = {
    "table1-1x1": 47.85,
    "table1-emerging": 46.66,
    "table1-woodbury": 46.76,
    "table1-conv-exponential": 46.76,
    "table2-coupling": 40.2,
    "table2-residual": 43.7,
    "table2-sylvester": 50.3,
}
SAME_ARCHITECTURE = (*(f"table1-{name}" for name in MIXINGS), "table2-sylvester")
BATCH = 8
# First word of the command line of a process that measures one step for another.
STEP_OF = "--step-of"
DRAWS = 2000


def turns(runs: dict[str, Callable[[], object]], repeats: int, warm: int = 2) -> dict[str, list[float]]:
    """Return the times of all turns in seconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + warm):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            if turn >= warm:
                times[name].append(time.thread_time() - start)
    return times


def interval(ours: list[float], rival: list[float]) -> tuple[float, float]:
    """Return a 95 % interval of the ratio of the medians: turns are drawn again, both models' at once."""
    generator = random.Random(0)
    count = len(ours)
    ratios = []
    for _ in range(DRAWS):
        drawn = [generator.randrange(count) for _ in range(count)]
        ratios.append(statistics.median(ours[i] for i in drawn) / statistics.median(rival[i] for i in drawn))
    ratios.sort()
    return ratios[int(0.025 * DRAWS)], ratios[int(0.975 * DRAWS)]


def images(rows: int = BATCH) -> Tensor:
    """Draw a batch of CIFAR-10's shape."""
    return torch.randint(256, (rows, *SHAPE))


def training_step(flow: Flow, x: Tensor) -> Callable[[], None]:
    """Return a forward and a backward pass of the loss."""

    def run() -> None:
        flow.zero_grad()
        bits_per_dim(flow.elbo(x).value, x[0].numel()).mean().backward()

    return run


def compare(title: str, flows: dict[str, Flow], repeats: int, goals: dict[str, tuple]) -> list[Entry]:
    """Time training and sampling of flows against the first of them."""
    x = images()
    for flow in flows.values():
        flow.initialize(x)
    found = {"training": turns({name: training_step(flow, x) for name, flow in flows.items()}, repeats)}
    opened = [flow.frozen() for flow in flows.values()]
    for block in opened:
        block.__enter__()
    draw = {name: lambda flow=flow: flow.sample((BATCH,)) for name, flow in flows.items()}
    found["sampling"] = turns(draw, repeats)
    for block in opened:
        block.__exit__(None, None, None)
    first = next(iter(flows))
    entries = []
    for place, (what, times) in enumerate(found.items()):
        base = statistics.median(times[first])
        entries.append(Entry(f"{title}, {what}, {first}", 1e3 * base / BATCH, "ms per image"))
        for name in list(flows)[1:]:
            value = 100 * statistics.median(times[name]) / base
            low, high = interval(times[name], times[first])
            label = f"{title}, {what}, {name}"
            entries.append(Entry(label, value, f"% of {first}", goals.get(name, (None, None))[place]))
            entries.append(Entry(f"{label}, interval from", 100 * low, "%"))
            entries.append(Entry(f"{label}, interval to", 100 * high, "%"))
    return entries


def mixing(size: str, repeats: int) -> list[Entry]:
    """Compare the models of table 1 with the published widths."""
    with seeded(0):
        flows = {name: zoo.preset_config(f"table1-{name}", SHAPE, size=size).build() for name in MIXINGS}
    goals = GOALS if size == "paper" else {}
    return compare(f"table 1, {size} size", flows, repeats, goals)


def same_width(repeats: int) -> list[Entry]:
    """Compare 1x1 and the exponential at the paper's size with the same coupling networks (growth 64)."""
    with seeded(0):
        flows = {
            name: zoo.preset_config(f"table1-{name}", SHAPE, growth=64).build() for name in ("1x1", "conv-exponential")
        }
    return compare("table 1, growth 64 for both", flows, repeats, {})


def layout(repeats: int) -> list[Entry]:
    """Compare the coupling network of the paper in both memory layouts, on equal weights."""
    entries = []
    for channels, side in ((12, 16), (24, 8)):
        ours = testing.randomize(DenseConvBlock(channels // 2, channels), scale=0.01)
        rival = copy.deepcopy(ours)
        for parameter in rival.parameters():
            # Copied into fresh memory: a 1x1 kernel is contiguous in both layouts, and would keep the strides of the
            # other one, which decide what a convolution does.
            parameter.data = torch.empty(parameter.shape).copy_(parameter.data)
        plain = torch.randn(32, channels // 2, side, side)
        last = plain.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = rival(plain)
            gap = float((ours(last) - expected).abs().max() / expected.abs().max())
        upstream = torch.randn(32, channels, side, side)

        def step(net: DenseConvBlock, x: Tensor, upstream: Tensor = upstream) -> Callable[[], object]:
            leaves = (x.clone().requires_grad_(), *net.parameters())
            return lambda: torch.autograd.grad(net(leaves[0]), leaves, upstream)

        found = medians({"ours": step(ours, last), "rival": step(rival, plain)}, repeats)
        title = f"coupling DenseNet at ({channels}, {side}, {side}), channels last"
        must, aim = (1.08, 1.15) if side == 16 else (None, None)
        entries.append(
            Entry(f"{title}, training", found["rival"] / found["ours"], "x faster than NCHW", must, aim, "higher")
        )
        entries.append(Entry(f"{title}, largest difference", gap, "of the largest output", 1e-5))
    return entries


def recomputation(repeats: int) -> list[Entry]:
    """Compare the coupling network with and without recomputation."""
    x = torch.randn(32, 6, 16, 16).contiguous(memory_format=torch.channels_last)
    nets = {name: DenseConvBlock(6, 12, checkpoint=name == "lean") for name in ("lean", "plain")}
    kept = {name: kept_bytes(partial(net, x), in_memory_of(net.parameters())) / x.nbytes for name, net in nets.items()}
    upstream = torch.randn(32, 12, 16, 16)
    runs = {
        name: lambda net=net: torch.autograd.grad(net(x), tuple(net.parameters()), upstream)
        for name, net in nets.items()
    }
    found = medians(runs, repeats)
    title = "coupling DenseNet at (12, 16, 16), checkpoint"
    return [
        Entry(f"{title}, saved memory", max(kept["lean"], 1.0), "x its input", 1.0),
        Entry(f"{title}, saved memory without", kept["plain"], "x its input"),
        Entry(f"{title}, training", found["lean"] / found["plain"], "x the time without"),
    ]


def sizes(names: tuple[str, ...]) -> list[Entry]:
    """Count the parameters of presets, without the dequantizer, beside the published counts in millions."""
    entries = []
    for name in names:
        flow = zoo.preset_config(name, SHAPE).build()
        own = sum(p.numel() for p in flow.parameters()) - sum(p.numel() for p in flow.transform[0].parameters())
        entries.append(Entry(f"{name}, parameters", own / 1e6, "million"))
        published, masked = PUBLISHED[name], masked_entries(flow)
        must = 1.0 if name in SAME_ARCHITECTURE else None
        label = f"{name}, published {published} million" + (", masked entries counted" if masked else "")
        own += masked
        entries.append(Entry(f"{label}, off by", abs(100 * (own / (published * 1e6) - 1)), "%", must))
    return entries


def masked_entries(flow: Flow) -> int:
    """Count the entries of the published masked kernels that are always zero, and are not kept here: 4 taps of 9."""
    nets = [module for module in flow.modules() if isinstance(module, AutoregressiveNet)]
    return sum(4 * net.channels * net.hidden * (1 + net.heads) for net in nets)


def memory(size: str) -> list[Entry]:
    """Return the memory that one training step adds to a process of its own, by residual transformation."""
    entries, found = [], {}
    # The C library's own settings here: it has to hand back what the start of the program has freed.
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC}
    for name in RESIDUALS:
        words = [sys.executable, "-m", "benchmarks.layers_models", STEP_OF, name, size]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        found[name] = float(done.stdout)
        entries.append(
            Entry(f"{name}, {size} size, one training step", found[name], f"MB beyond weights, batch {BATCH}")
        )
    for name in RESIDUALS[2:]:
        ratio = found[name] / found["table2-sylvester"]
        entries.append(Entry(f"{name}, {size} size, memory", ratio, "x that of table2-sylvester"))
    return entries


def step_memory(name: str, size: str) -> float:
    """Return by how many MB one training step raises the resident memory of this process (Linux only)."""
    with seeded(0):
        flow = zoo.preset_config(name, SHAPE, size=size).build()
        # Gradients, workspaces and compiled kernels are there after this.
        training_step(flow, images(1))()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    training_step(flow, images())()
    return peak() - before


def peak() -> float:
    """Return the largest resident memory since the mark was last cleared, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


# The models of the paper's size are left out of a quick run.
PARTS = {
    "sizes": lambda *, quick: sizes(("table1-1x1", "table2-sylvester") if quick else tuple(PUBLISHED)),
    "layout": lambda *, quick: layout(3 if quick else 15),
    "recomputation": lambda *, quick: recomputation(3 if quick else 9),
    "mixing-small": lambda *, quick: mixing("small", 5 if quick else 30),
    "memory-small": lambda *, quick: memory("small"),
    "mixing-paper": lambda *, quick: [] if quick else mixing("paper", 30),
    "same-width": lambda *, quick: [] if quick else same_width(30),
    "memory-paper": lambda *, quick: [] if quick else memory("paper"),
}


def main() -> None:
    """Measure and report."""
    if sys.argv[1:2] == [STEP_OF]:
        torch.set_num_threads(1)
        print(step_memory(*sys.argv[2:]))
        return
    run_parts(__doc__ or "", PARTS)


if __name__ == "__main__":
    main()
