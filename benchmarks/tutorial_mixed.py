"""A table of mixed columns from file to outliers, new rows and rows given some columns: the figures of the tutorial.

    python -m benchmarks.tutorial_mixed --write orders.csv     # only makes the file
    python -m benchmarks.tutorial_mixed --pictures docs/images

The table is made up: orders of a bicycle workshop, with numbers, words, an ordered scale, truth values, a date, missing
values, amounts that are often zero, an id, and headers with spaces. For the part about outliers some rows are spoilt in
one cell each, as typing errors spoil them, and the model that is fitted to all of them is asked which.
"""

import csv
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

from benchmarks.report import Entry, arguments, report
from likelify import FlowDensity
from likelify.data.encoding import encode
from likelify.fitting.quality import quality

ROWS, SPOILT = 2000, 20
BIKES = ("city", "e-bike", "racing", "cargo")
STATES = ("poor", "fair", "good", "very good")
COLUMNS: tuple[str, ...] = (
    "Order ID",
    "Opened on",
    "Bike type",
    "Condition",
    "Age of bike (years)",
    "Distance (km)",
    "Under warranty",
    "Labour (hours)",
    "Parts (EUR)",
    "Rating",
)
PARTS = "Parts (EUR)"
KNOWN = ({"Bike type": "city", "Condition": "good"}, {"Bike type": "e-bike", "Condition": "poor"})
PICTURES = ("rows", "given", "odd")
Row = dict[str, str]


def orders(count: int = ROWS, seed: int = 0) -> list[Row]:
    """Make orders: what is done to a bicycle depends on its kind, age and state, and all on the season."""
    rng = np.random.default_rng(seed)
    return [_order(number, rng) for number in range(1, count + 1)]


def _order(number: int, rng: np.random.Generator) -> Row:
    # More is brought in spring.
    day = date(2023, 1, 1) + timedelta(days=int(365 * rng.beta(2.2, 3.2)) + 365 * int(rng.integers(2)))
    bike = str(rng.choice(BIKES, p=(0.45, 0.3, 0.17, 0.08)))
    age = float(min(rng.gamma(1.6, {"city": 4.5, "e-bike": 1.8, "racing": 3.0, "cargo": 2.2}[bike]), 40.0))
    yearly = {"city": 900, "e-bike": 1800, "racing": 3200, "cargo": 2100}[bike] * float(np.exp(0.6 * rng.normal()))
    distance = 60_000 * float(np.tanh(age * yearly / 60_000))
    wear = 0.5 * age / 4 + 0.6 * distance / 6000 + 0.5 * rng.normal()
    state = STATES[3 - int(np.digitize(wear, (0.4, 1.1, 2.3)))]
    warranty = age < 2 or (age < 5 and bike == "e-bike" and rng.random() < 0.6)
    hours = 0.25 * max(1, round(4 * float(rng.gamma(2.5, 0.3 + 0.12 * max(wear, 0.1)))))
    costs = {"city": 35, "e-bike": 90, "racing": 70, "cargo": 80}[bike] * float(
        np.exp(0.3 * min(wear, 5) + 0.5 * rng.normal())
    )
    parts = 0.0 if rng.random() < 1 / (1 + np.exp(1.5 * wear - 1)) else costs
    stars = int(np.clip(round(4.6 - 0.01 * parts * (not warranty) + 0.7 * rng.normal()), 1, 5))
    return {
        "Order ID": f"W{20_000 + number}",
        "Opened on": day.isoformat(),
        "Bike type": bike,
        "Condition": state,
        "Age of bike (years)": f"{age:.1f}" if rng.random() > 0.08 else "",
        "Distance (km)": str(round(distance)) if rng.random() > 0.15 else "NA",
        "Under warranty": "yes" if warranty else "no",
        "Labour (hours)": f"{hours:.2f}",
        "Parts (EUR)": f"{0.0 if warranty else parts:.2f}",
        # Those who were not content say so more often.
        "Rating": str(stars) if rng.random() < (0.7 if stars < 4 else 0.5) else "",
    }


def spoil(rows: list[Row], count: int = SPOILT, seed: int = 1) -> dict[int, str]:
    """Change one cell of some rows to what could stand in another row; return the place and column of each."""
    rng = np.random.default_rng(seed)
    spoilt = {}
    for place in rng.choice(len(rows), size=count, replace=False).tolist():
        row = rows[place]
        column, value = _mistake(row, rng)
        row[column] = value
        spoilt[place] = column
    return spoilt


