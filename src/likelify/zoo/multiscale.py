"""Multi-scale models of images: what they share, and those of the convolution exponential paper.

    dequantize, bring to the line; for each scale: squeeze, its layers, split prior (not after the last)

Source of all but `ScalesConfig`: Hoogeboom et al. 2020, section 6 and tables 1 to 3.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.names import LogDetName, Mixing, NormBoundName
from likelify.zoo.images import ImageConfig, ImageShape, require_halves
from likelify.zoo.mixers import mixing_layers
from likelify.zoo.registry import Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


class ScalesConfig(ImageConfig):
    """Settings of a multi-scale model; height and width must be multiples of `2 ** levels`.

    Attributes:
        levels: scales; half of the channels leave after each but the last, through a split prior.
        steps: layers per level.
        dequantization: uniform noise, or a conditional flow.
    """

    levels: int = Field(default=2, ge=1)
    steps: int = Field(default=4, ge=1)
    dequantization: Literal["uniform", "variational"] = "uniform"

    def build(self) -> Flow:
        """Return the flow with fresh weights.

        Raises:
            ShapeError: if the image cannot be squeezed that often.
        """
        from likelify.distributions import Normal

        require_halves(self.event_shape, self.levels, self.model)
        noise = self._noise() if self.dequantization == "variational" else None
        layers: list[Transform] = [transforms.Dequantize(self.pixel_levels, noise), *self._enter()]
        channels, height, width = self.event_shape
        for level in range(self.levels):
            channels, height, width = 4 * channels, height // 2, width // 2
            layers += [transforms.Squeeze(), *self._level(level, (channels, height, width))]
            if level < self.levels - 1:
                layers.append(self._split_prior(channels, height, width))
                channels = channels // 2
        return self._flow(transforms.Chain(layers), Normal((channels, height, width), trainable=True))

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
        norm_limit: of convolution exponentials.
        norm_bound: the bound that `norm_limit` limits; `"torus"` is tight.
        noise_steps: couplings of the conditional flow of the dequantization noise.
        noise_features: channels of the image's encoding that they read.
        noise_depth: dense layers of each of the two DenseNets of the encoder.
        checkpoint: run coupling and masked networks again in the backward pass instead of keeping what they computed:
            a third more work, far less memory.
    """

    width: Size = 24
    depth: int = Field(default=3, ge=0)
    growth: Size = 12
    gated: bool = True
    norm_limit: float | None = Field(default=0.9, gt=0)
    norm_bound: NormBoundName = "torus"
    noise_steps: int = Field(default=4, ge=1)
    noise_features: Size = 32
    noise_depth: int = Field(default=4, ge=0)
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
        from likelify.distributions import Normal

        keep = channels // 2
        return transforms.Chain(
            [self._dense_coupling(channels), transforms.Slice(keep, Normal((channels - keep, height, width)))]
        )

    def _mix(self, kind: Mixing, channels: int, height: int, width: int) -> list[Transform]:
        return mixing_layers(kind, channels, (height, width), norm_limit=self.norm_limit, norm_bound=self.norm_bound)

    def _noise(self) -> Flow:
        """Return the conditional flow of the dequantization noise.

        Its mixing layers are turned round: noise is drawn in training, so that direction has to be the quick one.
        """
        from likelify.distributions import Normal

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


@register("mixing-flow", kind="image", summary="DenseNet couplings and a choice of mixing layers (paper: table 1)")
class MixingFlowConfig(MultiScaleConfig):
    """Affine couplings with DenseNets and a choice of mixing layers between them; no ActNorm (section 6.1, table 1).

    A mixing step comes first, and one after each coupling: squeeze, mix, then `steps` times coupling and mix; the
    deeper scales start with a coupling.

    Attributes:
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`. The dequantizer has the same.
    """

    mixing: Mixing = "conv-exponential"

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers = self._mix(self.mixing, *shape) if level == 0 else []
        for _ in range(self.steps):
            layers += [self._dense_coupling(shape[0]), *self._mix(self.mixing, *shape)]
        return layers

    def _noise_mixing(self) -> Mixing:
        return self.mixing


