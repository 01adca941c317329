r"""Polynomials in the adjacency of a graph: `P(X) = sum_k T_k(A) X C_k`, with Chebyshev polynomials `T_k`.

The coefficients `C_k` are matrices on the features, or one number for each feature. The recurrence costs one sparse
product for each `k`. `A` is symmetric, so the same recurrence on the incoming gradient `g` gives both gradients,

    sum_k T_k(A) g C_k^T     and     X^T T_k(A) g,

and only `X` and the coefficients are kept for it, however high the degree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from likelify.tracing import is_watched, outside_autocast, refuse_old_batches


def apply_polynomial(adjacency: Tensor, x: Tensor, coefficients: Tensor) -> Tensor:
    """Return `sum_k T_k(A) X C_k`, differentiable to any order in `X` and the coefficients.

    Args:
        adjacency: sparse `(nodes, nodes)`, symmetric; a constant.
        x: `(nodes, features)`, of the same dtype.
        coefficients: `(degree + 1, features, features)`, matrices that act from the right; or `(degree + 1, features)`,
            one number for each feature.
    """
    return _Polynomial.apply(x, coefficients, adjacency)  # pyright: ignore[reportReturnType]


def chebyshev_terms(adjacency: Tensor, x: Tensor, degree: int) -> Iterator[Tensor]:
    """Return `T_k(A) x` for `k = 0..degree`, each valid until the one after the next is asked for."""
    yield x
    if degree == 0:
        return
    previous, current = x, adjacency @ x
    yield current
    for k in range(2, degree + 1):
        # The input must stay as it is; the other terms give up their memory.
        add = torch.addmm if k == 2 else torch.Tensor.addmm_
        previous, current = current, add(previous, adjacency, current, beta=-1, alpha=2)
        yield current


def _times(term: Tensor, coefficient: Tensor) -> Tensor:
    return term @ coefficient if coefficient.ndim == 2 else term * coefficient


def _add_times(value: Tensor, term: Tensor, coefficient: Tensor) -> Tensor:
    """Add a term times its coefficient in place."""
    if coefficient.ndim == 2:
        return value.addmm_(term, coefficient)
    return value.addcmul_(term, coefficient)


def _turned(coefficients: Tensor) -> Tensor:
    return coefficients.mT if coefficients.ndim == 3 else coefficients


def _moment(x: Tensor, term: Tensor, *, by_feature: bool) -> Tensor:
    """Return `X^T Y`, or its diagonal."""
    return torch.linalg.vecdot(x, term, dim=0) if by_feature else x.mT @ term


class _Polynomial(torch.autograd.Function):
    """The polynomial; saves `X` and the coefficients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor, adjacency: Tensor) -> Tensor:
        ctx.save_for_backward(x, coefficients)
        ctx.save_for_forward(x, coefficients)
        ctx.adjacency = adjacency
        terms = chebyshev_terms(adjacency, x.contiguous(), len(coefficients) - 1)
        value = _times(next(terms), coefficients[0])
        for term, coefficient in zip(terms, coefficients[1:], strict=True):
            _add_times(value, term, coefficient)
        return value

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, coefficients = ctx.saved_tensors
        of_x, of_coefficients, _ = tangents
        parts = [] if of_x is None else [_Polynomial.apply(of_x, coefficients, ctx.adjacency)]
        parts += [] if of_coefficients is None else [_Polynomial.apply(x, of_coefficients, ctx.adjacency)]
        return sum(parts[1:], parts[0])  # pyright: ignore[reportReturnType, reportArgumentType]

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, coefficients = ctx.saved_tensors
        refuse_old_batches("a polynomial in the adjacency of a graph", *grads)
        (grad,) = grads
        to_x, to_coefficients, _ = ctx.needs_input_grad
        degree, by_feature = len(coefficients) - 1, coefficients.ndim == 2
        turned = _turned(coefficients)
        if is_watched():
            of_x = _Polynomial.apply(grad, turned, ctx.adjacency) if to_x else None
            of_coefficients = _Moments.apply(x, grad, degree, by_feature, ctx.adjacency) if to_coefficients else None
            return of_x, of_coefficients, None  # pyright: ignore[reportReturnType]
        of_x, moments = None, []
        for term, coefficient in zip(chebyshev_terms(ctx.adjacency, grad.contiguous(), degree), turned, strict=True):
            if to_coefficients:
                moments.append(_moment(x, term, by_feature=by_feature))
            if to_x:
                of_x = _times(term, coefficient) if of_x is None else _add_times(of_x, term, coefficient)
        return of_x, torch.stack(moments) if to_coefficients else None, None


class _Moments(torch.autograd.Function):
    """The matrices `M_k = X^T T_k(A) Y`, what the gradient of the coefficients is made of, or their diagonals."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, degree: int, by_feature: bool, adjacency: Tensor) -> Tensor:  # noqa: FBT001 - takes no keywords
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)
        ctx.adjacency, ctx.settings = adjacency, (degree, by_feature)
        terms = chebyshev_terms(adjacency, y.contiguous(), degree)
        return torch.stack([_moment(x, term, by_feature=by_feature) for term in terms])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, y = ctx.saved_tensors
        pairs = [(tangents[0], y), (x, tangents[1])]
        parts = [
            _Moments.apply(*pair, *ctx.settings, ctx.adjacency)
            for pair, tangent in zip(pairs, tangents, strict=False)
            if tangent is not None
        ]
        return sum(parts[1:], parts[0])  # pyright: ignore[reportReturnType, reportArgumentType]

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return `sum_k T_k(A) Y G_k^T` and `sum_k T_k(A) X G_k`, polynomials again."""
        x, y = ctx.saved_tensors
        (grad,) = grads
        to_x, to_y, *_ = ctx.needs_input_grad
        of_x = _Polynomial.apply(y, _turned(grad), ctx.adjacency) if to_x else None
        of_y = _Polynomial.apply(x, grad, ctx.adjacency) if to_y else None
        return of_x, of_y, None, None, None  # pyright: ignore[reportReturnType]
