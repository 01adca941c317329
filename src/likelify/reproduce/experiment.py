"""An experiment: methods, data sets and seeds that make the cells of a table, and what the paper printed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from likelify.errors import ConfigError
from likelify.fitting.figures import Unit
from likelify.fitting.recipes import UNLIMITED_FIT
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Cell, Measuring, PictureKind, Values
from likelify.reproduce.drawing import Draw

Scale = Literal["cpu", "paper", "quick"]


@dataclass(frozen=True)
class Method:
    """A method of a table.

    Attributes:
        title: of its row.
        model: settings of the model with its name under `"model"`.
        fit: settings of the fit, over those of the experiment.
        picture: what to draw from the fitted model of the first seed, or None.
        changes: for the titles of data sets settings of the model that hold there only.
    """

    title: str
    model: Values
    fit: Values = field(default_factory=dict)
    picture: PictureKind | None = None
    changes: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A data set of an experiment.

    Attributes:
        title: as the paper spells it.
        choice: how it is opened.
        epochs: of the fits, if not a number of steps or a time.
        fit: settings of the fits to it, over those of the experiment.
        budget: seconds of the fits to it, instead of those of the experiment.
        from_files: the user has to have files.
    """

    title: str
    choice: DataChoice
    epochs: int | None = None
    fit: Values = field(default_factory=dict)
    budget: float | None = None
    from_files: bool = False


@dataclass(frozen=True)
class Paper:
    """The paper's figures, stored once.

    Attributes:
        source: where they are printed.
        figures: by titles of method and data set the text of a figure, in the unit of the experiment.
    """

    source: str
    figures: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A table or a set of figures of a paper.

    Attributes:
        name: as the command line spells it.
        title: one line.
        scale: whose settings these are.
        methods: rows.
        data: a table for each.
        seeds: usual number of seeds, from 0.
        fit: settings of all fits.
        budget: seconds of each fit, or None for as many steps as the settings say.
        measuring: of the fitted models.
        baseline: title of the method that the others are compared with, or None.
        unit: of the figures.
        paper: what it printed.
        caveat: what a reader must know before comparing.
        device: see `Cell`.
        draw: draws the figure that the experiment is about; it may need no cells at all.
    """

    name: str
    title: str
    scale: Scale
    methods: Sequence[Method]
    data: Sequence[DataSet]
    seeds: int
    fit: Values
    budget: float | None
    measuring: Measuring
    baseline: str | None = None
    unit: Unit = Unit.of("image")
    paper: Paper = Paper("")
    caveat: str = ""
    device: Literal["cpu", "auto"] = "cpu"
    draw: Draw | None = None

    @property
    def folder(self) -> str:
        """Return the name of the folder of its results: scales never share one."""
        return self.name if self.scale == "cpu" else f"{self.name}-{self.scale}"

    def cells(self, seeds: int | None = None, budget: float | None = None, folder: str | None = None) -> list[Cell]:
        """Return the cells; those of a seed stay together, so that an interrupted table has complete pairs.

        Args:
            seeds: number of seeds, by default the usual one.
            budget: seconds of each fit instead of the usual ones.
            folder: of the user's files.

        Raises:
            ConfigError: if a number does not fit.
        """
        seeds = self.seeds if seeds is None else seeds
        if seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {seeds}.")
        if budget is not None and budget <= 0:
            raise ConfigError("budget must be longer than nothing.")
        cells = [
            self._cell(method, data, seed, budget or data.budget or self.budget, folder)
            for seed in range(seeds)
            for data in self.data
            for method in self.methods
        ]
        if len({cell.name for cell in cells}) < len(cells):
            raise ConfigError(f"Two methods or data sets of '{self.name}' share a name, and so would their files.")
        return cells

    def _cell(self, method: Method, data: DataSet, seed: int, budget: float | None, folder: str | None) -> Cell:
        fit = dict(self.fit | data.fit | method.fit)
        if budget is not None:
            fit |= {"max_time": budget} | ({} if "steps" in fit or data.epochs else UNLIMITED_FIT)
        return Cell(
            experiment=self.name,
            method=method.title,
            data=data.choice.model_copy(update={"folder": folder}),
            seed=seed,
            model=method.model | method.changes.get(data.title, {}),
            fit=fit,
            epochs=data.epochs,
            measuring=self.measuring,
            picture=method.picture if seed == 0 else None,
            device=self.device,
        )


# Of processor time, around the fit and the measurement of a cell: starting a process, reading data, building the model,
# and what is under way when the time is up. Measured: 3 to 6.
AROUND_SECONDS = 6.0


def most_hours(cells: Sequence[Cell], jobs: int) -> float | None:
    """Return the most hours that cells can take, `jobs` at a time on idle processors; None if one has no limit."""
    total = 0.0
    for cell in cells:
        limit = cell.fit.get("max_time")
        if limit is None or cell.measuring.seconds is None:
            return None
        total += limit + cell.measuring.seconds + AROUND_SECONDS
    return total / jobs / 3600
