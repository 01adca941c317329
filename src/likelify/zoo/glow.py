"""Multi-scale flows of images with a choice of mixing layers and couplings (Kingma and Dhariwal 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.names import Mixing, NormBoundName
from likelify.zoo.images import ImageConfig, require_halves
from likelify.zoo.mixers import mixing_layers
from likelify.zoo.registry import Size, register

if TYPE_CHECKING:
    from torch import nn

    from likelify.flows import Flow
    from likelify.transforms.core import Transform

# Features that the encoder of a variational dequantizer gives to its couplings.
NOISE_FEATURES = 16


@register("glow", kind="image", summary="multi-scale flow with a choice of mixing layers and couplings")
class GlowConfig(ImageConfig):
    """Settings of a glow; height and width must be multiples of `2 ** levels`.

    Attributes:
        levels: scales; half of the channels leave after each but the last.
        steps: actnorm, mixing and coupling, repeated that many times per level.
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`; `conv-exponential` is a 1x1 convolution
            followed by the exponential.
        coupling: bijector of the couplings.
        net_kind: of the coupling networks, a small residual network or the dense block of the paper.
        hidden: width of the networks.
        blocks: residual blocks, or dense layers, of each network.
        kernel_size: of the convolutions in residual blocks; with 1 the network is 3x3, 1x1, 3x3 as in Glow.
        dropout: rate in residual coupling networks, acting in training steps only.
        bins: pieces of the splines.
        norm_bound: the bound that `norm_limit` limits, of `conv_exponential`.
        alpha: of the logit in front, which maps pixels to the line.
        dequantization: uniform noise, or a conditional flow.
    """

    levels: int = Field(default=2, ge=1)
    steps: int = Field(default=4, ge=1)
    mixing: Mixing = "1x1"
    coupling: Literal["affine", "spline"] = "affine"
    net_kind: Literal["residual", "dense"] = "residual"
    hidden: Size = 48
    blocks: int = Field(default=1, ge=0)
    kernel_size: Literal[1, 3, 5] = 1
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bins: int = Field(default=8, ge=2)
    norm_bound: NormBoundName = "reshape"
    alpha: float = Field(default=0.05, ge=0, lt=0.5)
    dequantization: Literal["uniform", "variational"] = "uniform"

    def build(self) -> Flow:
        """Return the flow with fresh weights.

        Raises:
            ShapeError: if the image cannot be squeezed that often.
        """
        from likelify.distributions import ConditionalNormal, Normal

        require_halves(self.event_shape, self.levels, "glow")
        layers: list[Transform] = [
            transforms.Dequantize(self.pixel_levels, self._noise() if self.dequantization == "variational" else None),
            transforms.Affine(scale=1 / self.pixel_levels),
            transforms.Logit(self.alpha),
        ]
        channels, height, width = self.event_shape
        for level in range(self.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            layers.append(transforms.Squeeze())
            for step in range(self.steps):
                layers += self._step(step, (channels, height, width), self.classes or 0)
            if level < self.levels - 1:
                half = channels // 2
                prior = ConditionalNormal(self._net(half, 2 * (channels - half), self.classes or 0))
                layers.append(transforms.Slice(half, prior))
                channels = half
        return self._flow(transforms.Chain(layers), Normal((channels, height, width), trainable=True))

    def _step(self, step: int, shape: tuple[int, int, int], context: int) -> list[Transform]:
        """Return actnorm, mixing, and a coupling that reads a condition of that size."""
        channels, *positions = shape
        mixing = mixing_layers(
            self.mixing, channels, (positions[0], positions[1]), norm_limit=self.norm_limit, norm_bound=self.norm_bound
        )
        split = transforms.ChannelSplit(channels, swap=step % 2 == 1)
        bijector = transforms.AffineBijector() if self.coupling == "affine" else transforms.SplineBijector(self.bins)
        read, changed = split.sizes
        net = self._net(read, bijector.size * changed, context)
        return [transforms.ActNorm(channels), *mixing, transforms.Coupling(split, bijector, net)]

    def _net(self, size_in: int, size_out: int, context: int) -> nn.Module:
        if self.net_kind == "dense":
            return nets.DenseConvBlock(
                size_in, size_out, self.hidden, self.blocks, self.hidden, context_features=context
            )
        return nets.ResidualConvNet(
            size_in,
            size_out,
            self.hidden,
            self.blocks,
            kernel_size=self.kernel_size,
            context_features=context,
            dropout=self.dropout,
        )

    def _noise(self) -> Flow:
        """Return the conditional flow of the dequantization noise: logit, squeeze, steps as in the model, normal."""
        from likelify.distributions import Normal

        channels, height, width = self.event_shape
        shape = (4 * channels, height // 2, width // 2)
        layers: list[Transform] = [transforms.Logit(), transforms.Squeeze()]
        for step in range(2):
            layers += self._step(step, shape, NOISE_FEATURES)
        encoder = nets.ImageEncoder(channels + (self.classes or 0), NOISE_FEATURES)
        return self._flow(transforms.Chain(layers), Normal(shape), encoder)
