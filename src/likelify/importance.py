"""Estimates from random draws, and what their log-weights say about their error: no flows, only tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """A Monte-Carlo estimate for each item, in nats.

    Attributes:
        value: `(items,)`.
        standard_error: of each value over the draws; NaN where a single draw cannot tell.
        ess: effective sample size of the importance weights, between 1 and `samples`; None for a plain mean.
        samples: number of draws per item.
    """

    value: Tensor
    standard_error: Tensor
    ess: Tensor | None
    samples: int


def mean(draws: Tensor, samples: int | None = None) -> Estimate:
    """Return the mean over independent draws `(draws, items)`, with its standard error.

    Args:
        draws: in nats.
        samples: what the estimate counts as its draws per item; those of `draws` by default.
    """
    error = draws.detach().std(0) / math.sqrt(len(draws)) if len(draws) > 1 else torch.full_like(draws[0], math.nan)
    return Estimate(draws.mean(0), error, None, len(draws) if samples is None else samples)


def weighted(log_weights: Tensor) -> Estimate:
    """Return the logarithm of the mean weight, from log-weights `(draws, items)`; see `Flow.iw_log_prob`."""
    samples = len(log_weights)
    total = log_weights.logsumexp(0)
    ess = (2 * total.detach() - (2 * log_weights.detach()).logsumexp(0)).exp()
    error = (1 / ess - 1 / samples).clamp_min(0).sqrt()
    return Estimate(total - math.log(samples), error, ess, samples)


def gap(log_weights: Tensor, count: int) -> Estimate:
    """Return how much the logarithm of the mean of `count` weights lies above the mean log-weight.

    Args:
        log_weights: `(draws, items)`; used in whole groups of `count`, over which the standard error is.
        count: draws of a group.
    """
    groups = log_weights[: len(log_weights) // count * count].unflatten(0, (-1, count))
    return mean(groups.logsumexp(1) - math.log(count) - groups.mean(1), count)
