"""The figures of a fit and of its evaluation, as plain data that is saved as JSON.

Every log-likelihood is kept in nats (higher is better) and in bits per dimension (lower is better).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from likelify.data import SplitName
from likelify.names import ItemKind
from likelify.settings import Settings

if TYPE_CHECKING:
    import numpy as np

# Bits per dimension that a training loss may lie below the best validation: no fit that learns comes near.
COLLAPSE_BITS = 50.0
# Bits per dimension by which it may fall in the second half of a fit of so many steps.
FALLING_BITS, LEAST_STEPS = 2.0, 100
# A fit of no more steps that the clock ended has hardly begun.
HARDLY = 20
COLLAPSES = (
    "A density grows without end where items do not fill space: where columns or elements follow from others, or "
    "single values repeat. Leave such columns out, or let them be what they are: of a table the model table-flow gives "
    "repeated values probabilities, and --columns says what a column is."
)

Reason = Literal["running", "finished", "time is up", "stopped early", "interrupted", "diverged"]
UNENDED: tuple[Reason, ...] = ("running", "interrupted")


# Share of items above which heavy tails of their importance weights are worth a warning.
HEAVY_SHARE = 0.05


@dataclass(frozen=True)
class Unit:
    """The unit in which the likelihoods of some kind of data are usually compared.

    Images are compared in bits per dimension, `-log p / (D ln 2)`, lower being better; everything else in nats per
    item, higher being better, since bits per dimension of a density mean little.

    Attributes:
        name: of the unit.
        word: of the figures that it is read off, those in bits per dimension or those in nats per item.
        scale: what these are multiplied by.
    """

    name: Literal["bits/dim", "nats", "nats/node"]
    word: Literal["bits", "nats"]
    scale: float = 1.0

    @staticmethod
    def of(kind: ItemKind) -> Unit:
        """Return the unit that suits a kind of data.

        Example:
            >>> Unit.of("table").show(bits=1.2, nats=-3.4)
            '-3.400 nats'
        """
        return Unit("bits/dim", "bits") if kind == "image" else Unit("nats", "nats")

    @staticmethod
    def per_node(features: int) -> Unit:
        """Return the unit in which graphs are compared in papers: `-log p / nodes` in nats, lower being better.

        Args:
            features: of each node.

        Example:
            >>> Unit.per_node(2).show(bits=1.0, nats=-9.0)
            '1.386 nats/node'
        """
        return Unit("nats/node", "bits", features * math.log(2))

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.word == "nats"

    def pick(self, bits: float, nats: float) -> float:
        """Return whichever of the two is in this unit."""
        return self.scale * (bits if self.word == "bits" else nats)

    def show(self, bits: float, nats: float) -> str:
        """Format a figure in this unit, such as '1.841 bits/dim'."""
        return f"{self.pick(bits, nats):.3f} {self.name}"


class Figure(Settings):
    """A mean with its standard error, in one unit.

    The error is the spread of the values divided by the root of their number. Where the values are estimates, one for
    each item, their own noise is part of that spread. Of values with weights `w` the mean is `sum(w v) / sum(w)`, and
    the error the root of `n / (n - 1) sum(w^2 (v - mean)^2)`, divided by `sum(w)`; of n values, those that weigh.

    Attributes:
        mean: the mean.
        standard_error: its standard error; None for a single value, and where a value is infinite.
        count: number of values: items of a split, or seeds.
    """

    mean: float
    standard_error: float | None
    count: int

    @staticmethod
    def of(values: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None) -> Figure:
        """Summarise one number per item or seed, at least one.

        Args:
            values: the numbers.
            weights: of each, by default the same; at least one above 0.

        Example:
            >>> Figure.of([1.0, 2.0, 3.0]).mean
            2.0
            >>> Figure.of([1.0, 2.0, math.inf], [1.0, 3.0, 0.0]).mean
            1.75
        """
        import numpy as np

        array = np.asarray(values, dtype=np.float64)
        weight = np.ones(len(array)) if weights is None else np.asarray(weights, dtype=np.float64)
        # What weighs nothing counts for nothing, even where it is infinite.
        array, weight = array[weight > 0], weight[weight > 0]
        count, share = len(array), weight / weight.sum()
        mean = float(array.mean()) if weights is None else float((share * array).sum())
        error = None
        if count > 1 and bool(np.isfinite(array).all()):
            spread = (share**2 * (array - mean) ** 2).sum() * count / (count - 1)
            error = float(array.std(ddof=1)) / math.sqrt(count) if weights is None else math.sqrt(spread)
        return Figure(mean=mean, standard_error=error, count=count)


class Score(Settings):
    """A held-out log-likelihood.

    Attributes:
        bits: in bits per dimension; of real-valued items that of a density, which can be negative.
        nats: in nats per item.
        per_node: of graphs in nats per node, the mean over the graphs of what each has; None of other items.
        kl: how far the true log-density of the data lies above it, in nats per item, of graphs per node: the mean over
            the items of the differences, which estimates the Kullback-Leibler divergence (for a bound, one from above)
            far better than either mean does. None where the truth was not given.
        samples: draws per item.
        ess: median over the items of the effective sample size, for importance weighting.
        k: median over the items of the shape of the tail of their weights, for at least 25 draws; above 0.7 a figure is
            likely too pessimistic, and its error far too small.
        heavy: share of the items whose weights are too heavy-tailed for the number of draws (`Estimate.reliable`).
        left_out: number of items that `ess`, `k` and `heavy` leave out, since their weights are all zero or not finite.
    """

    bits: Figure
    nats: Figure
    per_node: Figure | None = None
    kl: Figure | None = None
    samples: int
    ess: float | None = None
    k: float | None = None
    heavy: float | None = None
    left_out: int | None = None


class Scores(Settings):
    """The held-out log-likelihoods of a model.

    Attributes:
        elbo: a lower bound in expectation; exact for exact models.
        iw: importance-weighted, or None if it was not asked for or the model does not allow it.
    """

    elbo: Score
    iw: Score | None = None


class Simple(Settings):
    """A simple density beside a model, on the same rows.

    Attributes:
        name: of the density.
        what: a sentence on what it is.
        nats: its log-likelihood, in nats per row.
        model: that of the model, of the same rows.
        gain: how far the model lies above it: the mean of the differences row by row, with their standard error.
    """

    name: str
    what: str
    nats: Figure
    model: Figure
    gain: Figure


class Evaluation(Scores):
    """Held-out figures of a model on one split.

    Attributes:
        exact: the likelihoods are exact, so there is nothing to weight.
        beside: simple densities of the same rows, of tables; see `fitting.beside`.
        not_beside: those that could not be fitted, by name, and why.
        source: name of the source.
        split: of the source.
        gain: how far importance weighting lies above the ELBO on the items that were weighted, in nats per item.
        gaps: how far importance weighting lies above the ELBO, in nats per item by number of draws, if asked for.
        weights: digest of the weights of the run that were measured, or None for those of a flow.
    """

    source: str
    split: SplitName
    exact: bool = False
    beside: tuple[Simple, ...] = ()
    not_beside: dict[str, str] = {}
    gain: Figure | None = None
    gaps: dict[int, Figure] | None = None
    weights: str | None = None

    def draws(self) -> tuple[int, int, int]:
        """Return how fine the figures are: draws for importance weighting, of all items; for the ELBO of each; gaps."""
        weighted = 0 if self.iw is None else self.iw.samples * self.iw.nats.count
        return weighted, self.elbo.samples, len(self.gaps or ())


class Point(Settings):
    """A point of the course of a fit: an evaluation on the validation split.

    Attributes:
        step: optimizer steps so far.
        seconds: time so far on the clock of the settings, validation included.
        train_bits: mean loss since the last point, bits per dimension; None at the first, and if there is another
            objective.
        train_nats: the same as a log-likelihood in nats per item.
        validation_bits: of the averaged weights.
        validation_nats: the same in nats per item.
        lr: learning rate at that step; 0 at the first, None where it was not kept.
        train_matching: mean loss of flow matching since the last point, of an element; None for fits by likelihood.
    """

    step: int
    seconds: float
    train_bits: float | None
    train_nats: float | None
    validation_bits: float
    validation_nats: float
    lr: float | None = None
    train_matching: float | None = None


class Truncation(Settings):
    """What the tolerance of exponentials in training steps (`FitSettings.exp_tol`) did to the objective.

    Measured once, on one training batch with the weights that were kept; all figures are means over its items.

    Attributes:
        exp_tol: the tolerance.
        exponentials: how many were computed to it.
        log_det_nats: proved bound of `|objective - log-likelihood of the maps that were applied|`: their
            log-determinants are those of the exact exponentials. None if there is none.
        value_nats: bound, to first order, of what errors of the values do: the sum over the exponentials of the norm of
            the objective's gradient at the value times the certificate of the value. None if there is none.
        bound_bits: the sum of both in bits per dimension.
        change_bits: objective at this tolerance minus that at full tolerance, with the same noise, in bits per
            dimension.
        change_nats: the same as a log-likelihood in nats per item.
    """

    exp_tol: float
    exponentials: int
    log_det_nats: float | None
    value_nats: float | None
    bound_bits: float | None
    change_bits: float
    change_nats: float

    @property
    def bound_nats(self) -> float | None:
        """The sum of both bounds in nats per item."""
        if self.log_det_nats is None or self.value_nats is None:
            return None
        return self.log_det_nats + self.value_nats

    def words(self, unit: Unit) -> str:
        """Say it in a sentence or two, in a unit."""
        change = abs(unit.pick(self.change_bits, self.change_nats))
        bound = self.bound_bits if unit.word == "bits" else self.bound_nats
        allowed = "" if bound is None else f"; their certificates allow {bound:.2g}"
        return (
            f"In training steps exponentials had a tolerance of {self.exp_tol:g} (exp_tol), which changed the "
            f"objective by {change:.2g} {unit.name}{allowed}. All other figures are at full tolerance."
        )


class Course(Settings):
    """How a fit went.

    Attributes:
        reason: why it ended; "running" as long as it has not, which a killed fit leaves behind; "diverged" if its loss
            became infinite or NaN.
        steps: that were made.
        best_step: the step of the weights that were kept, those of the best evaluation on the validation split.
        seconds: it took, validation included.
        clock: what these are: time on the wall, or processor time of the process.
        points: the evaluations on the validation split.
        validation_items: how many items these looked at, the first of the split, where all that the settings ask for
            would have taken more than about half of `max_time`; else None.
        setbacks: steps at which the loss blew up, so that the fit went back to its best weights and on at half of its
            rate.
        truncation: what the tolerance of exponentials did to the objective; None without exponentials, at full
            tolerance, and as long as the fit has not ended.
        recorded: how many steps, since the fit began or went on, were replayed from a CUDA graph.
        unrecorded: on a CUDA device, why not all but the first of them were; None if they were.
    """

    reason: Reason = "running"
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    clock: Literal["wall", "processor"] = "wall"
    points: tuple[Point, ...] = ()
    validation_items: int | None = None
    setbacks: tuple[int, ...] = ()
    truncation: Truncation | None = None
    recorded: int = 0
    unrecorded: str | None = None

    @property
    def best(self) -> Point | None:
        """The point of the weights that were kept, or None if there were none."""
        return next((point for point in self.points if point.step == self.best_step), None)

    @property
    def recording(self) -> str | None:
        """A sentence on how far steps were replayed from a CUDA graph; None on other devices."""
        if not (self.recorded or self.unrecorded):
            return None
        why = "." if self.unrecorded is None else f"; then no more: {self.unrecorded}"
        if not self.recorded:
            return f"Steps were made one operation after the other: {self.unrecorded}"
        return f"{self.recorded:,} steps were replayed from a CUDA graph{why}"

    @property
    def matches(self) -> bool:
        """Whether the objective was flow matching, whose loss is no likelihood."""
        return any(point.train_matching is not None for point in self.points)

    @property
    def ended(self) -> bool:
        """Whether there is nothing to go on with: neither killed nor interrupted, nor running now."""
        return self.reason not in UNENDED

    @property
    def doubts(self) -> list[str]:
        """Sentences that say why figures of this fit may mean little, and what to do; usually none."""
        best = self.best
        if best is None:
            return []
        found = []
        if best.step == 0 and self.reason == "time is up" and self.steps <= HARDLY:
            found.append(
                f"The time was up after {self.steps} step{'s' * (self.steps != 1)}, in which nothing was learnt: the "
                "best weights are those before the first step. Starting values and the validation before that take "
                "time, too. Give the fit more of it (--max-time, in Python max_time=), or a smaller model."
            )
        elif best.step == 0 and len(self.points) > 1:
            found.append(
                "The fit never beat its start: the best weights are those before the first step, since no validation "
                "after it was better. What was fitted to the data before training is all that this model knows. Lower "
                "the learning rate (--lr), take a smaller model or more dropout, or more data."
            )
        trained = [point for point in self.points if point.train_bits is not None]
        lowest = min(trained, key=lambda point: point.train_bits or 0.0, default=None)
        if lowest is not None and (lowest.train_bits or 0.0) < best.validation_bits - COLLAPSE_BITS:
            found.append(
                f"The training loss ran away: {lowest.train_nats:.4g} nats per item before step {lowest.step}, where "
                f"the best validation has {best.validation_nats:.4g}. {COLLAPSES}"
            )
        elif self._keeps_falling(trained):
            found.append(
                f"The training loss ran away: from {trained[len(trained) // 2].train_nats:.4g} nats per item in the "
                f"middle of the fit to {trained[-1].train_nats:.4g} at its end, and so do the figures of validation. "
                f"{COLLAPSES}"
            )
        found += self._setback_doubts()
        if self.validation_items is not None:
            found.append(
                f"The best weights are those that were best on the first {self.validation_items:,} items of the "
                "validation split: validations of all of it would have taken more than half of the time. Give the fit "
                "more of it (--max-time, in Python max_time=), or say how many items (validation_items)."
            )
        return found

    def _setback_doubts(self) -> list[str]:
        if not self.setbacks:
            return []
        return [
            f"The loss blew up at step {', '.join(f'{step:,}' for step in self.setbacks)}: "
            f"{'each time ' * (len(self.setbacks) > 1)}the fit went back to its best weights, and on at half of its "
            "learning rate. With a lower one from the start (--lr, in Python lr=) less of its time is lost."
        ]

    def _keeps_falling(self, trained: list[Point]) -> bool:
        """Tell whether the loss of training fell in the second half of a fit as it does where density has no bound."""
        if len(trained) < 4 or trained[-1].step < LEAST_STEPS:
            return False
        middle, end = trained[len(trained) // 2].train_bits or 0.0, trained[-1].train_bits or 0.0
        return middle - end > FALLING_BITS

    def rows(self, unit: Unit) -> list[dict[str, float]]:
        """Return the points as plain rows with their figures in a unit; what is not known is NaN."""
        train = "train_matching" if self.matches else f"train_{unit.word}"
        names = ("step", "seconds", train, f"validation_{unit.word}", "lr")
        rows = ({name: getattr(point, name) for name in names} for point in self.points)
        return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]
