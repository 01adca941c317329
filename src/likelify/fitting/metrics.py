"""Held-out figures: per-item estimates, their means, and what they are worth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from likelify.data import Source, SplitName
from likelify.flows import Flow
from likelify.seeding import seeded

EVALUATION_SEED = 2**31 - 1


@dataclass(frozen=True)
class Unit:
    """How the figures of a fit are shown.

    Fits count in bits per dimension, `-log p / (D ln 2)`. That is what images are compared in; tables are compared in
    nats per row, higher being better, and for densities bits per dimension mean little.

    Attributes:
        name: of the unit.
        word: short name, for headings.
        factor: of the figure in that unit for a figure in bits per dimension.
    """

    name: Literal["bits/dim", "nats"] = "bits/dim"
    word: Literal["bits", "nats"] = "bits"
    factor: float = 1.0

    @staticmethod
    def of(event_shape: tuple[int, ...], levels: int | None) -> "Unit":
        """Return the unit that suits data of that shape, with levels or real-valued."""
        if levels is not None:
            return Unit()
        return Unit("nats", "nats", -math.prod(event_shape) * math.log(2))

    def show(self, bits: float) -> str:
        """Write a figure that is given in bits per dimension."""
        return f"{self.factor * bits:.3f} {self.name}"


@dataclass(frozen=True)
class Figure:
    """A mean over items with its standard error, in one unit.

    The error is that of the mean over the items (their spread divided by the root of their number); the noise of the
    estimates themselves is part of that spread.
    """

    mean: float
    standard_error: float
    items: int

    @staticmethod
    def of(values: Tensor) -> "Figure":
        """Summarise one number per item."""
        values = values.detach().double().cpu()
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return Figure(float(values.mean()), error, len(values))


@dataclass(frozen=True)
class Score:
    """A held-out log-likelihood.

    Attributes:
        bits: in bits per dimension; of real-valued items that of a density, which can be negative.
        nats: in nats per item.
        samples: draws per item.
        ess: median over the items of the effective sample size, for importance weighting.
    """

    bits: Figure
    nats: Figure
    samples: int
    ess: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Held-out figures of a model on one split.

    Attributes:
        source: name of the source.
        split: of the source.
        elbo: a lower bound in expectation; exact for exact models.
        iw: importance-weighted, or None if it was not asked for or the model does not allow it.
        gain: how far importance weighting lies above the ELBO on the items that were weighted, in nats per item.
        gaps: how far importance weighting lies above the ELBO, in nats per item by number of draws, if asked for.
    """

    source: str
    split: SplitName
    elbo: Score
    iw: Score | None = None
    gain: Figure | None = None
    gaps: dict[int, Figure] | None = None


def bits_per_dim(log_prob: Tensor, dims: int) -> Tensor:
    """Turn log-probabilities in nats into bits per dimension: `-log p / (dims ln 2)`."""
    return -log_prob / (dims * math.log(2))


def evaluate(
    flow: Flow,
    source: Source,
    *,
    split: SplitName = "test",
    elbo_samples: int = 10,
    iw_samples: int = 100,
    conditional: bool = False,
    batch_size: int = 120,
    limit: int | None = None,
    iw_items: int | None = None,
    gaps: Sequence[int] = (),
    on_batch: Callable[[float], None] | None = None,
) -> Evaluation:
    """Measure a model on a split, with noise that is the same in every call.

    Args:
        flow: the model.
        source: the data.
        split: of the source.
        elbo_samples: draws per item for the ELBO.
        iw_samples: draws per item for importance weighting; 0 leaves it out.
        conditional: give the labels to the model.
        batch_size: items per pass.
        limit: use only that many items, the first of the split.
        iw_items: weight only that many of them, the first; None weights all.
        gaps: also measure the gap between ELBO and importance weighting of the weighted items at these numbers of
            draws, from draws of its own.
        on_batch: called after every pass with the share that is done.
    """
    count = source.size(split) if limit is None else min(limit, source.size(split))
    possible = iw_samples > 0 and flow.likelihood != "estimate"
    weighted = (count if iw_items is None else min(iw_items, count)) if possible else 0
    work = count * elbo_samples + weighted * iw_samples
    elbos, weights, sizes = [], [], []
    found: dict[int, list[Tensor]] = {number: [] for number in gaps}
    with seeded(EVALUATION_SEED), torch.no_grad(), flow.frozen():
        for indices in torch.arange(count).split(batch_size):
            x, context = read_batch(flow, source, split, indices, conditional)
            elbos.append(flow.elbo(x, context, samples=elbo_samples).value)
            done = int(indices[-1]) + 1
            rows = len(x) - max(0, done - weighted)
            if rows > 0:
                x, context = x[:rows], None if context is None else context[:rows]
                estimate = flow.iw_log_prob(x, context, samples=iw_samples)
                weights.append(estimate.value)
                sizes.append(estimate.ess)
                for number, gap in flow.bound_gaps(x, context, samples=gaps).items() if found else ():
                    found[number].append(gap.value)
            if on_batch is not None:
                on_batch((done * elbo_samples + min(done, weighted) * iw_samples) / work)
    dims = math.prod(source.event_shape)
    iw = _score(weights, dims, iw_samples, float(torch.cat(sizes).median())) if weighted else None
    by_draws = {number: Figure.of(torch.cat(values)) for number, values in found.items() if values}
    gain = Figure.of(torch.cat(weights) - torch.cat(elbos)[:weighted]) if weighted else None
    return Evaluation(source.name, split, _score(elbos, dims, elbo_samples), iw, gain, by_draws or None)


def _score(values: list[Tensor], dims: int, samples: int, ess: float | None = None) -> Score:
    nats = torch.cat(values)
    return Score(Figure.of(bits_per_dim(nats, dims)), Figure.of(nats), samples, ess)


def read_batch(
    flow: Flow,
    source: Source,
    split: SplitName,
    indices: Tensor,
    conditional: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor | None]:
    """Read items to the device of the model, real numbers in its dtype; the labels only if it is conditional."""
    weight = next(flow.parameters())
    batch = source.read(split, indices)
    labels = batch.labels.to(weight.device) if conditional and batch.labels is not None else None
    dtype = weight.dtype if batch.x.is_floating_point() else batch.x.dtype
    return batch.x.to(weight.device, dtype), labels
