"""Flowified multilayer perceptrons, and those for tables (Mate et al. 2022, appendix F)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.flowification.options import AddedNoise
from likelify.names import LinearMethod
from likelify.zoo.registry import ModelConfig, Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow
    from likelify.transforms.core import Transform


class FlowifiedLayers(AddedNoise):
    """Settings of linear layers between which there are splines.

    Attributes:
        method: parametrization of the linear layers, see `likelify.transforms.surjections.linear.linear`.
        bins: pieces of the splines.
        net_hidden: width of the networks of the densities of what is dropped.
    """

    reads_labels: ClassVar[bool] = False

    method: LinearMethod = "cayley"
    bins: int = Field(default=10, ge=2)
    net_hidden: Size = 64

    def _densities(self, dims: int, kernel_size: int = 3) -> dict[str, Any]:
        """Return the arguments of a layer for what it adds and drops, at positions along so many axes."""
        factory = nets.density_nets(dims, hidden=self.net_hidden, kernel_size=kernel_size)
        posterior = factory if self.learned_noise else None
        return {"noise": self.noise, "net_factory": factory, "posterior_factory": posterior}

    def _linear(self, before: int, after: int, **settings: Any) -> Transform:
        return transforms.linear(before, after, method=self.method, **self._densities(0), **settings)

    def _activation(self, channels: int) -> Transform:
        return transforms.ChannelSpline(channels, bins=self.bins)

    def _perceptron(self, size: int, widths: tuple[int, ...]) -> list[Transform]:
        """Return linear layers of these widths with activations between them."""
        layers: list[Transform] = []
        for before, after in pairwise((size, *widths)):
            if layers:
                layers.append(self._activation(before))
            layers.append(self._linear(before, after))
        return layers


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
    bins: int = Field(default=8, ge=2)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions import Normal
        from likelify.flows import Flow

        (size,) = self.event_shape
        transform = transforms.Chain([transforms.Columns(size), *self._perceptron(size, self.widths)])
        return Flow(Normal(transform.out_shape(self.event_shape)), transform, event_shape=self.event_shape)

    def _activation(self, channels: int) -> Transform:
        return transforms.LeakyReLU(0.5) if self.activation == "leaky-relu" else super()._activation(channels)
