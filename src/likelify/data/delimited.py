"""Tables from text files: CSV and its relatives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.arrow import pyarrow
from likelify.data.cells import plain_cell
from likelify.data.dialect import (
    BLANK,
    EUROPEAN,
    LEADING,
    MISSING,
    Row,
    RowError,
    advice,
    find_delimiter,
    fixed_decimals,
    foreign_delimiter,
    has_decimal_commas,
    is_number,
    looks_like_number,
    split_lines,
    with_point,
)
from likelify.data.faults import Fault, Faults
from likelify.data.frames import Column, Frame, Missing, Rows, complete, file_hash, joined, printable, require_distinct
from likelify.data.limits import LARGEST_VALUE, MOST_COLUMNS, REMEDY, reading
from likelify.data.lines import Piece, pieces, whole_rows, without_end
from likelify.data.told import Told
from likelify.data.words import words_of_truth
from likelify.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

QUOTE, END = ord('"'), ord("\n")
# As spreadsheets write it in front of a table.
SAID = re.compile(r'"?sep=(?P<between>[,;|\t])"?', re.IGNORECASE)
TEXT = "a table of numbers between commas, semicolons, tabs, bars or blanks"
# As many rows show what a column holds.
SAMPLE_ROWS = 1000
# The names that a first column has which numbers the rows: none at all, or those of pandas and R.
NAMELESS = re.compile(r"column 1|Unnamed: \d+(\.\d+)?")
ROW_NUMBERS = re.compile(rf"{NAMELESS.pattern}|index|level_0|rownames")
# What could be the name of a column although it is a number.
YEAR = re.compile(r"1[5-9]\d\d|20\d\d|21\d\d", re.ASCII)
TRUE, FALSE = ("true", "TRUE", "True", "1"), ("false", "FALSE", "False", "0")


def read_csv(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read a text file of numbers; commas, semicolons, tabs, bars or blanks, quoted or not, packed by gzip or not.

    The file is in UTF-8. Its first row gives the names of the columns if none of its cells is a number, or if it counts
    0, 1, 2, ...; otherwise they are called `column 1`, `column 2`, ...

    Returns:
        The names of the columns, and the values `(rows, columns)` in float64.

    Raises:
        DataError: if the file cannot be read, is larger than `limits` allow, or a value is missing, infinite, above
            1e150 or not a number, naming line and column.
        MissingDependencyError: if pyarrow is not installed.
    """
    frame = TextFrame(Path(path))
    names = [column.name for column in frame.columns]
    with reading(path, TEXT):
        return names, joined(f"'{path}'", (rows.values for rows in complete(frame, names)))


