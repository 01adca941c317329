r"""Small matrices along one axis of an event, shared by groups of channels: what a `KroneckerSum` is made of."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.axis_products import apply_along
from likelify.linalg.bounds import gram_bound, root_of_squares, round_off_margin, widest
from likelify.linalg.dense import project
from likelify.linalg.maps import LinearMap, Symmetry, check_declared_norm, check_entries, check_symmetry
from likelify.shapes import Shape, as_shape


class AxisMap(LinearMap):
    r"""A matrix along the last axis of `(rows, channels, n)`, one for each of G groups of consecutive channels.

    Write `groups`, `matrix`, `bounds`, `scaled`, `adjoint` and `rows`.
    """

    @property
    @abstractmethod
    def groups(self) -> int:
        """How many groups of channels have a matrix of their own."""

    @abstractmethod
    def matrix(self, size: int) -> Tensor:
        """Form the matrices for an axis of that size, `(G, n, n)` or `(rows, G, n, n)`; differentiable."""

    @abstractmethod
    def bounds(self, size: int, *, of_symmetric_part: bool = False) -> Tensor:
        """Bound the 2-norm of each matrix, or of its symmetric part, from above: `(G,)` or `(rows, G)`, detached."""

    @abstractmethod
    def scaled(self, factor: float | Tensor) -> AxisMap:
        """Return the matrices times a number."""

    @abstractmethod
    def adjoint(self) -> AxisMap:
        """Return the transposed matrices."""

    @property
    def doubtful(self) -> bool:
        """Whether a norm was declared without being computed."""
        return self.declared_norm is not None and not getattr(self, "proved", False)

    @property
    def declared_norm(self) -> float | None:
        """A bound of the norm that is known without looking at tensors, or None."""
        return getattr(self, "norm", None)

    def apply(self, x: Tensor) -> Tensor:
        """Multiply the last axis of each channel by the matrix of its group."""
        if x.ndim != 3:
            raise ShapeError(f"{type(self).__name__} alone acts on (rows, channels, n), got {tuple(x.shape)}.")
        return self.along(x, 2)

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Multiply an axis of positions of `x`, `(rows, channels, *positions)`, by the matrices."""
        return apply_along(self.matrix(x.shape[axis]), x, axis)

    def trace(self, event_shape: Shape) -> Tensor:
        """Add the traces of all channels."""
        channels, size = self._event(event_shape)
        return self.group_traces(size).sum(-1) * (channels // self.groups)

    def group_traces(self, size: int) -> Tensor:
        """Return the trace of each matrix, `(G,)` or `(rows, G)`."""
        return self.matrix(size).diagonal(dim1=-2, dim2=-1).sum(-1)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the declared norm, or the largest bound of a matrix."""
        _, size = self._event(event_shape)
        return self.bounds(size).amax(-1) if self.declared_norm is None else self.declared_norm

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the symmetric part in the same way."""
        if self.symmetry is not None or self.declared_norm is not None:
            return super().growth_bound(event_shape)
        return self.bounds(self._event(event_shape)[1], of_symmetric_part=True).amax(-1)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the Frobenius norm on all channels."""
        channels, size = self._event(event_shape)
        norm = root_of_squares(self.squares(size).sum(-1), self.groups * size**2)
        return norm * math.sqrt(channels // self.groups) * (1 + 1e-6)

    def squares(self, size: int) -> Tensor:
        """Return the sum of the squares of the entries of each matrix, `(G,)` or `(rows, G)`, in float64."""
        return widest(self.matrix(size).detach()).square().sum((-2, -1))

    def _event(self, event_shape: Shape) -> tuple[int, int]:
        shape = as_shape(event_shape)
        if len(shape) != 2 or shape[0] % self.groups:
            raise ShapeError(
                f"{type(self).__name__} with {self.groups} groups acts on events (channels, n) whose channels are a "
                f"multiple of its groups, got {shape}."
            )
        return shape


@dataclass(frozen=True, eq=False)
class AxisMatrix(AxisMap, vouches=True):
    r"""Any matrices along an axis, `y[i] = sum_j matrix[i, j] x[j]`, one for each group of channels.

    Args:
        entries: `(G, n, n)`, or `(rows, G, n, n)` for matrices of its own for each row.
        symmetry: take the symmetric or the skew part.
        norm: an upper bound of the 2-norm of all of them that is known already.
        proved: that bound was computed from what is given here, so that it need not be checked.
    """

    entries: Tensor
    symmetry: Symmetry = None  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    norm: float | None = None
    proved: bool = False

    def __post_init__(self) -> None:
        if self.entries.ndim not in (3, 4) or self.entries.shape[-2] != self.entries.shape[-1]:
            raise ShapeError(
                "AxisMatrix needs square matrices (groups, n, n), or (rows, groups, n, n) for those of each row, got "
                f"shape {tuple(self.entries.shape)}."
            )
        check_entries(self.entries, "entries")
        check_symmetry(self.symmetry)
        check_declared_norm(self.norm)
        object.__setattr__(self, "_effective", project(self.entries, self.entries.mT, self.symmetry))

    @property
    def effective(self) -> Tensor:
        """The matrices that are applied."""
        return self._effective  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def groups(self) -> int:
        """The number of matrices."""
        return self.entries.shape[-3]

    @property
    def rows(self) -> int | None:
        """How many rows have matrices of their own."""
        return self.entries.shape[0] if self.entries.ndim == 4 else None

    def matrix(self, size: int) -> Tensor:
        """Return the matrices, whose size must be that of the axis."""
        if size != self.entries.shape[-1]:
            raise ShapeError(f"Matrices of size {self.entries.shape[-1]} cannot act on an axis of {size} positions.")
        return self.effective

    def bounds(self, size: int, *, of_symmetric_part: bool = False) -> Tensor:
        """Bound the norms by repeated squaring (`gram_bound`)."""
        matrix = widest(self.matrix(size).detach())
        return gram_bound(project(matrix, matrix.mT, "symmetric") if of_symmetric_part else matrix, steps=5)

    def scaled(self, factor: float | Tensor) -> AxisMatrix:
        """Scale the matrices."""
        return replace(self, entries=self.entries * factor, norm=scaled_norm(self.norm, factor))

    def adjoint(self) -> AxisMatrix:
        """Transpose the matrices."""
        return replace(self, entries=self.entries.mT)

    def sharpened(self) -> AxisMatrix:
        """Compute the norm instead of taking the declared one."""
        return replace(self, norm=None, proved=False)


@dataclass(frozen=True, eq=False)
class AxisSum(AxisMap, vouches=True):
    """The sum of two axis maps of any kind and any numbers of groups."""

    left: AxisMap
    right: AxisMap

    def __post_init__(self) -> None:
        rows = {part.rows for part in (self.left, self.right)} - {None}
        if len(rows) > 1:
            raise ShapeError(f"These maps are made for different numbers of rows: {sorted(rows, key=str)}.")

    @property
    def groups(self) -> int:
        """The smallest number of groups in which both are constant."""
        return math.lcm(self.left.groups, self.right.groups)

    @property
    def rows(self) -> int | None:
        """The rows of the part that has its own."""
        return self.left.rows if self.right.rows is None else self.right.rows

    @property
    def symmetry(self) -> Symmetry:
        """What both have."""
        return self.left.symmetry if self.left.symmetry == self.right.symmetry else None

    @property
    def doubtful(self) -> bool:
        """Whether one of both is."""
        return self.left.doubtful or self.right.doubtful

    @property
    def declared_norm(self) -> float | None:
        """The sum of both."""
        left, right = self.left.declared_norm, self.right.declared_norm
        return None if left is None or right is None else left + right

    def matrix(self, size: int) -> Tensor:
        """Add the matrices."""
        return self._spread(self.left.matrix(size), -3) + self._spread(self.right.matrix(size), -3)

    def bounds(self, size: int, *, of_symmetric_part: bool = False) -> Tensor:
        """Add the bounds."""
        left, right = (p.bounds(size, of_symmetric_part=of_symmetric_part) for p in (self.left, self.right))
        return self._spread(left, -1) + self._spread(right, -1)

    def scaled(self, factor: float | Tensor) -> AxisSum:
        """Scale both."""
        return AxisSum(self.left.scaled(factor), self.right.scaled(factor))

    def adjoint(self) -> AxisSum:
        """Add the adjoints."""
        return AxisSum(self.left.adjoint(), self.right.adjoint())

    def _spread(self, values: Tensor, axis: int) -> Tensor:
        """Repeat what is shared by the larger groups of a part."""
        repeats = self.groups // values.shape[axis]
        return values if repeats == 1 else values.repeat_interleave(repeats, axis)


def margin(tensor: Tensor) -> float:
    """Widen a bound by what products of matrices in the format of a tensor may add to the norm."""
    return round_off_margin(tensor.dtype, 2)


def scaled_norm(norm: float | None, factor: float | Tensor) -> float | None:
    """Return a declared norm of what has been scaled, or None where it is not known."""
    return None if norm is None or isinstance(factor, Tensor) or factor == 0 else norm * abs(factor)
