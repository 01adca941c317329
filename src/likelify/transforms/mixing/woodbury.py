"""Low-rank changes of channels and positions, inverted by the Woodbury identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, DomainError
from likelify.structure import ContextLike, sum_constant
from likelify.tracing import is_tracing, leave_autocast
from likelify.transforms.core import Chain, Transform
from likelify.transforms.mixing.conv1x1 import Conv1x1


class Woodbury(Transform, Caching):
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

    def __init__(
        self, channels: int, size: Sequence[int] | None = None, *, channel_rank: int = 0, spatial_rank: int = 0
    ) -> None:
        super().__init__()
        if min(channel_rank, spatial_rank) < 0 or channel_rank + spatial_rank == 0:
            raise ConfigError(
                f"Woodbury needs a rank for the channels or for the positions, got {channel_rank} and {spatial_rank}."
            )
        if spatial_rank and size is None:
            raise ConfigError("Woodbury with a spatial_rank needs the size of the image, for example (16, 16).")
        self.channels = channels
        self.size = tuple(size) if size is not None and spatial_rank else None
        self.takes = (channels, ...) if self.size is None else (channels, *self.size)
        self.ranks = {"channel": channel_rank, "spatial": spatial_rank}
        for name, length in (("channel", channels), ("spatial", math.prod(size or ()))):
            if self.ranks[name]:
                left, right = torch.randn(length, self.ranks[name]), torch.randn(self.ranks[name], length)
                self.register_parameter(f"{name}_left", nn.Parameter(left / length))
                self.register_parameter(f"{name}_right", nn.Parameter(right / length))

    @leave_autocast
    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the channels, then the positions."""
        flat = self._flatten(x)
        log_det = self._log_det(x, context, self._factorize_inner())
        if self.ranks["channel"]:
            left, right = self._pair("channel")
            flat = flat + left @ (right @ flat)
        if self.ranks["spatial"]:
            left, right = self._pair("spatial")
            flat = flat + (flat @ right.mT) @ left.mT
        return flat.reshape(x.shape), log_det

    @leave_autocast
    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the change of the positions, then that of the channels."""
        flat = self._flatten(z)
        inner = self._factorize_inner()
        log_det = self._log_det(z, context, inner)
        if self.ranks["spatial"]:
            left, right = self._solved_pair("spatial", inner)
            flat = flat - (flat @ right.mT) @ left.mT
        if self.ranks["channel"]:
            left, right = self._solved_pair("channel", inner)
            flat = flat - left @ (right @ flat)
        return flat.reshape(z.shape), -log_det

    def _flatten(self, x: Tensor) -> Tensor:
        return x.flatten(2) if x.ndim > 2 else x[:, :, None]

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        # Not get_parameter, which refuses the tensors that torch.func.functional_call puts in place.
        return getattr(self, f"{name}_left"), getattr(self, f"{name}_right")

    def _factorize_inner(self) -> dict[str, LUFactors]:
        """Factorize the inner matrices `I + R L`."""

        def compute() -> dict[str, LUFactors]:
            found = {}
            for name in (name for name, rank in self.ranks.items() if rank):
                left, right = self._pair(name)
                eye = torch.eye(self.ranks[name], dtype=left.dtype, device=left.device)
                found[name] = LUFactors.of(eye + right @ left, name)
            return found

        return self.cached("inner", compute)

    def _solved_pair(self, name: str, inner: dict[str, LUFactors]) -> tuple[Tensor, Tensor]:
        """Return `L (I + R L)^-1` and `R`."""
        left, right = self._pair(name)
        factors, pivots, _ = inner[name]
        return self.cached(name, lambda: torch.linalg.lu_solve(factors, pivots, left, left=False)), right

    def _log_det(self, x: Tensor, context: ContextLike, inner: dict[str, LUFactors]) -> Tensor:
        copies = {"channel": math.prod(x.shape[2:]), "spatial": self.channels}
        total = sum(copies[name] * found.log_abs_det for name, found in inner.items())
        return sum_constant(torch.as_tensor(total), x, context)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.channels}, size={self.size}, ranks={self.ranks}"


def woodbury_conv(channels: int, size: Sequence[int], rank: int = 24) -> Chain:
    """Build the mixing layer of the Woodbury flow as it is compared: a 1x1 convolution, then a change of the positions.

    Args:
        channels: of the images.
        size: of the images, which is fixed.
        rank: of the change.

    Source:
        Lu and Huang 2020; with the 1x1 convolution for the channels as in Hoogeboom et al. 2020, section 6.1.
    """
    return Chain([Conv1x1(channels), Woodbury(channels, size, spatial_rank=rank)])


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