class TextFrame(Frame):
    """A text file of a table, of which names, delimiter and types are found from its first lines.

    Args:
        path: of the file.
        named: whether its first row certainly has the names of the columns; else its cells tell.

    Attributes:
        first: the cells of the first row.

    Raises:
        DataError: if it cannot be read as text, is empty, or has no cells.
    """

    is_text = True

    def __init__(self, path: Path, *, named: bool = False) -> None:
        self.path, self.name = path, f"'{path}'"
        with reading(path, TEXT):
            start = _start(pieces(path), path)
            said = SAID.fullmatch(start.lines[0].strip())
            start = start if said is None else _start(iter([start.without(1)]), path)
            delimiter = find_delimiter(start.lines) if said is None else said["between"]
            if seen := foreign_delimiter(start.lines, delimiter):
                raise DataError(
                    f"'{path}' has {seen!r} between its numbers, so it is not {TEXT}. Write it with one of these. If "
                    "the numbers of a line belong together, as those of a date do, make one number of them."
                )
            row = _first_row(start, delimiter, path)
            self.first = [plain_cell(cell) for cell in row.cells]
            self.named = named or _is_header(row.cells, _rows_behind(start.without(row.last), delimiter))
            names = [printable(cell) if self.named else "" for cell in self.first]
            require_distinct(self.name, [name for name in names if name])
            self._header = start.first + row.last - 1 if self.named else start.first - 1
            self._table = Table(path, delimiter, [name or f"column {n}" for n, name in enumerate(names, 1)])
            self.columns = self._table.columns(start.without(row.last if self.named else 0))

    def rows(
        self, numbers: Sequence[str], carried: Sequence[str] = (), start: int = 0, faults: Faults | None = None
    ) -> Iterator[Rows]:
        """Read columns in order, a million characters at a time; see `Frame.rows`."""
        wanted = Wanted(
            tuple(map(self._table.names.index, numbers)),
            frozenset(n for n, column in enumerate(self.columns) if column.type == "boolean"),
            frozenset(n for n, column in enumerate(self.columns) if column.comma),
            tuple(map(self._table.names.index, carried)),
            faults,
            self.missing,
        )
        with reading(self.path, TEXT):
            for rows in self._table.rows(self._text(), wanted):
                if start >= len(rows):
                    start -= len(rows)
                    continue
                yield rows if not start else rows.after(start)
                start = 0

    def _text(self) -> Iterator[Piece]:
        """Read the lines after the header, without those at the end that have no values."""
        behind = (piece.without(max(0, self._header + 1 - piece.first)) for piece in pieces(self.path))
        return without_end(behind, self._table.delimiter)

    def place(self, row: int) -> str:
        """Tell in which line a row stands, by reading up to it."""
        for rows in self._table.rows(self._text(), Wanted((0,), faults=Faults(self.name))):
            if row < len(rows):
                return rows.locate(row, 0)[0]
            row -= len(rows)
        return f"row {row}"

    def fingerprint(self) -> str:
        """Hash the file."""
        return file_hash(self.path)


def _start(text: Iterator[Piece], path: Path) -> Piece:
    start = next((piece for piece in text if any(line.strip() for line in piece.lines)), None)
    if start is None:
        raise DataError(f"'{path}' is empty.")
    return start


def _first_row(start: Piece, delimiter: str, path: Path) -> Row:
    try:
        rows = split_lines(start.lines, delimiter)
        row = next((row for row in rows if any(row.cells) or len(row.cells) > MOST_COLUMNS), None)
    except RowError as error:
        line = start.first + error.line - 1
        raise DataError(f"'{path}', line {line} is no row of numbers or names: {error}.") from error
    if row is None:
        raise DataError(f"'{path}' has no rows: nothing stands between its quotes.")
    if len(row.cells) > MOST_COLUMNS:
        raise DataError(f"'{path}' has {len(row.cells):,} columns; at most {MOST_COLUMNS:,} are read.")
    return row


