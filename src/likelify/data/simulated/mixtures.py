r"""Four distributions of point sets in the plane whose densities are known: `mog-4`, `mog-9`, `mog-16`, `mog-ring`.

Each of the `N` nodes of a graph has two features. The nodes of the first three are around the `N` points of a square
grid with spacing 10, one node around each, with standard normal noise in both directions, and stand in a uniformly
random order; the grid is centred at the origin. `mog-ring` is `mog-4` turned about the origin by a uniform angle, one
for each graph. Graphs are complete.

With grids of 2 x 2 and 3 x 3 they are the sets of Liu et al., "Graph normalizing flows" (2019), whose code has them as
`mog_4`, `mog_9` (there around the point (5, 5)) and `mog_4_rotate`, and of Table 4 of Hoogeboom et al., "The
convolution exponential and generalized Sylvester flows" (2020). The grid of 4 x 4 is ours, since neither says what
MoG-16 is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from likelify.data.facts import SplitName
from likelify.data.simulated.permanents import log_permanent
from likelify.data.simulated.streams import normals, uniforms
from likelify.seeding import derived_seed

SPACING = 10.0
LOG_2PI = math.log(2.0 * math.pi)
# The radius of a ring of noise is looked at so far on both sides, in standard deviations, in so many steps.
REACH, STEPS = 12.0, 4000


@dataclass(frozen=True)
class Mixture:
    """A distribution of point sets around the points of a grid.

    Attributes:
        side: number of points along a side.
        turned: whether a set is turned by an angle of its own.
    """

    side: int
    turned: bool = False

    @property
    def nodes(self) -> int:
        """The number of nodes of each graph."""
        return self.side**2

    @property
    def means(self) -> np.ndarray:
        """The points of the grid, `(nodes, 2)`."""
        along = (np.arange(self.side) - (self.side - 1) / 2) * SPACING
        return np.stack(np.meshgrid(along, along, indexing="ij"), -1).reshape(-1, 2)

    @property
    def said(self) -> str:
        """The distribution in words, for descriptions."""
        turned = ", turned about the origin by a uniform angle" if self.turned else ""
        return f"{self.nodes} points around a {self.side}x{self.side} grid of spacing 10, standard normal noise{turned}"

    def draw(self, seed: int, split: SplitName, items: np.ndarray) -> np.ndarray:
        """Return the graphs of a split with these numbers, each a function of seed, split and number alone.

        Returns:
            The features of their nodes, `(graphs, nodes, 2)`.
        """
        n = self.nodes
        numbers = uniforms(derived_seed(seed, f"mixture {self.side} {split}", 0), items, 3 * n + 1)
        order = numbers[:, :n].argsort(1)
        x = self.means[order] + normals(numbers[:, n : 3 * n]).reshape(-1, n, 2)
        return _turn(x, np.pi * numbers[:, -1]) if self.turned else x

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        r"""Return the log-density of graphs, exactly.

        It is `ln [perm N(x_i; c_j, I) / N!]`. Turned sets have the mean of it over all angles, which is a sum over
        the `(N - 1)!` orders of the nodes around the ring:
        `p(x) = (2 pi)^-N exp(-(|x|^2 + |c|^2) / 2) / (N - 1)! sum_pi I_0(|sum_i x_i conj(c_pi(i))|)`, with points as
        complex numbers and the Bessel function `I_0`.

        Args:
            x: `(graphs, nodes, 2)`.

        Returns:
            Nats `(graphs,)`.
        """
        if self.turned:
            return self._log_prob_of_turned(x)
        squares = ((x[:, :, None] - self.means) ** 2).sum(-1)
        return log_permanent(-squares / 2) - self.nodes * LOG_2PI - math.lgamma(self.nodes + 1)

    def _log_prob_of_turned(self, x: np.ndarray) -> np.ndarray:
        means = self.means[:, 0] + 1j * self.means[:, 1]
        # Going round the ring one way or the other is turning, so that one node may keep its place.
        means = means[np.angle(means).argsort()]
        orders = np.array([(0, *rest) for rest in permutations(range(1, self.nodes))])
        size = np.abs((x[..., 0] + 1j * x[..., 1]) @ means[orders].conj().T)
        largest = size.max(1)
        sums = np.exp(_log_scaled_bessel(size) + size - largest[:, None]).mean(1)
        constant = (np.abs(means) ** 2).sum() / 2 + self.nodes * LOG_2PI
        return largest + np.log(sums) - (x**2).sum((1, 2)) / 2 - constant

    def entropy(self) -> float:
        r"""Return the entropy in nats per graph.

        For the grids it is `N ln(2 pi e) + ln N!`. A turned set is on one of `(N - 1)!` circles of radius
        `R = |c|`, each in a plane of its own, with normal noise. The choice of the circle and the noise that leaves its
        plane have known entropies; that of a point of the plane,
        `-E ln [exp(-(r^2 + R^2) / 2) I_0(r R) / (2 pi)]` with a radius `r` of Rice's distribution, is an integral over
        the radius. It is `ln(2 pi R) + ln(2 pi e) / 2` up to `O(1 / R^2)`.

        Sets whose points could be of either of two means would lower it; that is less than 1e-9 with a spacing of 10.
        """
        normal = (LOG_2PI + 1.0) / 2
        if not self.turned:
            return 2 * self.nodes * normal + math.lgamma(self.nodes + 1)
        return (2 * self.nodes - 2) * normal + math.lgamma(self.nodes) + _entropy_of_ring(float((self.means**2).sum()))


MIXTURES = {"mog-4": Mixture(2), "mog-9": Mixture(3), "mog-16": Mixture(4), "mog-ring": Mixture(2, turned=True)}


def _turn(x: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Turn each set about the origin."""
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)


def _entropy_of_ring(square: float) -> float:
    """Return the entropy of a point of the plane that is uniform on a circle beside standard normal noise.

    Args:
        square: of the radius of the circle.
    """
    radius = math.sqrt(square)
    r = np.linspace(max(0.0, radius - REACH), radius + REACH, STEPS + 1)
    log_density = _log_scaled_bessel(r * radius) - (r - radius) ** 2 / 2 - LOG_2PI
    return float(np.trapezoid(-2 * np.pi * r * np.exp(log_density) * log_density, r))


def _log_scaled_bessel(values: np.ndarray) -> np.ndarray:
    """Return `ln(exp(-v) I_0(v))` of values from 0 on."""
    import torch

    return torch.special.i0e(torch.from_numpy(values)).log().numpy()
