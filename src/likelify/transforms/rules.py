"""What buffers have to be that only construction or `initialize` set, for `Transform.buffer_rules`."""

import torch
from torch import Tensor

from likelify.linalg.bounds import widest

# Single precision, and sums over some thousand levels.
TOLERANCE = 1e-4


def is_permutation(order: Tensor) -> bool:
    """Tell whether `(n,)` holds each of `0 .. n - 1` once."""
    return torch.equal(order.sort().values, torch.arange(len(order), device=order.device, dtype=order.dtype))


def is_permutation_matrix(matrix: Tensor) -> bool:
    """Tell whether each row and each column has a single one and zeros."""
    ones = matrix == 1
    alone = (ones.sum(0) == 1).all() & (ones.sum(1) == 1).all()
    return bool(alone & ((matrix == 0) | ones).all())


def orthogonality_gap(matrix: Tensor) -> float:
    """Return the largest entry of `|Q Q^T - I|`."""
    double = widest(matrix)
    return float((double @ double.T - torch.eye(len(matrix), dtype=double.dtype, device=matrix.device)).abs().max())


def is_orthogonal(matrix: Tensor) -> bool:
    """Tell whether `Q Q^T` is the identity, to 1e-5 or, if that is coarser, to the precision of its dtype."""
    return orthogonality_gap(matrix) < max(1e-5, len(matrix) * torch.finfo(matrix.dtype).eps)


def are_probabilities(mass: Tensor) -> Tensor:
    """Tell whether the rows are positive and sum to one."""
    return (mass > 0).all() & _close(widest(mass).sum(-1), 1, mass)


def rises(below: Tensor) -> Tensor:
    """Tell whether the rows rise from zero to one."""
    return _close(below[..., 0], 0, below) & _close(below[..., -1], 1, below) & (below.diff() >= 0).all()


def _close(values: Tensor, expected: float, like: Tensor) -> Tensor:
    allowed = max(TOLERANCE, like.shape[-1] * torch.finfo(like.dtype).eps)
    return ((values - expected).abs() < allowed).all()


PERMUTATION = ("each of the indices 0..channels-1 exactly once", is_permutation)
PERMUTATION_MATRIX = ("a permutation matrix", is_permutation_matrix)
ORTHOGONAL = ("orthogonal", is_orthogonal)
SIGNS = ("1 or -1 everywhere", lambda signs: (signs.abs() == 1).all())
FINITE = ("finite", lambda values: values.isfinite().all())
POSITIVE = ("finite and positive", lambda values: (values.isfinite() & (values > 0)).all())
PROBABILITIES = ("positive, with rows that sum to one", are_probabilities)
RISING = ("rows that rise from zero to one", rises)
FALLING = ("rows that fall from one to zero", lambda above: rises(above.flip(-1)))
