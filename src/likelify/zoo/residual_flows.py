"""The models that compare residual transformations (Hoogeboom et al. 2020, section 6.2, tables 2 and 3).

Each scale is `steps` times ActNorm and a layer: a coupling, a Lipschitz residual block, or a Sylvester layer and a flip
that reverses the raster order.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelify.names import LogDetName
from likelify.nets import AutoregressiveNet, LipschitzConvNet, ResidualConvNet
from likelify.nets.tied import TiedHeads
from likelify.transforms.core import Chain, Conjugate, Transform
from likelify.transforms.coupling import AffineBijector, ChannelSplit, Coupling
from likelify.transforms.elementwise import ActNorm
from likelify.transforms.exponential.layers import conv_exponential
from likelify.transforms.exponential.rotations import rotation
from likelify.transforms.mixing.conv1x1 import Conv1x1
from likelify.transforms.reshape import Flip
from likelify.transforms.residual.layer import LipschitzResidual
from likelify.transforms.sylvester.factories import conv_sylvester
from likelify.transforms.sylvester.scalar import FreeTanhResidual
from likelify.transforms.sylvester.triangular import TriangularResidual
from likelify.zoo.multiscale import MultiScaleConfig
from likelify.zoo.settings import ImageShape, Size


class StackConfig(MultiScaleConfig):
    """What the residual, Sylvester and coupling models share.

    Attributes:
        hidden: width of the networks in the layers.
        gated: end the DenseNets of split priors and dequantizer in a gated 1x1 convolution.
    """

    hidden: Size = 96
    gated: bool = False

    def _step(self, channels: int) -> list[Transform]:
        raise NotImplementedError

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers: list[Transform] = []
        for _ in range(self.steps):
            layers += [ActNorm(shape[0]), *self._step(shape[0])]
        return layers


class CouplingFlowConfig(StackConfig):
    """The coupling baseline: 1x1 convolution, then an affine coupling with 3x3, 1x1, 3x3 and `log s` within +-1/2.

    Attributes:
        model: name of the model.
    """

    summary: ClassVar[str] = "ActNorm, 1x1 and affine couplings, the baseline of table 2"

    model: Literal["coupling-flow"] = "coupling-flow"

    def _step(self, channels: int) -> list[Transform]:
        split = ChannelSplit(channels)
        read, changed = split.sizes
        net = ResidualConvNet(
            read,
            2 * changed,
            self.hidden,
            context_features=self.classes or 0,
            skip=False,
            checkpoint=self.checkpoint,
        )
        return [Conv1x1(channels), Coupling(split, AffineBijector(0.5), net)]


class ResidualFlowConfig(StackConfig):
    """A residual flow (Chen et al. 2019): `x + g(x)` with a network `g` that contracts.

    Attributes:
        model: name of the model.
        log_det: how the log-determinant is had: an unbiased estimate, a truncated series, or exactly from the Jacobian
            (small images only).
        lipschitz: limit of the Lipschitz constant of each layer of `g`.
    """

    summary: ClassVar[str] = "Lipschitz residual blocks; the likelihood is an estimate (paper: table 2)"

    model: Literal["residual"] = "residual"
    log_det: LogDetName = "roulette"
    lipschitz: float = Field(default=0.98, gt=0, lt=1)

    def _step(self, channels: int) -> list[Transform]:
        net = LipschitzConvNet(channels, self.hidden, limit=self.lipschitz, context_features=self.classes or 0)
        return [LipschitzResidual(net, log_det=self.log_det)]


class SylvesterConfig(StackConfig):
    """A convolutional Sylvester flow: `W^-1 (I + f) W` with autoregressive `f` and `W = exp(M) Q`, then a flip.

    Attributes:
        model: name of the model.
        form: the full layer, or one of the ablations of table 3: without the basis change `W`; without the network,
            where `f(u) = R2 tanh(R1 (u + b))` with two masked convolutions that share a kernel.
        reflections: of `Q`; as many as channels by default.
        net_norm_limit: limit of the norm of each layer of the network (1.5 in the paper; nothing here needs it).
    """

    summary: ClassVar[str] = "convolutional Sylvester layers, exact and quickly inverted (paper: tables 2 and 3)"

    model: Literal["sylvester"] = "sylvester"
    form: Literal["full", "without-basis", "without-generalization"] = "full"
    reflections: Size | None = None
    net_norm_limit: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if self.classes is not None and self.form == "without-generalization":
            raise ValueError("the form 'without-generalization' has no network that could read labels")
        return self

    def _step(self, channels: int) -> list[Transform]:
        if self.form == "full":
            layer = conv_sylvester(
                channels,
                hidden=self.hidden,
                reflections=self.reflections,
                norm_limit=self.norm_limit,
                norm_bound=self.norm_bound,
                net_norm_limit=self.net_norm_limit,
                context_features=self.classes or 0,
                checkpoint=self.checkpoint,
            )
            return [layer, Flip()]
        if self.form == "without-basis":
            net = AutoregressiveNet(
                channels,
                hidden=self.hidden,
                context_features=self.classes or 0,
                norm_limit=self.net_norm_limit,
                checkpoint=self.checkpoint,
            )
            return [TriangularResidual(net), Flip()]
        turned = rotation(channels, method="householder", reflections=self.reflections or channels)
        basis = Chain([turned, conv_exponential(channels, norm_limit=self.norm_limit, bound=self.norm_bound)])
        return [Conjugate(basis, TriangularResidual(TiedHeads(channels), FreeTanhResidual())), Flip()]
