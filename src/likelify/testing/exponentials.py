"""The law of exponentials: against the power series of the matrix."""

import math

import torch
from torch import Tensor

from likelify.linalg.expm import exp_action
from likelify.linalg.maps import LinearMap
from likelify.testing.law import close, require
from likelify.testing.maps import times


def check_exponential(map_: LinearMap, x: Tensor, *, tol: float = 1e-10) -> None:
    """Check `exp_action` of a map against the exponential of its matrix: value, inverse, certificate, log-determinant.

    The reference is the power series of the matrix in double precision, scaled until its norm is at most one and
    squared back: written out here, so that it shares nothing with the engine. `torch.matrix_exp` would not do: it is
    off by 2.5e-5 for single matrices in float32, and by up to 1e-11 in double precision.

    Args:
        map_: the map.
        x: some rows in double precision.
        tol: allowed deviation, relative to the input's norm.
    """
    map_ = map_.matching(x)
    matrix = map_.materialize(tuple(x.shape[1:]), like=x)
    exact = times(map_, _reference_exponential(matrix), x)
    action = exp_action(map_, x)
    scale = float(x.norm())
    close(action.value, exact, tol * scale, "equality with the dense exponential")
    close(exp_action(-map_, action.value).value, x, tol * scale, "exp(-L) undoing exp(L)")
    for degree in (2, 5, 9):
        cut = exp_action(map_, x, degree=degree, method="series")
        error = map_.item_norms(cut.value - exact)
        allowed = cut.diagnostics.error_bound + cut.diagnostics.round_off_allowance * map_.item_norms(x)
        require(bool((error <= allowed).all()), f"error {error.tolist()} above the certificate {allowed.tolist()}")
        if map_.rows is None:
            _check_log_det(map_, matrix, x, degree)


def _reference_exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential of a matrix, or of each of several, to rounding in double precision."""
    squarings = math.ceil(math.log2(max(float(torch.linalg.matrix_norm(matrix.detach()).max()), 1.0)))
    scaled = matrix.detach().double() / 2**squarings
    value = term = torch.eye(matrix.shape[-1]).to(scaled)
    for k in range(1, 21):
        term = term @ scaled / k
        value = value + term
    for _ in range(squarings):
        value = value @ value
    return value.to(matrix)


def _check_log_det(map_: LinearMap, matrix: Tensor, x: Tensor, degree: int) -> None:
    units = torch.eye(len(matrix)).to(x).reshape(-1, *x.shape[1:])
    cut = exp_action(map_, units, degree=degree, method="series")
    gap = abs(float(torch.linalg.slogdet(cut.value.reshape(len(units), -1))[1] - matrix.trace()))
    limit = float(torch.as_tensor(cut.diagnostics.log_det_error_bound).max()) + 1e-12 * len(matrix)
    require(gap <= limit, f"log-determinant off by {gap} nats, above the certificate {limit}")
