r"""Estimates from random draws, and what log-weights say about the error of their mean: no flows, only tensors.

The mean of `K` weights estimates `p(x)`, and its logarithm `log p(x)`. Where the largest weights carry much of the sum
the estimate is usually too low, now and then far too high, and a standard error made of the same weights is too small
in just the cases in which it matters. Two things are done about that (`python -m benchmarks.importance` compares them
with the usual ways):

- the *shape* `k` of the upper tail is estimated from the `min(K / 5, 3 sqrt K)` largest weights, by a generalized
  Pareto distribution (Zhang and Stephens 2009; Vehtari et al. 2024). Weights have moments below `1 / k` only;
- the *interval* is the wider, on each side, of two: one corrects the normal approximation of the mean by the skewness
  of the weights (Hall 1992); the other puts the fitted distribution in place of the tail and asks how much its mean may
  be, given that its parameters are uncertain.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from likelify.errors import HeavyTailWarning, LikelifyWarning

# Draws per item below which a tail is not looked at.
FEWEST_DRAWS = 25
# Quantile of the normal distribution for an interval of 95 %.
Z = 1.959964
# Weakly informative prior of the shape: as if so many of the tail's weights had spoken for 0.5 (for k, as in Vehtari et
# al.; for intervals half as many, which is what covers in the simulation).
PRIOR_SHAPE, PRIOR_COUNT, INTERVAL_PRIOR_COUNT = 0.5, 10, 5
# Points at which the distribution of the shape given the scale is looked at.
POINTS = 9
# Items that are worked on at a time.
ITEMS = 512


@dataclass(frozen=True, eq=False)
class Estimate:
    """A Monte-Carlo estimate for each item, in nats.

    Attributes:
        value: `(items,)`.
        standard_error: of each value over the draws; NaN where a single draw cannot tell. For importance weighting that
            of the delta method, `sqrt(1 / ess - 1 / samples)`, which is right only for many draws of light weights.
        ess: effective sample size of the importance weights, between 1 and `samples`; None for a plain mean.
        samples: number of draws per item.
        log_weights: `(draws, items)` without gradients, for importance weighting.
    """

    value: Tensor
    standard_error: Tensor
    ess: Tensor | None
    samples: int
    log_weights: Tensor | None = field(default=None, repr=False)

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """The limits of an interval of 95 % for each item, in nats: of `log p(x)` for importance weighting.

        That interval is not symmetric about the value, and its upper limit is infinite where the weights may have no
        mean. In simulations with 100 draws or more it holds the truth in at least 90 of 100 cases of every family, and
        in 92 to 98 of those with `reliable` where that is the rule (`python -m benchmarks.importance`); with fewer, and
        among the few reliable ones of a heavy-tailed family, it may not. For a plain mean it is
        `value -+ 1.96 standard errors`.
        """
        if self.log_weights is None:
            return self.value - Z * self.standard_error, self.value + Z * self.standard_error
        return self._diagnosed[0], self._diagnosed[1]

    @property
    def k(self) -> Tensor | None:
        """The shape of the upper tail of each item's weights; NaN for fewer than 25 draws, None for a plain mean.

        Weights have moments below `1 / k`: a variance for k below 0.5; above 0.7 means of any practical number of draws
        are unstable, and above one there may be no mean.
        """
        return None if self.log_weights is None else self._diagnosed[2]

    @property
    def reliable(self) -> Tensor:
        """Whether each item's weights are light enough to believe its interval: `k <= largest_shape(samples)`.

        All true for a plain mean, all false for importance weighting with fewer than 25 draws.
        """
        if self.k is None:
            return torch.ones_like(self.value, dtype=torch.bool)
        return self.k <= largest_shape(self.samples)

    @cached_property
    def _diagnosed(self) -> tuple[Tensor, ...]:
        """Lower and upper limit and shape; only made for those who ask, since training does not."""
        parts = [_interval_and_shape(part) for part in self.log_weights.split(ITEMS, 1)]  # pyright: ignore[reportOptionalMemberAccess]
        return tuple(torch.cat(of).reshape(self.value.shape) for of in zip(*parts, strict=True))

    def warn(self) -> None:
        """Give a `HeavyTailWarning` if the weights of some items are too heavy-tailed to believe their intervals.

        Items whose weights are not finite are no heavy tails; they get a `LikelifyWarning` of their own.
        """
        if self.k is None or self.samples < FEWEST_DRAWS:
            return
        count, limit = self.value.numel(), largest_shape(self.samples)
        # Nothing is wrong with rows outside of the support, whose density is zero.
        broken = int((~self.value.isfinite() & ~self.value.isneginf()).sum())
        if broken:
            warnings.warn(
                f"The importance weights of {broken} of {count} items are not finite: nothing can be said of their "
                "log p(x). Look for values far outside of what the model has seen.",
                LikelifyWarning,
                stacklevel=3,
            )
        heavy = ~self.reliable & self.value.isfinite()
        if bool(heavy.any()):
            warnings.warn(
                f"The importance weights of {int(heavy.sum())} of {count} items have heavy tails (shape k above "
                f"{limit:.2f} with {self.samples} draws; the largest is {float(self.k[heavy].max()):.2f}): their log "
                "p(x) is likely too low, and their intervals may not hold it. Take more draws, or noise that is "
                "closer to the model's own, such as a learned dequantizer or posterior; Estimate.reliable says which "
                "items.",
                HeavyTailWarning,
                stacklevel=3,
            )


def largest_shape(samples: int) -> float:
    """Return the largest shape `k` with which a mean of so many weights can be believed: `min(1 - 1 / log10 K, 0.7)`.

    Source:
        Vehtari, Simpson, Gelman, Yao and Gabry 2024, section 3.2.4.
    """
    return min(1 - 1 / math.log10(samples), 0.7) if samples >= FEWEST_DRAWS else -math.inf


def mean(draws: Tensor, samples: int | None = None) -> Estimate:
    """Return the mean over independent draws `(draws, items)`, with its standard error.

    Args:
        draws: in nats.
        samples: what the estimate counts as its draws per item; those of `draws` by default.
    """
    spread = len(draws) > 1 and draws.numel() > 0
    error = draws.detach().std(0) / math.sqrt(len(draws)) if spread else torch.full_like(draws[0], math.nan)
    return Estimate(draws.mean(0), error, None, len(draws) if samples is None else samples)


def weighted(log_weights: Tensor) -> Estimate:
    """Return the logarithm of the mean weight, from log-weights `(draws, items)`; see `Flow.iw_log_prob`.

    Gradients reach the value alone, which is the plain mean: a smoothed one would have another gradient.
    """
    samples, given = len(log_weights), log_weights.detach()
    total = log_weights.logsumexp(0)
    ess = (2 * total.detach() - (2 * given).logsumexp(0)).exp()
    # Of a single draw the error is unknown, not zero.
    error = (1 / ess - 1 / samples).clamp_min(0).sqrt() if samples > 1 else torch.full_like(ess, math.nan)
    return Estimate(total - math.log(samples), error, ess, samples, given)


def gap(log_weights: Tensor, count: int) -> Estimate:
    """Return how much the logarithm of the mean of `count` weights lies above the mean log-weight.

    Args:
        log_weights: `(draws, items)`; used in whole groups of `count`, over which the standard error is.
        count: draws of a group.
    """
    groups = log_weights[: len(log_weights) // count * count].unflatten(0, (-1, count))
    return mean(groups.logsumexp(1) - math.log(count) - groups.mean(1), count)


def _interval_and_shape(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the limits of the interval and the shape of the tail."""
    largest = log_weights.amax(0)
    # Where no draw has any weight there is nothing to say.
    shift = torch.where(largest.isfinite(), largest, 0.0)
    weights = (log_weights - shift).exp().sort(0).values
    lower, upper = skewness_interval(weights)
    k = torch.full_like(lower, math.nan)
    if len(weights) >= FEWEST_DRAWS and weights.numel():
        k, tail_lower, tail_upper = _tail_interval(weights)
        lower, upper = torch.minimum(lower, tail_lower), torch.maximum(upper, tail_upper)
    found = largest.isfinite()
    lower, upper = lower.log() + shift, upper.log() + shift
    return torch.where(found, lower, -math.inf), torch.where(found, upper, math.inf), torch.where(found, k, math.nan)


