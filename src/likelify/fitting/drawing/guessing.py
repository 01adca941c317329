"""A first guess of what is hidden of an item, given the rest: a normal distribution behind the marginals of elements.

It is fitted to samples of a model and is nothing but a place to start from; `inpainting` brings it to the model's own
density. Values of levels lie in their levels, `[k, k + 1)`, and keep their histograms: each is `F^-1(Phi(g))` with `F`
the distribution function of its histogram and `g` normal (a Gaussian copula). Real values are normal themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.distributions.normal import probability_below

# By how much the normal distribution is wider than samples say, in variances; bins of a histogram, and what is added
# to the count of each.
WIDER, BINS, PSEUDO = 1.3, 256, 0.5
# Known elements that are looked at: those that tell most of the hidden ones.
MOST_SEEN = 2048
# Scores that a normal variable does not reach.
FARTHEST = 6.0


class Histograms:
    """The distribution functions of elements with levels, straight within each bin.

    Args:
        values: samples `(n, size)` in `[0, levels)`.
        levels: number of values.
    """

    def __init__(self, values: Tensor, levels: int) -> None:
        self.bins = min(levels, BINS)
        self.width = levels / self.bins
        places = (values / self.width).long().clamp(0, self.bins - 1)
        counts = torch.zeros(values.shape[1], self.bins, dtype=torch.float64)
        counts.scatter_add_(1, places.T, torch.ones_like(places.T, dtype=torch.float64))
        counts += PSEUDO
        self.masses = counts / counts.sum(1, keepdim=True)
        self.below = torch.cat([torch.zeros_like(self.masses[:, :1]), self.masses.cumsum(1)], 1)
        self.below[:, -1] = 1.0

    def scores(self, values: Tensor) -> Tensor:
        """Return the normal scores of values `(n, size)`."""
        places = (values / self.width).long().clamp(0, self.bins - 1).T
        inside = values.T / self.width - places
        share = self.below.gather(1, places) + inside * self.masses.gather(1, places)
        return torch.special.ndtri(share.T).clamp(-FARTHEST, FARTHEST)

    def values(self, scores: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values `(n, elements)` of scores, and the logarithms of the slopes."""
        scores = scores.clamp(-FARTHEST, FARTHEST)
        below, masses = self.below[elements].contiguous(), self.masses[elements]
        share = probability_below(scores).T.contiguous()
        places = (torch.searchsorted(below, share, right=True) - 1).clamp(0, self.bins - 1)
        mass = masses.gather(1, places)
        inside = ((share - below.gather(1, places)) / mass).clamp(0, 1)
        slopes = -0.5 * scores.square() - (mass.T / self.width).log()
        return ((places + inside) * self.width).T, slopes


class Lines:
    """Elements of real values, which are their own scores."""

    def scores(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def values(self, scores: Tensor, elements: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, and zeros."""
        return scores, torch.zeros_like(scores)


@dataclass(frozen=True, eq=False)
class Guess:
    """What samples of a model say of all elements together.

    Attributes:
        marginals: of the elements.
        mean: of their scores, `(size,)`.
        covariance: of their scores.
    """

    marginals: Histograms | Lines
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, samples: Tensor, levels: int | None) -> Guess:
        """Fit to samples `(n, size)`; integers, if there are levels."""
        samples = samples.double()
        spread = samples if levels is None else samples + torch.rand_like(samples)
        marginals = Lines() if levels is None else Histograms(spread, levels)
        scores = marginals.scores(spread)
        covariance = torch.cov(scores.T).reshape(scores.shape[1], -1)
        # So many covariances of few samples are too large; they are drawn to zero.
        shrinkage = len(samples) / (len(samples) + samples.shape[1])
        diagonal = torch.eye(len(covariance)).bool()
        return cls(marginals, scores.mean(0), torch.where(diagonal, covariance, shrinkage * covariance))

    def given(self, known: Tensor, hidden: Tensor) -> HiddenGuess:
        """Return the distribution of the hidden elements, booleans `(size,)`, given the values of the others."""
        whole = torch.zeros(len(hidden), dtype=torch.float64)
        whole[~hidden] = known.double()
        seen, scale = ~hidden, self.covariance.diagonal().clamp_min(1e-300)
        off = (self.marginals.scores(whole[None])[0] - self.mean)[seen]
        across = self.covariance[hidden][:, seen]
        telling = (across.square() / scale[hidden][:, None] / scale[seen]).sum(0)
        best = telling.argsort(descending=True)[:MOST_SEEN]
        across, within = across[:, best], self.covariance[seen][:, seen][best][:, best]
        factor = torch.linalg.cholesky(_steady(within, scale[seen][best]))
        solved = torch.cholesky_solve(torch.cat([across.T, off[best][:, None]], 1), factor)
        left = WIDER * (self.covariance[hidden][:, hidden] - across @ solved[:, :-1])
        factor = torch.linalg.cholesky(_steady(left, scale[hidden]))
        elements = hidden.nonzero()[:, 0]
        return HiddenGuess(self.marginals, elements, self.mean[hidden] + across @ solved[:, -1], factor)


@dataclass(frozen=True, eq=False)
class HiddenGuess:
    """A distribution of hidden elements, made of normal noise.

    Attributes:
        marginals: of all elements.
        elements: numbers of the hidden ones.
        mean: of their scores.
        factor: of the covariance of their scores, lower triangular.
    """

    marginals: Histograms | Lines
    elements: Tensor
    mean: Tensor
    factor: Tensor

    def values(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return values `(rows, elements)` that noise stands for, and `log |d values / d noise|` up to a constant."""
        scores = self.mean + noise.double() @ self.factor.T
        values, slopes = self.marginals.values(scores, self.elements)
        return values, slopes.sum(1)


def _steady(covariance: Tensor, scale: Tensor) -> Tensor:
    """Return a covariance with as much added to its diagonal as its Cholesky factor needs."""
    least = 1e-6 * float(scale.mean()) if len(scale) else 0.0
    return 0.5 * (covariance + covariance.T) + torch.diag(1e-4 * scale + least)
