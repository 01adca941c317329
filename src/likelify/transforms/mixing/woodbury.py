"""Low-rank changes of channels and positions, inverted by the Woodbury identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, DomainError
from likelify.shapes import as_shape, check_size
from likelify.structure import ContextLike, sum_constant
from likelify.tracing import is_tracing
from likelify.transforms.core import Chain, Transform
from likelify.transforms.inversion import LINEAR
from likelify.transforms.mixing.conv1x1 import Conv1x1


class Woodbury(Transform):
    r"""Low-rank changes of the channels and of the positions, `z = (I + L_c R_c) x (I + L_s R_s)^T`.

    `x` is read as a matrix with a row for each channel and a column for each of the N positions. By the determinant
    lemma `log |det| = N log |det(I + R_c L_c)| + c log |det(I + R_s L_s)|`, and by the Woodbury identity
    `(I + L R)^-1 = I - L (I + R L)^-1 R`: only matrices of the size of the ranks are factorized, and none of N x N is
    ever formed. A fresh layer is near the identity.

    The positions must be as many and in the same order as the layer was built for, if it has a rank for them. Nothing
    keeps the layer from becoming singular in training; it then refuses to work.

    Args:
        channels: c.
        size: of the image, or of the sequence or volume; needed with a `spatial_rank`.
        channel_rank: columns of `L_c`, or zero for no change of the channels.
        spatial_rank: columns of `L_s`, or zero for no change of the positions.

    Raises:
        ShapeError: for another number of channels or another size.
        DomainError: if a factor is singular to working precision.

    Source:
        Lu and Huang 2020, sections 3.1 and 3.2.

    Example:
        >>> layer = Woodbury(3, (4, 4), channel_rank=2, spatial_rank=2)
        >>> z, log_det = layer(torch.randn(5, 3, 4, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3, 4, 4]), torch.Size([5]))
    """

    fills_space = True
    inverse_check = LINEAR

    def __init__(
        self, channels: int, size: int | Sequence[int] | None = None, *, channel_rank: int = 0, spatial_rank: int = 0
    ) -> None:
        super().__init__()
        channels = check_size(channels, "The channels of Woodbury")
        channel_rank = check_size(channel_rank, "The channel_rank of Woodbury", least=0)
        spatial_rank = check_size(spatial_rank, "The spatial_rank of Woodbury", least=0)
        if channel_rank + spatial_rank == 0:
            raise ConfigError("Woodbury needs a rank for the channels or for the positions, and both are 0.")
        positions = as_shape(size or (), least=1)
        if spatial_rank and not positions:
            raise ConfigError("Woodbury with a spatial_rank needs the size of the image, for example (16, 16).")
        self.channels, self.size = channels, positions if spatial_rank else None
        self.takes = (channels, ...) if self.size is None else (channels, *self.size)
        self.channel = _LowRankChange("channel", channels, channel_rank) if channel_rank else None
        self.spatial = _LowRankChange("spatial", math.prod(positions), spatial_rank) if spatial_rank else None

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the channels, then the positions."""
        return self._multiply(x, context, inverse=False)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the change of the positions, then that of the channels."""
        return self._multiply(z, context, inverse=True)

    def _multiply(self, x: Tensor, context: ContextLike, *, inverse: bool) -> tuple[Tensor, Tensor]:
        flat, log_det = x.flatten(2) if x.ndim > 2 else x[:, :, None], x.new_zeros(())
        changes = [(self.channel, flat.shape[2]), (self.spatial, self.channels)]
        for change, copies in reversed(changes) if inverse else changes:
            if change is not None:
                flat, own = change.solve(flat) if inverse else change.times(flat)
                log_det = log_det + copies * own
        return flat.reshape(x.shape), sum_constant(-log_det if inverse else log_det, x, context)


def woodbury_conv(channels: int, size: int | Sequence[int], rank: int = 24) -> Chain:
    """Build the mixing layer of the Woodbury flow as it is compared: a 1x1 convolution, then a change of the positions.

    Args:
        channels: of the images.
        size: of the images, which is fixed.
        rank: of the change.

    Source:
        Lu and Huang 2020; with the 1x1 convolution for the channels as in Hoogeboom et al. 2020, section 6.1.
    """
    return Chain([Conv1x1(channels), Woodbury(channels, size, spatial_rank=rank)])


class _LowRankChange(Caching):
    """A trained matrix `I + L R` on one axis, near the identity; only the small `I + R L` is ever factorized."""

    def __init__(self, name: str, size: int, rank: int) -> None:
        super().__init__()
        self.name = name
        self.left = nn.Parameter(torch.randn(size, rank) / size)
        self.right = nn.Parameter(torch.randn(rank, size) / size)

    def times(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply `(rows, channels, positions)`, and return `log |det|` of the matrix too."""
        return x + self._product(self.left, x), self._factors().log_abs_det

    def solve(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply by the inverse, `I - L (I + R L)^-1 R`, and return `log |det|` of the matrix too."""
        factors, pivots, log_abs_det = self._factors()
        left = self.cached("left", lambda: torch.linalg.lu_solve(factors, pivots, self.left, left=False))
        return x - self._product(left, x), log_abs_det

    def _product(self, left: Tensor, x: Tensor) -> Tensor:
        return left @ (self.right @ x) if self.name == "channel" else (x @ self.right.mT) @ left.mT

    def _factors(self) -> LUFactors:
        def compute() -> LUFactors:
            eye = torch.eye(len(self.right), dtype=self.left.dtype, device=self.left.device)
            return LUFactors.of(eye + self.right @ self.left, self.name)

        return self.cached("factors", compute)


class LUFactors(NamedTuple):
    """The LU factorization of a matrix that is known to be regular."""

    factors: Tensor
    pivots: Tensor
    log_abs_det: Tensor

    @classmethod
    def of(cls, matrix: Tensor, name: str) -> LUFactors:
        """Factorize, and refuse a matrix that is singular to working precision (not while tracing)."""
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        sizes = factors.diagonal().abs()
        if not is_tracing():
            low, high = float(sizes.detach().min()), float(sizes.detach().max())
            # Written so that NaN is refused as well.
            if not low > len(matrix) * torch.finfo(sizes.dtype).eps * high:
                raise DomainError(
                    f"Woodbury has become singular: the inner matrix of the {name} factor has pivots from {low:.2g} to "
                    f"{high:.2g}, so there is no inverse and no likelihood. Train with a smaller learning rate or from "
                    "a new start; Conv1x1 and exponentials cannot become singular."
                )
        return cls(factors, pivots, sizes.log().sum())
