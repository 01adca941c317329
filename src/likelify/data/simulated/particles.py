r"""Two systems of particles whose energies are known: `dw4`, four in a plane, and `lj13`, thirteen in space.

Their densities are `exp(-U(x)) / Z` on the positions whose mean is zero, with distances in the units of the sources and
energies in units of `kT`. They are the test systems of Köhler, Klein and Noé, "Equivariant flows: exact likelihood
generative learning for symmetric densities" (2020), Garcia Satorras et al., "E(n) equivariant normalizing flows" (2021)
and Klein, Krämer and Noé, "Equivariant flow matching" (2023). The constants are those of their code: `dw4_experiment`
and `eqnode/test_systems.py` of the repository `vgsatorras/en_flows`, and `energy/` of `noegroup/bgflow`.

- `dw4`: `U = sum_{i<j} [0.9 (d_ij - 4)^4 - 4 (d_ij - 4)^2]`.
- `lj13`: `U = 2 sum_{i<j} [(1 / d_ij)^12 - 2 (1 / d_ij)^6] + sum_i |x_i - mean|^2 / 2`.

The code that the published sets of `lj13` were drawn with adds over ordered pairs, so that each pair counts twice; the
factor 2 says it. Later versions of that code, and formulas in the papers, count each pair once: that system is
`lj13-single`, and figures of one say nothing of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# What a pair adds to the energy, and the derivative of that with respect to the distance, divided by the distance;
# both of the square of the distance, an array or a tensor.
Pair = Callable[[Any], tuple[Any, Any]]


@dataclass(frozen=True)
class System:
    """Particles with energies of pairs, and springs to their common centre.

    Positions are arrays `(particles, axes, configurations)`: sums over particles then run along the first axis in
    their order, so that they are the same to the last bit on every machine, whatever its vectors.

    Attributes:
        particles: how many there are.
        axes: of the space.
        pair: energy of a pair.
        spring: constant of the springs, `spring / 2 sum_i |x_i - mean|^2`.
        spread: standard deviation of normal positions that are about as far from one another as those of the system.
        softness: added to squares of distances where chains begin, so that particles that meet come apart again.
        said: the system in words.
    """

    particles: int
    axes: int
    pair: Pair
    spring: float
    spread: float
    softness: float
    said: str

    @property
    def dimension(self) -> int:
        """The dimension of the positions whose mean is zero."""
        return (self.particles - 1) * self.axes

    def energy(self, x: np.ndarray, softness: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the energies in `kT`, `(configurations,)`, and their gradient, of the shape of `x`.

        Args:
            x: positions.
            softness: added to the squares of all distances between particles.
        """
        centred = centre(x)
        energy = self.spring / 2 * (centred * centred).sum((0, 1))
        gradient = self.spring * centred
        for step in range(1, self.particles // 2 + 1):
            # Steps of half the way round meet each pair twice.
            share = 0.5 if 2 * step == self.particles else 1.0
            apart = x - np.roll(x, -step, axis=0)
            value, slope = self.pair((apart * apart).sum(1) + softness)
            energy = energy + share * value.sum(0)
            push = (share * slope)[:, None] * apart
            gradient = gradient + push - np.roll(push, step, axis=0)
        return energy, gradient


def centre(x: np.ndarray) -> np.ndarray:
    """Return positions `(particles, ...)` with mean zero."""
    return x - x.sum(0) / len(x)


def double_well(square: Any) -> tuple[Any, Any]:
    """Return `0.9 (d - 4)^4 - 4 (d - 4)^2`, whose wells are at 2.51 and 5.49, and its slope."""
    distance = square**0.5
    excess = distance - 4.0
    near = excess * excess
    return near * (0.9 * near - 4.0), excess * (3.6 * near - 8.0) / distance


def lennard_jones(square: Any, depth: float) -> tuple[Any, Any]:
    """Return `depth (d^-12 - 2 d^-6)`, whose minimum is at 1, and its slope."""
    inverse = 1.0 / square
    sixth = inverse * inverse * inverse
    return depth * sixth * (sixth - 2.0), 12.0 * depth * inverse * sixth * (1.0 - sixth)


def _lennard_jones_twice(square: Any) -> tuple[Any, Any]:
    return lennard_jones(square, 2.0)


def _lennard_jones_once(square: Any) -> tuple[Any, Any]:
    return lennard_jones(square, 1.0)


_CLUSTER = "13 particles in space with Lennard-Jones energies of"
SYSTEMS = {
    "dw4": System(
        4, 2, double_well, 0.0, 2.5, 0.0, "4 particles in a plane with double-well energies of their distances"
    ),
    "lj13": System(13, 3, _lennard_jones_twice, 1.0, 0.7, 1.0, f"{_CLUSTER} depth 2 kT and springs to their centre"),
    "lj13-single": System(
        13, 3, _lennard_jones_once, 1.0, 0.8, 1.0, f"{_CLUSTER} depth 1 kT and springs to their centre"
    ),
}