def _mistake(row: Row, rng: np.random.Generator) -> tuple[str, str]:
    """Return a column of a row and what someone has typed there."""
    if float(row["Parts (EUR)"]) > 0 and rng.random() < 0.4:
        return "Under warranty", "yes"  # under warranty nobody pays for parts
    if row["Bike type"] in ("city", "cargo") and rng.random() < 0.5:
        return "Distance (km)", str(int(rng.integers(30_000, 60_000)))
    if rng.random() < 0.5:
        return "Parts (EUR)", f"{float(rng.uniform(700, 1500)):.2f}"
    return "Labour (hours)", f"{float(row['Labour (hours)']) * 10:.2f}"


def write(rows: list[Row], file: Path) -> Path:
    """Write rows as CSV, and return the file."""
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file


def as_frame(rows: list[Row]) -> pd.DataFrame:
    """Return the table as whoever opens its file gets it."""
    with tempfile.TemporaryDirectory() as folder:
        return pd.read_csv(write(rows, Path(folder) / "orders.csv"))


def fitted(frame: pd.DataFrame, seconds: float) -> FlowDensity:
    """Fit the default model; all that is said is the order of the states, which their words do not tell."""
    scale = f"ordered[{','.join(STATES)}]"
    # On a machine that is shared the processor's time says more.
    settings = {"clock": "processor"}
    density = FlowDensity(time_budget=seconds, columns={"Condition": scale}, settings=settings, random_state=0)
    return density.fit(frame.drop(columns="Order ID"))


def numbers(frame: pd.DataFrame) -> np.ndarray:
    """Return the table as an isolation forest takes it: words numbered, medians for what is missing."""
    columns = {}
    for name in COLUMNS[1:]:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            columns[name] = column.fillna(column.median())
        elif name == "Opened on":
            columns[name] = pd.to_datetime(column).map(pd.Timestamp.toordinal)
        else:
            columns[name] = column.astype("category").cat.codes
    return pd.DataFrame(columns).to_numpy(np.float64)


def outliers(rows: list[Row], seconds: float, picture: Path | None) -> list[Entry]:
    """Spoil some rows, fit to all of them, and see whether they are found."""
    spoilt = spoil(rows)
    frame = as_frame(rows)
    odd = np.isin(np.arange(len(rows)), list(spoilt))
    density = fitted(frame, seconds)
    table = frame.drop(columns="Order ID")
    forest = IsolationForest(random_state=0).fit(numbers(frame))
    scores = {
        "outlier score": density.outlier_scores(table),
        "minus log-likelihood": -density.score_samples(table),
        "isolation forest": -forest.score_samples(numbers(frame)),
    }
    entries = []
    for name, values in scores.items():
        oddest = np.argsort(-values)[: len(spoilt)]
        entries += [
            Entry(f"spoilt rows, {name}: AUROC", float(roc_auc_score(odd, values)), "", better="higher"),
            Entry(
                f"spoilt rows, {name}: found among the {len(spoilt)} oddest",
                int(odd[oddest].sum()),
                "rows",
                better="higher",
            ),
        ]
    if picture is not None:
        draw_scores(scores, odd, picture)
    return entries


def new_rows(density: FlowDensity, frame: pd.DataFrame, picture: Path | None) -> list[Entry]:
    """Draw as many rows as there are, and compare them with the table by the scores of this field's tools."""
    real, drawn = frame.drop(columns="Order ID"), density.sample(len(frame), random_state=1)
    compared = [encode({name: table[name].tolist() for name in table}, density.schema_) for table in (real, drawn)]
    found = quality(compared[0], compared[1], density.schema_)
    if picture is not None:
        draw_rows(real, drawn, picture)
    return [
        Entry("new rows: column shapes", found.column_shapes, "", better="higher"),
        Entry("new rows: column pair trends", found.column_pair_trends, "", better="higher"),
    ]


def given(density: FlowDensity, frame: pd.DataFrame, picture: Path | None) -> list[Entry]:
    """Draw the price of parts of orders of which bicycle and state are known, and compare with such orders."""
    entries, drawn = [], {}
    for known in KNOWN:
        rows = density.sample(2000, random_state=2, given=known)
        alike = np.logical_and.reduce([frame[name] == value for name, value in known.items()])
        prices = (frame[PARTS].to_numpy()[alike], rows[PARTS].to_numpy())
        drawn[" and ".join(known.values())] = prices
        words = ", ".join(known.values())
        for name, values in zip(("real", "drawn"), prices, strict=True):
            entries += [
                Entry(f"{words}, {name}: orders without parts", float(np.mean(values == 0)), "share"),
                Entry(
                    f"{words}, {name}: median price of parts above zero", float(np.median(values[values > 0])), "EUR"
                ),
            ]
    if picture is not None:
        draw_given(drawn, picture)
    return entries


