"""Convolutional Sylvester flows (Hoogeboom et al. 2020, section 6.2, tables 2 and 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.zoo.images import ImageShape
from likelify.zoo.mixers import READ_BY_MIXING, ExponentialConfig
from likelify.zoo.multiscale import StackConfig
from likelify.zoo.registry import ReadBy, Size, register

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


@register("sylvester", kind="image", summary="exact, quickly inverted Sylvester layers (paper: tables 2 and 3)")
class SylvesterConfig(ExponentialConfig, StackConfig):
    """A convolutional Sylvester flow: `W^-1 (I + f) W` with autoregressive `f` and `W = exp(M) Q`, then a flip.

    Attributes:
        form: the full layer, or one of the ablations of table 3: without the basis change `W`; without the network,
            where `f(u) = R2 tanh(R1 (u + b))` with two masked convolutions that share a kernel.
        basis: what is behind the reflections `Q` in `W`: the exponential of a convolution (3x3 unless `mixing_kernel`
            says otherwise), or an axis exponential of all taps.
        reflections: of `Q`; as many as channels by default.
        net_norm_limit: limit of the norm of each layer of the network (1.5 in the paper; nothing here needs it).
    """

    read_by: ClassVar[ReadBy] = {
        **StackConfig.read_by,
        **dict.fromkeys(READ_BY_MIXING, ("basis", ("convolution",))),
        **dict.fromkeys(("basis", "reflections"), ("form", ("full", "without-generalization"))),
        "net_norm_limit": ("form", ("full", "without-basis")),
    }

    form: Literal["full", "without-basis", "without-generalization"] = "full"
    basis: Literal["convolution", "axis"] = "convolution"
    reflections: Size | None = None
    net_norm_limit: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check_condition(self) -> Self:
        if self.classes is not None and self.form == "without-generalization":
            raise ValueError("the form 'without-generalization' has no network that could read labels")
        return self

    def _step(self, shape: ImageShape) -> list[Transform]:
        return [self._layer(shape), transforms.Flip()]

    def _layer(self, shape: ImageShape) -> Transform:
        channels = shape[0]
        # A masked network has no fewer units than channels.
        hidden = max(self.hidden, channels)
        net = {"hidden": hidden, "context_features": self.classes or 0, "checkpoint": self.checkpoint}
        if self.form == "full":
            return transforms.conv_sylvester(
                channels,
                reflections=self.reflections,
                net_norm_limit=self.net_norm_limit,
                exponential=self._exponential(shape),
                **net,
            )
        if self.form == "without-basis":
            return transforms.TriangularResidual(
                nets.AutoregressiveNet(channels, norm_limit=self.net_norm_limit, **net)
            )
        turned = transforms.rotation(channels, method="householder", reflections=self.reflections or channels)
        residual = transforms.TriangularResidual(nets.TiedHeads(channels), transforms.FreeTanhResidual())
        return transforms.Conjugate(transforms.Chain([turned, self._exponential(shape)]), residual)

    def _exponential(self, shape: ImageShape) -> Transform:
        channels, *positions = shape
        if self.basis == "axis":
            return transforms.axis_exponential(channels, positions=positions)
        return transforms.conv_exponential(channels, **self._limits())
