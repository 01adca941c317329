r"""Products of Householder reflections in the compact WY form, with a backward pass of their own.

The product `Q = H_1 H_2 ... H_K` of the reflections `H_k = I - 2 v_k v_k^T / |v_k|^2`, with the vectors as rows of `V`
`(K, C)`, is

    Q = I - V^T X,     X = S^-1 V,     S = triu(V V^T, 1) + diag(V V^T) / 2,

so K reflections cost three matrix products and one triangular solve of size K, and not K products of size C.

Source:
    Schreiber and Van Loan 1989 (the compact WY form); Joffrain et al. 2006 (`S` in closed form).
"""

import math
from typing import Any

import torch
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.dense import apply_matrix
from likelify.tracing import in_forward_mode, is_tracing, is_watched, outside_autocast, traceable_gradients


def householder_matrix(vectors: Tensor) -> Tensor:
    r"""Form the orthogonal matrix `Q = H_1 H_2 ... H_K`; its determinant is `(-1)^K`.

    A vector that is zero (shorter than the square root of the smallest normal number over the machine epsilon) gives no
    reflection: its factor is the identity, so `Q` stays orthogonal and finite, and the vector gets no gradient.

    Args:
        vectors: `(K, C)`, or `(rows, K, C)` for a product of its own for each row; any K, larger than C too.

    Returns:
        `(C, C)` or `(rows, C, C)`; twice differentiable.

    Raises:
        ShapeError: for other shapes.

    Example:
        >>> householder_matrix(torch.tensor([[1.0, 0.0]]))
        tensor([[-1., 0.],
                [ 0., 1.]])
    """
    _check(vectors)
    if is_tracing() or in_forward_mode():
        return _form(vectors, factorize(vectors)[1])
    return _Form.apply(vectors)  # pyright: ignore[reportReturnType]


def reflect(vectors: Tensor, x: Tensor, *, transposed: bool = False) -> Tensor:
    r"""Multiply the channels of `x` by `Q = H_1 H_2 ... H_K`, or by its transpose, which is its inverse.

    With many positions and many reflections `Q` is formed once, else `x - V^T (X x)` is taken, whichever has fewer
    operations. For the backward pass `x`, `V`, `X` and `S` are kept, nothing that grows with the positions.

    Args:
        vectors: `(K, C)`, or `(rows, K, C)`; zero vectors as in `householder_matrix`.
        x: `(rows, C, ...)`.
        transposed: multiply by the transpose.

    Returns:
        The shape of `x`; twice differentiable.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    _check(vectors)
    if x.ndim < 2 or x.shape[1] != vectors.shape[-1] or (vectors.ndim == 3 and len(x) != len(vectors)):
        raise ShapeError(
            f"Reflections by vectors of shape {tuple(vectors.shape)} cannot act on an input of shape {tuple(x.shape)} "
            "(rows, channels, ...)."
        )
    if is_tracing() or in_forward_mode():
        return _multiply(vectors, factorize(vectors)[1], x, transposed=transposed)
    return _Reflect.apply(vectors, x, transposed)  # pyright: ignore[reportReturnType]


def factorize(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return `S`, `(..., K, K)`, and `X = S^-1 V`, `(..., K, C)`, by differentiable operations."""
    upper = (vectors @ vectors.mT).triu()
    info = torch.finfo(vectors.dtype)
    # With one in its place a vector that cannot be normalized changes nothing, in the value and in the gradient.
    torch.threshold_(upper.diagonal(dim1=-2, dim2=-1).mul_(0.5), info.tiny / info.eps, 1.0)
    return upper, torch.linalg.solve_triangular(upper, vectors, upper=True)


def _check(vectors: Tensor) -> None:
    if vectors.ndim not in (2, 3):
        raise ShapeError(
            f"Reflections need vectors (K, C), or (rows, K, C) for each row, got shape {tuple(vectors.shape)}."
        )


def _form(vectors: Tensor, solved: Tensor) -> Tensor:
    eye = torch.eye(vectors.shape[-1], dtype=vectors.dtype, device=vectors.device)
    return _add_product(eye.expand(*vectors.shape[:-2], -1, -1), vectors.mT, solved, factor=-1)


def _add_product(start: Tensor, left: Tensor, right: Tensor, *, keep: int = 1, factor: int = 1) -> Tensor:
    """Return `keep * start + factor * left @ right` in one operation, for one matrix or for one for each row."""
    return (torch.baddbmm if left.ndim == 3 else torch.addmm)(start, left, right, beta=keep, alpha=factor)


def _is_formed(vectors: Tensor, x: Tensor) -> bool:
    """Tell whether forming the matrix takes fewer operations than two products with K vectors."""
    count, channels = vectors.shape[-2:]
    columns = x.numel() // max(channels * (len(vectors) if vectors.ndim == 3 else 1), 1)
    return count * channels + channels * columns < 2 * count * columns


def _multiply(vectors: Tensor, solved: Tensor, x: Tensor, *, transposed: bool) -> Tensor:
    if _is_formed(vectors, x):
        matrix = _form(vectors, solved)
        return apply_matrix(matrix.mT if transposed else matrix, x)
    first, second = (vectors, solved) if transposed else (solved, vectors)
    columns = _columns(x, vectors)
    return _restore(_subtract(columns, second, first @ columns), x)


