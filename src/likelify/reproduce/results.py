"""The file of a finished cell, and what a folder of them says about the cells of an experiment."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from likelify.errors import ConfigError
from likelify.fitting.run import write_atomically
from likelify.reproduce.cell import Cell, Facts, Values, changes, refreshed
from likelify.settings import Settings

FORMAT = 1
Status = Literal["finished", "missing", "stale", "damaged"]


class Measured(Settings):
    """A held-out log-likelihood: bits per dimension and nats per item, each with its standard error over items.

    Attributes:
        bits: per dimension.
        bits_error: its standard error.
        nats: per item.
        nats_error: its standard error.
        items: that were measured.
        samples: draws per item.
        ess: median effective sample size, for importance weighting.
    """

    bits: float
    bits_error: float | None
    nats: float
    nats_error: float | None
    items: int
    samples: int
    ess: float | None = None


class Point(Settings):
    """A look at the validation split during the fit, in bits per dimension."""

    step: int
    seconds: float
    train_bits: float | None
    validation_bits: float


class Course(Settings):
    """How the fit went.

    Attributes:
        reason: why it ended.
        steps: that were made.
        best_step: the step of the weights that were kept.
        seconds: it took, looks at the validation split included.
        clock: what these are: processor time of one process, or time on the wall.
        curve: the looks.
    """

    reason: str
    steps: int
    best_step: int
    seconds: float
    clock: str
    curve: list[Point]


class CellResult(Settings):
    """What the JSON file of a cell holds.

    Attributes:
        format: version of the layout.
        experiment: see `Cell`.
        method: see `Cell`.
        seed: see `Cell`.
        settings: all that decided what was measured, see `Cell.settle`.
        facts: of the data.
        parameters: trainable numbers of the model.
        likelihood: exact, bound or estimate.
        course: of the fit.
        trained_here: False if the weights were those of another cell with the same settings.
        measuring_seconds: that the measurement took, on the clock of the fit.
        elbo: on the test split.
        iw: importance-weighted, on the first items of the test split, or None.
        picture: name of the picture beside the file, or None.
        versions: of likelify, its code, torch and Python.
        machine: what it ran on.
        finished: when, UTC.
    """

    format: int = FORMAT
    experiment: str
    method: str
    seed: int
    settings: dict[str, Values]
    facts: Facts
    parameters: int
    likelihood: str
    course: Course
    trained_here: bool = True
    measuring_seconds: float
    elbo: Measured
    iw: Measured | None = None
    picture: str | None = None
    versions: dict[str, str]
    machine: dict[str, str | int]
    finished: str

    @property
    def dims(self) -> int:
        """Count the numbers of one item."""
        dims = 1
        for size in self.facts.event_shape:
            dims *= size
        return dims


@dataclass(frozen=True)
class State:
    """A cell and what its folder holds of it.

    Attributes:
        cell: the cell.
        status: whether its file is there, readable and of the same settings.
        result: what the file holds, where it is readable.
        why: it is stale or damaged.
    """

    cell: Cell
    status: Status
    result: CellResult | None = None
    why: str = ""


def result_file(cell: Cell, folder: Path) -> Path:
    """Name the file of a cell."""
    return folder / f"{cell.name}.json"


def save_result(result: CellResult, file: Path) -> None:
    """Write the file of a cell in one instant."""
    text = json.dumps(result.model_dump(mode="json"), indent=2, allow_nan=False, ensure_ascii=False)
    # The points of the curve, one a line.
    text = re.sub(r"\{\n\s+(\"step\"[^{}]*?)\n\s+\}", lambda m: "{" + re.sub(r"\n\s+", " ", m[1]) + "}", text)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text.encode() + b"\n")


def read_state(cell: Cell, folder: Path) -> State:
    """Look at the file of a cell; a file that cannot be read is said to be damaged, never an error."""
    file = result_file(cell, folder)
    try:
        values = json.loads(file.read_text())
        if isinstance(values, dict) and values.get("format") != FORMAT:
            return State(cell, "damaged", None, f"it has format {values.get('format')}, this likelify reads {FORMAT}")
        result = CellResult.parse(values)
    except FileNotFoundError:
        return State(cell, "missing")
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        return State(cell, "damaged", None, " ".join(str(error).split()))
    try:
        different = changes(refreshed(result.settings), cell.settle(result.facts))
    except ConfigError as error:
        different = [str(error)]
    if different:
        return State(cell, "stale", result, "; ".join(different))
    return State(cell, "finished", result)


def read_states(cells: Iterable[Cell], folder: Path) -> list[State]:
    """Look at the files of several cells."""
    return [read_state(cell, folder) for cell in cells]
