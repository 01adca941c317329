"""Cells of the comparison of tables: what one model makes of one split of one table."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks import cells
from benchmarks.cells import key_of
from benchmarks.tables.data import split_of, table
from benchmarks.tables.ours import OURS
from benchmarks.tables.rivals import RIVALS, SETTINGS, Measured

METHODS = {**RIVALS, **OURS}
# Hashes of the settings that the first files were measured with, which have none in their names.
UNNAMED = frozenset({"bfe55773", "57d186b7", "8dcc453c", "9d201478"})
FOLDER = Path("runs") / "benchmarks" / "tables"


@dataclass(frozen=True)
class Cell(cells.Cell[Measured]):
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

    ending: ClassVar[str] = ".npz"

    def key(self) -> str:
        """Return a hash of the settings of a rival, unless they are those of the files that have none.

        The default model changes with the library: `--again` measures it once more.
        """
        key = key_of(SETTINGS.get(self.method))
        return "" if key in UNNAMED else key

    def run(self) -> Measured:
        """Fit and measure, in this process."""
        return METHODS[self.method](split_of(table(self.table), self.split), self.seconds, self.split)

    def write(self, result: Measured) -> bytes:
        """Return a result as the content of an `.npz` file."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"log_probs": result.log_probs, "facts": json.dumps(result.facts)}
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def read(self, content: bytes) -> Measured:
        """Return the result that a file holds."""
        with np.load(io.BytesIO(content)) as held:
            return Measured(held["log_probs"], json.loads(str(held["facts"])))
