r"""Full-rank matrices of any shape on the channels, and circular convolutions, which are one for each frequency.

Let `W` map `i` channels to `o`. One QR factorization serves all that is asked of it:

    o < i:  W^H = Q R,  W^+ = Q R^-H,    complement I - Q Q^H of the inputs,   log volume sum log |R_kk|,
    o > i:  W   = Q R,  W^+ = R^-1 Q^H,  complement I - Q Q^H of the outputs,  log volume sum log |R_kk|,
    o = i:  W = P L U,  W^-1,            no complement,                        log |det W|.

The volume is `sqrt(det W W^H)` or `sqrt(det W^H W)`. A QR factorization costs what forming the Gram matrix and its
Cholesky factorization do, and does not square the condition number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likelify.errors import DomainError
from likelify.linalg.bounds import widest
from likelify.linalg.dense import apply_matrix
from likelify.linalg.frequencies import multiply_frequencies, sum_frequencies
from likelify.tracing import is_tracing

# A matrix whose smallest singular value is below this fraction of its largest one counts as rank-deficient.
LEAST_RANK = 1e-5
# Directions with less than this fraction of the largest variance are not blown up any further.
LEAST_VARIANCE = 1e-4


class Factors(ABC):
    r"""A full-rank linear map of the channels of each position or of each frequency, factorized when it is made.

    Args:
        blocks: `(*frequencies, groups, o, i)`: a matrix for each group of consecutive channels.
        owner: what the refusal of a rank-deficient matrix calls the map.

    Raises:
        DomainError: if a block has no full rank to working precision (not looked at while tracing).
    """

    basis: Tensor | None
    triangle: Tensor
    pivots: Tensor | None

    def __init__(self, blocks: Tensor, owner: str = "The linear map") -> None:
        self.blocks = blocks
        self.groups, self.rows_out, self.rows_in = blocks.shape[-3:]
        if self.rows_in == self.rows_out:
            self.triangle, self.pivots, _ = torch.linalg.lu_factor_ex(blocks)
            self.basis, sizes = None, blocks
        else:
            sizes = blocks if self.rows_out > self.rows_in else blocks.mH
            self.basis, self.triangle = torch.linalg.qr(sizes)
            self.pivots = None
        self._pivots = self.triangle.diagonal(dim1=-2, dim2=-1).abs()
        if not is_tracing():
            _refuse_deficient(self._pivots.detach(), sizes.detach(), owner)

    @abstractmethod
    def times(self, x: Tensor, *matrices: Tensor) -> Tensor:
        """Multiply `(rows, groups c, *positions)` by one matrix after the other, `(*frequencies, groups, a, b)`."""

    @abstractmethod
    def sum_blocks(self, values: Tensor) -> Tensor:
        """Sum over the elements of each block with a complement of its own: `(rows, groups, *positions or ones)`."""

    @abstractmethod
    def mean_blocks(self, values: Tensor) -> Tensor:
        """Return one number for each block from `(rows, groups, *positions)`, in the shape of `sum_blocks`."""

    @abstractmethod
    def freedom(self, positions: Sequence[int]) -> int:
        """Count the dimensions of the complement in one block."""

    @abstractmethod
    def total(self, values: Tensor, positions: Sequence[int]) -> Tensor:
        """Sum what each block has, `(*frequencies, groups, n)`, over an event; keeps the axes of groups and n."""

    def apply(self, x: Tensor) -> Tensor:
        """Return `W x`."""
        return self.times(x, self.blocks)

    def inverse(self) -> Tensor:
        """Form the blocks of the inverse `W^-1`, or of the pseudo-inverse `W^+`."""
        if self.basis is None:
            eye = torch.eye(self.rows_in, dtype=self.blocks.dtype, device=self.blocks.device)
            return torch.linalg.lu_solve(self.triangle, self.pivots, eye.expand_as(self.blocks))
        if self.rows_out > self.rows_in:
            return torch.linalg.solve_triangular(self.triangle, self.basis.mH, upper=True)
        return torch.linalg.solve_triangular(self.triangle.mH, self.basis, upper=False, left=False)

    def complement(self, x: Tensor) -> Tensor:
        """Take what is orthogonal to the rows of `W` (for inputs, o < i) or to its columns (for outputs, o > i)."""
        if self.basis is None:
            return torch.zeros_like(x)
        return x - self.times(x, self.basis.mH, self.basis)

    def log_volume(self, positions: Sequence[int]) -> Tensor:
        """Return `1/2 log det W W^H`, `1/2 log det W^H W` or `log |det W|` of an event in nats, `()`."""
        return self.total(self._pivots.log(), positions).sum()

    def leverage(self, positions: Sequence[int]) -> Tensor:
        """Return the mean over the positions of the diagonal of `W^+ W`, `(groups i,)`, for o <= i."""
        if self.basis is None:
            return self.blocks.real.new_ones(self.groups * self.rows_in)
        squares = self.basis.abs().square().sum(-1)
        return (self.total(squares, positions) / math.prod(positions)).flatten()


class MatrixFactors(Factors):
    r"""One matrix for each group of channels, `(groups, o, i)`, at every position; each position is a block.

    Example:
        >>> factors = MatrixFactors(torch.tensor([[[3.0, 4.0]]]))
        >>> factors.log_volume(()).exp(), factors.complement(torch.tensor([[4.0, -3.0], [3.0, 4.0]])).abs().round()
        (tensor(5.), tensor([[4., 3.],
                [0., 0.]]))
    """

    def times(self, x: Tensor, *matrices: Tensor) -> Tensor:
        """Multiply the channels of each position."""
        for matrix in matrices:
            x = apply_matrix(matrix[0], x) if self.groups == 1 else _apply_groups(matrix, x)
        return x

    def sum_blocks(self, values: Tensor) -> Tensor:
        """Sum over the channels of each group."""
        return values.unflatten(1, (self.groups, -1)).sum(2)

    def mean_blocks(self, values: Tensor) -> Tensor:
        """Return the values as they are."""
        return values

    def freedom(self, positions: Sequence[int]) -> int:
        """Count the dimensions of the complement of one group at one position."""
        return abs(self.rows_out - self.rows_in)

    def total(self, values: Tensor, positions: Sequence[int]) -> Tensor:
        """Count each value at every position."""
        return math.prod(positions) * values


class FourierFactors(Factors):
    r"""One matrix for each frequency of a real transform and each group, `(*frequencies, groups, o, i)`, complex.

    What is summed over the frequencies counts those twice whose conjugate partners the real transform leaves out. All
    positions of a group together are one block.
    """

    def times(self, x: Tensor, *matrices: Tensor) -> Tensor:
        """Multiply each frequency, between one transform and its inverse."""
        return multiply_frequencies(x, *matrices)

    def sum_blocks(self, values: Tensor) -> Tensor:
        """Sum over the channels of each group and over the positions."""
        sums = values.unflatten(1, (self.groups, -1)).flatten(2).sum(2)
        return sums.reshape(*sums.shape, *(1,) * (values.ndim - 2))

    def mean_blocks(self, values: Tensor) -> Tensor:
        """Average over the positions."""
        return values.mean(tuple(range(2, values.ndim)), keepdim=True)

    def freedom(self, positions: Sequence[int]) -> int:
        """Count the dimensions of the complement of one group."""
        return abs(self.rows_out - self.rows_in) * math.prod(positions)

    def total(self, values: Tensor, positions: Sequence[int]) -> Tensor:
        """Sum over all frequencies."""
        return sum_frequencies(values, positions)


def require_rank(blocks: Tensor, owner: str) -> None:
    """Raise `DomainError` unless every matrix `(..., o, i)` has full rank, seen from its singular values."""
    if not bool(torch.isfinite(blocks).all()):
        raise DomainError(f"The weight of {owner} has entries that are not finite.")
    sizes = torch.linalg.svdvals(blocks.detach())
    if not bool((sizes.amin(-1) > _least_rank(blocks.dtype) * sizes.amax(-1)).all()):
        raise DomainError(
            f"{owner} has no full rank: the singular values of its weight go from {float(sizes.min()):.2g} to "
            f"{float(sizes.max()):.2g}. What it maps to has no density (or, widened, cannot be undone). Add a little "
            "noise to the weight, or drop the outputs or inputs that repeat others."
        )


def principal_maps(x: Tensor, groups: int, out: int) -> tuple[Tensor, Tensor]:
    r"""Return maps whose outputs have unit variance: on the leading principal directions, or on all of them.

    Args:
        x: a sample `(rows, channels, *positions)`.
        groups: of consecutive channels, each with a map of its own.
        out: outputs of each group; more than inputs are reached by a random map with orthonormal columns.

    Returns:
        The maps `(groups, out, channels / groups)`, and the deviations of the channels `(channels,)`.
    """
    columns = widest(x).movedim(1, -1).flatten(0, -2).unflatten(1, (groups, -1)).movedim(0, 1)
    centred = columns - columns.mean(1, keepdim=True)
    covariance = centred.mT @ centred / centred.shape[1]
    values, directions = torch.linalg.eigh(covariance)
    largest = values[:, -1:]
    values = torch.where(largest > 0, values.clamp_min(LEAST_VARIANCE * largest), 1.0)
    maps = (directions * values.rsqrt()[:, None, :]).mT
    if out <= maps.shape[1]:
        maps = maps[:, maps.shape[1] - out :].flip(1)
    else:
        maps = torch.stack([orthonormal(out, maps.shape[1]) for _ in range(groups)]).to(maps) @ maps
    return maps, positive_variances(covariance.diagonal(dim1=1, dim2=2).flatten()).sqrt()


def orthonormal(out: int, in_: int) -> Tensor:
    """Draw a matrix with orthonormal rows or columns."""
    return nn.init.orthogonal_(torch.empty(out, in_))


def positive_variances(variances: Tensor) -> Tensor:
    """Keep variances of constant channels away from zero."""
    mean = variances.mean()
    return torch.where(mean > 0, variances.clamp_min(1e-6 * mean), 1.0)


def _least_rank(dtype: torch.dtype) -> float:
    """Return the smallest share of the largest singular value that still counts."""
    return LEAST_RANK**2 if dtype == torch.float64 else LEAST_RANK


def _refuse_deficient(pivots: Tensor, matrix: Tensor, owner: str) -> None:
    """Raise if a pivot is next to nothing beside the column it is what is left of."""
    lengths = torch.linalg.vector_norm(matrix, dim=-2)
    relative = (pivots / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)).amin(-1)
    allowed = max(_least_rank(pivots.dtype), 4 * math.sqrt(matrix.shape[-2]) * torch.finfo(pivots.dtype).eps)
    # Written so that NaN is refused as well.
    bad = ~(relative > allowed)
    if bool(bad.any()):
        raise DomainError(
            f"{owner} has lost its full rank: for {int(bad.sum())} of {bad.numel()} matrices a pivot is only "
            f"{float(relative.min()):.2g} of its column, so there is no inverse and no likelihood. Train with a "
            "smaller learning rate or from a new start; layers made of rotations cannot become singular."
        )


def _apply_groups(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply the channels of each group by its matrix `(groups, a, b)`."""
    groups = len(matrix)
    if x.ndim == 2:
        columns = x.unflatten(1, (groups, -1)).movedim(0, -1)
        return (matrix @ columns).movedim(-1, 0).flatten(1)
    columns = x.flatten(2).unflatten(1, (groups, -1))
    # All sizes are given, since a batch may have no rows.
    return (matrix @ columns).flatten(1, 2).reshape(len(x), groups * matrix.shape[1], *x.shape[2:])
