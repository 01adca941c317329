"""The same small glow with 1x1 and with convolution-exponential mixing, on crops of two photographs.

Equal parameters, equal steps, paired seeds (weights, batches and noise), one thread; the processor time of both is
printed. The widths of the networks make the parameters equal, the exponential's a little fewer.
"""

import statistics

from benchmarks.report import Entry, arguments, report
from likelify import seeded, zoo
from likelify.data import Source, open_source
from likelify.fit.loop import fit
from likelify.fit.metrics import evaluate
from likelify.fit.settings import FitSettings

WIDTHS = {"1x1": 48, "conv-exponential": 38}


def run(source: Source, mixing: str, seed: int, steps: int) -> tuple[float, float, int]:
    """Fit once; give test bits/dim (ELBO), processor seconds and parameters."""
    with seeded(seed):
        flow = zoo.glow(source.event_shape, levels=2, steps=4, mixing=mixing, hidden=WIDTHS[mixing])
    settings = FitSettings(
        steps=steps,
        clock="processor",
        lr=2e-3,
        batch_size=32,
        average=0.99,
        validations=3,
        seed=seed,
    )
    result = fit(flow, source, settings)
    measured = evaluate(flow, source, elbo_samples=1, iw_samples=0)
    size = sum(p.numel() for p in flow.parameters())
    return measured.elbo_bits.mean, result.seconds, size


def main() -> None:
    """Run all seeds and report."""
    options = arguments(__doc__ or "", seeds=4)
    source = open_source("sample-photos")
    seeds, steps = (1, 60) if options.quick else (options.seeds, 400)
    entries, gaps = [], []
    for seed in range(seeds):
        bits = {}
        for mixing in WIDTHS:
            bits[mixing], spent, size = run(source, mixing, seed, steps)
            print(
                f"seed {seed}  {mixing:<17} {size:,} parameters  {steps} steps  {spent:.0f} processor s  "
                f"{bits[mixing]:.4f} bits/dim",
                flush=True,
            )
            entries.append(Entry(f"photos {mixing} seed {seed}", bits[mixing], "bits/dim"))
            entries.append(Entry(f"photos {mixing} seed {seed} time", spent, "processor s"))
        gaps.append(bits["1x1"] - bits["conv-exponential"])
    entries.append(
        Entry("photos gain of the exponential, mean", statistics.mean(gaps), "bits/dim", 0.10, 0.14, "higher")
    )
    entries.append(Entry("photos gain of the exponential, worst seed", min(gaps), "bits/dim", 0.0, 0.10, "higher"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
