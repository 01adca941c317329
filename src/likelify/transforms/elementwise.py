"""Maps that act on each element by itself, or on each channel with two parameters of its own."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.shapes import along, check_size
from likelify.structure import ContextLike, sum_items
from likelify.support import MINUS_TO_ONE, POSITIVE, UNIT, Interval, check_sample, strictly_inside, within
from likelify.transforms.core import Transform
from likelify.transforms.inversion import EXACT
from likelify.transforms.rules import SIGNS


class Affine(Transform):
    r"""The fixed map `z = scale (x + shift)`, with log-determinant `D log |scale|`.

    Example:
        >>> centre = Affine(shift=-128.0, scale=1 / 128)
        >>> centre(torch.tensor([[0.0, 128.0, 256.0]]))[0]
        tensor([[-1.,  0.,  1.]])
    """

    fills_space = True
    inverse_check = None

    def __init__(self, *, shift: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        if torch.as_tensor(shift).ndim or torch.as_tensor(scale).ndim:
            raise ShapeError("Affine has one shift and one scale for all elements; ChannelAffine has one per channel.")
        if scale == 0 or not math.isfinite(scale):
            raise ConfigError(f"Affine needs a finite scale other than zero, got {scale}.")
        # Of whole numbers the sum and the product would be whole numbers, and so would their log-determinant.
        self.shift, self.scale = float(shift), float(scale)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Shift, then scale."""
        z = (x + self.shift) * self.scale
        return z, self._log_det(z, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Divide, then shift back."""
        x = z / self.scale - self.shift
        return x, -self._log_det(x, context)

    def carry(self, support: Interval | None) -> Interval | None:
        """Return the interval shifted and scaled."""
        return None if support is None else support.scaled(self.scale, self.shift)

    def _log_det(self, x: Tensor, context: ContextLike) -> Tensor:
        return sum_items(torch.full_like(x, math.log(abs(self.scale))), context)


class ActNorm(Transform):
    r"""A trained shift and scale per channel: `z = (x - shift) exp(log_scale)`, log-determinant `sum log_scale`.

    A fresh layer is the identity. `initialize` sets it so that each channel of the sample has mean 0 and deviation 1
    (Kingma and Dhariwal 2018); without that call the layer is simply trained from the identity.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`.
    """

    fills_space = True
    inverse_check = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = check_size(channels, "The channels of ActNorm")
        self.takes = (channels, ...)
        self.shift = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Shift and scale the channels."""
        shift, log_scale = self._broadcast(x)
        return (x - shift) * log_scale.exp(), sum_items(log_scale.expand_as(x), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale and shift back."""
        shift, log_scale = self._broadcast(z)
        return z * (-log_scale).exp() + shift, -sum_items(log_scale.expand_as(z), context)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the statistics from the sample; a channel that is constant in it keeps scale one."""
        check_sample(x, self)
        with torch.no_grad():
            channels = x.transpose(0, 1).flatten(1)
            self.shift.copy_(channels.mean(1))
            deviation = channels.std(1, correction=0)
            rounding = 8 * torch.finfo(torch.promote_types(channels.dtype, torch.float32)).eps
            smallest = rounding * channels.abs().amax(1)
            self.log_scale.copy_(torch.where(deviation > smallest, -deviation.log(), 0.0))
        return super().initialize(x, context)

    def _broadcast(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return along(self.shift, x.ndim), along(self.log_scale, x.ndim)


def scale_and_shift(module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Return what a batch normalization in evaluation multiplies each channel with, and what it adds.

    Raises:
        UnsupportedError: if the module keeps no running statistics.
    """
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        raise UnsupportedError(
            "A batch normalization without running statistics has no fixed function to convert; build it with "
            "track_running_stats=True and train it, or use ActNorm."
        )
    # In float64, so that rounding of the statistics is not added up in the shift.
    scale = (variance.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -mean.double() * scale
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    return scale.to(mean.dtype), shift.to(mean.dtype)


class ChannelAffine(Transform):
    r"""A trained scale and shift per channel, in the order of batch normalization: `z = scale x + shift`.

    The log-determinant is `sum log |scale|`. The signs of the scales are kept as they are; their sizes are trained
    through their logarithms, so the layer stays a bijection.

    Args:
        scale: `(channels,)`, without zeros.
        shift: `(channels,)`; zero by default.

    Raises:
        DomainError: if a scale is zero or not finite: such a map is no bijection.

    Example:
        >>> ChannelAffine(torch.tensor([2.0, -1.0]))(torch.tensor([[1.0, 1.0]]))[0].detach()
        tensor([[ 2., -1.]])
    """

    fills_space = True
    inverse_check = None

    buffer_rules = {"sign": SIGNS}
    sign: Tensor

    def __init__(self, scale: Tensor, shift: Tensor | None = None) -> None:
        super().__init__()
        scale = scale.detach()
        shift = torch.zeros_like(scale) if shift is None else shift.detach()
        if scale.ndim != 1 or shift.shape != scale.shape:
            raise ShapeError(
                f"ChannelAffine needs a scale and a shift (channels,), got {tuple(scale.shape)}, {tuple(shift.shape)}."
            )
        fit = (scale != 0) & torch.isfinite(scale) & torch.isfinite(shift)
        if not bool(fit.all()):
            raise DomainError(
                f"ChannelAffine: {int((~fit).sum())} of {len(scale)} channels have a scale of zero, or parameters "
                "that are not finite, and so no inverse. Drop these channels, or set their scale to a small number."
            )
        self.takes = (len(scale), ...)
        self.register_buffer("sign", scale.sign())
        self.log_scale = nn.Parameter(scale.abs().log())
        self.shift = nn.Parameter(shift.clone())

    @classmethod
    def from_batch_norm(cls, module: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> "ChannelAffine":
        """Return batch normalization in evaluation: `(x - mean) / sqrt(var + eps)`, times weight, plus bias.

        Statistics of the batch itself would couple its rows; the running ones are taken whatever the module's mode.

        Raises:
            UnsupportedError: if the module keeps no running statistics.
            DomainError: if a weight is zero.
        """
        return cls(*scale_and_shift(module))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Scale, then shift."""
        scale, shift, log_scale = self._broadcast(x)
        return x * scale + shift, sum_items(log_scale.expand_as(x), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Shift, then scale back."""
        scale, shift, log_scale = self._broadcast(z)
        return (z - shift) / scale, -sum_items(log_scale.expand_as(z), context)

    def _broadcast(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = self.sign * self.log_scale.exp()
        return along(scale, x.ndim), along(self.shift, x.ndim), along(self.log_scale, x.ndim)


class Logit(Transform):
    r"""The map from the unit interval to the line, `z = logit(alpha + (1 - 2 alpha) x)`.

    `log dz/dx = log(1 - 2 alpha) - log p - log(1 - p)` with `p = alpha + (1 - 2 alpha) x`. A small `alpha` keeps the
    ends of the interval at a finite place (Papamakarios et al. 2017 use 0.05 for CIFAR-10); what the base then puts
    beyond `logit(alpha)` falls outside the interval when sampled, and is missing from the mass inside.

    Args:
        alpha: in `[0, 1/2)`.

    Raises:
        DomainError: for values outside [0, 1] (with `alpha=0`, outside (0, 1)).
    """

    inverse_check = EXACT

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ConfigError(f"Logit needs 0 <= alpha < 1/2, got {alpha}.")
        self.alpha = alpha
        self.domain = Interval(0.0, 1.0, closed=alpha > 0)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Squeeze towards one half, then take the logit."""
        inside = (x > 0) & (x < 1) if self.alpha == 0 else (x >= 0) & (x <= 1)
        x, inside = within(x, inside, self, str(self.domain), 0.5)
        p = self.alpha + (1 - 2 * self.alpha) * x
        # 1 - p from 1 - x: p itself has lost the small digits near one.
        q = self.alpha + (1 - 2 * self.alpha) * (1 - x)
        log_p, log_q = p.log(), q.log()
        log_slope = math.log(1 - 2 * self.alpha) - log_p - log_q
        return log_p - log_q, sum_items(torch.where(inside, log_slope, -math.inf), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the sigmoid and undo the squeeze."""
        x = (strictly_inside(torch.sigmoid(z), UNIT) - self.alpha) / (1 - 2 * self.alpha)
        log_slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log(1 - 2 * self.alpha)
        return x, sum_items(log_slope, context)


class Sigmoid(Transform):
    """The map `z = 1 / (1 + exp(-x))` from the line to (0, 1); its inverse refuses values outside.

    Values that would be rounded to an end, in float32 those above 17, become the number next to it.
    """

    inverse_check = EXACT
    image = UNIT

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the sigmoid."""
        return strictly_inside(torch.sigmoid(x), UNIT), sum_items(F.logsigmoid(x) + F.logsigmoid(-x), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the logit."""
        z, inside = within(z, (z > 0) & (z < 1), self, "(0, 1)", 0.5)
        log_p, log_q = z.log(), (-z).log1p()
        return log_p - log_q, sum_items(torch.where(inside, -log_p - log_q, -math.inf), context)


class Tanh(Transform):
    """The map `z = tanh(x)` from the line to (-1, 1); its inverse refuses values outside.

    Values that would be rounded to an end, in float32 those beyond 9, become the number next to it.
    """

    image = MINUS_TO_ONE

    inverse_check = EXACT

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take tanh; `log dz/dx = 2 (log 2 - x + log sigmoid(2x))` does not cancel for large x."""
        log_slope = 2 * (math.log(2) - x + F.logsigmoid(2 * x))
        return strictly_inside(torch.tanh(x), MINUS_TO_ONE), sum_items(log_slope, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take artanh."""
        z, inside = within(z, z.abs() < 1, self, "(-1, 1)", 0.0)
        return torch.atanh(z), sum_items(torch.where(inside, -(z.log1p() + (-z).log1p()), -math.inf), context)


class Softplus(Transform):
    """The map `z = log(1 + exp(x))` from the line to the positive numbers; its inverse refuses others."""

    inverse_check = EXACT
    image = POSITIVE

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take softplus."""
        return strictly_inside(F.softplus(x, threshold=40), POSITIVE), sum_items(F.logsigmoid(x), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take `log(exp(z) - 1)`."""
        z, inside = within(z, z > 0, self, "the positive numbers", 1.0)
        log_slope = (-torch.expm1(-z)).log()
        return z + log_slope, sum_items(torch.where(inside, -log_slope, -math.inf), context)
