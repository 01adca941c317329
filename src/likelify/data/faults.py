"""What is wrong with a table, collected while it is read, so that one message says all of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from likelify.data.dialect import DASHES
from likelify.errors import DataError

if TYPE_CHECKING:
    from likelify.data.options import SourceOptions

# Of what is wrong, how much a message says.
NAMED = 20
# Of the values of a column that are wrong, how many are named after the first.
MORE = 3
# So many different words can stand for missing values; more, if they are in a small share of the rows.
FEW_CELLS, MOST_CELLS, FEW_ROWS, LONGEST_CELL = 5, 20, 0.05, 40
# Where the names of columns stand, if there are any.
FIRST = "line 1"
# Words that start like numbers: 6a.
CODE = re.compile(r"[+-]?\d+ ?[^\W\d_]{1,3}", re.ASCII)
# What drops all columns that are proposed for it.
AUTO = "auto"


@dataclass
class Fault:
    """What is wrong with a column.

    Attributes:
        said: what.
        place: where it stands first.
        count: of the values that it is wrong with; 0 if it is the column as a whole.
        remedy: drop the column, take it for something else, or neither.
        wish: what it could be taken for.
        cells: what is written where values are wrong, which could be taken for missing values.
        more: what is wrong, and where, after the first.
        beside: what is wrong with the column as a whole beside that.
    """

    said: str
    place: str = ""
    count: int = 0
    remedy: Literal["drop", "columns", ""] = ""
    wish: str = ""
    cells: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    beside: str = ""

    def sentence(self, column: str) -> str:
        """Return what is said of it, with the name of its column."""
        others = f"; also {', '.join(self.more)}" if self.more else ""
        counted = f" (one of {self.count:,} such values{others})" if self.count > 1 else ""
        said = self.said.removesuffix(".")
        if self.place == FIRST:
            said += ". Or does line 1 have the names of the columns? Then let none of them be a number"
        return f"{self.place}{', ' if self.place else ''}column '{column}': {said}{counted}.{self.beside}"

    def join(self, other: Fault) -> None:
        """Add what is wrong with further values of the column."""
        self.count += other.count
        self.beside += "" if other.count else f" And {other.said}."
        if other.cells and len(self.more) < MORE:
            self.more += (f"{other.cells[0][:40]!r} in {other.place}",)
        if len(self.cells) <= MOST_CELLS:
            self.cells = tuple(dict.fromkeys((*self.cells, *other.cells)))

    def missing(self, rows: int) -> tuple[str, ...]:
        """Return the words to be taken for missing values, if they are few beside the rows; else none."""
        if self.place == FIRST:
            return ()
        few = len(self.cells) <= FEW_CELLS or (len(self.cells) <= MOST_CELLS and self.count <= FEW_ROWS * rows)
        plain = all(cell.isprintable() and len(cell) <= LONGEST_CELL for cell in self.cells)
        return self.cells if few and plain and (2 * self.count <= rows or DASHES.issuperset(self.cells)) else ()

    @property
    def are_words(self) -> bool:
        """Whether what is no number are words among numbers: such as 6a of houses, or several that come again."""
        codes = all(map(CODE.fullmatch, self.cells))
        return bool(self.cells) and (codes or (len(self.cells) > 1 and self._come_again()))

    def _come_again(self) -> bool:
        return all(map(str.isalpha, self.cells)) and self.count >= 2 * len(self.cells)

    def drops(self, rows: int) -> bool:
        """Tell whether the column is to be left out: nothing else makes the table readable."""
        return self.remedy == "drop" or (
            self.remedy == ""
            and self.count > 0
            and self.place != FIRST
            and not self.are_words
            and not self.missing(rows)
        )


@dataclass
class Faults:
    """What is wrong with a table.

    Attributes:
        name: of the table.
        columns: of each column that something is wrong with, the first of it.
        lines: what is wrong with lines that are no rows, the first of them.
        broken: how many of these there are.
        rows: how many rows were read.
        follow: whether columns follow from others.
    """

    name: str
    columns: dict[str, Fault] = field(default_factory=dict)
    lines: str = ""
    broken: int = 0
    rows: int = 0
    follow: bool = False

    def add(self, column: str, fault: Fault) -> None:
        """Note what is wrong with a column; of several values the first are named, the others are counted."""
        if column in self.columns:
            self.columns[column].join(fault)
        else:
            self.columns[column] = fault

    def add_line(self, said: str) -> None:
        """Note a line that is no row."""
        self.lines = self.lines or said
        self.broken += 1

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.columns or self.broken)

    def refuse(self, options: SourceOptions | None = None, names: Sequence[str] = ()) -> None:
        """Refuse the table if anything is wrong with it.

        Args:
            options: what the user said of the table already, which the words that mend it say again.
            names: of all columns that were to be fitted; none if there are no words to mend it with.

        Raises:
            DataError: saying all of it, and the words that mend it.
        """
        if not self:
            return
        counted = f" (The first of {self.broken:,} such lines.)" if self.broken > 1 else ""
        said = [f"{self.lines}{counted}"] if self.lines else []
        said += [fault.sentence(name) for name, fault in list(self.columns.items())[:NAMED]]
        said += [f"And {len(self.columns) - NAMED} more columns."] if len(self.columns) > NAMED else []
        raise DataError(f"{self.name}, {' '.join(said)}{self._words(options, names)}")

    def _words(self, options: SourceOptions | None, names: Sequence[str]) -> str:
        """Return the sentence with the words of the command line that, taken together, mend what they can."""
        if not names or not self.columns:
            return ""
        dropped = [name for name, fault in self.columns.items() if fault.drops(self.rows)]
        if set(names) <= set(dropped):
            return " No other column is left to fit."
        words = self._said(options, dropped)
        if not words:
            return ""
        auto = [name for name in dropped if self.columns[name].remedy == "drop" and not self.columns[name].count]
        dropping = f" ('--drop {AUTO}' drops whatever is proposed)" if dropped and auto == dropped else ""
        first = " once the lines are mended" if self.broken else ""
        spoken = [
            f"--{name}{'=' if value.startswith('-') else ' '}{value if name == 'dependent' else in_shell(value)}"
            for name, value in words.items()
        ]
        python = ", ".join(f"{name}=" for name in words)
        return f" Words that go on{first}: {' '.join(spoken)}{dropping}. In Python: {python}."

    def _said(self, options: SourceOptions | None, dropped: Sequence[str]) -> dict[str, str]:
        """Return what mends the table, by the names of options; with it, what the user said of these already."""
        found = [(name, fault) for name, fault in self.columns.items() if name not in dropped]
        wished = {name: fault.wish for name, fault in found if fault.remedy == "columns"}
        words = {name: "category" for name, fault in found if fault.remedy == "" and fault.are_words}
        wished |= words
        missing = [cell for name, fault in found if name not in words for cell in fault.missing(self.rows)]
        said: dict[str, str] = {}
        if dropped:
            before = () if options is None else options.drop or ()
            said["drop"] = ",".join(map(quoted, [*before, *dropped]))
        if wished:
            before = options.columns if options is not None and isinstance(options.columns, dict) else {}
            kept = {name: wish for name, wish in {**before, **wished}.items() if name not in dropped}
            said["columns"] = ",".join(f"{quoted(name)}={wish}" for name, wish in kept.items())
        if missing:
            before = () if options is None else options.missing or ()
            said["missing"] = ",".join(map(quoted, dict.fromkeys([*before, *missing])))
        if self.follow:
            said["dependent"] = "drop"
        return said


def note_cells(
    faults: Faults, column: str, values: Sequence[Any], wrong: Sequence[int], said: str, place: Callable[[int], str]
) -> None:
    """Note the values of a column that are wrong.

    Args:
        faults: of the table.
        column: its name.
        values: all of them.
        wrong: the rows of those that are wrong.
        said: what is wrong with each, after it.
        place: tells where a row stands; which can take long, so only those that are named are asked for.
    """
    if not wrong:
        return
    shown = [f"{str(values[row])[:40]!r}" for row in wrong[: MORE + 1]]
    more = tuple(f"{cell} in {place(row)}" for cell, row in zip(shown[1:], wrong[1:], strict=False))
    cells = tuple(dict.fromkeys(str(values[row]) for row in wrong))[: MOST_CELLS + 1]
    faults.add(column, Fault(f"{shown[0]} {said}", place(wrong[0]), len(wrong), cells=cells, more=more))


def in_shell(value: str) -> str:
    """Return a value as it stands on a command line."""
    return shlex.quote(value) if "'" in value else f"'{value}'"


def quoted(name: str) -> str:
    """Return a name as it stands in a list between commas."""
    return f'"{name}"' if set(',"=') & set(name) or name != name.strip() else name
