"""How a text file writes a table: what stands between the cells, what its numbers look like."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

# In the order of preference, where several fit.
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
BLANK = " "
# As much of a file shows what it is like.
SAMPLE_LINES, SAMPLE = 50, 2**16
# A dash or a point alone is no such word: it may be a zero in accounts, or a category.
MISSING = (
    *("", "?", "NA", "N/A", "n/a", "N.A.", "n.a.", "#N/A", "null", "NULL", "Null", "None"),
    *("nan", "NaN", "NAN", "-nan", "-NaN", "NaT", "<NA>"),
)
GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+,\d*")
# Dashes and points that stand for missing values in some tables, and for zeros or a word in others.
DASHES = frozenset(("-", "--", "---", "–", "—", ".", "..", "*"))
# Blanks, also those that do not break a line, and apostrophes between thousands: 1 234,50.
SPACED = re.compile(r"[+-]?\d{1,3}(?:[ \u00a0\u202f'\u2019]\d{3})+(?P<rest>[.,]\d*)?", re.ASCII)
COMMA = re.compile(r"[+-]?\d*,\d*([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+", re.ASCII)
# Points between thousands count only before a decimal comma: 1.234 alone can be either.
EUROPEAN = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+,\d*|\d+(,\d*)?|,\d+)", re.ASCII)
DECIMALS = re.compile(r"[+-]?\d*\.(\d+)", re.ASCII)
# More decimals than this are those of a program, not of a table.
MOST_DECIMALS = 10
# A number that starts so is one of a code, whose zeros count.
LEADING = re.compile(r"[+-]?0[0-9]")
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
# Numbers with the sign of a currency or of a percentage.
SIGNED = re.compile(
    r"[+-]?\s*(?:[$€£¥₹₩]|USD|EUR|GBP|CHF|JPY)\s*(?P<number>[+-]?[0-9][0-9.,]*)"
    r"|(?P<before>[+-]?[0-9][0-9.,]*)\s*(?:[%‰$€£¥₹₩]|USD|EUR|GBP|CHF|JPY)"
)
# Several numbers with the same between them, no letter or digit and none of ours. A dash may be one, or a sign.
BETWEEN = r"(?:[^\w\s,;|\"+.]|[^\S \t\r\n]){1,3}?"
SEVERAL = re.compile(rf"{NUMBER}[ \t]*(?P<between>{BETWEEN})[ \t]*{NUMBER}(?:[ \t]*(?P=between)[ \t]*{NUMBER})*")


def find_delimiter(lines: Iterable[str]) -> str:
    """Return what stands between the cells: that which cuts most lines into the same number of numbers.

    What is inside quotes does not count. Where semicolons, tabs or bars cut all lines alike, and all commas behind the
    first line are decimal ones of the cells between them, it is those.

    Args:
        lines: from the start of the file.

    Returns:
        One of `DELIMITERS`; a comma if each line is one cell. A blank stands for any number of blanks and tabs.
    """
    sample = _first(lines)
    best = max(DELIMITERS, key=lambda delimiter: _fitness(sample, delimiter))
    if _is_one_column(sample, best):
        return next(delimiter for delimiter in DELIMITERS if not any(delimiter in line for line in sample))
    return best if best != "," else next((each for each in ";\t|" if _holds_decimal_commas(sample, each)), best)


def foreign_delimiter(lines: Iterable[str], delimiter: str) -> str | None:
    """Return what stands between the numbers of every line where it is none of `DELIMITERS`, or None.

    Args:
        lines: from the start of the file; where there are more than one, the first can hold names.
        delimiter: the best of `DELIMITERS`.
    """
    sample = _first(lines)
    seen = {between(line.replace('"', "").strip()) for line in sample[1:] or sample}
    cells = filter(None, re.split(f"[ \t{delimiter}]", sample[-1].strip(" \t\r")))
    if len(seen) != 1 or all(map(looks_like_number, cells)):
        return None
    return seen.pop()


def between(cell: str) -> str | None:
    """Return what stands between the numbers of which a cell consists, such as `:` of `12:30`, or None."""
    found = SEVERAL.fullmatch(cell) if len(cell) <= SAMPLE else None
    return found["between"] if found else None


class Row(NamedTuple):
    """Cells without blanks around them, and the numbers of their first and last line, from 1."""

    first: int
    last: int
    cells: list[str]


class RowError(ValueError):
    """A line, counted from 1, is no row of cells."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def split_lines(lines: Iterable[str], delimiter: str) -> Iterator[Row]:
    """Cut lines into rows of cells; blank lines are no rows.

    Raises:
        RowError: if a cell is longer than 131,072 characters, or a quote is not closed or closed before its cell ends.
    """
    if delimiter == BLANK:
        lines = (line.replace("\t", BLANK).strip() for line in lines)
    # With their ends, which belong to a cell that goes over several lines.
    lines = (line + "\n" for line in lines)
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    before = 0
    try:
        for cells in rows:
            stripped = [cell.strip() for cell in cells]
            if any(stripped) or (len(stripped) > 1 and delimiter != BLANK):
                yield Row(before + 1, rows.line_num, stripped)
            before = rows.line_num
    except csv.Error as error:
        raise RowError(
            before + 1, f"a quote is not closed where its cell ends, or a cell is too long ({error})"
        ) from error


