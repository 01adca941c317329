"""Cells: what one model makes of one split of one table, in a process of its own, kept in a file."""

import argparse
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables.data import split_of, table
from benchmarks.tables.ours import OURS
from benchmarks.tables.rivals import RIVALS, Measured
from benchmarks.timing import MALLOC

METHODS = {**RIVALS, **OURS}
FOLDER = Path("runs") / "benchmarks" / "tables"


@dataclass(frozen=True)
class Cell:
    """A model, a table and a split.

    Attributes:
        table: its name.
        method: name of the model.
        split: its number, which is also the seed of the fit.
        seconds: of the processor, for the fit.
    """

    table: str
    method: str
    split: int
    seconds: float

    def file(self, folder: Path) -> Path:
        """Return the file of its result."""
        words = f"{self.table} {self.method} {self.split} {self.seconds:g}"
        return folder / ("".join(letter if letter.isalnum() else "-" for letter in words) + ".npz")

    def run(self) -> Measured:
        """Fit and measure, in this process."""
        torch.set_num_threads(1)
        return METHODS[self.method](split_of(table(self.table), self.split), self.seconds, self.split)


def kept(cell: Cell, folder: Path) -> Measured | None:
    """Return the result of a cell that has been run."""
    file = cell.file(folder)
    if not file.exists():
        return None
    with np.load(file) as found:
        return Measured(found["log_probs"], json.loads(str(found["facts"])))


def keep(cell: Cell, result: Measured, folder: Path) -> None:
    """Write a result so that it is there as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, log_probs=result.log_probs, facts=json.dumps(result.facts))
    file = cell.file(folder)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_bytes(buffer.getvalue())
    partial.replace(file)


def measured(cell: Cell, folder: Path) -> Measured:
    """Return the result of a cell; if there is none yet, run it in a process of its own first.

    Raises:
        RuntimeError: if that process failed.
    """
    found = kept(cell, folder)
    if found is None:
        words = [cell.table, cell.method, str(cell.split), str(cell.seconds), str(folder)]
        command = [sys.executable, "-m", "benchmarks.tables.cells", *words]
        done = subprocess.run(command, env=os.environ | MALLOC, capture_output=True, text=True, check=False)
        found = kept(cell, folder)
        if found is None:
            raise RuntimeError(f"{cell} failed: {done.stderr.strip()[-1000:]}")
    return found


def main() -> None:
    """Run one cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("split", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    cell = Cell(options.table, options.method, options.split, options.seconds)
    keep(cell, cell.run(), options.folder)


if __name__ == "__main__":
    main()
