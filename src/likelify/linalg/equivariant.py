"""Linear maps that commute with a group: rotations of images, permutations of sets and of the nodes of a graph."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.bounds import gram_bound, widest
from likelify.linalg.dense import apply_matrix
from likelify.linalg.maps import LinearMap
from likelify.shapes import Shape


def rotation_kernel(weight: Tensor) -> Tensor:
    r"""Build the kernel of a convolution that commutes with rotations by 90 degrees (the group p4).

    Features have four elements per channel and pixel, one for each rotation. With `W[o, i, q]` the filter from the
    input at relative rotation `q`,

        kernel[(o, r), (i, s)] = rot90(W[o, i, (s - r) mod 4], r).

    `ConvMap(rotation_kernel(weight))` commutes with `rotate_features`, with any padding; so does its exponential.

    Args:
        weight: `(c_out, c_in, 4, k, k)`.

    Returns:
        `(4 c_out, 4 c_in, k, k)`, the channels ordered as `(c, 4)`; differentiable.

    Raises:
        ShapeError: if the weight has another shape.

    Source:
        Cohen & Welling 2016, Group equivariant convolutional networks, section 6.
    """
    if weight.ndim != 5 or weight.shape[2] != 4 or weight.shape[3] != weight.shape[4]:
        raise ShapeError(f"rotation_kernel needs a weight (c_out, c_in, 4, k, k), got shape {tuple(weight.shape)}.")
    turned = [torch.rot90(weight.roll(turns, 2), turns, (3, 4)) for turns in range(4)]
    return torch.stack(turned, 1).flatten(2, 3).flatten(0, 1)


def rotate_features(x: Tensor, turns: int) -> Tensor:
    """Rotate images whose channels are ordered `(c, 4)` as p4 acts: turn the pixels and shift the four elements.

    Args:
        x: `(rows, 4 c, h, w)`.
        turns: by how many times 90 degrees, counterclockwise.

    Returns:
        `(rows, 4 c, h, w)`, with height and width exchanged if `turns` is odd.

    Raises:
        ShapeError: if the input has another shape.

    Example:
        >>> x = torch.arange(4.0).reshape(1, 4, 1, 1)
        >>> rotate_features(x, 1).flatten()
        tensor([3., 0., 1., 2.])
    """
    if x.ndim != 4 or x.shape[1] % 4:
        raise ShapeError(f"rotate_features needs an input (rows, 4 c, h, w), got shape {tuple(x.shape)}.")
    return torch.rot90(x.unflatten(1, (-1, 4)).roll(turns, 2), turns, (3, 4)).flatten(1, 2)


class _BlockDiagonal(LinearMap):
    r"""A map that is block-diagonal in a fixed orthonormal basis, the same block many times.

    By Schur's lemma every map that commutes with a group has this form. As the basis is orthonormal, the norm is the
    largest norm of a block, the squared Frobenius norm the sum over the blocks, and the symmetric part has the
    symmetric parts of the blocks.
    """

    @abstractmethod
    def blocks(self, event_shape: Shape) -> list[tuple[int, Tensor]]:
        """Return how often each block stands on the diagonal, and the block, `(k, k)` or `(rows, k, k)`, detached."""

    def norm_bound(self, event_shape: Shape) -> Tensor:
        """Bound the norms of the blocks by repeated squaring (`gram_bound`)."""
        return self._largest([block for times, block in self.blocks(event_shape) if times > 0])

    def growth_bound(self, event_shape: Shape) -> Tensor:
        """Bound the norms of the symmetric parts of the blocks in the same way."""
        return self._largest([(block + block.mT) / 2 for times, block in self.blocks(event_shape) if times > 0])

    def frobenius_bound(self, event_shape: Shape) -> Tensor:
        """Add the squares of the Frobenius norms of the blocks."""
        squares = [times * block.square().sum((-2, -1)) for times, block in self.blocks(event_shape) if times > 0]
        return torch.stack(squares).sum(0).sqrt() * (1 + 1e-12)

    def _largest(self, blocks: list[Tensor]) -> Tensor:
        return torch.stack([gram_bound(block, steps=5) for block in blocks]).amax(0)


@dataclass(frozen=True, eq=False)
class SetMap(_BlockDiagonal, vouches=True):
    r"""Every linear map on sets that commutes with permutations of the elements: `y = theta0 x + theta1 mean(x)`.

    On events `(c, n)`, channels by elements; the mean is over the elements. The mean of the set is mapped by
    `theta0 + theta1`, each deviation from it by `theta0`. One map serves sets of every size.

    Args:
        theta0: `(c, c)`, or `(rows, c, c)` for a map of its own for each row.
        theta1: of the same shape.

    Raises:
        ShapeError: if the shapes differ or are not square.

    Source:
        Zaheer et al. 2017, Deep sets, lemma 3.

    Example:
        >>> spread = SetMap(torch.eye(1), -torch.eye(1))
        >>> spread.apply(torch.tensor([[[1.0, 2.0, 6.0]]]))
        tensor([[[-2., -1.,  3.]]])
    """

    theta0: Tensor
    theta1: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.theta0.shape)
        if len(shape) not in (2, 3) or shape[-1] != shape[-2] or tuple(self.theta1.shape) != shape:
            raise ShapeError(
                f"SetMap needs two matrices (c, c), or (rows, c, c), got shapes {shape} and {tuple(self.theta1.shape)}."
            )

    @property
    def rows(self) -> int | None:
        """How many rows have matrices of their own."""
        return self.theta0.shape[0] if self.theta0.ndim == 3 else None

    def apply(self, x: Tensor) -> Tensor:
        """Mix the channels of each element and of the mean."""
        if x.ndim != 3:
            raise ShapeError(f"SetMap needs an input (rows, channels, elements), got shape {tuple(x.shape)}.")
        return apply_matrix(self.theta0, x) + apply_matrix(self.theta1, x.mean(2, keepdim=True))

    def adjoint(self) -> SetMap:
        """Transpose both matrices; taking the mean is a projection, so it is its own adjoint."""
        return SetMap(self.theta0.mT, self.theta1.mT)

    def trace(self, event_shape: Shape) -> Tensor:
        """Return `n tr theta0 + tr theta1`."""
        return event_shape[1] * _trace(self.theta0) + _trace(self.theta1)

    def blocks(self, event_shape: Shape) -> list[tuple[int, Tensor]]:
        """Return the matrix of the mean, and `n - 1` times that of the deviations."""
        theta0, theta1 = widest(self.theta0.detach()), widest(self.theta1.detach())
        return [(1, theta0 + theta1), (event_shape[1] - 1, theta0)]

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the mean of the diagonal."""
        if self.rows is not None:
            return 0.0, self
        shift = self.trace(event_shape).detach() / math.prod(event_shape)
        return shift, replace(self, theta0=self.theta0 - shift * torch.eye(len(self.theta0)).to(self.theta0))

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Sum the outer products `v u^T` over the elements, and those of `sum v` with `mean u`."""
        own_rows = self.rows is not None
        theta1 = _outer(u.mean(2, keepdim=True), v.sum(2, keepdim=True), own_rows=own_rows)
        return {"theta0": _outer(u, v, own_rows=own_rows), "theta1": theta1}


# The size of an operation's 2-norm is n to this power.
_POWERS = (0, 0, 1, 1, 1, 1, 2, 1.5, 0.5, 0.5, 1.5, 1, 0.5, 0.5, 0)
# The operation that is each operation's adjoint (all counted from zero).
_ADJOINTS = (0, 1, 2, 4, 3, 5, 6, 10, 13, 12, 7, 11, 9, 8, 14)
# Operations whose input at (i, j) adds to their output at (i, j) for all i, j; for the others only for i = j.
_ALWAYS_ON_DIAGONAL = (0, 2, 5, 6)
# Operations from lines (columns: row sums, column sums, diagonal) to lines (rows: along i, along j, on the diagonal).
_LINES = ((2, 3, 9), (4, 5, 8), (12, 13, 14))
# Operations from totals (columns: total, trace) to totals (rows: everywhere, on the diagonal).
_TOTALS = ((6, 7), (10, 11))


@dataclass(frozen=True, eq=False)
class PairMap(_BlockDiagonal, vouches=True):
    r"""Every linear map on arrays of node pairs that commutes with permutations of the nodes.

    On events `(c, n, n)`, channels by pairs `(i, j)`, such as an adjacency matrix: `y = sum_k theta[k] op_k(x) /
    ||op_k||_2` with the 15 operations (row sums `r`, column sums `q`, diagonal `d`, total `t`, trace `s`)

    | y_ij everywhere               | norm      | y_ij on the diagonal only | norm    |
    | ----------------------------- | --------- | ------------------------- | ------- |
    | 1: x_ij, 2: x_ji              | 1         | 11: t                     | n^1.5   |
    | 3: r_i, 4: q_i, 5: r_j, 6: q_j | n        | 12: s                     | n       |
    | 7: t                          | n^2       | 13: r_i, 14: q_i          | n^0.5   |
    | 8: s                          | n^1.5     | 15: d_i                   | 1       |
    | 9: d_j, 10: d_i               | n^0.5     |                           |         |

    They are a basis of all such maps if `n >= 4`. One map serves graphs of every size. A call costs as much as two 1x1
    convolutions; its norm and Frobenius bounds are exact up to rounding.

    Args:
        theta: `(15, c, c)`, or `(rows, 15, c, c)` for a map of its own for each row.

    Raises:
        ShapeError: if theta has another shape.

    Source:
        Maron et al. 2019, Invariant and equivariant graph networks, section 3 and appendix A.

    Example:
        >>> theta = torch.zeros(15, 1, 1)
        >>> theta[1] = 1.0
        >>> PairMap(theta).apply(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
        tensor([[[[1., 3.],
                  [2., 4.]]]])
    """

    theta: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.theta.shape)
        if len(shape) not in (3, 4) or shape[-3] != 15 or shape[-1] != shape[-2]:
            raise ShapeError(f"PairMap needs a theta (15, c, c), or (rows, 15, c, c), got shape {shape}.")

    @property
    def rows(self) -> int | None:
        """How many rows have a map of their own."""
        return self.theta.shape[0] if self.theta.ndim == 4 else None

    def apply(self, x: Tensor) -> Tensor:
        """Reduce to sums and diagonals, mix the channels, and spread the results again."""
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ShapeError(f"PairMap needs an input (rows, channels, n, n), got shape {tuple(x.shape)}.")
        theta, n = self.theta, x.shape[3]
        same, turned = apply_matrix(torch.cat([theta[..., 0, :, :], theta[..., 1, :, :]], -2), x).chunk(2, 1)
        lines, totals = _reduce(x)
        along_i, along_j, on_diagonal = apply_matrix(_gather(theta, _LINES, n), lines).chunk(3, 1)
        everywhere, once = apply_matrix(_gather(theta, _TOTALS, n), totals).chunk(2, 1)
        spread = (along_i + everywhere)[..., :, None] + along_j[..., None, :]
        return same + turned.mT + spread + torch.diag_embed(on_diagonal + once)

    def adjoint(self) -> PairMap:
        """Transpose the matrices and exchange each operation with its adjoint."""
        operations = self.theta.mT.unbind(-3)
        return PairMap(torch.stack([operations[k] for k in _ADJOINTS], -3))

    def trace(self, event_shape: Shape) -> Tensor:
        """Count for each operation the pairs whose input adds to their own output: `n^2` or `n`."""
        n = event_shape[1]
        counts = [(n**2 if k in _ALWAYS_ON_DIAGONAL else n) / n**power for k, power in enumerate(_POWERS)]
        return (_trace(self.theta) * self.theta.new_tensor(counts)).sum(-1)

    def blocks(self, event_shape: Shape) -> list[tuple[int, Tensor]]:
        r"""Return the blocks of the four kinds of arrays that permutations do not mix.

        - constant on and off the diagonal, coordinates in the basis `I / sqrt(n)`, `(J - I) / sqrt(n (n - 1))`;
        - built of a vector `z` of sum zero, for each of the `n - 1` such: `diag(z)`, and off the diagonal
          `z_i + z_j` and `z_i - z_j`, each of norm one;
        - symmetric, and antisymmetric, with empty diagonal and vanishing line sums: mapped by `theta_1 +- theta_2`.

        On the first two the reductions have small matrices, whose transposes spread the results again. For `n < 3` the
        second element of both bases is missing; the block then holds `theta_1 + theta_2` too often, which is an
        upper bound still.
        """
        n, theta = event_shape[1], widest(self.theta.detach())
        even, odd = theta[..., 0, :, :] + theta[..., 1, :, :], theta[..., 0, :, :] - theta[..., 1, :, :]
        lines, totals = _gather(theta, _LINES, n), _gather(theta, _TOTALS, n)
        off, plus, minus = math.sqrt(n - 1), math.sqrt(max(n - 2, 0) / 2), math.sqrt(n / 2)
        constant = _between(lines, [[1, off], [1, off], [1, 0]]) + n * _between(totals, [[1, off], [1, 0]])
        vectors = _between(lines, [[1, plus, minus], [1, plus, -minus], [1, 0, 0]])
        return [
            (1, constant + _block_diagonal([even, even])),
            (n - 1, vectors + _block_diagonal([even, even, odd])),
            (n * (n - 3) // 2, even),
            ((n - 1) * (n - 2) // 2, odd),
        ]

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Take off the mean of the diagonal."""
        if self.rows is not None:
            return 0.0, self
        shift = self.trace(event_shape).detach() / math.prod(event_shape)
        identity = torch.eye(self.theta.shape[-1]).to(self.theta)
        return shift, PairMap(self.theta - F.pad(shift * identity[None], (0, 0, 0, 0, 0, 14)))

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Sum outer products of `v` and `u`, reduced alike, since spreading is the adjoint of reducing."""
        own_rows, n = self.rows is not None, u.shape[3]
        (u_lines, u_totals), (v_lines, v_totals) = _reduce(u), _reduce(v)
        lines = _outer(u_lines, v_lines, own_rows=own_rows)
        totals = _outer(u_totals, v_totals, own_rows=own_rows)
        found = {0: _outer(u, v, own_rows=own_rows), 1: _outer(u.mT, v, own_rows=own_rows)}
        found |= _scatter(lines, _LINES, n) | _scatter(totals, _TOTALS, n)
        return {"theta": torch.stack([found[k] for k in range(15)], -3)}


def _reduce(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return row sums, column sums and diagonal as channels, `(rows, 3 c, n)`; total and trace, `(rows, 2 c, 1)`."""
    sums, diagonal = x.sum(3), x.diagonal(dim1=2, dim2=3)
    totals = torch.cat([sums.sum(2, keepdim=True), diagonal.sum(2, keepdim=True)], 1)
    return torch.cat([sums, x.sum(2), diagonal], 1), totals


def _gather(theta: Tensor, table: tuple[tuple[int, ...], ...], n: int) -> Tensor:
    """Put the matrices of the operations in a table into one matrix, divided by the operations' norms."""
    scaled = [[theta[..., k, :, :] / n ** _POWERS[k] for k in line] for line in table]
    return torch.cat([torch.cat(line, -1) for line in scaled], -2)


def _scatter(matrix: Tensor, table: tuple[tuple[int, ...], ...], n: int) -> dict[int, Tensor]:
    """Return the parts of such a matrix by operation, divided by the operations' norms: the adjoint of `_gather`."""
    lines = [part.chunk(len(table), -1) for part in matrix.chunk(len(table), -2)]
    return {
        k: part / n ** _POWERS[k]
        for ks, parts in zip(table, lines, strict=True)
        for k, part in zip(ks, parts, strict=True)
    }


def _between(matrix: Tensor, reduction: list[list[float]]) -> Tensor:
    """Return `A^T matrix A` for a small `A` that acts on the parts of the channels."""
    small = torch.tensor(reduction, dtype=matrix.dtype, device=matrix.device)
    wide = torch.kron(small, torch.eye(matrix.shape[-1] // len(small), dtype=matrix.dtype, device=matrix.device))
    return wide.mT @ matrix @ wide


def _block_diagonal(parts: list[Tensor]) -> Tensor:
    """Put matrices `(..., c, c)` on a diagonal."""
    size = parts[0].shape[-1]
    after = [size * (len(parts) - 1 - k) for k in range(len(parts))]
    return torch.cat([F.pad(part, (size * k, after[k])) for k, part in enumerate(parts)], -2)


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def _outer(u: Tensor, v: Tensor, *, own_rows: bool) -> Tensor:
    """Sum the outer products `v u^T` of the channels over all positions, and over the rows unless these have own."""
    if own_rows:
        return v.flatten(2) @ u.flatten(2).mT
    return v.movedim(1, 0).flatten(1) @ u.movedim(1, 0).flatten(1).T
