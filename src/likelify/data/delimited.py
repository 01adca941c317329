"""Tables of numbers from files: CSV and numpy arrays."""

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from tokenize import TokenError
from typing import NoReturn

import numpy as np

from likelify.errors import DataError

DELIMITERS = ",;\t"
MISSING = ("", "?", "NA", "N/A", "null", "None")
REMEDY = "Fill such values in or drop their rows before fitting."


def read_csv(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read a CSV file of numbers; commas, semicolons or tabs, quoted or not, packed by gzip or not, UTF-8.

    The first line gives the names of the columns if none of its cells is a number, or if it counts 0, 1, 2, ...;
    otherwise they are called `column 1`, `column 2`, ...

    Returns:
        The names of the columns, and the values `(rows, columns)` in float64.

    Raises:
        DataError: if the file cannot be read, or a value is missing, infinite or not a number, naming line and column.
    """
    path = Path(path)
    delimiter, cells = _first_cells(path)
    header = not any(_is_number(cell) for cell in cells) or (
        len(cells) > 1 and cells == [str(number) for number in range(len(cells))]
    )
    names = [cell.strip() for cell in cells] if header else []
    names = [name or f"column {number}" for number, name in enumerate(names or [""] * len(cells), 1)]
    return names, read_numbers(path, delimiter, names=names, header=header)


def read_numbers(
    path: Path, delimiter: str, *, names: list[str], header: bool, only: range | None = None
) -> np.ndarray:
    """Read the rows of a text file of numbers.

    Args:
        path: of the file, packed by gzip or not.
        delimiter: between the cells.
        names: of the columns, for errors.
        header: whether the first line holds names.
        only: the numbers of the columns to read; None reads all.

    Returns:
        Values `(rows, columns)` in float64, all finite.

    Raises:
        DataError: see `read_csv`.
    """
    try:
        with open_text(path) as lines:
            rows = parse_numbers(lines, delimiter, only, header=header)
    except (ValueError, EOFError, zlib.error, OSError) as error:
        _find_fault(path, delimiter, names, error, header=header, more=only is not None)
    if len(rows) == 0:
        raise DataError(f"'{path}' has no rows.")
    if not np.isfinite(rows).all():
        _find_fault(path, delimiter, names, None, header=header, more=only is not None)
    return rows


def parse_numbers(
    lines: Iterable[str], delimiter: str | None, only: range | None = None, *, header: bool = False
) -> np.ndarray:
    """Turn lines of numbers into an array `(rows, columns)` of float64; blank lines and a header are skipped.

    Raises:
        ValueError: if a cell is not a number, or lines have different numbers of cells.
    """
    filled = (line for line in lines if line.strip())
    if header:
        next(filled, None)
    first = next(filled, None)
    if first is None:
        return np.empty((0, 0))
    rows = chain([first], filled)
    return np.loadtxt(rows, delimiter=delimiter, comments=None, quotechar='"', ndmin=2, usecols=only, dtype=np.float64)


def read_array(path: str | Path) -> np.ndarray:
    """Read a numpy file `.npy` of rows of numbers as float64; pickled objects are refused.

    Raises:
        DataError: if it is something else, or holds values that are missing or infinite.
    """
    try:
        with open(path, "rb") as handle:
            values = np.lib.format.read_array(handle, allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, TokenError) as error:
        raise DataError(f"'{path}' is not a whole numpy file of numbers: {error}.") from error
    if values.ndim != 2 or values.dtype.kind not in "iufb":
        raise DataError(f"'{path}' does not hold rows of numbers: an array (rows, columns) of numbers is needed.")
    values = values.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(f"'{path}', row {row}, column {column}: the value is {values[row, column]}. {REMEDY}")
    return values


def is_packed(path: Path) -> bool:
    """Tell whether a file is packed by gzip."""
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def open_text(path: Path) -> io.TextIOBase:
    """Open a text file, packed by gzip or not."""
    if is_packed(path):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")  # pyright: ignore[reportArgumentType]
    return open(path, encoding="utf-8-sig", newline="")


def _first_cells(path: Path) -> tuple[str, list[str]]:
    """Find the delimiter and the cells of the first line."""
    try:
        with open_text(path) as lines:
            line = next((line for line in lines if line.strip()), None)
    except (UnicodeDecodeError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"'{path}' cannot be read as text: {error}.") from error
    if line is None:
        raise DataError(f"'{path}' is empty.")
    delimiter = max(DELIMITERS, key=line.count)
    return delimiter, [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _find_fault(
    path: Path, delimiter: str, names: list[str], cause: Exception | None, *, header: bool, more: bool
) -> NoReturn:
    """Name the line and column of the first value that is not a finite number; `more` allows columns without a name."""
    try:
        with open_text(path) as lines:
            rows = csv.reader(lines, delimiter=delimiter)
            seen = not header
            for cells in rows:
                if seen and cells:
                    _check_cells(path, rows.line_num, cells[: len(names)] if more else cells, names)
                seen = seen or bool(cells)
    except (UnicodeDecodeError, EOFError, zlib.error, OSError, csv.Error) as error:
        cause = error
    raise DataError(f"'{path}' cannot be read as a table of numbers: {cause}.") from cause


def _check_cells(path: Path, line: int, cells: list[str], names: list[str]) -> None:
    if len(cells) != len(names):
        raise DataError(f"'{path}', line {line} has {len(cells)} values; there are {len(names)} columns.")
    for name, cell in zip(names, map(str.strip, cells), strict=True):
        where = f"'{path}', line {line}, column '{name}'"
        if cell in MISSING:
            raise DataError(f"{where}: the value is missing. {REMEDY}")
        if not _is_number(cell):
            remedy = "is not a number. Drop the column, or put numbers in place of its words."
            if _is_number(cell.replace(",", ".", 1)):
                remedy = "has a decimal comma. Write the file with decimal points."
            raise DataError(f"{where}: '{cell[:40]}' {remedy}")
        if not math.isfinite(float(cell)):
            raise DataError(f"{where}: the value is {cell}. {REMEDY}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
