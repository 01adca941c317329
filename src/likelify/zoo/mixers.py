"""The layers that mix channels and positions, by name, and the settings of those among them that are exponentials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from likelify import transforms
from likelify.names import Mixing, NormBoundName
from likelify.settings import Settings
from likelify.zoo.registry import ReadBy

if TYPE_CHECKING:
    from likelify.transforms.core import Transform

# Settings of `ExponentialConfig` that only such mixing layers read.
READ_BY_MIXING: ReadBy = dict.fromkeys(
    ("norm_limit", "norm_bound", "mixing_kernel"), ("mixing", ("conv-exponential", "orthogonal"))
)
# Of the Woodbury flow's change of positions.
LARGEST_RANK = 24
# Of the axis exponential: all that there are along 64 positions.
MOST_TAPS = 127
# What mixes the images of each scale before they are squeezed, too, if nothing is said. There a filter along an axis
# sees all neighbours, which behind the squeeze are in different channels.
MIX_EARLY: frozenset[Mixing] = frozenset({"axis-exponential"})


class ExponentialConfig(Settings):
    """Settings of models of images that have convolution exponentials.

    Attributes:
        norm_limit: of convolution exponentials and orthogonal convolutions; None leaves the norm free.
        norm_bound: the bound that `norm_limit` limits, see `conv_exponential`; `"torus"` is tight.
        mixing_kernel: side of their kernels.
    """

    norm_limit: float | None = Field(default=0.9, gt=0)
    norm_bound: NormBoundName = "torus"
    mixing_kernel: Literal[3, 5, 7] = 3

    def _limits(self) -> dict[str, Any]:
        return {"kernel_size": self.mixing_kernel, "norm_limit": self.norm_limit, "norm_bound": self.norm_bound}


def mixing_layers(
    kind: Mixing,
    channels: int,
    positions: tuple[int, ...],
    *,
    kernel_size: int = 3,
    norm_limit: float | None = 0.9,
    norm_bound: NormBoundName = "torus",
) -> list[Transform]:
    """Return the layers of one mixing step, as the papers put them together.

    Args:
        kind: `"permutation"` and `"1x1"` mix channels only, as do `"two-1x1"` and `"householder"` (as many reflections
            as channels); `"emerging"`, `"woodbury"` (rank 24 at most), `"periodic"`, `"orthogonal"`,
            `"conv-exponential"` and `"axis-exponential"` (all taps, 127 at most) mix positions too. The last three
            follow a 1x1 convolution. `"emerging"` is for images only.
        channels: of the events.
        positions: height and width of images, length of sequences.
        kernel_size: of `"conv-exponential"` and `"orthogonal"`.
        norm_limit: of `"conv-exponential"` and `"orthogonal"`.
        norm_bound: the bound that `norm_limit` limits.
    """
    dims = len(positions)
    if kind == "woodbury":
        return [transforms.woodbury_conv(channels, positions, rank=min(LARGEST_RANK, math.prod(positions)))]
    if kind == "householder":
        return [transforms.rotation(channels, method="householder", reflections=channels)]
    if kind in ("orthogonal", "conv-exponential"):
        make = transforms.orthogonal_convolution if kind == "orthogonal" else transforms.conv_exponential
        convolution = make(channels, kernel_size, dims=dims, norm_limit=norm_limit, norm_bound=norm_bound)
        return [transforms.Conv1x1(channels), convolution]
    if kind == "axis-exponential":
        taps = [min(2 * size - 1, MOST_TAPS) for size in positions]
        return [transforms.Conv1x1(channels), transforms.axis_exponential(channels, taps, dims=dims)]
    if kind == "emerging":
        return [transforms.emerging_conv(channels)]
    if kind == "periodic":
        return [transforms.periodic_conv(channels, dims=dims)]
    simple = {
        "permutation": transforms.Permute.random,
        "1x1": transforms.Conv1x1,
        "two-1x1": transforms.two_conv1x1,
    }
    return [simple[kind](channels)]
