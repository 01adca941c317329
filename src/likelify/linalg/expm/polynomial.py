r"""Exponentials of matrices, of one or of many small ones: Taylor polynomials in few products, and their gradients.

A scheme computes the polynomial `T_m(A) = sum_k A^k / k!` of a batch of matrices by a chain of products. Its basis
begins with `I, A`; each product `X_i = (l_i . basis) (r_i . basis)` of two combinations of what is there joins it, and
the value is a combination of it all. Degree 4 takes two products and degree 8 three, where Horner's rule would take
four and eight; higher degrees are evaluated by blocks (Paterson and Stockmeyer 1973). Combinations of a batch are one
product of two matrices, so few operations are left. Matrices of large norm are scaled by a power of two and squared.

With the gradient `G_i` of a product, its two sides have the gradients `G_i (r_i . basis)^T` and
`(l_i . basis)^T G_i`, and what a side combines gets its share: two products for each one of the forward pass.
Derivatives of the backward pass, and what traces or transforms it, go through the same chain in plain operations.

Source: Bader, Blanes and Casas 2019 for degree 8 in three products; Paterson and Stockmeyer 1973.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm.series import a_priori_error, degree_of_steps
from likelify.tracing import (
    in_forward_mode,
    is_tracing,
    is_watched,
    outside_autocast,
    refuse_old_batches,
    traceable_gradients,
)

# Steps longer than these lose digits to cancellation (see `series.step_count`).
LONGEST = {torch.float64: 8.0, torch.complex128: 8.0}
# Squarings that are tried beyond what the longest step asks for.
MORE_SQUARINGS = 10

Row = tuple[float, ...]


@dataclass(frozen=True)
class Scheme:
    """A chain of products for the Taylor polynomial of a degree.

    Attributes:
        degree: of the polynomial.
        sides: coefficients of the left and of the right factor of each product on the basis so far.
        rest: coefficients on the basis before the last product of what is added to that product.
    """

    degree: int
    sides: tuple[tuple[Row, Row], ...]
    rest: Row

    @property
    def products(self) -> int:
        """Matrix products it takes."""
        return len(self.sides)


def _inverse_factorial(k: int) -> float:
    return math.exp(-math.lgamma(k + 1)) if k > 20 else 1 / math.factorial(k)


def _degree_8() -> Scheme:
    """Return the chain of three products, whose coefficients solve the equations for those of the polynomial."""
    root = math.sqrt(177)
    x3 = 2 / 3
    x1 = x3 * (1 + root) / 88
    x2 = x1 / 4
    x4 = (29 * root - 271) / (315 * x3)
    x5 = 11 * (root - 1) / (1260 * x3)
    x6 = 11 * (root - 9) / (5040 * x3)
    x7 = (89 - root) / (5040 * x3**2)
    y2 = (857 - 58 * root) / 630
    fourth = ((0.0, 0.0, 1.0), (0.0, x1, x2))
    eighth = ((0.0, 0.0, x3, 1.0), (x4, x5, x6, x7))
    return Scheme(8, (((0.0, 1.0), (0.0, 1.0)), fourth, eighth), (1.0, 1.0, y2, 0.0))


def _by_blocks(degree: int, block: int) -> Scheme:
    """Evaluate a polynomial in `A^block` whose coefficients are polynomials in `A`; the degree is a multiple of it."""
    coefficients = [_inverse_factorial(k) for k in range(degree + 1)]
    sides: list[tuple[Row, Row]] = []
    for power in range(2, block + 1):
        half = power // 2
        sides.append((_unit(half, power), _unit(power - half, power)))
    # The highest block has one term more, so that the sum ends with the highest power that is at hand.
    start = degree - block
    left = coefficients[start:]
    while start > 0:
        sides.append((tuple(left), _unit(block, len(left))))
        start -= block
        # The product before is a member of the basis now.
        left = [*coefficients[start : start + block], 0.0, *[0.0] * (len(left) - block - 1), 1.0]
    return Scheme(degree, tuple(sides), tuple(left[:-1]))


def _unit(place: int, size: int) -> Row:
    return tuple(float(i == place) for i in range(size))


SCHEMES = (
    Scheme(2, (((0.0, 1.0), (0.0, 0.5)),), (1.0, 1.0)),
    Scheme(4, (((0.0, 1.0), (0.0, 1.0)), ((0.0, 0.0, 1.0), (1 / 2, 1 / 6, 1 / 24))), (1.0, 1.0, 0.0)),
    _degree_8(),
    _by_blocks(12, 4),
    _by_blocks(16, 4),
    _by_blocks(20, 5),
    _by_blocks(25, 5),
    _by_blocks(30, 6),
)


@dataclass(frozen=True)
class PolynomialPlan:
    """A scheme for the matrices over `2^squarings`, squared that many times.

    Attributes:
        scheme: the polynomial.
        squarings: how often its value is squared.
        error: bound of `||P - exp(M)||_2`.
    """

    scheme: Scheme
    squarings: int
    error: float

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return self.scheme.degree

    @property
    def products(self) -> int:
        """Matrix products it takes."""
        return self.scheme.products + self.squarings


@functools.lru_cache(maxsize=1024)
def plan_polynomial(norm: float, growth: float, tol: float, dtype: torch.dtype, orders: int = 0) -> PolynomialPlan:
    """Find the plan with the fewest products whose a-priori error is at most `tol`.

    Args:
        norm: bound of `||M||_2`.
        growth: bound of the norm of the symmetric part, which bounds `||exp(M)||` by `e^growth`.
        tol: allowed error in the 2-norm.
        dtype: of the matrix.
        orders: of the derivatives for which it is to serve too (as in `series.degree_of_steps`).
    """
    least = max(0, math.ceil(math.log2(max(norm, 1e-9) / LONGEST.get(dtype, 3.0))))
    best: PolynomialPlan | None = None
    for squarings in range(least, least + MORE_SQUARINGS + 1):
        steps = 2**squarings
        degree = degree_of_steps(norm, growth, steps, tol, orders)
        scheme = next((scheme for scheme in SCHEMES if scheme.degree >= degree), None)
        if scheme is not None and (best is None or scheme.products + squarings < best.products):
            best = PolynomialPlan(scheme, squarings, a_priori_error(norm, growth, steps, scheme.degree))
    if best is None:
        # The certificate says that the tolerance is not met.
        squarings, scheme = least + MORE_SQUARINGS, SCHEMES[-1]
        best = PolynomialPlan(scheme, squarings, a_priori_error(norm, growth, 2**squarings, scheme.degree))
    return best


def evaluate_polynomial(matrices: Tensor, plan: PolynomialPlan, *, time: float = 1.0, exponent: float = 0.0) -> Tensor:
    """Compute the polynomial of a plan, for `exp(exponent + time M)` of matrices `(..., n, n)`; differentiable."""
    if exponent:
        # With its share in each step no power leaves the range before the factor brings it back.
        steps = 2**plan.squarings
        value = evaluate_polynomial(matrices, replace(plan, squarings=0), time=time / steps)
        value = value * safe_exp(exponent / steps)
        for _ in range(plan.squarings):
            value = value @ value
        return value
    batch = matrices if matrices.ndim == 3 else matrices.reshape(math.prod(matrices.shape[:-2]), *matrices.shape[-2:])
    if is_tracing() or in_forward_mode():
        value: Any = _plain(batch, plan, time)
    else:
        value = _Polynomial.apply(batch, plan, time)
    return value if matrices.ndim == 3 else value.view(matrices.shape)


def _plain(matrices: Tensor, plan: PolynomialPlan, time: float) -> Tensor:
    """Go through the chain in operations that can be traced and differentiated again."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    basis, made = [eye, matrices * (time / 2**plan.squarings)], matrices
    for left, right in plan.scheme.sides:
        made = _sum(left, basis) @ _sum(right, basis)
        basis.append(made)
    value = _sum(plan.scheme.rest, basis[:-1]) + made
    for _ in range(plan.squarings):
        value = value @ value
    return value


