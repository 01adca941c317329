"""Probabilities of intervals under mixtures of normal distributions, without cancellation or underflow."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.special import log_ndtr

from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.tracing import in_forward_mode, is_tracing, is_watched, outside_autocast, traceable_gradients

# An interval of half width h around t is narrow where h |t| is below the first, and h below the second: its mass is
# then a series, and the difference of its tails would lose digits.
NARROW, SHORT = 0.25, 0.3


class _Pieces(NamedTuple):
    """Where each of two forms holds, and arguments for both that are harmless where it does not."""

    narrow: Tensor
    short: tuple[Tensor, Tensor]
    long: tuple[Tensor, Tensor]


def log_interval(t: Tensor, half: Tensor) -> Tensor:
    r"""Return the log-probability of a standard normal variable between `t - half` and `t + half`.

    Wide intervals are differences of the logarithms of tails. Narrow ones, whose differences would cancel, are
    `2 half phi(t)` times `1 + half^2 (t^2 - 1) / 6 + ...`, Hermite polynomials over odd factorials. Neither
    underflows, and both have finite gradients; in double precision a mass is off by less than 1e-9 of itself.
    """
    pieces = _pieces(t, half)
    return torch.where(pieces.narrow, _short(*pieces.short), _long(*pieces.long))


def mixture_log_mass(heads: Tensor, u: Tensor, half: Tensor) -> Tensor:
    r"""Return the log-probabilities of intervals under mixtures of normal distributions, with gradients of its own.

    Args:
        heads: log-odds, means and logarithms of deviations of the components, `(3, components, *batch)`.
        u: middles of the intervals, `(*batch)`.
        half: half of their widths, `(*batch)`.
    """
    if is_tracing() or in_forward_mode():
        return _plain_log_mass(heads, u, half)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (heads, u, half)):
        return _MixtureLogMass.apply(heads, u, half)
    return _plain_log_mass(heads, u, half)


def _plain_log_mass(heads: Tensor, u: Tensor, half: Tensor) -> Tensor:
    odds, means, log_scales = heads
    return weighed_log_mass(odds, means, log_scales, u, half) - odds.logsumexp(0)


def weighed_log_mass(log_weights: Tensor, means: Tensor, log_scales: Tensor, u: Tensor, half: Tensor) -> Tensor:
    """Return the logarithm of the sum of the masses of components times their weights, whatever these add up to."""
    inverse = (-log_scales).exp()
    return (log_weights + log_interval((u - means) * inverse, half * inverse)).logsumexp(0)


class _MixtureLogMass(torch.autograd.Function):
    """The log-probability, and its gradients from the responsibilities of the components."""

    @staticmethod
    def forward(ctx: Any, heads: Tensor, u: Tensor, half: Tensor) -> Tensor:
        odds, means, log_scales = heads
        inverse = (-log_scales).exp()
        t, h = (u - means).mul_(inverse), half * inverse
        pieces = _pieces(t, h)
        mass = torch.where(pieces.narrow, _short(*pieces.short), _long(*pieces.long))
        joint, total = odds + mass, odds.logsumexp(0)
        value = joint.logsumexp(0)
        ctx.save_for_backward(heads, u, half, inverse, t, mass, value, total)
        return value - total

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        heads, u, half, inverse, t, mass, value, total = ctx.saved_tensors
        if is_watched():
            return tuple(traceable_gradients(_plain_log_mass, (heads, u, half), ctx.needs_input_grad, grad))
        found = torch.empty_like(heads)
        share = (heads[0] + mass).sub_(value).exp_().mul_(grad)
        torch.addcmul(share, (heads[0] - total).exp_(), grad, value=-1, out=found[0])
        by_t, by_log_half = _slopes(t, half * inverse, mass)
        by_t, by_log_half = by_t.mul_(share), by_log_half.mul_(share)
        torch.mul(by_t, inverse, out=found[1]).neg_()
        torch.addcmul(by_log_half, by_t, t, out=found[2]).neg_()
        by_half = (by_log_half / (half * inverse).clamp_min(torch.finfo(t.dtype).tiny) * inverse).sum(0)
        return found, -found[1].sum(0), by_half if ctx.needs_input_grad[2] else None


def _pieces(t: Tensor, half: Tensor) -> _Pieces:
    # Not abs(): its derivative at zero is zero, and with it all that second derivatives see of what is even in t.
    half, t = torch.broadcast_tensors(half.clamp_min(torch.finfo(half.dtype).tiny), torch.where(t < 0, -t, t))
    narrow = (half * t < NARROW) & (half < SHORT)
    # Each form works where the other one is taken, too, so that no gradient there is NaN.
    short = torch.where(narrow, half, 0.1), torch.where(narrow, t, 1.0)
    return _Pieces(narrow, short, (torch.where(narrow, 1.0, half), torch.where(narrow, 1.0, t)))


def _short(h: Tensor, t: Tensor) -> Tensor:
    second, fourth, sixth, eighth = _series(h, t)
    return -0.5 * t.square() - LOG_SQRT_2PI + (2 * h).log() + torch.log1p(second + fourth + sixth + eighth)


def _long(h: Tensor, t: Tensor) -> Tensor:
    upper, lower = log_ndtr(h - t), log_ndtr(-h - t)
    # Far out both ends may round to the same number. The tails differ by 2 h t at least, a density being log-concave.
    gap = torch.minimum(lower - upper, -2 * h * t)
    return upper + torch.log1p(-gap.exp())


def _series(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the terms of the mass of a narrow interval beyond `2 h phi(t)`, relative to it, of order 2 to 8 in h."""
    # In h^2 and (h t)^2, which are small, where powers of t alone may overflow.
    x, y = h.square(), (h * t).square()
    sixth = ((y - 15 * x) * y + 45 * x.square()) * y - 15 * x * x * x
    eighth = (((y - 28 * x) * y + 210 * x.square()) * y - 420 * x * x * x) * y + 105 * x.square().square()
    return (y - x) / 6, ((y - 6 * x) * y + 3 * x.square()) / 120, sixth / 5040, eighth / 362880


def _slopes(t: Tensor, half: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of `log_interval` by `t` and by the logarithm of `half`."""
    pieces = _pieces(t, half)
    by_t, by_log_half = _short_slopes(*pieces.short)
    h, x = pieces.long
    near, far = (_relative_density(x + sign * h, mass) for sign in (-1, 1))
    by_t = torch.where(pieces.narrow, by_t, far - near) * t.sign()
    return by_t, torch.where(pieces.narrow, by_log_half, h * (near + far))


def _short_slopes(h: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    second, fourth, sixth, eighth = _series(h, t)
    whole = 1 + second + fourth + sixth + eighth
    by_log_half = 1 + (2 * second + 4 * fourth + 6 * sixth + 8 * eighth) / whole
    # The derivative of a Hermite polynomial is the one before it, times its degree.
    x, y = h.square(), (h * t).square()
    fifth, seventh = (y - 10 * x) * y + 15 * x.square(), ((y - 21 * x) * y + 105 * x.square()) * y - 105 * x * x * x
    inner = 1 / 3 + (y - 3 * x) / 30 + fifth / 840 + seventh / 45360
    return t * (x * inner / whole - 1), by_log_half


def _relative_density(end: Tensor, mass: Tensor) -> Tensor:
    """Return the density at an end of a long interval over its mass."""
    # It is about `end` in the tails, where in single precision the difference of two large logarithms has few digits.
    return torch.minimum(-0.5 * end.square() - LOG_SQRT_2PI - mass, (5 + 5 * end.abs()).log()).exp()
