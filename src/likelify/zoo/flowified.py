"""The models of the flowification paper: networks whose layers have a likelihood (Mate et al. 2022, appendix F)."""

import math
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from likelify.distributions import Normal
from likelify.errors import ConfigError
from likelify.flows import Flow
from likelify.names import LinearMethod, NoiseName
from likelify.nets import MLP, ResidualConvNet, density_nets
from likelify.settings import Settings
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.coupling import ChannelSplit, Coupling, SplineBijector
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.elementwise import Affine
from likelify.transforms.marginal import FittedMarginal
from likelify.transforms.mixing.circular import CircularConv
from likelify.transforms.reshape import Flatten, Squeeze
from likelify.transforms.splines import ChannelSpline, SharedSpline
from likelify.transforms.surjections.activation import LeakyReLU
from likelify.transforms.surjections.convolution import convolution
from likelify.transforms.surjections.dimension import Pad
from likelify.transforms.surjections.linear import linear
from likelify.zoo.settings import ImageConfig, Size


class Conv(NamedTuple):
    """A convolution of an architecture, and the number of couplings behind it."""

    channels: int
    kernel: int
    stride: int
    couplings: int = 0


class Dense(NamedTuple):
    """A linear layer of an architecture, and the number of couplings behind it."""

    width: int
    couplings: int = 0


Architecture = tuple[list[Conv], list[Dense]]
MNIST, CIFAR = (1, 28, 28), (3, 32, 32)

# Widths of the layers of FMLP.
MLP_WIDTHS: dict[Shape, tuple[int, ...]] = {MNIST: (512, 256, 128, 64, 32, 8), CIFAR: (1024, 512, 512, 256, 128)}
TAIL = [Dense(64)] * 6 + [Dense(32)] * 7 + [Dense(8)]
NSF_TAIL = [Dense(64, 2), Dense(32, 2), Dense(8, 2)]
OVERLAPPING: dict[Shape, Architecture] = {
    MNIST: ([Conv(16, 3, 2), Conv(24, 2, 2), Conv(32, 3, 2), Conv(48, 2, 1), Conv(64, 2, 1)], TAIL),
    CIFAR: ([Conv(27, 3, 2), Conv(64, 3, 2), Conv(100, 3, 2), Conv(112, 3, 2), Conv(128, 2, 2)], [Dense(128)] * 10),
}
OVERLAPPING_NSF: dict[Shape, Architecture] = {
    MNIST: (OVERLAPPING[MNIST][0], NSF_TAIL),
    CIFAR: (
        [Conv(27, 3, 2, 4), Conv(48, 3, 2, 4), Conv(72, 3, 2, 4), Conv(96, 3, 2), Conv(128, 2, 2)],
        [Dense(128, 8)],
    ),
}
DISJOINT: dict[Shape, Architecture] = {
    MNIST: ([Conv(channels, 2, 2) for channels in (4, 16, 32, 48, 64)], TAIL),
    CIFAR: ([Conv(channels, 2, 2) for channels in (12, 48, 100, 112, 128)], [Dense(128)] * 12),
}
DISJOINT_NSF: dict[Shape, Architecture] = {
    MNIST: ([Conv(4, 2, 2, 2), Conv(16, 2, 2, 2), Conv(24, 2, 2, 2), Conv(32, 2, 2, 2), Conv(64, 2, 2)], NSF_TAIL),
    CIFAR: (
        [Conv(12, 2, 2, 4), Conv(48, 2, 2, 4), Conv(72, 2, 2, 4), Conv(96, 2, 2), Conv(128, 2, 2)],
        [Dense(128, 6)],
    ),
}


class FlowifiedConfig(ImageConfig):
    """What the flowified models of images share.

    Attributes:
        front: what meets the dequantized pixels: a scale that brings them to (-1, 1), as in the paper; or marginals
            that are fitted to each pixel, which makes each of them normal to begin with.
        method: parametrization of the linear layers, see `likelify.transforms.surjections.linear.linear`.
        reflections: of each rotation, for `"householder"`.
        noise: of padding, repetition and added coordinates.
        learned_noise: give repetition and added coordinates a mean and a scale that networks read off the data, which
            narrows the bound's gap; the paper's noise is the same everywhere.
        bins: pieces of the spline activations.
        spline_bound: they act on `[-spline_bound, spline_bound]`.
        shared_splines: one spline for each layer, as in the paper, or one for each channel.
        net_hidden: width of the networks of the densities of what is dropped.
    """

    front: Literal["scale", "marginal"] = "scale"
    method: LinearMethod = "cayley"
    reflections: int | None = Field(default=None, ge=2)
    noise: NoiseName = "normal"
    learned_noise: bool = False
    bins: int = Field(default=10, ge=2)
    spline_bound: float = Field(default=4.0, gt=0)
    shared_splines: bool = False
    net_hidden: Size = 64

    def _enter(self) -> list[Transform]:
        half = self.pixel_levels / 2
        if self.front == "marginal":
            return [Dequantize(self.pixel_levels), FittedMarginal(self.event_shape, self.pixel_levels)]
        return [Dequantize(self.pixel_levels), Affine(shift=-half, scale=1 / half)]

    def _linear(self, before: int, after: int) -> Transform:
        net = density_nets(0, hidden=self.net_hidden)
        return linear(
            before,
            after,
            method=self.method,
            noise=self.noise,
            reflections=self.reflections,
            net_factory=net,
            posterior_factory=net if self.learned_noise else None,
        )

    def _spline(self, channels: int) -> Transform:
        if self.shared_splines:
            return SharedSpline(bins=self.bins, bound=self.spline_bound)
        return ChannelSpline(channels, bins=self.bins, bound=self.spline_bound)

    def _flow(self, layers: list[Transform]) -> Flow:
        if self.classes is not None:
            raise ConfigError(
                f"The model '{getattr(self, 'model', '')}' does not read labels; leave --conditional out."
            )
        transform = Chain([*self._enter(), *layers])
        return Flow(Normal(transform.out_shape(self.event_shape)), transform, event_shape=self.event_shape)


