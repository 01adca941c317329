"""The laws of linear maps."""

import math

import torch
from torch import Tensor

from likelify.linalg.maps import LinearMap
from likelify.seeding import seeded
from likelify.testing.law import close, require


def check_linear_map(map_: LinearMap, x: Tensor, *, tol: float = 1e-9) -> None:
    """Check that a map is linear, row by row, and that adjoint, matrix, trace, bounds and gradients belong to it.

    Args:
        map_: the map.
        x: some rows `(rows, *event)`, at least two, in double precision; for a map made for a number of rows, as many.
        tol: allowed deviation.
    """
    map_ = map_.matching(x)
    event_shape = tuple(x.shape[1:])
    with seeded(0):
        y = torch.randn_like(x)
    applied = map_.apply(x)
    close(map_.apply(2 * x - 3 * y), 2 * applied - 3 * map_.apply(y), tol, "linearity")
    if map_.rows is None:
        close(torch.cat([map_.apply(row[None]) for row in x]), applied, tol, "independence of rows")
    close((applied * y).sum(), (x * map_.adjoint().apply(y)).sum(), tol, "adjoint <L x, y> = <x, L* y>")
    matrix = map_.materialize(event_shape, like=x).detach()
    close(times(map_, matrix, x), applied, tol, "equality with its matrix")
    close(map_.adjoint().materialize(event_shape, like=x), matrix.mT, tol, "matrix of the adjoint")
    close(_trace(map_, x), matrix.diagonal(dim1=-2, dim2=-1).sum(-1), tol, "trace")
    _check_facts(map_, matrix, event_shape, tol)
    close(map_.with_tensors(map_.tensors()).apply(x), applied, 0.0, "rebuilding from its tensors")
    close(map_.arrange(x), x, 0.0, "arranging the memory layout only")
    _check_pullback(map_, x, y, tol)


def _check_facts(map_: LinearMap, matrix: Tensor, event_shape: tuple[int, ...], tol: float) -> None:
    if map_.symmetry is not None:
        sign = 1 if map_.symmetry == "symmetric" else -1
        close(matrix.mT, sign * matrix, tol, f"being {map_.symmetry}")
    scale = float(torch.linalg.matrix_norm(matrix).max())
    items = float(len(matrix) / math.prod(event_shape)) if map_.couples_rows else 1.0
    for name, bound, true in (
        ("norm", map_.norm_bound(event_shape), torch.linalg.matrix_norm(matrix, 2)),
        ("growth", map_.growth_bound(event_shape), torch.linalg.matrix_norm((matrix + matrix.mT) / 2, 2)),
        ("Frobenius", map_.frobenius_bound(event_shape) * math.sqrt(items), torch.linalg.matrix_norm(matrix)),
    ):
        # One number for all rows, or one for each; where rows are coupled, the largest is that of the whole.
        low = torch.as_tensor(bound, dtype=torch.float64, device=true.device).detach()
        low = low.expand_as(true) if true.ndim else low.max()
        holds = bool((low >= true.detach() * (1 - 1e-12) - 1e-13 * scale).all())
        require(holds, f"{name} bound {_shown(low)} is below the true value {_shown(true)}")
    shift, rest = map_.centered(event_shape)
    identity = torch.eye(matrix.shape[-1]).to(matrix)
    shift = torch.as_tensor(shift, dtype=matrix.dtype, device=matrix.device)
    shift = shift[..., None, None] if shift.ndim else shift
    close(rest.materialize(event_shape, like=matrix) + shift * identity, matrix, tol, "shift + centered map = map")


def _shown(values: Tensor) -> str:
    """Write one number, or one for each row."""
    return str(values.tolist())


def _check_pullback(map_: LinearMap, u: Tensor, v: Tensor, tol: float) -> None:
    names = [name for name, tensor in map_.tensors().items() if tensor.is_floating_point()]
    leaves = {name: map_.tensors()[name].detach().clone().requires_grad_() for name in names}
    value = (map_.with_tensors(map_.tensors() | leaves).apply(u) * v).sum()
    if not value.requires_grad:
        return
    expected = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    with torch.no_grad():
        found = map_.pullback(u, v)
    require(set(found) >= set(names), f"pullback names {sorted(found)}, the map has {sorted(names)}")
    for name, grad in zip(names, expected, strict=True):
        if grad is not None:
            close(found[name], grad, tol, f"pullback with respect to {name}")


def times(map_: LinearMap, matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply rows by the matrix of `materialize`."""
    flat = x.reshape(1, -1) if map_.couples_rows else x.reshape(len(x), -1)
    return (matrix @ flat[:, :, None]).reshape(x.shape)


def _trace(map_: LinearMap, x: Tensor) -> Tensor:
    """Return the trace of the matrix of `materialize` from that of the map, which may count per row."""
    trace = torch.as_tensor(map_.trace(tuple(x.shape[1:])), dtype=x.dtype, device=x.device)
    return trace.expand(len(x)).sum() if map_.couples_rows else trace
