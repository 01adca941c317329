"""References: exponentials in 80-bit precision and their derivatives."""

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from benchmarks.certificates.kinds import Kind
from likelify.linalg.maps import LinearMap


def extended_action(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute `exp(matrix) x` in 80-bit precision by short steps of the power series."""
    a, value = matrix.astype(np.longdouble), x.astype(np.longdouble)
    steps = max(1, math.ceil(np.linalg.norm(matrix, 2)))
    a = a / steps
    for _ in range(steps):
        term = value
        for k in range(1, 27):
            term = a @ term / k
            value = value + term
    return value


def materialized(map_: LinearMap, event: tuple[int, ...]) -> Tensor:
    """Form the matrix in double precision: `(D, D)`, or one for each row."""
    return map_.materialize(event, like=torch.zeros(1, dtype=torch.float64))


def item_norms(kind: Kind, x: Tensor) -> Tensor:
    """Return the norms of items in double precision."""
    squares = x.double().flatten(1).square().sum(1)
    if kind.owner is None:
        return squares.sqrt()
    return torch.zeros(int(kind.owner.max()) + 1, dtype=torch.float64).index_add(0, kind.owner, squares).sqrt()


def reference(kind: Kind, exact: Tensor, x: Tensor, time: float) -> Tensor:
    """Compute `exp(tL) x`."""
    matrix, rows = time * exact.numpy(), x.double().flatten(1).numpy()
    if kind.owner is not None:
        value = extended_action(matrix, rows.reshape(-1, 1)).reshape(rows.shape)
    elif exact.ndim == 3:
        value = np.stack([extended_action(m, r[:, None])[:, 0] for m, r in zip(matrix, rows, strict=True)])
    else:
        value = extended_action(matrix, rows.T).T
    return torch.from_numpy(value.astype(np.float64)).reshape(x.shape)


def sym_norm(exact: Tensor) -> Tensor:
    """Return the norm of the symmetric part."""
    return torch.linalg.matrix_norm((exact + exact.mT) / 2, 2).max()


def derivative_norm(
    map_: LinearMap, leaves: dict[str, Tensor], direction: dict[str, Tensor], event: tuple[int, ...]
) -> float:
    """Return the norm of the map's derivative; a central difference is exact up to products of two parameters."""
    base = map_.tensors()
    with torch.no_grad():
        plus = map_.with_tensors(base | {n: leaves[n] + d for n, d in direction.items()})
        minus = map_.with_tensors(base | {n: leaves[n] - d for n, d in direction.items()})
        change = (materialized(plus, event) - materialized(minus, event)) / 2
    return float(torch.linalg.matrix_norm(change, 2).max())


def of_matrix(kind: Kind, exact: Tensor, x: Tensor, g: Tensor, time: float) -> Tensor:
    """Return the gradient of `<g, exp(tL) x>` with respect to the matrix of `L`."""
    rows, grads = x.double().flatten(1), g.double().flatten(1)
    if kind.owner is not None:
        return frechet(exact, torch.outer(grads.flatten(), rows.flatten()), time)
    if exact.ndim == 3:
        found = [frechet(m, torch.outer(b, a), time) for m, a, b in zip(exact, rows, grads, strict=True)]
        return torch.stack(found)
    return frechet(exact, grads.T @ rows, time)


def frechet(matrix: Tensor, outer: Tensor, time: float) -> Tensor:
    """Return the gradient of `<outer, exp(t matrix)>`, from the exponential of a matrix twice as large."""
    size = float(torch.linalg.matrix_norm(outer)) or 1.0
    a, b = time * matrix.T.numpy(), time * (outer / size).numpy()
    block = np.block([[a, b], [np.zeros_like(a), a]])
    n = len(a)
    return size * torch.from_numpy(scipy.linalg.expm(block)[:n, n:])
