"""Held-out figures: per-item estimates, their means, and what they are worth."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.data import Source, SplitName
from likelify.flows import Estimate, Flow
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
class Evaluation:
    """Held-out figures of a model on one split.

    Attributes:
        source: name of the source.
        split: of the source.
        elbo_bits: bits per dimension from the ELBO (an upper bound in expectation; exact for exact models).
        iw_bits: bits per dimension from importance weighting, or None if the model does not allow it.
        elbo_nats: mean ELBO in nats per item.
        iw_nats: mean importance-weighted log-likelihood in nats per item.
        elbo_samples: draws per item.
        iw_samples: draws per item.
        ess: median over the items of the effective sample size of the importance weights.
    """

    source: str
    split: SplitName
    elbo_bits: Figure
    elbo_nats: Figure
    elbo_samples: int
    iw_bits: Figure | None = None
    iw_nats: Figure | None = None
    iw_samples: int = 0
    ess: float | None = None


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
    batch_size: int = 512,
    limit: int | None = None,
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
    """
    count = source.size(split) if limit is None else min(limit, source.size(split))
    weighted = iw_samples > 0 and flow.likelihood != "estimate"
    elbos, weights, sizes = [], [], []
    with seeded(EVALUATION_SEED), torch.no_grad(), flow.frozen():
        for start in range(0, count, batch_size):
            x, context = read_batch(
                flow, source, split, torch.arange(start, min(start + batch_size, count)), conditional
            )
            elbos.append(flow.elbo(x, context, samples=elbo_samples).value)
            if weighted:
                estimate = flow.iw_log_prob(x, context, samples=iw_samples)
                weights.append(estimate.value)
                sizes.append(_ess(estimate))
    dims = math.prod(source.event_shape)
    elbo = torch.cat(elbos)
    if not weighted:
        return Evaluation(source.name, split, Figure.of(bits_per_dim(elbo, dims)), Figure.of(elbo), elbo_samples)
    iw = torch.cat(weights)
    return Evaluation(
        source.name,
        split,
        Figure.of(bits_per_dim(elbo, dims)),
        Figure.of(elbo),
        elbo_samples,
        Figure.of(bits_per_dim(iw, dims)),
        Figure.of(iw),
        iw_samples,
        float(torch.cat(sizes).median()),
    )


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


def _ess(estimate: Estimate) -> Tensor:
    return torch.ones_like(estimate.value) if estimate.ess is None else estimate.ess
