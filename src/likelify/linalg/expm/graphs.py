r"""The methods for graph convolutions: an expansion in the adjacency, and the closed form on complete graphs.

For `L(X) = X theta_0 + A X theta_1` the adjacency acts from the left and the matrices from the right, so with an
eigenbasis of `A` the exponential is the small matrix `f(mu) = exp(t (theta_0 + mu theta_1))` at each eigenvalue `mu`,
all of which lie in [-1, 1]. A polynomial that interpolates `f` there gives

    exp(tL) X ~ sum_{k <= K} T_k(A) X C_k,      C_k: Chebyshev coefficients of the interpolant at K + 1 points,

which costs K sparse products and K + 1 small exponentials; `theta_0` enters without error.

**Certificate.** Let `a = |t| ||(theta_0 + theta_0^T) / 2||` and `b = |t| ||theta_1||`. The part of `f` of order `m` in
`mu` is an integral of products of `m` factors `t theta_1` and of exponentials of `t theta_0` in between, over a simplex
of volume `1 / m!`, so its norm is at most `e^a b^m / m!`. Powers of `mu` have Chebyshev coefficients that are not
negative, so those of `f` are at most `e^a` times those of `e^(b mu)`: `||a_k|| <= 2 e^a I_k(b)`, Bessel functions.
Leaving out `k > K` costs at most their sum, since `||T_k(A)|| <= 1`. Interpolation adds each `a_k`, `k > K + 1`, once
more in another place, and `a_{K+1}` not at all (its polynomial is zero at the points). In the norm of each graph:

    ||value - exp(tL) X|| <= 2 e^a (S_K + S_{K+1}) ||X||,     S_K = sum_{k > K} I_k(b),

and `I_k(b) <= (b/2)^k / k! e^(b^2 / (4 (k + 1)))` with a geometric series for the sum. This counts on the worst
matrices of these norms. For those at hand the last `C_k` are often much smaller; as long as the sum of the norms of
those that are left out and the bound above stay below the tolerance, they are left out.

**Derivatives.** That of order `j` in `theta_0` and `theta_1` has parts of order `m` in `mu` of at most `e^a` times the
coefficient of `mu^m` in `(1 + mu)^j e^(b mu)`, so Chebyshev coefficients of at most `2^j` times the derivatives of
`I_k(b)`, which are means of `I_{k-j}(b), ..., I_{k+j}(b)`: the sums above, from `K - j` on. Where derivatives may be
asked for, coefficients are left out only as far as these stay small.

**Complete graphs.** Their adjacency has two eigenvalues only: 1 for the mean of the nodes, `-1 / (n - 1)` for what is
left. So

    exp(tL) X = (X - mean) exp(t (theta_0 - theta_1 / (n - 1))) + mean exp(t (theta_0 + theta_1)),

without any truncation. A graph of one node has no neighbours: its only eigenvalue is zero.

**Log-determinant.** The polynomial that is applied is `E (I - Q)` with `E = exp(tL)` and
`||Q|| <= q = ||E^{-1}|| error`. For `q < 1` and a graph of `n` nodes with `f` features,
`|log |det P| - t tr L| <= -n f log(1 - q)`.

Source: graph convolution exponentials are from Hoogeboom et al. 2020, section 3.1; the polynomial in the adjacency
and its certificate are ours. Interpolation and aliasing: Trefethen 2013, chapter 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError, ConvergenceError, DomainError
from likelify.linalg.bounds import gram_bound, safe_exp, widest
from likelify.linalg.expm.adjacency import apply_polynomial
from likelify.linalg.expm.chebyshev import MAX_DEGREE, bessel_tail
from likelify.linalg.expm.diagnostics import Diagnostics
from likelify.linalg.expm.expansion import ORDERS, PER_ORDER
from likelify.linalg.expm.matrix import (
    SmallExponential,
    report_without_norm,
    small_derivative,
    small_exponential,
    to_array,
    to_tensor,
)
from likelify.linalg.expm.problem import MAX_NORM, ExpProblem
from likelify.linalg.graph import GraphMap, common_size, normalized_adjacency
from likelify.structure import GraphBatch
from likelify.tracing import in_forward_mode, is_watched, outside_autocast, refuse_old_batches, traceable_gradients

# Up to this many elements of a graph one product with the whole matrix is faster than means and sums.
WHOLE = 64


def run_graphs(problem: ExpProblem) -> tuple[Tensor, Diagnostics]:
    """Expand in the adjacency of a graph, with small matrices as coefficients; complete graphs in closed form."""
    map_ = problem.map
    if not isinstance(map_, GraphMap):
        raise ConfigError(f"method='adjacency' needs a GraphMap, not {type(map_).__name__}. Use 'series'.")
    orders = ORDERS if problem.recorded else 0
    value, degree, error = adjacency_exponential(map_, problem.x, problem.time, problem.tol, orders)
    name = "closed-form" if map_.graph.is_complete else "adjacency"
    return value, report_without_norm(problem, name, degree, error, lambda: log_det_error(map_, problem.time, error))


def adjacency_exponential(
    map: GraphMap,  # noqa: A002 - the field's word for it; the builtin is not needed here
    x: Tensor,
    time: float | Tensor,
    tol: float,
    orders: int = 0,
) -> tuple[Tensor, int, float]:
    r"""Apply `exp(time L)` for a graph convolution `L` to the features of its nodes.

    Gradients reach `x`, both matrices and `time`, to any order; only `x` and the small coefficients are saved for
    them, and the backward pass costs as many sparse products as the forward pass.

    Args:
        map: the graph convolution.
        x: `(nodes, features)`, floating.
        time: a factor, one number.
        tol: truncation error allowed, relative to the norm of each graph's features.
        orders: of the derivatives that are to be exact too, to `PER_ORDER` times the tolerance for each order.

    Returns:
        The value; the degree in the adjacency, which is the number of sparse products; and a guaranteed bound of the
        truncation error relative to the norm of each graph, at most `tol` (0.0 for complete graphs).

    Raises:
        ConvergenceError: if the norm of the map is beyond what floating formats hold, or the tolerance out of reach.
        DomainError: if the map's matrices are not finite, or the graph is directed.
        ShapeError: if `x` does not hold the features of the nodes.
    """
    map.check(x)
    if x.dtype not in (torch.float32, torch.float64):
        # Sparse products know no other precision, and the small matrices are worth it.
        value, degree, error = adjacency_exponential(map, x.float(), time, tol, orders)
        return value.to(x.dtype), degree, error
    if map.graph.is_complete:
        return complete_exponential(map, x, time), 0, 0.0
    # In double precision the small exponentials cost next to nothing and add no rounding; their degree is found from
    # values, so a device hands the matrices to the host, at once.
    theta0, theta1 = (map.theta0, map.theta1) if x.device.type == "cpu" else torch.stack((map.theta0, map.theta1)).cpu()
    time = time.cpu() if isinstance(time, Tensor) else time
    coefficients, error = adjacency_coefficients(time * widest(theta0), time * widest(theta1), tol, orders)
    adjacency = normalized_adjacency(map.graph, x.dtype)
    value = apply_polynomial(adjacency, x, coefficients.to(x))
    return value, len(coefficients) - 1, error


def log_det_error(map: GraphMap, time: float, error: float) -> Tensor:  # noqa: A002 - as above
    r"""Bound `|log |det P| - time tr L|` in nats for each graph, `(graphs,)`, for the polynomial `P` that was applied.

    Args:
        map: the graph convolution.
        time: the factor.
        error: the relative bound of the truncation error that `adjacency_exponential` gave.
    """
    event_shape = (len(map.theta0),)
    q = safe_exp(abs(time) * float(map.growth_bound(event_shape))) * error
    sizes = map.item_size(event_shape)
    bound = sizes.to(widest(map.theta0).dtype) * (-math.log1p(-q) if q < 1 else math.inf)
    return bound.masked_fill(sizes == 0, 0.0)


def interpolation_error(growth: float, norm: float, degree: int) -> float:
    """Bound the error of the interpolant of that degree relative to the norm of the input (see the module)."""
    # `bessel_tail` counts each coefficient twice, as they stand in the expansion.
    tail = bessel_tail(norm, degree, skew=False) + bessel_tail(norm, degree + 1, skew=False)
    return safe_exp(growth) * tail if tail else 0.0


def _least_degree(growth: float, norm: float, tol: float, orders: int) -> int:
    """Return the degree below which derivatives by the matrices would be less exact than asked for (see the module)."""
    least = 0
    for order in range(1, orders + 1):
        least = max(least, order)
        while interpolation_error(growth, norm, least - order) > PER_ORDER**order * tol:
            least += 1
    return least


def adjacency_coefficients(theta0: Tensor, theta1: Tensor, tol: float, orders: int) -> tuple[Tensor, float]:
    """Return the coefficients `(degree + 1, f, f)` and the bound of the error they leave, see `adjacency_exponential`.

    Both matrices in double precision give the coefficients that it applies.
    """
    with torch.no_grad():
        growth = float(gram_bound((theta0 + theta0.mT) / 2, steps=5))
        norm = float(gram_bound(theta1, steps=5))
    _require_range(growth, norm)
    # A part of the tolerance is kept for coefficients that turn out to be smaller than their bound.
    degree = next((k for k in range(MAX_DEGREE) if interpolation_error(growth, norm, k) <= tol / 4), None)
    if degree is None:
        raise ConvergenceError(
            f"No polynomial of degree up to {MAX_DEGREE} in the adjacency meets the tolerance {tol:g}; the norm of "
            f"theta_1 is {norm:.3g}. Ask for a larger tol, or limit the norm of the map."
        )
    # The last coefficients may be small by chance, and their derivatives large.
    least = _least_degree(growth, norm, tol, orders)
    degree = max(degree, least)
    angles = torch.arange(degree + 1, dtype=theta0.dtype, device=theta0.device) + 0.5
    angles = angles * (math.pi / (degree + 1))
    points = theta0 + angles.cos()[:, None, None] * theta1
    weights = (torch.arange(degree + 1).to(angles)[:, None] * angles).cos() * (2 / (degree + 1))
    weights[0] /= 2
    coefficients = (weights @ SmallExponential.apply(points).flatten(1)).unflatten(1, theta0.shape)
    error = interpolation_error(growth, norm, degree)
    sizes = gram_bound(coefficients.detach(), steps=3).tolist()
    while degree > least and error + sizes[degree] <= tol:
        error += sizes[degree]
        degree -= 1
    return coefficients[: degree + 1], error


def _require_range(growth: float, norm: float) -> None:
    if not math.isfinite(growth + norm):
        raise DomainError(
            "The norm bound of the graph convolution is not finite: theta_0 or theta_1 holds NaN or infinity, or "
            "elements so large that their squares overflow."
        )
    if growth + norm > MAX_NORM:
        raise ConvergenceError(
            f"The norm bound of the graph convolution is {growth + norm:.3g}; its exponential may be e^"
            f"{growth + norm:.3g} times as large as the input, which no floating format holds (limit {MAX_NORM:g}). "
            "Limit the norms of theta_0 and theta_1, for example by limit_by_neighbours."
        )


def complete_exponential(map_: GraphMap, x: Tensor, time: float | Tensor) -> Tensor:
    """Apply `exp(time L)` on complete graphs, also of different sizes; differentiable to any order."""
    size = common_size(map_.graph)
    if size is None or size == 1 or isinstance(time, Tensor) or in_forward_mode():
        order, back, parts = map_.graph.derived("nodes by size of their graph", _by_size)
        value = _by_parts(x if order is None else x[order], time * map_.theta0, time * map_.theta1, parts)
        return value if back is None else value[back]
    return _OneSize.apply(x, map_.theta0, map_.theta1, size, time)  # pyright: ignore[reportReturnType]


def _by_parts(x: Tensor, theta0: Tensor, theta1: Tensor, parts: list[tuple[int, int]]) -> Tensor:
    """Apply the closed form to nodes sorted by the size of their graph; (size, number of nodes) for each part."""
    theta0, theta1 = widest(theta0), widest(theta1)
    eigenvalues = theta0.new_tensor([1.0, *(_second_eigenvalue(size) for size, _ in parts)])
    exponentials: Any = SmallExponential.apply(theta0 + eigenvalues[:, None, None] * theta1)
    of_mean, *of_rest = exponentials.to(x.dtype)
    values = [
        piece @ rest if size == 1 else _mean_and_rest(piece, of_mean, rest, size)
        for piece, rest, (size, _) in zip(x.split([rows for _, rows in parts]), of_rest, parts, strict=True)
    ]
    return torch.cat(values) if values else x.clone()


def _second_eigenvalue(size: int) -> float:
    return -1 / (size - 1) if size > 1 else 0.0


def _by_size(graph: GraphBatch) -> tuple[Tensor | None, Tensor | None, list[tuple[int, int]]]:
    """Return an order of the nodes by the size of their graph, its inverse, and (size, number of nodes) of each part.

    The order is None where the nodes stand in it already.
    """
    sizes, counts = graph.sizes.unique(return_counts=True)
    parts = [(size, size * count) for size, count in zip(sizes.tolist(), counts.tolist(), strict=True) if size]
    if bool((graph.sizes[1:] >= graph.sizes[:-1]).all()):
        return None, None, parts
    order = graph.sizes[graph.owner].argsort(stable=True)
    return order, order.argsort(), parts


def _mean_and_rest(x: Tensor, of_mean: Tensor, of_rest: Tensor, size: int) -> Tensor:
    """Multiply the mean over the nodes of each graph and what is left by matrices of their own."""
    graphs = x.unflatten(0, (-1, size))
    means = graphs.mean(1, keepdim=True)
    return torch.add(graphs @ of_rest, means @ (of_mean - of_rest)).flatten(0, 1)


class _OneSize(torch.autograd.Function):
    """The closed form for graphs of one size, with few tensor operations: these graphs are small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta0: Tensor, theta1: Tensor, size: int, time: float) -> Tensor:
        ctx.size, ctx.time = size, time
        first, second = to_array(torch.stack([theta0, theta1]))
        ctx.points = time * np.stack([first + second, first + _second_eigenvalue(size) * second])
        exponentials = small_exponential(ctx.points)
        if size * x.shape[1] <= WHOLE:
            matrix = to_tensor(_whole(exponentials, size), x)
            ctx.save_for_backward(x, theta0, theta1, matrix)
            return torch.mm(x.reshape(-1, len(matrix)), matrix).view(x.shape)
        exponentials[0] = (exponentials[0] - exponentials[1]) / size
        matrices = to_tensor(exponentials, x)
        value, sums = _rest_and_sums(x.contiguous(), matrices, size)
        ctx.save_for_backward(x, theta0, theta1, matrices, sums)
        return value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the transposed matrices to the gradient, and take those of both exponentials from products of sums."""
        refuse_old_batches("the exponential of a graph", *grads)
        x, theta0, theta1, matrices, *sums = ctx.saved_tensors
        if is_watched():

            def again(x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
                return _by_parts(x, ctx.time * theta0, ctx.time * theta1, [(ctx.size, len(x))])

            needed = ctx.needs_input_grad[:3]
            return (*traceable_gradients(again, (x, theta0, theta1), needed, grads[0]), None, None)
        grad, size, to_thetas = grads[0].contiguous(), ctx.size, any(ctx.needs_input_grad[1:3])
        if sums:
            of_x, of_sums = _rest_and_sums(grad, matrices.mT, size)
            moments = torch.stack([torch.mm(sums[0].T, of_sums), torch.mm(x.T, grad)]) if to_thetas else None
        else:
            shape = (-1, len(matrices))
            of_x = torch.mm(grad.view(shape), matrices.T).view(x.shape)
            moments = torch.mm(x.reshape(shape).T, grad.view(shape)) if to_thetas else None
        if moments is None:
            return of_x, None, None, None, None
        of_theta0, of_theta1 = to_tensor(_of_thetas(moments.numpy(force=True), ctx.points, size, ctx.time), theta0)
        return of_x, of_theta0, of_theta1, None, None


def _of_thetas(moments: np.ndarray, points: np.ndarray, size: int, time: float) -> np.ndarray:
    """Return the gradient of both matrices of the graph convolution, `(2, f, f)`.

    Args:
        moments: the gradient of the matrix on all features of a graph, `(n f, n f)`; or, `(2, f, f)`, the sum of its
            blocks and of those on its diagonal.
        points: of which the exponentials were taken.
        size: the number of nodes `n`.
        time: the factor on the map.
    """
    if moments.ndim == 2:
        blocks = moments.reshape(2 * (size, points.shape[-1]))
        moments = np.stack([blocks.sum((0, 2)), blocks.trace(axis1=0, axis2=2)])
    mean = moments[0] / size
    of_mean, of_rest = time * small_derivative(points, np.stack([mean, moments[1] - mean]))
    return np.stack([of_mean + of_rest, of_mean + _second_eigenvalue(size) * of_rest])


def _whole(exponentials: np.ndarray, size: int) -> np.ndarray:
    """Return the matrix on all features of a graph of that size."""
    (of_mean, of_rest), features = exponentials, exponentials.shape[-1]
    matrix = np.empty((size, features, size, features))
    matrix[:] = ((of_mean - of_rest) / size)[:, None, :]
    nodes = np.arange(size)
    matrix[nodes, :, nodes] += of_rest
    return matrix.reshape(size * features, size * features)


def _rest_and_sums(x: Tensor, matrices: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Multiply the sums over the nodes by the first matrix, add each node times the second; also give the sums."""
    value, shape = torch.mm(x, matrices[1]), (-1, size, x.shape[1])
    sums = x.view(shape).sum(1)
    value.view(shape).add_(torch.mm(sums, matrices[0])[:, None])
    return value, sums
