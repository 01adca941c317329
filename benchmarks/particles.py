"""Particles: how near the default model comes to the densities of `dw4` and `lj13`, from few and from many draws.

    python -m benchmarks.particles --json results/particles.json            # what is missing of four fits of 600 s
    python -m benchmarks.particles --data dw4-1000 dw4                      # only these; the others may run beside them
    python -m benchmarks.particles --page docs/results/particles.md         # the page, from the file of figures alone

Each fit has the model and the settings that `likelify fit` chooses, and so many seconds of one processor, everything
included, with as many steps as they allow. Held-out `-log p` is compared with the entropy of the system, `E U + ln Z`,
of `results/graph_truth.json` (`benchmarks.graph_truth`), configuration by configuration: `-log p(x) - U(x) - ln Z`
varies far less than `-log p(x)`. Errors are by the number of configurations that count as independent. A fit is a cell
with a file of its own, so a run that was stopped goes on; cells of other settings or of another version of the code do
not count.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks import cells as kept
from benchmarks.cells import found, key_of, run_missing
from benchmarks.fits import timed
from benchmarks.particles_page import page
from benchmarks.report import arguments
from likelify import Flow, seeded
from likelify.data import Batch, Source, SplitName, energy, open_source
from likelify.data.simulated.particles import SYSTEMS
from likelify.fitting.choose import Choice, choose
from likelify.fitting.figures import Score
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.transforms import with_steps

FOLDER, JSON = Path("runs") / "benchmarks" / "particles", Path("results") / "particles.json"
TRUTH = Path("results") / "graph_truth.json"
SECONDS, ITEMS, SEEDS = 600.0, 10_000, 1
QUICK_SECONDS, QUICK_ITEMS, QUICK_DATA = 10.0, 200, ("dw4-1000",)
DATA = ("dw4-1000", "dw4", "lj13-1000", "lj13")
# Configurations by which the error of the solver is estimated, and so many training configurations are looked at.
SOLVED, TRAINED = 500, 1000
# Further from the mean energy that the reference was made of, in kT, these are other configurations.
SAME = 1e-3
OPTIONS = {
    "--data": {"nargs": "+", "choices": DATA, "help": "only these"},
    "--seconds": {"type": float, "default": SECONDS, "help": "processor time of a fit"},
    "--only": {"type": int, "default": None, "help": "run at most so many of the missing cells"},
    "--folder": {"type": Path, "default": FOLDER, "help": "where cells are kept"},
    "--page": {"type": Path, "help": "write the page from the figures that there are, and run nothing"},
}


@dataclass(frozen=True)
class Cell(kept.Cell[dict[str, Any]]):
    """One fit.

    Attributes:
        data: name of the source.
        seed: of weights, batches and noise.
        seconds: of the processor, for the fit.
        items: test configurations that are measured.
    """

    data: str
    seed: int
    seconds: float
    items: int

    def key(self) -> str:
        """Return a hash of data, settings and code."""
        chosen = choice(self.data)
        settings = [chosen.model.model_dump(mode="json"), chosen.fit.model_dump(mode="json")]
        data = opened(self.data).fingerprint()
        recipe = (Cell.run, above, solver_change, timed)
        return key_of([data, settings, SOLVED, TRAINED], *recipe, model=chosen.model.name)

    def run(self) -> dict[str, Any]:
        """Fit and measure in this process; return the result as plain data."""
        source, chosen = opened(self.data), choice(self.data)
        with seeded(self.seed):
            flow = chosen.model.build()
        begin = time.process_time()
        course = fit(flow, source, timed(chosen.fit.model_dump(), self.seconds, self.seed))
        spent = time.process_time() - begin
        test, train = above(flow, source, "test", self.items), above(flow, source, "train", TRAINED)
        return asdict(self) | {
            "test": test,
            "train": train,
            "solver": solver_change(flow, source),
            "model": chosen.title,
            "parameters": sum(parameter.numel() for parameter in flow.parameters()),
            "steps": course.steps,
            "best_step": course.best_step,
            "spent": round(spent, 2),
            "measuring": round(time.process_time() - begin - spent, 2),
        }


@cache
def opened(name: str) -> Source:
    """Return a source."""
    return open_source(name)


@cache
def choice(name: str) -> Choice:
    """Return the model and the settings of the fit that `likelify fit` chooses."""
    return choose(opened(name).facts())


def system_of(name: str) -> str:
    """Return the name of the system that a source has configurations of."""
    return next(system for system in SYSTEMS if name in (system, f"{system}-1000"))


def above(flow: Flow, source: Source, split: SplitName, items: int) -> dict[str, float]:
    """Return by how much a model misses configurations, in nats per configuration.

    Returns:
        `nats`: the mean of `-log p`; `above`: that of `-log p - U`, which a perfect model has at `ln Z`; and their
        standard errors, as of independent configurations; `items`: how many there were.
    """
    system = system_of(source.name)

    def unnormalized(batch: Batch) -> Tensor:
        return -energy(system, batch.x.double())

    score = _measured(flow, source, split, items, unnormalized)
    excess, nodes = score.kl, SYSTEMS[system].particles
    assert excess is not None
    return {
        "nats": -score.nats.mean,
        "nats_error": _error(score.nats.standard_error),
        "above": excess.mean * nodes,
        "above_error": _error(excess.standard_error) * nodes,
        "items": score.nats.count,
    }


def solver_change(flow: Flow, source: Source) -> float:
    """Return how `-log p` changes in the mean with twice the steps of the solver, in nats per configuration."""
    steps = choice(source.name).model.model_dump()["solver_steps"]
    usual, fine = (_measured(each, source, "test", SOLVED) for each in (flow, with_steps(flow, 2 * steps)))
    return usual.nats.mean - fine.nats.mean


def _measured(
    flow: Flow, source: Source, split: SplitName, items: int, truth: Callable[[Batch], Tensor] | None = None
) -> Score:
    return evaluate(flow, source, split=split, limit=items, elbo_samples=1, iw_samples=0, truth=truth).elbo


def _error(value: float | None) -> float:
    return math.nan if value is None else value


def cells(names: Sequence[str], seeds: int, seconds: float, items: int) -> list[Cell]:
    """Return the cells, those of a seed together."""
    return [Cell(name, seed, seconds, items) for seed in range(seeds) for name in names]


def said(cell: Cell, result: dict[str, Any]) -> str:
    """Return a line on a cell and its result."""
    test, spent, measuring = result["test"], result["spent"], result["measuring"]
    return (
        f"{cell.data}, seed {cell.seed}: {test['nats']:.3f} +- {test['nats_error']:.3f} nats per configuration "
        f"after {result['steps']} steps, {spent:.0f} s and {measuring:.0f} s of measuring"
    )


def references(names: Sequence[str], file: Path = TRUTH) -> dict[str, dict[str, float]]:
    """Return the entropies of the systems of some sources, and what they were made of.

    Raises:
        SystemExit: if the file has none of a system, or was made of other configurations.
    """
    values = {entry["name"]: entry["value"] for entry in json.loads(file.read_text())} if file.exists() else {}
    return {system: _reference(system, values, file) for system in dict.fromkeys(map(system_of, names))}


def _reference(system: str, values: Mapping[str, float], file: Path) -> dict[str, float]:
    words = {
        "nats": "reference E U + ln Z",
        "error": "reference, standard error",
        "log_normalizer": "ln Z",
        "log_normalizer_error": "ln Z, standard error",
        "independent": "draws that count as independent",
    }
    again = f"Make it again: python -m benchmarks.graph_truth --json {file}"
    if missing := [word for word in [*words.values(), "mean energy"] if f"{system}: {word}" not in values]:
        raise SystemExit(f"'{file}' does not say '{system}: {missing[0]}'. {again}")
    energies = energy(system, opened(system).read_all("test").x)
    if abs(float(energies.mean()) - values[f"{system}: mean energy"]) > SAME:
        raise SystemExit(f"'{file}' is of other test configurations of '{system}' than are here. {again}")
    return {name: values[f"{system}: {word}"] for name, word in words.items()}


def normal(source: Source) -> float:
    """Return the mean of `-log p` of test configurations, in nats, where positions around the centre are normal.

    In the orthonormal coordinates of positions with mean zero they are independent, with the variance of the training
    configurations.
    """
    dimension = SYSTEMS[system_of(source.name)].dimension
    train, test = (_squares(source, split) for split in ("train", "test"))
    variance = train / dimension
    return dimension / 2 * math.log(2 * math.pi * variance) + test / (2 * variance)


def _squares(source: Source, split: SplitName) -> float:
    """Return the mean over the configurations of the sum of the squares of all coordinates."""
    return float(source.read_all(split).x.square().sum()) / source.size(split)


def figures(wanted: Sequence[Cell], folder: Path) -> dict[str, Any]:
    """Return all figures as plain data: of the systems, of the data, and of the cells that have results."""
    results = [result for cell in wanted if (result := found(cell, folder)) is not None]
    names = list(dict.fromkeys(cell.data for cell in wanted))
    known = references(names)
    for result in results:
        reference = known[system_of(result["data"])]
        for split in ("test", "train"):
            result[split] |= compared(result[split], reference, share=reference["independent"])
    return {
        "seconds": wanted[0].seconds,
        "wanted": len(wanted),
        "references": known,
        "data": {name: _described(name) for name in names},
        "cells": results,
    }


def _described(name: str) -> dict[str, Any]:
    source, system = opened(name), system_of(name)
    return {
        "system": system,
        "dimension": SYSTEMS[system].dimension,
        "configurations": source.size("train"),
        "normal": normal(source),
    }


def compared(score: Mapping[str, float], reference: Mapping[str, float], share: float) -> dict[str, float]:
    """Return how far a model is from the density of a system, and errors as of independent configurations.

    Args:
        score: what `above` returns.
        reference: of the system.
        share: of the configurations that count as independent.

    Returns:
        `gap`: the Kullback-Leibler divergence that the configurations estimate, `gap_error`: its standard error,
        that of the normalizer included, and `nats_error`, all in nats per configuration.
    """
    drawn = score["above_error"] / math.sqrt(share)
    return {
        "gap": score["above"] - reference["log_normalizer"],
        "gap_error": math.hypot(drawn, reference["log_normalizer_error"]),
        "nats_error": score["nats_error"] / math.sqrt(share),
    }


def main() -> None:
    """Run the cells that are missing, or write the page."""
    options = arguments(__doc__ or "", seeds=SEEDS, more=OPTIONS)
    if options.page is not None:
        options.page.write_text(page(json.loads((options.json or JSON).read_text())))
        return
    _run(options)


def _run(options: argparse.Namespace) -> None:
    quick = options.quick
    seconds, items = (QUICK_SECONDS, QUICK_ITEMS) if quick else (options.seconds, ITEMS)
    names = options.data or (QUICK_DATA if quick else DATA)
    wanted = cells(names, 1 if quick else options.seeds, seconds, items)
    # What is missing there should be known before the fits, not after them.
    references(names)
    run_missing(wanted, options.folder, options.only, said)
    content = figures(wanted, options.folder)
    for cell in content["cells"]:
        reference, test = content["references"][system_of(cell["data"])], cell["test"]
        print(
            f"{cell['data']:<10} seed {cell['seed']}: {test['nats']:.3f} +- {test['nats_error']:.3f} nats per "
            f"configuration; reference {reference['nats']:.3f} +- {reference['error']:.3f}; "
            f"gap {test['gap']:.3f} +- {test['gap_error']:.3f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
