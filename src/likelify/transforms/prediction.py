"""The first layer of models of sequences: from values in their units to what the values before them leave open."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from likelify.errors import DataError, ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import ContextLike, sum_constant
from likelify.transforms.columns import SMALLEST, InDouble, moments
from likelify.transforms.core import Transform
from likelify.transforms.rules import FINITE, POSITIVE

# Shares of what is the same at all times, and of independent noise, that are tried.
STATIONARY, NOISE = (1.0, 0.8, 0.4, 0.0), (1e-9, 1e-4, 1e-2, 0.1)
# With all noise the covariance is the identity; smaller samples get that.
NOTHING = (1.0, 1.0)
FEWEST = 8


def is_factor(lower: Tensor) -> Tensor:
    """Tell whether a matrix is lower triangular with a positive diagonal."""
    return lower.isfinite().all() & (lower.triu(1) == 0).all() & (lower.diagonal() > 0).all()


class LinearPrediction(InDouble, Transform):
    r"""Standardise the channels of sequences, and predict each value linearly from those before it.

    `z = L^-1 ((x - mean) / scale)` with the lower triangular Cholesky factor `L` of a covariance whose rows run over
    the times, and within a time over the channels: each `z` is what the values before it leave open, in units of its
    standard deviation (linear prediction; the *innovations* of a process). `log |det dz/dx| = -sum ln scale -
    sum ln diag(L)`, so the likelihood is a density in the units of the data. A flow that starts with this layer and
    the identity behind it is the normal distribution with that covariance.

    `initialize` fits all of it, and nothing is trained. The covariance is `(1 - r) (s T + (1 - s) S) + r I`: `S` is the
    sample's, and `T` is the same at all times, as for a stationary process; the means go from those of each time to one
    for each channel likewise. The shares `s` and `r` are those under which one half of the sample has the
    highest likelihood given the other half, so a small sample of long sequences is no obstacle. With `predict=False`,
    `L` is the identity.

    Everything is computed in float64, whatever the dtype of the flow, as in `Columns`; `inverse` returns float64.

    Args:
        event_shape: `(channels, length)`.
        predict: fit `L`, a matrix with the square of `channels * length` entries.

    Source:
        Levinson 1947 and Makhoul 1975 (linear prediction); shrinkage of covariances to structured ones: Ledoit and
        Wolf 2004. Here the shares are chosen by held-out likelihood.

    Example:
        >>> layer = LinearPrediction((1, 6))
        >>> walk = torch.randn(500, 1, 6, dtype=torch.float64).cumsum(2)
        >>> z = layer.initialize(100 + walk)
        >>> z.dtype, bool((z.std(0) - 1).abs().max() < 0.15)
        (torch.float32, True)
    """

    fills_space = True
    inverse_check = None
    takes_float64 = True
    in_double = ("mean", "scale", "factor")

    buffer_rules = {
        "mean": FINITE,
        "scale": POSITIVE,
        "factor": ("lower triangular, finite, and positive on the diagonal", is_factor),
    }
    mean: Tensor
    scale: Tensor
    factor: Tensor

    def __init__(self, event_shape: Shape, *, predict: bool = True) -> None:
        super().__init__()
        self.takes = self.event_shape = as_shape(event_shape, least=1)
        if len(self.event_shape) != 2:
            raise ShapeError(f"LinearPrediction needs events (channels, length), got {self.event_shape}.")
        self.predict = predict
        channels, length = self.event_shape
        self.register_buffer("mean", torch.zeros(channels, length, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(channels, 1, dtype=torch.float64))
        size = channels * length if predict else 0
        self.register_buffer("factor", torch.eye(size, dtype=torch.float64))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit means, scales and the covariance to the sample.

        Raises:
            DataError: if the sample is empty, or a value is not finite or too large.
        """
        if len(x) == 0:
            raise DataError("LinearPrediction.initialize got an empty sample.")
        with torch.no_grad():
            values = x.to(self.mean)
            mean, scale = moments(values.transpose(0, 1).flatten(1).T)
            if not bool(torch.isfinite(mean + scale).all()) or bool(((scale > 0) & (scale < SMALLEST)).any()):
                raise DataError(
                    "The sample of sequences has values that are not finite, too large, or too close for float64 to "
                    "compute with."
                )
            scale = torch.where(scale > 0, scale, 1.0)[:, None]
            self.scale.copy_(scale)
            self.mean.copy_(mean[:, None].expand_as(self.mean))
            if self.predict:
                rows = self._rows((values - mean[:, None]) / scale)
                centre, factor = fitted_factor(rows, self.event_shape[0])
                self.factor.copy_(factor)
                self.mean.add_(scale * self._events(centre[None])[0])
        return super().initialize(x, context)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the innovations in the dtype of the flow."""
        z = (x.to(self.mean) - self.mean) / self.scale
        if self.predict:
            z = self._events(torch.linalg.solve_triangular(self.factor, self._rows(z).T, upper=False).T)
        z = z.to(self.like)
        return z, sum_constant(-self._log_volume().to(z), z, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return sequences in the units of the data, in float64."""
        x = z.to(self.mean)
        if self.predict:
            x = self._events(self._rows(x) @ self.factor.T)
        x = self.mean + self.scale * x
        return x, sum_constant(self._log_volume(), x, context)

    def _log_volume(self) -> Tensor:
        return self.event_shape[1] * self.scale.log().sum() + self.factor.diagonal().log().sum()

    def _rows(self, x: Tensor) -> Tensor:
        """Read sequences as vectors in which all channels of a time stand together."""
        return x.transpose(1, 2).flatten(1)

    def _events(self, rows: Tensor) -> Tensor:
        channels, length = self.event_shape
        return rows.unflatten(1, (length, channels)).transpose(1, 2)

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"{self.event_shape}{'' if self.predict else ', predict=False'}"


