"""Posteriors of a VAE on digits: Gaussian, planar, original, generalized and convolutional Sylvester flows.

Encoder, decoder, the Gaussian that the flows start from, the 32 latent dimensions (2 x 4 x 4 images) and the fit
(steps, batches, no warm-up of the KL term) are the same for all; the flows have four layers each. Figures are of the
test split, in nats per image: the ELBO, and importance weighting with 200 draws. Each run that is finished is kept in
the system's temporary folder, so a benchmark that was interrupted goes on where it stopped.
"""

import hashlib
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from benchmarks.report import Entry, arguments, report
from likelify import seeded
from likelify.data import Source, open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings
from likelify.zoo.vae import VaeConfig

Figures = dict[str, float]
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


def run(posterior: str, source: Source, seed: int, sizes: dict[str, int]) -> Figures:
    """Fit one posterior once and measure it on the test split."""
    settings = {"event_shape": source.event_shape, "pixel_levels": source.levels, "posterior": posterior}
    start = time.process_time()
    with seeded(seed):
        flow = VaeConfig.parse(settings | SHARED | POSTERIORS[posterior]).build()
    result = fit(flow, source, FitSettings(**FIT, steps=sizes["steps"], seed=seed))
    measured = evaluate(flow, source, elbo_samples=20, iw_samples=sizes["iw"])
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


def resumed(posterior: str, source: Source, seed: int, sizes: dict[str, int]) -> Figures:
    """Read a run that is finished, or do it."""
    settings = json.dumps([posterior, seed, sizes, SHARED, POSTERIORS[posterior], FIT, source.fingerprint()])
    name = f"{posterior}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}.json"
    file = Path(tempfile.gettempdir()) / "likelify-vae-posteriors" / name
    if not file.exists():
        figures = run(posterior, source, seed, sizes)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(figures))
    figures = json.loads(file.read_text())
    print(
        f"seed {seed}  {posterior:<14} ELBO {figures['elbo']:8.3f}  IW {figures['iw']:8.3f} nats  "
        f"{figures['iw bits']:.4f} bits/dim  best step {figures['best step']}  "
        f"{figures['parameters']:.0f} parameters  {figures['processor seconds']:.0f} processor s",
        flush=True,
    )
    return figures


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
    source = open_source("digits")
    seeds, sizes = (1, QUICK) if options.quick else (options.seeds, FULL)
    runs: dict[str, list[Figures]] = {posterior: [] for posterior in POSTERIORS}
    for seed in range(seeds):
        for posterior, found in runs.items():
            found.append(resumed(posterior, source, seed, sizes))
    report(entries_of(runs), options.json)


if __name__ == "__main__":
    main()
