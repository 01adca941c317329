"""What is wrong with a table, collected while it is read, so that one message says all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from likelify.errors import DataError

# Of what is wrong, how much a message says.
NAMED = 20
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
    """

    said: str
    place: str = ""
    count: int = 0
    remedy: Literal["drop", "columns", ""] = ""
    wish: str = ""

    def sentence(self, column: str) -> str:
        """Return what is said of it, with the name of its column."""
        counted = f" (one of {self.count:,} such values)" if self.count > 1 else ""
        said = self.said.removesuffix(".")
        return f"{self.place}{', ' if self.place else ''}column '{column}': {said}{counted}."


@dataclass
class Faults:
    """What is wrong with a table.

    Attributes:
        name: of the table.
        columns: of each column that something is wrong with, the first of it.
        lines: what is wrong with lines that are no rows, the first of them.
        broken: how many of these there are.
    """

    name: str
    columns: dict[str, Fault] = field(default_factory=dict)
    lines: str = ""
    broken: int = 0

    def add(self, column: str, fault: Fault) -> None:
        """Note what is wrong with a column; of several values the first is named, the others are counted."""
        if column in self.columns:
            self.columns[column].count += fault.count
        else:
            self.columns[column] = fault

    def add_line(self, said: str) -> None:
        """Note a line that is no row."""
        self.lines = self.lines or said
        self.broken += 1

    def __bool__(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.columns or self.broken)

    def refuse(self, drop: Sequence[str] = (), wishes: Sequence[str] = ()) -> None:
        """Refuse the table if anything is wrong with it.

        Args:
            drop: columns that are left out already, which the words that mend it name again.
            wishes: what the user said of columns already, as the command line has it.

        Raises:
            DataError: saying all of it, and the words that mend it.
        """
        if not self:
            return
        counted = f" (The first of {self.broken:,} such lines.)" if self.broken > 1 else ""
        said = [f"{self.lines}{counted}"] if self.lines else []
        said += [fault.sentence(name) for name, fault in list(self.columns.items())[:NAMED]]
        said += [f"And {len(self.columns) - NAMED} more columns."] if len(self.columns) > NAMED else []
        raise DataError(f"{self.name}, {' '.join(said)}{self._words(drop, wishes)}")

    def _words(self, drop: Sequence[str], wishes: Sequence[str]) -> str:
        """Return the sentence with the words of the command line that mend what they can."""
        dropped = [name for name, fault in self.columns.items() if fault.remedy == "drop"]
        wished = [f"{quoted(name)}={fault.wish}" for name, fault in self.columns.items() if fault.remedy == "columns"]
        words = [f"--drop '{','.join(map(quoted, [*drop, *dropped]))}'"] if dropped else []
        words += [f"--columns '{','.join([*wishes, *wished])}'"] if wished else []
        if not words:
            return ""
        auto = f" ('--drop {AUTO}' drops whatever is proposed)" if dropped else ""
        return f" Words that go on: {' '.join(words)}{auto}. In Python: drop=, columns=."


def quoted(name: str) -> str:
    """Return a name as it stands in a list between commas."""
    return f'"{name}"' if set(',"=') & set(name) or name != name.strip() else name
