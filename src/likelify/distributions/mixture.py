"""Mixtures of any distributions of one kind of event."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from likelify.calling import parts_read
from likelify.distributions.core import Distribution, Likelihood, has_rows, repeat_context, row_count
from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.linalg.bounds import widest
from likelify.regularizing import ActsInTraining
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, ContextLike, as_context, with_condition
from likelify.support import Interval, hull

# Rounds of expectation and maximization for the weights.
ROUNDS = 200
INEXACT: dict[Likelihood, int] = {"exact": 0, "bound": 1, "estimate": 2}


class Mixture(Distribution, ActsInTraining):
    r"""A mixture of distributions: `log p(x) = logsumexp_k(log w_k + log p_k(x))`, exact if its members are.

    Any distributions of the same events can be members: bases, flows, other mixtures. A mixture of a rich model with
    simple ones, weighed by `stack` on rows that none was trained on, is seldom worse than the best of them, and finite
    wherever one of them is.

    Args:
        members: distributions, with or without trainable parameters.
        apart: members are trained apart: in training steps (see `regularizing.regularized`) the value is the mean of
            the log-densities of those that have trainable parameters, no other is computed, and weights change by
            `stack` alone. Otherwise weights are trained with the members.

    Attributes:
        log_weights: normalized, `(members,)`.

    Raises:
        ConfigError: without members.
        ShapeError: if they are of different events.
        UnsupportedError: if some give whole numbers, or other single values, their probabilities, and others have
            densities.

    Example:
        >>> from likelify.distributions import Normal
        >>> pair = Mixture([Normal(1), Normal(1)])
        >>> pair.log_prob(torch.zeros(1, 1))
        tensor([-0.9189], grad_fn=<WhereBackward0>)
        >>> pair.weights.tolist()
        [0.5, 0.5]
    """

    log_odds: Tensor

    def __init__(self, members: Sequence[Distribution], *, apart: bool = False) -> None:
        super().__init__()
        for member in members:
            if not isinstance(member, Distribution):
                raise ConfigError(f"A member of a Mixture is a Distribution, and got a {type(member).__name__}.")
        if not members:
            raise ConfigError("A Mixture needs at least one member.")
        shapes = {member.event_shape for member in members if member.event_shape is not None}
        if len(shapes) > 1:
            raise ShapeError(f"The members of a Mixture are of different events: {', '.join(map(str, shapes))}.")
        if len({member.of_integers for member in members}) > 1:
            whole = next(type(member).__name__ for member in members if member.of_integers)
            raise UnsupportedError(
                f"Some members of this Mixture give whole numbers their probabilities ({whole}), and others have "
                "densities; the two do not add up. Mix models of whole numbers with their like."
            )
        if len({member.has_atoms for member in members}) > 1:
            atoms = next(type(member).__name__ for member in members if member.has_atoms)
            raise UnsupportedError(
                f"Some members of this Mixture give single values a probability of their own ({atoms}), and others "
                "have densities there; the two do not add up. Mix members that have such values with their like."
            )
        self.event_shape = next(iter(shapes), None)
        self.members = nn.ModuleList(members)
        self.apart = apart
        if apart:
            self.register_buffer("log_odds", torch.zeros(len(members)))
        else:
            self.log_odds = nn.Parameter(torch.zeros(len(members)))

    @property
    def log_weights(self) -> Tensor:
        """Logarithms of the weights, which add up to one."""
        return self.log_odds.log_softmax(0)

    @property
    def weights(self) -> Tensor:
        """Weights of the members, `(members,)`, without gradients."""
        return self.log_weights.detach().exp()

    @property
    def stacks(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `stack` sets weights: its own if members are trained apart, or those of a member."""
        return self.apart or any(member.stacks for member in self._members)

    @property
    def likelihood(self) -> Likelihood:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of its least exact member."""
        return max((member.likelihood for member in self._members), key=INEXACT.__getitem__)

    @property
    def has_atoms(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether some member has atoms."""
        return any(member.has_atoms for member in self._members)

    @property
    def of_integers(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the members give whole numbers their probabilities."""
        return any(member.of_integers for member in self._members)

    @property
    def support(self) -> Interval | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the supports of all members reach over; None if one of them is not known."""
        known = [member.support for member in self._members if member.support is not None]
        if len(known) < len(self._members):
            return None
        return hull(known)

    @property
    def reads_condition(self) -> bool:
        """Whether some member may read the condition of the context."""
        return parts_read(self)

    @property
    def _members(self) -> list[Any]:
        return list(self.members)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats; in training steps of members apart their mean, see there."""
        if self.apart and self.active:
            trained = [m for m in self._members if any(p.requires_grad for p in m.parameters())]
            if trained:
                context = self._offered(context)
                return torch.stack([member.log_prob(x, context) for member in trained]).mean(0)
        joint = self._each(x, context) + self.log_weights[:, None]
        # Where there is nothing, weights have no gradient; that of a sum of no terms is undefined.
        nothing = (joint == -math.inf).all(0)
        return torch.where(nothing, -math.inf, torch.where(nothing, 0, joint).logsumexp(0))

    def responsibilities(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the probabilities that each item comes from each member, `(items, members)`."""
        return (self._each(x, context) + self.log_weights[:, None]).softmax(0).T

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Fit what depends on data in all members."""
        context = self._offered(context)
        for member in self._members:
            member.initialize(x, context)

    def stack(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the weights by expectation and maximization on rows that no member was trained on.

        It starts from equal weights, and these count as much as one more row, so that no weight becomes zero. Rows
        that no member can have made have no say, nor has a member in rows that it has no number for. Members that
        are mixtures set their own weights first. Weights that are trained with the members (not `apart`) stay as
        they are.
        """
        with torch.no_grad():
            for member in self._members:
                member.stack(x, self._offered(context))
            if not self.apart:
                return
            # A member that fails on a row has no share in it.
            log_probs = widest(self._each(x, context)).nan_to_num(-math.inf, posinf=math.inf, neginf=-math.inf)
            log_probs = log_probs[:, log_probs.amax(0).isfinite()]
            weights = log_probs.new_full((len(self.members),), 1 / len(self.members))
            prior = weights
            for _ in range(ROUNDS):
                shares = (log_probs + weights.log()[:, None]).softmax(0)
                weights = (shares.sum(1) + prior) / (log_probs.shape[1] + 1)
            self.log_odds.copy_(weights.log())

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw a member by its weight for each event, and the event from it."""
        with torch.no_grad():
            return self._draw(as_shape(shape), as_context(context))

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw without gradients, and return the log-density of what was drawn."""
        shape = as_shape(shape)
        drawn = self.sample(shape, context)
        rows, repeated = repeat_context(shape, context)
        leading = (*shape, row_count(context)) if has_rows(context) else shape
        log_prob = self.log_prob(drawn.reshape(math.prod(leading), *drawn.shape[len(leading) :]), repeated)
        return drawn, log_prob.reshape(leading)

    def complete(self, x: Tensor, known: Tensor, *, draws: int = 1, present: bool = False) -> tuple[Tensor, Tensor]:
        """Return cells of which some columns are kept and the others are drawn; see `Distribution.complete`.

        Every member that can draws each event, and one of them is taken, by its weight and by how likely what is known
        is to it. What members add that cannot is made up for by the log-weight.
        """
        able = [i for i, member in enumerate(self._members) if can_complete(member)]
        if not able:
            raise UnsupportedError("No member of this Mixture can draw some columns given others.")
        with torch.no_grad():
            found = [self._members[i].complete(x, known, draws=draws, present=present) for i in able]
            drawn, weights = (torch.stack(parts) for parts in zip(*found, strict=True))
            weights = weights + self.log_weights[able][:, None, None]
            noise = -torch.empty_like(weights).exponential_().log()
            taken = (weights + noise).argmax(0)
            places = taken[None, :, :, None, None].expand(1, *drawn.shape[1:])
            drawn, weight = drawn.gather(0, places)[0], weights.logsumexp(0)
            if len(able) < len(self._members):
                joint = self._each(drawn.flatten(0, 1)) + self.log_weights[:, None]
                weight = weight + (joint.logsumexp(0) - joint[able].logsumexp(0)).reshape(weight.shape)
            return drawn, weight

    def completes_exactly(self, known: Tensor, *, present: bool = False) -> Tensor:
        """Tell of which rows all members draw exactly: a member is then taken by its probability given what is known.

        Args:
            known: which columns are kept, truth values `(rows, d)`.
            present: draw no missing values.
        """
        return torch.stack([member.completes_exactly(known, present=present) for member in self._members]).all(0)

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the noise of one member; those of two members are not the same.

        It is the heaviest of those that have one and trainable parameters, or, if there is none, of those that have
        one; of equally heavy ones the first.

        Raises:
            UnsupportedError: if there is none.
        """
        return self._noisy().to_noise(x, self._offered(context))

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return what noise becomes in a draw of the member whose noise `to_noise` gives.

        Raises:
            UnsupportedError: if there is none.
        """
        return self._noisy().from_noise(noise, self._offered(context))

    def _noisy(self) -> Distribution:
        able = [place for place, member in enumerate(self._members) if has_noise(member)]
        # What is only fitted knows less of how columns depend on each other, however heavy it is.
        able = [place for place in able if any(True for _ in self._members[place].parameters())] or able
        weights = self.log_weights.tolist()
        if able:
            return self._members[max(able, key=weights.__getitem__)]
        raise UnsupportedError("No member of this Mixture has draws that are made of normal noise.")

    def _each(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-densities of all members, `(members, items)`."""
        context = self._offered(context)
        return torch.stack([member.log_prob(x, context) for member in self._members])

    def _offered(self, context: ContextLike) -> Context:
        """Return the context for members, of which it is enough that one reads the condition."""
        context = as_context(context)
        return replace(context, must_be_read=context.must_be_read and not self.reads_condition)

    def _draw(self, shape: Shape, context: Context) -> Tensor:
        if context.structure is not None:
            raise UnsupportedError("A Mixture draws no graphs: members may say nothing of single ones of them.")
        rows, repeated = repeat_context(shape, context) if has_rows(context) else (math.prod(shape), context)
        repeated = self._offered(repeated)
        member = torch.multinomial(self.weights.expand(max(rows, 1), -1), 1)[:rows, 0]
        parts, places = [], []
        for number, distribution in enumerate(self._members):
            place = (member == number).nonzero()[:, 0]
            if len(place) or not rows:
                parts.append(self._drawn_of(distribution, place, repeated))
                places.append(place)
        drawn, order = torch.cat(parts), torch.cat(places)
        drawn = drawn[order.argsort()]
        leading = (*shape, row_count(context)) if has_rows(context) else shape
        return drawn.reshape(*leading, *drawn.shape[1:]) if leading else drawn[0]

    @staticmethod
    def _drawn_of(member: Distribution, places: Tensor, context: Context) -> Tensor:
        if context.condition is None:
            return member.sample((len(places),), context)
        return member.sample((), with_condition(context, context.condition[places]))


def can_complete(distribution: Distribution) -> bool:
    """Tell whether a distribution can draw some columns given others."""
    if isinstance(distribution, Mixture):
        return any(can_complete(member) for member in distribution._members)
    return type(distribution).complete is not Distribution.complete


def has_noise(distribution: Distribution) -> bool:
    """Tell whether draws of a distribution are made of normal noise, as far as its class says."""
    if isinstance(distribution, Mixture):
        return any(has_noise(member) for member in distribution._members)
    inner = getattr(distribution, "base", None)
    if isinstance(inner, Distribution):
        return has_noise(inner)
    return type(distribution).to_noise is not Distribution.to_noise
