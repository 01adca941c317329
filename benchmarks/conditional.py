"""One column of a table given all others: quantiles and densities, against scikit-learn's gradient boosting.

`table-flow` is fitted with all columns given but one, which is log p(y | x) of the row; its quantiles are those of its
own distribution function. Quantiles of the rival are those of `HistGradientBoostingRegressor(loss="quantile")`, a model
for each level, with early stopping and the better of two learning rates on the validation rows. They are compared by
the pinball loss, in units of the standard deviation of the target, averaged over levels. Densities are compared with a
normal distribution around the boosted mean, whose deviation is that of the residuals of the validation rows, in nats.
All get the same rows: a fifth is held out, and an eighth of the rest validates.

    python -m benchmarks.conditional [--quick] [--json results/conditional.json]
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor

import likelify as lk
from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from benchmarks.tables.data import Split, split_of, table
from benchmarks.timing import use_malloc_settings
from likelify.data.tables import TableSource
from likelify.fitting.choose import choose
from likelify.fitting.conditioning.given import quantiles
from likelify.fitting.loop import fit
from likelify.schema import ColumnSchema

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
RATES = (0.03, 0.1)
# Rows of a split that are measured at most.
MOST = 2000


def progression() -> np.ndarray:
    """Return scikit-learn's diabetes with the progression of the disease as its last column."""
    bunch = load_diabetes(scaled=False)
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, len(bunch.target))
    return np.column_stack([bunch.data, bunch.target + noise])


def two_branches() -> np.ndarray:
    """Make 3,000 rows of which the last column has two branches and a spread that depends on the others."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 4))
    branch = np.where(rng.random(3000) < 1 / (1 + np.exp(-2 * x[:, 0])), 1.0, -1.0)
    return np.column_stack([x, branch * (1 + x[:, 1] ** 2) + np.exp(0.5 * x[:, 2]) * 0.3 * rng.normal(size=3000)])


def ending_in(name: str, column: int) -> Callable[[], np.ndarray]:
    """Return a table with one of its columns last."""

    def rows() -> np.ndarray:
        found = table(name)
        return np.column_stack([np.delete(found, column, 1), found[:, column]])

    return rows


TABLES: dict[str, Callable[[], np.ndarray]] = {
    "diabetes, progression": progression,
    "made: two branches": two_branches,
    "winequality-red, alcohol": ending_in("winequality-red", 10),
    "abalone, weight of the shell": ending_in("abalone", 7),
    "magic, length": ending_in("magic", 0),
}
QUICK = ("diabetes, progression", "made: two branches")


def pinball(y: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the pinball loss of quantiles `(n, levels)` for each row, averaged over levels."""
    apart = y[:, None] - found
    return np.maximum(np.array(LEVELS) * apart, (np.array(LEVELS) - 1) * apart).mean(1)


def ours(split: Split, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Return quantiles and log-densities of the test rows by `table-flow`."""
    count = split.train.shape[1]
    schema = tuple(ColumnSchema(name=f"x{at}", given=at < count - 1) for at in range(count))
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    source = TableSource("conditional", parts, columns=[column.name for column in schema], schema=schema)
    choice = choose(source.facts(), model="table-flow")
    with lk.seeded(0):
        flow = choice.model.build()
    fit(flow, source, timed(choice.fit.model_dump(), seconds, 0))
    with torch.no_grad(), flow.frozen():
        nats = flow.log_prob(torch.from_numpy(split.test)).double().numpy()
    return quantiles(flow, schema, split.test, count - 1, LEVELS), nats


def boosted(split: Split, **settings: object) -> HistGradientBoostingRegressor:
    """Return the boosting of the learning rate that is better on the validation rows, stopped early."""
    found = []
    for rate in RATES:
        model = HistGradientBoostingRegressor(
            learning_rate=rate, max_iter=1000, early_stopping=True, random_state=0, **settings
        )
        model.fit(
            split.train[:, :-1], split.train[:, -1], X_val=split.validation[:, :-1], y_val=split.validation[:, -1]
        )
        found.append((float(np.max(model.validation_score_)), model))
    return max(found, key=lambda each: each[0])[1]


def boosting(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return quantiles and log-densities of the test rows by gradient boosting."""
    x = split.test[:, :-1]
    found = np.column_stack([boosted(split, loss="quantile", quantile=level).predict(x) for level in LEVELS])
    mean = boosted(split)
    scale = np.sqrt(((split.validation[:, -1] - mean.predict(split.validation[:, :-1])) ** 2).mean())
    error = (split.test[:, -1] - mean.predict(x)) / scale
    return np.sort(found, 1), -0.5 * error**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def compared(name: str, seconds: float) -> list[Entry]:
    """Measure one table, and return its figures."""
    split = split_of(TABLES[name](), 0)
    split = Split(split.train, split.validation, split.test[:MOST])
    y, scale = split.test[:, -1], split.known[:, -1].std()
    start = time.process_time()
    mine = ours(split, seconds)
    middle = time.process_time()
    rival = boosting(split)
    print(f"{name}: {middle - start:.0f} s and {time.process_time() - middle:.0f} s of the processor", flush=True)
    losses = [pinball(y, found) / scale for found, _ in (mine, rival)]
    nats = [found + np.log(scale) for _, found in (mine, rival)]
    loss, gain = losses[0] - losses[1], nats[0] - nats[1]
    inside = [float(((found[:, 0] <= y) & (y <= found[:, -1])).mean()) for found, _ in (mine, rival)]
    return [
        Entry(f"{name}: pinball, table-flow", float(losses[0].mean()), "sd"),
        Entry(f"{name}: pinball, quantile boosting", float(losses[1].mean()), "sd"),
        Entry(f"{name}: pinball, difference", float(loss.mean()), "sd", must=0.0),
        Entry(f"{name}: pinball, error of the difference", error(loss), "sd"),
        Entry(f"{name}: log p(y | x), table-flow", float(nats[0].mean()), "nats", better="higher"),
        Entry(f"{name}: log p(y | x), boosted mean and normal", float(nats[1].mean()), "nats", better="higher"),
        Entry(f"{name}: log p(y | x), difference", float(gain.mean()), "nats", must=0.0, better="higher"),
        Entry(f"{name}: log p(y | x), error of the difference", error(gain), "nats"),
        Entry(f"{name}: in the 90 % interval, table-flow", inside[0], "share", better="higher"),
        Entry(f"{name}: in the 90 % interval, quantile boosting", inside[1], "share", better="higher"),
    ]


def error(values: np.ndarray) -> float:
    """Return the standard error of a mean."""
    return float(values.std() / np.sqrt(len(values)))


def main() -> None:
    """Print all figures, and write them as JSON if asked to."""
    use_malloc_settings()
    more = {"--seconds": {"type": float, "default": 20.0, "help": "processor seconds of each fit"}}
    options = arguments("Quantiles and densities of a column given all others.", more=more)
    entries: list[Entry] = []
    for name in QUICK if options.quick else TABLES:
        entries += compared(name, 5.0 if options.quick else options.seconds)
    report(entries, options.json)


if __name__ == "__main__":
    main()
