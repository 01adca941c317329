"""Integers whose log-odds a network reads off the condition."""

import math

import torch
from torch import Tensor, nn

from likelify.distributions.core import item_count, repeat_context
from likelify.distributions.of_condition import OfCondition
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, ContextLike, as_context, sum_items
from likelify.tracing import is_tracing


class ConditionalCategorical(OfCondition):
    r"""Independent integers `0 .. levels - 1` whose log-odds a network reads off the condition: pixels of an image.

    `log p(x) = sum log softmax(net(condition))[x]`, a log-probability; the observation model of a VAE on images needs
    no dequantization.

    Args:
        net: called as `net(condition)`; returns `(rows, levels * channels, *positions)`: the first level of every
            channel, then the second of every channel, and so on.
        levels: number of values, at least two.

    Raises:
        DomainError: for values that are not integers of the range.

    Example:
        >>> pixels = ConditionalCategorical(nn.Linear(3, 2 * 4), levels=4)
        >>> pixels.log_prob(torch.tensor([[0, 3]]), torch.zeros(1, 3)).shape
        torch.Size([1])
    """

    of_integers = True

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ConfigError(f"ConditionalCategorical needs at least 2 levels, got {levels}.")
        self.net = net
        self.levels = levels

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-probability of each item in nats, for integers in any dtype."""
        log_odds = self._log_odds(as_context(context))
        if x.shape != (len(log_odds), *log_odds.shape[2:]):
            raise ShapeError(
                f"The network is for events {tuple(log_odds.shape[2:])} in {len(log_odds)} rows, the input has shape "
                f"{tuple(x.shape)}."
            )
        # In 64 bits: eight do not hold the number of their values.
        chosen = x.long()
        if not is_tracing() and not bool(((chosen >= 0) & (chosen < self.levels) & (chosen == x)).all()):
            raise DomainError(f"ConditionalCategorical: some values are not integers 0..{self.levels - 1}.")
        return sum_items(_at_levels(log_odds, chosen), context)

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition, integers in the network's dtype.

        The log-odds are divided by the context's temperature; at temperature zero each is the likeliest one.
        """
        with torch.no_grad():
            return self._draw(self._log_odds(as_context(context)), as_shape(shape), context)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw, and return the log-probabilities `(*shape, items)`, which have gradients; the draws have none."""
        log_odds, shape = self._log_odds(as_context(context)), as_shape(shape)
        drawn = self._draw(log_odds, shape, context)
        rows, repeated = repeat_context(shape, context)
        flat = drawn.reshape(rows, *log_odds.shape[2:])
        log_odds = log_odds.repeat(math.prod(shape), *(1,) * (log_odds.ndim - 1))
        return drawn, sum_items(_at_levels(log_odds, flat), repeated).reshape(*shape, item_count(context))

    def _log_odds(self, context: Context) -> Tensor:
        """Return normalized log-probabilities, `(rows, levels, channels, *positions)`."""
        raw = self._read(context)
        if raw.ndim < 2 or raw.shape[1] % self.levels:
            raise ShapeError(
                f"The network gave {tuple(raw.shape)}; its axis 1 must be a multiple of the {self.levels} levels."
            )
        return raw.unflatten(1, (self.levels, -1)).log_softmax(1)

    @staticmethod
    def _draw(log_odds: Tensor, shape: Shape, context: ContextLike) -> Tensor:
        # The largest of log-odds with Gumbel noise follows them (Gumbel 1954); noise times T divides them by T.
        noise = -torch.empty(*shape, *log_odds.shape, dtype=log_odds.dtype, device=log_odds.device).exponential_().log()
        drawn = log_odds.detach() + as_context(context).temperature * noise
        return drawn.argmax(len(shape) + 1).to(log_odds.dtype)


def _at_levels(log_odds: Tensor, x: Tensor) -> Tensor:
    return log_odds.gather(1, x.long()[:, None])[:, 0]
