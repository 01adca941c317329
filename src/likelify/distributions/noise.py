"""Noise at the positions of a condition."""

import math
from typing import get_args

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution, check_values
from likelify.distributions.normal import normal_log_prob
from likelify.errors import ConfigError, UnsupportedError
from likelify.names import NoiseName
from likelify.shapes import Shape, along, as_shape, check_size
from likelify.structure import ContextLike, as_context, sum_items


class ChannelNoise(Distribution):
    r"""Independent elements around zero with a trained scale for each channel: noise at the positions of its condition.

    With `"normal"` noise, `log q(u) = -sum u^2 / (2 scale^2) + log scale + log(2 pi) / 2`; with `"uniform"` they lie
    within `scale / 2` of zero, and `log q(u) = -sum log scale` there.

    Args:
        channels: of the noise; its rows and positions are those of the condition `(rows, any, *positions)`.
        noise: `"normal"` or `"uniform"`. A model puts mass everywhere, and what lies outside of uniform noise is lost
            for good; so uniform noise is the worse one (appendix B of the flowification paper).
        scale: at the start.

    Example:
        >>> ChannelNoise(2).rsample((), torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 2, 4, 4])
    """

    def __init__(self, channels: int, noise: NoiseName = "normal", *, scale: float = 1.0) -> None:
        super().__init__()
        check_noise(noise)
        self.noise = noise
        channels = check_size(channels, "The channels of ChannelNoise")
        if not 0 < scale < math.inf:
            raise ConfigError(f"The scale of ChannelNoise is a positive number, not {scale}.")
        self.log_scale = nn.Parameter(torch.full((channels,), math.log(scale)))

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats; minus infinity outside of uniform noise."""
        check_values(x, (len(self.log_scale), *x.shape[2:]), "ChannelNoise")
        log_scale = along(self.log_scale, x.ndim).expand_as(x)
        if self.noise == "normal":
            return sum_items(normal_log_prob(x, torch.zeros_like(x), log_scale), context)
        inside = x.abs() <= 0.5 * log_scale.exp()
        outside = torch.where(x.isnan(), x, -math.inf)
        return sum_items(torch.where(inside, -log_scale, outside), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition; the context's temperature multiplies the scale."""
        context = as_context(context)
        if context.condition is None:
            raise UnsupportedError("ChannelNoise takes rows and positions from its condition; give context=.")
        event = (len(self.log_scale), *context.condition.shape[2:])
        size = (*as_shape(shape), len(context.condition), *event)
        like = {"dtype": self.log_scale.dtype, "device": self.log_scale.device}
        noise = torch.randn(size, **like) if self.noise == "normal" else torch.rand(size, **like) - 0.5
        return context.temperature * along(self.log_scale, 1 + len(event)).exp() * noise


def check_noise(noise: str) -> None:
    """Refuse a kind of noise that there is not."""
    if noise not in get_args(NoiseName):
        raise ConfigError(f"Noise is 'normal' or 'uniform', not {noise!r}.")
