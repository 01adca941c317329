"""Flowified multilayer perceptrons for tables (Mate et al. 2022, appendix F)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.names import LinearMethod, NoiseName
from likelify.zoo.registry import ModelConfig, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


@register("flowified-mlp", kind="table", summary="flowified multilayer perceptron (flowification paper: appendix F)")
class FlowifiedMLPConfig(ModelConfig):
    """A flowified multilayer perceptron for rows of real numbers (appendix F of the flowification paper).

    Attributes:
        event_shape: `(columns,)`.
        widths: of the layers.
        activation: LeakyReLU with a slope of 0.5 as in the paper, or a spline for each unit.
        method: parametrization of the linear layers.
        noise: of added coordinates.
        learned_noise: give added coordinates a learned mean and scale.
        net_hidden: width of the networks of conditional densities.
        bins: pieces of the splines.
    """

    reads_labels = False

    event_shape: tuple[Size]
    widths: tuple[Size, ...] = (128, 64, 32, 16, 8)
    activation: Literal["leaky-relu", "spline"] = "spline"
    method: LinearMethod = "cayley"
    noise: NoiseName = "normal"
    learned_noise: bool = True
    net_hidden: Size = 64
    bins: int = Field(default=8, ge=2)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions import Normal
        from likelify.flows import Flow

        (size,) = self.event_shape
        layers: list[Transform] = [transforms.Columns(size)]
        for index, width in enumerate(self.widths):
            layers.append(self._linear(size, width))
            if index < len(self.widths) - 1:
                layers.append(self._activation(width))
            size = width
        return Flow(Normal((size,)), transforms.Chain(layers), event_shape=self.event_shape)

    def _linear(self, before: int, after: int) -> Transform:
        net = nets.density_nets(0, hidden=self.net_hidden)
        posterior = net if self.learned_noise and self.noise == "normal" else None
        densities = {"noise": self.noise, "net_factory": net, "posterior_factory": posterior}
        return transforms.linear(before, after, method=self.method, **densities)

    def _activation(self, width: int) -> Transform:
        if self.activation == "leaky-relu":
            return transforms.LeakyReLU(0.5)
        return transforms.ChannelSpline(width, bins=self.bins)
