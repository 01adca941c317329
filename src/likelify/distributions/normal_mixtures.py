r"""Mixtures of normal distributions of single numbers, one for each row of a batch and each column.

Components are the first axis of every tensor, so that what is done to each of a few runs along many rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr, ndtri

from likelify.distributions.intervals import weighed_log_mass
from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.errors import ConvergenceError
from likelify.tracing import in_forward_mode, is_tracing, is_watched, outside_autocast, traceable_gradients

# Logarithms of probabilities below which the normal quantile starts from its asymptotic form.
FAR = -100.0
# Steps of an inverse, and how far the noise of a quantile may be from the noise that was asked for.
MOST_STEPS = 200
CLOSE = 1e-12
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class NormalMixtures:
    """Mixtures of normal distributions of single numbers.

    Attributes:
        log_weights: normalized, `(components, *batch)`.
        means: `(components, *batch)`.
        log_scales: of the deviations, `(components, *batch)`.
    """

    log_weights: Tensor
    means: Tensor
    log_scales: Tensor

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log-densities at `z (*batch)`, in nats."""
        return _weighed_density(self.log_weights, self.means, self.log_scales, z)

    def log_mass(self, z: Tensor, width: Tensor) -> Tensor:
        """Return the log-probabilities of the intervals of that width around `z`, in nats."""
        return weighed_log_mass(self.log_weights, self.means, self.log_scales, z, 0.5 * width)

    def log_cdf(self, z: Tensor) -> Tensor:
        """Return the log-probabilities of what is below `z`."""
        return (self.log_weights + log_ndtr(self._scaled(z))).logsumexp(0)

    def log_sf(self, z: Tensor) -> Tensor:
        """Return the log-probabilities of what is above `z`."""
        return (self.log_weights + log_ndtr(-self._scaled(z))).logsumexp(0)

    def to_noise(self, z: Tensor) -> Tensor:
        """Return the normal quantiles of the probabilities of what is below `z`."""
        return normal_quantile(self.log_cdf(z), self.log_sf(z))

    def from_noise(self, noise: Tensor) -> Tensor:
        """Return the quantiles of the probabilities that a standard normal variable is below `noise`, in float64.

        Raises:
            ConvergenceError: if a density is so uneven that the quantile is not found.
        """
        found = self.double()._flat()._solved(noise.double().flatten())
        return found.reshape(noise.shape)

    def quantile(self, probability: Tensor) -> Tensor:
        """Return the numbers below which there are those probabilities, each inside (0, 1)."""
        return self.from_noise(ndtri(probability))

    def draw(self, temperature: float = 1.0) -> Tensor:
        """Draw one number from each mixture; the temperature multiplies the deviations of its components."""
        # The largest of log-odds with Gumbel noise follows them (Gumbel 1954).
        noise = -torch.empty_like(self.log_weights).exponential_().log()
        chosen = (self.log_weights + noise).argmax(0, keepdim=True)
        mean, log_scale = self.means.gather(0, chosen)[0], self.log_scales.gather(0, chosen)[0]
        return mean + temperature * log_scale.exp() * torch.randn_like(mean)

    def double(self) -> NormalMixtures:
        """Return the same mixtures in double precision."""
        return NormalMixtures(self.log_weights.double(), self.means.double(), self.log_scales.double())

    def _scaled(self, z: Tensor) -> Tensor:
        return (z - self.means) * (-self.log_scales).exp()

    def _flat(self) -> NormalMixtures:
        return NormalMixtures(*(t.flatten(1) for t in (self.log_weights, self.means, self.log_scales)))

    def _at(self, places: Tensor) -> NormalMixtures:
        return NormalMixtures(*(t[:, places] for t in (self.log_weights, self.means, self.log_scales)))

    def _solved(self, noise: Tensor) -> Tensor:
        """Return `from_noise` of a flat batch, by Newton's method inside of brackets that close in."""
        candidates = self.means + self.log_scales.exp() * noise
        # Below the least quantile of the components no more can be than below each of them.
        low, high = candidates.amin(0), candidates.amax(0)
        z = (self.log_weights.exp() * candidates).sum(0)
        places, open_ = torch.arange(len(noise), device=noise.device), self
        for count in range(MOST_STEPS):
            off = open_.to_noise(z[places]) - noise[places]
            low[places] = torch.where(off < 0, z[places], low[places])
            high[places] = torch.where(off > 0, z[places], high[places])
            # Where the distribution function jumps between two neighbouring numbers, there is nothing between.
            width = high[places] - low[places]
            done = (off.abs() <= CLOSE * (1 + noise[places].abs())) | (width <= 4 * EPS * (1 + z[places].abs()))
            if bool(done.all()):
                return z
            if bool(done.any()):
                places, off, open_ = places[~done], off[~done], self._at(places[~done])
            slope = (open_.log_prob(z[places]) + 0.5 * (noise[places] + off).square() + LOG_SQRT_2PI).exp()
            step = z[places] - off / slope
            # Every fourth step halves the bracket, whatever Newton's method would do.
            inside = (step > low[places]) & (step < high[places]) & (count % 4 < 3)
            z[places] = torch.where(inside, step, 0.5 * (low[places] + high[places]))
        raise ConvergenceError(
            f"{len(places)} of {len(noise)} quantiles of mixtures of normal distributions were not found in "
            f"{MOST_STEPS} steps; the noise that was asked for may not be finite."
        )


