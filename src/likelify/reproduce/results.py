"""What is kept of a finished cell, and which cells of an experiment are finished."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.figures import Course, Figure, Scores
from likelify.reproduce.cell import Cell, Values, changes
from likelify.reproduce.costs import AnyCell, CostResult
from likelify.reproduce.store import FAILURE, read_cells

Status = Literal["finished", "missing", "stale", "damaged", "failed"]


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
        gain: how far importance weighting lies above the ELBO of the same items, in nats per item; None without it.
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
    gain: Figure | None = None
    entropy: float | None = None
    picture: str | None = None
    versions: dict[str, str]
    machine: dict[str, str | int]
    finished: str


@dataclass(frozen=True)
class CellState:
    """A cell and what the file of its experiment holds of it.

    Attributes:
        cell: the cell.
        status: whether its result is there, readable and of the same settings.
        result: of the cell, where it is readable.
        why: the reason why it is stale or damaged, or has failed.
    """

    cell: AnyCell
    status: Status
    result: CellResult | CostResult | None = None
    why: str = ""


def divergences(results: Sequence[CellResult]) -> dict[int, Figure]:
    """Return for each seed of a row how far the truth lies above the model, see `Score.kl`.

    Weighted by importance if all of them are: two kinds of bounds have no mean.
    """
    weighted = all(result.iw is not None and result.iw.kl is not None for result in results)
    found = {result.seed: result.iw.kl if weighted and result.iw is not None else result.elbo.kl for result in results}
    return {seed: figure for seed, figure in found.items() if figure is not None}


def read_states(cells: Iterable[AnyCell], folder: Path) -> list[CellState]:
    """Return what the file in a folder holds of some cells.

    Raises:
        RunError: if the file cannot be read; a single result that cannot is said to be damaged.
    """
    kept = read_cells(folder)
    found = [_state(cell, kept[cell.name]) if cell.name in kept else CellState(cell, "missing") for cell in cells]
    return [_with_picture(state, folder) for state in found]


def _with_picture(state: CellState, folder: Path) -> CellState:
    """Return the state of a cell, damaged if its picture is lost."""
    name = state.result.picture if isinstance(state.result, CellResult) else None
    if state.status != "finished" or name is None or (folder / name).is_file():
        return state
    return CellState(state.cell, "damaged", None, f"its picture '{folder / name}' is missing")


def _state(cell: AnyCell, values: Any) -> CellState:
    if isinstance(values, dict) and FAILURE in values:
        return CellState(cell, "failed", None, str(values[FAILURE]))
    try:
        result = (CellResult if isinstance(cell, Cell) else CostResult).parse(values)
    except ConfigError as error:
        return CellState(cell, "damaged", None, " ".join(str(error).split()))
    try:
        different = changes(cell.refreshed(result.settings), cell.settle(result.facts))
    except ConfigError as error:
        different = [str(error)]
    except KeyError as error:
        return CellState(cell, "damaged", None, f"its settings lack {error}")
    if different:
        return CellState(cell, "stale", result, "; ".join(different))
    return CellState(cell, "finished", result)
