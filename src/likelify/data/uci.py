"""The five tables of the density-estimation literature, from files of the user.

POWER, GAS, HEPMASS and MINIBOONE of the UCI repository and BSDS300, cleaned, split and standardised as G. Papamakarios,
T. Pavlakou, I. Murray published it ("Masked autoregressive flow for density estimation", 2017, appendix D and the code
of the authors), so that figures compare with the literature's: mean test log-likelihood in nats, in standardised units.
Their files are one archive at https://zenodo.org/records/1161203.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.delimited import Table, read_csv
from likelify.data.dialect import BLANK
from likelify.data.limits import TROUBLE, reading, require_values
from likelify.data.lines import Piece, pieces
from likelify.data.npy import read_array
from likelify.data.source import FEWEST, Parts, Source, sizes_of
from likelify.data.tables import TableSource, standardize
from likelify.errors import DataError, needs

ARCHIVE = "All five are in data.tar.gz of https://zenodo.org/records/1161203."
UNPICKLE = (
    "Its ethylene_CO.pickle is not read, since a pickle can run anything; where you trust it, make a numpy file of it: "
    "python -c \"import pandas, numpy; numpy.save('ethylene_CO.npy', pandas.read_pickle('ethylene_CO.pickle'))\"."
)
HEPMASS_COLUMNS, PATCH = 28, 63
MINIBOONE_RAW, MINIBOONE_CLEAN = 50, 43
# A column that has its smallest value more often than this is not continuous.
REPEATS = 5
CORRELATED = 0.98
# Of UCI's power file, behind date and time.
METER = ["active power", "reactive power", "voltage", "intensity", "kitchen", "laundry", "heating"]


def power(place: str | Path) -> Source:
    """Return POWER: electric power consumption of a household, 6 columns, 2,049,280 rows.

    From `data.npy` of the archive (active and reactive power, voltage, intensity, three sub-meterings, minute of the
    day) or UCI's `household_power_consumption.txt`, of which rows with missing values are dropped. Reactive power (it
    is zero too often) and intensity are dropped; uniform noise is added up to 0.001 for active power, 0.01 for voltage,
    1 for each sub-metering and, for UCI's file, 1 for the minute. The order and the noise are those of
    `numpy.random.RandomState(42)`; the last tenth tests, of the rest the last tenth validates; standardised by mean and
    standard deviation of the two other splits together.

    Raises:
        DataError: if no file is there, or it holds something else.
    """
    path = _find("power", place, ("data.npy", "household_power_consumption.txt"))
    raw = path.suffix == ".txt"
    rows = _read_meter(path) if raw else read_array(path)
    _require_columns("power", path, rows, 8)
    _require_many(path, rows)
    random = np.random.RandomState(42)
    random.shuffle(rows)
    rows = rows[:, [0, 2, 4, 5, 6, 7]]
    # The draws are in the order of the published code: voltage, active power, sub-meterings.
    rows[:, 1] += 0.01 * random.rand(len(rows))
    rows[:, 0] += 0.001 * random.rand(len(rows))
    rows[:, 2:5] += random.rand(len(rows), 3)
    if raw:
        rows[:, 5] += random.rand(len(rows))
    columns = ["active power", "voltage", "kitchen", "laundry", "heating", "minute"]
    return _source("power", path, _standardized(_cut(rows)), columns)


def gas(place: str | Path) -> Source:
    """Return GAS: sensors in a mixture of gases, 8 columns, 1,052,065 rows.

    The archive holds a table pickled by pandas, `ethylene_CO.pickle`. A pickle can run anything, so it is not read;
    where you trust it, turn it into a numpy array `ethylene_CO.npy` or into `ethylene_CO.csv` once, as the error says.
    The first three of its 19 columns, time and two concentrations, are dropped. While any column is correlated by more
    than 0.98 with another, the first such column is dropped. Standardised by mean and standard deviation of all rows;
    the last tenth tests, of the rest the last tenth validates.

    Raises:
        DataError: if no file is there, or it holds something else.
    """
    path = _find("gas", place, ("ethylene_CO.npy", "ethylene_CO.csv"), f"{ARCHIVE} {UNPICKLE}")
    rows = read_array(path) if path.suffix == ".npy" else read_csv(path)[1]
    _require_columns("gas", path, rows, 19)
    _require_many(path, rows)
    rows = rows[:, 3:]
    rows = rows[:, _uncorrelated(rows)]
    columns = [f"sensor {number}" for number in range(1, rows.shape[1] + 1)]
    return _source("gas", path, standardize(_cut(rows), rows, ddof=1), columns)


def hepmass(place: str | Path) -> Source:
    """Return HEPMASS: collisions of particles with a mass of 1000, 21 columns, 315,123 + 35,013 + 174,987 rows.

    From `1000_train.csv` and `1000_test.csv`, packed by gzip or not: label and 27 features, of which the signal (label
    1) is kept; the test file's further column is left out. Standardised by mean and standard deviation of the training
    file's signal. Columns whose smallest value occurs more than 5 times in it are dropped. The last tenth of the
    training file validates.

    Raises:
        DataError: if a file is missing, or holds something else.
    """
    paths = [_find("hepmass", place, (f"1000_{part}.csv", f"1000_{part}.csv.gz")) for part in ("train", "test")]
    names = ["label"] + [f"f{number}" for number in range(HEPMASS_COLUMNS - 1)]
    train, test = (_read_collisions(path, names) for path in paths)
    train, test = (rows[rows[:, 0] == 1, 1:] for rows in (train, test))
    if not len(train) or not len(test):
        raise DataError(f"'{paths[0 if not len(train) else 1]}' has no rows with the label 1.")
    _require_many(paths[0], train)
    continuous = _continuous(train)
    train, test = train[:, continuous], test[:, continuous]
    held = len(train) - len(train) // 10
    splits: Parts = {"train": train[:held], "validation": train[held:], "test": test}
    columns = [names[1:][number] for number in continuous]
    return _source("hepmass", paths[0], standardize(splits, train, ddof=1), columns)


def miniboone(place: str | Path) -> Source:
    """Return MINIBOONE: electron neutrinos, 43 columns, 36,488 rows.

    From `data.npy` of the archive, already clean, or UCI's `MiniBooNE_PID.txt`: of the latter the signal is kept, whose
    number of rows is the first number of the file; rows whose first value is below -100 (outliers) are dropped, and
    columns whose smallest value occurs more than 5 times. The last tenth tests, of the rest the last tenth validates;
    standardised by mean and standard deviation of the two other splits together.

    Raises:
        DataError: if no file is there, or it holds something else.
    """
    path = _find("miniboone", place, ("data.npy", "MiniBooNE_PID.txt"))
    raw = path.suffix == ".txt"
    rows = _read_signal(path) if raw else read_array(path)
    if raw:
        rows = rows[rows[:, 0] >= -100]
    else:
        _require_columns("miniboone", path, rows, MINIBOONE_CLEAN)
    _require_many(path, rows)
    if raw:
        rows = rows[:, _continuous(rows)]
    return _source("miniboone", path, _standardized(_cut(rows)))


def bsds300(place: str | Path) -> Source:
    """Return BSDS300: patches of natural images, 63 columns, 1,000,000 + 50,000 + 250,000 rows.

    From `BSDS300.hdf5` of the archive, which holds the three splits; nothing is changed. (The patches are of 8x8 pixels
    with noise added, their mean subtracted and one pixel left out.)

    Raises:
        DataError: if the file is not there, or holds something else.
        MissingDependencyError: if h5py is not installed.
    """
    path = _find("bsds300", place, ("BSDS300.hdf5",))
    with needs("h5py", "tables"):
        import h5py  # pyright: ignore[reportMissingImports]
    splits: Parts = {}
    try:
        with h5py.File(path, "r") as file:
            for split in ("train", "validation", "test"):
                splits[split] = _patches(file[split], path)
    except DataError:
        raise
    except TROUBLE as error:
        raise DataError(
            f"'{path}' is not the file BSDS300.hdf5 of the archive, or is cut off: {error}. {ARCHIVE}"
        ) from error
    return _source("bsds300", path, splits)


def _patches(stored: Any, path: Path) -> np.ndarray:
    """Read one split; its size is looked at first, since a small file can announce any."""
    _require_columns("bsds300", path, stored, PATCH)
    require_values(f"'{path}'", stored.shape[0] * PATCH)
    return np.asarray(stored, dtype=np.float64)


def _standardized(splits: Parts) -> Parts:
    """Standardise by training and validation split together."""
    return standardize(splits, np.concatenate([splits["train"], splits["validation"]]))


def _source(name: str, path: Path, splits: Parts, columns: list[str] | None = None) -> Source:
    count, sizes = splits["train"].shape[1], sizes_of(splits)
    constant = np.flatnonzero(splits["train"].min(0) == splits["train"].max(0))
    if len(constant):
        raise DataError(
            f"Column {constant[0]} (from 0) of {name.upper()} has one value only: '{path}' is another file."
        )
    return TableSource(
        f"{name}:{path.parent.resolve()}",
        splits,
        columns=columns,
        description=f"{name.upper()} as in Papamakarios et al. (2017), {count} columns; {sizes} rows",
    )


def _find(name: str, place: str | Path, files: tuple[str, ...], hint: str = ARCHIVE) -> Path:
    """Return the first of these files in a folder, or in a folder of that name within it."""
    for folder in (Path(place), Path(place) / name, Path(place) / name.upper()):
        for file in files:
            if (folder / file).is_file():
                return folder / file
    what = "There is no folder" if not Path(place).is_dir() else "No such file is in"
    raise DataError(f"{name} needs the file {' or '.join(files)}. {what} '{place}'. {hint}")


def _require_columns(name: str, path: Path, rows: Any, count: int) -> None:
    if len(rows.shape) != 2 or rows.shape[1] != count:
        raise DataError(f"'{path}' is not the file of {name}: it has shape {rows.shape}, expected {count} columns.")


def _require_many(path: Path, rows: np.ndarray) -> None:
    if len(rows) < FEWEST:
        raise DataError(f"'{path}' has {len(rows)} rows of use; at least {FEWEST} are needed to cut them into splits.")


def _cut(rows: np.ndarray) -> Parts:
    """Cut off the last tenth for the test, then the last tenth of the rest for validation."""
    test = len(rows) - len(rows) // 10
    held = test - test // 10
    return {"train": rows[:held], "validation": rows[held:test], "test": rows[test:]}


def _continuous(rows: np.ndarray) -> np.ndarray:
    """Return the numbers of the columns whose smallest value occurs at most 5 times."""
    return np.flatnonzero((rows == rows.min(0)).sum(0) <= REPEATS)


def _uncorrelated(rows: np.ndarray) -> list[int]:
    """Drop the first column that is too correlated with another, until there is none; return what is left."""
    # Columns of one value have no correlation.
    with np.errstate(invalid="ignore", divide="ignore"):
        kept, correlated = list(range(rows.shape[1])), np.corrcoef(rows, rowvar=False) > CORRELATED
    while crowded := [column for column in kept if correlated[column, kept].sum() > 1]:
        kept.remove(crowded[0])
    return kept


def _read_collisions(path: Path, names: list[str]) -> np.ndarray:
    """Read a file of HEPMASS: a header, then label and features; what follows them in a line is left out."""
    with reading(path, "a file of HEPMASS"):
        return Table(path, ",", names, more=True).read(_after_first(pieces(path)))


def _read_meter(path: Path) -> np.ndarray:
    """Read UCI's power file: `date;time;` and seven numbers a line, with `?` for what is missing."""

    def complete(lines: list[str]) -> list[str]:
        return [_minute_last(line.strip().split(";")) for line in lines]

    what = "UCI's household_power_consumption.txt"
    with reading(path, what):
        return Table(path, ";", [*METER, "minute"]).read(_after_first(pieces(path)), complete)


