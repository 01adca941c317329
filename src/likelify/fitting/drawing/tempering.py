r"""Draws from a density that is known up to a factor, by importance resampling in steps from one that is easy to draw.

The density is `pi(v) ~ N(v; 0, I) w(v)`. Particles are drawn from the normal distribution; the weights enter little by
little, `N(v; 0, I) w(v)^b` with `b` rising from 0 to 1, each time so far that half of the particles still count. Each
time they are resampled and then moved by steps `v' = sqrt(1 - r^2) v + r eta` that keep the normal distribution and
are accepted with the probability `min(1, (w(v') / w(v))^b)`, which keeps the density (Neal 2001; Del Moral, Doucet and
Jasra 2006; for the step Cotter et al. 2013). If one step suffices, this is sampling-importance-resampling. The weights
may be unbiased random estimates: each particle keeps the one it was accepted with (Andrieu and Roberts 2009).

The particles are in islands that never meet, so that their means say how sure they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.errors import DomainError

# Share of the particles that still count after a rise of the weights, and bisections by which that rise is found.
KEPT, BISECTIONS = 0.5, 30
# Rises after which there is no hope, share of the steps to be accepted, and how fast their length follows.
MOST_RISES, WANTED, RATE = 200, 0.3, 1.0
SHORTEST = 1e-3

LogWeight = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Effort:
    """How much work is done for draws.

    Attributes:
        islands: that never meet.
        particles: of an island.
        moves: of each particle after each rise of the weights.
        last_moves: at the end.
    """

    islands: int = 8
    particles: int = 64
    moves: int = 5
    last_moves: int = 20


@dataclass(frozen=True, eq=False)
class Particles:
    """Draws, and how they came about.

    Attributes:
        noise: `(islands, particles, size)`.
        rises: in how many steps the weights were taken in; one is plain importance resampling.
        accepted: share of the last moves that were accepted, of each block.
    """

    noise: Tensor
    rises: int
    accepted: tuple[float, ...]


def tempered(
    log_weight: LogWeight, blocks: Sequence[slice], effort: Effort, like: Tensor, on_share: Callable[[float], None]
) -> Particles:
    """Draw particles from `N(v; 0, I) w(v)`.

    Args:
        log_weight: of `(rows, size)`, in nats up to a constant, `(rows,)`; minus infinity where there is no mass.
        blocks: parts of `v` that are moved one after the other; together they are all of it.
        effort: how many particles and moves.
        like: a tensor of the dtype and on the device of the noise.
        on_share: called with the share of the weights that is taken in.

    Raises:
        DomainError: if no particle of an island has a weight, or the weights never come in whole.
    """
    size = max(block.stop for block in blocks)
    rows = effort.islands * effort.particles
    noise = torch.randn(rows, size, dtype=like.dtype, device=like.device)
    walk = _Walk(log_weight, noise, log_weight(noise).double(), [1.0] * len(blocks), list(blocks))
    power, rises = 0.0, 0
    while power < 1.0:
        rise = _rise(walk.log_weight.reshape(effort.islands, -1), 1.0 - power)
        walk.take(resampled(rise * walk.log_weight.reshape(effort.islands, -1)))
        power, rises = (1.0 if power + rise > 1.0 - 1e-9 else power + rise), rises + 1
        if rises > MOST_RISES:
            raise DomainError(
                f"The weights are too uneven: after {MOST_RISES} steps only {power:.0%} of them are taken in. What is "
                "known may be nothing like what the model was fitted to."
            )
        walk.move(power, effort.moves if power < 1.0 else effort.last_moves)
        on_share(power)
    return Particles(walk.noise.reshape(effort.islands, effort.particles, size), rises, tuple(walk.accepted))


class _Walk:
    """Particles, their weights, and how far they go in a step."""

    def __init__(
        self, function: LogWeight, noise: Tensor, log_weight: Tensor, lengths: list[float], blocks: list[slice]
    ) -> None:
        self.function, self.noise, self.log_weight = function, noise, log_weight
        self.lengths, self.blocks, self.accepted = lengths, blocks, [1.0] * len(blocks)

    def take(self, chosen: Tensor) -> None:
        """Keep the particles with these numbers."""
        self.noise, self.log_weight = self.noise[chosen], self.log_weight[chosen]

    def move(self, power: float, times: int) -> None:
        """Move each block of each particle so many times."""
        for _ in range(times):
            for number, block in enumerate(self.blocks):
                share = self.accepted[number] = self._move(power, block, self.lengths[number])
                longer = self.lengths[number] * math.exp(RATE * (share - WANTED))
                self.lengths[number] = min(1.0, max(SHORTEST, longer))

    def _move(self, power: float, block: slice, length: float) -> float:
        moved, part = self.noise.clone(), self.noise[:, block]
        moved[:, block] = math.sqrt(1 - length**2) * part + length * torch.randn_like(part)
        log_weight = self.function(moved).double()
        accepted = torch.rand_like(log_weight).log() < power * (log_weight - self.log_weight)
        self.noise = torch.where(accepted[:, None], moved, self.noise)
        self.log_weight = torch.where(accepted, log_weight, self.log_weight)
        return float(accepted.double().mean())


def _rise(log_weights: Tensor, left: float) -> float:
    """Return by how much the power of weights `(islands, particles)` may rise, no more than what is left."""
    finite = log_weights.isfinite().sum(1)
    if bool((finite == 0).any()):
        raise DomainError(
            "No draw of what is hidden has any likelihood beside what is known, which may be nothing like what the "
            "model was fitted to."
        )

    def counting(rise: float) -> float:
        """Return the share of the particles that count, of those that count at all."""
        weights = (rise * (log_weights - log_weights.amax(1, keepdim=True))).exp()
        weights = torch.where(log_weights.isfinite(), weights, 0.0)
        return float((weights.sum(1) ** 2 / weights.square().sum(1) / finite).mean())

    if counting(left) >= KEPT:
        return left
    low, high = 0.0, left
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if counting(middle) >= KEPT else (low, middle)
    return low


def resampled(log_weights: Tensor) -> Tensor:
    """Return numbers of particles drawn by weights `(islands, particles)`, each island from its own; systematically."""
    islands, particles = log_weights.shape
    below = log_weights.softmax(1).cumsum(1)
    below = below / below[:, -1:]
    places = (torch.arange(particles, device=below.device) + torch.rand(islands, 1, device=below.device)) / particles
    chosen = torch.searchsorted(below, places.to(below.dtype)).clamp_max(particles - 1)
    return (chosen + particles * torch.arange(islands, device=below.device)[:, None]).flatten()


def effective_size(values: Tensor) -> float:
    """Return how many independent draws would have means as sure as those of draws `(islands, particles, size)`.

    `islands V / B` with the variance `V` of the values and that `B` of the means of islands, averaged over the
    elements: what resampling and short steps leave dependent counts, what all islands have missed does not.
    """
    islands, particles, _ = values.shape
    values = values.double()
    total, between = values.flatten(0, 1).var(0), values.mean(1).var(0)
    varies = total > 0
    if not bool(varies.any()):
        return float(islands * particles)
    share = float((between[varies] / total[varies]).mean())
    return min(float(islands * particles), islands / max(share, 1e-12))
