"""The model that compares mixing layers (Hoogeboom et al. 2020, section 6.1 and table 1)."""

from typing import ClassVar, Literal

from likelify.names import Mixing
from likelify.transforms.core import Transform
from likelify.zoo.multiscale import MultiScaleConfig
from likelify.zoo.settings import ImageShape


class MixingFlowConfig(MultiScaleConfig):
    """Affine couplings with DenseNets and a choice of mixing layers between them; no ActNorm.

    A mixing step comes first, and one after each coupling: squeeze, mix, then `steps` times coupling and mix; the
    deeper scales start with a coupling.

    Attributes:
        model: name of the model.
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`. The dequantizer has the same.
    """

    summary: ClassVar[str] = "DenseNet couplings and a choice of mixing layers (paper: table 1)"

    model: Literal["mixing-flow"] = "mixing-flow"
    mixing: Mixing = "conv-exponential"

    def _level(self, level: int, shape: ImageShape) -> list[Transform]:
        layers = self._mix(self.mixing, *shape) if level == 0 else []
        for _ in range(self.steps):
            layers += [self._dense_coupling(shape[0]), *self._mix(self.mixing, *shape)]
        return layers

    def _noise_mixing(self) -> Mixing:
        return self.mixing
