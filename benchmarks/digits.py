"""Digits: the default flow with and without its exponential, and glows with both mixing layers, at equal time."""

import statistics

from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import seeded
from likelify.data import Source, open_source
from likelify.fitting import recipes
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.zoo import config_from_dict

ROWS = {
    "independent pixels": ("marginal-spline", {"couplings": 1, "exponentials": 0}),
    "marginal-spline (default)": ("marginal-spline", {}),
    "marginal-spline without exponential": ("marginal-spline", {"exponentials": 0}),
    "glow, 1x1": ("glow", {"mixing": "1x1"}),
    "glow, conv-exponential": ("glow", {"mixing": "conv-exponential"}),
}


def run(name: str, source: Source, seed: int, seconds: float) -> float:
    """Fit one row; return test bits/dim (ELBO, 10 draws). Independent pixels are a fresh flow with fitted marginals."""
    model, settings = ROWS[name]
    values = {"model": model, "event_shape": source.event_shape, "pixel_levels": source.levels}
    with seeded(seed):
        flow = config_from_dict(values | recipes.images.SOURCES["digits"].models.get(model, {}) | settings).build()
    steps = 0
    if name == "independent pixels":
        flow.initialize(source.read_all("train").x)
    else:
        steps = fit(flow, source, timed(recipes.FITS[model], seconds, seed)).steps
    measured = evaluate(flow, source, elbo_samples=10, iw_samples=0)
    print(
        f"seed {seed}  {name:<36} {steps:5d} steps  test {measured.elbo.bits.mean:.4f} +- "
        f"{measured.elbo.bits.standard_error:.4f} bits/dim",
        flush=True,
    )
    return measured.elbo.bits.mean


def main() -> None:
    """Run all rows and seeds and report."""
    options = arguments(__doc__ or "", seeds=3)
    source = open_source("digits")
    seeds, seconds = (1, 8.0) if options.quick else (options.seeds, 90.0)
    bits = {name: [run(name, source, seed, seconds) for seed in range(seeds)] for name in ROWS}
    entries = [Entry(f"digits {name}", statistics.mean(values), "bits/dim") for name, values in bits.items()]
    entries[1] = Entry(entries[1].name, entries[1].value, "bits/dim", 1.87, 1.82)
    pairs = zip(bits["marginal-spline (default)"], bits["marginal-spline without exponential"], strict=True)
    cost = statistics.mean(with_it - without for with_it, without in pairs)
    entries.append(Entry("digits cost of the exponential in the default", cost, "bits/dim", 0.01))
    report(entries, options.json)


if __name__ == "__main__":
    main()
