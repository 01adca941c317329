"""Gaussianisation of each position by itself, fitted to data and not trained."""

import math

import torch
from torch import Tensor

from likelify.distributions.normal import LOG_SQRT_2PI, probability_below
from likelify.errors import ConfigError
from likelify.shapes import Shape, as_shape, check_size
from likelify.structure import ContextLike, sum_items
from likelify.support import Interval, check_domain, check_sample, strictly_inside, within
from likelify.transforms.core import Transform
from likelify.transforms.inversion import EXACT
from likelify.transforms.rules import FALLING, PROBABILITIES, RISING


class FittedMarginal(Transform):
    r"""Map each position of a dequantized image to a standard normal by its own fitted distribution function.

    `z = Phi^-1(F(x))`, where `F` of each position is piecewise linear with knots on the levels, so that the uniform
    noise inside a level is handled exactly; `log dz/dx = log mass(level) - log phi(z)`. Above the median the survival
    function takes the place of `F`, so no digits are lost near one and nothing is clamped.

    A flow that starts with this layer and a standard normal base starts as the independent-pixel model. Before
    `initialize` all levels have equal mass.

    Args:
        event_shape: shape of an event.
        levels: number of levels; events hold values of `(0, levels)`, as `Dequantize` gives them.
        pseudo_count: added to the count of every level in `initialize`. It is also what keeps the slope away from
            zero: with `n` items a slope is at least `pseudo_count / (n + levels pseudo_count)`.

    Raises:
        DomainError: for values outside `(0, levels)`.
        ShapeError: for events of another shape.
    """

    inverse_check = EXACT

    buffer_rules = {"mass": PROBABILITIES, "below": RISING, "above": FALLING}
    mass: Tensor
    below: Tensor
    above: Tensor

    def __init__(self, event_shape: int | Shape, levels: int, *, pseudo_count: float = 0.5) -> None:
        super().__init__()
        levels = check_size(levels, "The levels of FittedMarginal", least=2)
        if not pseudo_count > 0:
            raise ConfigError(f"FittedMarginal needs a positive pseudo-count, got {pseudo_count}.")
        self.takes = self.event_shape = as_shape(event_shape, least=1)
        self.levels = levels
        self.domain = Interval(0.0, float(levels))
        self.pseudo_count = pseudo_count
        size = math.prod(self.event_shape)
        for name, width in (("mass", levels), ("below", levels + 1), ("above", levels + 1)):
            self.register_buffer(name, torch.zeros(size, width))
        self._set_counts(torch.zeros(size, levels, dtype=torch.float64))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Count the levels of each position in the sample."""
        check_sample(x, self)
        check_domain((x > 0) & (x < self.levels), self, str(self.domain))
        with torch.no_grad():
            level = self._level(x.flatten(1)).T
            counts = torch.zeros(len(level), self.levels, dtype=torch.float64, device="cpu")
            level = level.cpu()
            self._set_counts(counts.scatter_add(1, level, torch.ones_like(level, dtype=torch.float64)))
        return super().initialize(x, context)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map each position to a standard normal."""
        x, inside = within(x, (x > 0) & (x < self.levels), self, str(self.domain), 0.5)
        by_position = x.flatten(1).T
        level = self._level(by_position)
        part = by_position - level
        mass = self.mass.gather(1, level)
        below = self.below.gather(1, level) + part * mass
        above = self.above.gather(1, level + 1) + (1 - part) * mass
        # The smaller of the two probabilities keeps its digits, and its gradient; the other is at least one half.
        tail = torch.special.ndtri(torch.minimum(below, above))
        z = torch.where(below < above, tail, -tail)
        log_slope = mass.log() + 0.5 * z * z + LOG_SQRT_2PI
        log_slope = torch.where(inside.flatten(1), log_slope.T, -math.inf)
        return z.T.reshape(x.shape), sum_items(log_slope, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map standard normals back to `(0, levels)`; far in the tails it is the number next to an end."""
        by_position = z.flatten(1).T.contiguous()
        lower = by_position < 0
        tail = probability_below(-by_position.abs())
        from_below = torch.searchsorted(self.below[:, 1:].contiguous(), tail.detach(), right=True)
        from_above = torch.searchsorted(-self.above[:, 1:], -tail.detach())
        level = torch.where(lower, from_below, from_above).clamp_max(self.levels - 1)
        mass = self.mass.gather(1, level)
        part_below = (tail - self.below.gather(1, level)) / mass
        part_above = 1 - (tail - self.above.gather(1, level + 1)) / mass
        x = level + torch.where(lower, part_below, part_above).clamp(0, 1)
        log_slope = -(mass.log() + 0.5 * by_position * by_position + LOG_SQRT_2PI)
        return strictly_inside(x.T.reshape(z.shape), Interval(0.0, self.levels)), sum_items(log_slope.T, context)

    def _level(self, x: Tensor) -> Tensor:
        return x.detach().floor().long().clamp(0, self.levels - 1)

    def _set_counts(self, counts: Tensor) -> None:
        mass = counts + self.pseudo_count
        mass = mass / mass.sum(1, keepdim=True)
        zero = mass.new_zeros(len(mass), 1)
        self.mass.copy_(mass)
        self.below.copy_(torch.cat([zero, mass.cumsum(1)], 1))
        self.above.copy_(torch.cat([mass.flip(1).cumsum(1).flip(1), zero], 1))
