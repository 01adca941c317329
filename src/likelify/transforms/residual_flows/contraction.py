r"""What a contraction `g` needs as a layer: `log det(I + J_g)` and solutions of `x + g(x) = z`, with lean gradients.

Both are automatic-differentiation functions that save their input or solution (and, for an estimate, its random vector
and one sum of products) and run the network again for the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from likelify.distributions.core import repeat_context
from likelify.errors import ConvergenceError, ShapeError, UnsupportedError
from likelify.linalg import implicit
from likelify.linalg.fixed_point import Solution, iterate
from likelify.linalg.implicit import Equation, Linearization, Theta
from likelify.linalg.log_det import SLACK, Exact, LogDet, LogDetValue, inner_products
from likelify.nets.lipschitz import LipschitzNet
from likelify.structure import Context, GraphBatch
from likelify.tracing import at_places, in_forward_mode, is_tracing, outside_autocast

LAYER = "LipschitzResidual"
# How often what rounding changes in the network once is allowed for: it is not the same everywhere.
ROUNDINGS = 4.0
ADVICE = (
    "Either the Lipschitz constant that was declared for the network is wrong, or the tolerance is finer than the "
    "floating format allows: correct the constant, raise tol, or work in double precision."
)
REMEDY = "Use log_det='exact', or with_log_det(flow, 'exact') for the flow with the same parameters."
NO_SECOND_DERIVATIVES = f"The estimated log-determinant of {LAYER} has no second derivatives. {REMEDY}"
NOT_TRACED = (
    f"The estimated log-determinant of {LAYER} draws a number of terms that depends on values, which forward mode, "
    f"torch.vmap and torch.compile cannot record. {REMEDY}"
)
NO_GRAPHS = (
    f"The exact log-determinant of {LAYER} repeats the graphs of its context, whose sizes torch.compile does not see. "
    "Call it outside of the compiled function, or leave out fullgraph=True."
)


@dataclass(eq=False)
class Contraction:
    """Settings of one call: network, Lipschitz bound, graphs, log-determinant method, tolerance.

    Attributes:
        net: the network.
        names: of the tensors it runs with.
        lipschitz_bound: of the network.
        structure: the graphs of the context.
        method: for the log-determinant.
        tol: error of solutions, relative to what is inverted. By default 1e-5, in double precision 1e-12; where
            rounding does not allow that, what it does, divided by `(1 - L)^2`.
        error: bound of the truncation error of the log-determinant that was measured last, `(rows,)`.
    """

    net: LipschitzNet
    names: tuple[str, ...]
    lipschitz_bound: Tensor | float
    structure: GraphBatch | None
    method: LogDet
    tol: float | None = None
    error: Tensor | None = None

    @property
    def lipschitz(self) -> float:
        """The bound as a float (a host sync on accelerators)."""
        bound = self.lipschitz_bound
        return float(bound.detach()) if isinstance(bound, Tensor) else bound

    def run(self, tensors: Sequence[Tensor], x: Tensor, condition: Tensor | None, copies: int = 1) -> Tensor:
        """Run the network on rows that were repeated `copies` times, with a condition that was not."""
        context = Context(condition, self.structure)
        if copies > 1:
            _, context = repeat_context((copies,), context)
        y = self.net.run(dict(zip(self.names, tensors, strict=True)), x, context)
        if y.shape != x.shape:
            raise ShapeError(f"The network of a residual layer turned {tuple(x.shape)} into {tuple(y.shape)}.")
        return y

    def groups(self, x: Tensor) -> Iterator[slice]:
        """Return the rows that the method treats at once; those of graphs stay together."""
        size = self.method.group(math.prod(x.shape[1:])) if self.structure is None else None
        size = max(1, len(x)) if size is None else size
        for start in range(0, max(1, len(x)), size):
            yield slice(start, start + size)

    def tolerance(self, dtype: torch.dtype) -> float:
        """Return the error of solutions that is allowed, relative to the size of what is inverted."""
        if self.tol is not None:
            return self.tol
        usual = 1e-12 if dtype == torch.float64 else 1e-5
        return max(usual, 4 * torch.finfo(dtype).eps / (1 - self.lipschitz))


class NetInputs(NamedTuple):
    """What the network is run with: rows, the condition and the tensors."""

    x: Tensor
    condition: Tensor | None
    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, flat: Sequence[Any]) -> NetInputs:
        """Rebuild the inputs from the list that `flat` gives."""
        return cls(flat[0], flat[1], tuple(flat[2:]))

    @property
    def flat(self) -> list[Tensor | None]:
        """The tensors in one list, as automatic-differentiation functions take them."""
        return [self.x, self.condition, *self.tensors]

    def rows(self, rows: slice) -> NetInputs:
        """Return some of the rows."""
        return NetInputs(self.x[rows], None if self.condition is None else self.condition[rows], self.tensors)

    def leaves(self, needed: Sequence[bool]) -> NetInputs:
        """Return detached copies, by which one can differentiate: by `x` always, by the others where needed."""
        _, by_condition, *by_tensors = needed
        x, condition = implicit.detached(self.x), self.condition
        condition = None if condition is None else implicit.detached(condition).requires_grad_(by_condition)
        tensors = implicit.as_leaves(self.tensors, by_tensors)
        return NetInputs.of([x.requires_grad_(), condition, *tensors])

    def constants(self) -> NetInputs:
        """Return tensors from which nothing leads further back, to differentiate by `x` only."""
        condition, *tensors = implicit.constants([self.condition, *self.tensors])
        return NetInputs.of([implicit.detached(self.x).requires_grad_(), condition, *tensors])

    def chosen(self, needed: Sequence[bool]) -> list[Tensor]:
        """Return the tensors whose gradients are needed."""
        return [tensor for tensor, need in zip(self.flat, needed, strict=True) if need and tensor is not None]


class NetJacobian:
    """The Jacobian of the network at some rows, each repeated `copies` times; see `log_det.Products`."""

    def __init__(self, call: Contraction, inputs: NetInputs) -> None:
        x = inputs.x
        self.rows, self.size, self._call = len(x), math.prod(x.shape[1:]), call
        self.copies = call.method.copies(self.rows, self.size)
        self.x = x.repeat(self.copies, *(1,) * (x.ndim - 1)) if self.copies > 1 else x.view_as(x)

        def run(x: Tensor) -> Tensor:
            return call.run(inputs.tensors, x, inputs.condition, self.copies)

        self._pull = None
        if is_tracing() or in_forward_mode():
            self.y, self._pull = torch.func.vjp(run, self.x)  # pyright: ignore[reportAssignmentType]
        else:
            self.y = run(self.x)

    @property
    def lipschitz(self) -> float:
        """Bound of the norms of the Jacobians."""
        return self._call.lipschitz

    def vjp(self, v: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return `J^T v`."""
        if self._pull is not None:
            return self._pull(v)[0]
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad(self.y, self.x, v, create_graph=create_graph, **options)[0]


