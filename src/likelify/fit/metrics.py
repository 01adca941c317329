"""Held-out figures: per-item estimates, their means, and what they are worth."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.data import Source, SplitName
from likelify.flows import Flow
from likelify.seeding import seeded

EVALUATION_SEED = 2**31 - 1


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
        bits: in bits per dimension.
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
    """

    source: str
    split: SplitName
    elbo: Score
    iw: Score | None = None


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
        on_batch: called after every pass with the share that is done.
    """
    count = source.size(split) if limit is None else min(limit, source.size(split))
    weighted = iw_samples > 0 and flow.likelihood != "estimate"
    elbos, weights, sizes = [], [], []
    with seeded(EVALUATION_SEED), torch.no_grad(), flow.frozen():
        for indices in torch.arange(count).split(batch_size):
            x, context = read_batch(flow, source, split, indices, conditional)
            elbos.append(flow.elbo(x, context, samples=elbo_samples).value)
            if weighted:
                estimate = flow.iw_log_prob(x, context, samples=iw_samples)
                weights.append(estimate.value)
                sizes.append(estimate.ess)
            if on_batch is not None:
                on_batch(float(indices[-1] + 1) / count)
    dims = math.prod(source.event_shape)
    iw = _score(weights, dims, iw_samples, float(torch.cat(sizes).median())) if weighted else None
    return Evaluation(source.name, split, _score(elbos, dims, elbo_samples), iw)


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
    """Read items to the device of the model; the labels only if it is conditional."""
    device = next(flow.parameters()).device
    batch = source.read(split, indices)
    labels = batch.labels.to(device) if conditional and batch.labels is not None else None
    return batch.x.to(device), labels
