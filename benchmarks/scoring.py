"""Scoring: memory and speed on a million rows, files after kills, uniformity of ranks, planted outliers and faults.

Memory beyond the model is the resident set of a process of its own at its highest, from the instant at which the model
is loaded, the libraries are imported and a file of eight items has been scored once, less what it is at that instant.
Each figure is the median of processes that evaluate one batch in the plain way; that do so again and again with the
same batch, nothing kept; that go through all batches in the plain way; and that score the file to a file. They have the
settings of malloc that a user has. Speed is processor time of one thread. Ranks of test items are compared with those
of the validation items by the two-sample Kolmogorov-Smirnov test of the log-likelihoods, which is the exact test of
uniform ranks: ranks among the same held-out items depend on one another.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

import likelify as lk
from benchmarks.report import Entry, run_parts
from benchmarks.timing import MALLOC
from likelify import zoo
from likelify.data import Source, open_source
from likelify.fitting.checks import for_flow
from likelify.fitting.run import Run
from likelify.fitting.scoring.pictures import look_at
from likelify.fitting.scoring.scorer import Wanted
from likelify.fitting.scoring.scoring import Scoring, items_of, score_file
from likelify.fitting.settings import FitSettings, RunConfig
from likelify.zoo import ModelConfig

COLUMNS, DRAWS, KILLS, SEEDS, TURNS = 10, 2, 5, 5, 3
# Planted: of rows one cell in another row's place, of digits a square of that side turned dark to light.
SIDE, SPOILT = 3, 100


def correlated(count: int, seed: int = 0, columns: int = COLUMNS) -> np.ndarray:
    """Rows whose columns tell of one another: three hidden numbers seen through each, with noise, on a bent sheet."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(count, 3))
    mixing = np.random.default_rng(99).normal(size=(3, columns))
    seen = hidden @ mixing
    return seen + 0.3 * np.sin(2 * seen) + 0.25 * generator.normal(size=(count, columns))


def untrained(folder: Path, source: Source, model: ModelConfig) -> Run:
    """A run with the weights of the beginning: memory and speed do not depend on them."""
    run = Run.create(folder, RunConfig(data=source.facts(), model=model, fit=FitSettings()))
    with lk.seeded(0):
        flow = model.build()
    flow.initialize(source.read_all("train").x)
    run.save_weights(flow.state_dict())
    return run


def rows_file(folder: Path, rows: np.ndarray, name: str) -> str:
    """Write rows as CSV, whose name is that of a source, and return it."""
    file = folder / name
    header = ",".join(f"c{number}" for number in range(rows.shape[1]))
    np.savetxt(file, rows, fmt="%.6g", delimiter=",", header=header, comments="")
    return str(file)


def large(folder: Path, *, quick: bool) -> dict[str, tuple[Run, str, int]]:
    """A run and a file of many items, for a table and for images, with the number of draws."""
    rows, images = (50_000, 10_000) if quick else (1_000_000, 100_000)
    source = open_source(rows_file(folder, correlated(4000), "train.csv"))
    model = zoo.MODELS["flowified-mlp"](event_shape=(COLUMNS,), widths=(COLUMNS,))
    digits = open_source("digits")
    small = zoo.MODELS["marginal-spline"](event_shape=(1, 8, 8), pixel_levels=17, couplings=4, hidden=(32,))
    table, pictures = untrained(folder / "table", source, model), untrained(folder / "digits", digits, small)
    found = {
        f"{rows:,} rows of {COLUMNS} columns": (table, many_rows(folder, rows), 1),
        f"{images:,} images of 8x8": (pictures, many_images(folder, images), DRAWS),
    }
    for run, _, draws in found.values():
        run.reference(draws=draws)
    return found