def skewness_interval(weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return limits of the mean of weights `(draws, items)`: the normal approximation, corrected by their skewness.

    With the skewness `c` of the weights and `g = c / sqrt(K)`, the statistic `t` of Student is turned into one that is
    more nearly normal, `t + g t^2 / 3 + g^2 t^3 / 27 + g / 6`, and that is inverted.

    Source:
        Hall 1992, "On the removal of skewness by transformation".
    """
    count, centre = len(weights), weights.mean(0)
    if count < 2:
        return torch.zeros_like(centre), torch.full_like(centre, math.inf)
    off = weights - centre
    deviation = off.square().mean(0).sqrt()
    error = deviation / math.sqrt(count - 1)
    # Weights are skewed to the right; seeming to be so to the left is no reason for a shorter interval.
    cube = (deviation**3).clamp_min(torch.finfo(weights.dtype).tiny)
    g = ((off**3).mean(0) / cube).clamp_min(1e-4) / math.sqrt(count)

    def student(normal: float) -> Tensor:
        inner = 1 + g * (normal - g / 6)
        return 3 / g * (inner.sign() * inner.abs() ** (1 / 3) - 1)

    return (centre - error * student(Z)).clamp_min(0), centre - error * student(-Z)


@dataclass(frozen=True)
class Tail:
    """A generalized Pareto distribution of what exceeds a threshold, for each item, with what is uncertain about it.

    Its density is proportional to `(1 + k y / scale)^(-1 - 1/k)`, and `ratio = -k / scale`.

    Attributes:
        threshold: `(items,)`.
        count: number of weights above it.
        k: the shape, before it is drawn to its prior.
        ratios: `(points, items)`, values of the ratio on a grid.
        shapes: the likeliest shape for each of them.
        masses: their probabilities.
    """

    threshold: Tensor
    count: int
    k: Tensor
    ratios: Tensor
    shapes: Tensor
    masses: Tensor


def fit_tail(weights: Tensor) -> Tail:
    """Fit the largest of sorted weights `(draws, items)`, rising.

    The ratio is the mean of its profile posterior on a grid that the quartile and the maximum span.

    Source:
        Zhang and Stephens 2009, with the number of weights of Vehtari et al. 2024.
    """
    count = math.ceil(min(0.2 * len(weights), 3 * math.sqrt(len(weights))))
    threshold = weights[-count - 1]
    over = weights[-count:] - threshold
    largest = over[-1].clamp_min(torch.finfo(weights.dtype).tiny)
    quartile = torch.maximum(over[int(count / 4 + 0.5) - 1], 1e-6 * largest)
    points = 30 + int(math.sqrt(count))
    grid = torch.arange(1, points + 1, dtype=weights.dtype, device=weights.device)[:, None] - 0.5
    ratios = 1 / largest + (1 - (points / grid).sqrt()) / (3 * quartile)
    shapes = torch.log1p(-ratios[:, None] * over).mean(1)
    log_posterior = count * ((-ratios / shapes).log() - shapes - 1)
    masses = log_posterior.nan_to_num(-math.inf, posinf=-math.inf).softmax(0)
    ratio = (ratios * masses).sum(0)
    return Tail(threshold, count, torch.log1p(-ratio * over).mean(0), ratios, shapes, masses)


def to_prior(shape: Tensor, count: int, prior_count: int) -> Tensor:
    """Draw the shape of so many weights towards that of the prior."""
    return (count * shape + prior_count * PRIOR_SHAPE) / (count + prior_count)


def _tail_interval(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shape, and limits of the mean with the fitted distribution in place of the largest weights."""
    tail = fit_tail(weights)
    share = tail.count / len(weights)
    low, middle, high = (tail.threshold + excess for excess in _tail_means(tail))
    middle = torch.where(middle.isfinite(), middle, low)
    body = weights[: -tail.count]
    centre = (1 - share) * body.mean(0) + share * middle
    # How many weights are in the tail is random too.
    variance = (middle - body.mean(0)) ** 2 * share + body.var(0, correction=0)
    sampling = Z * (variance * (1 - share) / len(weights)).sqrt()
    lower = centre - torch.hypot(share * (middle - low), sampling)
    upper = centre + torch.hypot(share * (high - middle), sampling)
    # Weights that are all alike have no tail.
    flat = weights[-1] - tail.threshold <= 1e-12 * weights[-1]
    k = torch.where(flat, 0.0, to_prior(tail.k, tail.count, PRIOR_COUNT))
    lower = torch.where(flat, weights.mean(0), lower.nan_to_num(math.inf).clamp_min(0))
    return k, lower, torch.where(flat, weights.mean(0), upper.nan_to_num(math.inf, posinf=math.inf))


def _tail_means(tail: Tail) -> list[Tensor]:
    """Return three quantiles, of 2.5, 50 and 97.5 %, of the mean excess over the threshold."""
    like = {"dtype": tail.k.dtype, "device": tail.k.device}
    normal = torch.special.ndtri((torch.arange(POINTS, **like) + 0.5) / POINTS)
    # Given the ratio, logarithms are exponential with mean k; this is the gamma distribution of their sum (Wilson and
    # Hilferty 1931).
    gamma = (1 - 1 / (9 * tail.count) + normal / (3 * math.sqrt(tail.count))) ** 3
    shapes = tail.shapes[:, None] / gamma[:, None]
    scales = -shapes / tail.ratios[:, None]
    k = to_prior(shapes, tail.count, INTERVAL_PRIOR_COUNT)
    means = torch.where(k < 0.99, scales / (1 - k.clamp_max(0.99)), math.inf).flatten(0, 1)
    masses = (tail.masses[:, None] / POINTS).expand_as(k).flatten(0, 1)
    means, order = means.sort(0)
    below = masses.gather(0, order).cumsum(0)
    places = [(below < level).sum(0, keepdim=True).clamp_max(len(means) - 1) for level in (0.025, 0.5, 0.975)]
    return [means.gather(0, place)[0] for place in places]
