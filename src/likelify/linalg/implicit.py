r"""Solutions `u` of `u + f(u, theta) = v`, differentiable to every order, backwards and forwards.

With `J = df/du` at the solution, the implicit function theorem says

    du = (I + J)^-1 (dv - df),        df = f_theta dtheta,

so a derivative of a solution is one more solution, of a linear system; and a derivative of *that* is one more again,

    (I + J) w = h   gives   dw = (I + J)^-1 (dh - dJ w).

Two functions that automatic differentiation knows, the solution and the linear solution, therefore suffice for all
orders: the derivatives of each are made of the second one and of products with derivatives of `f`, which come from
running `f`. Whoever has an equation says in an `Equation` how to evaluate `f` and how to solve the two systems.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from likelify.errors import UnsupportedError
from likelify.tracing import (
    at_places,
    cached_property,
    is_tracing,
    is_watched,
    outside_autocast,
    primals,
    refuse_kept_weights,
    refuse_old_batches,
    with_outer_tangents,
)

Theta = Sequence[Tensor | None]


class Equation(ABC):
    """How to evaluate `f` and how to solve `u + f(u, *theta) = v`; it holds no tensors that have gradients.

    What it depends on comes as `theta`: first the condition, which has rows as `u` has, or None, then tensors that all
    rows share.

    Attributes:
        layer: name of the layer whose inverse this is, for errors.
        values: how many of the values of `evaluate` have gradients: `f` itself, and what `solve` gives beside `u`.
        rows_alone: whether every row is an equation of its own, so that batches may be put together.
    """

    layer: str
    values: int = 1
    rows_alone: bool = True

    @abstractmethod
    def evaluate(self, u: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Return `f(u)`, then what else is wanted at the solution, then what `solve_linear` wants to know.

        By operations that automatic differentiation can follow as often as it likes.
        """

    @abstractmethod
    def solve(self, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Return the solution, and what else is wanted there; no gradients are recorded."""

    @abstractmethod
    def solve_linear(self, at: Linearization, h: Tensor, *, transposed: bool) -> Tensor:
        """Return the solution `w` of `(I + J) w = h`, or of the transposed system; no gradients are recorded."""


class Linearization:
    """The matrix `J` at a point: products with it, for which `f` is evaluated once, if they are asked for.

    Attributes:
        equation: whose `f` it is.
        u: the point.
        theta: the tensors it depends on.
    """

    def __init__(self, equation: Equation, u: Tensor, theta: Theta, recorded: tuple[Tensor, ...] | None = None) -> None:
        self.equation, self.theta = equation, theta
        self.u = u.detach().requires_grad_() if recorded is None else u
        self._recorded = recorded

    @cached_property
    def values(self) -> tuple[Tensor, ...]:
        """What `evaluate` gives at the point, as a function of it."""
        if self._recorded is not None:
            return self._recorded
        with torch.enable_grad():
            return self.equation.evaluate(self.u, *constants(self.theta))

    def pull(self, y: Tensor) -> Tensor:
        """Return `J^T y`."""
        return _grads(self.values[:1], [self.u], [y])[0]

    def push(self, w: Tensor) -> Tensor:
        """Return `J w`."""
        probe, pulled = self._transposed
        return _grads([pulled], [probe], [w])[0]

    @cached_property
    def _transposed(self) -> tuple[Tensor, Tensor]:
        # J^T y is linear in y, and its transpose is J.
        with torch.enable_grad():
            probe = torch.zeros_like(self.u).requires_grad_()
            return probe, _grads(self.values[:1], [self.u], [probe], create_graph=True)[0]


def solve(equation: Equation, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
    """Return the solution `u` of `u + f(u, *theta) = v` and what else its equation gives, differentiable by all.

    Derivatives of every order, by reverse and forward mode, under `torch.func` as well; the solution and `theta` are
    all that is kept for them.

    Raises:
        UnsupportedError: under `torch.compile`, which cannot record an iteration of unknown length, and with gradients
            inside of `torch.nn.utils.parametrize.cached()`.
    """
    _refuse_compilation(equation)
    if is_watched():
        refuse_kept_weights(f"The gradient of the inverse of {equation.layer}")
    return (_TracedSolution if is_tracing() else _Solution).apply(equation, v, *theta)  # pyright: ignore


def _solve_linear(equation: Equation, u: Tensor, h: Tensor, theta: Theta, *, transposed: bool) -> Tensor:
    """Return the solution of `(I + J) w = h` or of the transposed system, differentiable by `u`, `h` and `theta`."""
    _refuse_compilation(equation)
    function = _TracedLinearSolution if is_tracing() else _LinearSolution
    return function.apply(equation, transposed, u, h, *theta)  # pyright: ignore


def _refuse_compilation(equation: Equation) -> None:
    if torch.compiler.is_compiling():
        raise UnsupportedError(
            f"The inverse of {equation.layer} is solved step by step, as many as the values need, which torch.compile "
            "cannot record. Call it outside of the compiled function, or leave out fullgraph=True."
        )


class _Solution(torch.autograd.Function):
    """What `solve` gives.

    With upstream gradients `a` of `u` and `b` of what else there is, `l(u, theta)`, the gradient by `v` is
    `y = (I + J)^-T (a + b dl/du)`, and that by `theta` is `b dl/dtheta - y df/dtheta`.
    """

    @staticmethod
    def forward(ctx: Any, equation: Equation, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        found = equation.solve(v, *theta)
        _keep(ctx, equation, found[0], *theta)
        return found

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *upstream: Any) -> Any:
        refuse_old_batches(f"the inverse of {ctx.equation.layer}", *upstream)
        u, *theta = ctx.saved_tensors
        _, by_v, *needed = ctx.needs_input_grad
        gradients = _traceable_gradients if is_watched() else _gradients
        y, by_theta = gradients(ctx.equation, u, theta, needed, upstream)
        return None, y if by_v else None, *by_theta

    @staticmethod
    @with_outer_tangents
    def jvp(ctx: Any, *tangents: Any) -> Any:
        equation: Equation = ctx.equation
        u, *theta = primals(ctx)
        _, dv, *dtheta = tangents
        push = _pushing(lambda *at: equation.evaluate(*at)[: equation.values], [u, *theta], [u, *dtheta])
        change = push([torch.zeros_like(u), *dtheta])[0]
        du = _solve_linear(equation, u, -change if dv is None else dv - change, theta, transposed=False)
        return du, *push([du, *dtheta])[1:]


class _TracedSolution(_Solution):
    """The same in the form that `torch.func` needs, whose calls cost more."""

    @staticmethod
    def forward(equation: Equation, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:  # pyright: ignore
        return equation.solve(v, *theta)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        equation, _, *theta = inputs
        _keep(ctx, equation, output[0], *theta)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        equation = args[0]
        return _over_copies(lambda v, *theta: solve(equation, v, *theta), equation, 2, info, in_dims[1:], args[1:])


class _LinearSolution(torch.autograd.Function):
    """What `_solve_linear` gives.

    With the upstream gradient `q`, the gradient by `h` is `p = (I + J)^-T q`, and those by `u` and `theta` are those of
    `-<p, J w>` for constant `p` and `w`; transposed, `p = (I + J)^-1 q` and `-<w, J p>`.
    """

    @staticmethod
    def forward(ctx: Any, equation: Equation, transposed: bool, u: Tensor, h: Tensor, *theta: Any) -> Tensor:  # noqa: FBT001
        w = equation.solve_linear(Linearization(equation, u, theta), h, transposed=transposed)
        _keep(ctx, equation, u, w, *theta)
        ctx.transposed = transposed
        return w

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Any) -> Any:
        equation: Equation = ctx.equation
        refuse_old_batches(f"the inverse of {equation.layer}", *grads)
        u, w, *theta = ctx.saved_tensors
        _, _, by_u, by_h, *needed = ctx.needs_input_grad
        p = _solve_linear(equation, u, grads[0], theta, transposed=not ctx.transposed)
        left, right = (w, p) if ctx.transposed else (p, w)
        needed = [by_u, *needed]
        if not any(needed):
            return None, None, None, p
        _, back = _pulling(lambda *at: ((_transposed_product(equation, left, *at) * right).sum(),), [u, *theta], needed)
        by_u, *by_theta = back([w.new_full((), -1.0)])
        return None, None, by_u, p if by_h else None, *by_theta

    @staticmethod
    @with_outer_tangents
    def jvp(ctx: Any, *tangents: Any) -> Any:
        equation: Equation = ctx.equation
        u, w, *theta = primals(ctx)
        _, _, du, dh, *dtheta = tangents
        product = _transposed_product if ctx.transposed else _product
        push = _pushing(lambda *at: (product(equation, w, *at),), [u, *theta], [du, *dtheta])
        change = push([du, *dtheta])[0]
        return _solve_linear(equation, u, -change if dh is None else dh - change, theta, transposed=ctx.transposed)


class _TracedLinearSolution(_LinearSolution):
    """The same in the form that `torch.func` needs."""

    @staticmethod
    def forward(equation: Equation, transposed: bool, u: Tensor, h: Tensor, *theta: Any) -> Tensor:  # noqa: FBT001 # pyright: ignore
        return equation.solve_linear(Linearization(equation, u, theta), h, transposed=transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        equation, ctx.transposed, u, _, *theta = inputs
        _keep(ctx, equation, u, output, *theta)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        equation, transposed = args[:2]

        def apply(u: Tensor, h: Tensor, *theta: Tensor | None) -> Tensor:
            return _solve_linear(equation, u, h, theta, transposed=transposed)

        return _over_copies(apply, equation, 3, info, in_dims[2:], args[2:])


def _keep(ctx: Any, equation: Equation, *tensors: Tensor | None) -> None:
    ctx.equation = equation
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _gradients(
    equation: Equation, u: Tensor, theta: Theta, needed: Sequence[bool], upstream: Sequence[Any]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients by `v` and by `theta`, as constants: `f` is run once, and its graph used for everything."""
    u = u.detach().requires_grad_()
    leaves = as_leaves(theta, needed)
    with torch.enable_grad():
        values = equation.evaluate(u, *leaves)
    (_, *others), (a, *b) = values[: equation.values], upstream
    if others:
        a = a + _grads(others, [u], b)[0]
    y = equation.solve_linear(Linearization(equation, u, leaves, values), a, transposed=True)
    wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need and leaf is not None]
    found = _grads([*others, values[0]], wanted, [*b, -y], last=True) if wanted else ()
    return y, at_places(found, needed)