def many_rows(folder: Path, count: int) -> str:
    """Write rows with a number each as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    many = {f"c{number}": column for number, column in enumerate(correlated(count, seed=1).T)}
    parquet.write_table(pa.table({"id": np.arange(count), **many}), folder / f"rows{count}.parquet")
    return str(folder / f"rows{count}.parquet")


def many_images(folder: Path, count: int) -> str:
    """Write digits, again and again, as an array of NumPy."""
    pixels = open_source("digits").read_all("train").x.numpy()
    np.save(folder / f"images{count}.npy", np.resize(pixels, (count, *pixels.shape[1:])))
    return str(folder / f"images{count}.npy")


def one_process(run: str, file: str, draws: int, what: str, out: str) -> None:
    """Load and warm up, evaluate or score, and print the memory beyond the model in MB and the processor time."""
    torch.set_num_threads(1)
    loaded = Run.load(run)
    scoring = Scoring(loaded, items_of(loaded, file), Wanted(draws=draws))
    warm_up(loaded, scoring, Path(out))
    print("warm", flush=True)
    before, start = resident("VmRSS"), time.process_time()
    # The highest from here on.
    Path("/proc/self/clear_refs").write_text("5")
    if what == "all":
        score_file(scoring, Path(out))
    elif what != "load":
        plain(scoring, draws, what)
    print(json.dumps({"memory": resident("VmHWM") - before, "seconds": time.process_time() - start}))


def warm_up(run: Run, scoring: Scoring, out: Path) -> None:
    """Score eight items to a file, so that all that is imported on the way is there."""
    few = next(scoring.items.batches(8)).batch.x.numpy().copy() if scoring.scorer.facts.kind == "image" else None
    with tempfile.TemporaryDirectory() as name:
        file = many_rows(Path(name), 8) if few is None else str(Path(name) / "few.npy")
        if few is not None:
            np.save(file, few)
        score_file(Scoring(run, items_of(run, file), scoring.wanted), Path(name) / f"few{out.suffix}")


def resident(name: str) -> float:
    """Return the resident set of this process, or its highest, in MB; that of getrusage can be the parent's."""
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 1024


def plain(scoring: Scoring, draws: int, what: str) -> None:
    """Evaluate one batch, the same again for each batch that there is, or all batches, and write nothing."""
    size, flow = scoring.scorer.effort.items, scoring.scorer.flow

    def evaluate(x: torch.Tensor) -> None:
        if flow.likelihood == "exact":
            flow.log_prob(x)
        else:
            flow.iw_log_prob(x, samples=draws, chunk=1, warn=False)

    with torch.no_grad(), flow.frozen():
        for part in scoring.items.batches(size):
            x = for_flow(flow, part.batch).x
            evaluate(x)
            if what == "again":
                for _ in range((scoring.items.count or 0) // size):
                    evaluate(x)
            if what != "loop":
                break


def command(run: Run, file: str, draws: int) -> list[str]:
    """Return the words that start a process of this benchmark but for what it does."""
    return [sys.executable, "-m", "benchmarks.scoring", "--one-process", str(run.path), file, str(draws)]


def measured_there(run: Run, file: str, draws: int, what: str, out: Path) -> dict[str, float]:
    """Do that in a process of its own, with the malloc that users have."""
    words = [*command(run, file, draws), what, str(out)]
    usual = {name: value for name, value in os.environ.items() if name not in MALLOC}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=usual)
    return json.loads(done.stdout.splitlines()[-1])


