"""Tables of numbers from text files: CSV and its relatives."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from likelify.data.dialect import (
    BLANK,
    MISSING,
    RowError,
    advice,
    find_delimiter,
    foreign_delimiter,
    is_number,
    looks_like_number,
    split_lines,
)
from likelify.data.limits import LARGEST_VALUE, MOST_COLUMNS, REMEDY, reading, require_values
from likelify.data.lines import Piece, pieces
from likelify.errors import DataError

QUOTE, END = ord('"'), ord("\n")
# What stands at the edges of cells.
EDGES = bytes(byte in b" \t\n,;|" for byte in range(256))
TEXT = "a table of numbers between commas, semicolons, tabs, bars or blanks"


def read_csv(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read a text file of numbers; commas, semicolons, tabs, bars or blanks, quoted or not, packed by gzip or not.

    The file is in UTF-8. Its first row gives the names of the columns if none of its cells is a number, or if it counts
    0, 1, 2, ...; otherwise they are called `column 1`, `column 2`, ...

    Returns:
        The names of the columns, and the values `(rows, columns)` in float64.

    Raises:
        DataError: if the file cannot be read, is larger than `limits` allow, or a value is missing, infinite, above
            1e150 or not a number, naming line and column.
    """
    path = Path(path)
    with reading(path, TEXT):
        text = pieces(path)
        start = next((piece for piece in text if any(line.strip() for line in piece.lines)), None)
        if start is None:
            raise DataError(f"'{path}' is empty.")
        delimiter = find_delimiter(start.lines)
        if seen := foreign_delimiter(start.lines, delimiter):
            raise DataError(
                f"'{path}' has {seen!r} between its numbers, so it is not {TEXT}. Write it with one of these. If the "
                "numbers of a line belong together, as those of a date do, make one number of them."
            )
        try:
            row = next(split_lines(start.lines, delimiter), None)
        except RowError as error:
            line = start.first + error.line - 1
            raise DataError(f"'{path}', line {line} is no row of numbers or names: {error}.") from error
        if row is None:
            raise DataError(f"'{path}' has no rows: nothing stands between its quotes.")
        _, used, cells = row
        if len(cells) > MOST_COLUMNS:
            raise DataError(f"'{path}' has {len(cells):,} columns; at most {MOST_COLUMNS:,} are read.")
        header = _is_header(cells)
        names = [_printable(cell) if header else "" for cell in cells]
        names = [name or f"column {number}" for number, name in enumerate(names, 1)]
        rest = chain([start.without(used) if header else start], text)
        return names, Table(path, delimiter, names).read(rest)