def as_leaves(theta: Theta, needed: Sequence[bool]) -> list[Tensor | None]:
    """Return tensors from which nothing leads further back, and which need gradients as said.

    Where a tensor is one already, is there once, and nobody listens to its gradient, it is taken itself: then a layer
    that holds it need not be given another.
    """
    leaves: list[Tensor | None] = []
    for tensor, need in zip(theta, needed, strict=True):
        fit = tensor is None or (
            tensor.is_leaf
            and tensor.requires_grad == need
            and not tensor._backward_hooks
            and all(tensor is not leaf for leaf in leaves)
        )
        leaves.append(tensor if fit or tensor is None else detached(tensor).requires_grad_(need))
    return leaves


def constants(theta: Theta) -> list[Tensor | None]:
    """Return tensors from which nothing leads further back, for values that are not differentiated by them."""
    return [t if t is None or (t.is_leaf and not t.is_inference()) else detached(t) for t in theta]


def detached(tensor: Tensor) -> Tensor:
    """Detach a tensor; copy it in inference mode, from whose tensors automatic differentiation cannot start."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _traceable_gradients(
    equation: Equation, u: Tensor, theta: Theta, needed: Sequence[bool], upstream: Sequence[Any]
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradients by `v` and by `theta` by operations that can be differentiated again."""
    values, back = _pulling(lambda *at: equation.evaluate(*at)[: equation.values], [u, *theta], [True, *needed])
    a, *b = upstream
    if b:
        a = a + back([torch.zeros_like(values[0]), *b])[0]
    y = _solve_linear(equation, u, a, theta, transposed=True)
    return y, back([-y, *b])[1:]