def _columns(x: Tensor, vectors: Tensor) -> Tensor:
    """Return `x` as a matrix with a row for each channel, `(C, M)`, or one for each row of vectors, `(rows, C, N)`."""
    if vectors.ndim == 3:
        return x.flatten(2) if x.ndim > 2 else x[:, :, None]
    # A view where the channels are last in memory, else a copy in long pieces.
    return x.movedim(1, 0).reshape(x.shape[1], -1)


def _restore(columns: Tensor, x: Tensor) -> Tensor:
    """Undo `_columns`, in the memory layout of `x`."""
    if columns.ndim == 3:
        return columns.reshape(x.shape)
    y = columns.reshape(x.shape[1], x.shape[0], *x.shape[2:]).movedim(0, 1)
    return y if columns.stride(0) == 1 else y.contiguous()


def _subtract(columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return `columns - left^T right` in the memory layout of the columns."""
    if columns.ndim == 2 and columns.stride(0) == 1:
        return _add_product(columns.T, right.T, left, factor=-1).T
    return _add_product(columns, left.mT, right, factor=-1)


class _Form(torch.autograd.Function):
    """`householder_matrix`, which keeps `V`, `X` and `S`."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        upper, solved = factorize(vectors)
        ctx.save_for_backward(vectors, upper, solved)
        return _form(vectors, solved)

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        vectors, upper, solved = ctx.saved_tensors
        if is_watched():
            return traceable_gradients(lambda v: _form(v, factorize(v)[1]), (vectors,), (True,), grad)[0]
        return _gradient_of_vectors(vectors, upper, solved, vectors @ grad, (solved, grad.mT))


class _Reflect(torch.autograd.Function):
    """`reflect`, which keeps `x`, `V`, `X` and `S`."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, x: Tensor, transposed: bool) -> Tensor:  # noqa: FBT001
        upper, solved = factorize(vectors)
        ctx.save_for_backward(vectors, x, upper, solved)
        ctx.transposed = transposed
        return _multiply(vectors, solved, x, transposed=transposed)

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        vectors, x, upper, solved = ctx.saved_tensors
        if is_watched():

            def again(vectors: Tensor, x: Tensor) -> Tensor:
                return _multiply(vectors, factorize(vectors)[1], x, transposed=ctx.transposed)

            return *traceable_gradients(again, (vectors, x), ctx.needs_input_grad[:2], grad), None
        gradients = _gradients_formed if _is_formed(vectors, x) else _gradients_direct
        grad_x, grad_solved, rest = gradients(vectors, solved, x, grad, transposed=ctx.transposed)
        if not ctx.needs_input_grad[0]:
            return None, grad_x, None
        return _gradient_of_vectors(vectors, upper, solved, grad_solved, rest), grad_x, None


FactorPair = tuple[Tensor, Tensor]


def _gradients_direct(
    vectors: Tensor, solved: Tensor, x: Tensor, grad: Tensor, *, transposed: bool
) -> tuple[Tensor, Tensor, FactorPair]:
    """Return the gradient of `x`, and minus those of `X` and, as two factors, of the `V^T` in `I - V^T X`.

    With `D = left right^T` the gradient of `Q` they are `V D` and `X D^T`.
    """
    grad_columns, columns = _columns(grad, vectors), _columns(x, vectors)
    left, right = (columns, grad_columns) if transposed else (grad_columns, columns)
    by_vectors, by_solved = vectors @ left, solved @ right
    pieces = (vectors, by_solved) if transposed else (solved, by_vectors)
    return _restore(_subtract(grad_columns, *pieces), grad), by_vectors @ right.mT, (by_solved, left.mT)


def _gradients_formed(
    vectors: Tensor, solved: Tensor, x: Tensor, grad: Tensor, *, transposed: bool
) -> tuple[Tensor, Tensor, FactorPair]:
    """Return what `_gradients_direct` gives, through the matrices `Q` and `D`."""
    matrix = _form(vectors, solved)
    grad_x = apply_matrix(matrix if transposed else matrix.mT, grad)
    outer = _outer(x, grad, vectors) if transposed else _outer(grad, x, vectors)
    return grad_x, vectors @ outer, (solved, outer.mT)


def _outer(left: Tensor, right: Tensor, vectors: Tensor) -> Tensor:
    """Sum the outer products `left right^T` of the channels over the positions."""
    if vectors.ndim == 2 and left.ndim > 2 and left.stride(1) != 1 and left.shape[1] <= math.prod(left.shape[2:]):
        # One product for each row, which is no larger than the row, is cheaper than two copies.
        return torch.bmm(left.flatten(2), right.flatten(2).mT).sum(0)
    return _columns(left, vectors) @ _columns(right, vectors).mT


def _gradient_of_vectors(
    vectors: Tensor, upper: Tensor, solved: Tensor, grad_solved: Tensor, rest: FactorPair
) -> Tensor:
    """Return the gradient of the vectors; both arguments about gradients are minus what they are."""
    inner = torch.linalg.solve_triangular(upper.mT, grad_solved, upper=False)
    product = inner @ solved.mT
    # S holds half of the diagonal of the Gram matrix, which depends on each vector twice: together once.
    gram = product.triu() + product.triu(1).mT
    return _add_product(_add_product(inner, *rest), gram, vectors, keep=-1)
