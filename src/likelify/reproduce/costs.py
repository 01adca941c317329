"""What methods cost: a cell that measures training steps and samples of all methods side by side, and its result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from likelify.data import Facts
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Cell, Values, slug
from likelify.settings import Settings


class Costing(Settings):
    """How costs are measured.

    Attributes:
        baseline: title of the method whose costs are 100 %.
        rounds: in each of them every method makes one training step and draws samples once, one after the other, so
            that what else the machine does meets all of them.
        samples: that are drawn at a time.
        seconds: after which no further round begins; None for all rounds.
    """

    baseline: str
    rounds: int = Field(default=15, ge=1)
    samples: int = Field(default=64, ge=1)
    seconds: float | None = Field(default=None, gt=0)


class CostCell(Settings):
    """The costs of the methods on one data set.

    The models are those that the cells of the first seed have fitted; one that is not fitted yet is measured with fresh
    weights, and the result says so.

    Attributes:
        experiment: name of the experiment it belongs to.
        cells: one for each method, on the same data.
        costing: how they are measured.
        device: see `Cell`.
    """

    experiment: str
    cells: tuple[Cell, ...] = Field(min_length=1)
    costing: Costing
    device: Literal["cpu", "auto"] = "cpu"

    @property
    def data(self) -> DataChoice:
        """The data of the methods."""
        return self.cells[0].data

    @property
    def name(self) -> str:
        """The name of the cell among those of its experiment, fit for a file."""
        return f"costs.{slug(self.data.source)}"

    @property
    def most_seconds(self) -> float | None:
        """The most seconds that the measurement can take; None if there is no limit."""
        return self.costing.seconds

    def settle(self, facts: Facts) -> dict[str, Values]:
        """Return the complete settings of the methods as plain data, by which results are compared.

        Raises:
            ConfigError: if a model is unknown or a setting does not fit.
        """
        settled = {cell.method: cell.settle(facts) for cell in self.cells}
        return {
            "models": {title: parts["model"] for title, parts in settled.items()},
            "fits": {title: parts["fit"] for title, parts in settled.items()},
            "data": self.cells[0].settle(facts)["data"],
            "costing": self.costing.model_dump(mode="json"),
            "output": {"device": self.device},
        }

    @staticmethod
    def refreshed(settings: dict[str, Values]) -> dict[str, Values]:
        """Return the settings of an earlier version, with the defaults of those that have come since.

        Raises:
            ConfigError: if a setting no longer exists or no longer fits.
        """
        models, fits = settings.get("models", {}), settings.get("fits", {})
        parts = {
            title: Cell.refreshed({"model": models[title], "fit": fits.get(title, {}), "data": settings["data"]})
            for title in models
        }
        return settings | {
            "models": {title: part["model"] for title, part in parts.items()},
            "fits": {title: part["fit"] for title, part in parts.items()},
            "costing": Costing.parse(settings.get("costing", {})).model_dump(mode="json"),
        }


AnyCell = Cell | CostCell


class Cost(Settings):
    """What one method costs.

    Attributes:
        step_seconds: of a training step, the median of the rounds.
        sample_seconds: of drawing the samples, the median of the rounds.
        step_percent: median over the rounds of the step's seconds in % of those of the baseline in the same round.
        sample_percent: the same of drawing.
        kept_bytes: that autograd holds at the most crowded moment of a training step, see `KeptMemory`.
        parameters: number of trainable elements.
        steps: that the fit made whose weights were measured; 0 for fresh ones.
    """

    step_seconds: float
    sample_seconds: float
    step_percent: float
    sample_percent: float
    kept_bytes: int
    parameters: int
    steps: int


class CostResult(Settings):
    """What the file of an experiment holds of a cell of costs.

    Attributes:
        settings: all that decided what was measured, see `CostCell.settle`.
        facts: of the data.
        costs: for each method.
        rounds: that were made.
        batch_size: items of a training step.
        clock: what the seconds are: processor time, or time on the wall.
        versions: of likelify, torch and Python, and the hash of the code that all fits share, see `code_hashes`.
        machine: what it ran on.
        finished: when, UTC.
    """

    settings: dict[str, Values]
    facts: Facts
    costs: dict[str, Cost]
    rounds: int
    batch_size: int
    clock: Literal["wall", "processor"]
    versions: dict[str, str]
    machine: dict[str, str | int]
    finished: str
