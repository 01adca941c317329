"""Tables in a run folder: the columns that were fitted, and rows that were drawn."""

import csv
import io
import json
from pathlib import Path

import numpy as np
from torch import Tensor

from likelify.data import TableSource
from likelify.errors import RunError
from likelify.fitting.run import Run, write_atomically

COLUMNS = "columns.json"


def save_columns(run: Run, source: TableSource) -> None:
    """Keep names, means and scales of the columns in the run, so that drawing rows does not need the data."""
    values = {"columns": source.columns, "mean": source.mean.tolist(), "scale": source.scale.tolist()}
    write_atomically(run.path / COLUMNS, json.dumps(values, indent=2).encode() + b"\n")


def save_rows(file: Path, run: Run, drawn: Tensor) -> None:
    """Write rows `(n, columns)` of a model as CSV, in the units of the data and with the names of their columns.

    Raises:
        RunError: if the run does not know its columns.
    """
    names, mean, scale = _load_columns(run, drawn.shape[1])
    rows = mean + scale * drawn.detach().cpu().double().numpy()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{value:.9g}" for value in row] for row in rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.getvalue().encode())


def _load_columns(run: Run, count: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    file = run.path / COLUMNS
    try:
        values = json.loads(file.read_text())
        names = [str(name) for name in values["columns"]]
        mean, scale = (np.array(values[key], dtype=np.float64) for key in ("mean", "scale"))
        if not len(names) == len(mean) == len(scale) == count:
            raise ValueError(f"not {count} columns")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(
            f"'{file}' is missing or damaged ({error}); without it the units of the rows are not known. Fit again."
        ) from error
    return names, mean, scale
