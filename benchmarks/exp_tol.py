"""What a looser tolerance of exponentials in training steps (`FitSettings.exp_tol`) costs and saves on photographs.

The small glow with convolution-exponential mixing, at equal steps: full tolerance in training and two
looser ones, paired seeds (weights, batches and noise), one thread. All are evaluated at full tolerance. A fit takes
about a minute; each is kept in a file as soon as it is done, and a run that was broken off goes on with the next.
"""

import json
import statistics
from pathlib import Path

from benchmarks.report import Entry, arguments, report
from likelify import seeded, zoo
from likelify.data import Source, open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate

MODEL = {"levels": 2, "steps": 4, "mixing": "conv-exponential", "hidden": 38}
FIT = {"lr": 2e-3, "batch_size": 32, "average": 0.99, "validations": 2, "clock": "processor"}
TOLERANCES = (None, 1e-3, 1e-2)
FOLDER = Path("runs") / "benchmarks" / "exp-tol"
# Two-sided 95 % points of Student's t, by the number of seeds less one.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def run(source: Source, tol: float | None, seed: int, steps: int) -> dict[str, float]:
    """Fit once; return test bits/dim (ELBO) and the processor seconds of the fit."""
    with seeded(seed):
        flow = zoo.build("glow", event_shape=source.event_shape, **MODEL)
    result = fit(flow, source, steps=steps, exp_tol=tol, seed=seed, **FIT)
    with seeded(seed):
        bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits.mean
    return {"bits": bits, "seconds": result.seconds}


def kept(folder: Path, source: Source, tol: float | None, seed: int, steps: int) -> dict[str, float]:
    """Read a fit that is done already, or make it."""
    file = folder / f"{tol or 'full'}-{seed}-{steps}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(run(source, tol, seed, steps)))
    found = json.loads(file.read_text())
    print(f"seed {seed}  tolerance {tol or 'full'}  {found['bits']:.4f} bits/dim  {found['seconds']:.0f} s", flush=True)
    return found


def entries_of(rows: dict[float | None, list[dict[str, float]]]) -> list[Entry]:
    """Summarise the fits, and what each tolerance loses to the full one, paired by seed."""
    entries = []
    for tol, found in rows.items():
        title = f"photos, exponentials in training to {tol or 'full tolerance'}"
        entries.append(Entry(title, statistics.mean(row["bits"] for row in found), "bits/dim"))
        if tol is None:
            continue
        losses = [row["bits"] - full["bits"] for row, full in zip(found, rows[None], strict=True)]
        shares = [row["seconds"] / full["seconds"] for row, full in zip(found, rows[None], strict=True)]
        entries.append(Entry(f"{title}, loss, mean over seeds", statistics.mean(losses), "bits/dim"))
        entries.append(Entry(f"{title}, time", statistics.median(shares), "of full tolerance"))
        if len(losses) > 1:
            half = STUDENT[len(losses) - 1] * statistics.stdev(losses) / len(losses) ** 0.5
            entries.append(Entry(f"{title}, loss, half of the 95 % interval", half, "bits/dim"))
            entries.append(Entry(f"{title}, loss, largest of a seed", max(losses), "bits/dim"))
    return entries


def main() -> None:
    """Run all tolerances and seeds and report."""
    more = {"--folder": {"type": Path, "default": FOLDER, "help": "where the fits are kept"}}
    options = arguments(__doc__ or "", seeds=5, more=more)
    source = open_source("sample-photos")
    seeds, steps = (2, 10) if options.quick else (options.seeds, 120)
    rows: dict[float | None, list[dict[str, float]]] = {tol: [] for tol in TOLERANCES}
    for seed in range(seeds):
        for tol, found in rows.items():
            found.append(kept(options.folder, source, tol, seed, steps))
    report(entries_of(rows), options.json)


if __name__ == "__main__":
    main()
