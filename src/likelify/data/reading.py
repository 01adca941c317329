"""Tables of columns of any kind, read whole into rows of float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from likelify.data.encoding import encode_column, say_strange
from likelify.data.faults import AUTO, MORE, MOST_CELLS, Fault, Faults, quoted
from likelify.data.finding import fault_of
from likelify.data.frames import NUMBERS, Column, Frame, Rows, joined, without_words
from likelify.data.limits import require_values
from likelify.data.proposals import is_free_text, numbers_rows
from likelify.data.told import Told
from likelify.data.words import Meaning, Words, meaning
from likelify.data.zones import by_clocks
from likelify.errors import DataError, unknown_words
from likelify.schema import ColumnSchema, compute_functions

# Of the names of columns, how many an error lists.
NAMED = 20


@dataclass
class Table:
    """What was read of a table.

    Attributes:
        rows: the numbers `(rows, columns)`, NaN where a value is missing.
        names: of the columns.
        told: what is known of them beside the numbers.
        labels: values of the column of labels, or None.
    """

    rows: np.ndarray
    names: list[str]
    told: dict[str, Told]
    labels: list[Any] | None

    def without(self, names: Sequence[str]) -> None:
        """Leave columns out."""
        places = [place for place, name in enumerate(self.names) if name not in names]
        if len(places) < len(self.names):
            self.rows = np.ascontiguousarray(self.rows[:, places])
            self.names = [self.names[place] for place in places]


def read_frame(
    frame: Frame, names: Sequence[str], told: Mapping[str, Told], label: str | None, faults: Faults
) -> Table:
    """Read all rows of some columns.

    Args:
        frame: the table.
        names: of the columns.
        told: what the user says of some of them.
        label: name of the column of labels, or None.
        faults: where everything that is wrong is noted.

    Raises:
        DataError: if the file is damaged, has no rows, or more than are read without asking.
    """
    known = {name: _told(frame, frame.column(name), told.get(name)) for name in names}
    names = [name for name in names if not _unreadable(frame.column(name), faults)]
    text = [name for name in names if _is_text(frame.column(name), told.get(name))]
    numbers = [name for name in names if name not in text]
    require_values(frame.name, (frame.count or 0) * len(names))
    read = _Reading(numbers, {name: Words() for name in text}, label)
    parts = read.parts(frame, faults)
    first = next((part for part in parts if len(part)), None)
    if first is None:
        # Perhaps there are lines, and none of them is a row.
        faults.refuse()
        raise DataError(f"{frame.name} has no rows.")
    whole = joined(frame.name, chain([first], parts))
    faults.rows = len(whole)
    rows = whole if not text else np.empty((len(whole), len(names)))
    for place, name in enumerate(names if text else ()):
        if name in text:
            rows[:, place], known[name] = _understood(frame, name, read.words[name], known[name], faults)
        else:
            rows[:, place] = whole[:, numbers.index(name)]
    for place, name in enumerate(names):
        if known[name].kind == "date" and not frame.column(name).text:
            known[name] = _dated(rows[:, place], known[name])
    return Table(rows, list(names), known, read.labels if label else None)


@dataclass
class _Reading:
    """The parts of a table as they are read: numbers are given, words and labels kept."""

    numbers: list[str]
    words: dict[str, Words]
    label: str | None
    labels: list[Any] = field(default_factory=list)

    def parts(self, frame: Frame, faults: Faults) -> Iterator[np.ndarray]:
        carried = [*self.words, *([self.label] if self.label else [])]
        for rows in frame.rows(self.numbers, carried, faults=faults):
            for name, words in self.words.items():
                words.add(without_words(rows.carried[name], frame.missing))
            self.labels.extend(rows.carried[self.label] if self.label else [])
            yield frame.present(rows.values, self.numbers)


def _told(frame: Frame, column: Column, wish: Told | None) -> Told:
    """Return what is known of a column: what the file says, and what the user says, who is right."""
    told = column.told
    words = frame.ordered(column.name) if wish is None or wish.words is None else None
    if wish is None:
        return told if words is None else replace(told, kind="ordered", words=words, said="ordered by the table")
    if told.unit is not None and told.kind is None and wish.kind in ("integer", "real"):
        return replace(wish, unit=told.unit)
    if wish.kind == "date" and told.kind == "date":
        return replace(told, by="user", said=wish.said)
    if wish.kind == "ordered" and words is not None:
        return replace(wish, words=words)
    return replace(wish, decimals=told.decimals, comma=told.comma)


def _unreadable(column: Column, faults: Faults) -> bool:
    if column.type != "other":
        return False
    faults.add(column.name, Fault("it holds values that are neither numbers, words nor dates", remedy="drop"))
    return True


def _is_text(column: Column, wish: Told | None) -> bool:
    """Tell whether the values of a column are read as words."""
    if column.text or wish is None or wish.kind is None:
        return column.text
    if wish.kind == "date":
        return column.type != "date"
    return wish.kind in ("category", "ordered") or (wish.kind == "boolean" and column.type not in NUMBERS)


def _understood(frame: Frame, name: str, words: Words, told: Told, faults: Faults) -> tuple[np.ndarray, Told]:
    """Return the numbers that the words of a column stand for, and note what is wrong with them."""
    known, places = list(words.known), words.places
    found = meaning(known, told)
    values = found.values[places] if len(known) else np.full(len(places), np.nan)
    if found.said and not found.wrong:
        remedy = "columns" if found.wish else "drop"
        # Counted as values where the column is to be dropped, so that nothing leaves it out unasked.
        faults.add(name, Fault(found.said, "", 0 if found.wish else len(places), remedy, found.wish))
    elif found.wrong:
        faults.add(name, _wrong_cells(frame, known, places, found))
    elif found.told.by != "user" and found.told.kind == "category":
        present = ~np.isnan(values)
        if said := is_free_text(places[present], len(found.told.words or ())):
            faults.add(name, Fault(f"{said} (--columns '{quoted(name)}=category' keeps it)", remedy="drop"))
    return values, found.told


def _wrong_cells(frame: Frame, known: Sequence[str], places: np.ndarray, found: Meaning) -> Fault:
    """Return the fault of words that are not what the others of their column are, with where the first stand."""
    rows = np.flatnonzero(np.isin(places, found.wrong))
    more = tuple(f"{known[int(places[row])][:40]!r} in {frame.place(row)}" for row in rows[1 : 1 + MORE].tolist())
    cells = tuple(known[number] for number in found.wrong[: MOST_CELLS + 1])
    remedy = "columns" if found.wish else ""
    return Fault(found.said, frame.place(int(rows[0])), len(rows), remedy, found.wish, cells, more)


def _dated(values: np.ndarray, told: Told) -> Told:
    """Return what is known of moments that a table has as such: whole days, whole seconds, or parts of these.

    Moments that are all at midnight are counted in days, and those in a time zone by its clocks, in place.
    """
    if told.zone is not None:
        values[:] = by_clocks(values, told.zone)
    present = values[~np.isnan(values)]
    if told.unit != "second" or not told.written or not len(present):
        return told
    if told.written.startswith("%Y-%m-%dT%H:%M:%S") and not (present % 86400).any():
        values /= 86400
        return replace(told, unit="day", written="%Y-%m-%d")
    if (present % 1).any():
        return replace(told, written=told.written.replace("%S", "%S.%f"))
    return told


def note_faults(table: Table, faults: Faults, *, ids: bool) -> None:
    """Note the columns that have no values, or others than were told, and, if asked to, those that number the rows."""
    for place, name in enumerate(table.names):
        if name in faults.columns:
            continue
        told = table.told.get(name, Told())
        if fault := fault_of(table.rows[:, place], told):
            faults.add(name, fault)
        elif ids and told.by != "user" and told.kind is None and numbers_rows(table.rows[:, place]):
            said = f"its values number the rows: an id (--columns '{quoted(name)}=integer' keeps it)"
            faults.add(name, Fault(said, remedy="drop"))


def drop_proposed(table: Table, faults: Faults) -> list[str]:
    """Leave out the columns that are proposed for it, and return their names."""
    dropped = [name for name, fault in faults.columns.items() if fault.remedy == "drop" and not fault.count]
    table.without(dropped)
    for name in dropped:
        del faults.columns[name]
    return dropped


def splits_auto(frame: Frame, drop: Sequence[str]) -> tuple[list[str], bool]:
    """Return the columns to leave out, and whether all that are proposed for it are left out too."""
    known = {column.name for column in frame.columns}
    auto = AUTO in drop and AUTO not in known
    return [name for name in drop if not (auto and name == AUTO)], auto


def read_as(
    frame: Frame,
    schema: Sequence[ColumnSchema],
    carried: Sequence[str] = (),
    start: int = 0,
    *,
    unknown: str = "unseen",
) -> Iterator[Rows]:
    """Read the columns of a schema in order, piece by piece, as rows of it.

    Columns that are functions of others may be absent, and are computed; others that are absent are missing, unless
    `require_columns` has refused that.

    Args:
        frame: the table.
        schema: of the columns that are read.
        carried: names of further columns, whose values are given as they are.
        start: the first row that is given.
        unknown: what becomes of words that a column does not know, see `encoding.encode`.

    Raises:
        DataError: if words are refused, the file is damaged, or values are of another kind, when all was read: the
            message names them.

    Warns:
        LikelifyWarning: naming words that the schema does not know, when all was read.
    """
    parts = _Encoding(frame, tuple(schema), Faults(frame.name))
    for rows in frame.rows(*parts.wanted(carried), start, parts.faults):
        values = parts.encoded(rows, start)
        start += len(rows)
        # The rest is read for what else is wrong with it.
        if not parts.faults:
            yield Rows(values, {name: rows.carried[name] for name in carried}, rows.locate)
    parts.faults.refuse()
    say_strange(frame.name, {name: words for name, words in parts.strange.items() if words}, schema, unknown)


@dataclass
class _Encoding:
    """The rows of a table as those of a schema, with what is wrong with them and the words that the schema lacks."""

    frame: Frame
    schema: tuple[ColumnSchema, ...]
    faults: Faults
    strange: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {column.name for column in self.frame.columns}
        self.present = [column.name for column in self.schema if column.name in known]
        text = [column for column in self.schema if column.name in known]
        self.text = [column.name for column in text if _reads_text(self.frame, column)]
        self.numbers = [name for name in self.present if name not in self.text]

    def wanted(self, carried: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the columns that are read as numbers, and those that are read as they are."""
        return self.numbers, [*dict.fromkeys([*self.text, *carried])]

    def encoded(self, rows: Rows, start: int) -> np.ndarray:
        """Return some rows, of which the first has a number."""
        values = np.full((len(rows), len(self.schema)), np.nan)
        numbers = self.frame.present(rows.values, self.numbers)
        for place, column in enumerate(self.schema):
            if column.name in self.numbers:
                found = numbers[:, self.numbers.index(column.name)]
                values[:, place] = _in_unit(self.frame.column(column.name), column, found)
            elif column.name in self.text:
                found = without_words(rows.carried[column.name], self.frame.missing)
                placed = partial(_placed, self.frame, start)
                values[:, place], words = encode_column(found, column, self.frame.name, placed, self.faults)
                self.strange[column.name] = [*dict.fromkeys([*self.strange.get(column.name, []), *words])]
        compute_functions(values, self.schema, self.present)
        return values


