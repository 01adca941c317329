"""What one column of a table is like, given those before it: probabilities of states, and a density of scores."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from likelify.distributions.normal import probability_below
from likelify.distributions.normal_mixtures import NormalMixtures, normal_quantile
from likelify.errors import StateError


@dataclass(frozen=True, eq=False)
class ColumnConditional:
    """The distribution of the cells of one column in each of several rows.

    Attributes:
        log_states: log-probabilities of its states, `(states, rows)`; None if it is always in its continuous one.
        mixture: of the score in the continuous state, its tensors `(components, rows)`; None if there is no such state.
        continuous: number of that state.
        steps: cells of that state are intervals, and have probabilities.
    """

    log_states: Tensor | None
    mixture: NormalMixtures | None
    continuous: int | None
    steps: bool = False

    def log_prob(self, state: Tensor, z: Tensor, width: Tensor) -> Tensor:
        """Return the log-density, or of states and intervals the log-probability, of each row, in nats."""
        total = torch.zeros_like(z)
        if self.log_states is not None:
            total = self.log_states.gather(0, state.long()[None])[0]
        if self.mixture is None:
            return total
        found = self.mixture.log_mass(z, width) if self.steps else self.mixture.log_prob(z)
        outside = total if self.log_states is not None else -torch.inf
        return torch.where(state == self.continuous, total + found, outside)

    def draw(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Draw the state and the score of each row, zero where there is none."""
        if self.log_states is None:
            z = self._scores.draw(temperature)
            return torch.full_like(z, self.continuous or 0), z
        z = None if self.mixture is None else self.mixture.draw(temperature)
        noise = -torch.empty_like(self.log_states).exponential_().log()
        state = (self.log_states + temperature * noise).argmax(0)
        kept = torch.zeros_like(state, dtype=noise.dtype) if z is None else torch.where(state == self.continuous, z, 0)
        return state.to(noise.dtype), kept

    def present(self) -> tuple["ColumnConditional", Tensor | float]:
        """Return the same without the last state, of what is missing, and the log-probability of that."""
        if self.log_states is None:
            return self, 0.0
        known = self.log_states[:-1].logsumexp(0)
        kept = torch.cat([self.log_states[:-1] - known, torch.full_like(self.log_states[-1:], -torch.inf)])
        return replace(self, log_states=kept), known

    def to_noise(self, state: Tensor, z: Tensor) -> Tensor:
        """Return standard normal noise in double precision that `from_noise` turns into the same cells.

        States are intervals of probability, one behind the other. A score is at its place in that of the continuous
        state; for another state the middle of its interval is taken.
        """
        conditional = self.double()
        if conditional.log_states is None:
            return conditional._scores.to_noise(z.double())
        below, inside, above = _intervals(conditional.log_states, state)
        # Of the interval of the state, what is below and above the score.
        lower = torch.full_like(inside, 0.5)
        upper = lower
        if conditional.mixture is not None:
            scored = state == self.continuous
            lower = torch.where(scored, conditional.mixture.log_cdf(z.double()).exp(), lower)
            upper = torch.where(scored, conditional.mixture.log_sf(z.double()).exp(), upper)
        return normal_quantile((below + inside * lower).log(), (above + inside * upper).log())

    def from_noise(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states and scores, in double precision, that standard normal noise becomes."""
        conditional = self.double()
        noise = noise.double()
        if conditional.log_states is None:
            return torch.full_like(noise, self.continuous or 0), conditional._scores.from_noise(noise)
        lower, upper = probability_below(noise), probability_below(-noise)
        # Each end of the line has its own edges: next to one, what rare states add would be lost.
        shares = conditional.log_states.exp()
        before, behind = _before(shares), _before(shares.flip(0)).flip(0)
        beyond = torch.where(lower < 0.5, lower > before[1:], upper < behind[:-1])
        state = beyond.sum(0).to(noise.dtype)
        if conditional.mixture is None:
            return state, torch.zeros_like(noise)
        below, inside, above = _intervals(conditional.log_states, state)
        tiny = torch.finfo(noise.dtype).tiny
        share = ((lower - below) / inside).clamp(tiny, 1), ((upper - above) / inside).clamp(tiny, 1)
        # Only rows in the continuous state have a score to look for.
        scored = state == self.continuous
        within = torch.where(scored, normal_quantile(share[0].log(), share[1].log()), 0)
        return state, torch.where(scored, conditional.mixture.from_noise(within), 0)

    @property
    def _scores(self) -> NormalMixtures:
        """The mixture of a column that has no states, and so has nothing else."""
        if self.mixture is None:
            raise StateError("A column needs probabilities of states, a mixture of scores, or both; this one has none.")
        return self.mixture

    def double(self) -> "ColumnConditional":
        """Return the same in double precision."""
        mixture = None if self.mixture is None else self.mixture.double()
        states = None if self.log_states is None else self.log_states.double().log_softmax(0)
        return replace(self, log_states=states, mixture=mixture)


def _intervals(log_states: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities of the states before that of each row, of itself, and of those behind it."""
    share = log_states.exp()
    place = state.long()[None]
    below, above = _before(share), _before(share.flip(0)).flip(0)
    return below.gather(0, place)[0], share.gather(0, place)[0], above.gather(0, place)[0]


def _before(shares: Tensor) -> Tensor:
    """Return the sums of all shares before each, none of which is lost to those behind."""
    return torch.cat([torch.zeros_like(shares[:1]), shares[:-1].cumsum(0)])