@dataclass(frozen=True)
class Wanted:
    """The columns that are read, by their place in a line.

    Attributes:
        numbers: those of numbers.
        flags: those that hold truth values, of all.
        commas: those whose numbers have decimal commas, of all.
        carried: those whose text is kept.
        faults: where what is wrong with cells and lines is noted; by default it is refused.
        missing: further words for missing values.
    """

    numbers: tuple[int, ...]
    flags: frozenset[int] = frozenset()
    commas: frozenset[int] = frozenset()
    carried: tuple[int, ...] = ()
    faults: Faults | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A text file of a table of which names and delimiter are known.

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
        if change:
            text = (piece._replace(lines=change(piece.lines)) for piece in text)
        return joined(f"'{self.path}'", self._complete(self.rows(text, Wanted(tuple(range(len(self.names)))))))

    def _complete(self, rows: Iterator[Rows]) -> Iterator[np.ndarray]:
        for part in rows:
            missing = Missing(f"'{self.path}'", self.names)
            missing.add(part)
            missing.refuse()
            yield part.values

    def rows(self, text: Iterator[Piece], wanted: Wanted) -> Iterator[Rows]:
        """Read the wanted columns of the lines, piece by piece; blank lines are no rows.

        Raises:
            DataError: if a line has too many or too few values, or a value is no number, infinite or above 1e150.
        """
        for piece in whole_rows(text):
            lines = [line for line in piece.lines if line.strip(" \r" if self.delimiter == "\t" else None)]
            if lines:
                yield self._parse(piece, lines, wanted)

    def _parse(self, piece: Piece, lines: list[str], wanted: Wanted) -> Rows:
        if not (piece.quoted and self._misquoted(piece)):
            rows = self._parse_quickly(piece, lines, wanted)
            # Comparisons with what is not a number are false.
            with np.errstate(invalid="ignore"):
                if rows is not None and not (np.abs(rows.values) > LARGEST_VALUE).any():
                    return rows
        return self._parse_slowly(piece, wanted)

    def _parse_quickly(self, piece: Piece, lines: list[str], wanted: Wanted) -> Rows | None:
        """Read with pyarrow; None if it finds something that it cannot read."""
        found = self._read_arrow(piece, lines, wanted)
        if found is None:
            return None
        values = np.empty((found.num_rows, len(wanted.numbers)))
        for place, number in enumerate(wanted.numbers):
            column = found.column(f"f{number}")
            if number in wanted.commas:
                read = _with_commas(column.to_pylist(), wanted.missing)
                if read is None:
                    return None
                values[:, place] = read
            else:
                values[:, place] = (column.cast("double") if number in wanted.flags else column).to_numpy()
        carried = {self.names[n]: list(map(_plain, found.column(f"f{n}").to_pylist())) for n in wanted.carried}
        return Rows(values, carried, lambda row, column: self._locate(piece, row, wanted.numbers[column]))

    def _read_arrow(self, piece: Piece, lines: list[str], wanted: Wanted) -> pa.Table | None:
        pa = pyarrow()
        from pyarrow import csv

        if self.delimiter == BLANK:
            if piece.quoted:
                return None
            lines = [" ".join(line.split()) for line in lines]
        try:
            width = len(next(split_lines(lines, self.delimiter)).cells)
            if width < len(self.names) or (width > len(self.names) and not self.more):
                return None
            content = "\n".join(lines).encode()
            types = {f"f{n}": pa.bool_() if n in wanted.flags else pa.float64() for n in wanted.numbers}
            types |= {f"f{n}": pa.string() for n in (*wanted.carried, *wanted.commas.intersection(wanted.numbers))}
            return csv.read_csv(
                pa.BufferReader(content),
                csv.ReadOptions(use_threads=False, block_size=len(content) + 1, autogenerate_column_names=True),
                csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=piece.quoted),
                csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    null_values=[*MISSING, *wanted.missing],
                    true_values=list(TRUE),
                    false_values=list(FALSE),
                ),
            )
        except (pa.ArrowException, RowError, StopIteration):
            return None

    def _misquoted(self, piece: Piece) -> bool:
        """Tell whether a quote stands inside a cell, or a cell goes over two lines: pyarrow joins what is beside it.

        A quote behind a blank is inside for pyarrow, which takes the blank for a part of the cell.
        """
        content = "\n".join(["", *piece.lines, ""]).encode()
        letters = np.frombuffer(content, np.uint8)
        quotes, edges = letters == QUOTE, (letters == END) | (letters == ord(self.delimiter))
        if (quotes[1:-1] & ~edges[:-2] & ~edges[2:]).any():
            return True
        starts = np.flatnonzero(letters == END)[:-1]
        # Sums of bytes wrap around at 256, which keeps them even or odd.
        return bool((np.add.reduceat(quotes.view(np.uint8), starts, dtype=np.uint8) % 2).any())

    def _parse_slowly(self, piece: Piece, wanted: Wanted) -> Rows:
        """Look at each cell: name the first that is not right; where all are, only pyarrow found them odd."""
        values, carried = [], {self.names[n]: [] for n in wanted.carried}
        for line, cells in self._cells(piece, wanted.faults):
            values.append([self._number(line, n, cells[n], wanted) for n in wanted.numbers])
            for n in wanted.carried:
                carried[self.names[n]].append(plain_cell(cells[n]))
        array = np.array(values, dtype=np.float64).reshape(len(values), len(wanted.numbers))
        return Rows(array, carried, lambda row, column: self._locate(piece, row, wanted.numbers[column]))

    def _cells(self, piece: Piece, faults: Faults | None = None) -> Iterator[tuple[int, list[str]]]:
        """Cut the lines into cells, each with the number of its line; refuse a line of the wrong number of them.

        With faults such a line is noted and left out.
        """
        width = len(self.names)
        try:
            for first, _, cells in split_lines(piece.lines, self.delimiter):
                line = piece.first + first - 1
                if len(cells) != width and not (self.more and len(cells) > width):
                    said = f"line {line} {_miscounted(len(cells), width, self.delimiter)}"
                    if faults is None:
                        raise DataError(f"'{self.path}', {said}")
                    faults.add_line(said)
                    continue
                yield line, cells
        except RowError as error:
            line = piece.first + error.line - 1
            raise DataError(f"'{self.path}', line {line} is no row of numbers: {error}.") from error

    def _number(self, line: int, column: int, cell: str, wanted: Wanted) -> float:
        if cell in MISSING or cell in wanted.missing:
            return math.nan
        if column in wanted.flags and cell in TRUE + FALSE:
            return float(cell in TRUE)
        plain = with_point(cell) if column in wanted.commas else cell
        fault = _fault(cell if plain is None else plain)
        if plain is not None and not fault:
            return float(plain)
        fault = fault or f"{cell[:40]!r} is no number with a decimal comma, as the others are."
        if wanted.faults is None:
            raise DataError(f"'{self.path}', line {line}, column '{self.names[column]}': {fault}")
        wanted.faults.add(self.names[column], Fault(fault, f"line {line}", 1, cells=(cell,)))
        return math.nan

    def _locate(self, piece: Piece, row: int, column: int) -> tuple[str, str]:
        line, cells = next(islice(self._cells(piece, Faults(str(self.path))), row, None))
        return f"line {line}", "missing" if cells[column] in MISSING else cells[column][:40]

    def columns(self, piece: Piece) -> tuple[Column, ...]:
        """Find what the columns hold from the first rows."""
        rows = _rows_behind(piece, self.delimiter)
        sample = [row for row in rows if len(row) == len(self.names)]
        found = tuple(self._column(n, name, sample) for n, name in enumerate(self.names))
        if self.delimiter == "," or not any(column.comma for column in found):
            return found
        # Where one column has decimal commas for certain, those of the others are such, too.
        return tuple(self._column(n, name, sample, commas=True) for n, name in enumerate(self.names))

    def _column(self, number: int, name: str, sample: list[list[str]], *, commas: bool = False) -> Column:
        cells = [row[number] for row in sample if row[number] not in MISSING]
        numbers = sum(map(looks_like_number, cells))
        whole = bool(cells) and all(is_number(cell) and cell.lstrip("+-").isdigit() for cell in cells)
        if not cells or (whole and any(map(LEADING.match, cells))):
            # What nobody has seen yet, and codes, are what all their words are.
            return Column(name, "words", text=True)
        if 2 * numbers < len(cells) or not numbers:
            if set(cells) <= {*TRUE, *FALSE}:
                told = Told("boolean", words=words_of_truth({*cells}), said="truth values")
                return Column(name, "boolean", told=told)
            return Column(name, "words", text=True)
        found = [cell for cell in cells if looks_like_number(cell)]
        european = commas and any("," in cell for cell in found) and all(map(EUROPEAN.fullmatch, found))
        if european or has_decimal_commas(found):
            plain = [point for cell in found if (point := with_point(cell)) is not None]
            told = Told(decimals=fixed_decimals(plain), comma=True, said="numbers with decimal commas")
            return Column(name, comma=True, told=told)
        return Column(name, "integer" if whole else "real", told=Told(decimals=fixed_decimals(found)))


