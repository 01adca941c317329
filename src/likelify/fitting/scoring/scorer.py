"""A run's model that scores items pass by pass: the same pass has the same scores, in whatever process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field
from torch import Tensor

from likelify.data import Batch, Facts, SplitName
from likelify.errors import ConfigError, DataError
from likelify.fitting.checks import check_flow, for_flow
from likelify.fitting.outliers import outlier_score
from likelify.fitting.scoring.candidates import candidates, column_gains
from likelify.fitting.scoring.likelihoods import Likelihoods, effort_of, log_likelihoods, score_batch, seed_of
from likelify.fitting.scoring.replacing import patch_gains, replacements
from likelify.settings import Settings

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow

# Draws for differences between an item and itself with a part replaced: noise is shared, so few are enough.
BLAME_DRAWS = 16
# Classes that an error names.
NAMED = 20


class Wanted(Settings):
    """What is asked of a scoring.

    Attributes:
        draws: per item, where the model draws; by default what suits the data.
        reference: the split whose items new ones are ranked among; None for no ranks.
        contamination: mark rows of which at most that share of held-out ones is as odd; None marks none.
        blame: also say for each column of a table what the row gains if that column is replaced.
    """

    draws: int | None = None
    reference: SplitName | None = "validation"
    contamination: float | None = Field(default=None, gt=0, lt=1)
    blame: bool = False

    @classmethod
    def meant(cls) -> str:
        """Return what these settings are, for errors."""
        return "choices of scoring"


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of one pass.

    Attributes:
        likelihoods: of each item.
        gains: for each row and column what `candidates.column_gains` says, `(rows, columns)`; None if not asked for.
    """

    likelihoods: Likelihoods
    gains: np.ndarray | None = None


class Scorer:
    """Scores items with the model of a run.

    Args:
        run: the run.
        wanted: what is asked for.
        flow: the model, if it is at hand.

    Raises:
        ConfigError: if columns are to be blamed and the items have none, or a setting does not fit.
        RunError: if the weights are missing or damaged.
    """

    def __init__(self, run: Run, wanted: Wanted, flow: Flow | None = None) -> None:
        self.facts, self.conditional = run.config.data, run.config.conditional
        self.of_rows = self.facts.kind == "table"
        _check(run, wanted)
        self.flow = run.flow() if flow is None else flow
        check_flow(self.flow)
        self.effort = effort_of(self.flow, self.facts, wanted.draws)
        self.candidates = candidates(replacements(run), self.facts.meaning) if wanted.blame else None

    def __call__(self, batch: Batch, number: int, name: str = "") -> Scored:
        """Score a pass of items, `effort.items` of them but for the last.

        Args:
            batch: the items.
            number: of the pass, from 0.
            name: of the data, for errors.

        Raises:
            DataError: if the model needs labels and there are none.
            NonFiniteError: if the likelihood of an item is not a number.
        """
        if self.conditional and batch.labels is None:
            raise DataError(
                f"The model knows {self.facts.items} of a class only, and {name or 'these items'} have no labels that "
                f"it knows. {_how_labelled(self.facts)}"
            )
        found = score_batch(
            self.flow,
            batch,
            self.effort,
            seed=seed_of("items", number),
            conditional=self.conditional,
            outliers=self.of_rows,
            what=f"{name}, {self.facts.item}",
            first=number * self.effort.items,
        )
        if self.candidates is None:
            return Scored(found)
        batch = for_flow(self.flow, batch)
        return Scored(found, column_gains(self._again(batch, number), batch.x, self.candidates)[0])

    def heat(
        self, batch: Batch, number: int, others: np.ndarray, on_place: Callable[[float], None] | None = None
    ) -> np.ndarray:
        """Return for each pixel of images what they gain if the place around it is replaced, see `patch_gains`."""
        batch = for_flow(self.flow, batch)
        return patch_gains(self._again(batch, number), batch.x, others, self.facts.levels or 0, on_place)

    def _again(self, batch: Batch, number: int) -> Callable[[Tensor], Tensor]:
        """Return a function that scores changed items of a batch, with the same noise in every call."""
        effort = self.effort.model_copy(update={"draws": min(self.effort.draws, BLAME_DRAWS)})
        context = batch.context(conditional=self.conditional)

        def score(x: Tensor) -> Tensor:
            nats = log_likelihoods(self.flow, x, context, effort, seed_of("items again", number)).value
            return -outlier_score(self.flow, x, nats) if self.of_rows else nats

        return score


def _check(run: Run, wanted: Wanted) -> None:
    facts = run.config.data
    if facts.kind != "table" and (wanted.blame or wanted.contamination is not None):
        what = "Columns are blamed in" if wanted.blame else "Outliers are marked among"
        raise ConfigError(f"{what} rows of tables, and '{run.path}' is a model of {facts.items}.")
    if wanted.contamination is not None and wanted.reference is None:
        raise ConfigError(
            "Rows are marked by their rank among held-out ones: leave '--reference none' (in Python reference=None) or "
            "the contamination out."
        )


def _how_labelled(facts: Facts) -> str:
    """Say how a user gives the classes of items."""
    called = f"{', '.join(facts.called[:NAMED])}{', ...' if len(facts.called) > NAMED else ''}"
    where = "in the column of labels that the model was fitted with"
    if facts.kind == "image":
        where = (
            "as names of the subfolders that pictures lie in, where the model was fitted with --labels folders; else "
            "as labels in a .npz file"
        )
    return f"Give the classes ({called}) {where}; in Python give a source with labels, lk.data.as_source."
