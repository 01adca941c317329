"""Training steps of this tree against those of another checkout, such as of the commit before a change.

    git worktree add /tmp/before COMMIT
    python -m benchmarks.against /tmp/before --json against.json

Each tree runs in a process of its own, both are asked in turn, and the median of the ratios of neighbouring turns is
reported. Weights are moved from their start, where exponentials have next to no terms. The steps use what both trees
must have: `zoo.build`, `Flow`, `elbo`, `testing.randomize` and a few layers.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import likelify as lk
from benchmarks.report import Entry, report
from benchmarks.timing import MALLOC, use_malloc_settings
from likelify.linalg.bounds import reshape_bound

# First word of the command line of a process that runs the steps when it is told to.
WORKER = "--worker"
DRAWS = 2000
# Deviation of what is added to fresh weights.
MOVED = 0.05


def _images(model: str, rows: int, **settings: object) -> tuple[lk.Flow, Tensor]:
    x = torch.randint(17, (rows, 1, 8, 8))
    return lk.zoo.build(model, event_shape=(1, 8, 8), pixel_levels=17, **settings), x


def _layer(layer: lk.Transform, *shape: int) -> tuple[lk.Flow, Tensor]:
    x = torch.randn(*shape)
    return lk.Flow(lk.Normal(shape[1:]), layer), x


def _mixing(channels: int, side: int, norm: float) -> tuple[lk.Flow, Tensor]:
    """Return the convolution exponential of `mixing="conv-exponential"` with a kernel whose reshape bound is given."""
    layer = lk.conv_exponential(channels, norm_limit=0.9, norm_bound="torus")
    with torch.no_grad():
        weight = layer.parametrization.weight
        weight.copy_(torch.randn_like(weight))
        weight.mul_(norm / reshape_bound(weight))
    return _layer(layer, 32, channels, side, side)


def _vectors() -> lk.Chain:
    split, bijector = lk.ChannelSplit(8), lk.AffineBijector()
    layers: list[lk.Transform] = []
    for _ in range(16):
        net = lk.nets.MLP(split.sizes[0], bijector.size * split.sizes[1], (32,))
        layers += [lk.ActNorm(8), lk.Coupling(split, bijector, net)]
    return lk.Chain(layers)


STEPS: dict[str, Callable[[], tuple[lk.Flow, Tensor]]] = {
    "glow, affine": lambda: _images("glow", 120),
    "glow, spline": lambda: _images("glow", 64, coupling="spline"),
    "glow, conv-exponential": lambda: _images("glow", 64, mixing="conv-exponential"),
    "sylvester": lambda: _images("sylvester", 64, levels=1, steps=2),
    "residual": lambda: _images("residual", 32, levels=1, steps=2),
    "32 small layers of vectors": lambda: _layer(_vectors(), 64, 8),
    "convolution exponential 12x16x16": lambda: _layer(lk.conv_exponential(12), 32, 12, 16, 16),
    "convolution exponential 48x8x8": lambda: _layer(lk.conv_exponential(48), 32, 48, 8, 8),
    "mixing 12x16x16, at its limit": lambda: _mixing(12, 16, 1.8),
    "mixing 24x8x8, at its limit": lambda: _mixing(24, 8, 1.8),
    "mixing 48x8x8, at its limit": lambda: _mixing(48, 8, 1.8),
    "mixing 12x16x16, below its limit": lambda: _mixing(12, 16, 0.6),
    "mixing 24x8x8, below its limit": lambda: _mixing(24, 8, 0.8),
    "rotation of 64": lambda: _layer(lk.rotation(64), 128, 64),
    "dense exponential of 192": lambda: _layer(lk.dense_exponential(192), 512, 192),
    "channel spline": lambda: _layer(lk.ChannelSpline(12), 64, 12, 8, 8),
    "emerging convolution": lambda: _layer(lk.emerging_conv(12), 32, 12, 8, 8),
}


def step(name: str) -> Callable[[], None]:
    """Return a forward and a backward pass of a model with weights that are not fresh."""
    torch.manual_seed(0)
    flow, x = STEPS[name]()
    if not name.startswith("mixing"):
        lk.testing.randomize(flow, scale=MOVED)
    flow.initialize(x)

    def run() -> None:
        flow.zero_grad()
        flow.elbo(x).value.mean().neg().backward()

    return run


def work() -> None:
    """Time the steps whose names come in, one line each, until there are no more."""
    torch.set_num_threads(1)
    steps: dict[str, Callable[[], None]] = {}
    for line in sys.stdin:
        name = line.strip()
        if name not in steps:
            steps = {name: step(name)}
        start = time.process_time()
        steps[name]()
        print(time.process_time() - start, flush=True)


def start(tree: Path) -> subprocess.Popen[str]:
    """Start a process that runs the steps with the package of a tree, until its input is closed."""
    paths = os.pathsep.join([str(tree / "src"), str(Path.cwd())])
    command = [sys.executable, "-m", "benchmarks.against", WORKER]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=os.environ | MALLOC | {"PYTHONPATH": paths}, stdin=pipe, stdout=pipe, text=True
    )


def ask(worker: subprocess.Popen[str], name: str) -> float:
    """Return the processor time of one step, in seconds."""
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("The worker has no pipes.")
    worker.stdin.write(f"{name}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def ratios(ours: subprocess.Popen[str], other: subprocess.Popen[str], name: str, turns: int) -> list[float]:
    """Return our time over the other tree's for each turn; who begins changes from turn to turn."""
    found = []
    for turn in range(turns + 3):
        first = (ours, other) if turn % 2 else (other, ours)
        times = {worker: ask(worker, name) for worker in first}
        if turn >= 3:
            found.append(times[ours] / times[other])
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Return a bootstrap interval of the median (95 %)."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(DRAWS))
    return medians[int(0.025 * DRAWS)], medians[int(0.975 * DRAWS)]


def main() -> None:
    """Compare all steps."""
    if sys.argv[1:] == [WORKER]:
        work()
        return
    use_malloc_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--turns", type=int, default=60, help="how often each step is run by both")
    parser.add_argument("--steps", default="", help="only the steps whose names hold this")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    entries = []
    with start(Path.cwd()) as ours, start(options.other.resolve()) as other:
        for name in (name for name in STEPS if options.steps in name):
            found = ratios(ours, other, name, options.turns)
            low, high = interval(found)
            print(f"{name}: {statistics.median(found):.3f} ({low:.3f} to {high:.3f})", flush=True)
            entries.append(Entry(f"training step, {name}", statistics.median(found), "of the other tree's time", 1.03))
            entries.append(Entry(f"training step, {name}, interval from", low, "of the other tree's time"))
            entries.append(Entry(f"training step, {name}, interval to", high, "of the other tree's time"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