def numbers_rows(columns: Sequence[str], values: np.ndarray, *, named: bool) -> bool:
    """Tell whether a first column, of no name or of one that programs give, holds the numbers of the rows.

    They count from 0 or from 1. Where the other columns have names and this has none, they may be in another order and
    with gaps, as they are after rows were shuffled or left out.

    Args:
        columns: names of all columns.
        values: of the first.
        named: whether the columns have names of their own.
    """
    if not ROW_NUMBERS.fullmatch(columns[0]):
        return False
    if values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))):
        return True
    others_named = named and list(columns[1:]) != [f"column {number}" for number in range(2, len(columns) + 1)]
    if not (NAMELESS.fullmatch(columns[0]) and others_named):
        return False
    whole = (values >= 0) & (values == np.floor(values))
    return bool(whole.all() and len(np.unique(values)) == len(values))


def _plain(cell: str) -> str:
    return plain_cell(cell.strip())


def _with_commas(cells: list[str], missing: Sequence[str]) -> np.ndarray | None:
    """Return numbers with decimal commas, NaN where one is missing; None if a cell is something else."""
    gone = {*MISSING, *missing}
    plain = ["nan" if (cell := text.strip()) in gone else with_point(cell) for text in cells]
    return None if None in plain else np.array(plain, dtype=np.float64)