def normal_quantile(log_lower: Tensor, log_upper: Tensor) -> Tensor:
    """Return the standard normal quantile of a probability whose logarithm and that of its rest are given."""
    below = log_lower <= log_upper
    tail = _lower_quantile(torch.where(below, log_lower, log_upper))
    return torch.where(below, tail, -tail)


def _lower_quantile(log_p: Tensor) -> Tensor:
    """Return the normal quantile of probabilities up to one half, however small."""
    start = ndtri(log_p.clamp_min(FAR).exp())
    if not bool((log_p < FAR).any()):
        return start
    square = -2 * log_p.clamp(max=FAR)
    far = -(square - math.log(2 * math.pi) - square.log()).sqrt()
    for _ in range(4):
        # Newton's method for the logarithm, which is concave.
        found = log_ndtr(far)
        far = far - (found - log_p.clamp(max=FAR)) * (found + 0.5 * far.square() + LOG_SQRT_2PI).exp()
    return torch.where(log_p < FAR, far, start)


def mixture_log_density(heads: Tensor, u: Tensor) -> Tensor:
    r"""Return the log-densities of mixtures of normal distributions, with a backward pass of its own.

    Args:
        heads: log-odds, means and logarithms of deviations of the components, `(3, components, *batch)`.
        u: where, `(*batch)`.
    """
    if is_tracing() or in_forward_mode():
        return _plain_log_density(heads, u)
    if torch.is_grad_enabled() and (heads.requires_grad or u.requires_grad):
        return _MixtureLogDensity.apply(heads, u)
    return _log_density(heads, u)[0]


def _plain_log_density(heads: Tensor, u: Tensor) -> Tensor:
    odds, means, log_scales = heads
    return _weighed_density(odds, means, log_scales, u) - odds.logsumexp(0)


def _weighed_density(log_weights: Tensor, means: Tensor, log_scales: Tensor, u: Tensor) -> Tensor:
    """Return the logarithm of the sum of the densities of components times their weights, whatever these add up to."""
    scaled = (u - means) * (-log_scales).exp()
    return (log_weights - log_scales - 0.5 * scaled.square()).logsumexp(0) - LOG_SQRT_2PI


def _log_density(heads: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the log-densities, and what their gradients are made of."""
    odds, means, log_scales = heads
    inverse = log_scales.neg().exp_()
    scaled = torch.sub(u, means).mul_(inverse)
    # In place from here on: each fresh tensor of all components costs as much as the arithmetic on it.
    joint = torch.sub(odds, log_scales).addcmul_(scaled, scaled, value=-0.5)
    # Too far from all of them for any digit, the log-density is minus infinity, not undefined.
    top = joint.amax(0).clamp_min_(torch.finfo(joint.dtype).min)
    joint = joint.sub_(top).exp_()
    total = joint.sum(0)
    weights = torch.sub(odds, odds_top := odds.amax(0)).exp_()
    weight_total = weights.sum(0)
    value = top.add_(total.log()).sub_(odds_top).sub_(weight_total.log()).sub_(LOG_SQRT_2PI)
    responsible = joint.div_(total.clamp_min_(torch.finfo(joint.dtype).tiny))
    return value, scaled, inverse, responsible, weights.div_(weight_total)


class _MixtureLogDensity(torch.autograd.Function):
    """The log-density and its gradients from the responsibilities of the components."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, u: Tensor) -> Tensor:
        value, *parts = _log_density(heads, u)
        ctx.save_for_backward(heads, u, *parts)
        return value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        heads, u, scaled, inverse, responsible, weights = ctx.saved_tensors
        if is_watched():
            return tuple(traceable_gradients(_plain_log_density, (heads, u), ctx.needs_input_grad, grad))
        found = torch.empty_like(heads)
        share = grad * responsible
        torch.addcmul(share, grad, weights, value=-1, out=found[0])
        pull = share * scaled
        torch.mul(pull, inverse, out=found[1])
        torch.mul(pull, scaled, out=found[2])
        found[2].sub_(share)
        return found, found[1].sum(0).neg_()
