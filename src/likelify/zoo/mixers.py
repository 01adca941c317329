"""The layers that mix channels and positions, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify import transforms
from likelify.names import Mixing, NormBoundName

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


def mixing_layers(
    kind: Mixing,
    channels: int,
    positions: tuple[int, int],
    *,
    norm_limit: float | None = 0.9,
    norm_bound: NormBoundName = "torus",
) -> list[Transform]:
    """Return the layers of one mixing step, as the papers put them together.

    Args:
        kind: `"permutation"` and `"1x1"` mix channels only, as do `"two-1x1"` and `"householder"` (as many reflections
            as channels); `"emerging"`, `"woodbury"` (rank 24 at most), `"periodic"`, `"orthogonal"` and
            `"conv-exponential"` mix positions too. The last two follow a 1x1 convolution.
        channels: of the images.
        positions: height and width.
        norm_limit: of `"conv-exponential"` and `"orthogonal"`.
        norm_bound: the bound that `norm_limit` limits.
    """
    if kind == "permutation":
        return [transforms.Permute.random(channels)]
    if kind == "emerging":
        return [transforms.emerging_conv(channels)]
    if kind == "woodbury":
        return [transforms.woodbury_conv(channels, positions, rank=min(24, positions[0] * positions[1]))]
    if kind == "periodic":
        return [transforms.periodic_conv(channels)]
    if kind == "householder":
        return [transforms.rotation(channels, method="householder", reflections=channels)]
    if kind == "two-1x1":
        return [transforms.two_conv1x1(channels)]
    first = transforms.Conv1x1(channels)
    if kind == "orthogonal":
        return [first, transforms.orthogonal_convolution(channels, norm_limit=norm_limit, norm_bound=norm_bound)]
    if kind == "conv-exponential":
        return [first, transforms.conv_exponential(channels, norm_limit=norm_limit, norm_bound=norm_bound)]
    return [first]