def is_nothing(value: Any) -> bool:
    """Tell whether a value stands for a missing one: None, NaN, and what pandas and numpy have for it."""
    # What pandas has for it is not to be compared.
    if value is None or str(value) in ("NaT", "<NA>"):
        return True
    return isinstance(value, float | np.floating | Decimal) and value != value


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that its value is missing."""
    return cell in MISSING or cell.isspace()


def is_number(cell: str) -> bool:
    """Tell whether a cell is a number as Python writes it, infinite or not a number included."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def looks_like_number(cell: str) -> bool:
    """Tell whether a cell is a number, though perhaps with a decimal comma, or something between its thousands."""
    written = COMMA, GROUPS, POINTS, SPACED
    return is_number(cell) or (any(c.isdigit() for c in cell) and any(form.fullmatch(cell) for form in written))


def fixed_decimals(cells: Sequence[str]) -> int | None:
    """Return how many decimals all numbers are written with, None if not all with as many, or with more than ten.

    Example:
        >>> fixed_decimals(["1.50", "-20.00"]), fixed_decimals(["1.5", "2.25"])
        (2, None)
    """
    found = {len(match[1]) if (match := DECIMALS.fullmatch(cell)) else 0 for cell in cells}
    return found.pop() if len(found) == 1 and 0 < min(found) <= MOST_DECIMALS else None


def has_decimal_commas(cells: Sequence[str]) -> bool:
    """Tell whether all cells are numbers with decimal commas, as `1,5` or `1.234,50`, or whole ones, for certain.

    `1,500` alone could have a comma between thousands: some cell must be one that no such comma explains. And at least
    half of them must have a comma, for one alone is a slip.

    Example:
        >>> has_decimal_commas(["1,5", "2", "-1.200,25"]), has_decimal_commas(["1,500", "2,250"])
        (True, False)
    """
    commas = [cell for cell in cells if "," in cell]
    certain = any(not GROUPS.fullmatch(cell) for cell in commas)
    return certain and 2 * len(commas) >= len(cells) and all(map(EUROPEAN.fullmatch, cells))


def with_point(cell: str) -> str | None:
    """Return a number with a decimal comma as one with a decimal point; None if it is none."""
    return cell.replace(".", "").replace(",", ".") if EUROPEAN.fullmatch(cell) else None


def in_points(cell: str) -> str | None:
    """Return a number of a column that has decimal commas with a point instead, and one that has a point as it is.

    Returns:
        None for what is no number, and for `1.234`, which in such a column can be either.

    Example:
        >>> in_points("1.234,5"), in_points("3.5"), in_points("1.234")
        ('1234.5', '3.5', None)
    """
    plain = with_point(cell)
    return cell if plain is None and is_number(cell) and not THOUSANDS.fullmatch(cell) else plain


