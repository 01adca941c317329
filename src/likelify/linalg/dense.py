"""Matrices on the channel axis as linear maps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.bounds import gram_bound, root_of_squares, widest
from likelify.linalg.maps import LinearMap, Symmetry, check_declared_norm, check_entries, check_symmetry
from likelify.shapes import Shape, as_shape


def project(tensor: Tensor, transposed: Tensor, symmetry: Symmetry) -> Tensor:
    """Return the symmetric or skew part from a tensor and its adjoint, or the tensor itself."""
    if symmetry is None:
        return tensor
    # A transposed copy is made in blocks, several times faster than reading along the wrong axis.
    return torch.add(tensor, transposed.contiguous(), alpha=1 if symmetry == "symmetric" else -1).mul_(0.5)


# Matrices up to this size are bounded in double precision: it costs nothing.
SMALL = 64


@dataclass(frozen=True, eq=False)
class Dense(LinearMap, vouches=True):
    r"""A matrix on the channel axis: `y[:, i, ...] = sum_j matrix[i, j] x[:, j, ...]`.

    On rows `(rows, d)` it is the usual matrix product; on images `(rows, c, h, w)` a 1x1 convolution.

    Args:
        matrix: `(c, c)`, or `(rows, c, c)` for a matrix of its own for each row.
        symmetry: take the symmetric part `(M + M^T) / 2` or the skew part `(M - M^T) / 2` of the matrix.
        norm: an upper bound of its 2-norm that is known already.

    Example:
        >>> rotation = Dense(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> rotation.apply(torch.tensor([[1.0, 0.0]]))
        tensor([[0., 1.]])
    """

    matrix: Tensor
    symmetry: Symmetry = None  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    norm: float | None = None

    def __post_init__(self) -> None:
        if self.matrix.ndim not in (2, 3) or self.matrix.shape[-2] != self.matrix.shape[-1]:
            raise ShapeError(
                f"{type(self).__name__} needs a square matrix (c, c), or one for each row (rows, c, c), got shape "
                f"{tuple(self.matrix.shape)}."
            )
        check_entries(self.matrix, "matrix")
        check_symmetry(self.symmetry)
        check_declared_norm(self.norm)
        object.__setattr__(self, "_effective", project(self.matrix, self.matrix.mT, self.symmetry))

    @property
    def effective(self) -> Tensor:
        """The matrix that is applied: the given one or its symmetric or skew part."""
        return self._effective  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def rows(self) -> int | None:
        """How many rows have a matrix of their own."""
        return self.matrix.shape[0] if self.matrix.ndim == 3 else None

    def apply(self, x: Tensor) -> Tensor:
        """Multiply the channels of each position by the matrix."""
        return apply_matrix(self.effective, x)

    def adjoint(self) -> Dense:
        """Return the transposed matrix."""
        if self.symmetry == "symmetric":
            return self
        transposed = copy.copy(self)
        # What is applied is known, so there is no need to compute it again from the transposed matrix.
        object.__setattr__(transposed, "matrix", self.matrix.mT)
        object.__setattr__(transposed, "_effective", self.effective.mT)
        return transposed

    def trace(self, event_shape: int | Shape) -> Tensor:
        """Return the trace of the matrix times the number of positions."""
        return self.effective.diagonal(dim1=-2, dim2=-1).sum(-1) * math.prod(as_shape(event_shape)[1:])

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the declared norm, or bound it by repeated squaring (`gram_bound`).

        Large matrices are squared fewer times, and in their own precision.
        """
        return _bound(self.effective.detach()) if self.norm is None else self.norm

    def sharpened(self) -> Dense:
        """Compute the norm instead of taking the declared one."""
        return replace(self, norm=None)

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the norm of the symmetric part in the same way."""
        if self.symmetry is not None or self.norm is not None:
            return super().growth_bound(event_shape)
        return _bound(project(self.matrix.detach(), self.matrix.detach().mT, "symmetric"))

    def frobenius_bound(self, event_shape: int | Shape) -> float | Tensor:
        """Return the Frobenius norm."""
        matrix = widest(self.effective.detach())
        norms = root_of_squares(matrix.square().sum((-2, -1)), matrix.shape[-1] ** 2)
        return norms * math.sqrt(math.prod(as_shape(event_shape)[1:])) * (1 + 1e-12)

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the mean of the diagonal."""
        if self.symmetry == "skew" or self.norm is not None or self.rows is not None:
            return 0.0, self
        shift = self.matrix.detach().diagonal().mean()
        return shift, replace(self, matrix=self.matrix - shift * torch.eye(len(self.matrix)).to(self.matrix))

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Sum the outer products `v u^T` over rows and positions."""
        if self.rows is not None:
            raw = v.flatten(2) @ u.flatten(2).mT if u.ndim > 2 else v[:, :, None] * u[:, None, :]
        elif u.ndim == 2:
            raw = v.T @ u
        else:
            raw = v.movedim(1, 0).flatten(1) @ u.movedim(1, 0).flatten(1).T
        return {"matrix": project(raw, raw.mT, self.symmetry)}


def _bound(matrix: Tensor) -> Tensor:
    """Bound the norm at a cost that stays below that of a dozen products with as many rows as the matrix has."""
    size = matrix.shape[-1]
    if size <= SMALL:
        return gram_bound(widest(matrix), steps=5)
    return gram_bound(matrix if matrix.dtype == torch.float32 else widest(matrix), steps=2 if size <= 4 * SMALL else 1)


@dataclass(frozen=True, eq=False)
class Skew(Dense, vouches=True):
    r"""The skew part `(M - M^T) / 2` of a matrix on the channel axis; its exponential is a rotation.

    Args:
        matrix: any `(c, c)`, or `(rows, c, c)`; only its skew part counts.
        norm: an upper bound of its 2-norm that is known already.
    """

    symmetry: Literal["skew"] = "skew"


@dataclass(frozen=True, eq=False)
class Diagonal(LinearMap, vouches=True):
    r"""A factor for each channel: `y[:, i, ...] = factors[i] x[:, i, ...]`.

    Args:
        factors: `(c,)`, or `(rows, c)` for factors of its own for each row.
    """

    factors: Tensor

    def __post_init__(self) -> None:
        if self.factors.ndim not in (1, 2):
            raise ShapeError(f"Diagonal needs factors (c,) or (rows, c), got shape {tuple(self.factors.shape)}.")
        check_entries(self.factors, "factors")

    @property
    def symmetry(self) -> Symmetry:
        """A diagonal matrix is symmetric."""
        return "symmetric"

    @property
    def rows(self) -> int | None:
        """How many rows have factors of their own."""
        return self.factors.shape[0] if self.factors.ndim == 2 else None

    def apply(self, x: Tensor) -> Tensor:
        """Multiply each channel by its factor."""
        channels = self.factors.shape[-1]
        if x.ndim < 2 or x.shape[1] != channels or self.rows not in (None, x.shape[0]):
            raise ShapeError(
                f"Diagonal with factors {tuple(self.factors.shape)} cannot act on an input of shape {tuple(x.shape)}."
            )
        return x * self.factors[(..., *(None,) * (x.ndim - 2))]

    def adjoint(self) -> Diagonal:
        """Return the map itself."""
        return self

    def trace(self, event_shape: int | Shape) -> Tensor:
        """Add the factors, once for each position."""
        return self.factors.sum(-1) * math.prod(as_shape(event_shape)[1:])

    def norm_bound(self, event_shape: Shape) -> Tensor:
        """Return the largest size of a factor."""
        return widest(self.factors.detach()).abs().amax(-1)

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the middle of the range of the factors."""
        if self.rows is not None:
            return 0.0, self
        shift = (self.factors.detach().amax() + self.factors.detach().amin()) / 2
        return shift, Diagonal(self.factors - shift)


def apply_matrix(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply the channel axis (axis 1) of `x` by a matrix `(c_out, c_in)` or `(rows, c_out, c_in)`, everywhere."""
    own_rows = matrix.ndim == 3
    if x.ndim < 2 or x.shape[1] != matrix.shape[-1] or (own_rows and x.shape[0] != matrix.shape[0]):
        raise ShapeError(
            f"A matrix of shape {tuple(matrix.shape)} cannot act on an input of shape {tuple(x.shape)} "
            "(rows, channels, ...)."
        )
    if x.ndim == 2:
        return (matrix @ x[:, :, None]).squeeze(2) if own_rows else x @ matrix.mT
    if not own_rows and x.stride(1) == 1:
        # Channels last in memory stay there.
        return (x.movedim(1, -1) @ matrix.mT).movedim(-1, 1)
    flat = x.flatten(2)
    if not own_rows and flat.shape[1] <= flat.shape[2]:
        # One product for each row; its gradient, a matrix for each row, is no larger than the row.
        matrix = matrix.expand(len(x), -1, -1)
    return (matrix @ flat).reshape(x.shape[0], matrix.shape[-2], *x.shape[2:])
