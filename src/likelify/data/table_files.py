"""Tables of files and of data frames: which of their columns are rows of numbers, and which is a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.delimited import numbers_rows
from likelify.data.dependent import settle
from likelify.data.dialect import is_number
from likelify.data.faults import Faults
from likelify.data.formats import open_frame
from likelify.data.frames import Frame, chosen_columns
from likelify.data.options import SourceOptions
from likelify.data.reading import Table, drop_proposed, note_faults, read_frame, splits_auto
from likelify.data.screening import dependences
from likelify.data.tables import TableSource, table
from likelify.data.told import Told
from likelify.data.values import FEW_CLASSES, class_labels
from likelify.errors import DataError, unknown_word

# What columns of a table of nodes are called that are no features, the first that is there.
GRAPH_COLUMNS = ("graph", "graph_id")
NODE_COLUMNS = ("node", "node_id")
LABEL_COLUMN = "label"


@dataclass(frozen=True)
class Content:
    """What was read of a table.

    Attributes:
        rows: the numbers `(rows, columns)`.
        columns: names of the columns.
        told: what is known of them beside the numbers.
        labels: class of each row, or None.
        class_names: what the classes are called, or None where they are only numbers.
        said: what was left out or decided, for descriptions; begins with a comma where there is something to say.
    """

    rows: np.ndarray
    columns: tuple[str, ...]
    told: dict[str, Told]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    said: str = ""


def table_file(path: str | Path, options: SourceOptions | None = None) -> TableSource:
    """Make a source of a file of the user.

    Args:
        path: ends in `.csv`, `.tsv`, either with `.gz`, `.parquet`, `.feather`, `.arrow` or `.npy`.
        options: which columns and what they are, which of them is a label.

    Raises:
        DataError: if it is not there or damaged; if columns are no data of a density, such as ids: the message says all
            that is wrong, and what to do.
    """
    path = Path(path)
    options = options or SourceOptions()
    content = read_table(open_frame(path), options)
    return table(
        content.rows,
        name=f"table:{path.resolve()}",
        columns=content.columns,
        told=content.told,
        given=options.given or (),
        labels=content.labels,
        class_names=content.class_names,
        description=f"the file {path.name}{content.said}",
    )


def read_table(frame: Frame, options: SourceOptions, class_names: Sequence[str] | None = None) -> Content:
    """Read the columns that were asked for, by default all that hold data.

    Args:
        frame: the table.
        options: which columns and what they are, which of them is a label.
        class_names: of labels that are numbers of classes already.

    Raises:
        DataError: see `table_file`.
    """
    label, told, faults = options.labels, options.told, Faults(frame.name)
    frame.missing = options.missing or ()
    drop, auto = splits_auto(frame, options.drop or ())
    others = [*drop, *told, *(options.given or ()), *([label] if label else ())]
    names = [name for name in chosen_columns(frame, options.kept, others) if name not in {*drop, label}]
    if not names:
        raise DataError(f"{frame.name} has no columns left to fit.")
    _refuse_nodes(frame, [name for name in names if name not in told and options.kept is None])
    table = read_frame(frame, names, told, label, faults)
    said = [f"without '{name}', which names the rows" for name in frame.index if name not in {*names, *drop, label}]
    first = table.names[0] if table.names else ""
    if options.kept is None and first not in told and is_row_number(table, named=frame.named):
        said.append(f"without its first column, '{first}', which numbers the rows")
        table.without([first])
        faults.columns.pop(first, None)
    note_faults(table, faults, ids=frame.named)
    left = [*drop, *(drop_proposed(table, faults) if auto else [])]
    classes = _classes(table, label, class_names, faults)
    if options.dependent or faults:
        follow = dependences(table.rows, table.names, [name for name in table.names if table.told[name].words])
        said += settle(table, follow, options.dependent or "refuse", faults)
    faults.refuse(options, [*dict.fromkeys([*table.names, *faults.columns])])
    if not table.names:
        raise DataError(f"{frame.name} has nothing but the numbers of its rows, ids or free text.")
    _require_given(frame, table, options)
    left += [column.name for column in frame.columns if options.kept and column.name not in {*names, *left, label}]
    if left:
        said.append(f"without {', '.join(map(repr, left[:10]))}{' and others' if len(left) > 10 else ''}")
    if classes is not None:
        class_names = classes[1]
        listed = f": {', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''}" if class_names else ""
        said.append(f"its classes in '{label}'{listed}")
    text = "".join(f", {text}" for text in said)
    return Content(table.rows, tuple(table.names), table.told, *(classes or (None, None)), text)


def _refuse_nodes(frame: Frame, names: Sequence[str]) -> None:
    """Ask whether a table with the columns of a table of nodes is one."""
    graph, node = (next((name for name in usual if name in names), None) for usual in (GRAPH_COLUMNS, NODE_COLUMNS))
    if graph is not None and node is not None:
        raise DataError(
            f"{frame.name} has the columns '{graph}' and '{node}', as a table of the nodes of graphs has. If it is "
            f"one, say --graphs {graph} (in Python: graphs='{graph}'): graphs are the items then. If its rows are the "
            f"items, leave these columns out: --drop {graph},{node} (in Python: drop=)."
        )


def is_row_number(table: Table, *, named: bool) -> bool:
    """Tell whether the first column of a table numbers its rows, see `delimited.numbers_rows`."""
    return bool(table.names) and numbers_rows(table.names, table.rows[:, 0], named=named)


def _classes(
    table: Table, label: str | None, class_names: Sequence[str] | None, faults: Faults
) -> tuple[np.ndarray, tuple[str, ...] | None] | None:
    """Return the classes of the rows and their names, or None if there are none."""
    if table.labels is None or label is None:
        return None
    if class_names is not None:
        return class_labels(np.array(table.labels), len(table.rows)), tuple(class_names)
    try:
        return as_classes(table.labels, f"column '{label}'")
    except DataError as error:
        faults.add_line(str(error))
        return None


def _require_given(frame: Frame, table: Table, options: SourceOptions) -> None:
    absent = [name for name in options.given or () if name not in table.names]
    if absent:
        raise DataError(
            f"{frame.name}: the condition '{absent[0]}' is left out of the table. Keep it, or do not give it."
        )
    if options.given and set(table.names) <= set(options.given):
        raise DataError(f"{frame.name}: all columns are given, so there is nothing left to model.")


def as_classes(labels: Sequence[Any], what: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Number the classes of a column of labels.

    Returns:
        Whole numbers from 0, and what they stand for in the order of numbers or the alphabet; None where they stand
        for themselves.

    Raises:
        DataError: if a label is missing, real numbers are given, or there are more different ones than 1000.
    """
    for row, label in enumerate(labels):
        if label is None or label == "":
            raise DataError(f"{what}: the label of row {row} is missing. Give it a class, or drop its row.")
        if not isinstance(label, str | bool | int | np.integer | np.bool_):
            raise DataError(
                f"{what}: labels are words, truth values or whole numbers, got {str(label)[:40]!r} in row {row}."
            )
    reals = [str(label) for label in labels if is_number(str(label)) and not float(str(label)).is_integer()]
    if reals:
        raise DataError(f"{what}: labels are words, truth values or whole numbers, and '{reals[0]}' is a real number.")
    names = sorted({str(label) for label in labels}, key=lambda name: (not _is_whole(name), _whole(name), name))
    if len(names) > FEW_CLASSES:
        raise DataError(f"{what} has {len(names):,} different labels; at most {FEW_CLASSES:,} are classes.")
    numbers = {name: number for number, name in enumerate(names)}
    classes = np.array([numbers[str(label)] for label in labels], dtype=np.int64)
    return classes, None if names == [str(number) for number in range(len(names))] else tuple(names)


def known_classes(labels: Sequence[Any], class_names: Sequence[str], what: str, first: int) -> np.ndarray:
    """Return the numbers of the classes of labels that a model knows.

    Raises:
        DataError: naming a label that it does not know.
    """
    numbers = {name: number for number, name in enumerate(class_names)}
    for row, label in enumerate(labels):
        if str(label) not in numbers:
            raise DataError(f"{what}, row {first + row}: {unknown_word('class', str(label), class_names)}")
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


def _is_whole(name: str) -> bool:
    return name.isascii() and name.removeprefix("-").isdigit() and len(name) < 19


def _whole(name: str) -> int:
    return int(name) if _is_whole(name) else 0