def _rows_behind(piece: Piece, delimiter: str) -> list[list[str]]:
    """Return the cells of the first rows of some lines, up to one that cannot be cut: reading it names the line."""
    rows: list[list[str]] = []
    with suppress(RowError):
        rows.extend(row.cells for row in islice(split_lines(piece.lines, delimiter), SAMPLE_ROWS))
    return rows


def _is_header(cells: list[str], behind: list[list[str]]) -> bool:
    """Tell names from numbers.

    Names may be numbers: 0, 1, 2, ... as pandas calls the columns of an array, or years, if no row behind them is like
    that.

    Args:
        cells: of the first row.
        behind: those of the next ones.
    """
    named = cells[1:] if cells[0] == "" else cells
    counting = named == [str(number) for number in range(len(named))] and len(cells) > 1
    if counting or not any(map(looks_like_number, cells)):
        return True
    places = [place for place, cell in enumerate(cells) if looks_like_number(cell)]
    if not behind or not _could_be_names([cells[place] for place in places]):
        return False
    rows = [row for row in behind if len(row) == len(cells)]
    alike = sum(_could_be_names([row[place] for place in places]) for row in rows)
    words = [place for place in range(len(cells)) if place not in places and cells[place] not in MISSING]
    return bool(words or len(places) > 1) and 10 * alike < max(1, len(rows))


def _could_be_names(cells: list[str]) -> bool:
    """Tell whether numbers could be names of columns: different years, three or more in equal steps, or `inf`."""
    if all(cell.strip("+-").lower() in ("inf", "infinity") for cell in cells):
        return True
    if not all(map(YEAR.fullmatch, cells)) and not all(cell.isdigit() for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    if len(set(numbers)) < len(numbers):
        return False
    steps = {after - before for before, after in pairwise(numbers)}
    return all(map(YEAR.fullmatch, cells)) or (len(numbers) > 2 and len(steps) == 1)


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
    """Say what is wrong with a cell that is not missing, or nothing."""
    if not is_number(cell):
        return f"{cell[:40]!r} has a quote inside. Write the number without it." if '"' in cell else advice(cell)
    value = float(cell)
    if math.isinf(value) and cell.strip("+-").lower().startswith("inf"):
        return f"the value is {cell[:40]}. {REMEDY}"
    if abs(value) > LARGEST_VALUE:
        return (
            f"the value {cell[:40]} is too large to compute with. Write the column in other units, or mend the value."
        )
    return None
