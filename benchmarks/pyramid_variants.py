"""What else the pyramid might be, at equal time: other colours, networks of each level, more components, other widths.

    python -m benchmarks.pyramid_variants --json results/pyramid_variants.json

Crops of two photographs, with the settings of the default fit, the same processor time on one thread, paired seeds
(weights and batches). Each fit is kept in a file as soon as it is done, and a run that was stopped goes on with the
next; fits of other settings or of another version of the code do not count.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import cells
from benchmarks.cells import key_of, measured
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import Chain, Flow, Normal, seeded, transforms
from likelify.data import open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.recipes import FITS
from likelify.zoo.pyramid import PyramidConfig

SOURCE = "sample-photos"
FIT = {name: value for name, value in FITS["pyramid"].items() if name not in ("steps", "max_time")}
FOLDER = Path("runs") / "benchmarks" / "pyramid-variants"
DEFAULT, COLOURS, APART = "as it is", "YCoCg-R in front", "networks of each level"
VARIANTS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    COLOURS: {},
    APART: {"networks": "per-level"},
    "10 components": {"components": 10},
    "width 64": {"width": 64},
    "width 32": {"width": 32},
}


def build(variant: str, event_shape: Sequence[int], levels: int) -> Flow:
    """Return a pyramid with fresh weights.

    Args:
        variant: which one.
        event_shape: of the images.
        levels: grey levels of each channel.
    """
    config = PyramidConfig(event_shape=tuple(event_shape), pixel_levels=levels, **VARIANTS[variant])
    flow = config.build()
    if variant != COLOURS:
        return flow
    return Flow(Normal(config.event_shape), Chain([transforms.YCoCgR(levels), flow.transform]))


@dataclass(frozen=True)
class Cell(cells.Cell[dict[str, float]]):
    """One fit: a variant, a seed, and processor seconds."""

    variant: str
    seed: int
    seconds: float

    def key(self) -> str:
        """Return a hash of the settings of model and fit, and of the code."""
        return key_of([SOURCE, FIT, VARIANTS[self.variant]], Cell.run, build, timed, model="pyramid")

    def run(self) -> dict[str, float]:
        """Fit once; return exact test bits/dim, steps and parameters."""
        source = open_source(SOURCE)
        with seeded(self.seed):
            flow = build(self.variant, source.event_shape, source.levels or 0)
        result = fit(flow, source, timed(FIT, self.seconds, self.seed))
        bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits.mean
        return {"bits": bits, "steps": result.steps, "parameters": sum(p.numel() for p in flow.parameters())}


def entries_of(results: dict[str, list[dict[str, float]]]) -> list[Entry]:
    """Summarise the fits, and by how much each variant is below the default: in the mean, and in the worst seed."""
    entries = []
    for name, rows in results.items():
        entries += [
            Entry(f"pyramid, {name}", statistics.mean(row["bits"] for row in rows), "bits/dim"),
            Entry(f"pyramid, {name}, steps", statistics.mean(row["steps"] for row in rows), "steps", better="higher"),
            Entry(f"pyramid, {name}, parameters", rows[0]["parameters"], "parameters"),
        ]
        if name != DEFAULT and DEFAULT in results:
            gains = [other["bits"] - row["bits"] for row, other in zip(rows, results[DEFAULT], strict=True)]
            entries += [
                Entry(f"pyramid, {name}, gain", statistics.mean(gains), "bits/dim", better="higher"),
                Entry(f"pyramid, {name}, gain of the worst seed", min(gains), "bits/dim", better="higher"),
            ]
    return entries


def main() -> None:
    """Measure all variants seed by seed, and report."""
    more = {
        "--seconds": {"type": float, "default": 120.0, "help": "processor time of a fit"},
        "--variants": {"nargs": "+", "choices": list(VARIANTS), "default": list(VARIANTS), "help": "only these"},
        "--folder": {"type": Path, "default": FOLDER, "help": "where the fits are kept"},
    }
    options = arguments(__doc__ or "", seeds=2, more=more)
    seeds, seconds = (1, 3.0) if options.quick else (options.seeds, options.seconds)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.variants}
    for seed in range(seeds):
        for name, rows in results.items():
            rows.append(measured(Cell(name, seed, seconds), options.folder))
            print(f"{name}, seed {seed}: {rows[-1]}", flush=True)
    report(entries_of(results), options.json)


if __name__ == "__main__":
    main()
