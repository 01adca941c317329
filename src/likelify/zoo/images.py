"""Ready-made flows of images."""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from likelify.distributions import ConditionalNormal, Normal
from likelify.flows import Flow
from likelify.names import Mixing, NormBoundName
from likelify.nets import MLP, DenseConvBlock, ImageEncoder, OneHot, ResidualConvNet
from likelify.transforms.core import Chain, Transform
from likelify.transforms.coupling import (
    AffineBijector,
    Bijector,
    ChannelSplit,
    Coupling,
    MaskSplit,
    SplineBijector,
)
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.elementwise import ActNorm, Affine, Logit
from likelify.transforms.exponential.layers import conv_exponential
from likelify.transforms.marginal import FittedMarginal
from likelify.transforms.reshape import Flatten, Squeeze
from likelify.transforms.surjections.dimension import Slice
from likelify.zoo.mixers import mixing_layers
from likelify.zoo.settings import ImageConfig, ImageShape, Size, require_halves

# Features that the encoder of a variational dequantizer gives to its couplings.
NOISE_FEATURES = 16


class GlowConfig(ImageConfig):
    """Settings of `glow`; height and width must be multiples of `2 ** levels`.

    Attributes:
        model: name of the model.
        levels: scales; half of the channels leave after each but the last.
        steps: actnorm, mixing and coupling, repeated that many times per level.
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`; `conv-exponential` is a 1x1 convolution
            followed by the exponential.
        coupling: bijector of the couplings.
        net: coupling networks, a small residual network or the dense block of the paper.
        hidden: width of the networks.
        blocks: residual blocks, or dense layers, of each network.
        kernel_size: of the convolutions in residual blocks; with 1 the network is 3x3, 1x1, 3x3 as in Glow.
        dropout: rate in residual coupling networks, acting in training steps only.
        bins: pieces of the splines.
        norm_bound: the bound that `norm_limit` limits, of `conv_exponential`.
        alpha: of the logit in front, which maps pixels to the line.
        dequantization: uniform noise, or a conditional flow.
    """

    summary: ClassVar[str] = "multi-scale flow with a choice of mixing layers and couplings"

    model: Literal["glow"] = "glow"
    levels: int = Field(default=2, ge=1)
    steps: int = Field(default=4, ge=1)
    mixing: Mixing = "1x1"
    coupling: Literal["affine", "spline"] = "affine"
    net: Literal["residual", "dense"] = "residual"
    hidden: Size = 48
    blocks: int = Field(default=1, ge=0)
    kernel_size: Literal[1, 3, 5] = 1
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bins: int = Field(default=8, ge=2)
    norm_bound: NormBoundName = "reshape"
    alpha: float = Field(default=0.05, ge=0, lt=0.5)
    dequantization: Literal["uniform", "variational"] = "uniform"

    def build(self) -> Flow:
        """Build the flow with fresh weights.

        Raises:
            ShapeError: if the image cannot be squeezed that often.
        """
        require_halves(self.event_shape, self.levels, "glow")
        layers: list[Transform] = [
            Dequantize(self.pixel_levels, self._noise() if self.dequantization == "variational" else None),
            Affine(scale=1 / self.pixel_levels),
            Logit(self.alpha),
        ]
        channels, height, width = self.event_shape
        for level in range(self.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            layers.append(Squeeze())
            for step in range(self.steps):
                layers += [ActNorm(channels), *self._mix(channels, height, width), self._couple(channels, step)]
            if level < self.levels - 1:
                half = channels // 2
                prior = ConditionalNormal(self._net(half, 2 * (channels - half), self.classes or 0))
                layers.append(Slice(half, prior))
                channels = half
        base = Normal((channels, height, width), trainable=True)
        encoder = None if self.classes is None else OneHot(self.classes)
        return Flow(base, Chain(layers), encoder=encoder, event_shape=self.event_shape)

    def _net(self, size_in: int, size_out: int, context: int) -> nn.Module:
        if self.net == "dense":
            return DenseConvBlock(size_in, size_out, self.hidden, self.blocks, self.hidden, context_features=context)
        return ResidualConvNet(
            size_in,
            size_out,
            self.hidden,
            self.blocks,
            kernel_size=self.kernel_size,
            context_features=context,
            dropout=self.dropout,
        )

    def _bijector(self) -> Bijector:
        return AffineBijector() if self.coupling == "affine" else SplineBijector(self.bins)

    def _couple(self, channels: int, step: int, context: int | None = None) -> Coupling:
        split, bijector = ChannelSplit(channels, swap=step % 2 == 1), self._bijector()
        read, changed = split.sizes
        context = (self.classes or 0) if context is None else context
        return Coupling(split, bijector, self._net(read, bijector.size * changed, context))

    def _mix(self, channels: int, height: int, width: int) -> list[Transform]:
        return mixing_layers(
            self.mixing, channels, (height, width), norm_limit=self.norm_limit, norm_bound=self.norm_bound
        )

    def _noise(self) -> Flow:
        """Build the conditional flow of the dequantization noise: logit, squeeze, steps as in the model, normal."""
        channels, height, width = self.event_shape
        shape = squeezed, _, _ = (4 * channels, height // 2, width // 2)
        layers: list[Transform] = [Logit(), Squeeze()]
        for step in range(2):
            layers += [ActNorm(squeezed), *self._mix(*shape), self._couple(squeezed, step, NOISE_FEATURES)]
        encoder = ImageEncoder(channels + (self.classes or 0), NOISE_FEATURES)
        base = Normal(shape)
        return Flow(base, Chain(layers), encoder=encoder, event_shape=self.event_shape)


class MarginalSplineConfig(ImageConfig):
    """Settings of `marginal_spline`, for small images, since the networks read whole images.

    Attributes:
        model: name of the model.
        couplings: number of spline couplings; their masks alternate between checkerboards, columns and rows.
        bins: pieces of the splines.
        spline_bound: the splines act on `[-spline_bound, spline_bound]`.
        hidden: widths of the hidden layers of the coupling networks.
        dropout: rate in the coupling networks, acting in training steps only.
        exponentials: convolution exponentials after the couplings.
        pseudo_count: of the fitted marginals.
    """

    summary: ClassVar[str] = "fitted marginals and spline couplings, for small images; default of digits"

    model: Literal["marginal-spline"] = "marginal-spline"
    couplings: int = Field(default=10, ge=1)
    bins: int = Field(default=4, ge=2)
    spline_bound: float = Field(default=4.0, gt=0)
    hidden: tuple[Size, ...] = (128, 128)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    exponentials: int = Field(default=1, ge=0)
    pseudo_count: float = Field(default=0.5, gt=0)

    def build(self) -> Flow:
        """Build the flow with fresh weights."""
        channels = self.event_shape[0]
        layers: list[Transform] = [
            Dequantize(self.pixel_levels),
            FittedMarginal(self.event_shape, self.pixel_levels, pseudo_count=self.pseudo_count),
        ]
        for index in range(self.couplings):
            split = MaskSplit(position_mask(self.event_shape, index))
            bijector = SplineBijector(self.bins, self.spline_bound)
            read, changed = split.sizes
            net = MLP(
                read,
                changed * bijector.size,
                self.hidden,
                context_features=self.classes or 0,
                dropout=self.dropout,
            )
            layers.append(Coupling(split, bijector, net))
        layers += [conv_exponential(channels, norm_limit=self.norm_limit) for _ in range(self.exponentials)]
        flatten = Flatten(self.event_shape)
        size = flatten.out_shape(self.event_shape)
        encoder = None if self.classes is None else OneHot(self.classes)
        return Flow(
            Normal(size),
            Chain([*layers, flatten, ActNorm(*size)]),
            encoder=encoder,
            event_shape=self.event_shape,
        )


def position_mask(event_shape: ImageShape, index: int) -> Tensor:
    """Return the mask of the coupling with that number: checkerboard, columns, checkerboard, rows, and so on.

    Odd numbers give the complement of the mask before; where an image is one pixel wide, its columns are alike, and the
    checkerboard stands in.
    """
    channel, row, column = torch.meshgrid(*(torch.arange(n) for n in event_shape), indexing="ij")
    checkerboard = (channel + row + column) % 2
    stripes = column if (index // 2) % 4 == 1 else row
    mask = checkerboard if (index // 2) % 2 == 0 or int(stripes.max()) == 0 else stripes % 2
    return mask == index % 2


def glow(event_shape: ImageShape, levels: int = 2, steps: int = 4, *, mixing: Mixing = "1x1", **settings: Any) -> Flow:
    """Build a multi-scale flow of images (Kingma and Dhariwal 2018) with a choice of mixing layers.

    Args:
        event_shape: `(channels, height, width)`.
        levels: scales.
        steps: steps per level.
        mixing: `"1x1"`, `"conv-exponential"`, `"emerging"` or another of `likelify.zoo.mixers`.
        **settings: as in `GlowConfig`.

    Raises:
        ConfigError: for unknown settings or values out of range.
        ShapeError: if the image cannot be squeezed that often.

    Example:
        >>> flow = glow((3, 8, 8), levels=1, steps=1, mixing="conv-exponential", hidden=8)
        >>> flow.elbo(torch.randint(256, (2, 3, 8, 8))).value.shape
        torch.Size([2])
    """
    values = {"event_shape": event_shape, "levels": levels, "steps": steps, "mixing": mixing}
    return GlowConfig.parse(values | settings).build()


def marginal_spline(event_shape: ImageShape, **settings: Any) -> Flow:
    """Build the default flow of small images: fitted marginals, spline couplings on position masks, an exponential.

    Call `flow.initialize(images)` once before training, which fits the marginals; the flow then starts as the
    independent-pixel model.

    Args:
        event_shape: `(channels, height, width)`.
        **settings: as in `MarginalSplineConfig`.

    Raises:
        ConfigError: for unknown settings or values out of range.
    """
    return MarginalSplineConfig.parse({"event_shape": event_shape} | settings).build()
