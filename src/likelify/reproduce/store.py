"""The file `cells.json` of an experiment: its finished cells, written by several processes at once."""

import json
import re
from pathlib import Path
from typing import Any

from likelify.errors import RunError
from likelify.fitting.files import read_json, write_atomically
from likelify.fitting.locks import locked

CELLS = "cells.json"
FORMAT = 2
# What a cell has in place of a result that failed.
FAILURE = "failure"
# Of a line; a point of a curve has some 170 characters.
WIDTH = 200
REMEDY = "It was left as it is. Mend it (after a merge it may hold both sides), or move it away to run its cells again."


def read_cells(folder: Path) -> dict[str, Any]:
    """Return the finished cells of an experiment by their names, as plain data; none if there is no file.

    Raises:
        RunError: if there is a file that cannot be read, or one of another format.
    """
    file = folder / CELLS
    try:
        content = read_json(file)
    except FileNotFoundError:
        return {}
    except RunError as error:
        raise RunError(f"{error} {REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("cells"), dict):
        found = content.get("format") if isinstance(content, dict) else None
        raise RunError(f"'{file}' cannot be read: it has format {found}, this likelify reads {FORMAT}. {REMEDY}")
    return content["cells"]


def save_cell(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Add a finished cell to the file of its experiment, or replace it.

    Other processes that do the same wait for each other, and the file changes in one instant: whenever a process is
    killed, the file holds all cells that were saved before.

    Raises:
        RunError: if the file cannot be read; it is then left as it is.
    """
    with locked(folder):
        _write(folder, read_cells(folder) | {name: values})


def save_failure(folder: Path, name: str, reason: str) -> None:
    """Note that a cell failed, and why. A result that is there, of other settings say, is kept instead.

    Raises:
        RunError: if the file cannot be read; it is then left as it is.
    """
    with locked(folder):
        cells = read_cells(folder)
        if FAILURE in cells.get(name, {FAILURE: ""}):
            _write(folder, cells | {name: {FAILURE: reason}})


def _write(folder: Path, cells: dict[str, Any]) -> None:
    content = {"format": FORMAT, "cells": dict(sorted(cells.items()))}
    write_atomically(folder / CELLS, (to_text(content) + "\n").encode())


def to_text(value: object) -> str:
    """Write plain data as JSON that differs line by line: what holds nothing nested, and is short, is on one line.

    Example:
        >>> print(to_text({"format": 2, "curve": [{"step": 0}, {"step": 4}]}))
        {
          "format": 2,
          "curve": [
            {"step": 0},
            {"step": 4}
          ]
        }
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"[\[{]\n[^\[\]{}]*\n *[\]}]", _on_one_line, text)


def _on_one_line(match: re.Match[str]) -> str:
    inside = re.sub(r"\n *", " ", match[0][1:-1]).strip()
    return f"{match[0][0]}{inside}{match[0][-1]}" if len(inside) < WIDTH else match[0]
