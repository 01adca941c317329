r"""The normal distribution cut off at zero: density and draws that keep their digits far in the tails.

With `r = loc / scale`, the density of `x > 0` is `N(x; loc, scale^2) / Phi(r)`.
"""

import math

import torch
from torch import Tensor

from likelify.distributions.normal import LOG_SQRT_2PI

# Newton steps of `sample_positive_normal`: two fewer already give float64's digits.
STEPS = 8
# From here on down the tail is its asymptotic series, whose next term is below 1e-14.
FAR = -50.0


def log_scaled_tail(r: Tensor) -> Tensor:
    """Return `r^2 / 2 + log Phi(r)`; far below zero, where the terms cancel, it is `-log(-r) - log(2 pi) / 2`."""
    scaled = torch.special.erfcx(-r.clamp(FAR, 0) / math.sqrt(2))
    near = torch.where(r > 0, 0.5 * r * r + torch.special.log_ndtr(r.clamp_min(0)), (0.5 * scaled).log())
    # The derivative of erfcx cancels far out, and its series does not.
    away = r.clamp_max(FAR)
    x = away.reciprocal().square()
    series = torch.log1p(x * (x * (3 - x * (15 - 105 * x)) - 1)) - (-away).log() - LOG_SQRT_2PI
    return torch.where(r < FAR, series, near)


def positive_normal_log_prob(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return the log-density of each positive value."""
    y, r = x * (-log_scale).exp(), loc * (-log_scale).exp()
    near = -0.5 * (y - r) ** 2 - torch.special.log_ndtr(r.clamp_min(0))
    # The same with the square written out, which does not cancel below zero.
    far = y * (r - 0.5 * y) - log_scaled_tail(r.clamp_max(0))
    return torch.where(r > 0, near, far) - log_scale - LOG_SQRT_2PI


def sample_positive_normal(loc: Tensor, log_scale: Tensor) -> Tensor:
    """Draw a value for each location by inverting the distribution function; may round to zero."""
    r = loc * (-log_scale).exp()
    # -log of a uniform draw.
    surprise = torch.empty_like(r).exponential_()
    log_p = torch.special.log_ndtr(r.clamp_min(0)) - surprise
    # The smaller of the two probabilities keeps its digits.
    left, right = torch.special.ndtri(log_p.exp()), -torch.special.ndtri(-torch.expm1(log_p))
    near = r - torch.where(log_p < -math.log(2), left, right)
    return log_scale.exp() * torch.where(r > 0, near, _far_tail(r.clamp_max(0), surprise)).clamp_min(0)


def _far_tail(r: Tensor, surprise: Tensor) -> Tensor:
    """Solve `log Phi(r - d) = log Phi(r) - surprise` for `d`, with `r <= 0`, by Newton's method.

    `log Phi` is concave and the start lies beyond the root, so every step approaches it from there.
    """
    d = 2 * surprise / ((r * r + 2 * surprise).sqrt() - r)
    at_r = log_scaled_tail(r)
    for _ in range(STEPS):
        y = r - d
        excess = -0.5 * d * (d - 2 * r) + log_scaled_tail(y) - at_r + surprise
        d = d + excess * torch.special.erfcx(-y / math.sqrt(2)) * math.sqrt(math.pi / 2)
    return d
