r"""Mixtures over grey levels: discretised logistics, spikes at both ends, and a uniform floor.

On the scale on which `L` levels fill (-1, 1), level `j` is the interval between its knots `e_j = 2 j / L - 1` and
`e_{j+1}`, the first one open below and the last one open above. A mixture with weights `w`, locations `mu` and scales
`s` has the distribution function at the knots

    F(j) = eps j / L + (1 - eps) (w_low [j >= 1] + w_high [j >= L] + sum_k w_k sigmoid((e_j - mu_k) / s_k)),

with `F(0) = 0` and `F(L) = 1`, and is linear between them: level `j` has the probability `F(j + 1) - F(j)`, the density
of every value in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.bounds import widest
from likelify.shapes import check_size
from likelify.tracing import in_forward_mode, is_tracing, is_watched, outside_autocast, traceable_gradients

# Scales are between a tenth of a level and ten times the whole range.
NARROWEST, WIDEST = math.log(0.1), 3.0
# The widest logistic where all parameters are zero, and how far log scales are on either side of what data ask for.
BROAD, SPREAD = 0.15, math.log(4)
# The smallest share of the uniform floor. Levels of no other mass must still be told apart by normal noise in float32.
FLOOR, FLOOR_OF_A_LEVEL = 1e-5, 4e-8


@dataclass(frozen=True)
class Levels:
    """How many levels there are, and how many logistics a mixture over them has.

    Attributes:
        count: number of levels.
        components: number of logistics.
    """

    count: int
    components: int

    @property
    def size(self) -> int:
        """Return the number of parameters of a mixture: log-odds, then offsets and log scales of the logistics."""
        return 3 * self.components + 2

    @property
    def floor(self) -> float:
        """Return the share of the uniform floor."""
        return max(FLOOR, self.count * FLOOR_OF_A_LEVEL)

    @property
    def scale_limits(self) -> tuple[float, float]:
        """Return the smallest and the largest log scale."""
        return math.log(2 / self.count) + NARROWEST, WIDEST

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take `(size, *batch)` apart: log-odds with those of the two spikes last, offsets, log scales."""
        k = self.components
        if raw.shape[0] != self.size:
            raise ShapeError(f"A mixture of {k} logistics has {self.size} parameters, got {raw.shape[0]}.")
        return raw[: k + 2], raw[k + 2 : 2 * k + 2], self._log_scales(raw[2 * k + 2 :])

    def _log_scales(self, raw: Tensor) -> Tensor:
        return (raw + self._spread(raw).view(-1, *(1,) * (raw.ndim - 1))).clamp(*self.scale_limits)

    def _spread(self, like: Tensor) -> Tensor:
        """Return the log scales of the logistics where the parameters are zero: from one level to a part of all."""
        first, last = math.log(2 / self.count), math.log(max(BROAD, 2 / self.count))
        return torch.linspace(first, last, self.components, dtype=like.dtype, device=like.device)

    def around(self, scale: Tensor) -> Tensor:
        """Return parameters of the log scales, `(components, *batch)`, of logistics narrower and wider than a scale."""
        ratios = torch.linspace(-SPREAD, SPREAD, self.components) if self.components > 1 else torch.zeros(1)
        wanted = scale.log() + ratios.to(scale).view(-1, *(1,) * scale.ndim)
        return wanted.clamp(*self.scale_limits) - self._spread(scale).view(-1, *(1,) * scale.ndim)

    def middle(self, level: Tensor) -> Tensor:
        """Return the middle of levels on the scale from -1 to 1."""
        return (2 * level + 1) / self.count - 1

    def knots(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two knots of levels, the outer ones of the two end levels at infinity."""
        lower = torch.where(level <= 0, -torch.inf, 2 * level / self.count - 1)
        upper = torch.where(level >= self.count - 1, torch.inf, 2 * (level + 1) / self.count - 1)
        return lower, upper


def as_levels(count: int, components: int, name: str) -> Levels:
    """Return checked sizes of mixtures over levels.

    Raises:
        ConfigError: unless there are 2 to 65,536 levels and at least one logistic.
    """
    count = check_size(count, f"The levels of {name}", least=2)
    check_size(2**16 - count, f"65536 less the levels of {name}", least=0)
    return Levels(count, check_size(components, f"The components of {name}"))


def log_mass(levels: Levels, raw: Tensor, centre: Tensor, level: Tensor) -> Tensor:
    """Return the log-probability of levels under their mixtures, `(*batch)`, with gradients of its own.

    Args:
        levels: sizes.
        raw: parameters `(size, *batch)`.
        centre: where the offsets of the logistics count from, in units of their scales, `(*batch)`.
        level: the levels, as whole floating numbers `(*batch)`.
    """
    if is_tracing() or in_forward_mode():
        return _plain_log_mass(levels, raw, centre, level)
    if torch.is_grad_enabled() and (raw.requires_grad or centre.requires_grad):
        return _LogMass.apply(levels, raw, centre, level)
    return _parts(levels, raw, centre, level).value


def _plain_log_mass(levels: Levels, raw: Tensor, centre: Tensor, level: Tensor) -> Tensor:
    odds, offset, log_scale = levels.split(raw)
    first, last = level <= 0, level >= levels.count - 1
    inverse = (-log_scale).exp()
    # Infinite knots would have gradients that are NaN; what is found for those in their place does not count.
    a, b = ((2 * knot / levels.count - 1 - centre) * inverse - offset for knot in (level, level + 1))
    above, below = torch.where(first, 1.0, torch.sigmoid(-a)), torch.where(last, 1.0, torch.sigmoid(b))
    part = above * below * torch.where(first | last, 1.0, -torch.expm1(a - b))
    spikes = torch.stack([first, last]).to(part.dtype)
    mass = (odds.softmax(0) * torch.cat([part, spikes])).sum(0)
    return (levels.floor / levels.count + (1 - levels.floor) * mass).log()


class _Parts(NamedTuple):
    """The log-probabilities, and what their gradients are made of."""

    value: Tensor
    weights: Tensor
    part: Tensor
    below: Tensor
    above: Tensor
    mass: Tensor
    total: Tensor


def _parts(levels: Levels, raw: Tensor, centre: Tensor, level: Tensor) -> _Parts:
    odds, offset, log_scale = levels.split(raw)
    k = levels.components
    lower, upper = levels.knots(level)
    inverse = log_scale.neg().exp_()
    a = torch.sub(lower, centre).mul(inverse).sub_(offset)
    b = torch.sub(upper, centre).mul(inverse).sub_(offset)
    part = torch.sub(a, b).expm1_().neg_()
    # The probability above the lower knot, and below the upper one, each with all digits where it is small.
    above, below = a.neg_().sigmoid_(), b.sigmoid_()
    part.mul_(above).mul_(below)
    weights = odds.softmax(0)
    mass = (weights[:k] * part).sum(0)
    mass += weights[k] * (level <= 0)
    mass += weights[k + 1] * (level >= levels.count - 1)
    total = mass.mul(1 - levels.floor).add_(levels.floor / levels.count)
    return _Parts(total.log(), weights, part, below, above, mass, total)


class _LogMass(torch.autograd.Function):
    r"""The log-probability of levels and its gradients.

    A logistic has `m = sigmoid(b) - sigmoid(a)` of a level whose knots are at `a` and `b` in units of its scale. By its
    location `m` changes by `-m (1 - sigmoid(b) - sigmoid(a))`, and by its log scale by

        -(b sigmoid'(b) - a sigmoid'(a)) = -(b m (1 - sigmoid(b) - sigmoid(a)) + (b - a) sigmoid'(a)),

    in which nothing cancels.
    """

    @staticmethod
    def forward(ctx: Any, levels: Levels, raw: Tensor, centre: Tensor, level: Tensor) -> Tensor:
        found = _parts(levels, raw, centre, level)
        ctx.levels = levels
        ctx.save_for_backward(raw, centre, level, *found[1:])
        return found.value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        raw, centre, level, weights, part, below, above, mass, total = ctx.saved_tensors
        levels: Levels = ctx.levels
        if is_watched():
            needed = (*ctx.needs_input_grad[1:3], False)
            return None, *traceable_gradients(
                lambda *given: _plain_log_mass(levels, *given), (raw, centre, level), needed, grad
            )
        k, found = levels.components, torch.empty_like(raw)
        share = grad * (1 - levels.floor) / total
        scaled = weights * share
        odds, offsets, scales = found[: k + 2], found[k + 2 : 2 * k + 2], found[2 * k + 2 :]
        torch.mul(scaled, mass, out=odds).neg_()
        odds[:k].addcmul_(scaled[:k], part)
        odds[k].addcmul_(scaled[k], (level <= 0).to(raw.dtype))
        odds[k + 1].addcmul_(scaled[k + 1], (level >= levels.count - 1).to(raw.dtype))
        grads = scaled[:k], offsets, scales
        return None, found, _write_slopes(levels, raw, centre, level, (part, below, above), grads), None


def _write_slopes(
    levels: Levels,
    raw: Tensor,
    centre: Tensor,
    level: Tensor,
    known: tuple[Tensor, Tensor, Tensor],
    grads: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Write the gradients by offsets and log scales, from those by the masses of logistics; return that by the centre.

    Args:
        levels: sizes.
        raw: parameters.
        centre: of the offsets.
        level: the levels.
        known: masses of the logistics, `sigmoid(b)` and `sigmoid(-a)`.
        grads: by the masses, and where to write.
    """
    (part, below, above), (by_part, offsets, scales) = known, grads
    log_scale = levels.split(raw)[2]
    inverse = log_scale.neg().exp_()
    lower, upper = levels.knots(level)
    # The terms of knots at infinity are zero.
    lower = torch.where(level <= 0, 0.0, lower - centre)
    upper = torch.where(level >= levels.count - 1, 0.0, upper - centre)
    # 1 - sigmoid(b) - sigmoid(a) is sigmoid(-a) - sigmoid(b).
    torch.sub(below, above, out=offsets).mul_(part).mul_(by_part)
    by_centre = (offsets * inverse).sum(0)
    slope = (1 - above).mul_(above).mul_(by_part).mul_(upper - lower)
    torch.mul(offsets, upper, out=scales).sub_(slope).mul_(inverse)
    lowest, highest = levels.scale_limits
    scales.mul_((log_scale > lowest) & (log_scale < highest))
    return by_centre


def probability_below(levels: Levels, raw: Tensor, centre: Tensor, knot: Tensor) -> Tensor:
    """Return the distribution function at knots, `(*batch)`; all in one precision, best in float64.

    Args:
        levels: sizes.
        raw: parameters `(size, *batch)`.
        centre: as for `log_mass`.
        knot: which knots, whole floating numbers `0 .. count`.
    """
    return _below(levels, _prepared(levels, raw, centre), knot)


class _Prepared(NamedTuple):
    """Weights, the inverse scales and the locations over the scales."""

    weights: Tensor
    inverse: Tensor
    location: Tensor


def _prepared(levels: Levels, raw: Tensor, centre: Tensor) -> _Prepared:
    odds, offset, log_scale = levels.split(raw)
    inverse = (-log_scale).exp()
    return _Prepared(odds.softmax(0), inverse, centre * inverse + offset)


def _below(levels: Levels, mixture: _Prepared, knot: Tensor) -> Tensor:
    k = levels.components
    scaled = (2 * knot / levels.count - 1) * mixture.inverse - mixture.location
    found = (mixture.weights[:k] * torch.sigmoid(scaled)).sum(0) + mixture.weights[k]
    found = levels.floor * knot / levels.count + (1 - levels.floor) * found
    return torch.where(knot <= 0, 0.0, torch.where(knot >= levels.count, 1.0, found))


@torch.no_grad()
def level_at(levels: Levels, raw: Tensor, centre: Tensor, probability: Tensor) -> Tensor:
    """Return the level in which the distribution function passes a probability, found by bisection on the knots.

    Args:
        levels: sizes.
        raw: parameters `(size, *batch)`; they are worked on in float64.
        centre: as for `log_mass`.
        probability: in `[0, 1]`, float64.

    Returns:
        Whole numbers in float64, the largest `j` with `F(j) <= probability`.
    """
    mixture = _prepared(levels, widest(raw), widest(centre))
    low = torch.zeros_like(probability)
    high = torch.full_like(probability, levels.count)
    for _ in range(math.ceil(math.log2(levels.count))):
        between = ((low + high) / 2).floor()
        passed = _below(levels, mixture, between) <= probability
        # Where the two are next to each other, the lower one is the answer already.
        low, high = torch.where(passed, between, low), torch.where(passed, high, between)
    return low


@torch.no_grad()
def noise_of(levels: Levels, raw: Tensor, centre: Tensor, level: Tensor, share: float | Tensor = 0.5) -> Tensor:
    """Return standard normal noise that stands for levels, float64: by default in the middle of what `level_at` gives.

    Args:
        levels: sizes.
        raw: parameters `(size, *batch)`.
        centre: as for `log_mass`.
        level: the levels, as whole floating numbers `(*batch)`.
        share: of the probability of a level that lies below, in `(0, 1)`.
    """
    mixture = _prepared(levels, widest(raw), widest(centre))
    level = widest(level)
    low, high = _below(levels, mixture, level), _below(levels, mixture, level + 1)
    return torch.special.ndtri(low + share * (high - low))