def memory_and_speed(*, quick: bool) -> list[Entry]:
    """Memory beyond the model against that of one batch, its growth with the file, and items per second."""
    entries = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, (run, file, draws) in large(folder, quick=quick).items():
            count = int(title.split()[0].replace(",", ""))
            shorter = (many_rows if "rows" in title else many_images)(folder, count // 10)
            found = several(run, {"whole": file, "tenth": shorter}, draws, folder / "out.parquet")
            batch, whole = found["whole batch"]["memory"], found["whole all"]["memory"]
            again, loop = found["whole again"]["memory"], found["whole loop"]["memory"]
            entries += [
                Entry(f"{title}: memory beyond the model, scoring all / one batch", whole / batch, "ratio", must=1.2),
                Entry(f"{title}: scoring all / one batch evaluated as often", whole / again, "ratio", must=1.2),
                Entry(f"{title}: scoring all / scoring a tenth", whole / found["tenth all"]["memory"], "ratio"),
                Entry(f"{title}: memory beyond the model, one batch", batch, "MB"),
                Entry(f"{title}: memory beyond the model, one batch evaluated as often", again, "MB"),
                Entry(f"{title}: memory beyond the model, the plain loop", loop, "MB"),
                Entry(f"{title}: memory beyond the model, scoring all", whole, "MB"),
                Entry(f"{title}: memory beyond the model, scoring a tenth", found["tenth all"]["memory"], "MB"),
                per_second(f"{title}: per second, to a file", count, found["whole all"]),
                per_second(f"{title}: per second, the plain loop", count, found["whole loop"]),
            ]
    return entries


def several(run: Run, files: dict[str, str], draws: int, out: Path) -> dict[str, dict[str, float]]:
    """Return the medians of memory and seconds of what is measured, in turns."""
    wanted = [("whole", "batch"), ("whole", "again"), ("whole", "loop"), ("whole", "all"), ("tenth", "all")]
    found: dict[str, list[dict[str, float]]] = {f"{which} {what}": [] for which, what in wanted}
    for _ in range(TURNS):
        for which, what in wanted:
            found[f"{which} {what}"].append(measured_there(run, files[which], draws, what, out))
            out.unlink(missing_ok=True)
    return {
        name: {key: statistics.median(one[key] for one in turns) for key in ("memory", "seconds")}
        for name, turns in found.items()
    }


def per_second(name: str, count: int, found: dict[str, float]) -> Entry:
    """Return the items per second of processor time."""
    return Entry(name, count / found["seconds"], "items/s", better="higher")


def kills(*, quick: bool) -> list[Entry]:
    """Kill the scoring of a file at random instants, and compare what comes out in the end."""
    entries = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, (run, file, draws) in large(folder, quick=quick).items():
            words, whole, cut = [*command(run, file, draws), "all"], folder / "whole.csv", folder / "cut.csv"
            process = begun(words, whole)
            started = time.monotonic()
            process.wait()
            work, generator = time.monotonic() - started, random.Random(0)
            landed, expected, equal = 0, whole.read_bytes(), True
            while landed < KILLS:
                process = begun(words, cut)
                time.sleep(generator.uniform(0.0, 2 / (KILLS + 1)) * work)
                process.kill()
                process.wait()
                if parts_of(cut).exists():
                    landed += 1
                elif cut.exists():
                    # It had put all away, and nothing was left to kill: once more from the beginning.
                    equal &= cut.read_bytes() == expected
                    cut.unlink()
            subprocess.run([*words, str(cut)], check=True, capture_output=True)
            equal &= cut.read_bytes() == expected and not parts_of(cut).exists()
            entries.append(
                Entry(f"{title}: the same after {landed} kills", float(equal), "", must=1.0, better="higher")
            )
            for done in (whole, cut):
                done.unlink()
    return entries


def parts_of(out: Path) -> Path:
    """Return the folder that is there while a file is made."""
    return out.with_name(f"{out.name}.parts")


def begun(words: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start a process and wait until the libraries and the model are there, and it begins with the file."""
    process = subprocess.Popen([*words, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    if not process.stdout.readline().startswith(b"warm"):
        raise RuntimeError(f"{words} ended with code {process.wait()}.")
    return process


def fitted(folder: Path, source: Source, model: ModelConfig, seed: int, steps: int) -> Run:
    """Fit a small model."""
    settings = FitSettings(steps=steps, batch_size=128, lr=4e-3, seed=seed, validations=8)
    run = Run.create(folder, RunConfig(data=source.facts(), model=model, fit=settings))
    with lk.seeded(seed):
        flow = model.build()
    lk.fit(flow, source, run=run)
    return run


def small_runs(folder: Path, seed: int, *, quick: bool) -> dict[str, Run]:
    """A fit of digits and one of a table, of that seed."""
    steps, digits = 60 if quick else 300, open_source("digits")
    images = zoo.MODELS["marginal-spline"](event_shape=(1, 8, 8), pixel_levels=17, couplings=4, hidden=(64,))
    rows = open_source(rows_file(folder, correlated(4000, seed, 6), f"rows{seed}.csv"))
    model = zoo.MODELS["flowified-mlp"](event_shape=(6,), widths=(6, 6))
    return {
        "digits": fitted(folder / f"digits{seed}", digits, images, seed, steps),
        "table": fitted(folder / f"table{seed}", rows, model, seed, 2 * steps),
    }


def spoilt_digits(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test digits, the first of them with a square turned dark to light; and where."""
    images = open_source("digits").read_all("test").x.numpy().copy()
    places = np.random.default_rng(seed).integers(0, 9 - SIDE, size=(SPOILT, 2))
    for image, (top, left) in zip(images, places, strict=False):
        image[0, top : top + SIDE, left : left + SIDE] = 16 - image[0, top : top + SIDE, left : left + SIDE]
    return images, places


def spoilt_rows(source: Source, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Test rows, the first of them with one cell of another row: each column looks as ever; and which column."""
    rows, generator = source.read_all("test").x.numpy().copy(), np.random.default_rng(seed)
    columns, others = generator.integers(0, rows.shape[1], SPOILT), generator.permutation(len(rows))[:SPOILT]
    rows[np.arange(SPOILT), columns] = source.read_all("test").x.numpy()[others, columns]
    return rows, columns


def found_by_score(run: Run, items: np.ndarray) -> float:
    """AUROC of the first items, which are spoilt, against the others."""
    nats = run.score(items, reference=None).nats
    return float(roc_auc_score(np.arange(len(items)) < SPOILT, -nats))


def ranks_and_outliers(*, quick: bool) -> list[Entry]:
    """Uniformity of ranks over seeds, AUROC of planted outliers, and shares of faults whose place is found."""
    uniform: dict[str, list[float]] = {"digits": [], "table": []}
    rare: dict[str, list[float]] = {"digits": [], "table": []}
    with tempfile.TemporaryDirectory() as name:
        for seed in range(2 if quick else SEEDS):
            runs = small_runs(Path(name), seed, quick=quick)
            for kind, run in runs.items():
                scores = run.score(split="test", draws=20)
                uniform[kind].append(float(ks_2samp(scores.nats, run.reference(draws=20)).pvalue))
                rare[kind].append(float((scores.rank <= 0.05).mean()))
        images, places = spoilt_digits(0)
        rows, columns = spoilt_rows(runs["table"].source(), 0)
        entries = [
            Entry("planted squares in digits: AUROC", found_by_score(runs["digits"], images), "AUROC", better="higher"),
            Entry("planted cells in a table: AUROC", found_by_score(runs["table"], rows), "AUROC", better="higher"),
            *blamed(runs, rows, columns, images, places, count=10 if quick else 40),
        ]
    for kind in uniform:
        entries += [
            Entry(
                f"{kind}: smallest p of ranks being uniform, {len(uniform[kind])} seeds",
                min(uniform[kind]),
                "p",
                must=0.01,
                better="higher",
            ),
            Entry(f"{kind}: test items with rank at most 0.05", float(np.mean(rare[kind])), "share"),
        ]
    return entries


def blamed(
    runs: dict[str, Run], rows: np.ndarray, columns: np.ndarray, images: np.ndarray, places: np.ndarray, *, count: int
) -> list[Entry]:
    """Shares of planted faults of which the right column is blamed, and in which the hottest pixel lies."""
    found = runs["table"].score(rows[:SPOILT], blame=True, reference=None)
    assert found.gains is not None
    right, clear = found.gains.argmax(1) == columns, found.gains.max(1) > 4.5
    scoring = Scoring(runs["digits"], items_of(runs["digits"], images[:count]), Wanted(draws=4, reference=None))
    heat = look_at(scoring, range(count), [""] * count, heat=True).heat
    assert heat is not None
    hottest = np.stack(np.unravel_index(heat.reshape(count, -1).argmax(1), heat.shape[1:]), 1)
    inside = ((hottest >= places[:count]) & (hottest < places[:count] + SIDE)).all(1)
    return [
        Entry("planted cells: blamed on their column, of all", float(right.mean()), "share", better="higher"),
        Entry("planted cells: share that gains more than 4.5 nats", float(clear.mean()), "share", better="higher"),
        Entry("planted cells: blamed on their column, of these", float(right[clear].mean()), "share", better="higher"),
        Entry("planted squares: hottest pixel inside", float(inside.mean()), "share", better="higher"),
    ]


PARTS = {"memory and speed": memory_and_speed, "kills": kills, "ranks and outliers": ranks_and_outliers}


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    if sys.argv[1:2] == ["--one-process"]:
        run, file, draws, what, out = sys.argv[2:]
        one_process(run, file, int(draws), what, out)
        return
    run_parts(__doc__ or "", PARTS)


if __name__ == "__main__":
    main()
