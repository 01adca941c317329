"""Linear layers that mix channels, positions, or both."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.linalg.conv import ConvMap, check_odd
from likelify.linalg.dense import apply_matrix
from likelify.linalg.expm.fourier import frequency_matrices, multiply_frequencies
from likelify.structure import ContextLike, sum_constant, sum_items
from likelify.tracing import is_tracing
from likelify.transforms.core import Chain, Transform, check_channels, leave_autocast


class Conv1x1(Transform, Caching):
    r"""One invertible matrix on the channels of every position, `z[:, :, p] = W x[:, :, p]`.

    `W = P L (U + diag(sign exp(log_diagonal)))` with `L` unit lower and `U` strictly upper triangular; the permutation
    `P` and the signs are fixed, so `W` can never become singular, and `log |det| = positions * sum log_diagonal`
    (Kingma and Dhariwal 2018, section 3.2). Starts at a random rotation or reflection.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`; rows of vectors, images and graph nodes alike.
    """

    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        start, _ = torch.linalg.qr(torch.randn(channels, channels))
        permutation, lower, upper = torch.linalg.lu(start)
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(upper.diagonal().abs().log())

    def matrix(self) -> Tensor:
        """Form `W`, `(channels, channels)`."""
        lower, upper = self._factors()
        return self.permutation @ lower @ upper

    def inverse_matrix(self) -> Tensor:
        """Form the inverse of `W` by two triangular solves."""
        lower, upper = self._factors()
        inner = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, inner, upper=True)

    @leave_autocast
    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by `W`."""
        check_channels(x, len(self.signs), self)
        return apply_matrix(self.cached("matrix", self.matrix), x), self._log_det(x, context)

    @leave_autocast
    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the inverse of `W`."""
        check_channels(z, len(self.signs), self)
        return apply_matrix(self.cached("inverse", self.inverse_matrix), z), -self._log_det(z, context)

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.signs), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + (self.signs * self.log_diagonal.exp()).diag()
        return lower, upper

    def _log_det(self, x: Tensor, context: ContextLike) -> Tensor:
        return sum_items(self.log_diagonal.sum().expand_as(x[:, 0]), context)

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return f"{len(self.signs)}"


def two_conv1x1(channels: int) -> Chain:
    """Build two 1x1 convolutions in a row: a control that has more parameters and no more power than one.

    Args:
        channels: size of axis 1.
    """
    return Chain([Conv1x1(channels), Conv1x1(channels)])


class Factorized(NamedTuple):
    """An LU factorization that is known to be regular, of one matrix or of a batch."""

    factors: Tensor
    pivots: Tensor
    log_abs_det: Tensor

    @classmethod
    def of(cls, matrix: Tensor, layer: nn.Module, what: str) -> "Factorized":
        """Factorize, and refuse a matrix that is singular to working precision (not while tracing)."""
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        sizes = factors.diagonal(dim1=-2, dim2=-1).abs()
        if not is_tracing():
            low, high = sizes.detach().amin(-1), sizes.detach().amax(-1)
            # Written so that NaN is refused as well.
            bad = ~(low > matrix.shape[-1] * torch.finfo(sizes.dtype).eps * high)
            if bool(bad.any()):
                raise DomainError(
                    f"{type(layer).__name__} has become singular: {what} has pivots from {float(low.min()):.2g} to "
                    f"{float(high.max()):.2g}, so there is no inverse and no likelihood. Train with a smaller learning "
                    "rate or from a new start; Conv1x1 and exponentials cannot become singular."
                )
        return cls(factors, pivots, sizes.log().sum(-1))

    def inverse(self) -> Tensor:
        """Form the inverse."""
        eye = torch.eye(self.factors.shape[-1], dtype=self.factors.dtype, device=self.factors.device)
        return torch.linalg.lu_solve(self.factors, self.pivots, eye.expand_as(self.factors))


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
        self.ranks = {"channel": channel_rank, "spatial": spatial_rank}
        for name, numbers in (("channel", channels), ("spatial", math.prod(size or ()))):
            if self.ranks[name]:
                left, right = torch.randn(numbers, self.ranks[name]), torch.randn(self.ranks[name], numbers)
                self.register_parameter(f"{name}_left", nn.Parameter(left / numbers))
                self.register_parameter(f"{name}_right", nn.Parameter(right / numbers))

    @leave_autocast
    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Change the channels, then the positions."""
        flat = self._flatten(x)
        log_det = self._log_det(x, context, self._factorize())
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
        inner = self._factorize()
        log_det = self._log_det(z, context, inner)
        if self.ranks["spatial"]:
            left, right = self._solve("spatial", inner)
            flat = flat - (flat @ right.mT) @ left.mT
        if self.ranks["channel"]:
            left, right = self._solve("channel", inner)
            flat = flat - left @ (right @ flat)
        return flat.reshape(z.shape), -log_det

    def _flatten(self, x: Tensor) -> Tensor:
        check_channels(x, self.channels, self)
        if self.size is not None and tuple(x.shape[2:]) != self.size:
            raise ShapeError(
                f"This Woodbury layer mixes the positions of images of size {self.size} and got "
                f"{tuple(x.shape[2:])}. Its matrices belong to that size: build another layer, or one with a "
                "channel_rank only."
            )
        return x.flatten(2) if x.ndim > 2 else x[:, :, None]

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        # Not get_parameter, which refuses the tensors that torch.func.functional_call puts in place.
        return getattr(self, f"{name}_left"), getattr(self, f"{name}_right")

    def _factorize(self) -> dict[str, Factorized]:
        """Factorize the inner matrices `I + R L`."""

        def compute() -> dict[str, Factorized]:
            found = {}
            for name in (name for name, rank in self.ranks.items() if rank):
                left, right = self._pair(name)
                eye = torch.eye(self.ranks[name], dtype=left.dtype, device=left.device)
                found[name] = Factorized.of(eye + right @ left, self, f"the inner matrix of the {name} factor")
            return found

        return self.cached("inner", compute)

    def _solve(self, name: str, inner: dict[str, Factorized]) -> tuple[Tensor, Tensor]:
        """Return `L (I + R L)^-1` and `R`."""
        left, right = self._pair(name)
        found = inner[name]
        return self.cached(name, lambda: torch.linalg.lu_solve(found.factors, found.pivots, left, left=False)), right

    def _log_det(self, x: Tensor, context: ContextLike, inner: dict[str, Factorized]) -> Tensor:
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


class PeriodicConv(Transform, Caching):
    r"""A circular convolution, which is one matrix for each frequency: `z_hat(f) = W(f) x_hat(f)`.

    `W(f) = sum_s K_s exp(2 pi i f s / n)`, `log |det| = sum over all frequencies of log |det W(f)|`, and the inverse
    solves a small system at each frequency: exact, for any image size; kernels that are larger than the image wrap
    round it. A fresh layer is near the identity.

    Nothing keeps a frequency from becoming singular in training; the layer then refuses to work.

    Args:
        channels: of the images.
        kernel_size: odd; one number, or one for each axis.
        dims: 1 for sequences, 2 for images, 3 for volumes.

    Raises:
        ShapeError: for another number of channels or axes.
        DomainError: if the matrix of a frequency is singular to working precision.

    Source:
        Hoogeboom et al. 2019, section 3.2 (periodic convolutions).
    """

    def __init__(self, channels: int, kernel_size: int | Sequence[int] = 3, *, dims: int = 2) -> None:
        super().__init__()
        taps = (kernel_size,) * dims if isinstance(kernel_size, int) else tuple(kernel_size)
        check_odd(taps)
        if dims not in (1, 2, 3) or len(taps) != dims:
            raise ConfigError(f"dims must be 1, 2 or 3 with one kernel size for each, got {dims} and {taps}.")
        kernel = 0.05 / math.sqrt(channels * math.prod(taps)) * torch.randn(channels, channels, *taps)
        kernel[(..., *(tap // 2 for tap in taps))] += torch.eye(channels)
        self.weight = nn.Parameter(kernel)

    @leave_autocast
    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply each frequency by its matrix."""
        matrices, factorized = self._matrices(x)
        return multiply_frequencies(matrices, x), self._log_det(x, context, factorized)

    @leave_autocast
    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply each frequency by the inverse of its matrix."""
        _, factorized = self._matrices(z)
        inverses = self.cached(f"inverse {tuple(z.shape[2:])}", factorized.inverse)
        return multiply_frequencies(inverses, z), -self._log_det(z, context, factorized)

    def _matrices(self, x: Tensor) -> tuple[Tensor, Factorized]:
        """Return `W(f)` for the frequencies of a real transform, `(*frequencies, c, c)`, and their factorizations."""
        check_channels(x, len(self.weight), self)
        if x.ndim != self.weight.ndim:
            raise ShapeError(
                f"This PeriodicConv convolves {self.weight.ndim - 2} axes after the channels and got an input of shape "
                f"{tuple(x.shape)}."
            )
        shape = tuple(x.shape[1:])

        def compute() -> tuple[Tensor, Factorized]:
            matrices = frequency_matrices(ConvMap(self.weight, padding="circular"), shape)
            return matrices, Factorized.of(matrices, self, "the matrix of a frequency")

        return self.cached(f"matrices {shape[1:]}", compute)

    def _log_det(self, x: Tensor, context: ContextLike, factorized: Factorized) -> Tensor:
        # A real transform leaves out the conjugate partners; zero and, for even widths, the last are their own.
        single = torch.arange(factorized.log_abs_det.shape[-1], device=x.device).mul(2).remainder(x.shape[-1]) == 0
        copies = torch.where(single, 1.0, 2.0).to(x.dtype)
        return sum_constant((factorized.log_abs_det * copies).sum(), x, context)

    def extra_repr(self) -> str:
        """Show the numbers of channels and taps."""
        return f"{len(self.weight)}, kernel_size={tuple(self.weight.shape[2:])}"
