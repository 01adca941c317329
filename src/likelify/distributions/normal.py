"""Independent normal elements, with parameters of their own or read off the condition."""

import math

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values, has_rows, row_count, with_channels
from likelify.distributions.of_condition import OfCondition
from likelify.errors import ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, ContextLike, as_context, sum_items
from likelify.support import LINE

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def probability_below(z: Tensor) -> Tensor:
    """Return the probability of a standard normal variable below `z`, with all digits where it is small.

    (`torch.special.ndtr` is one minus a number near one there, and zero below -8.3, in float32 below -5.4.)
    """
    return 0.5 * torch.erfc(-math.sqrt(0.5) * z)


class Normal(Distribution):
    r"""Independent normal elements: `log p(x) = -sum (x - loc)^2 / (2 scale^2) + log scale + log(2 pi) / 2`.

    Args:
        event_shape: shape of an event; for graphs, of the features of one node.
        trainable: train a location and a scale for each channel (the first axis of the event), from 0 and 1.

    Example:
        >>> Normal((2,)).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    support = LINE
    loc: Tensor
    log_scale: Tensor

    def __init__(self, event_shape: int | Shape, *, trainable: bool = False) -> None:
        super().__init__()
        self.event_shape: Shape = with_channels(event_shape, "Normal")  # pyright: ignore[reportIncompatibleVariableOverride]
        shape = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
        if trainable:
            self.loc = nn.Parameter(torch.zeros(shape))
            self.log_scale = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("loc", torch.zeros(shape), persistent=False)
            self.register_buffer("log_scale", torch.zeros(shape), persistent=False)

    @property
    def is_standard(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether mean and deviation are 0 and 1 for good."""
        return not self._parameters

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        check_values(x, self.event_shape, "Normal")
        return sum_items(normal_log_prob(x, self.loc, self.log_scale), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw; the context's temperature multiplies the scale."""
        rows = (row_count(context),) if has_rows(context) else ()
        noise = torch.randn(*as_shape(shape), *rows, *self.event_shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + as_context(context).temperature * self.log_scale.exp() * noise

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the elements in units of their deviations from their means."""
        return (x - self.loc) * (-self.log_scale).exp()

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return means plus deviations times noise."""
        return self.loc + self.log_scale.exp() * noise


class ConditionalNormal(OfCondition):
    r"""Independent normal elements whose means and scales a network reads off the condition.

    Args:
        net: called as `net(condition)`; returns `(rows, 2 channels, *positions)`: the log scales of all channels
            (kept within +-3 by `3 tanh(. / 3)`), then the means.
    """

    support = LINE

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        loc, log_scale = self._moments(as_context(context))
        if loc.shape != x.shape:
            raise ShapeError(f"The network gave means of shape {tuple(loc.shape)}, the input has {tuple(x.shape)}.")
        check_values(x, loc.shape[1:], "ConditionalNormal")
        return sum_items(normal_log_prob(x, loc, log_scale), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition; the context's temperature multiplies the scale."""
        loc, log_scale = self._moments(as_context(context))
        noise = torch.randn(*as_shape(shape), *loc.shape, dtype=loc.dtype, device=loc.device)
        return loc + as_context(context).temperature * log_scale.exp() * noise

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the elements in units of their deviations from their means."""
        loc, log_scale = self._moments(as_context(context))
        return (x - loc) * (-log_scale).exp()

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return means plus deviations times noise."""
        loc, log_scale = self._moments(as_context(context))
        return loc + log_scale.exp() * noise

    def _moments(self, context: Context) -> tuple[Tensor, Tensor]:
        raw = self._read(context)
        if raw.ndim < 2 or raw.shape[1] % 2:
            raise ShapeError(
                f"The network of ConditionalNormal gave {tuple(raw.shape)}; its axis 1 must be of even size: "
                "a log scale and a mean for each channel."
            )
        log_scale, loc = raw.chunk(2, dim=1)
        return loc, limit_log_scale(log_scale)


def limit_log_scale(raw: Tensor, limit: float = 3) -> Tensor:
    """Return the log scale that a network means by its output: `limit tanh(raw / limit)`, near zero the output."""
    return limit * torch.tanh(raw / limit)


def normal_log_prob(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return the normal log-density of each element."""
    return -0.5 * ((x - loc) * (-log_scale).exp()) ** 2 - log_scale - LOG_SQRT_2PI
