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
        return _mixed(map_.graph, x, time * widest(map_.theta0), time * widest(map_.theta1))
    return _OneSize.apply(x, map_.theta0, map_.theta1, size, time)  # pyright: ignore[reportReturnType]


def _mixed(graph: GraphBatch, x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
    """Treat graphs of one size together, after sorting the nodes by the size of their graph."""
    order, back, parts = graph.derived("nodes by size of their graph", _by_size)
    eigenvalues = theta0.new_tensor([1.0, *(_second_eigenvalue(size) for size, _ in parts)])
    exponentials: Any = SmallExponential.apply(theta0 + eigenvalues[:, None, None] * theta1)
    of_mean, *of_rest = exponentials.to(x.dtype)
    pieces = (x if order is None else x[order]).split([rows for _, rows in parts])
    values = [
        piece @ rest if size == 1 else _mean_and_rest(piece, of_mean, rest, size)
        for piece, rest, (size, _) in zip(pieces, of_rest, parts, strict=True)
    ]
    value = torch.cat(values) if values else x.clone()
    return value if back is None else value[back]


def _second_eigenvalue(size: int) -> float:
    return -1 / (size - 1) if size > 1 else 0.0


def _by_size(graph: GraphBatch) -> tuple[Tensor | None, Tensor | None, list[tuple[int, int]]]:
    """Give an order of the nodes by the size of their graph, its inverse, and (size, number of nodes) of each part.

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
        ctx.save_for_backward(x, theta0, theta1)
        ctx.size, ctx.time = size, time
        first, second = to_array(theta0), to_array(theta1)
        ctx.points = time * np.stack([first + second, first + _second_eigenvalue(size) * second])
        of_mean, of_rest = exponential(ctx.points)
        if size * x.shape[1] <= WHOLE:
            ctx.matrices = (to_tensor(_whole(of_mean, of_rest, size), x),)
            return torch.mm(x.reshape(-1, size * x.shape[1]), *ctx.matrices).view(x.shape)
        ctx.matrices = to_tensor(of_rest, x), to_tensor((of_mean - of_rest) / size, x)
        value, ctx.sums = _rest_and_sums(x.contiguous(), *ctx.matrices, size)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the transposed matrices to the gradient, and take those of both exponentials from products of sums."""
        x, theta0, theta1 = ctx.saved_tensors
        if torch.is_grad_enabled():
            # For gradients of gradients the plain formula is differentiated.
            value = _plain(x, theta0, theta1, ctx.size, ctx.time)
            inputs = [t for t, need in zip((x, theta0, theta1), ctx.needs_input_grad[:3], strict=True) if need]
            found = iter(torch.autograd.grad(value, inputs, grads[0], create_graph=True))
            return tuple(next(found) if need else None for need in ctx.needs_input_grad)
        grad = grads[0].contiguous()
        size, matrices = ctx.size, [matrix.T for matrix in ctx.matrices]
        if len(matrices) == 1:
            shape = (-1, size * x.shape[1])
            of_x = torch.mm(grad.view(shape), *matrices).view(x.shape)
            products = to_array(torch.mm(x.reshape(shape).T, grad.view(shape))).reshape(2 * (size, x.shape[1]))
            of_mean, total = products.sum((0, 2)) / size, products.trace(axis1=0, axis2=2)
        else:
            of_x, sums = _rest_and_sums(grad, *matrices, size)
            of_mean, total = to_array(torch.mm(ctx.sums.T, sums)) / size, to_array(torch.mm(x.T, grad))
        mean, rest = ctx.time * derivative(ctx.points, np.stack([of_mean, total - of_mean]))
        of_theta1 = mean + _second_eigenvalue(size) * rest
        return of_x, to_tensor(mean + rest, theta0), to_tensor(of_theta1, theta1), None, None


def _plain(x: Tensor, theta0: Tensor, theta1: Tensor, size: int, time: float) -> Tensor:
    """Apply the closed form for graphs of one size, with a gradient that autograd finds."""
    first, second = time * theta0.double(), time * theta1.double()
    points = torch.stack([first + second, first + _second_eigenvalue(size) * second])
    exponentials: Any = SmallExponential.apply(points)
    return _mean_and_rest(x, *exponentials.to(x.dtype), size)


def _whole(of_mean: np.ndarray, of_rest: np.ndarray, size: int) -> np.ndarray:
    """Give the matrix on all features of a graph of that size."""
    features = len(of_mean)
    matrix = np.empty((size, features, size, features))
    matrix[:] = ((of_mean - of_rest) / size)[:, None, :]
    nodes = np.arange(size)
    matrix[nodes, :, nodes] += of_rest
    return matrix.reshape(size * features, size * features)


def _rest_and_sums(x: Tensor, of_rest: Tensor, of_sums: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Multiply the features of each node by one matrix, add the sums over its graph times another; give them too."""
    graphs, features = len(x) // size, x.shape[1]
    value, sums = torch.mm(x, of_rest), x.view(graphs, size, features).sum(1)
    # One product that repeats the same features for all nodes of a graph is faster than adding them to each.
    value.view(graphs, -1).addmm_(sums, of_sums.repeat(1, size))
    return value, sums