class StackConfig(MultiScaleConfig):
    """What the residual, Sylvester and coupling models of tables 2 and 3 share: each step is an ActNorm and a layer.

    Attributes:
        hidden: width of the networks in the layers.
        gated: end the DenseNets of split priors and dequantizer in a gated 1x1 convolution.
    """

    hidden: Size = 96
    gated: bool = False

    @abstractmethod
    def _step(self, channels: int) -> list[Transform]:
        """Return the layers of one step behind its ActNorm."""

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers: list[Transform] = []
        for _ in range(self.steps):
            layers += [transforms.ActNorm(shape[0]), *self._step(shape[0])]
        return layers


@register("sylvester", kind="image", summary="exact, quickly inverted Sylvester layers (paper: tables 2 and 3)")
class SylvesterConfig(StackConfig):
    """A convolutional Sylvester flow (section 6.2): `W^-1 (I + f) W`, autoregressive `f`, `W = exp(M) Q`; then a flip.

    Attributes:
        form: the full layer, or one of the ablations of table 3: without the basis change `W`; without the network,
            where `f(u) = R2 tanh(R1 (u + b))` with two masked convolutions that share a kernel.
        reflections: of `Q`; as many as channels by default.
        net_norm_limit: limit of the norm of each layer of the network (1.5 in the paper; nothing here needs it).
    """

    form: Literal["full", "without-basis", "without-generalization"] = "full"
    reflections: Size | None = None
    net_norm_limit: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if self.classes is not None and self.form == "without-generalization":
            raise ValueError("the form 'without-generalization' has no network that could read labels")
        return self

    def _step(self, channels: int) -> list[Transform]:
        return [self._layer(channels), transforms.Flip()]

    def _layer(self, channels: int) -> Transform:
        net = {"hidden": self.hidden, "context_features": self.classes or 0, "checkpoint": self.checkpoint}
        limits = {"norm_limit": self.norm_limit, "norm_bound": self.norm_bound}
        if self.form == "full":
            limits |= {"net_norm_limit": self.net_norm_limit}
            return transforms.conv_sylvester(channels, reflections=self.reflections, **net, **limits)
        if self.form == "without-basis":
            return transforms.TriangularResidual(
                nets.AutoregressiveNet(channels, norm_limit=self.net_norm_limit, **net)
            )
        turned = transforms.rotation(channels, method="householder", reflections=self.reflections or channels)
        exponential = transforms.conv_exponential(channels, **limits)
        residual = transforms.TriangularResidual(nets.TiedHeads(channels), transforms.FreeTanhResidual())
        return transforms.Conjugate(transforms.Chain([turned, exponential]), residual)


@register("residual", kind="image", summary="Lipschitz residual blocks; the likelihood is an estimate (paper: table 2)")
class ResidualFlowConfig(StackConfig):
    """A residual flow (Chen et al. 2019): `x + g(x)` with a network `g` that contracts.

    Attributes:
        log_det: how the log-determinant is had: an unbiased estimate, a truncated series, or exactly from the Jacobian
            (small images only).
        net_norm_limit: limit of the norm of each layer of `g`, and so of its Lipschitz constant.
    """

    log_det: LogDetName = "roulette"
    net_norm_limit: float = Field(default=0.98, gt=0, lt=1)

    def _step(self, channels: int) -> list[Transform]:
        net = nets.LipschitzConvNet(
            channels, self.hidden, norm_limit=self.net_norm_limit, context_features=self.classes or 0
        )
        return [transforms.LipschitzResidual(net, log_det=self.log_det)]


@register("coupling-flow", kind="image", summary="ActNorm, 1x1 and affine couplings, the baseline of table 2")
class CouplingFlowConfig(StackConfig):
    """The coupling baseline: 1x1 convolution, then an affine coupling with 3x3, 1x1, 3x3 and `log s` within +-1/2."""

    def _step(self, channels: int) -> list[Transform]:
        split = transforms.ChannelSplit(channels)
        read, changed = split.sizes
        settings = {"context_features": self.classes or 0, "skip": False, "checkpoint": self.checkpoint}
        net = nets.ResidualConvNet(read, 2 * changed, self.hidden, **settings)
        return [transforms.Conv1x1(channels), transforms.Coupling(split, transforms.AffineBijector(0.5), net)]
