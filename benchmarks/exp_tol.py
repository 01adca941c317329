"""What a looser tolerance of exponentials in training steps (`FitSettings.exp_tol`) costs and saves on photographs.

The small glow with convolution-exponential mixing, at equal steps: full tolerance in training and two looser ones,
paired seeds (weights, batches and noise), one thread. All are evaluated at full tolerance. A fit takes about a minute;
each is kept in a file as soon as it is done, and a run that was broken off goes on with the next. Fits of other
settings or of another version of the code do not count.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cells
from benchmarks.cells import key_of, measured
from benchmarks.report import Entry, arguments, report
from likelify import seeded, zoo
from likelify.data import open_source
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.reproduce.statistics import paired_difference

SOURCE = "sample-photos"
MODEL = {"levels": 2, "steps": 4, "mixing": "conv-exponential", "hidden": 38}
FIT = {"lr": 2e-3, "batch_size": 32, "average": 0.99, "validations": 2, "clock": "processor"}
TOLERANCES = (None, 1e-3, 1e-2)
FOLDER = Path("runs") / "benchmarks" / "exp-tol"


@dataclass(frozen=True)
class Cell(cells.Cell[dict[str, float]]):
    """One fit: the tolerance in training steps or None, the seed, and the number of steps."""

    tol: float | None
    seed: int
    steps: int

    def key(self) -> str:
        """Return a hash of the settings of model and fit, and of the code."""
        return key_of([SOURCE, MODEL, FIT], Cell.run, model="glow")

    def run(self) -> dict[str, float]:
        """Fit once; return test bits/dim (ELBO) and the processor seconds of the fit."""
        source = open_source(SOURCE)
        with seeded(self.seed):
            flow = zoo.build("glow", event_shape=source.event_shape, **MODEL)
        result = fit(flow, source, steps=self.steps, exp_tol=self.tol, seed=self.seed, **FIT)
        with seeded(self.seed):
            bits = evaluate(flow, source, elbo_samples=1, iw_samples=0).elbo.bits.mean
        return {"bits": bits, "seconds": result.seconds}


def _said(tol: float | None) -> str:
    return "full tolerance" if tol is None else f"{tol:g}"


def entries_of(rows: dict[float | None, list[dict[str, float]]]) -> list[Entry]:
    """Summarise the fits, and what each tolerance loses to the full one, paired by seed."""
    entries = []
    for tol, found in rows.items():
        title = f"photos, exponentials in training to {_said(tol)}"
        entries.append(Entry(title, statistics.mean(row["bits"] for row in found), "bits/dim"))
        if tol is None:
            continue
        ours, full = (dict(enumerate(row["bits"] for row in some)) for some in (found, rows[None]))
        loss = paired_difference(ours, full)
        shares = [row["seconds"] / full["seconds"] for row, full in zip(found, rows[None], strict=True)]
        entries.append(Entry(f"{title}, loss, mean over seeds", loss.difference, "bits/dim"))
        entries.append(Entry(f"{title}, time", statistics.median(shares), "of full tolerance"))
        if loss.count > 1:
            half = (loss.high - loss.low) / 2
            entries.append(Entry(f"{title}, loss, half of the 95 % interval", half, "bits/dim"))
            largest = max(ours[seed] - full[seed] for seed in ours)
            entries.append(Entry(f"{title}, loss, largest of a seed", largest, "bits/dim"))
    return entries


def main() -> None:
    """Run all tolerances and seeds and report."""
    more = {"--folder": {"type": Path, "default": FOLDER, "help": "where the fits are kept"}}
    options = arguments(__doc__ or "", seeds=5, more=more)
    seeds, steps = (2, 10) if options.quick else (options.seeds, 120)
    rows: dict[float | None, list[dict[str, float]]] = {tol: [] for tol in TOLERANCES}
    for seed in range(seeds):
        for tol, done in rows.items():
            done.append(measured(Cell(tol, seed, steps), options.folder))
            print(
                f"seed {seed}  {_said(tol)}  {done[-1]['bits']:.4f} bits/dim  {done[-1]['seconds']:.0f} s", flush=True
            )
    report(entries_of(rows), options.json)


if __name__ == "__main__":
    main()
