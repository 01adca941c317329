"""A residual flow of images (Chen et al. 2019; the rival of table 2 in Hoogeboom et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import nets, transforms
from likelify.names import LogDetName
from likelify.zoo.images import ImageShape
from likelify.zoo.multiscale import StackConfig
from likelify.zoo.registry import register

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


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

    def _step(self, shape: ImageShape) -> list[Transform]:
        channels = shape[0]
        net = nets.LipschitzConvNet(
            channels, self.hidden, norm_limit=self.net_norm_limit, context_features=self.classes or 0
        )
        return [transforms.LipschitzResidual(net, log_det=self.log_det)]
