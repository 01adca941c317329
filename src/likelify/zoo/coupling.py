"""The coupling baseline of the convolution exponential paper (Hoogeboom et al. 2020, table 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify import nets, transforms
from likelify.zoo.images import ImageShape
from likelify.zoo.multiscale import StackConfig
from likelify.zoo.registry import register

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


@register("coupling-flow", kind="image", summary="ActNorm, 1x1 and affine couplings, the baseline of table 2")
class CouplingFlowConfig(StackConfig):
    """The coupling baseline: 1x1 convolution, then an affine coupling with 3x3, 1x1, 3x3 and `log s` within +-1/2."""

    def _step(self, shape: ImageShape) -> list[Transform]:
        channels = shape[0]
        split = transforms.ChannelSplit(channels)
        read, changed = split.sizes
        settings = {"context_features": self.classes or 0, "skip": False, "checkpoint": self.checkpoint}
        net = nets.ResidualConvNet(read, 2 * changed, self.hidden, **settings)
        return [transforms.Conv1x1(channels), transforms.Coupling(split, transforms.AffineBijector(0.5), net)]