def _transposed_product(equation: Equation, y: Tensor, u: Tensor, *theta: Tensor | None) -> Tensor:
    """Return `J^T y` by operations that can be differentiated again."""
    _, back = _pulling(lambda u: equation.evaluate(u, *theta)[:1], [u], [True])
    return back([y])[0]


def _product(equation: Equation, w: Tensor, u: Tensor, *theta: Tensor | None) -> Tensor:
    """Return `J w` by operations that can be differentiated again."""
    return _pushing(lambda u: equation.evaluate(u, *theta)[:1], [u], [w])([w])[0]


Values = tuple[Tensor, ...]
Back = Callable[[Sequence[Tensor]], list[Any]]


def _pulling(function: Callable[..., Values], inputs: Sequence[Any], needed: Sequence[bool]) -> tuple[Values, Back]:
    """Return the values of a function, and what turns gradients by these into those by the inputs that need one.

    Differentiable, unless gradients are turned off.
    """
    chosen = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]

    def of_chosen(*tensors: Tensor) -> Values:
        given = iter(tensors)
        return function(*(next(given) if need else t for t, need in zip(inputs, needed, strict=True)))

    if is_tracing():
        values, vjp = torch.func.vjp(of_chosen, *chosen)  # pyright: ignore[reportAssignmentType]
        return values, lambda grads: at_places(vjp(tuple(grads)), needed)
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, because one input may be made from another, or be there twice: autograd follows those paths itself.
        fresh = [t.view_as(t).requires_grad_() for t in chosen]
        values = of_chosen(*fresh)

    def back(grads: Sequence[Tensor]) -> list[Any]:
        create_graph = recorded and any(t is not None and t.requires_grad for t in (*inputs, *grads))
        return at_places(_grads(values, fresh, grads, create_graph=create_graph), needed)

    return values, back


