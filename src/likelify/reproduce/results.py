"""What is kept of a finished cell, and which cells of an experiment are finished."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.figures import Course, Figure, Scores
from likelify.reproduce.cell import Cell, Values, changes
from likelify.reproduce.costs import AnyCell, CostResult
from likelify.reproduce.store import read_cells

Status = Literal["finished", "missing", "stale", "damaged"]


class CellResult(Scores):
    """What the file of an experiment holds of a cell.

    Attributes:
        method: see `Cell`.
        seed: see `Cell`.
        settings: all that decided what was measured, see `Cell.settle`.
        facts: of the data.
        parameters: number of trainable elements of the model.
        likelihood: exact, bound or estimate.
        course: of the fit.
        trained_here: False if the weights were those of another cell with the same settings.
        measuring_seconds: that the measurement took, on the clock of the fit.
        entropy: of the data, in nats per item, of graphs per node; None where it was not asked for.
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
    entropy: float | None = None
    picture: str | None = None
    versions: dict[str, str]
    machine: dict[str, str | int]
    finished: str

    @property
    def kl(self) -> Figure | None:
        """How far the truth lies above the model, see `Score.kl`: weighted by importance where it is."""
        return self.elbo.kl if self.iw is None else self.iw.kl


@dataclass(frozen=True)
class CellState:
    """A cell and what the file of its experiment holds of it.

    Attributes:
        cell: the cell.
        status: whether its result is there, readable and of the same settings.
        result: of the cell, where it is readable.
        why: the reason why it is stale or damaged.
    """

    cell: AnyCell
    status: Status
    result: CellResult | CostResult | None = None
    why: str = ""


def read_states(cells: Iterable[AnyCell], folder: Path) -> list[CellState]:
    """Return what the file in a folder holds of some cells.

    Raises:
        RunError: if the file cannot be read; a single result that cannot is said to be damaged.
    """
    kept = read_cells(folder)
    return [_state(cell, kept[cell.name]) if cell.name in kept else CellState(cell, "missing") for cell in cells]


def _state(cell: AnyCell, values: dict[str, Any]) -> CellState:
    try:
        result = (CellResult if isinstance(cell, Cell) else CostResult).parse(values)
    except ConfigError as error:
        return CellState(cell, "damaged", None, " ".join(str(error).split()))
    try:
        different = changes(cell.refreshed(result.settings), cell.settle(result.facts))
    except ConfigError as error:
        different = [str(error)]
    if different:
        return CellState(cell, "stale", result, "; ".join(different))
    return CellState(cell, "finished", result)
