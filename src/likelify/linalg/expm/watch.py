"""Looking at the terms of an expansion while it is summed: when to stop, and whether the norm bound can be true."""

import torch
from torch import Tensor

from likelify.linalg.expm.expansion import Expansion
from likelify.linalg.expm.series import PowerSeries
from likelify.linalg.maps import LinearMap

# Between these sizes the squares of the numbers of an item, and of the smallest term that matters, stay in the range of
# single precision.
PLAIN = (1e-15, 1e12)
# Rounding may carry the observed norm of a vector beyond its bound by this much; more contradicts the bound.
SLACK = 1.02


class Watch:
    """A stopping rule: the a-posteriori certificate of every item meets what is allowed.

    Args:
        map_: measures the items.
        expansion: of the step.
        start: norms of the items of `p_0`.
        allowed: the error that each item may have.
        first_test: number of the first vector that is looked at; looking earlier only costs host syncs.

    Attributes:
        error: certified error of each item, or None before anything was seen.
        measures_all: measure the vectors before the first test as well, for what `sizes` says of them.
    """

    def __init__(
        self, map_: LinearMap, expansion: Expansion, start: Tensor, allowed: Tensor, first_test: int, *, plain: bool
    ) -> None:
        self._map, self._expansion, self._start, self._allowed = map_, expansion, start, allowed
        self._first, self._plain = first_test, plain
        self._seen: list[tuple[int, Tensor]] = []
        self._ratios: list[tuple[int, float]] | None = None
        self.error: Tensor | None = None
        self.measures_all = False

    def __call__(self, vector: Tensor, k: int) -> bool:
        """Look at the vector `p_k`."""
        if k < self._first and not self.measures_all:
            return False
        norms = self._map.item_norms(vector.detach(), plain=self._plain)
        self._seen.append((k, norms))
        self._ratios = None
        if k < self._first or not isinstance(self._expansion, PowerSeries):
            return False
        self.error = self._expansion.remainder(norms, k)
        return bool((self.error <= self._allowed).all())

    def certified(self, degree: int) -> Tensor:
        """Return the certified error of each item: of the last vector seen, or a priori if none was."""
        return self._start * self._expansion.tail(degree) if self.error is None else self.error

    @property
    def ratios(self) -> list[tuple[int, float]]:
        """For each vector seen its number and `max ||p_k|| / (|unit_k| ||p_0||)`, at most one if the bound is true."""
        if not self._seen or not len(self._start):
            return []
        if self._ratios is None:
            norms = torch.stack([norms for _, norms in self._seen])
            observed = (norms / self._start).nan_to_num(nan=0.0, posinf=0.0).amax(1).tolist()
            units = [abs(self._expansion.unit(k, self._expansion.radius)) for k, _ in self._seen]
            found = zip(self._seen, observed, units, strict=True)
            self._ratios = [(k, ratio / max(unit, 1e-300)) for (k, _), ratio, unit in found]
        return self._ratios

    @property
    def sizes(self) -> list[float]:
        """Bounds of the ratios for every vector: those of powers never grow, so each bounds those after it."""
        if not isinstance(self._expansion, PowerSeries):
            return [1.0]
        seen, sizes = dict(self.ratios), [1.0]
        for k in range(1, max(seen, default=0) + 1):
            sizes.append(min(sizes[-1], seen.get(k, 1.0)))
        return sizes

    @property
    def contradiction(self) -> float:
        """By what factor the vectors grew more than the norm bound allows, at least one."""
        return max((ratio ** (1 / k) for k, ratio in self.ratios if ratio > SLACK), default=1.0)


def wrong_norm(factor: float) -> str:
    """Say that a norm bound is wrong by a factor."""
    return (
        f"The terms of the exponential grow by a factor of at least {factor:.3g} more than the norm bound of the map "
        "allows, so the bound is wrong and no certificate holds. Correct the declared norm (norm=), or leave it out to "
        "have it computed."
    )


def watch(map_: LinearMap, expansion: Expansion, start: Tensor, allowed: Tensor, degree: int) -> Watch:
    """Make a stopping rule for a chain that needs at most `degree` terms."""
    plain = bool(((allowed > PLAIN[0]) & (start < PLAIN[1])).all())
    # The a-posteriori test cannot succeed long before the a-priori one.
    first = max(1, degree // 3) if isinstance(expansion, PowerSeries) else max(1, degree)
    return Watch(map_, expansion, start, allowed, first, plain=plain)
