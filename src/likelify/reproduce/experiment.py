"""An experiment: methods, data sets and seeds that make the cells of a table, and what the paper printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from likelify.errors import ConfigError
from likelify.fitting.figures import Unit
from likelify.fitting.sources import DataChoice
from likelify.reproduce.cell import Cell, Measuring, PictureKind, Values
from likelify.reproduce.costs import AnyCell, CostCell, Costing
from likelify.reproduce.drawing import Draw

if TYPE_CHECKING:
    from likelify.reproduce.evidence import Evidence

Scale = Literal["cpu", "paper", "quick"]
# With a limit on time, this many steps are never reached.
UNLIMITED_FIT: Values = {"steps": 10**7}


@dataclass(frozen=True)
class Method:
    """A method of a table.

    Attributes:
        title: of its row.
        model: settings of the model with its name under `"model"`.
        fit: settings of the fit, over those of the experiment.
        picture: what to draw from the fitted model of the first seed, or None.
        changes: for the titles of data sets settings of the model that hold there only.
        fits: the same of the fit.
        against: title of the method that it is compared with, instead of the baseline of the experiment.
        group: what kind of model it is, where that has to be said.
        seeds: the most it is fitted with, where others have more.
        budget: seconds of its fits, instead of those of data and experiment.
        measuring: of its fits, instead of that of data and experiment.
        usual: for the titles of data sets the seconds of a fit that its steps end, see `Cell`.
    """

    title: str
    model: Values
    fit: Values = field(default_factory=dict)
    picture: PictureKind | None = None
    changes: Mapping[str, Values] = field(default_factory=dict)
    fits: Mapping[str, Values] = field(default_factory=dict)
    against: str | None = None
    group: str = ""
    seeds: int | None = None
    budget: float | None = None
    measuring: Measuring | None = None
    usual: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSet:
    """A data set of an experiment.

    Attributes:
        title: as the paper spells it.
        choice: how it is opened.
        epochs: of the fits, if not a number of steps or a time.
        fit: settings of the fits to it, over those of the experiment.
        budget: seconds of the fits to it, instead of those of the experiment.
        measuring: of the models fitted to it, instead of that of the experiment.
        from_files: the user has to have files.
    """

    title: str
    choice: DataChoice
    epochs: int | None = None
    fit: Values = field(default_factory=dict)
    budget: float | None = None
    measuring: Measuring | None = None
    from_files: bool = False


@dataclass(frozen=True)
class Paper:
    """The paper's figures, stored once.

    Attributes:
        source: where they are printed.
        figures: by titles of method and data set the text of a figure, in the unit of the experiment: that of a bound
            where there are two.
        weighted: the same of importance-weighted figures.
        costs: by the title of a method those of a training step and of drawing samples, in % of the baseline's.
    """

    source: str
    figures: Mapping[tuple[str, str], str] = field(default_factory=dict)
    weighted: Mapping[tuple[str, str], str] = field(default_factory=dict)
    costs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


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
        trial: seconds of each fit instead of all others, see `within`.
        measuring: of the fitted models.
        baseline: title of the method that the others are compared with, or None.
        unit: of the figures.
        paper: what it printed.
        caveat: what a reader must know before comparing.
        device: see `Cell`.
        draw: draws the figure that the experiment is about; it may need no cells at all.
        equal: compare the methods at equal steps and at equal times, read off the curves. The learning rate must not
            fall over the fit.
        costing: how costs are measured side by side, or None if they are not.
        discuss: says in sentences what the figures show.
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
    equal: bool = False
    costing: Costing | None = None
    discuss: Callable[[Evidence], list[str]] | None = None
    trial: float | None = None

    def within(self, budget: float) -> Experiment:
        """Return the experiment with other fits: all of them take so many seconds, whatever they took.

        Raises:
            ConfigError: if that is no time.
        """
        if budget <= 0:
            raise ConfigError("budget must be longer than nothing.")
        said = f"Every fit has {budget:g} s here (--budget), whatever is said elsewhere of times and steps."
        return replace(self, trial=budget, caveat=f"{said} {self.caveat}".strip())

    def against(self, method: Method) -> str | None:
        """Return the title of the method that one is compared with, if any."""
        return method.against or self.baseline

    @property
    def compared(self) -> str:
        """The method that all are compared with, for headings; where that is not one, words for it."""
        titles = {self.against(method) for method in self.methods}
        return str(self.baseline) if len(titles) == 1 else "that of the same group"

    @property
    def folder(self) -> str:
        """Return the name of the folder of its results: scales and budgets never share one."""
        name = self.name if self.scale == "cpu" else f"{self.name}-{self.scale}"
        return name if self.trial is None else f"{name}-{self.trial:g}s"

    def cells(self, seeds: int | None = None, folder: str | None = None) -> list[AnyCell]:
        """Return the cells; those of a seed stay together, so that an interrupted table has complete pairs.

        Cells that measure costs come last.

        Args:
            seeds: number of seeds, by default the usual one; methods that have a number of their own have no more.
            folder: of the user's files.

        Raises:
            ConfigError: if a number does not fit.
        """
        seeds = self.seeds if seeds is None else seeds
        if seeds < 1:
            raise ConfigError(f"seeds must be at least 1, got {seeds}.")
        cells: list[AnyCell] = [
            self._cell(method, data, seed, self.trial or method.budget or data.budget or self.budget, folder)
            for seed in range(seeds)
            for data in self.data
            for method in self.methods
            if method.seeds is None or seed < method.seeds
        ]
        cells += self._cost_cells(folder)
        if len({cell.name for cell in cells}) < len(cells):
            raise ConfigError(f"Two methods or data sets of '{self.name}' share a name, and so would their files.")
        return cells

    def _cost_cells(self, folder: str | None) -> list[CostCell]:
        """Return one cell for each data set, which measures the costs of the models that the first seed has fitted."""
        if self.costing is None:
            return []
        found = []
        for data in self.data:
            limit = self.trial or data.budget or self.budget
            fitted = tuple(self._cell(method, data, 0, limit, folder) for method in self.methods)
            found.append(CostCell(experiment=self.name, cells=fitted, costing=self.costing, device=self.device))
        return found

    def _cell(self, method: Method, data: DataSet, seed: int, budget: float | None, folder: str | None) -> Cell:
        fit = dict(self.fit | data.fit | method.fit | method.fits.get(data.title, {}))
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
            measuring=method.measuring or data.measuring or self.measuring,
            usual_seconds=method.usual.get(data.title),
            picture=method.picture if seed == 0 else None,
            device=self.device,
        )


# Of processor time, around the fit and the measurement of a cell: starting a process, reading data, building the model,
# and what is under way when the time is up. Measured: 3 to 6.
AROUND_SECONDS = 6.0


def most_hours(cells: Sequence[AnyCell], jobs: int) -> float | None:
    """Return the most hours that cells can take, `jobs` at a time on idle processors; None if one has no limit.

    Of fits of a fixed number of steps it is what they usually take, where that is known.
    """
    total = 0.0
    for cell in cells:
        if cell.most_seconds is None:
            return None
        # Costs are measured with nothing beside.
        total += (cell.most_seconds + AROUND_SECONDS) / (1 if isinstance(cell, CostCell) else jobs)
    return total / 3600