def advice(cell: str) -> str:
    """Say what is wrong with a cell that is not a number, and what to do about it.

    Example:
        >>> advice("1,5")
        "'1,5' has a decimal comma. Write the numbers with decimal points: 1.5."
    """
    shown = repr(cell[:40])
    if "\n" in cell:
        return f"{shown} goes over several lines. Close the quote before it where the cell ends."
    if SPACED.fullmatch(cell):
        plain = re.sub(r"[^\d.,+-]", "", cell).replace(",", ".")[:40]
        return f"{shown} has blanks or apostrophes between thousands. Write the file without them: {plain}."
    if seen := between(cell):
        return (
            f"{shown} is several numbers with {seen!r} between them. Give each a column of its own, or make one number "
            "of them (of dates and times, the seconds since the first)."
        )
    if signed := SIGNED.fullmatch(cell):
        number = signed["number"] or signed["before"]
        what = "a percentage" if "%" in cell else "an amount of money"
        plain = number.replace(",", "") if GROUPS.fullmatch(number) else number
        return f"{shown} is {what} with its sign. Write the number alone: {plain}."
    if cell in DASHES:
        return (
            f"{shown} is not a number. If it stands for a missing value, say so (--missing), and if it is a word like "
            "others, that the column has words (--columns NAME=category)."
        )
    if not looks_like_number(cell):
        return f"{shown} is not a number. Drop the column, or put numbers in place of its words."
    plain = cell.replace(",", "")[:40]
    if POINTS.fullmatch(cell):
        point = cell.replace(".", "").replace(",", ".")[:40]
        return (
            f"{shown} has points between thousands and a decimal comma. Write the numbers with decimal points: {point}."
        )
    if not GROUPS.fullmatch(cell):
        return f"{shown} has a decimal comma. Write the numbers with decimal points: {cell.replace(',', '.')[:40]}."
    if cell.count(",") > 1 or "." in cell:
        return f"{shown} has commas between thousands. Write the file without them: {plain}."
    return (
        f"{shown} has a comma that can be one between thousands ({plain}) or a decimal comma "
        f"({cell.replace(',', '.')}). Write the file without the former, or with decimal points."
    )


def _first(lines: Iterable[str]) -> list[str]:
    """Return the first lines that are not blank."""
    sample: list[str] = []
    for line in lines:
        if sample and (len(sample) == SAMPLE_LINES or sum(map(len, sample)) + len(line) > SAMPLE):
            break
        if line.strip():
            sample.append(line)
    return sample


def _holds_decimal_commas(sample: list[str], delimiter: str) -> bool:
    """Tell whether a delimiter cuts all lines alike, and all commas are those of numbers in the cells between."""
    try:
        rows = [row.cells for row in split_lines(sample, delimiter)]
    except RowError:
        return False
    commas = [cell for row in rows[1:] or rows for cell in row if "," in cell]
    return bool(commas) and len(rows[0]) > 1 and len({*map(len, rows)}) == 1 and all(map(EUROPEAN.fullmatch, commas))


def _is_one_column(sample: list[str], delimiter: str) -> bool:
    """Tell whether lines below one name are one column: words of several parts, or numbers with decimal commas."""
    if len(sample) < 2 or looks_like_number(sample[0].strip()) or delimiter in sample[0].strip():
        return False
    if all(any(each in line for line in sample) for each in DELIMITERS):
        return False
    cells = [line.strip() for line in sample[1:]]
    if delimiter == ",":
        return all(map(EUROPEAN.fullmatch, cells))
    parts = [part for cell in cells for part in cell.split()]
    return delimiter == BLANK and '"' not in sample[1] and not all(map(looks_like_number, parts))


def _fitness(sample: list[str], delimiter: str) -> float:
    """Tell how well a delimiter fits: the share of lines that it cuts alike, times that of their numbers."""
    try:
        rows = [row.cells for row in split_lines(sample, delimiter)]
    except RowError:
        return 0.0
    (width, alike), *_ = Counter(map(len, rows)).most_common(1) or [(1, 0)]
    if width == 1:
        return 0.0
    cells = [cell for row in rows if len(row) == width for cell in row]
    numbers = sum(cell in MISSING or looks_like_number(cell) for cell in cells) / len(cells)
    # Lines of words have a delimiter too.
    return alike / len(rows) * (0.01 + numbers)
