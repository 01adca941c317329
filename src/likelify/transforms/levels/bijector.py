"""The distribution function of a mixture over grey levels as a bijector of couplings."""

from __future__ import annotations

import torch
from torch import Tensor

from likelify.distributions.normal import LOG_SQRT_2PI
from likelify.distributions.normal import probability_below as normal_below
from likelify.errors import DomainError
from likelify.linalg.bounds import widest
from likelify.support import Interval, strictly_inside, within
from likelify.transforms.coupling import Bijector
from likelify.transforms.levels.mixture import as_levels, level_at, log_mass, probability_below


class LevelBijector(Bijector):
    r"""Map dequantized grey levels to the line by the distribution function of a mixture over the levels.

    `z = Phi^-1(F(x))`, where `F` is linear in each level and a mixture of logistics, of spikes at both ends and of a
    uniform floor on the knots between them. So `log dz/dx = log m(level) - log phi(z)` with the probability `m` of the
    level: behind it a standard normal distribution of `z` is the mixture itself, and the noise inside a level costs
    nothing. Zeros are a broad mixture around the middle of the levels, not the identity. It works in float64 inside.

    Args:
        levels: number of levels; values lie in `(0, levels)`, as `Dequantize` gives them.
        components: logistics of the mixture.

    Raises:
        DomainError: for values outside `(0, levels)`, and for integers, which are not dequantized.

    Example:
        >>> bijector = LevelBijector(256)
        >>> x = torch.tensor([[0.5, 100.2, 255.9]])
        >>> z, log_slope = bijector.forward(x, torch.zeros(1, bijector.size, 3))
        >>> bool(torch.allclose(bijector.inverse(z, torch.zeros(1, bijector.size, 3))[0], x))
        True
    """

    def __init__(self, levels: int, components: int = 5) -> None:
        self.levels = as_levels(levels, components, "LevelBijector")
        self.size = self.levels.size
        self.domain = Interval(0.0, float(self.levels.count))

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map values of `(0, levels)` to the line."""
        if not x.is_floating_point():
            raise DomainError(
                "LevelBijector works on dequantized levels and got integers: put Dequantize in front, or give their "
                "middles, x + 0.5."
            )
        x, inside = within(x, (x > 0) & (x < self.levels.count), self, str(self.domain), 0.5)
        level = x.detach().floor().clamp(0, self.levels.count - 1)
        log_m, below, above = self._ends(raw, level)
        part, mass = widest(x - level), log_m.exp()
        below, above = below + part * mass, above + (1 - part) * mass
        # The smaller of the two keeps its digits, and its gradient.
        tail = torch.special.ndtri(torch.minimum(below, above))
        z = torch.where(below < above, tail, -tail)
        log_slope = log_m + 0.5 * z * z + LOG_SQRT_2PI
        return z.to(x.dtype), torch.where(inside, log_slope.to(x.dtype), -torch.inf)

    def inverse(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Map the line to `(0, levels)`: the level by bisection, the place in it by its linear piece."""
        wide = widest(z)
        lower, upper = normal_below(wide), normal_below(-wide)
        level = level_at(self.levels, raw.movedim(1, 0), torch.zeros_like(wide), lower.detach())
        log_m, below, above = self._ends(raw, level)
        mass = log_m.exp()
        part = torch.where(wide < 0, (lower - below) / mass, 1 - (upper - above) / mass).clamp(0, 1)
        x = strictly_inside((level + part).to(z.dtype), self.domain)
        return x, -(log_m + 0.5 * wide * wide + LOG_SQRT_2PI).to(z.dtype)

    def _ends(self, raw: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-probability of levels, and the probabilities of what is below and above them."""
        given, level = widest(raw.movedim(1, 0)), widest(level)
        centre = torch.zeros_like(level)
        below, above = (probability_below(self.levels, given, centre, level + step) for step in (0, 1))
        return log_mass(self.levels, given, centre, level), below, 1 - above

    def __repr__(self) -> str:
        return f"LevelBijector(levels={self.levels.count}, components={self.levels.components})"
