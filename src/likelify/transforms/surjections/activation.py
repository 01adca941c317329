r"""Activations with a likelihood: bijections, and maps that forget something.

`LeakyReLU` and `PReLU` are bijections of the line. `ELU` is injective, but its image is only a part of the line: what
the base puts elsewhere is missing from the mass, and cannot be inverted. `Abs` and `ReLU` forget the sign and the
negative values; a density of what is forgotten, given the latent, makes their likelihood exact. `NoisyReLU` adds noise
instead and gives a bound.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.distributions.normal import limit_log_scale, normal_log_prob
from likelify.errors import ConfigError, DomainError
from likelify.nets.density import read_net
from likelify.shapes import along, check_size
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import NOT_NEGATIVE, Interval, check_domain, strictly_inside, within
from likelify.transforms.core import Transform
from likelify.transforms.inversion import EXACT
from likelify.transforms.surjections.truncated_normal import (
    log_scaled_tail,
    positive_normal_log_prob,
    sample_positive_normal,
)

LOG_2 = math.log(2)
# torch.nn.SELU's constants (Klambauer et al. 2017, equation 14).
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


class LeakyReLU(Transform):
    r"""The bijection `z = x` for `x >= 0`, `z = slope x` below; log-determinant `log slope` for each negative element.

    The image is the whole line.

    Args:
        slope: positive; with slope zero the map is `ReLU`, which is no bijection.

    Example:
        >>> LeakyReLU(0.5)(torch.tensor([[-2.0, 2.0]]))
        (tensor([[-1.,  2.]]), tensor([-0.6931]))
    """

    fills_space = True
    inverse_check = None

    def __init__(self, slope: float = 0.01) -> None:
        super().__init__()
        if not 0 < slope < math.inf:
            raise ConfigError(f"LeakyReLU needs a positive slope, got {slope}; for slope zero use ReLU or NoisyReLU.")
        self.slope = slope

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale the negative values."""
        return torch.where(x < 0, self.slope * x, x), self._log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale them back."""
        return torch.where(z < 0, z / self.slope, z), -self._log_det(z, context)

    def _log_det(self, x: Tensor, context: ContextLike) -> Tensor:
        return math.log(self.slope) * sum_items((x < 0).to(x.dtype), context)


class PReLU(Transform):
    r"""`LeakyReLU` with a trained slope, `exp(log_slope)`, for all elements or for each channel (He et al. 2015).

    The image is the whole line.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`, or one for a slope that all channels share.
        init: the first slope, positive.
    """

    fills_space = True
    inverse_check = None

    def __init__(self, channels: int = 1, *, init: float = 0.25) -> None:
        super().__init__()
        if not 0 < init < math.inf:
            raise ConfigError(f"PReLU needs a positive first slope, got {init}.")
        channels = check_size(channels, "The channels of PReLU")
        self.takes = (channels, ...) if channels > 1 else None
        self.log_slope = nn.Parameter(torch.full((channels,), math.log(init)))

    @classmethod
    def from_module(cls, module: nn.PReLU) -> PReLU:
        """Return the layer with the slopes of a `torch.nn.PReLU`.

        Raises:
            DomainError: if a slope is not positive: such a map is no bijection.
        """
        weight = module.weight.detach()
        if not bool((weight > 0).all()):
            raise DomainError(
                f"PReLU: {int((weight <= 0).sum())} of {weight.numel()} slopes are not positive, so the map is no "
                "bijection. Train with positive slopes, or use NoisyReLU where a slope is zero."
            )
        layer = cls(weight.numel()).to(weight)
        layer.log_slope.data.copy_(weight.log())
        return layer

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale the negative values."""
        log_slope = along(self.log_slope, x.ndim)
        return torch.where(x < 0, log_slope.exp() * x, x), sum_items(torch.where(x < 0, log_slope, 0.0), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale them back."""
        log_slope = along(self.log_slope, z.ndim)
        return torch.where(z < 0, (-log_slope).exp() * z, z), -sum_items(torch.where(z < 0, log_slope, 0.0), context)


class ELU(Transform):
    r"""The injection `z = scale x` for `x >= 0`, `z = scale alpha (exp(rate x) - 1)` below.

    `log dz/dx = log scale`, and below zero `+ log(alpha rate) + rate x`. The image is `(-scale alpha, inf)`: what the
    base puts below is missing from the mass (with a standard normal base and alpha one, the share `Phi(-1) = 0.16`),
    and the inverse refuses it. Values far below zero, in float32 those with `rate x < -17`, become the number next to
    the end.

    Args:
        alpha: positive.
        scale: positive.
        rate: positive. `celu(alpha)` has `rate = 1 / alpha`, `selu()` has Klambauer's constants.
    """

    inverse_check = EXACT

    def __init__(self, alpha: float = 1.0, *, scale: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        if not min(alpha, scale, rate) > 0 or not max(alpha, scale, rate) < math.inf:
            raise ConfigError(f"ELU needs a positive alpha, scale and rate, got {alpha}, {scale}, {rate}.")
        self.alpha = alpha
        self.scale = scale
        self.rate = rate
        self.low = -scale * alpha
        self.image = Interval(self.low, math.inf)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Bend the negative values."""
        below = x.clamp_max(0)
        z = self.scale * torch.where(x > 0, x, self.alpha * torch.expm1(self.rate * below))
        return strictly_inside(z, Interval(self.low, math.inf)), sum_items(self._log_slope(x, below), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Straighten them."""
        z, inside = within(z, z > self.low, self, str(self.image), 0.0)
        # Just inside of the end, where the quotient may be rounded to it.
        share = (z.clamp_max(0) / self.low).clamp_max(1 - torch.finfo(z.dtype).eps / 2)
        x = torch.where(z > 0, z / self.scale, torch.log1p(-share) / self.rate)
        return x, sum_items(torch.where(inside, -self._log_slope(x, x.clamp_max(0)), -math.inf), context)

    def _log_slope(self, x: Tensor, below: Tensor) -> Tensor:
        bend = torch.where(x > 0, 0.0, math.log(self.alpha * self.rate) + self.rate * below)
        return bend + math.log(self.scale)


def celu(alpha: float = 1.0) -> ELU:
    """Return `torch.nn.CELU(alpha)` as a layer: smooth at zero; its image is `(-alpha, inf)`."""
    return ELU(alpha, rate=1 / alpha)


def selu() -> ELU:
    """Return `torch.nn.SELU()` as a layer; its image is `(-1.7581, inf)`."""
    return ELU(SELU_ALPHA, scale=SELU_SCALE)


class Abs(Transform):
    r"""The absolute value, with a probability for the sign: `z = |x|`, contribution `sum log p(sign x | z)`.

    Exact: `p(x) = p(z) p(sign | z)`. `x` is positive with probability `sigmoid(log_odds + net(z))`; `inverse` draws the
    sign (Nielsen et al. 2020, section 3.2). The image is `[0, inf)`; the inverse refuses other values.

    Args:
        net: gives log-odds at every element of `z`: called as `net(condition)` with `z`, joined by the outer condition
            along the channel axis; without it, one trained value serves all.
    """

    random_inverse = True
    joins_condition = True
    image = NOT_NEGATIVE

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.log_odds = nn.Parameter(torch.zeros(()))
        self.net = net

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Drop the sign; the contribution is its log-probability."""
        z = x.abs()
        return z, sum_items(self._log_prob(x, self._log_odds(z, context)), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the sign; the context's temperature divides the log-odds."""
        z, inside = within(z, z >= 0, self, str(self.image), 1.0)
        log_odds = self._log_odds(z, context)
        x = torch.where(_draw_odds(log_odds.expand_as(z), as_context(context).temperature), z, -z)
        return x, -sum_items(torch.where(inside, self._log_prob(x, log_odds), math.inf), context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return each element with its likelier sign."""
        check_domain(z >= 0, self, str(self.image))
        return torch.where(self._log_odds(z, context) >= 0, z, -z)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the trained log-odds to the share of positive values in the sample."""
        _set_log_odds(self.log_odds, x >= 0)
        return super().initialize(x, context)

    def _log_odds(self, z: Tensor, context: ContextLike) -> Tensor:
        if self.net is None:
            return self.log_odds
        return self.log_odds + read_net(self.net, z, context, z.shape[1])

    def _log_prob(self, x: Tensor, log_odds: Tensor) -> Tensor:
        return F.logsigmoid(torch.where(x < 0, -log_odds, log_odds))


class ReLU(Transform):
    r"""`z = max(x, 0)`, with a density for the values that become zero.

    Contribution: `sum of log p(x | z = 0)` over `x <= 0`, a half-normal density `2 N(x; 0, s^2)` on `(-inf, 0]`;
    `inverse` draws these values. `z` is zero with positive probability, so the likelihood is exact only if what
    follows gives zeros a *probability* and other values a density, as the base `RectifiedNormal` does. Any layer that
    mixes or scales elements in between destroys that; there use `NoisyReLU`. The image is `[0, inf)`; the inverse
    refuses other values.

    Args:
        net: gives a log scale at every element of `z` (kept within +-3 by `3 tanh(. / 3)`), which is added to the
            trained one: called as `net(condition)` with `z`, joined by the outer condition along the channel axis.
    """

    random_inverse = True
    has_atoms = True
    joins_condition = True
    image = NOT_NEGATIVE

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.net = net

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Drop the negative values; the contribution is their log-density."""
        z = torch.relu(x)
        return z, sum_items(self._log_prob(x, self._log_scale(z, context)), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw a negative value for each zero; the context's temperature multiplies its scale."""
        z, inside = within(z, z >= 0, self, str(self.image), 1.0)
        log_scale = self._log_scale(z, context)
        drawn = -as_context(context).temperature * log_scale.exp() * torch.randn_like(z).abs()
        x = torch.where(z > 0, z, drawn)
        return x, -sum_items(torch.where(inside, self._log_prob(x, log_scale), math.inf), context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Keep the zeros, where the half-normal density is largest."""
        check_domain(z >= 0, self, str(self.image))
        return z

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the trained scale to that of the negative values in the sample."""
        _set_log_scale(self.log_scale, x, x <= 0)
        return super().initialize(x, context)

    def _log_scale(self, z: Tensor, context: ContextLike) -> Tensor:
        if self.net is None:
            return self.log_scale
        return self.log_scale + limit_log_scale(read_net(self.net, z, context, z.shape[1]))

    def _log_prob(self, x: Tensor, log_scale: Tensor) -> Tensor:
        return torch.where(x > 0, 0.0, _half_normal_log_prob(x, log_scale))


class NoisyReLU(Transform):
    r"""`z = max(x, 0) + A e` with normal noise `e` and trained `A`: a ReLU that a flow can continue from.

    Contribution: `sum log p(x | z) - log N(z; max(x, 0), A^2)`, a bound. `p(x | z)` is the exact posterior under the
    prior that `x` is positive with odds `o` and then half-normal of scale `s`, otherwise half-normal below zero of
    scale `b`. With `v = s^2 + A^2`, `m = z s^2 / v`, `t^2 = s^2 A^2 / v` and `r = m / t` that is

        x > 0 with odds  2 o (A / sqrt v) exp(r^2 / 2) Phi(r),  then  N(m, t^2) cut off at zero
        x < 0 otherwise, half-normal of scale b

    so the bound is tight when `x` follows the prior and `z` what the prior makes of it. A network corrects four
    values (log-odds, mean in units of `t`, log `t`, log `b`) at every place. The image is the whole line.

    Args:
        noise_scale: the first value of `A`, positive. Small noise keeps close to ReLU and costs likelihood.
        net: called as `net(condition)` with `z`, joined by the outer condition along the channel axis; gives
            `(rows, 4 channels, *positions)`: the corrections of the log-odds of all channels, then of the means, then
            of the two log scales (kept within +-3 by `3 tanh(. / 3)`).
    """

    random_forward = True
    random_inverse = True
    joins_condition = True

    def __init__(self, *, noise_scale: float = 0.1, net: nn.Module | None = None) -> None:
        super().__init__()
        if not 0 < noise_scale < math.inf:
            raise ConfigError(f"NoisyReLU needs a positive noise_scale, got {noise_scale}.")
        self.log_noise = nn.Parameter(torch.tensor(math.log(noise_scale)))
        self.log_odds = nn.Parameter(torch.zeros(()))
        self.log_above = nn.Parameter(torch.zeros(()))
        self.log_below = nn.Parameter(torch.zeros(()))
        self.net = net

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Cut off the negative values and add noise."""
        z = torch.relu(x) + self.log_noise.exp() * torch.randn_like(x)
        return z, self._contribution(x, z, self._posterior(z, context), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the data; the draws have no gradients. The temperature acts on the odds and on both scales."""
        posterior = self._posterior(z, context)
        with torch.no_grad():
            log_odds, loc, log_scale, log_below = (v.expand_as(z) for v in posterior)
            temperature = as_context(context).temperature
            mode = loc.clamp_min(0)
            above = mode + temperature * (sample_positive_normal(loc, log_scale) - mode)
            # Zero belongs to the other side; a temperature above one may lead across it.
            above = above.abs().clamp_min(torch.finfo(z.dtype).tiny)
            below = -temperature * log_below.exp() * torch.randn_like(z).abs()
            x = torch.where(_draw_odds(log_odds, temperature), above, below)
        return x, -self._contribution(x, z, posterior, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `max(x, 0)`."""
        return torch.relu(x)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return `max(z, 0)`, which ReLU keeps."""
        return torch.relu(z)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the prior's odds and scales from the sample."""
        _set_log_odds(self.log_odds, x > 0)
        _set_log_scale(self.log_above, x, x > 0)
        _set_log_scale(self.log_below, x, x <= 0)
        return super().initialize(x, context)

    def _posterior(self, z: Tensor, context: ContextLike) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the log-odds of `x > 0`, the mean and log scale there, and the log scale below zero."""
        log_total = 0.5 * torch.logaddexp(2 * self.log_noise, 2 * self.log_above)
        log_scale = self.log_noise + self.log_above - log_total
        loc = z * (2 * (self.log_above - log_total)).exp()
        log_odds = self.log_odds + LOG_2 + self.log_noise - log_total + log_scaled_tail(loc * (-log_scale).exp())
        if self.net is None:
            return log_odds, loc, log_scale, self.log_below
        odds, shift, scale, below = read_net(self.net, z, context, 4 * z.shape[1]).chunk(4, 1)
        loc = loc + log_scale.exp() * shift
        return log_odds + odds, loc, log_scale + limit_log_scale(scale), self.log_below + limit_log_scale(below)

    def _contribution(
        self, x: Tensor, z: Tensor, posterior: tuple[Tensor, Tensor, Tensor, Tensor], context: ContextLike
    ) -> Tensor:
        log_odds, loc, log_scale, log_below = posterior
        above = F.logsigmoid(log_odds) + positive_normal_log_prob(x.clamp_min(0), loc, log_scale)
        below = F.logsigmoid(-log_odds) + _half_normal_log_prob(x.clamp_max(0), log_below)
        noise = normal_log_prob(z, torch.relu(x), self.log_noise)
        return sum_items(torch.where(x > 0, above, below) - noise, context)


def _half_normal_log_prob(x: Tensor, log_scale: Tensor) -> Tensor:
    return LOG_2 + normal_log_prob(x, torch.zeros_like(log_scale), log_scale)


def _draw_odds(log_odds: Tensor, temperature: float) -> Tensor:
    """Draw true with these log-odds, divided by the temperature."""
    # The difference of two Gumbel draws is logistic.
    one, other = torch.empty(2, *log_odds.shape, dtype=log_odds.dtype, device=log_odds.device).exponential_().log()
    return log_odds + temperature * (one - other) >= 0


def _set_log_odds(log_odds: Tensor, true: Tensor) -> None:
    with torch.no_grad():
        # Half an observation of each kind keeps the odds finite.
        log_odds.copy_(torch.log((true.sum() + 0.5) / ((~true).sum() + 0.5)))


def _set_log_scale(log_scale: Tensor, x: Tensor, where: Tensor) -> None:
    """Set a log scale to the root mean square of some values; keep it if they are none or all zero."""
    with torch.no_grad():
        square = torch.where(where, x, 0.0).square().sum() / where.sum().clamp_min(1)
        log_scale.copy_(torch.where(square > 0, 0.5 * square.log(), log_scale))