def _placed(frame: Frame, start: int, row: int) -> str:
    return frame.place(start + row)


def _reads_text(frame: Frame, schema: ColumnSchema) -> bool:
    column = frame.column(schema.name)
    if column.text or schema.categories is not None or (schema.comma and frame.is_text):
        return True
    return schema.kind == "date" and column.type != "date"


def _in_unit(column: Column, schema: ColumnSchema, values: np.ndarray) -> np.ndarray:
    """Return dates in the unit of a column of a schema."""
    if schema.kind == "date" and schema.zone is not None and column.told.zone is not None:
        values = by_clocks(values, schema.zone)
    if schema.kind != "date" or column.told.unit in (None, schema.unit):
        return values
    return values / 86400 if schema.unit == "day" else values * 86400


def require_columns(frame: Frame, schema: Sequence[ColumnSchema]) -> None:
    """Refuse a table without columns that a model needs, or with values that are none.

    Raises:
        DataError: naming all of them.
    """
    known = [column.name for column in frame.columns]
    absent = [column.name for column in schema if column.name not in known and column.function is None]
    if absent:
        raise DataError(
            f"{frame.name} lacks columns that the model is of. {unknown_words('column', absent, known, most=NAMED)}"
        )
    wrong = [column.name for column in schema if column.name in known and frame.column(column.name).type == "other"]
    if wrong:
        raise DataError(f"{frame.name}: {', '.join(map(repr, wrong[:NAMED]))} holds neither numbers, words nor dates.")
