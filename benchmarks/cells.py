"""Cells: what one fit of a benchmark came to, each run in a process of its own and kept in a file of its own.

A run that was stopped goes on with what is missing. The name of a file says what was fitted and ends in a hash of the
settings and the code that decide the result, so a changed recipe is measured anew and is not mixed with older figures.
"""

import argparse
import hashlib
import importlib
import inspect
import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from benchmarks.timing import MALLOC
from likelify.reproduce.code import code_hashes

Result = TypeVar("Result")
# As many letters of a hash are in the name of a file, and as many of what a process said in an error.
LETTERS, SAID = 8, 1000


class Cell(ABC, Generic[Result]):
    """One fit, and how its result is kept. A benchmark's own is a frozen dataclass `Cell` of plain values.

    Attributes:
        ending: of its file.
    """

    ending: ClassVar[str] = ".json"

    @abstractmethod
    def run(self) -> Result:
        """Fit and measure, in this process."""

    @abstractmethod
    def key(self) -> str:
        """Return a hash of all that decides the result beside the values of the cell, see `key_of`; it may be empty."""

    def write(self, result: Result) -> bytes:
        """Return a result as the content of a file."""
        return (json.dumps(result, indent=2) + "\n").encode()

    def read(self, content: bytes) -> Result:
        """Return the result that a file holds."""
        return json.loads(content)

    def file(self, folder: Path) -> Path:
        """Return the file of its result."""
        words = " ".join([*map(_word, asdict(self).values()), self.key()]).strip()  # type: ignore[call-overload]
        return folder / ("".join(letter if letter.isalnum() else "-" for letter in words) + self.ending)


def key_of(settings: Any, *recipe: Callable[..., Any], model: str | None = None) -> str:
    """Return a hash of settings and code.

    Args:
        settings: plain data.
        recipe: functions of the benchmark that build, fit and measure.
        model: name of a model of the zoo; the code of it and of fits then counts.
    """
    code = None if model is None else code_hashes(model)["code"]
    sources = [" ".join(inspect.getsource(each).split()) for each in recipe]
    return hashlib.sha256(json.dumps([settings, sources, code], sort_keys=True).encode()).hexdigest()[:LETTERS]


def found(cell: Cell[Result], folder: Path) -> Result | None:
    """Return the result of a cell, if there is one."""
    file = cell.file(folder)
    return cell.read(file.read_bytes()) if file.exists() else None


def keep(cell: Cell[Result], result: Result, folder: Path) -> None:
    """Write a result so that it is there as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = cell.file(folder)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_bytes(cell.write(result))
    partial.replace(file)


def measured(cell: Cell[Result], folder: Path) -> Result:
    """Return the result of a cell; if there is none yet, run it in a process of its own first.

    Raises:
        RuntimeError: if that process failed.
    """
    result = found(cell, folder)
    if result is None:
        command = [sys.executable, "-m", "benchmarks.cells", _module(cell), json.dumps(asdict(cell)), str(folder)]  # type: ignore[call-overload]
        environment = os.environ | MALLOC | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        result = found(cell, folder)
        if result is None:
            changed = "the code or its settings have changed since this run began; start it again"
            raise RuntimeError(f"{cell} failed: {done.stderr.strip()[-SAID:] if done.returncode else changed}")
    return result


def run_missing(
    wanted: Sequence[Cell[Result]], folder: Path, most: int | None, said: Callable[[Any, Result], str]
) -> None:
    """Run cells that have no result, at most so many, each in a process of its own.

    Args:
        wanted: all cells.
        folder: where results are kept.
        most: how many are run now; None for all.
        said: a line on a cell and its result.

    Raises:
        RuntimeError: if one of these failed.
    """
    missing = [cell for cell in wanted if found(cell, folder) is None]
    print(f"{len(wanted) - len(missing)} of {len(wanted)} cells are there, in {folder}", flush=True)
    for cell in missing[:most]:
        print(said(cell, measured(cell, folder)), flush=True)


def forget(cell: Cell[Any], folder: Path) -> None:
    """Remove the result of a cell, if there is one."""
    cell.file(folder).unlink(missing_ok=True)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _module(cell: Cell[Any]) -> str:
    """Return the module of a cell, also where it is the program that runs."""
    name = type(cell).__module__
    spec = sys.modules[name].__spec__
    return spec.name if name == "__main__" and spec is not None else name


def main() -> None:
    """Run one cell in this process, unless its result is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("module", help="of a benchmark that has cells")
    parser.add_argument("values", type=json.loads, help="of the cell, as JSON")
    parser.add_argument("folder", type=Path, help="where results are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cell = importlib.import_module(options.module).Cell(**options.values)
    if found(cell, options.folder) is None:
        keep(cell, cell.run(), options.folder)
    print(cell.file(options.folder))


if __name__ == "__main__":
    main()