@dataclass(frozen=True)
class Table:
    """A text file of numbers of which names and delimiter are known.

    Attributes:
        path: of the file.
        delimiter: one of `dialect.DELIMITERS`.
        names: of the columns that are read, the first of each line.
        more: whether lines may have further columns, which are left out.
    """

    path: Path
    delimiter: str
    names: list[str]
    more: bool = False

    def read(self, text: Iterator[Piece], change: Callable[[list[str]], list[str]] | None = None) -> np.ndarray:
        """Read rows of numbers; blank lines are skipped.

        Args:
            text: the lines, without those of the header.
            change: makes of the lines of a piece as many lines of numbers, empty ones where there is no row.

        Returns:
            Values `(rows, columns)` in float64, all finite and below 1e150.

        Raises:
            DataError: see `read_csv`.
        """
        parts: list[np.ndarray] = []
        count = 0
        for piece in text:
            changed = piece._replace(lines=change(piece.lines)) if change else piece
            lines = [line for line in changed.lines if line and not line.isspace()]
            if lines:
                parts.append(self._parse(changed, lines))
                count += parts[-1].size
                require_values(self.path, count)
        if not parts:
            raise DataError(f"'{self.path}' has no rows.")
        return _joined(parts)

    def _parse(self, piece: Piece, lines: list[str]) -> np.ndarray:
        width = len(self.names)
        if piece.quoted and self._misquoted(piece):
            return self._parse_slowly(piece, None)
        try:
            values = np.loadtxt(
                lines,
                delimiter=None if self.delimiter == BLANK else self.delimiter,
                comments=None,
                quotechar='"' if piece.quoted else None,
                ndmin=2,
                usecols=range(width) if self.more else None,
                dtype=np.float64,
            )
        except (ValueError, OverflowError) as error:
            return self._parse_slowly(piece, error)
        # Comparisons with what is not a number are false.
        if values.shape[1] != width or not (-LARGEST_VALUE <= values.min() and values.max() <= LARGEST_VALUE):
            return self._parse_slowly(piece, None)
        return values

    def _misquoted(self, piece: Piece) -> bool:
        """Tell whether a quote stands inside a cell, or a cell goes over two lines: numpy joins what is beside it."""
        content = "\n".join(["", *piece.lines, ""]).encode()
        letters = np.frombuffer(content, np.uint8)
        quotes, edges = letters == QUOTE, np.frombuffer(content.translate(EDGES), np.bool_)
        inside = quotes[1:-1] & ~edges[:-2] & ~edges[2:]
        if inside.any():
            line = piece.first + content.count(b"\n", 1, int(inside.argmax()) + 1)
            raise DataError(f"'{self.path}', line {line} has a quote inside a number.")
        starts = np.flatnonzero(letters == END)[:-1]
        # Sums of bytes wrap around at 256, which keeps them even or odd.
        return bool((np.add.reduceat(quotes.view(np.uint8), starts, dtype=np.uint8) % 2).any())

    def _parse_slowly(self, piece: Piece, cause: Exception | None) -> np.ndarray:
        """Look at each cell: name the first that is not right; where all are, only numpy found them odd."""
        rows: list[list[float]] = []
        try:
            for first, _, cells in split_lines(piece.lines, self.delimiter):
                rows.append(self._numbers(piece.first + first - 1, cells))
        except RowError as error:
            line = piece.first + error.line - 1
            raise DataError(f"'{self.path}', line {line} is no row of numbers: {error}.") from cause or error
        return np.array(rows).reshape(-1, len(self.names))

    def _numbers(self, line: int, cells: list[str]) -> list[float]:
        width = len(self.names)
        if self.more:
            cells = cells[:width]
        if len(cells) != width:
            raise DataError(f"'{self.path}', line {line} {_miscounted(len(cells), width, self.delimiter)}")
        for name, cell in zip(self.names, cells, strict=True):
            if fault := _fault(cell):
                raise DataError(f"'{self.path}', line {line}, column '{name}': {fault}")
        return [float(cell) for cell in cells]


def _is_header(cells: list[str]) -> bool:
    """Tell names from numbers; the columns of an array without names are called 0, 1, 2, ... by pandas."""
    named = cells[1:] if cells[0] == "" else cells
    counting = named == [str(number) for number in range(len(named))] and len(cells) > 1
    return counting or not any(map(looks_like_number, cells))


def _printable(cell: str) -> str:
    """Return a name on one line, without what a terminal would obey."""
    return "".join(letter for letter in " ".join(cell.split()) if letter.isprintable())


def _miscounted(found: int, width: int, delimiter: str) -> str:
    said = f"has {found} value{'s' * (found != 1)}; there {'are' if width != 1 else 'is'} {width} column"
    said += "s." if width != 1 else "."
    if delimiter == ",":
        said += " A comma inside a number counts as one between two, unless the number is in quotes."
    if found == width + 1:
        said += (
            " If the first value is the name of the row, as R writes it, write the file without (row.names = FALSE)."
        )
    return said


def _fault(cell: str) -> str | None:
    """Say what is wrong with a cell, or nothing."""
    if cell in MISSING:
        return f"the value is missing. {REMEDY}"
    if not is_number(cell):
        return advice(cell)
    value = float(cell)
    if math.isnan(value) or cell.strip("+-").lower().startswith("inf"):
        return f"the value is {cell[:40]}. {REMEDY}"
    if abs(value) > LARGEST_VALUE:
        return (
            f"the value {cell[:40]} is too large to compute with. Write the column in other units, or mend the value."
        )
    return None


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Put parts together, each being dropped when it is copied."""
    whole = np.empty((sum(map(len, parts)), parts[0].shape[1]))
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole
