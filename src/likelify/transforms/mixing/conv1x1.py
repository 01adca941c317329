"""Invertible 1x1 convolutions: one matrix on the channels of every position."""

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.linalg.dense import apply_matrix
from likelify.shapes import check_size
from likelify.structure import ContextLike, sum_items
from likelify.transforms.core import Chain, Transform
from likelify.transforms.inversion import LINEAR
from likelify.transforms.rules import PERMUTATION_MATRIX, SIGNS


class Conv1x1(Transform, Caching):
    r"""One invertible matrix on the channels of every position, `z[:, :, p] = W x[:, :, p]`.

    `W = P L (U + diag(sign exp(log_diagonal)))` with `L` unit lower and `U` strictly upper triangular; the permutation
    `P` and the signs are fixed, so `W` can never become singular, and `log |det| = positions * sum log_diagonal`
    (Kingma and Dhariwal 2018, section 3.2). Starts at a random rotation or reflection.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`; rows of vectors, images and graph nodes alike.
    """

    fills_space = True
    buffer_rules = {"permutation": PERMUTATION_MATRIX, "signs": SIGNS}
    permutation: Tensor
    signs: Tensor
    inverse_check = LINEAR

    def __init__(self, channels: int) -> None:
        super().__init__()
        channels = check_size(channels, "The channels of Conv1x1")
        self.takes = (channels, ...)
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

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by `W`."""
        return apply_matrix(self.cached("matrix", self.matrix), x), self._log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the inverse of `W`."""
        return apply_matrix(self.cached("inverse", self.inverse_matrix), z), -self._log_det(z, context)

    def _factors(self) -> tuple[Tensor, Tensor]:
        lower = self.lower.tril(-1) + torch.eye(len(self.signs), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + (self.signs * self.log_diagonal.exp()).diag()
        return lower, upper

    def _log_det(self, x: Tensor, context: ContextLike) -> Tensor:
        return sum_items(self.log_diagonal.sum().expand_as(x[:, 0]), context)


def two_conv1x1(channels: int) -> Chain:
    """Build two 1x1 convolutions in a row: a control that has more parameters and no more power than one.

    Args:
        channels: size of axis 1.
    """
    return Chain([Conv1x1(channels), Conv1x1(channels)])
