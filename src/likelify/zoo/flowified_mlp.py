"""Flowified multilayer perceptrons for tables (Mate et al. 2022, appendix F)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from likelify import transforms
from likelify.zoo.flowified import FlowifiedLayers
from likelify.zoo.registry import Bins, ModelConfig, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


@register("flowified-mlp", kind="table", summary="flowified multilayer perceptron (flowification paper: appendix F)")
class FlowifiedMLPConfig(FlowifiedLayers, ModelConfig):
    """A flowified multilayer perceptron for rows of real numbers (appendix F of the flowification paper).

    Attributes:
        event_shape: `(columns,)`.
        widths: of the layers.
        activation: LeakyReLU with a slope of 0.5 as in the paper, or a spline for each unit.
    """

    event_shape: tuple[Size]
    widths: tuple[Size, ...] = (128, 64, 32, 16, 8)
    activation: Literal["leaky-relu", "spline"] = "spline"
    learned_noise: bool = True
    bins: Bins = 8

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions.normal import Normal
        from likelify.flows import Flow

        (size,) = self.event_shape
        transform = transforms.Chain([transforms.Columns(size), *self._perceptron(size, self.widths)])
        return Flow(Normal(transform.out_shape(self.event_shape)), transform, event_shape=self.event_shape)

    def _activation(self, channels: int) -> Transform:
        return transforms.LeakyReLU(0.5) if self.activation == "leaky-relu" else super()._activation(channels)