def fitted_factor(rows: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return the mean `(size,)` of standardised vectors and the Cholesky factor of their covariance, both shrunk.

    Args:
        rows: `(items, size)`, all channels of a time together.
        channels: of them.
    """
    shares = NOTHING
    if len(rows) >= FEWEST:
        halves = rows[::2], rows[1::2]
        known = [_Moments.of(half, channels) for half in halves]
        pairs = ((known[0], halves[1]), (known[1], halves[0]))
        scores = {
            each: sum(moment.score(other, *each) for moment, other in pairs)
            for each in [*itertools.product(STATIONARY, NOISE), NOTHING]
        }
        shares = max(scores, key=scores.__getitem__)
    mean, covariance = _Moments.of(rows, channels).shrunk(*shares)
    # With the larger sample it is no worse conditioned than with the halves.
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return (mean, factor) if not bool(failed) else (torch.zeros_like(mean), torch.eye(len(mean)).to(mean))


class _Moments:
    """Moments of a sample, and what a normal distribution with shrunk ones says of another."""

    def __init__(self, mean: Tensor, second: Tensor, stationary: Tensor) -> None:
        self.mean, self.second, self.stationary = mean, second, stationary

    @classmethod
    def of(cls, rows: Tensor, channels: int) -> _Moments:
        second = rows.T @ rows / len(rows)
        return cls(rows.mean(0), second, _same_at_all_times(second, channels))

    def shrunk(self, stationary: float, noise: float) -> tuple[Tensor, Tensor]:
        """Return mean and covariance with these shares; what never varies keeps its units."""
        mean = (1 - stationary) * self.mean
        # About that mean, not about the sample's.
        here = self.second - (1 - stationary**2) * torch.outer(self.mean, self.mean)
        mixed = stationary * self.stationary + (1 - stationary) * here
        mixed = mixed + (mixed.diagonal() == 0).to(mixed).diag()
        return mean, (1 - noise) * mixed + noise * torch.eye(len(mixed)).to(mixed)

    def score(self, rows: Tensor, stationary: float, noise: float) -> float:
        """Return the log-likelihood of rows but for a constant; minus infinity without a positive covariance."""
        mean, covariance = self.shrunk(stationary, noise)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            return -math.inf
        z = torch.linalg.solve_triangular(factor, (rows - mean).T, upper=False)
        return float(-0.5 * z.square().sum() - len(rows) * factor.diagonal().log().sum())


def _same_at_all_times(second: Tensor, channels: int) -> Tensor:
    """Average a matrix of second moments over all pairs of times with the same lag."""
    length = len(second) // channels
    blocks = second.reshape(length, channels, length, channels)
    found = torch.empty_like(blocks)
    for lag in range(length):
        mean = blocks.diagonal(lag, 0, 2).mean(-1)
        found.diagonal(lag, 0, 2).copy_(mean[..., None])
        found.diagonal(-lag, 0, 2).copy_(mean.T[..., None])
    return found.reshape_as(second)