class _ContractionLogDet(torch.autograd.Function):
    """The pair `g(x)`, `log det(I + J_g(x))` for each row."""

    @staticmethod
    def forward(ctx: Any, call: Contraction, *flat: Any) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.call = call
        with torch.inference_mode(mode=False), torch.enable_grad():
            y, measured = _measure(call, NetInputs.of(flat).constants())
        call.error = measured.error
        ctx.save_for_backward(*flat, *measured.kept)
        return y, measured.value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, gy: Tensor | None, gl: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = 2 + len(ctx.call.names)
        inputs, kept = NetInputs.of(ctx.saved_tensors[:count]), ctx.saved_tensors[count:]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_second_order(ctx.call, inputs, needed, gy, gl)
        with torch.enable_grad():
            return None, *_gradients(ctx.call, inputs, kept, needed, gy, gl)


def log_det(call: Contraction, x: Tensor, condition: Tensor | None, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return `g(x)` and `log det(I + J_g(x))`, `(rows,)` in nats.

    Raises:
        UnsupportedError: for an estimate, in forward mode, under `torch.vmap` and under `torch.compile`; there and for
            second derivatives also for events that are too large for a matrix; for graphs, under `torch.compile`.
    """
    if not (is_tracing() or in_forward_mode()):
        return _ContractionLogDet.apply(call, x, condition, *tensors)  # pyright: ignore[reportReturnType]
    if torch.compiler.is_compiling() and call.structure is not None:
        raise UnsupportedError(NO_GRAPHS)
    if not call.method.noisy:
        jacobian = NetJacobian(call, NetInputs(x, condition, tuple(tensors)))
        return jacobian.y[: jacobian.rows], _formed(jacobian, call.method)
    if torch.compiler.is_compiling() or in_forward_mode():
        raise UnsupportedError(NOT_TRACED)
    bound = call.lipschitz_bound
    bound = bound.detach() if isinstance(bound, Tensor) else None
    return _TracedEstimate.apply(call, bound, x, condition, *tensors)[:2]  # pyright: ignore


def _formed(jacobian: NetJacobian, method: LogDet) -> Tensor:
    """Return the log-determinant of the formed matrix, which can be traced and differentiated to every order."""
    exact = method if isinstance(method, Exact) else Exact()
    if jacobian.size > exact.limit:
        raise UnsupportedError(
            f"{LAYER} forms its Jacobian for second derivatives, in forward mode, under torch.func and torch.compile. "
            f"That is for events of up to {exact.limit} elements, and these have {jacobian.size}. Call it without, or "
            f"raise the limit if the memory allows: log_det=Exact(limit={jacobian.size})."
        )
    return exact.differentiable(jacobian)


class _TracedEstimate(torch.autograd.Function):
    """An estimated log-determinant in the form that `torch.func.grad` needs; it gives what it keeps as well."""

    @staticmethod
    def forward(call: Contraction, bound: Tensor | None, *flat: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        call = call if bound is None else replace(call, lipschitz_bound=bound)
        with torch.enable_grad():
            y, measured = _measure(call, NetInputs.of(flat).constants())
        return y, measured.value, *measured.kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.call, _, *flat = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(*flat, *output[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        count = 2 + len(ctx.call.names)
        flat, kept, needed = ctx.saved_tensors[:count], ctx.saved_tensors[count:], ctx.needs_input_grad[2:]

        def products(*chosen: Tensor) -> tuple[Tensor, Tensor]:
            given = iter(chosen)
            inputs = NetInputs.of([next(given) if need else t for t, need in zip(flat, needed, strict=True)])
            jacobian = NetJacobian(ctx.call, inputs)
            ((w, v),) = ctx.call.method.pairs(jacobian, kept)
            return jacobian.y[: jacobian.rows], inner_products(jacobian, jacobian.vjp(w), v)

        pull = torch.func.vjp(products, *(t for t, need in zip(flat, needed, strict=True) if need))[1]
        return None, None, *at_places(_FirstOrder.apply(*pull(grads[:2])), needed)  # pyright: ignore

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise UnsupportedError(NOT_TRACED)


class _FirstOrder(torch.autograd.Function):
    """Gradients that cannot be differentiated again, as they are."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*grads: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(grad.clone() for grad in grads)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise UnsupportedError(NO_SECOND_DERIVATIVES)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise UnsupportedError(NO_SECOND_DERIVATIVES)


def _measure(call: Contraction, inputs: NetInputs) -> tuple[Tensor, LogDetValue]:
    values, parts = [], []
    for rows in call.groups(inputs.x):
        jacobian = NetJacobian(call, inputs.rows(rows))
        parts.append(call.method.measure(jacobian))
        values.append(jacobian.y.detach()[: jacobian.rows])
    if len(parts) == 1:
        return values[0], parts[0]
    return torch.cat(values), LogDetValue(torch.cat([part.value for part in parts]))


def _gradients(
    call: Contraction, inputs: NetInputs, kept: tuple[Tensor, ...], needed: Sequence[bool], gy: Any, gl: Any
) -> list[Tensor | None]:
    """Run the network again and add up the gradients of `<gy, g(x)> + <gl, log det>`."""
    leaves = inputs.leaves(needed)
    wanted = leaves.chosen(needed)
    sums: list[Tensor | None] = [None] * len(wanted)
    for rows in call.groups(leaves.x):
        jacobian = NetJacobian(call, leaves.rows(rows))
        pieces = 1 if gl is None else call.method.pieces(jacobian)
        for total in _totals(call, jacobian, kept, gy if gy is None else gy[rows], gl if gl is None else gl[rows]):
            pieces -= 1
            # The last one may free the graph on its way.
            found = torch.autograd.grad(total, wanted, retain_graph=pieces > 0, allow_unused=True)
            sums = [b if a is None else a if b is None else a + b for a, b in zip(sums, found, strict=True)]
    return at_places(sums, needed)


def _totals(call: Contraction, jacobian: NetJacobian, kept: tuple[Tensor, ...], gy: Any, gl: Any) -> Iterator[Tensor]:
    """Return scalars whose gradients add up to the one that is asked for."""
    first = None if gy is None else (jacobian.y[: jacobian.rows] * gy).sum()
    if gl is None:
        if first is not None:
            yield first
        return
    for w, v in call.method.pairs(jacobian, kept):
        # <J^T w, v> differentiates to <w, dJ v>; each row counts with its own upstream gradient.
        products = (jacobian.vjp(w, create_graph=True) * v).reshape(jacobian.copies, jacobian.rows, jacobian.size)
        total = (products.sum((0, 2)) * gl).sum()
        yield total if first is None else total + first
        first = None


def _second_order(
    call: Contraction, inputs: NetInputs, needed: Sequence[bool], gy: Any, gl: Any
) -> list[Tensor | None]:
    """Differentiate the exact log-determinant by operations that can be differentiated again."""
    if gl is not None and call.method.noisy:
        raise UnsupportedError(NO_SECOND_DERIVATIVES)
    # Views, because one tensor may be made from another, or be there twice: autograd follows those paths itself.
    fresh = NetInputs.of([None if t is None else t.view_as(t) for t in inputs.flat])
    if not fresh.x.requires_grad:
        fresh.x.requires_grad_()
    jacobian = NetJacobian(call, fresh)
    outputs = [] if gy is None else [(jacobian.y[: jacobian.rows], gy)]
    if gl is not None:
        outputs.append((_formed(jacobian, call.method), gl))
    values, upstream = zip(*outputs, strict=True)
    found = torch.autograd.grad(values, fresh.chosen(needed), upstream, create_graph=True, allow_unused=True)
    return at_places(found, needed)


class _ContractionEquation(Equation):
    """`x + g(x) = z`; `theta` is the condition, the Lipschitz bound if it is a tensor, and the network's tensors."""

    layer = LAYER

    def __init__(self, call: Contraction) -> None:
        self.call = call
        self.rows_alone = call.structure is None

    def evaluate(self, u: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Return `g(x)`."""
        condition, _, *tensors = theta
        return (self.call.run(tensors, u, condition),)  # pyright: ignore[reportArgumentType]

    def solve(self, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Iterate to the solution."""
        return (self.iterate(v, theta).value,)

    def iterate(self, v: Tensor, theta: Theta, *, throw: bool = True) -> Solution:
        """Iterate to the solution; its gap is a bound of the error."""
        what, scale = f"The inverse of {LAYER}", _norms(v).clamp_min(1)
        return _solve_fixed_point(lambda x: self.evaluate(x, *theta)[0], v, scale, self._bounded(theta), what, throw)

    def solve_linear(self, at: Linearization, h: Tensor, *, transposed: bool) -> Tensor:
        """Iterate to the solution, for `J` is a contraction as well."""
        product, what = at.pull if transposed else at.push, f"The gradient of the inverse of {LAYER}"
        return _solve_fixed_point(product, h, _norms(h), self._bounded(at.theta), what).value

    def _bounded(self, theta: Theta) -> Contraction:
        bound = theta[1]
        return self.call if bound is None else replace(self.call, lipschitz_bound=bound)


def _equation(
    call: Contraction, condition: Tensor | None, tensors: Sequence[Tensor]
) -> tuple[_ContractionEquation, list[Tensor | None]]:
    """Return the equation, and what it depends on apart from the right-hand side."""
    bound = call.lipschitz_bound
    if not isinstance(bound, Tensor):
        return _ContractionEquation(call), [condition, None, *tensors]
    return _ContractionEquation(replace(call, lipschitz_bound=math.nan)), [condition, bound.detach(), *tensors]


def solve(call: Contraction, z: Tensor, condition: Tensor | None, tensors: Sequence[Tensor]) -> Tensor:
    """Solve `x + g(x) = z` within the tolerance."""
    equation, theta = _equation(call, condition, tensors)
    return implicit.solve(equation, z, *theta)[0]


@dataclass(frozen=True, eq=False)
class ResidualSolution:
    """The solution of `x + g(x) = z`, and how good it is.

    Attributes:
        value: `x`.
        error: certified bound of the largest `||x - x*|| / max(1, ||z||)` of all rows.
        residual: the largest `||x + g(x) - z|| / max(1, ||z||)`.
        steps: evaluations of the network.
    """

    value: Tensor
    error: float
    residual: float
    steps: int


def measured_solution(
    call: Contraction, z: Tensor, condition: Tensor | None, tensors: Sequence[Tensor], *, throw: bool
) -> ResidualSolution:
    """Solve `x + g(x) = z` without gradients, and say how well."""
    equation, theta = _equation(call, condition, tensors)
    found = equation.iterate(z, theta, throw=throw)
    error = float((found.gap / _norms(z).clamp_min(1)).nan_to_num(math.inf).max()) if len(z) else 0.0
    return ResidualSolution(found.value, error, error * (1 - call.lipschitz), found.steps)


def _solve_fixed_point(
    contract: Callable[[Tensor], Tensor],
    b: Tensor,
    scale: Tensor,
    call: Contraction,
    what: str,
    throw: bool = True,  # noqa: FBT001, FBT002
) -> Solution:
    r"""Solve `v + h(v) = b` by `v <- b - h(v)`, for `h` with the Lipschitz constant `L < 1`.

    A value with the residual `r` is within `||r|| / (1 - L)` of the solution, and the residual shrinks by `L` at every
    step; one that does not contradicts `L`, and nothing would be certified.
    """
    limit, tol = call.lipschitz, call.tolerance(b.dtype) * scale
    rounding = _Rounding(contract, scale)
    value = b - contract(b)
    last = _norms(value - b)
    ratio = float((last / (tol * (1 - limit)).clamp_min(torch.finfo(b.dtype).tiny)).max()) if len(b) else 0.0
    enough = math.log(ratio) / -math.log(limit) if 0 < limit and 1 < ratio < math.inf else 0.0

    def update(value: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal last
        following = b - contract(value)
        residual = _norms(following - value)
        if throw and rounding.is_less_than(residual - SLACK * limit * last, value):
            shrink = float((residual / last).max())
            raise ConvergenceError(
                f"{what}: a step shrinks the residual by {shrink:.4g} only, and the Lipschitz constant {limit:.4g} "
                f"promises more. {ADVICE}"
            )
        last = residual
        return following, residual / (1 - limit)

    steps = math.ceil(enough) + 3
    # Errors of all steps add up where they keep their direction, so the residual ends at their sum. Whoever asks for a
    # tolerance gets that or an error.
    least = None if call.tol is not None else lambda value: rounding.at(value) / (1 - limit) ** 2
    return iterate(update, value, tol=tol, max_steps=steps, what=what, advice=ADVICE, throw=throw, least=least)


class _Rounding:
    """What rounding adds to residuals, measured only where it is asked for.

    Beside the rounding of the solution and the right-hand side there is that of the network, whose hidden values may
    be larger than both: what an input that is moved by its own rounding changes beyond the Lipschitz constant.
    """

    def __init__(self, contract: Callable[[Tensor], Tensor], scale: Tensor) -> None:
        self.contract, self.scale = contract, scale
        self.own = ROUNDINGS * torch.finfo(scale.dtype).eps

    def is_less_than(self, excess: Tensor, value: Tensor) -> bool:
        """Tell whether some excess of a residual, `(rows,)`, is more than rounding explains."""
        return bool((excess > self.own * self.scale).any()) and bool((excess > self.at(value)).any())

    def at(self, value: Tensor) -> Tensor:
        """Return the rounding at a value, `(rows,)`."""
        eps = torch.finfo(value.dtype).eps
        pattern = 1 - 2.0 * (torch.arange(value[:1].numel(), device=value.device) % 2).view(value.shape[1:])
        moved = self.contract(value * (1 + 2 * eps * pattern.to(value.dtype)))
        return self.own * (self.scale + _norms(value)) + ROUNDINGS * _norms(moved - self.contract(value))


def _norms(rows: Tensor) -> Tensor:
    """Return the norm of each row, also where its square would overflow."""
    flat = rows.flatten(1)
    if not flat.shape[1]:
        return flat.sum(1)
    largest = flat.abs().amax(1).clamp_min(torch.finfo(flat.dtype).tiny)
    return largest * torch.linalg.vector_norm(flat / largest[:, None], dim=1)
