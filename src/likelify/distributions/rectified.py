"""Elements that are zero or positive, as behind a ReLU."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values, has_rows, row_count, with_channels
from likelify.distributions.normal import normal_log_prob
from likelify.shapes import Shape, as_shape
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import NOT_NEGATIVE, check_domain, check_sample


class RectifiedNormal(Distribution):
    r"""Independent elements that are zero with a trained probability, and half-normal above zero otherwise.

    The distribution of `max(x, 0)` for normal elements, and so the base behind `ReLU`. `log_prob` adds, for each
    element, the log-probability `log sigmoid(log_odds)` of zero, or elsewhere the log-density
    `log sigmoid(-log_odds) + log(2 N(x; 0, scale^2))`; each channel (the first axis of the event) has two
    parameters of its own. Negative values have density zero.

    Args:
        event_shape: shape of an event; for graphs, of the features of one node.

    Example:
        >>> RectifiedNormal((2,)).log_prob(torch.zeros(1, 2))
        tensor([-1.3863], grad_fn=<SumBackward1>)
    """

    has_atoms = True
    support = NOT_NEGATIVE

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        self.event_shape: Shape = with_channels(event_shape, "RectifiedNormal")  # pyright: ignore[reportIncompatibleVariableOverride]
        shape = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
        self.log_odds = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return for each item the log-probability of its zeros plus the log-density of its other elements, in nats."""
        check_values(x, self.event_shape, "RectifiedNormal")
        above = normal_log_prob(x, torch.zeros_like(self.log_scale), self.log_scale) + math.log(2)
        above = torch.where(x < 0, -math.inf, above + F.logsigmoid(-self.log_odds))
        return sum_items(torch.where(x == 0, F.logsigmoid(self.log_odds), above), context)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the probabilities and scales of the channels from a sample.

        Raises:
            ShapeError: for an empty sample.
            DomainError: for values that are negative or not finite.
        """
        check_sample(x, self)
        check_domain(x >= 0, self, "zero or positive")
        with torch.no_grad():
            channels = x.transpose(0, 1).flatten(1)
            zeros, others = (channels == 0).sum(1), (channels != 0).sum(1)
            # Half an observation of each kind keeps the odds finite.
            log_odds = ((zeros + 0.5) / (others + 0.5)).log()
            square = channels.square().sum(1) / others.clamp_min(1)
            log_scale = torch.where(square > 0, 0.5 * square.log(), self.log_scale.flatten())
            self.log_odds.copy_(log_odds.reshape(self.log_odds.shape))
            self.log_scale.copy_(log_scale.reshape(self.log_scale.shape))

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw; the context's temperature multiplies the scale and divides the log-odds.

        Gradients reach the scales alone: which elements are zero is decided by chance.
        """
        rows = (row_count(context),) if has_rows(context) else ()
        size = (*as_shape(shape), *rows, *self.event_shape)
        temperature = as_context(context).temperature
        like = {"dtype": self.log_scale.dtype, "device": self.log_scale.device}
        # The difference of two Gumbel variables is logistic.
        one, other = torch.empty(2, *size, **like).exponential_().log()
        above = temperature * self.log_scale.exp() * torch.randn(size, **like).abs()
        return torch.where(self.log_odds + temperature * (one - other) >= 0, 0.0, above)
