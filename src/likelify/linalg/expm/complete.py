r"""The exponential of a graph convolution on complete graphs, in closed form.

The adjacency of a complete graph of `n` nodes has two eigenvalues only: 1 for the mean of the nodes, `-1 / (n - 1)` for
what is left. So

    exp(tL) X = (X - mean) exp(t (theta_0 - theta_1 / (n - 1))) + mean exp(t (theta_0 + theta_1)),

without any truncation. A graph of one node has no neighbours: its only eigenvalue is zero.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from likelify.linalg.bounds import widest
from likelify.linalg.expm.small import SmallExponential, derivative, exponential, to_array, to_tensor
from likelify.linalg.graph import GraphMap, common_size
from likelify.structure import GraphBatch

# Up to this many numbers in a graph one product with the whole matrix is faster than means and sums.
WHOLE = 64


def complete_exponential(map_: GraphMap, x: Tensor, time: float | Tensor) -> Tensor:
    """Apply `exp(time L)` on complete graphs, also of different sizes; differentiable to any order."""
    size = common_size(map_.graph)
    if size is None or size == 1 or isinstance(time, Tensor):
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
        exponentials = exponential(ctx.points)
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
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the transposed matrices to the gradient, and take those of both exponentials from products of sums."""
        x, theta0, theta1, matrices, *sums = ctx.saved_tensors
        if torch.is_grad_enabled():
            # For gradients of gradients the plain formula is differentiated; of views, because one of the three may be
            # made from another.
            fresh = [tensor.view_as(tensor) for tensor in (x, theta0, theta1)]
            value = _by_parts(fresh[0], ctx.time * fresh[1], ctx.time * fresh[2], [(ctx.size, len(x))])
            inputs = [t for t, need in zip(fresh, ctx.needs_input_grad[:3], strict=True) if need]
            found = iter(torch.autograd.grad(value, inputs, grads[0], create_graph=True))
            return tuple(next(found) if need else None for need in ctx.needs_input_grad)
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
    of_mean, of_rest = time * derivative(points, np.stack([mean, moments[1] - mean]))
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
