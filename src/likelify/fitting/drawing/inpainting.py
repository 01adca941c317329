"""What an item may hold in places that are hidden, given the others: draws from a flow's conditional distribution.

No flow gives that distribution by itself. What is hidden is guessed at first (`guessing`), and the guess is brought to
the flow's density by importance resampling in steps (`tempering`). Models that write one pixel after the other draw
what is hidden in that order (`filtering`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.errors import ConfigError, InexactLikelihoodError, LikelifyWarning, ShapeError
from likelify.fitting.drawing.draw import chunk_items, draw
from likelify.fitting.drawing.filtering import can_filter, filtered
from likelify.fitting.drawing.guessing import Guess
from likelify.fitting.drawing.tempering import Effort, Particles, effective_size, tempered
from likelify.fitting.settings import ITEM_DRAWS
from likelify.transforms import Chain, Dequantize

if TYPE_CHECKING:
    from likelify.flows import Flow

# Samples of the flow that the first guess is fitted to, and elements that can be hidden.
SAMPLES, MOST_HIDDEN = 4096, 4096
# How far from the edges of their levels values are kept.
EDGE = 1e-4
# Draws of a bound for each weight, so many that the variance of its logarithm is below that, at that many places.
DRAWS, NOISE, PILOT = (1, 4, 16, 64), 1.0, 64
# Effective size below which there is a warning, however few draws are wanted.
FEW = 30


@dataclass(frozen=True, eq=False)
class Completions:
    """Draws of items of which a part was hidden.

    Attributes:
        x: `(items, draws, *event)`; what was known is as it was.
        ess: effective sample size of the particles that they are taken from, `(items,)`: so many independent draws
            would have means as sure as theirs. Below the number of draws, some are alike.
        particles: how many there were for each item; None of rows of tables whose columns are drawn one after the
            other, each with as many as it takes.
        rises: in how many steps the weights were taken in, `(items,)`; one is plain importance resampling.
    """

    x: Tensor
    ess: Tensor
    particles: int | None
    rises: Tensor


def complete(
    flow: Flow,
    x: Tensor,
    hidden: Tensor,
    draws: int = ITEM_DRAWS,
    *,
    levels: int | None = None,
    labels: Tensor | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    on_share: Callable[[float], None] | None = None,
) -> Completions:
    """Draw what is hidden of items, given the rest, under the density of a flow.

    Args:
        flow: whose likelihood is exact or a bound; a bound's draws follow what it is a bound of.
        x: items `(items, *event)`; what they hold at hidden places is not looked at.
        hidden: `(*event)` or `(items, *event)`, true where an element is hidden.
        draws: of each item.
        levels: number of values of an element, for a flow of integers.
        labels: class of each item, for a class-conditional model.
        effort: how many particles and moves.
        seed: of all draws.
        on_share: called with the share that is done.

    Warns:
        LikelifyWarning: if an effective sample size is small.

    Raises:
        InexactLikelihoodError: if the log-determinant of the flow is a noisy estimate.
        ConfigError: if nothing or too much is hidden, or there are more draws than particles.
        ShapeError: if shapes do not fit.
    """
    from likelify.seeding import seeded

    effort = effort or Effort()
    hidden = hidden_places(x, hidden)
    _check(flow, hidden, draws, effort, levels)
    found: list[tuple[Tensor, float, int]] = []
    guesses: dict[int | None, Guess] = {}
    with seeded(seed), torch.no_grad():
        for number, (item, places) in enumerate(zip(x, hidden, strict=True)):
            label = None if labels is None else int(labels[number])
            tell = _share(on_share, number, len(x))
            if can_filter(flow, places):
                particles, ess, times = filtered(flow, item, places, label, effort, tell)
                found.append((particles[torch.randperm(len(particles))[:draws]], ess, times))
                continue
            if label not in guesses:
                guesses[label] = _guess(flow, levels, label, seed)
            found.append(_Puzzle(flow, item, places, label, levels).solve(guesses[label], draws, effort, tell))
    x, ess = torch.stack([each[0] for each in found]), torch.tensor([each[1] for each in found])
    _warn_of_few(ess, draws)
    rises = torch.tensor([each[2] for each in found])
    return Completions(x, ess, effort.islands * effort.particles, rises)


def hidden_places(x: Tensor, hidden: Tensor) -> Tensor:
    """Return which elements are hidden, `(items, *event)`.

    Raises:
        ShapeError: if the mask has another shape than one item or all.
        ConfigError: if it hides nothing of an item.
    """
    if tuple(hidden.shape) == tuple(x.shape[1:]):
        hidden = hidden.expand(x.shape)
    if hidden.shape != x.shape:
        raise ShapeError(
            f"The mask has shape {tuple(hidden.shape)}; it must be {tuple(x.shape[1:])}, or one of them for each item."
        )
    if not bool(hidden.bool().flatten(1).any(1).all()):
        raise ConfigError("The mask hides nothing of an item; it must be true where an element is hidden.")
    return hidden.bool()


def _check(flow: Flow, hidden: Tensor, draws: int, effort: Effort, levels: int | None) -> None:
    counts = hidden.flatten(1).sum(1)
    if int(counts.max()) > MOST_HIDDEN:
        raise ConfigError(f"The mask hides {int(counts.max()):,} elements; at most {MOST_HIDDEN:,} can be drawn.")
    if not 1 <= draws <= effort.islands * effort.particles:
        raise ConfigError(f"There can be 1 to {effort.islands * effort.particles} draws of an item, got {draws}.")
    if flow.transform.takes_integers != (levels is not None):
        raise ConfigError("Levels are for flows of integers, and needed for these.")
    if flow.likelihood == "estimate":
        raise InexactLikelihoodError(
            "Hidden elements cannot be drawn, because the log-determinant of this flow is a noisy estimate; choose its "
            "exact form, with_log_det(flow, 'exact')."
        )


def _share(on_share: Callable[[float], None] | None, done: int, items: int) -> Callable[[float], None]:
    return lambda part: None if on_share is None else on_share((done + part) / items)


def _warn_of_few(ess: Tensor, draws: int) -> None:
    few = int((ess < _enough(draws)).sum())
    if few:
        warnings.warn(
            f"The draws of {few} of {len(ess)} items are worth few independent ones: the smallest effective sample "
            f"size is {float(ess.min()):.1f}, where {_enough(draws):.0f} are wanted. They may miss much of what is "
            "possible. Hide less, or allow more particles and moves.",
            LikelifyWarning,
            stacklevel=3,
        )


def _enough(draws: int) -> float:
    """Return how many independent draws so many draws should at least be worth."""
    return max(FEW, draws / 2)


def _guess(flow: Flow, levels: int | None, label: int | None, seed: int) -> Guess:
    """Return what samples of the flow say of all elements together."""
    count = max(512, min(SAMPLES, 16 * chunk_items(flow.event_shape or (1,))))
    samples = draw(flow, count, labels=None if label is None else [label], seed=seed)
    return Guess.of(samples.flatten(1), levels)


class _Puzzle:
    """An item of which a part is hidden, and a flow: of values in their levels, if it has a layer that dequantizes.

    What is hidden is drawn in all of its levels, and so is what is known, each in its own: the flow's probability of
    the whole item is the integral of its density over that.
    """

    def __init__(self, flow: Flow, item: Tensor, hidden: Tensor, label: int | None, levels: int | None) -> None:
        self.levels, self.label, self.shape, self.samples = levels, label, item.shape, 1
        self.dequantized = levels is not None and _dequantize_of(flow) is not None
        self.flow = _without_first(flow) if self.dequantized else flow
        self.hidden, self.known = hidden.flatten(), item.flatten()[~hidden.flatten()]
        self.like = item if item.is_floating_point() else draw(flow, 1, labels=None if label is None else [label])

    def solve(
        self, guess: Guess, draws: int, effort: Effort, on_share: Callable[[float], None]
    ) -> tuple[Tensor, float, int]:
        """Return draws, their effective sample size, and the rises of the weights."""
        self.guess = guess.given(self.known if self.levels is None else self.known + 0.5, self.hidden)
        self._calm()
        size = len(self.guess.mean)
        total = size + (len(self.known) if self.dequantized else 0)
        blocks = [slice(0, size)] + ([slice(size, total)] if total > size else [])
        with self.flow.frozen():
            particles: Particles = tempered(self.log_weight, blocks, effort, self.like, on_share)
        noise = particles.noise
        values = self.guess.values(noise[..., :size].flatten(0, 1))[0]
        ess = effective_size(values.reshape(*noise.shape[:2], size))
        chosen = torch.randperm(len(values))[:draws]
        values = values[chosen] if self.levels is None else values[chosen].floor().clamp(0, self.levels - 1)
        return self._whole(values.to(self.like.dtype), self.known.to(self.like.dtype)), ess, particles.rises

    def log_weight(self, noise: Tensor) -> Tensor:
        """Return the flow's log-density of what noise stands for minus that of the noise, up to a constant."""
        size = len(self.guess.mean)
        values, slopes = self.guess.values(noise[:, :size])
        known = self.known.to(self.like.dtype)
        if self.dequantized:
            values = values.clamp(EDGE, (self.levels or 0) - EDGE)
            known = known + torch.special.ndtr(noise[:, size:].double()).clamp(EDGE, 1 - EDGE).to(known.dtype)
        elif self.levels is not None:
            values = values.floor().clamp(0, self.levels - 1)
        found = self._log_prob(self._whole(values.to(self.like.dtype), known))
        return found + slopes + 0.5 * noise[:, :size].double().square().sum(1)

    def _log_prob(self, x: Tensor) -> Tensor:
        parts = []
        for part in x.split(chunk_items(self.shape)):
            labels = None if self.label is None else torch.full((len(part),), self.label)
            found = self.flow.iw_log_prob(part, labels, samples=self.samples, warn=False)
            parts.append(found.value.double())
        return torch.cat(parts)

    def _calm(self) -> None:
        """Take as many draws for each weight of a bound as leave little noise in its logarithm."""
        if self.flow.likelihood == "exact":
            return
        noise = torch.randn(PILOT, len(self.guess.mean) + (len(self.known) if self.dequantized else 0))
        for self.samples in DRAWS:
            one, other = self.log_weight(noise), self.log_weight(noise)
            apart = (one - other)[one.isfinite() & other.isfinite()]
            # The variance of a difference is twice that of each.
            if 0.5 * float(apart.square().median()) / 0.455 <= NOISE:
                return

    def _whole(self, values: Tensor, known: Tensor) -> Tensor:
        whole = values.new_empty(len(values), len(self.hidden))
        whole[:, self.hidden], whole[:, ~self.hidden] = values, known
        return whole.reshape(-1, *self.shape)


def _dequantize_of(flow: Flow) -> Dequantize | None:
    """Return the first layer of a flow, if it is one that dequantizes and there are others."""
    layers = list(flow.transform) if isinstance(flow.transform, Chain) else []
    return layers[0] if len(layers) > 1 and isinstance(layers[0], Dequantize) else None


def _without_first(flow: Flow) -> Flow:
    """Return the density of dequantized values: the same flow without its first layer."""
    from likelify.flows import Flow

    layers = list(flow.transform)[1:]  # pyright: ignore[reportArgumentType]
    return Flow(flow.base, Chain(layers), encoder=flow.encoder, event_shape=flow.event_shape)