def _pushing(function: Callable[..., Values], inputs: Sequence[Any], like: Sequence[Any]) -> Back:
    """Return what turns tangents of the inputs into those of the values; where `like` is None, there are none.

    The gradients of a function are linear in those by its values, and the transpose of that is what is wanted; so
    nothing need know forward mode.
    """
    needed, recorded = [tangent is not None for tangent in like], torch.is_grad_enabled()
    with torch.enable_grad():
        values, back = _pulling(function, inputs, needed)

        def transposed(*probes: Tensor) -> Values:
            return tuple(grad for grad in back(probes) if grad is not None)

        _, forth = _pulling(transposed, [torch.zeros_like(value) for value in values], [True] * len(values))

    def push(tangents: Sequence[Any]) -> list[Tensor]:
        found = forth([t for t, need in zip(tangents, needed, strict=True) if need])
        return found if recorded else [tangent.detach() for tangent in found]

    return push


def _grads(
    values: Sequence[Tensor],
    inputs: Sequence[Tensor],
    upstream: Sequence[Tensor],
    *,
    create_graph: bool = False,
    last: bool = False,
) -> Sequence[Any]:
    """Return gradients, zero where there are none; `last` says that the graph is not needed any more."""
    pairs = [(value, grad) for value, grad in zip(values, upstream, strict=True) if value.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in inputs]
    kept, grads = zip(*pairs, strict=True)
    return torch.autograd.grad(
        kept,
        inputs,
        grads,
        retain_graph=not last,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=not last,
    )


def _over_copies(
    apply: Callable[..., Any], equation: Equation, with_rows: int, info: Any, in_dims: Any, args: Any
) -> Any:
    """Apply a function to every copy of a batch: at once, with the rows of all copies, if all share what has no rows.

    Args:
        apply: the function.
        equation: whose it is.
        with_rows: how many arguments come with rows; the last of them may be None.
        info: of `torch.vmap`.
        in_dims: where the copies are, for every argument.
        args: the arguments.
    """
    copies, rest = info.batch_size, in_dims[with_rows:]
    front = [arg if dim is None else arg.movedim(dim, 0) for arg, dim in zip(args, in_dims, strict=True)]
    if equation.rows_alone and all(dim is None for dim in rest):
        pairs = zip(front[:with_rows], in_dims[:with_rows], strict=True)
        spread = [t if t is None or dim is not None else t.expand(copies, *t.shape) for t, dim in pairs]
        found = apply(*(None if t is None else t.flatten(0, 1) for t in spread), *front[with_rows:])
        return _each(lambda value: value.unflatten(0, (copies, -1)), found)
    runs = [apply(*(t if dim is None else t[i] for t, dim in zip(front, in_dims, strict=True))) for i in range(copies)]
    return _each(lambda *values: torch.stack(values), *runs)


def _each(function: Callable[..., Tensor], *runs: Any) -> Any:
    """Apply a function to every value of some runs, and say that the copies are in front."""
    if isinstance(runs[0], Tensor):
        return function(*runs), 0
    values = tuple(function(*parts) for parts in zip(*runs, strict=True))
    return values, (0,) * len(values)
