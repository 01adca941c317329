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
    if kind == "woodbury":
        return [transforms.woodbury_conv(channels, positions, rank=min(24, positions[0] * positions[1]))]
    if kind == "householder":
        return [transforms.rotation(channels, method="householder", reflections=channels)]
    if kind in ("orthogonal", "conv-exponential"):
        make = transforms.orthogonal_convolution if kind == "orthogonal" else transforms.conv_exponential
        return [transforms.Conv1x1(channels), make(channels, norm_limit=norm_limit, norm_bound=norm_bound)]
    simple = {
        "permutation": transforms.Permute.random,
        "1x1": transforms.Conv1x1,
        "two-1x1": transforms.two_conv1x1,
        "emerging": transforms.emerging_conv,
        "periodic": transforms.periodic_conv,
    }
    return [simple[kind](channels)]
