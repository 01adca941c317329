"""The same small glow with 1x1 and with convolution-exponential mixing, on crops of two photographs.

Equal parameters (the widths of the networks see to that; the exponential has a little fewer), equal steps, paired seeds
(weights, batches and noise), one thread; the processor time of both is printed. A third row gives the 1x1 as much
processor time as the exponential took.
"""

import statistics

from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import seeded, zoo
from likelify.data import Source, open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.fitting.settings import FitSettings

FIT = {"lr": 2e-3, "batch_size": 32, "average": 0.99, "validations": 3}
WIDTHS = {"1x1": 48, "conv-exponential": 38}


def run(source: Source, mixing: str, seed: int, steps: int, seconds: float | None = None) -> tuple[float, float]:
    """Fit once, for so many steps or seconds; return test bits/dim (ELBO) and processor seconds."""
    with seeded(seed):
        model = {"levels": 2, "steps": 4, "mixing": mixing, "hidden": WIDTHS[mixing]}
        flow = zoo.build("glow", event_shape=source.event_shape, **model)
    if seconds is None:
        settings = FitSettings(**FIT, steps=steps, clock="processor", seed=seed)
    else:
        settings = timed(FIT, seconds, seed)
    result = fit(flow, source, settings)
    bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits.mean
    size = sum(p.numel() for p in flow.parameters())
    title = mixing if seconds is None else f"{mixing}, same time"
    print(
        f"seed {seed}  {title:<17} {size:,} parameters  {result.steps} steps  {result.seconds:.0f} processor s  "
        f"{bits:.4f} bits/dim",
        flush=True,
    )
    return bits, result.seconds


def main() -> None:
    """Run all seeds and report."""
    options = arguments(__doc__ or "", seeds=4)
    source = open_source("sample-photos")
    seeds, steps = (1, 30) if options.quick else (options.seeds, 300)
    rows: dict[str, list[tuple[float, float]]] = {"1x1": [], "conv-exponential": [], "1x1, same time": []}
    for seed in range(seeds):
        for mixing in WIDTHS:
            rows[mixing].append(run(source, mixing, seed, steps))
        if not options.quick:
            seconds = rows["conv-exponential"][-1][1]
            rows["1x1, same time"].append(run(source, "1x1", seed, steps, seconds))
    rows = {name: results for name, results in rows.items() if results}
    entries = []
    for name, results in rows.items():
        entries.append(Entry(f"photos {name}", statistics.mean(bits for bits, _ in results), "bits/dim"))
        entries.append(Entry(f"photos {name}, time", statistics.mean(time for _, time in results), "processor s"))
    for name, must in {"1x1": 0.10, "1x1, same time": None}.items():
        if name not in rows:
            continue
        gaps = [rival - ours for (rival, _), (ours, _) in zip(rows[name], rows["conv-exponential"], strict=True)]
        title = f"photos gain of the exponential over {name}"
        entries.append(Entry(f"{title}, mean", statistics.mean(gaps), "bits/dim", must, None, "higher"))
        entries.append(Entry(f"{title}, worst seed", min(gaps), "bits/dim", must and 0.0, None, "higher"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
