"""The model that compares mixing layers (Hoogeboom et al. 2020, section 6.1 and table 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from likelify.names import Mixing
from likelify.zoo.images import ImageShape
from likelify.zoo.mixers import READ_BY_MIXING, ExponentialConfig
from likelify.zoo.multiscale import MultiScaleConfig
from likelify.zoo.registry import ReadBy, register

if TYPE_CHECKING:
    from likelify.transforms.core import Shape, Transform


@register("mixing-flow", kind="image", summary="DenseNet couplings and a choice of mixing layers (paper: table 1)")
class MixingFlowConfig(ExponentialConfig, MultiScaleConfig):
    """Affine couplings with DenseNets and a choice of mixing layers between them; no ActNorm.

    A mixing step comes first, and one after each coupling: squeeze, mix, then `steps` times coupling and mix; the
    deeper scales start with a coupling.

    Attributes:
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`. The dequantizer has the same.
        mix_early: let the same layers mix the images of each scale before they are squeezed, too; by default if they
            are axis exponentials.
    """

    read_by: ClassVar[ReadBy] = {**MultiScaleConfig.read_by, **READ_BY_MIXING}

    mixing: Mixing = "conv-exponential"
    mix_early: bool | None = None

    def _before_halving(self, shape: Shape) -> list[Transform]:
        return self._mix_early(self.mixing, shape, early=self.mix_early)

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers = self._mix(self.mixing, *shape) if level == 0 else []
        for _ in range(self.steps):
            layers += [self._dense_coupling(shape[0]), *self._mix(self.mixing, *shape)]
        return layers

    def _noise_mixing(self) -> Mixing:
        return self.mixing
