"""Rotations of the channels, and the fixed orthogonal matrices that stand beside exponentials."""

from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.linalg.bounds import widest
from likelify.linalg.dense import apply_matrix
from likelify.structure import ContextLike, sum_constant
from likelify.transforms.core import Caching, Chain, Transform, check_channels
from likelify.transforms.exponential import Exponential
from likelify.transforms.sources import SkewMatrix


class Orthogonal(Transform):
    r"""A fixed orthogonal matrix on the channels: `z = Q x`, `x = Q^T z`, log-determinant zero.

    Exponentials have positive determinants and start at the identity; this is what to put beside them for a negative
    one (`Orthogonal.signs`) or for another start.

    Args:
        matrix: `(c, c)`, orthogonal to 1e-5; double precision keeps it so in double models.

    Raises:
        DomainError: if the matrix is not orthogonal.

    Example:
        >>> mirror = Orthogonal.signs([1, -1])
        >>> mirror(torch.tensor([[1.0, 2.0]]))[0]
        tensor([[ 1., -2.]])
    """

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ShapeError(f"Orthogonal needs a square matrix, got shape {tuple(matrix.shape)}.")
        gap = float((widest(matrix) @ widest(matrix).T - torch.eye(len(matrix), device=matrix.device)).abs().max())
        if not gap < 1e-5:
            raise DomainError(
                f"The matrix is not orthogonal: Q Q^T differs from the identity by {gap:.2g}. Take the Q of "
                "torch.linalg.qr, for example."
            )
        self.register_buffer("matrix", matrix.detach().clone())

    @classmethod
    def signs(cls, signs: list[int]) -> "Orthogonal":
        """Flip the channels whose sign is -1."""
        return cls(torch.diag(torch.tensor(signs, dtype=torch.get_default_dtype())))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the matrix."""
        check_channels(x, len(self.matrix), self)
        return apply_matrix(self.matrix, x), _zero(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the transpose."""
        check_channels(z, len(self.matrix), self)
        return apply_matrix(self.matrix.T, z), _zero(z, context)

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return f"{len(self.matrix)}"


class Cayley(Transform, Caching):
    r"""The rotation `z = (I - S)^-1 (I + S) x` of the channels, with `S` the trained skew part of a matrix.

    Exactly orthogonal up to rounding, at the price of one factorization a call; it reaches every rotation without the
    eigenvalue -1. Starts at the identity. Log-determinant zero.

    Args:
        source: gives the `Skew` map.

    Source:
        Cayley 1846.
    """

    def __init__(self, source: SkewMatrix) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the rotation."""
        return apply_matrix(self._matrix(context), x), _zero(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply the channels by the transpose."""
        return apply_matrix(self._matrix(context).mT, z), _zero(z, context)

    def _matrix(self, context: ContextLike) -> Tensor:
        if self.source.condition_features is None:
            return self.cached("matrix", lambda: self._rotation(None))
        return self._rotation(context)

    def _rotation(self, context: ContextLike) -> Tensor:
        skew = self.source(context).effective
        eye = torch.eye(skew.shape[-1]).to(skew)
        return torch.linalg.solve(eye - skew, eye + skew)


def rotation(
    size: int,
    *,
    start: Tensor | None = None,
    method: Literal["exponential", "cayley"] = "exponential",
    condition_features: int | None = None,
    tol: float | None = None,
) -> Transform:
    r"""Build a trained rotation of the channels, `z = R x` with `x = R^T z`; log-determinant exactly zero.

    `R = exp(S) start` with `S` skew, which reaches every rotation. With few rows it is applied without being formed.

    Args:
        size: number of channels, axis 1 of `(rows, size, ...)`.
        start: orthogonal `(size, size)`, the value before training; the identity by default. One with determinant -1
            gives the reflections instead.
        method: `"exponential"`, or `"cayley"`, which cannot reach rotations by 180 degrees from the start.
        condition_features: with a number, each row has a rotation of its own, which depends on the condition.
        tol: as in `exp_action`.

    Example:
        >>> layer = rotation(3, start=torch.eye(3)[[1, 2, 0]])
        >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))[0]
        tensor([[2., 3., 1.]], grad_fn=...)
    """
    if method not in ("exponential", "cayley"):
        raise ConfigError(f"rotation knows the methods 'exponential' and 'cayley', not {method!r}.")
    source = SkewMatrix(size, condition_features=condition_features)
    turned = Exponential(source, tol=tol) if method == "exponential" else Cayley(source)
    if start is None:
        return turned
    if start.shape != (size, size):
        raise ShapeError(f"start must have shape ({size}, {size}), got {tuple(start.shape)}.")
    return Chain([Orthogonal(start), turned])


def _zero(x: Tensor, context: ContextLike) -> Tensor:
    return sum_constant(x.new_zeros(()), x, context)
