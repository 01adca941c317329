r"""Markov chains of particles: Hamiltonian Monte Carlo on the positions whose mean is zero, and how well it mixed.

Momenta have mean zero as well, and energies do not change when all particles are moved together, so that positions keep
their mean: this is the method of Duane et al., "Hybrid Monte Carlo" (1987), in orthonormal coordinates of that space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from likelify.data.simulated.particles import centre

# Energies `(chains,)` and gradients of positions `(particles, axes, chains)`.
Energy = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Steps become longer where more proposals than this are accepted, and shorter where fewer are, by a fixed factor.
ACCEPTED, FACTOR = 0.75, 1.05
# The length of a trajectory varies by this share, so that none comes back to where it began again and again; one in ten
# has steps of a tenth, by which chains leave places that are too steep for those that suit the others.
JITTER, RARE, SHORT = 0.2, 0.1, 0.1


@dataclass
class Walkers:
    """Chains side by side.

    Attributes:
        x: positions `(particles, axes, chains)`.
        energy: of each chain.
        gradient: of the energy.
        step: length of a step of the integrator.
        accepted: share of the last proposals that were accepted.
    """

    x: np.ndarray
    energy: np.ndarray
    gradient: np.ndarray
    step: float
    accepted: float = 1.0

    @classmethod
    def at(cls, x: np.ndarray, energy: Energy, step: float) -> Walkers:
        """Put chains at some positions."""
        return cls(x, *energy(x), step)

    def move(self, energy: Energy, rng: np.random.Generator, *, steps: int, adapt: bool = False) -> None:
        """Propose the end of a trajectory to each chain, and accept it by Metropolis' rule.

        Args:
            energy: of which the chains are to draw.
            rng: gives momenta, the length of the steps, and what is accepted.
            steps: of the integrator in a trajectory.
            adapt: whether the length of the steps is changed by the share that is accepted; draws made meanwhile are
                no draws of the distribution.
        """
        momentum = centre(rng.standard_normal(self.x.shape))
        short = rng.random() < RARE
        step = self.step * (1.0 + JITTER * (2.0 * rng.random() - 1.0)) * (SHORT if short else 1.0)
        threshold = np.log1p(-rng.random(len(self.energy)))
        before = self.energy + (momentum * momentum).sum((0, 1)) / 2
        # Particles that meet have energies beyond float64; such ends are not accepted.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            x, value, gradient = self.x, self.energy, self.gradient
            momentum = momentum - step / 2 * gradient
            for number in range(steps):
                x = x + step * momentum
                value, gradient = energy(x)
                momentum = momentum - (step if number + 1 < steps else step / 2) * gradient
            change = value + (momentum * momentum).sum((0, 1)) / 2 - before
            # What is no number is not smaller.
            taken = threshold < -change
        self.x = centre(np.where(taken, x, self.x))
        self.energy = np.where(taken, value, self.energy)
        self.gradient = np.where(taken, gradient, self.gradient)
        self.accepted = float(taken.mean())
        if adapt and not short:
            self.step *= FACTOR if self.accepted > ACCEPTED else 1.0 / FACTOR


def r_hat(draws: np.ndarray) -> float:
    """Return how much wider the chains are together than each alone: 1 if they have mixed, infinity if none moves.

    Each chain is cut into halves (Gelman et al., "Bayesian data analysis", 3rd edition, section 11.4).

    Args:
        draws: of a number, `(chains, draws)`.
    """
    half = draws.shape[1] // 2
    parts = np.concatenate([draws[:, :half], draws[:, -half:]])
    within = parts.var(1, ddof=1).mean()
    pooled = (half - 1) / half * within + parts.mean(1).var(ddof=1)
    return float(np.sqrt(pooled / within)) if within > 0 else float("inf")


def effective_size(draws: np.ndarray) -> float:
    r"""Return as how many independent draws those of all chains count, for the mean of a number.

    `M N / (1 + 2 sum_t rho_t)`, where `rho_t` compares draws at a distance with the variance of all chains together,
    up to the first two distances at which the sum of both is not positive (the same book, section 11.5).

    Args:
        draws: `(chains, draws)`.
    """
    chains, count = draws.shape
    within = draws.var(1, ddof=1).mean()
    pooled = (count - 1) / count * within + draws.mean(1).var(ddof=1)
    if not pooled > 0:
        return 1.0
    lags = range(1, count)
    variogram = [float(((draws[:, lag:] - draws[:, :-lag]) ** 2).mean()) for lag in lags]
    correlations = [1.0 - value / (2.0 * pooled) for value in variogram]
    total = 0.0
    for first, second in zip(correlations[::2], correlations[1::2], strict=False):
        if first + second <= 0:
            break
        total += first + second
    return float(chains * count / (1.0 + 2.0 * total))
