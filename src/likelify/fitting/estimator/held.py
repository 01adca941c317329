"""What an estimator keeps of its data: scores of held-out rows, and what may stand in a column instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch, Facts, Source
from likelify.errors import DataError, RunError, StateError
from likelify.fitting.feeding import by_weight
from likelify.fitting.outliers import outlier_score
from likelify.fitting.run import Run
from likelify.fitting.scoring.candidates import candidates, column_gains
from likelify.fitting.scoring.likelihoods import score_source
from likelify.fitting.scoring.ranks import ranks
from likelify.fitting.scoring.reference import HeldOut, held_out, keep_held_out
from likelify.fitting.scoring.replacing import keep_replacements, replacements, values_in
from likelify.flows import Flow
from likelify.schema import ColumnSchema


@dataclass(frozen=True, eq=False)
class Held:
    """What is kept of the data of a fit.

    Attributes:
        reference: scores of the rows that validated.
        values: what may stand in a column, `(48, columns)`, see `candidates.found_in`.
    """

    reference: HeldOut
    values: np.ndarray

    @staticmethod
    def of(flow: Flow, source: Source, facts: Facts) -> Held:
        """Score the rows that validated, and look for the values of columns in those that were trained on."""
        found = score_source(flow, source, "validation", facts=facts)
        # As often as they weigh: rows are compared with what was fitted, which is the table with its weights.
        places = torch.arange(len(found.nats))
        weights = source.read("validation", places).weights
        taken = by_weight(Batch(places[:, None], weights=weights)).x[:, 0].numpy()
        outlier = None if found.outlier is None else found.outlier[taken]
        return Held(HeldOut(found.nats[taken], outlier), values_in(source, facts))

    @staticmethod
    def of_run(run: Run, flow: Flow) -> Held | None:
        """Return what a run keeps, or its data tell; None if it keeps nothing and these are not there any more."""
        try:
            return Held(held_out(run, flow=flow), replacements(run))
        except (DataError, RunError):
            return None

    def keep(self, run: Run, flow: Flow) -> None:
        """Keep it in a run, for its own scores too."""
        keep_held_out(run, flow, self.reference)
        keep_replacements(run, self.values)

    def p_values(self, outlier: np.ndarray) -> np.ndarray:
        """Return the share of held-out rows that are at least as odd as each row, itself counted among them."""
        return ranks(-outlier, -self.oddness)

    @property
    def oddness(self) -> np.ndarray:
        """How odd each held-out row is, see `fitting.outliers`."""
        return np.empty(0) if self.reference.outlier is None else self.reference.outlier

    def gains(self, flow: Flow, x: Tensor, schema: tuple[ColumnSchema, ...]) -> np.ndarray:
        """Return what rows would gain if a column of theirs were replaced, in nats `(n, columns)`."""

        def score(rows: Tensor) -> Tensor:
            return -outlier_score(flow, rows, flow.log_prob(rows))

        return column_gains(score, x, candidates(self.values, schema))[0]


def required(held: Held | None) -> Held:
    """Return what is kept of the data.

    Raises:
        StateError: if it is nothing.
    """
    if held is None:
        raise StateError(
            "The estimator is of a run whose data are not there any more, and which keeps no scores of held-out rows: "
            "there is nothing to compare rows with. Load the run where its data are, or fit again."
        )
    return held
