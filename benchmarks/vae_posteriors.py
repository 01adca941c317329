"""Posteriors of a VAE on digits: Gaussian, planar, original, generalized and convolutional Sylvester flows.

Encoder, decoder, the Gaussian that the flows start from, the 32 latent dimensions (2 x 4 x 4 images) and the fit
(steps, batches, no warm-up of the KL term) are the same for all; the flows have four layers each. Figures are of the
test split, in nats per image: the ELBO, and importance weighting with 200 draws. Each fit is a cell, so a benchmark
that was interrupted goes on where it stopped.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import cells
from benchmarks.report import Entry, arguments, report
from likelify import seeded
from likelify.data import open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings
from likelify.zoo.vae import VaeConfig

Figures = dict[str, float]
FOLDER = Path("runs") / "benchmarks" / "vae-posteriors"
SHARED = {"latent_channels": 2, "flows": 4}
# Sizes that give the three Sylvester flows a similar number of parameters; planar layers have no size to choose.
POSTERIORS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "planar": {},
    "sylvester": {"hidden_units": 16, "reflections": 8},
    "generalized": {"flow_hidden": 128, "reflections": 8},
    "convolutional": {"flow_hidden": 256},
}
FULL = {"steps": 1000, "iw": 200}
QUICK = {"steps": 30, "iw": 20}
FIT = {"lr": 2e-3, "batch_size": 128, "average": 0.995}


@dataclass(frozen=True)
class Cell(cells.Cell[Figures]):
    """One posterior, fitted once and measured on the test split.

    Attributes:
        posterior: its name.
        seed: of weights and fit.
        steps: of the fit.
        iw: draws for importance weighting.
    """

    posterior: str
    seed: int
    steps: int
    iw: int

    def key(self) -> str:
        """Return a hash of the settings and the code."""
        return cells.key_of([SHARED, POSTERIORS[self.posterior], FIT], type(self).run, model="vae")

    def run(self) -> Figures:
        """Fit and measure."""
        source = open_source("digits")
        settings = {"event_shape": source.event_shape, "pixel_levels": source.levels, "posterior": self.posterior}
        start = time.process_time()
        with seeded(self.seed):
            flow = VaeConfig.parse(settings | SHARED | POSTERIORS[self.posterior]).build()
        result = fit(flow, source, FitSettings(**FIT, steps=self.steps, seed=self.seed))
        measured = evaluate(flow, source, elbo_samples=20, iw_samples=self.iw)
        layers = flow.transform.posterior.transform
        return {
            "elbo": measured.elbo.nats.mean,
            "iw": measured.iw.nats.mean,
            "elbo bits": measured.elbo.bits.mean,
            "iw bits": measured.iw.bits.mean,
            "ess": measured.iw.ess,
            "best step": result.best_step,
            "parameters": sum(p.numel() for p in flow.parameters()),
            "flow parameters": sum(p.numel() for p in layers.parameters()),
            "processor seconds": time.process_time() - start,
        }


def said(cell: Cell, figures: Figures) -> str:
    """Return a line on a cell and its result."""
    return (
        f"seed {cell.seed}  {cell.posterior:<14} ELBO {figures['elbo']:8.3f}  IW {figures['iw']:8.3f} nats  "
        f"{figures['iw bits']:.4f} bits/dim  best step {figures['best step']}  "
        f"{figures['parameters']:.0f} parameters  {figures['processor seconds']:.0f} processor s"
    )


def summarised(name: str, values: list[float], unit: str, better: Literal["higher", "lower"]) -> list[Entry]:
    """Return the mean over the seeds, and their standard deviation if there are several."""
    entries = [Entry(name, statistics.mean(values), unit, better=better)]
    if len(values) > 1:
        entries.append(Entry(f"{name}, std over seeds", statistics.stdev(values), unit))
    return entries


def entries_of(runs: dict[str, list[Figures]]) -> list[Entry]:
    """Summarise the runs, and the gains over the Gaussian, paired by seed."""
    entries = []
    for posterior, found in runs.items():
        for key in ("elbo", "iw"):
            name = f"vae {posterior}, {key.upper()}"
            entries += summarised(name, [figures[key] for figures in found], "nats", "higher")
            entries += summarised(f"{name} as bits", [figures[f"{key} bits"] for figures in found], "bits/dim", "lower")
        entries.append(Entry(f"vae {posterior}, parameters of the flow", found[0]["flow parameters"], "parameters"))
    for posterior in list(runs)[1:]:
        for key in ("elbo", "iw"):
            gains = [own[key] - base[key] for own, base in zip(runs[posterior], runs["gaussian"], strict=True)]
            entries += summarised(f"vae {posterior}, gain in {key.upper()} over gaussian", gains, "nats", "higher")
    return entries


def main() -> None:
    """Run all posteriors and seeds and report."""
    options = arguments(__doc__ or "", seeds=3)
    seeds, sizes = (1, QUICK) if options.quick else (options.seeds, FULL)
    wanted = [Cell(posterior, seed, **sizes) for seed in range(seeds) for posterior in POSTERIORS]
    cells.run_missing(wanted, FOLDER, None, said)
    runs: dict[str, list[Figures]] = {posterior: [] for posterior in POSTERIORS}
    for cell in wanted:
        runs[cell.posterior].append(cells.measured(cell, FOLDER))
    report(entries_of(runs), options.json)


if __name__ == "__main__":
    main()
