"""Tables of files and of data frames: which of their columns are rows of numbers, and which is a label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from likelify.data.delimited import numbers_rows
from likelify.data.formats import open_frame
from likelify.data.frames import Frame, Missing, chosen_columns, joined
from likelify.data.limits import require_values
from likelify.data.options import SourceOptions
from likelify.data.tables import TableSource, table
from likelify.data.told import Told
from likelify.data.values import FEW_CLASSES, class_labels
from likelify.errors import DataError, unknown_word


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
        options: which columns, and which of them is a label.

    Raises:
        DataError: if it is not there, is damaged, or values are missing; if columns hold no numbers, all are named.
    """
    path = Path(path)
    content = read_table(open_frame(path), options or SourceOptions())
    return table(
        content.rows,
        name=f"table:{path.resolve()}",
        columns=content.columns,
        told=content.told,
        labels=content.labels,
        class_names=content.class_names,
        description=f"the file {path.name}{content.said}",
    )


def read_table(frame: Frame, options: SourceOptions, class_names: Sequence[str] | None = None) -> Content:
    """Read the columns that were asked for, by default all that hold data.

    Args:
        frame: the table.
        options: which columns, and which of them is a label.
        class_names: of labels that are numbers of classes already.

    Raises:
        DataError: see `table_file`.
    """
    label = options.labels
    dropped = [*(options.drop or ()), *([label] if label else ())]
    names = chosen_columns(frame, options.columns, dropped)
    rows, labels = _read(frame, names, label)
    said = [f"without '{name}', which names the rows" for name in frame.index if name not in {*names, *dropped}]
    if options.columns is None and numbers_rows(names, rows[:, 0], named=frame.named):
        if len(names) == 1:
            raise DataError(f"{frame.name} has nothing but the numbers of its rows.")
        said.append(f"without its first column, '{names[0]}', which numbers the rows")
        names, rows = names[1:], np.ascontiguousarray(rows[:, 1:])
    left = [column.name for column in frame.columns if column.name not in {*names, *frame.index}]
    left = [name for name in left if name in dropped or options.columns]
    if left:
        said.append(f"without {', '.join(map(repr, left[:10]))}{' and others' if len(left) > 10 else ''}")
    told = {name: Told(kind="boolean") for name in names if frame.column(name).type == "boolean"}
    if labels is None:
        return Content(rows, tuple(names), told, said="".join(f", {text}" for text in said))
    if class_names is None:
        classes, class_names = as_classes(labels, f"{frame.name}, column '{label}'")
    else:
        classes = class_labels(np.array(labels), len(rows))
    listed = f": {', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''}" if class_names else ""
    said.append(f"its classes in '{label}'{listed}")
    called = None if class_names is None else tuple(class_names)
    return Content(rows, tuple(names), told, classes, called, "".join(f", {text}" for text in said))


def _read(frame: Frame, names: Sequence[str], label: str | None) -> tuple[np.ndarray, list[Any] | None]:
    """Read all rows; where values are missing, go on and count them."""
    require_values(frame.name, (frame.count or 0) * len(names))
    missing = Missing(frame.name, names)
    labels: list[Any] = []

    def parts() -> Iterator[np.ndarray]:
        for rows in frame.rows(names, [label] if label else []):
            missing.add(rows)
            # Of a table that is refused nothing is kept.
            yield rows.values if missing.first is None else rows.values[:0]
            labels.extend(rows.carried[label] if label and missing.first is None else [])

    whole = joined(frame.name, parts())
    missing.refuse()
    return whole, labels if label else None


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
        if not isinstance(label, str | bool | int):
            raise DataError(
                f"{what}: labels are words, truth values or whole numbers, got {str(label)[:40]!r} in row {row}."
            )
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