def _minute_last(cells: list[str]) -> str:
    """Put the minute of the day behind the numbers of a line, or make it empty if a value is missing."""
    if "?" in cells or "" in cells:
        return ""
    hours, minutes, _ = (int(part) for part in cells[1].split(":"))
    if not (0 <= hours < 24 and 0 <= minutes < 60):
        raise ValueError(f"the time '{cells[1][:20]}'")
    return ";".join([*cells[2:], str(60 * hours + minutes)])


def _read_signal(path: Path) -> np.ndarray:
    """Read UCI's MiniBooNE file: the numbers of signal and background, then 50 numbers a line, the signal first."""
    names = [f"column {number}" for number in range(1, MINIBOONE_RAW + 1)]
    with reading(path, "UCI's MiniBooNE_PID.txt"):
        text = pieces(path)
        start = next(text, Piece(1, [""], quoted=False))
        signal, background = (int(word) for word in start.lines[0].split())
        if signal < 1 or background < 0:
            raise ValueError(f"its first line says {signal} and {background} rows")
        rows = Table(path, BLANK, names).read(chain([start.without(1)], text))
    if len(rows) != signal + background:
        raise DataError(f"'{path}' announces {signal + background} rows and has {len(rows)}: it is cut off.")
    return rows[:signal]


def _after_first(text: Iterator[Piece]) -> Iterator[Piece]:
    """Leave the first line out."""
    for piece in text:
        yield piece.without(1) if piece.first == 1 else piece
