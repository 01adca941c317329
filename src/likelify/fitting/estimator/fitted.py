"""A density of the rows of a table, fitted with the usual choice of settings, and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import repeat
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likelify.data import as_source, open_items, weighted
from likelify.data.source import FEWEST, shuffled
from likelify.errors import ConfigError, DataError
from likelify.fitting.checks import for_flow
from likelify.fitting.choose import choose
from likelify.fitting.conditioning.given import quantiles
from likelify.fitting.drawing.conditions import conditions
from likelify.fitting.drawing.draw import draw
from likelify.fitting.drawing.filling import completing, filled, given_chunks, target_of
from likelify.fitting.estimator.held import Held, required
from likelify.fitting.estimator.ordering import order_of
from likelify.fitting.figures import Course
from likelify.fitting.loop import Progress, fit
from likelify.fitting.outliers import outlier_score
from likelify.fitting.recipes import recipe
from likelify.fitting.run import Run
from likelify.fitting.scoring.likelihoods import effort_of, items_per_pass, score_batch, seed_of
from likelify.fitting.settings import RunConfig
from likelify.fitting.sources import refuse_other_units
from likelify.fitting.threads import threads
from likelify.flows import Flow
from likelify.schema import ColumnSchema
from likelify.seeding import seeded

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

# Rows that whole weights may repeat a table to, or so many times the rows it has.
MOST_ROWS, MOST_TIMES = 2**20, 4
# More held-out rows than these only take time.
MOST_HELD = 20_000


@dataclass(frozen=True)
class Wanted:
    """What is asked of a fit beside the data.

    Attributes:
        model: name of a model of tables; by default the one that suits the data.
        time_budget: seconds that training may take, or None.
        columns: names of the columns to keep; or what some are taken for, `{"age": "integer[0,120]"}`.
        drop: names of columns to leave out; `auto` stands for those that are proposed for it, such as ids.
        given: names of columns that are conditions.
        dependent: what becomes of columns that follow from others; see `data.SourceOptions`.
        validation: share of the rows that validates; by default a tenth, and at most `MOST_HELD` rows.
        trim: share of the rows, the oddest, that are left out of training and validation.
        settings: of model or fit, by name.
        device: that trains, or None for the accelerator there is.
    """

    model: str | None = None
    time_budget: float | None = None
    trim: float = 0.0
    columns: Mapping[str, str] | Sequence[str] | None = None
    drop: Sequence[str] | None = None
    given: Sequence[str] | None = None
    dependent: str | None = None
    validation: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.settings, Mapping):
            raise ConfigError(f"settings are names with values, such as {{'steps': 500}}, not {self.settings!r}.")
        budget = self.time_budget
        if budget is not None and not (isinstance(budget, Real) and budget > 0):
            raise ConfigError(f"The time_budget must be a number of seconds above 0, or None, got {budget!r}.")

    def of_the_fit(self) -> dict[str, Any]:
        """Return the settings of the fit that have words of their own."""
        timed = {} if self.time_budget is None else {"max_time": float(self.time_budget), "clock": "wall"}
        return timed | ({"trim": self.trim} if self.trim else {})

    def kept(self, data: np.ndarray | pa.Table) -> np.ndarray | pa.Table:
        """Return a table without the columns that are left out by their names, whatever these hold."""
        if isinstance(data, np.ndarray):
            return data
        named = {self.drop} if isinstance(self.drop, str) else set(self.drop or ())
        if self.columns and not isinstance(self.columns, str | Mapping):
            named |= set(data.column_names) - {*self.columns, *(self.given or ())}
        return data.drop_columns([name for name in data.column_names if name in named])

    def of_the_data(self, count: int) -> dict[str, Any]:
        """Return what decides how so many rows are read and split, as `as_source` takes it."""
        said = {name: getattr(self, name) for name in ("columns", "drop", "given", "dependent")}
        validation = min(0.1, MOST_HELD / count) if self.validation is None else self.validation
        return {"kind": "table", "validation": validation} | {name: value for name, value in said.items() if value}


@dataclass
class Fitted:
    """A fitted density.

    Attributes:
        flow: the model.
        config: all settings, as a run keeps them.
        course: how the fit went.
        held: what is kept of the data; None if these are not there any more.
    """

    flow: Flow
    config: RunConfig
    course: Course
    held: Held | None = None

    @property
    def schema(self) -> tuple[ColumnSchema, ...]:
        """What the columns are."""
        return self.config.data.meaning

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Use as many threads as suit the data, without gradients and with what depends on weights alone cached."""
        with threads(recipe(self.config.data).threads), torch.no_grad(), self.flow.frozen():
            yield

    def batches(self, data: np.ndarray | pa.Table) -> Iterator[Tensor]:
        """Read rows as the model takes them, as many as one pass works on."""
        for part in open_items(data, self.config.data).batches(items_per_pass(self.config.data)):
            yield for_flow(self.flow, part.batch).x

    def rows(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return rows `(n, columns of the model)` as numbers, words as their places."""
        parts = open_items(data, self.config.data).batches(items_per_pass(self.config.data))
        return np.concatenate([part.batch.x.double().numpy() for part in parts])

    def each(self, data: np.ndarray | pa.Table, what: Callable[[Tensor], Tensor]) -> np.ndarray:
        """Compute something of rows, a pass at a time, in float64."""
        with self.at_work():
            return np.concatenate([what(x).double().cpu().numpy() for x in self.batches(data)])

    def log_prob(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return the log-likelihood of each row in nats, in the units of the data."""
        facts, found, first = self.config.data, [], 0
        effort = effort_of(self.flow, facts)
        with self.at_work():
            for number, part in enumerate(open_items(data, facts).batches(effort.items)):
                known = score_batch(
                    self.flow, part.batch, effort, seed=seed_of("rows", number), what="row", first=first
                )
                found.append(known.nats)
                first += len(known.nats)
        return np.concatenate(found)

    def sample(self, number: int, seed: int) -> np.ndarray:
        """Draw rows `(number, columns)`."""
        with self.at_work():
            return draw(self.flow, number, seed=seed).double().cpu().numpy()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the model."""
        return tuple(column.name for column in self.schema)

    @property
    def noise_width(self) -> int:
        """Number of columns of the noise of a row."""
        return sum(column.is_modelled for column in self.schema)

    def outlier_scores(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return how odd each row is in nats, the more the larger; see `fitting.outliers`."""
        nats, parts = torch.from_numpy(self.log_prob(data)), items_per_pass(self.config.data)
        with self.at_work():
            scores = map(outlier_score, repeat(self.flow), self.batches(data), nats.split(parts))
            return np.concatenate([score.double().cpu().numpy() for score in scores])

    def p_values(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return the share of held-out rows that are at least as odd as each row, itself counted among them."""
        return required(self.held).p_values(self.outlier_scores(data))

    def blame(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return what each row would gain if a column of it were replaced, in nats `(n, columns)`."""
        held = required(self.held)
        with self.at_work():
            return np.concatenate([held.gains(self.flow, x, self.schema) for x in self.batches(data)])

    def to_noise(self, data: np.ndarray | pa.Table) -> np.ndarray:
        """Return the noise of which rows would be drawn `(n, noise_width)`."""
        return self.each(data, self.flow.to_noise)

    def from_noise(self, noise: np.ndarray) -> np.ndarray:
        """Return the rows that are drawn of noise, `(n, columns)`."""
        weight = next(self.flow.parameters())
        parts = torch.from_numpy(noise).to(weight).split(items_per_pass(self.config.data))
        with self.at_work():
            return np.concatenate([self.flow.from_noise(part).double().cpu().numpy() for part in parts])

    def sample_given(self, number: int, seed: int, given: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Draw so many rows for each row of conditions, one after the other; see `conditions` for what is refused."""
        found = conditions(given, self.schema)
        with threads(recipe(self.config.data).threads):
            chunks = given_chunks(self._completing, self.schema, found, number, seed=seed)
            return np.concatenate([chunk.x.numpy() for chunk in chunks])

    def impute(self, data: np.ndarray | pa.Table, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw what is missing of rows given the rest, `(n, draws, columns)`; also return what was, `(n, columns)`."""
        source = open_items(data, self.config.data)
        with threads(recipe(self.config.data).threads):
            parts = list(filled(self._completing, self.schema, source, draws, seed))
        return np.concatenate([part.drawn.rows for part in parts]), np.concatenate([~part.known for part in parts])

    def quantiles(self, data: np.ndarray | pa.Table, q: Sequence[float], target: str | None) -> np.ndarray:
        """Return quantiles `(n, len(q))` of a column given all others, by default of the only one that is not given."""
        at = target_of(self.schema, target)
        with threads(recipe(self.config.data).threads):
            return quantiles(self._completing, self.schema, self.rows(data), at, q)

    @property
    def _completing(self) -> Flow:
        """The model on the CPU, where the arithmetic of what is known and what is drawn takes place."""
        flow = completing(self.flow, self.config.model.model)
        return flow if next(flow.parameters()).device.type == "cpu" else deepcopy(flow).cpu()

    def save(self, folder: str | Path) -> Run:
        """Write a run.

        Raises:
            RunError: if the folder holds something already, or cannot be written.
        """
        run = Run.create(folder, self.config)
        run.keep(self.flow.state_dict(), self.course)
        if self.held is not None:
            self.held.keep(run, self.flow)
        return run

    @staticmethod
    def of_run(run: Run) -> Fitted:
        """Return what a run holds.

        Raises:
            ConfigError: if it is none of a table, or one of standardised columns.
            RunError: if its fit has not ended, or something of it is missing or damaged.
        """
        facts = run.config.data
        if facts.kind != "table" or run.config.conditional:
            what = "gives labels to its model" if facts.kind == "table" else f"is one of {facts.items}"
            raise ConfigError(f"'{run.path}' {what}; a FlowDensity is of the rows of a table.")
        instead = "A FlowDensity takes rows in the units of their table: fit one to these, or score with the run."
        refuse_other_units(run.config.opened, run.path, instead)
        flow = run.flow()
        with threads(recipe(facts).threads):
            held = Held.of_run(run, flow)
        return Fitted(flow, run.config, run.course() or Course(), held)


def fit_table(
    data: np.ndarray | pa.Table,
    wanted: Wanted,
    *,
    weights: np.ndarray | None = None,
    seed: int = 0,
    on_step: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Fit a density to the rows of a table; in whatever order they are, it is the same.

    Args:
        data: rows of numbers `(n, columns)`, or a table of Arrow.
        wanted: what is asked of the fit.
        weights: of the rows `(n,)`, see `data.weighted`.
        seed: of everything.
        on_step: called after every step.

    Raises:
        DataError: if rows are too few or not what they should be.
        ConfigError: if a word or number does not fit.
    """
    if len(data) < FEWEST:
        raise DataError(f"Found {len(data)} sample(s) of a weight above 0 while a minimum of {FEWEST} is required.")
    order = order_of(wanted.kept(data), weights)
    source = as_source(taken(data, order), seed=seed, **wanted.of_the_data(len(data)))
    if weights is not None:
        held = source.size("validation")
        parts = shuffled(len(data), validation=held, seed=seed)
        source = weighted(source, **{split: weights[order][part] for split, part in parts.items()})
    facts = source.facts()
    chosen = choose(
        facts, model=wanted.model, settings=wanted.settings, fit_settings=wanted.of_the_fit() | {"seed": seed}
    )
    with threads(chosen.threads):
        with seeded(seed):
            flow = chosen.model.build()
        course = fit(flow, source, chosen.fit, device=wanted.device, on_step=on_step)
        held = Held.of(flow, source, facts)
    return Fitted(flow, RunConfig(data=facts, **chosen.configured()), course, held)


def counted(data: Any, weights: np.ndarray | None) -> tuple[Any, np.ndarray | None]:
    """Leave out rows of weight zero, and repeat those of whole weights; return the weights that are left.

    Whole weights repeat rows, unless that makes more than 2^20 rows and more than four times as many; equal weights
    that are not whole are none.
    """
    if weights is None:
        return data, None
    kept = np.flatnonzero(weights)
    data, weights = taken(data, kept), weights[kept]
    total = weights.sum()
    if (weights == weights[:1]).all() and not float(weights[:1].sum()).is_integer():
        return data, None
    if not (weights == np.rint(weights)).all() or total > max(MOST_ROWS, MOST_TIMES * len(weights)):
        return data, weights
    return taken(data, np.repeat(np.arange(len(weights)), weights.astype(np.int64))), None


def taken(data: Any, places: np.ndarray) -> Any:
    """Return the rows at some places of an array or a table of Arrow."""
    return data[places] if isinstance(data, np.ndarray) else data.take(places)
