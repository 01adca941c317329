"""Multi-scale flows of images with a choice of mixing layers and couplings (Kingma and Dhariwal 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from likelify import nets, transforms
from likelify.names import Mixing, NormBoundName
from likelify.zoo.images import ImageShape, require_halves
from likelify.zoo.mixers import READ_BY_MIXING, ExponentialConfig
from likelify.zoo.multiscale import ScalesConfig
from likelify.zoo.registry import Bins, ReadBy, Size, register

if TYPE_CHECKING:
    from torch import nn

    from likelify.flows import Flow
    from likelify.transforms.core import Shape, Transform

# Features that the encoder of a variational dequantizer gives to its couplings.
NOISE_FEATURES = 16


@register("glow", kind="image", summary="multi-scale flow with a choice of mixing layers and couplings")
class GlowConfig(ExponentialConfig, ScalesConfig):
    """Settings of a glow; each of its steps is actnorm, mixing and coupling.

    Attributes:
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`; `conv-exponential` and
            `axis-exponential` are a 1x1 convolution followed by the exponential.
        mix_early: let the same layers mix the images of each scale before they are squeezed, too; by default if they
            are axis exponentials.
        coupling: bijector of the couplings.
        net_kind: of the coupling networks, a small residual network or the dense block of the paper.
        hidden: width of the networks.
        blocks: residual blocks, or dense layers, of each network.
        kernel_size: of the convolutions in residual blocks; with 1 the network is 3x3, 1x1, 3x3 as in Glow.
        dropout: rate in residual coupling networks, acting in training steps only.
        bins: pieces of the splines.
        alpha: of the logit in front, which maps pixels to the line.
    """

    read_by: ClassVar[ReadBy] = {
        **READ_BY_MIXING,
        "bins": ("coupling", ("spline",)),
        "kernel_size": ("net_kind", ("residual",)),
        "dropout": ("net_kind", ("residual",)),
    }

    mixing: Mixing = "1x1"
    mix_early: bool | None = None
    coupling: Literal["affine", "spline"] = "affine"
    net_kind: Literal["residual", "dense"] = "residual"
    hidden: Size = 48
    blocks: int = Field(default=1, ge=0, le=4096)
    kernel_size: Literal[1, 3, 5] = 1
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bins: Bins = 8
    norm_limit: float | None = Field(default=1.8, gt=0)
    norm_bound: NormBoundName = "reshape"
    alpha: float = Field(default=0.05, ge=0, lt=0.5)

    def _enter(self) -> list[Transform]:
        # No larger than it is in single precision: the highest noise would reach one, where the logit is infinite.
        scale = np.float32(1 / self.pixel_levels)
        scale = scale if float(scale) * self.pixel_levels <= 1 else np.nextafter(scale, np.float32(0))
        return [transforms.Affine(scale=float(scale)), transforms.Logit(self.alpha)]

    def _before_halving(self, shape: Shape) -> list[Transform]:
        return self._mix_early(self.mixing, shape, early=self.mix_early)

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        steps = range(self.steps)
        return [layer for step in steps for layer in self._step(step, shape, self.classes or 0)]

    def _split_prior(self, channels: int, height: int, width: int) -> Transform:
        from likelify.distributions.normal import ConditionalNormal

        keep = channels // 2
        net = self._net(keep, 2 * (channels - keep), self.classes or 0)
        return transforms.Slice(keep, ConditionalNormal(net))

    def _step(self, step: int, shape: ImageShape, context: int) -> list[Transform]:
        """Return actnorm, mixing, and a coupling that reads a condition of that size."""
        channels, mixing = shape[0], self._mix(self.mixing, *shape)
        split = transforms.ChannelSplit(channels, swap=step % 2 == 1)
        bijector = transforms.AffineBijector() if self.coupling == "affine" else transforms.SplineBijector(self.bins)
        read, changed = split.sizes
        net = self._net(read, bijector.size * changed, context)
        return [transforms.ActNorm(channels), *mixing, transforms.Coupling(split, bijector, net)]

    def _net(self, size_in: int, size_out: int, context: int) -> nn.Module:
        if self.net_kind == "dense":
            hidden = self.hidden
            return nets.DenseConvBlock(size_in, size_out, hidden, self.blocks, hidden, context_features=context)
        settings = {"kernel_size": self.kernel_size, "context_features": context, "dropout": self.dropout}
        return nets.ResidualConvNet(size_in, size_out, self.hidden, self.blocks, **settings)

    def _noise(self) -> Flow:
        """Return the conditional flow of the dequantization noise: logit, squeeze, steps as in the model, normal."""
        from likelify.distributions.normal import Normal

        require_halves(self.event_shape, "variational dequantization")
        channels, height, width = self.event_shape
        shape = (4 * channels, height // 2, width // 2)
        layers: list[Transform] = [transforms.Logit(), transforms.Squeeze()]
        for step in range(2):
            layers += self._step(step, shape, NOISE_FEATURES)
        encoder = nets.ImageEncoder(channels + (self.classes or 0), NOISE_FEATURES)
        return self._flow(transforms.Chain(layers), Normal(shape), encoder)