def _sum(row: Row, basis: Sequence[Tensor]) -> Tensor:
    terms = [part if c == 1 else c * part for c, part in zip(row, basis, strict=True) if c]
    return functools.reduce(torch.add, terms)


class _Polynomial(torch.autograd.Function):
    """The chain on a batch of matrices `(k, n, n)`, with its backward pass."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, plan: PolynomialPlan, time: float) -> Tensor:
        chain = Chain(plan, matrices, time)
        value = chain.value()
        ctx.plan, ctx.time = plan, time
        ctx.save_for_backward(matrices, *chain.kept())
        return value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_old_batches("an exponential", grad)
        matrices, *kept = ctx.saved_tensors
        if is_watched():
            again = functools.partial(_plain, plan=ctx.plan, time=ctx.time)
            return (*traceable_gradients(again, (matrices,), (True,), grad), None, None)
        return Chain.resume(ctx.plan, ctx.time, kept).pull_back(grad), None, None


class Chain:
    """The chain of a plan on a batch of matrices `(k, n, n)`, and the values that its backward pass needs.

    Args:
        plan: for the norm of `time M`.
        matrices: `M`.
        time: a factor on them.
    """

    def __init__(self, plan: PolynomialPlan, matrices: Tensor, time: float) -> None:
        basis = matrices.new_empty(plan.scheme.products + 1, *matrices.shape)
        basis[0] = _eye(matrices.shape[-1], matrices.dtype, matrices.device)
        torch.mul(matrices, time / 2**plan.squarings, out=basis[1])
        self._begin(plan, time, basis)

    def _begin(self, plan: PolynomialPlan, time: float, basis: Tensor) -> None:
        # The identity, the matrices and the products but the last; the sides of products that are combinations; what
        # was squared.
        self.plan, self.time, self.basis = plan, time, basis
        self.links = _links(plan.scheme, basis.dtype, basis.device)
        self.combined: list[Tensor] = []
        self.roots: list[Tensor] = []

    @classmethod
    def resume(cls, plan: PolynomialPlan, time: float, kept: Sequence[Tensor]) -> "Chain":
        """Return a chain from what `kept` gave, ready to be pulled back."""
        chain = cls.__new__(cls)
        chain._begin(plan, time, kept[0])
        at = len(kept) - plan.squarings
        chain.combined, chain.roots = list(kept[1:at]), list(kept[at:])
        return chain

    def kept(self) -> list[Tensor]:
        """Return what the backward pass needs, after `value`."""
        return [self.basis, *self.combined, *self.roots]

    def value(self) -> Tensor:
        """Compute the exponentials."""
        flat, shape, members = self.basis.flatten(1), self.basis.shape[1:], self.basis.unbind(0)
        made: list[Tensor] = []
        for number, link in enumerate(self.links, 2):
            if link.rows is not None:
                made = list(torch.mm(link.rows, flat[:number]).view(len(link.rows), *shape).unbind(0))
                self.combined += made[: link.combinations]
            left = members[link.left] if link.left is not None else made.pop(0)
            right = members[link.right] if link.right is not None else made.pop(0)
            if number < len(members):
                torch.bmm(left, right, out=members[number])
            else:
                made = [torch.baddbmm(made[0], left, right)]
        (value,) = made
        for _ in range(self.plan.squarings):
            self.roots.append(value)
            value = torch.bmm(value, value)
        return value

    def pull_back(self, grad: Tensor) -> Tensor:
        """Return the gradient by the matrices from that of the exponentials."""
        for root in reversed(self.roots):
            grad = torch.bmm(grad, root.mH).baddbmm_(root.mH, grad)
        members, made = self.basis.unbind(0), list(self.combined)
        grads: Tensor | None = None
        for number in range(len(self.links) - 1, -1, -1):
            link = self.links[number]
            right = members[link.right] if link.right is not None else made.pop()
            left = members[link.left] if link.left is not None else made.pop()
            share = grad if grads is None else grads[number + 1]
            grads = self._pass_on(link, share, left, right, grads)
        found = grad if grads is None else grads[0]
        factor = self.time / 2**self.plan.squarings
        return found if factor == 1 else found * factor

    @staticmethod
    def _pass_on(link: "_Link", grad: Tensor, left: Tensor, right: Tensor, grads: Tensor | None) -> Tensor:
        """Add what the gradient of a product, the last one first, gives the members of the basis but the identity."""
        combined = [torch.bmm(grad, right.mH)] if link.left is None else []
        combined += [torch.bmm(left.mH, grad)] if link.right is None else []
        if grads is None:
            stacked = torch.stack([*combined, grad]).flatten(1)
            grads = torch.mm(link.shares, stacked).view(len(link.shares), *grad.shape)
        elif combined:
            stacked = combined[0][None] if len(combined) == 1 else torch.stack(combined)
            grads[: len(link.shares)].flatten(1).addmm_(link.shares, stacked.flatten(1))
        if link.left is not None:
            grads[link.left - 1].baddbmm_(grad, right.mH)
        if link.right is not None:
            grads[link.right - 1].baddbmm_(left.mH, grad)
        return grads


@dataclass(frozen=True, eq=False)
class _Link:
    """One product of a chain, ready for a format and a device.

    Attributes:
        left: which member of the basis its left side is, or None if it is a combination.
        right: the same for the right side.
        rows: coefficients of those sides that are combinations, and of what is added to the last product.
        shares: the same transposed, without the identity.
    """

    left: int | None
    right: int | None
    rows: Tensor | None
    shares: Tensor

    @property
    def combinations(self) -> int:
        """How many sides are combinations."""
        return (self.left is None) + (self.right is None)


@functools.lru_cache(maxsize=256)
def _links(scheme: Scheme, dtype: torch.dtype, device: torch.device) -> tuple[_Link, ...]:
    links = []
    for number, sides in enumerate(scheme.sides, 1):
        left, right = (_place(row) for row in sides)
        rows = [row for row in sides if _place(row) is None]
        rows += [scheme.rest] if number == scheme.products else []
        with torch.inference_mode(mode=False):
            made = torch.tensor(rows, dtype=dtype).reshape(len(rows), number + 1).to(device)
        links.append(_Link(left, right, made if rows else None, made[:, 1:].T))
    return tuple(links)


def _place(row: Row) -> int | None:
    """Return which member of the basis a combination is, or None."""
    return row.index(1.0) if row.count(0.0) == len(row) - 1 and 1.0 in row else None


@functools.lru_cache(maxsize=256)
def _eye(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(mode=False):
        return torch.eye(size, dtype=dtype, device=device)