class FMLPConfig(FlowifiedConfig):
    """A flowified multilayer perceptron: linear layers that only reduce, splines between them; FMLP of the paper.

    Attributes:
        model: name of the model.
        widths: of the layers; for shapes that the paper does not have, halves down to 8 by default.
    """

    summary: ClassVar[str] = "flowified multilayer perceptron (flowification paper: FMLP)"

    model: Literal["fmlp"] = "fmlp"
    widths: tuple[Size, ...] | None = None
    net_hidden: Size = 256

    def build(self) -> Flow:
        """Build the flow with fresh weights."""
        flatten = Flatten(self.event_shape)
        size = math.prod(self.event_shape)
        layers: list[Transform] = [flatten]
        widths = self.widths or MLP_WIDTHS.get(self.event_shape) or _halves(size)
        for index, width in enumerate(widths):
            layers.append(self._linear(size, width))
            if index < len(widths) - 1:
                layers.append(self._spline(width))
            size = width
        return self._flow(layers)


class FConvConfig(FlowifiedConfig):
    """Flowified convolutional networks, with or without couplings between their layers.

    Attributes:
        nsf: put rational-quadratic couplings where the paper's `+ NSF` models have them, behind the activations.
        nsf_bins: pieces of their splines.
        nsf_hidden: width of their networks on vectors.
        nsf_channels: width of their networks on images.
    """

    tables: ClassVar[tuple[dict[Shape, Architecture], dict[Shape, Architecture]]]
    kernel: ClassVar[int] = 2

    nsf: bool = False
    nsf_bins: int = Field(default=5, ge=2)
    nsf_hidden: Size = 256
    nsf_channels: Size = 32

    def _architecture(self) -> Architecture:
        """Return the paper's architecture for the shape of the images, or one of its manner."""
        return self.tables[self.nsf].get(self.event_shape) or _shrinking(self.event_shape, self.kernel)

    def build(self) -> Flow:
        """Build the flow with fresh weights."""
        convolutions, widths = self._architecture()
        layers: list[Transform] = []
        shape: Shape = self.event_shape
        for conv in convolutions:
            layers.append(self._convolution(shape, conv))
            shape = layers[-1].out_shape(shape)
            layers += self._behind(conv.channels, conv.couplings, images=True)
        layers.append(Flatten(shape))
        size = math.prod(shape)
        for width, couplings in widths:
            if width != size or not self.nsf:
                layers.append(self._linear(size, width))
            layers += self._behind(width, couplings, images=False)
            size = width
        return self._flow(layers)

    def _convolution(self, shape: Shape, conv: Conv) -> Transform:
        single = -(-shape[1] // conv.stride) == 1
        net = density_nets(2, hidden=self.net_hidden, kernel_size=1 if single else 3)
        return convolution(
            shape,
            conv.channels,
            conv.kernel,
            stride=conv.stride,
            padding="fit",
            method=self.method,
            noise=self.noise,
            net_factory=net,
            posterior_factory=net if self.learned_noise else None,
        )

    def _behind(self, channels: int, couplings: int, *, images: bool) -> list[Transform]:
        """Build what follows a layer: a spline activation, and couplings that read one half each in turn."""
        count = couplings if self.nsf else 0
        swaps = [index % 2 == 1 for index in range(count)]
        return [self._spline(channels), *(self._coupling(channels, swap=swap, images=images) for swap in swaps)]

    def _coupling(self, channels: int, *, swap: bool, images: bool) -> Coupling:
        split, bijector = ChannelSplit(channels, swap=swap), SplineBijector(self.nsf_bins, 3.0)
        read, changed = split.sizes
        size = changed * bijector.size
        if not images:
            return Coupling(split, bijector, MLP(read, size, (self.nsf_hidden,) * 3))
        net = ResidualConvNet(read, size, self.nsf_channels, blocks=2, kernel_size=3, skip=False)
        return Coupling(split, bijector, net)


class FConv1Config(FConvConfig):
    """Overlapping kernels (FCONV1 of the paper): every overlap costs noise.

    Attributes:
        model: name of the model.
    """

    summary: ClassVar[str] = "flowified convolutions with overlapping kernels (flowification paper: FCONV1)"

    tables = (OVERLAPPING, OVERLAPPING_NSF)
    kernel = 3

    model: Literal["fconv1"] = "fconv1"


class FConv2Config(FConvConfig):
    """Kernels without overlap (FCONV2 of the paper): exact but for padding and dequantization.

    Attributes:
        model: name of the model.
    """

    summary: ClassVar[str] = "flowified convolutions without overlap (flowification paper: FCONV2)"

    tables = (DISJOINT, DISJOINT_NSF)

    model: Literal["fconv2"] = "fconv2"


class FConvFourierConfig(FConvConfig):
    """Convolutions on a torus, with log-determinants from their Fourier transform (appendix H of the paper).

    The convolutions of FCONV2 become squeezes, each followed by a 3x3 circular convolution that keeps or reduces the
    channels: overlapping kernels without noise. The paper does not print its architecture; this is our reading.

    Attributes:
        model: name of the model.
    """

    summary: ClassVar[str] = "circular convolutions through their Fourier transform (flowification paper: appendix H)"

    tables = (DISJOINT, DISJOINT_NSF)

    model: Literal["fconv-fft"] = "fconv-fft"

    def _convolution(self, shape: Shape, conv: Conv) -> Transform:
        layers: list[Transform] = []
        if any(side % 2 for side in shape[1:]):
            layers.append(Pad(shape, [(0, side % 2) for side in shape[1:]], noise=self.noise))
            shape = layers[-1].out_shape(shape)
        net = density_nets(2, hidden=self.net_hidden)
        posterior = net if self.learned_noise else None
        layers += [
            Squeeze(2),
            CircularConv(
                4 * shape[0], conv.channels, 3, noise=self.noise, net_factory=net, posterior_factory=posterior
            ),
        ]
        return Chain(layers)


class TableMLPConfig(Settings):
    """A flowified multilayer perceptron for rows of numbers (appendix F of the flowification paper).

    Attributes:
        model: name of the model.
        event_shape: `(columns,)`.
        widths: of the layers.
        activation: LeakyReLU with a slope of 0.5 as in the paper, or a spline for each unit.
        method: parametrization of the linear layers.
        noise: of added coordinates.
        learned_noise: give added coordinates a learned mean and scale.
        net_hidden: width of the networks of conditional densities.
        bins: pieces of the splines.
        classes: tables have none here.
    """

    summary: ClassVar[str] = "flowified multilayer perceptron for tables (flowification paper: appendix F)"

    model: Literal["flowified-mlp"] = "flowified-mlp"
    event_shape: tuple[Size]
    widths: tuple[Size, ...] = (128, 64, 32, 16, 8)
    activation: Literal["leaky-relu", "spline"] = "spline"
    method: LinearMethod = "cayley"
    noise: NoiseName = "normal"
    learned_noise: bool = True
    net_hidden: Size = 64
    bins: int = Field(default=8, ge=2)
    classes: None = None

    def build(self) -> Flow:
        """Build the flow with fresh weights."""
        layers: list[Transform] = []
        (size,) = self.event_shape
        net = density_nets(0, hidden=self.net_hidden)
        for index, width in enumerate(self.widths):
            posterior = net if self.learned_noise and self.noise == "normal" else None
            densities = {"noise": self.noise, "net_factory": net, "posterior_factory": posterior}
            layers.append(linear(size, width, method=self.method, **densities))
            if index < len(self.widths) - 1:
                layers.append(
                    LeakyReLU(0.5) if self.activation == "leaky-relu" else ChannelSpline(width, bins=self.bins)
                )
            size = width
        return Flow(Normal((size,)), Chain(layers), event_shape=self.event_shape)


def _halves(size: int) -> tuple[int, ...]:
    """Return the powers of two below a size, down to 8."""
    return tuple(2**power for power in range(max(3, math.ceil(math.log2(size)) - 1), 2, -1))


def _shrinking(shape: Shape, kernel: int) -> Architecture:
    """Halve images of another shape down to one pixel, in the manner of the paper's models."""
    channels, side = shape[0], max(shape[1:])
    convolutions = []
    while side > 1:
        channels, side = max(channels, min(4 * channels, 64)), -(-side // 2)
        convolutions.append(Conv(channels, min(kernel, side + 1), 2, 2))
    return convolutions, [Dense(channels, 2), Dense(max(channels // 2, 1), 2)]
