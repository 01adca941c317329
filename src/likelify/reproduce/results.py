"""What is kept of a finished cell, and which cells of an experiment are finished."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likelify.errors import ConfigError
from likelify.reproduce.cell import Cell, Facts, Values, changes, refreshed
from likelify.reproduce.store import read_cells, save_cell
from likelify.settings import Settings

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
    """What the file of an experiment holds of a cell.

    Attributes:
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
        picture: name of the picture's file, beside that of the cells, or None.
        versions: of likelify, torch and Python, and hashes of the code, see `code_hashes`.
        machine: what it ran on.
        finished: when, UTC.
    """

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
    """A cell and what the file of its experiment holds of it.

    Attributes:
        cell: the cell.
        status: whether its result is there, readable and of the same settings.
        result: of the cell, where it is readable.
        why: it is stale or damaged.
    """

    cell: Cell
    status: Status
    result: CellResult | None = None
    why: str = ""


def save_result(result: CellResult, cell: Cell, folder: Path) -> None:
    """Add the result of a cell to the file in a folder; see `save_cell`."""
    save_cell(folder, cell.name, result.model_dump(mode="json"))


def read_states(cells: Iterable[Cell], folder: Path) -> list[State]:
    """Return what the file in a folder holds of some cells.

    Raises:
        RunError: if the file cannot be read; a single result that cannot is said to be damaged.
    """
    kept = read_cells(folder)
    return [_state(cell, kept[cell.name]) if cell.name in kept else State(cell, "missing") for cell in cells]


def _state(cell: Cell, values: dict[str, Any]) -> State:
    try:
        result = CellResult.parse(values)
    except ConfigError as error:
        return State(cell, "damaged", None, " ".join(str(error).split()))
    try:
        different = changes(refreshed(result.settings), cell.settle(result.facts))
    except ConfigError as error:
        different = [str(error)]
    if different:
        return State(cell, "stale", result, "; ".join(different))
    return State(cell, "finished", result)
