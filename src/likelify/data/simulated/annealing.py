r"""Normalizers of densities that are known up to one, by annealed importance sampling in both directions.

Neal, "Annealed importance sampling" (2001): chains go from normal positions, whose density is known, through densities
`exp(-(1 - b) U_0 - b U)` to the system, or back from draws of the system; the logarithms of the weights that they
collect on the way are unbiased estimates of `Z` and `1 / Z`. By Jensen's inequality their means are too low one way and
too high the other (Grosse, Ghahramani and Adams, "Sandwiching the marginal likelihood using bidirectional Monte Carlo",
2015), and Bennett's acceptance ratio joins both (Bennett, "Efficient estimation of free energy differences from Monte
Carlo data", 1976).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from likelify.data.simulated.chains import Energy, Walkers
from likelify.data.simulated.particles import System, centre

# A trajectory has so many steps at each temperature; steps of the first have this length, in standard deviations.
STEPS, FIRST = 5, 0.3
# Bennett's equation is solved to this accuracy in so many halvings at most.
HALVINGS = 200
# Errors are those of as many parts of the chains, left out one after the other.
PARTS = 20


@dataclass(frozen=True)
class LogNormalizer:
    """The logarithm of the normalizer of a system, `Z = int exp(-U) dy`.

    The integral is over the positions whose mean is zero, in orthonormal coordinates of that space, of dimension
    `(particles - 1) axes`: the measure of `Centre` and `CentredNormal`.

    Attributes:
        value: by Bennett's acceptance ratio of both directions.
        error: its standard error, by leaving out parts of the chains.
        lower: the mean of the logarithms of the weights towards the system, which is too low on average.
        upper: minus that of the weights away from it, which is too high on average.
    """

    value: float
    error: float
    lower: float
    upper: float


class Path:
    """Densities between normal positions and a system, with steps that suit each of them.

    Level `k` of `K` has the energy `(1 - b) |x|^2 / (2 s^2) + b U(x)` with `b = (k / K)^3`, where distances in `U` are
    softened by the share `1 - b` of the system's softness.

    Args:
        system: at the end.
        levels: `K`.
        rng: for the chains by which the lengths of steps are found.
        pilots: how many they are.
    """

    def __init__(self, system: System, levels: int, rng: np.random.Generator, pilots: int = 64) -> None:
        self.system, self.levels = system, levels
        self.steps: list[float] = []
        x, step = self.start(rng, pilots), FIRST * system.spread
        for level in range(1, levels + 1):
            energy = self.between(level)
            walkers = Walkers.at(x, energy, step)
            walkers.move(energy, rng, steps=STEPS, adapt=True)
            x, step = walkers.x, walkers.step
            self.steps.append(step)

    def start(self, rng: np.random.Generator, chains: int) -> np.ndarray:
        """Draw normal positions with mean zero."""
        return centre(rng.standard_normal((self.system.particles, self.system.axes, chains)) * self.system.spread)

    def between(self, level: int) -> Energy:
        """Return the energy of a level."""
        part, precision = level / self.levels, 1.0 / (self.system.spread * self.system.spread)
        # Levels are closest to one another where chains begin. Products are the same on every machine.
        share = part * part * part
        softness = (1.0 - share) * self.system.softness

        def energy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            value, gradient = self.system.energy(x, softness)
            rest = (1.0 - share) * precision
            return share * value + rest / 2 * (x * x).sum((0, 1)), share * gradient + rest * x

        return energy

    def forward(self, rng: np.random.Generator, chains: int) -> tuple[Walkers, np.ndarray]:
        """Go from normal positions to the system.

        Returns:
            The chains at the end, and the logarithms of the weights, whose mean is `Z / Z_0`.
        """
        walkers, logs = Walkers.at(self.start(rng, chains), self.between(0), 0.0), np.zeros(chains)
        for level in range(1, self.levels + 1):
            energy = self.between(level)
            there = Walkers.at(walkers.x, energy, self.steps[level - 1])
            logs += walkers.energy - there.energy
            there.move(energy, rng, steps=STEPS)
            walkers = there
        return walkers, logs

    def backward(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Go from draws of the system to normal positions.

        Returns:
            The logarithms of the weights, whose mean is `Z_0 / Z`.
        """
        logs = np.zeros(x.shape[2])
        for level in range(self.levels, 0, -1):
            energy = self.between(level)
            walkers = Walkers.at(x, energy, self.steps[level - 1])
            walkers.move(energy, rng, steps=STEPS)
            x = walkers.x
            logs += walkers.energy - self.between(level - 1)(x)[0]
        return logs

    @property
    def log_start(self) -> float:
        """The logarithm of the normalizer of the normal positions."""
        return self.system.dimension / 2 * math.log(2 * math.pi * self.system.spread**2)


def joined(path: Path, forth: np.ndarray, back: np.ndarray) -> LogNormalizer:
    """Return the logarithm of a normalizer from weights of both directions."""
    value = bennett(forth, back)
    lefts = []
    for part in range(PARTS):
        rest = [np.delete(logs, slice(part, None, PARTS)) for logs in (forth, back)]
        lefts.append(bennett(*rest))
    error = math.sqrt((PARTS - 1) * float(np.var(lefts)))
    start = path.log_start
    return LogNormalizer(start + value, error, start + float(forth.mean()), start - float(back.mean()))


def bennett(forth: np.ndarray, back: np.ndarray) -> float:
    """Return `ln(Z / Z_0)` of weights of both directions: where as many of both would be taken for the other's."""
    shift = math.log(len(forth) / len(back))

    def excess(value: float) -> float:
        return float(_logistic(forth - value - shift).sum() - _logistic(back + value + shift).sum())

    low = float(min(forth.min(), -back.max())) - 1.0
    high = float(max(forth.max(), -back.min())) + 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _logistic(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(values / 2))
