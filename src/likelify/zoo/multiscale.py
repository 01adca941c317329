"""What multi-scale models of images share, and what those of the convolution exponential paper have in common.

dequantize, bring to the line; for each scale: mixing at full size (if asked for), squeeze, its layers, split prior (not
after the last)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.names import Mixing
from likelify.zoo.halving import HalvedConfig, halving
from likelify.zoo.images import ImageConfig, ImageShape, require_halves
from likelify.zoo.mixers import MIX_EARLY, mixing_layers
from likelify.zoo.registry import ReadBy, Size
from likelify.zoo.single import single_number

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Shape, Transform


class ScalesConfig(ImageConfig, HalvedConfig):
    """Settings of a multi-scale model of images of any size.

    Attributes:
        steps: layers per level.
        dequantization: uniform noise, or a conditional flow.
    """

    usual_levels = 2

    steps: int = Field(default=4, ge=1, le=4096)
    dequantization: Literal["uniform", "variational"] = "uniform"

    def build(self) -> Flow:
        """Return the flow with fresh weights.

        Raises:
            ShapeError: if the image cannot be squeezed that often, or is odd and has variational dequantization.
        """
        from likelify.distributions.normal import Normal

        levels = self.scales
        noise = self._noise() if self.dequantization == "variational" else None
        layers: list[Transform] = [transforms.Dequantize(self.pixel_levels, noise), *self._enter()]
        shape: Shape = self.event_shape
        if math.prod(shape) == 1:
            single, base = single_number(shape, self.classes)
            return self._flow(transforms.Chain([*layers, *single]), base)
        for level in range(levels):
            layers += self._before_halving(shape)
            for layer in halving(shape, self.classes):
                layers.append(layer)
                shape = layer.out_shape(shape)
            channels, height, width = shape
            layers += self._level(level, (channels, height, width))
            if level < levels - 1:
                layers.append(self._split_prior(channels, height, width))
                shape = (channels // 2, height, width)
        return self._flow(transforms.Chain(layers), Normal(shape, trainable=True))

    def _mix(self, kind: Mixing, channels: int, height: int, width: int) -> list[Transform]:
        return mixing_layers(kind, channels, (height, width), **self._limits())

    def _limits(self) -> dict[str, Any]:
        """Return the settings of convolution exponentials: the usual ones, of models that have none of their own."""
        return {}

    def _before_halving(self, shape: Shape) -> list[Transform]:
        """Return the layers that a scale begins with, at the size that the images have before they are squeezed."""
        return []

    def _mix_early(self, kind: Mixing, shape: Shape, *, early: bool | None) -> list[Transform]:
        """Return mixing layers for images before they are squeezed, if `early`, or if that is usual for the kind."""
        usual = kind in MIX_EARLY
        channels, height, width = shape
        return self._mix(kind, channels, height, width) if (usual if early is None else early) else []

    @abstractmethod
    def _noise(self) -> Flow:
        """Return the conditional flow of the dequantization noise."""

    @abstractmethod
    def _enter(self) -> list[Transform]:
        """Return the layers between dequantization and the first scale."""

    @abstractmethod
    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        """Return the layers of one scale for events of that shape."""

    @abstractmethod
    def _split_prior(self, channels: int, height: int, width: int) -> Transform:
        """Return a layer that drops the last half of the channels, with a density given the first."""


class MultiScaleConfig(ScalesConfig):
    """Settings of the models of the convolution exponential paper.

    The published baselines of one table do not all have the same split priors; these do.

    Attributes:
        width: channels around the DenseNets of split priors and dequantizer, and of all couplings of a mixing flow.
        depth: dense layers of each.
        growth: channels each dense layer adds.
        gated: end them in a gated 1x1 convolution.
        noise_steps: couplings of the conditional flow of the dequantization noise.
        noise_features: channels of the image's encoding that they read.
        noise_depth: dense layers of each of the two DenseNets of the encoder.
        checkpoint: run coupling and masked networks again in the backward pass instead of keeping what they computed:
            a third more work, far less memory.
    """

    read_by: ClassVar[ReadBy] = dict.fromkeys(
        ("noise_steps", "noise_features", "noise_depth"), ("dequantization", ("variational",))
    )

    width: Size = 24
    depth: int = Field(default=3, ge=0, le=4096)
    growth: Size = 12
    gated: bool = True
    noise_steps: int = Field(default=4, ge=1, le=4096)
    noise_features: Size = 32
    noise_depth: int = Field(default=4, ge=0, le=4096)
    checkpoint: bool = False

    def _noise_mixing(self) -> Mixing:
        return "1x1"

    def _enter(self) -> list[Transform]:
        return [transforms.Affine(shift=-self.pixel_levels / 2, scale=1 / self.pixel_levels)]

    def _dense_coupling(self, channels: int, context: int | None = None) -> Transform:
        """Return the coupling of the paper: the first half is read, `log s` is kept within +-2."""
        split = transforms.ChannelSplit(channels)
        read, changed = split.sizes
        context = (self.classes or 0) if context is None else context
        settings = {"context_features": context, "gated": self.gated, "checkpoint": self.checkpoint}
        net = nets.DenseConvBlock(read, 2 * changed, self.width, self.depth, self.growth, **settings)
        return transforms.Coupling(split, transforms.AffineBijector(2.0), net)

    def _split_prior(self, channels: int, height: int, width: int) -> Transform:
        """Return a coupling on all channels, behind which the last half is standard normal."""
        from likelify.distributions.normal import Normal

        keep = channels // 2
        return transforms.Chain(
            [self._dense_coupling(channels), transforms.Slice(keep, Normal((channels - keep, height, width)))]
        )

    def _noise(self) -> Flow:
        """Return the conditional flow of the dequantization noise.

        Its mixing layers are turned round: noise is drawn in training, so that direction has to be the quick one.
        """
        from likelify.distributions.normal import Normal

        require_halves(self.event_shape, "variational dequantization")
        channels, height, width = self.event_shape
        shape = (4 * channels, height // 2, width // 2)

        def mix() -> Transform:
            return transforms.Inverse(transforms.Chain(self._mix(self._noise_mixing(), *shape)))

        layers: list[Transform] = [transforms.Logit(), transforms.Squeeze(), mix()]
        for _ in range(self.noise_steps):
            layers += [self._dense_coupling(shape[0], self.noise_features), mix()]
        features, settings = self.noise_features, {"gated": self.gated, "checkpoint": self.checkpoint}
        read = channels + (self.classes or 0)
        encoder = nets.DenseImageEncoder(read, features, self.noise_depth, features, **settings)
        return self._flow(transforms.Chain(layers), Normal(shape, trainable=True), encoder)


class StackConfig(MultiScaleConfig):
    """What the residual, Sylvester and coupling models of tables 2 and 3 share: each step is an ActNorm and a layer.

    Attributes:
        hidden: width of the networks in the layers.
        gated: end the DenseNets of split priors and dequantizer in a gated 1x1 convolution.
    """

    hidden: Size = 96
    gated: bool = False

    @abstractmethod
    def _step(self, shape: ImageShape) -> list[Transform]:
        """Return the layers of one step behind its ActNorm."""

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers: list[Transform] = []
        for _ in range(self.steps):
            layers += [transforms.ActNorm(shape[0]), *self._step(shape)]
        return layers