def draw_scores(scores: dict[str, np.ndarray], odd: np.ndarray, file: Path) -> None:
    """Draw the outlier score of all rows, those that were spoilt marked."""
    values = next(iter(scores.values()))
    figure, axes = plt.subplots(figsize=(7, 2.6))
    axes.hist(values[~odd], bins=60, color="0.75", label="as they were")
    axes.plot(values[odd], np.full(int(odd.sum()), 4.0), "|", color="tab:red", ms=18, mew=1.5, label="spoilt")
    axes.set(xlabel="outlier score", ylabel="rows", yscale="symlog")
    axes.legend(frameon=False)
    _save(figure, file)


def draw_rows(real: pd.DataFrame, drawn: pd.DataFrame, file: Path) -> None:
    """Draw real and drawn rows beside one another: two numbers and a word, and shares of words and zeros."""
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.2), width_ratios=(3, 3, 2, 2))
    for place, (title, table) in zip(axes[:2], (("real", real), ("drawn", drawn)), strict=True):
        for bike in BIKES:
            rows = table[table["Bike type"] == bike]
            place.plot(rows["Age of bike (years)"], rows["Distance (km)"], ".", ms=2.5, alpha=0.6, label=bike)
        place.set(title=title, xlabel="age (years)", ylabel="distance (km)", xlim=(-1, 30), ylim=(-1000, 62_000))
    axes[1].legend(markerscale=4, frameon=False, fontsize=8)
    for place, name in zip(axes[2:], ("Condition", "Rating"), strict=True):
        shares = [table[name].value_counts(normalize=True, dropna=False) for table in (real, drawn)]
        words = list(STATES) if name == "Condition" else [1.0, 2.0, 3.0, 4.0, 5.0, np.nan]
        for number, (share, color) in enumerate(zip(shares, ("0.6", "tab:blue"), strict=True)):
            height = [share.get(word, 0.0) for word in words]
            place.bar(np.arange(len(words)) + 0.4 * number - 0.2, height, 0.4, color=color)
        labels = ["missing" if word != word else f"{word:g}" if isinstance(word, float) else word for word in words]
        place.set_xticks(range(len(words)), labels, rotation=45)
        place.set(title=f"{name}, real and drawn")
    _save(figure, file)


def draw_given(prices: dict[str, tuple[np.ndarray, np.ndarray]], file: Path) -> None:
    """Draw prices of parts of real and drawn rows, for each condition."""
    figure, axes = plt.subplots(1, len(prices), figsize=(10, 2.8), sharey=True)
    for place, (title, (real, drawn)) in zip(axes, prices.items(), strict=True):
        edges = np.linspace(0, 500, 26)
        place.hist(real, edges, density=True, color="0.75", label=f"{len(real)} real orders")
        place.hist(drawn, edges, density=True, histtype="step", color="tab:blue", lw=1.5, label="drawn")
        place.set(title=title, xlabel="parts (EUR)", yscale="log")
        place.legend(frameon=False, fontsize=8)
    axes[0].set(ylabel="share per EUR")
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, dpi=90)
    plt.close(figure)


def main() -> None:
    """Make the file, or measure all parts of the tutorial."""
    more = {
        "--write": {"type": Path, "help": "only write the table to this file"},
        "--pictures": {"type": Path, "help": "also draw the pictures of the page into this folder"},
    }
    options = arguments(__doc__ or "", more=more)
    if options.write:
        write(orders(), options.write)
        return
    seconds, rows = (3.0, orders(600)) if options.quick else (20.0, orders())
    files = [None if options.pictures is None else options.pictures / f"tutorial-mixed-{name}.png" for name in PICTURES]
    frame = as_frame(rows)
    start = time.process_time()
    density = fitted(frame, seconds)
    entries = [Entry("fit: processor time", time.process_time() - start, "s")]
    entries += new_rows(density, frame, files[0]) + given(density, frame, files[1]) + outliers(rows, seconds, files[2])
    report(entries, options.json)


if __name__ == "__main__":
    main()
