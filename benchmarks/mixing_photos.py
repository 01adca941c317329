"""Layers that mix, at equal time: the same small glow on crops of two photographs, with four of them.

    python -m benchmarks.mixing_photos --json results/mixing_photos.json

Each gets the same processor time, on one thread, and the same seeds (weights, batches, noise). The convolution
exponential has narrower networks, as it has in the models of its paper, and fewer parameters for all that. What has
been measured is kept, one file for each mixing layer and seed, so that a run that was stopped goes on; other settings
or another version of the code are measured anew, and with `--again MIXING` so is what is known. `--variants` measures
what the axis exponential might be instead, and what emerging convolutions do in the places that it has.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import cells
from benchmarks.cells import forget, key_of, measured
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import Conv1x1, Transform, axis_exponential, conv_exponential, seeded, zoo
from likelify.data import open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.reproduce.statistics import paired_difference
from likelify.zoo import multiscale

SOURCE = "sample-photos"
FIT = {"lr": 2e-3, "batch_size": 32, "average": 0.99, "validations": 3}
FOLDER = Path("runs") / "benchmarks" / "mixing_photos"
AXIS, CONVOLUTION, EMERGING, PLAIN = "axis-exponential", "conv-exponential", "emerging", "1x1"
WIDTHS = {PLAIN: 48, EMERGING: 48, CONVOLUTION: 38, AXIS: 48}
Positions = tuple[int, ...]
# Other settings of the model.
PLACED: dict[str, dict[str, Any]] = {
    "behind the squeeze only": {"mixing": AXIS, "mix_early": False},
    "emerging before the squeeze too": {"mixing": EMERGING, "mix_early": True},
}
# Other layers in the place of a 1x1 convolution and an axis exponential.
LAYERS: dict[str, Callable[[int, Positions], list[Transform]]] = {
    "before the 1x1": lambda c, p: [axis_exponential(c, positions=p), Conv1x1(c)],
    "twice": lambda c, p: [layer for _ in range(2) for layer in (Conv1x1(c), axis_exponential(c, positions=p))],
    "11 taps": lambda c, p: [Conv1x1(c), axis_exponential(c, 11)],
    "shared by four channels": lambda c, p: [Conv1x1(c), axis_exponential(c, positions=p, groups=max(1, c // 4))],
    "centre taps": lambda c, p: [Conv1x1(c), axis_exponential(c, positions=p, centre_taps=True)],
    "orthogonal": lambda c, p: [Conv1x1(c), axis_exponential(c, positions=p, orthogonal=True)],
    "and a convolution exponential": lambda c, p: [
        Conv1x1(c), conv_exponential(c), axis_exponential(c, positions=p)
    ],
}  # fmt: skip
VARIANTS = (*PLACED, *LAYERS)


@dataclass(frozen=True)
class Found:
    """What a fit came to: test bits/dim (ELBO), steps, processor seconds and parameters."""

    bits: float
    steps: int
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Cell(cells.Cell[Found]):
    """A fit: a mixing layer or a variant, a seed, and processor seconds."""

    mixing: str
    seed: int
    seconds: float

    def key(self) -> str:
        """Return a hash of the settings of model and fit, and of the code."""
        layers = [LAYERS[self.mixing]] if self.mixing in LAYERS else []
        return key_of([SOURCE, FIT, self._model()], Cell.run, timed, *layers, model="glow")

    def write(self, result: Found) -> bytes:
        """Return a result as JSON."""
        return json.dumps(asdict(result)).encode()

    def read(self, content: bytes) -> Found:
        """Return the result that a file holds."""
        return Found(**json.loads(content))

    def _model(self) -> dict[str, Any]:
        placed = {"mixing": AXIS if self.mixing in LAYERS else self.mixing} | PLACED.get(self.mixing, {})
        return {"levels": 2, "steps": 4, "hidden": WIDTHS.get(self.mixing, WIDTHS[AXIS])} | placed

    def run(self) -> Found:
        """Fit and measure, in this process."""
        source, settings = open_source(SOURCE), self._model()
        with seeded(self.seed):
            layers = LAYERS.get(self.mixing)
            with (
                nullcontext()
                if layers is None
                else patch.object(multiscale, "mixing_layers", lambda kind, c, positions, **_: layers(c, positions))
            ):
                flow = zoo.build("glow", event_shape=source.event_shape, **settings)
        result = fit(flow, source, timed(FIT, self.seconds, self.seed))
        bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits.mean
        return Found(bits, result.steps, result.seconds, sum(p.numel() for p in flow.parameters()))


Results = dict[str, dict[int, Found]]


def gains(results: Results, ours: str, rival: str, must: tuple[float | None, float | None]) -> list[Entry]:
    """Compare two by seed: the mean gain, its 95 % interval, and the seed with the least."""
    pairs = [{seed: -found.bits for seed, found in results[name].items()} for name in (ours, rival)]
    paired = paired_difference(*pairs)
    title = f"{ours} over {rival}"
    worst = min(pairs[0][seed] - pairs[1][seed] for seed in pairs[0].keys() & pairs[1].keys())
    every, aim = must
    return [
        Entry(f"{title}, mean gain", paired.difference, "bits/dim", None, aim, "higher"),
        Entry(f"{title}, lower end of the 95 % interval", paired.low, "bits/dim", 0.0, None, "higher"),
        Entry(f"{title}, gain of the worst seed", worst, "bits/dim", every, None, "higher"),
    ]


def entries(results: Results) -> list[Entry]:
    """Return the figures of all that was measured, and the comparisons."""
    found = []
    for name, by_seed in results.items():
        for word, unit in (("bits", "bits/dim"), ("steps", "steps"), ("parameters", "parameters")):
            mean = statistics.mean(getattr(one, word) for one in by_seed.values())
            found.append(Entry(f"{name}, {word}" if word != "bits" else name, mean, unit))
    if len(min(results.values(), key=len)) > 1:
        goals = {(AXIS, PLAIN): (0.22, 0.35), (AXIS, EMERGING): (None, 0.15), (CONVOLUTION, PLAIN): (None, 0.15)}
        for (ours, rival), must in goals.items():
            if {ours, rival} <= set(results):
                found += gains(results, ours, rival, must)
    return found


def measure(options: argparse.Namespace, mixings: Sequence[str]) -> Results:
    """Measure seed by seed, so that all get the machine in the same state."""
    seeds, seconds = (1, 5.0) if options.quick else (options.seeds, options.seconds)
    results: Results = {name: {} for name in mixings}
    for name in options.again:
        for seed in range(seeds):
            forget(Cell(name, seed, seconds), options.folder)
    for seed in range(seeds):
        for name in mixings:
            results[name][seed] = measured(Cell(name, seed, seconds), options.folder)
            print(f"{name}, seed {seed}: {results[name][seed]}", flush=True)
    return results


def main() -> None:
    """Measure what was asked for, and report."""
    more = {
        "--seconds": {"type": float, "default": 60.0, "help": "processor time of a fit"},
        "--mixings": {"nargs": "+", "choices": (*WIDTHS, *VARIANTS), "default": list(WIDTHS), "help": "only these"},
        "--variants": {"action": "store_true", "help": "the axis exponential and what it might be instead"},
        "--again": {"nargs": "+", "choices": (*WIDTHS, *VARIANTS), "default": (), "help": "measure these once more"},
        "--folder": {"type": Path, "default": FOLDER, "help": "where results are kept"},
    }
    options = arguments(__doc__ or "", seeds=5, more=more)
    mixings = [AXIS, *VARIANTS] if options.variants else options.mixings
    report(entries(measure(options, mixings)), options.json)


if __name__ == "__main__":
    main()
