"""When exponentials pay: four data sets, four ways to mix, three seeds, equal processor time.

    python -m benchmarks.exponentials_pay                     # what is missing of 48 fits of a minute, then the figures
    python -m benchmarks.exponentials_pay --only 5            # five of them: go on whenever you like
    python -m benchmarks.exponentials_pay --page docs/when-exponentials-pay.md

A small glow is fitted to digits, Fashion-MNIST, crops of photographs and emoji, with 1x1 convolutions, with emerging
convolutions, and with a convolution exponential or an axis exponential behind each 1x1 convolution. All fits have the
same number of seconds of one processor, everything included, and about as many parameters: the widths of the networks
see to that. Each is a cell with a file of its own, so a run that was stopped goes on; cells of other settings or of
another version of the code do not count. The page is made from the file of figures alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cells as kept
from benchmarks.cells import found, key_of, run_missing
from benchmarks.emoji import DIGEST, SIZE, TEST, VALIDATION, emoji
from benchmarks.exponentials_page import page
from benchmarks.fits import timed
from benchmarks.report import arguments
from likelify import seeded, zoo
from likelify.data import Source, open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.sources import DataChoice, open_data
from likelify.flows import Flow

FOLDER, JSON = Path("runs") / "benchmarks" / "exponentials_pay", Path("results") / "exponentials_pay.json"
SECONDS, SEEDS, QUICK_SECONDS = 60.0, 3, 3.0
MIXINGS = ("1x1", "emerging", "conv-exponential", "axis-exponential")
FIT = {"batch_size": 32, "lr": 2e-3, "average": 0.99, "validations": 6}
WIDTH = 48
SCALES = {"levels": 2, "steps": 4}
# Images of which the data are described.
LOOKED_AT = 500
OPTIONS = {
    "--data": {"nargs": "+", "help": "only these data sets"},
    "--mixings": {"nargs": "+", "choices": MIXINGS, "help": "only these"},
    "--seconds": {"type": float, "default": SECONDS, "help": "processor time of a fit"},
    "--only": {"type": int, "default": None, "help": "run at most so many of the missing cells"},
    "--folder": {"type": Path, "default": FOLDER, "help": "where cells are kept"},
    "--page": {"type": Path, "help": "write the page from the figures that there are, and run nothing"},
}


@dataclass(frozen=True)
class Data:
    """A data set, and the model that is fitted to it.

    Attributes:
        open: returns the source.
        model: settings of the glow.
        chosen: which data these are, as plain data.
    """

    open: Callable[[], Source]
    model: dict[str, Any]
    chosen: Any


# Of 10,000 test images of Fashion-MNIST the measurement would take as long as the fit.
FASHION = DataChoice(source="fashion-mnist", limits={"validation": 500, "test": 2000})
DIGITS_MODEL = {"levels": 1, "steps": 6, "coupling": "spline", "dropout": 0.1}
DATA: dict[str, Data] = {
    "digits": Data(lambda: open_source("digits"), DIGITS_MODEL, "digits"),
    "Fashion-MNIST": Data(lambda: open_data(FASHION), SCALES, FASHION.model_dump(mode="json")),
    "photographs": Data(lambda: open_source("sample-photos"), SCALES, "sample-photos"),
    "emoji": Data(emoji, SCALES, [DIGEST, VALIDATION, TEST, SIZE]),
}


@dataclass(frozen=True)
class Cell(kept.Cell[dict[str, Any]]):
    """One fit.

    Attributes:
        data: name of the data set.
        mixing: name of the way to mix.
        seed: of weights, batches and noise; those of one seed are a pair.
        seconds: of the processor, for the fit.
    """

    data: str
    mixing: str
    seed: int
    seconds: float

    def key(self) -> str:
        """Return a hash of the settings of data, model and fit, and of the code."""
        data = DATA[self.data]
        return key_of([FIT, WIDTH, data.model, data.chosen], Cell.run, model, equal_width, timed, model="glow")

    def run(self) -> dict[str, Any]:
        """Fit and measure in this process; return the result as plain data."""
        source = _source(self.data)
        width = equal_width(self.data, self.mixing)
        with seeded(self.seed):
            flow = model(self.data, self.mixing, width)
        begin = time.process_time()
        course = fit(flow, source, timed(FIT, self.seconds, self.seed))
        spent = time.process_time() - begin
        bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits
        return asdict(self) | {
            "bits": bits.mean,
            "standard_error": bits.standard_error,
            "steps": course.steps,
            "spent": round(spent, 2),
            "width": width,
            "parameters": _size(flow),
        }


@cache
def _source(name: str) -> Source:
    return DATA[name].open()


def model(name: str, mixing: str, width: int) -> Flow:
    """Return the glow of a data set with networks of some width."""
    source = _source(name)
    settings = {"event_shape": source.event_shape, "pixel_levels": source.levels} | DATA[name].model
    return zoo.build("glow", mixing=mixing, hidden=width, **settings)


def equal_width(name: str, mixing: str) -> int:
    """Return the largest width with which there are no more parameters than with 1x1 convolutions at full width."""
    allowed = _size(model(name, MIXINGS[0], WIDTH))
    return next(width for width in range(WIDTH, 0, -1) if _size(model(name, mixing, width)) <= allowed)


def _size(flow: Flow) -> int:
    return sum(parameter.numel() for parameter in flow.parameters())


def looks(source: Source) -> dict[str, float]:
    """Return what says whether mixing of neighbours can help.

    Returns:
        `equal`: the share of horizontal neighbours of the same value; `correlation`: of horizontal neighbours.
    """
    count = min(LOOKED_AT, source.size("test"))
    x = source.read("test", torch.arange(count)).x.double().numpy()
    left, right = x[..., :-1].ravel(), x[..., 1:].ravel()
    return {
        "equal": float(np.mean(left == right)),
        "correlation": float(np.corrcoef(left, right)[0, 1]),
    }


def cells(names: Sequence[str], mixings: Sequence[str], seeds: int, seconds: float) -> list[Cell]:
    """Return the cells, those of one seed and data set together, so that a run that was stopped has complete pairs."""
    return [Cell(name, mixing, seed, seconds) for seed in range(seeds) for name in names for mixing in mixings]


def said(cell: Cell, result: dict[str, Any]) -> str:
    """Return a line on a cell and its result."""
    return (
        f"{cell.data}, {cell.mixing}, seed {cell.seed}: {result['bits']:.3f} bits/dim after {result['steps']} "
        f"steps, {result['parameters']:,} parameters, {result['spent']:.0f} s"
    )


def figures(wanted: Sequence[Cell], folder: Path) -> dict[str, Any]:
    """Return all figures as plain data: of the data sets, and of the cells that have results."""
    results = [result for cell in wanted if (result := found(cell, folder)) is not None]
    names = dict.fromkeys(result["data"] for result in results)
    return {
        "seconds": wanted[0].seconds,
        "wanted": len(wanted),
        "data": {name: looks(_source(name)) | {"description": _source(name).description} for name in names},
        "cells": results,
    }


def main() -> None:
    """Run the cells that are missing, or write the page."""
    options = arguments(__doc__ or "", seeds=SEEDS, more=OPTIONS)
    if options.page is not None:
        options.page.write_text(page(json.loads((options.json or JSON).read_text())))
        return
    _run(options)


def _run(options: argparse.Namespace) -> None:
    seconds, seeds = (QUICK_SECONDS, 1) if options.quick else (options.seconds, options.seeds)
    names = options.data or (["digits"] if options.quick else list(DATA))
    unknown = sorted(set(names) - set(DATA))
    if unknown:
        raise SystemExit(f"There are no data {unknown}; there are {', '.join(DATA)}.")
    wanted = cells(names, options.mixings or MIXINGS, seeds, seconds)
    run_missing(wanted, options.folder, options.only, said)
    content = figures(wanted, options.folder)
    for name in content["data"]:
        for mixing in MIXINGS:
            bits = [cell["bits"] for cell in content["cells"] if (cell["data"], cell["mixing"]) == (name, mixing)]
            if bits:
                print(f"{name:<14} {mixing:<17} {statistics.mean(bits):.4f} bits/dim, {len(bits)} seeds")
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
