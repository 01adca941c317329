"""Flowified networks of images: layers that forget have a likelihood (Mate et al. 2022, appendix F)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.zoo.flowified import FlowifiedLayers
from likelify.zoo.images import ImageConfig, ImageShape
from likelify.zoo.registry import Bins, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Shape, Transform


class Conv(NamedTuple):
    """A convolution of an architecture, and the number of couplings behind it."""

    channels: int
    kernel: int
    stride: int
    couplings: int = 0


class Linear(NamedTuple):
    """A linear layer of an architecture, and the number of couplings behind it."""

    width: int
    couplings: int = 0


Architecture = tuple[list[Conv], list[Linear]]
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)

# Widths of the layers of FMLP.
MLP_WIDTHS: dict[ImageShape, tuple[int, ...]] = {MNIST: (512, 256, 128, 64, 32, 8), CIFAR: (1024, 512, 512, 256, 128)}
TAIL = [Linear(64)] * 6 + [Linear(32)] * 7 + [Linear(8)]
NSF_TAIL = [Linear(64, 2), Linear(32, 2), Linear(8, 2)]
OVERLAPPING: dict[ImageShape, Architecture] = {
    MNIST: ([Conv(16, 3, 2), Conv(24, 2, 2), Conv(32, 3, 2), Conv(48, 2, 1), Conv(64, 2, 1)], TAIL),
    CIFAR: ([Conv(27, 3, 2), Conv(64, 3, 2), Conv(100, 3, 2), Conv(112, 3, 2), Conv(128, 2, 2)], [Linear(128)] * 10),
}
OVERLAPPING_NSF: dict[ImageShape, Architecture] = {
    MNIST: (OVERLAPPING[MNIST][0], NSF_TAIL),
    CIFAR: (
        [Conv(27, 3, 2, 4), Conv(48, 3, 2, 4), Conv(72, 3, 2, 4), Conv(96, 3, 2), Conv(128, 2, 2)],
        [Linear(128, 8)],
    ),
}
DISJOINT: dict[ImageShape, Architecture] = {
    MNIST: ([Conv(channels, 2, 2) for channels in (4, 16, 32, 48, 64)], TAIL),
    CIFAR: ([Conv(channels, 2, 2) for channels in (12, 48, 100, 112, 128)], [Linear(128)] * 12),
}
DISJOINT_NSF: dict[ImageShape, Architecture] = {
    MNIST: ([Conv(4, 2, 2, 2), Conv(16, 2, 2, 2), Conv(24, 2, 2, 2), Conv(32, 2, 2, 2), Conv(64, 2, 2)], NSF_TAIL),
    CIFAR: (
        [Conv(12, 2, 2, 4), Conv(48, 2, 2, 4), Conv(72, 2, 2, 4), Conv(96, 2, 2), Conv(128, 2, 2)],
        [Linear(128, 6)],
    ),
}


class FlowifiedConfig(FlowifiedLayers, ImageConfig):
    """What the flowified models of images share.

    Attributes:
        front: what meets the dequantized pixels: a scale that brings them to (-1, 1), as in the paper; or marginals
            that are fitted to each pixel, which makes each of them normal to begin with.
        reflections: of each rotation of the method `"householder"`, an even number; 16 by default.
        interval: the splines act on `[-interval, interval]`.
        shared_splines: one spline for each layer, as in the paper, or one for each channel.
    """

    front: Literal["scale", "marginal"] = "scale"
    reflections: int | None = Field(default=None, ge=2, le=4096, multiple_of=2)
    interval: float = Field(default=4.0, gt=0)
    shared_splines: bool = False

    @model_validator(mode="after")
    def _check_reflections(self) -> Self:
        if self.reflections is not None and self.method != "householder":
            raise ValueError(f"reflections are those of the method 'householder', not of '{self.method}'")
        return self

    def _linear(self, before: int, after: int, **settings: Any) -> Transform:
        return super()._linear(before, after, reflections=self.reflections, **settings)

    def _activation(self, channels: int) -> Transform:
        if self.shared_splines:
            return transforms.SharedSpline(bins=self.bins, interval=self.interval)
        return transforms.ChannelSpline(channels, bins=self.bins, interval=self.interval)

    def _finished(self, layers: list[Transform]) -> Flow:
        """Return the flow of what meets the pixels and these layers, with a normal latent."""
        from likelify.distributions.normal import Normal

        half = self.pixel_levels / 2
        front = transforms.Affine(shift=-half, scale=1 / half)
        if self.front == "marginal":
            front = transforms.FittedMarginal(self.event_shape, self.pixel_levels)
        transform = transforms.Chain([transforms.Dequantize(self.pixel_levels), front, *layers])
        return self._flow(transform, Normal(transform.out_shape(self.event_shape)))


@register("fmlp", kind="image", summary="flowified multilayer perceptron (flowification paper: FMLP)")
class FMLPConfig(FlowifiedConfig):
    """A flowified multilayer perceptron: linear layers that only reduce, splines between them; FMLP of the paper.

    Attributes:
        widths: of the layers; for shapes that the paper does not have, halves down to 8 by default.
    """

    widths: tuple[Size, ...] | None = Field(default=None, min_length=1)
    net_hidden: Size = 256

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        size = math.prod(self.event_shape)
        widths = self.widths or MLP_WIDTHS.get(self.event_shape) or _halves(size)
        return self._finished([transforms.Flatten(self.event_shape), *self._perceptron(size, widths)])


class FConvConfig(FlowifiedConfig):
    """Flowified convolutional networks, with or without couplings between their layers.

    Attributes:
        nsf: put rational-quadratic couplings where the paper's `+ NSF` models have them, behind the activations.
        nsf_bins: pieces of their splines.
        nsf_hidden: width of their networks on vectors.
        nsf_channels: width of their networks on images.
    """

    tables: ClassVar[tuple[dict[ImageShape, Architecture], dict[ImageShape, Architecture]]]
    kernel: ClassVar[int] = 2

    nsf: bool = False
    nsf_bins: Bins = 5
    nsf_hidden: Size = 256
    nsf_channels: Size = 32

    def _architecture(self) -> Architecture:
        """Return the paper's architecture for the shape of the images, or one of its manner."""
        return self.tables[self.nsf].get(self.event_shape) or _shrinking(self.event_shape, self.kernel)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        convolutions, widths = self._architecture()
        layers: list[Transform] = []
        shape: Shape = self.event_shape
        for conv in convolutions:
            layers.append(self._convolution(shape, conv))
            shape = layers[-1].out_shape(shape)
            layers += self._behind(conv.channels, conv.couplings, images=True)
        layers.append(transforms.Flatten(shape))
        size = math.prod(shape)
        for width, couplings in widths:
            if width != size or not self.nsf:
                layers.append(self._linear(size, width))
            layers += self._behind(width, couplings, images=False)
            size = width
        return self._finished(layers)

    def _convolution(self, shape: Shape, conv: Conv) -> Transform:
        single = -(-shape[1] // conv.stride) == 1
        settings = {"stride": conv.stride, "padding": "fit", "method": self.method, "reflections": self.reflections}
        settings |= self._densities(2, kernel_size=1 if single else 3)
        return transforms.convolution(shape, conv.channels, conv.kernel, **settings)

    def _behind(self, channels: int, couplings: int, *, images: bool) -> list[Transform]:
        """Return what follows a layer: a spline activation, and couplings that read one half each in turn."""
        # A single channel cannot be divided.
        count = couplings if self.nsf and channels > 1 else 0
        swaps = [index % 2 == 1 for index in range(count)]
        return [self._activation(channels), *(self._coupling(channels, swap=swap, images=images) for swap in swaps)]

    def _coupling(self, channels: int, *, swap: bool, images: bool) -> Transform:
        split, bijector = transforms.ChannelSplit(channels, swap=swap), transforms.SplineBijector(self.nsf_bins, 3.0)
        read, changed = split.sizes
        size = changed * bijector.size
        if not images:
            return transforms.Coupling(split, bijector, nets.MLP(read, size, (self.nsf_hidden,) * 3))
        net = nets.ResidualConvNet(read, size, self.nsf_channels, blocks=2, kernel_size=3, skip=False)
        return transforms.Coupling(split, bijector, net)


@register("fconv1", kind="image", summary="flowified convolutions that overlap (flowification paper: FCONV1)")
class FConv1Config(FConvConfig):
    """Overlapping kernels (FCONV1 of the paper): every overlap costs noise."""

    tables = (OVERLAPPING, OVERLAPPING_NSF)
    kernel = 3


@register("fconv2", kind="image", summary="flowified convolutions without overlap (flowification paper: FCONV2)")
class FConv2Config(FConvConfig):
    """Kernels without overlap (FCONV2 of the paper): exact but for padding and dequantization."""

    tables = (DISJOINT, DISJOINT_NSF)


@register(
    "fconv-fft", kind="image", summary="convolutions by their Fourier transform (flowification paper: appendix H)"
)
class FConvFourierConfig(FConvConfig):
    """Convolutions on a torus, with log-determinants from their Fourier transform (appendix H of the paper).

    The convolutions of FCONV2 become squeezes, each followed by a 3x3 circular convolution that keeps or reduces the
    channels: overlapping kernels without noise. The paper does not print its architecture; this is our reading.
    """

    tables = (DISJOINT, DISJOINT_NSF)

    def _convolution(self, shape: Shape, conv: Conv) -> Transform:
        layers: list[Transform] = []
        if any(side % 2 for side in shape[1:]):
            layers.append(transforms.Pad(shape, [(0, side % 2) for side in shape[1:]], noise=self.noise))
            shape = layers[-1].out_shape(shape)
        layers += [transforms.Squeeze(2), transforms.CircularConv(4 * shape[0], conv.channels, 3, **self._densities(2))]
        return transforms.Chain(layers)


def _halves(size: int) -> tuple[int, ...]:
    """Return the powers of two below a size, down to 8; of fewer than 8 the size itself."""
    return tuple(2**power for power in range(max(3, math.ceil(math.log2(size)) - 1), 2, -1)) if size > 8 else (size,)


def _shrinking(shape: Shape, kernel: int) -> Architecture:
    """Return layers that halve images of another shape down to one pixel, in the manner of the paper's models."""
    channels, side = shape[0], max(shape[1:])
    convolutions = []
    while side > 1:
        channels, side = max(channels, min(4 * channels, 64)), -(-side // 2)
        convolutions.append(Conv(channels, min(kernel, side + 1), 2, 2))
    return convolutions, [Linear(channels, 2), Linear(max(channels // 2, 1), 2)]
