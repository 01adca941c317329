"""The layers that mix channels and positions, by name."""

from likelify.names import Mixing, NormBoundName
from likelify.transforms.core import Transform
from likelify.transforms.exponential.layers import conv_exponential, orthogonal_convolution
from likelify.transforms.exponential.rotations import rotation
from likelify.transforms.mixing.circular import periodic_conv
from likelify.transforms.mixing.conv1x1 import Conv1x1, two_conv1x1
from likelify.transforms.mixing.emerging import emerging_conv
from likelify.transforms.mixing.woodbury import woodbury_conv
from likelify.transforms.reshape import Permute


def mixing_layers(
    kind: Mixing,
    channels: int,
    positions: tuple[int, int],
    *,
    norm_limit: float | None = 0.9,
    norm_bound: NormBoundName = "torus",
) -> list[Transform]:
    """Build the layers of one mixing step, as the papers put them together.

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
        return [Permute.random(channels)]
    if kind == "emerging":
        return [emerging_conv(channels)]
    if kind == "woodbury":
        return [woodbury_conv(channels, positions, rank=min(24, positions[0] * positions[1]))]
    if kind == "periodic":
        return [periodic_conv(channels)]
    if kind == "householder":
        return [rotation(channels, method="householder", reflections=channels)]
    if kind == "two-1x1":
        return [two_conv1x1(channels)]
    first = Conv1x1(channels)
    if kind == "orthogonal":
        return [first, orthogonal_convolution(channels, norm_limit=norm_limit, bound=norm_bound)]
    if kind == "conv-exponential":
        return [first, conv_exponential(channels, norm_limit=norm_limit, bound=norm_bound)]
    return [first]
