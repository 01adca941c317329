"""What the flowified models of images and of tables share (Mate et al. 2022, appendix F)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from likelify import nets, transforms
from likelify.flowification.options import AddedNoise
from likelify.names import LinearMethod
from likelify.zoo.registry import Bins, Size

if TYPE_CHECKING:
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
    bins: Bins = 10
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
