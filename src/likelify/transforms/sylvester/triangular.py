r"""Residual layers with a triangular Jacobian, `v = u + f(u)`: the heart of Sylvester flows (Hoogeboom et al. 2020).

`f` acts on every element by a scalar function whose parameters are strictly autoregressive: they depend on the elements
before it only. The Jacobian is then triangular with the diagonal `1 + f_i'`, and the layer is invertible wherever
`f_i' > -1` (theorem 2 of the paper).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from likelify.errors import ConfigError, ConvergenceError, ShapeError, unknown_word
from likelify.linalg.fixed_point import iterate
from likelify.nets.masked import AutoregressiveNet
from likelify.structure import Context, ContextLike, as_context, sum_items, with_condition
from likelify.tracing import leave_autocast, outside_autocast
from likelify.transforms.core import Transform, check_domain
from likelify.transforms.sylvester import wavefront
from likelify.transforms.sylvester.scalar import ScalarResidual, TanhResidual

InverseMethod = Literal["auto", "wavefront", "newton", "fixed-point"]
# Positions in a batch up to which a CPU tries Newton's method first, and for how many steps.
FEW_POSITIONS = 300
FEW_STEPS = 8
# On accelerators small steps cost as much as large ones, so Newton's method gets a long try before the wavefront.
NEWTON_STEPS = 40
# Steps beyond one for each element: the diagonal alone halves the error of a step in the worst case.
SCALAR_STEPS = 60
ADVICE = (
    "The map may be too ill-conditioned for this dtype: allow a larger tol, or use float64 (layer.double(), or "
    "layer.solve(z, dtype=torch.float64))."
)


@dataclass(frozen=True, eq=False)
class TriangularSolution:
    """The solution of `u + f(u) = v`, and how it was found.

    Attributes:
        value: `u`.
        log_det: `sum log(1 + f_i'(u))`, one value per item: the contribution of `forward` there.
        residual: the largest `|u + f(u) - v| / (1 + |v|)` of all elements, measured at the end where the method did not
            measure it on the way.
        method: `"wavefront"`, `"newton"` or `"fixed-point"`.
        evaluations: evaluations of the network (wavefront: of its pointwise part, averaged over the blocks).
    """

    value: Tensor
    log_det: Tensor
    residual: float
    method: str
    evaluations: float


class TriangularResidual(Transform):
    r"""The residual layer `v = u + f(u)` with a triangular Jacobian, because `f` is autoregressive.

    `f_i(u) = scalar(u_i; heads_i(u))`, where `heads_i` gives the parameters of a scalar function from earlier elements.

    `log |det| = sum_i log(1 + f_i'(u_i))`, exact. The inverse is exact to a tolerance that is checked: it returns a
    solution or raises. Gradients through it follow from the implicit function theorem and keep only the solution.

    Methods of the inverse:

    - `"wavefront"`, for an `AutoregressiveNet`: sets of positions one after the other, blocks of channels inside them,
      diagonal Newton steps inside a block. One to three evaluations of the network, whatever the weights.
    - `"newton"`: `u <- u - (u + f(u) - v) / (1 + f')` on the whole event. Ends in at most as many steps as there are
      elements (in exact arithmetic, with exact scalar roots); fast for fresh weights and few rows.
    - `"fixed-point"`: `u <- v - f(u)`, the iteration of the paper (section 4.1): a baseline. Training drives the
      diagonal to its bound, and then it needs dozens of evaluations or overflows; that is an error here.
    - `"auto"`: the wavefront where there is one. On accelerators and for very few rows, where its many small steps cost
      more, Newton's method as long as it converges quickly.

    Args:
        heads: called as `heads(u, context)`; gives `(rows, scalar.size * channels, *positions)`, the first parameter
            of every channel, then the second, and so on, each a function of earlier elements only.
        scalar: the scalar functions; `TanhResidual()` by default.
        method: of the inverse.
        tol: allowed residual `|u + f(u) - v| / (1 + |v|)` at every element; by default 1e-5 in float32 and 1e-12 in
            float64.
        max_steps: most evaluations for `"newton"` and `"fixed-point"`; by default as many as there are elements in an
            event, and 60.

    Raises:
        ConvergenceError: by `inverse`, if the tolerance cannot be met.
    """

    def __init__(
        self,
        heads: nn.Module,
        scalar: ScalarResidual | None = None,
        *,
        method: InverseMethod = "auto",
        tol: float | None = None,
        max_steps: int | None = None,
    ) -> None:
        super().__init__()
        if method not in get_args(InverseMethod):
            raise ConfigError(unknown_word("method of TriangularResidual", method, get_args(InverseMethod)))
        if tol is not None and tol <= 0:
            raise ConfigError(f"tol must be positive, got {tol}.")
        self.heads = heads
        self.scalar = TanhResidual() if scalar is None else scalar
        self.method: InverseMethod = method
        self.tol, self.max_steps = tol, max_steps
        if method == "wavefront" and self._wavefront_net() is None:
            raise ConfigError(f"The wavefront needs an AutoregressiveNet as heads, not {type(heads).__name__}.")
        if isinstance(heads, AutoregressiveNet) and heads.heads != self.scalar.size:
            raise ConfigError(
                f"{self.scalar} needs {self.scalar.size} parameters for each element, and the network has "
                f"{heads.heads} heads."
            )

    @leave_autocast
    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Add `f(x)`.

        Raises:
            DomainError: if a scalar function of yours has a slope of -1 or less somewhere.
        """
        value, slope = self._evaluate(x, context)
        if not isinstance(self.scalar, TanhResidual):
            check_domain(slope > -1, self, "the values at which the slope of f is above -1")
        return x + value, sum_items(torch.log1p(slope), context)

    @leave_autocast
    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Solve `x + f(x) = z`.

        Raises:
            ConvergenceError: if the tolerance cannot be met.
        """
        condition = as_context(context).condition
        value, log_det = cast(
            tuple[Tensor, Tensor], _TriangularInverse.apply(self, z, context, condition, *self.parameters())
        )
        return value, -log_det

    @torch.no_grad()
    def solve(
        self, z: Tensor, context: ContextLike = None, *, dtype: torch.dtype | None = None, throw: bool = True
    ) -> TriangularSolution:
        """Solve `x + f(x) = z` without gradients, and say how.

        Args:
            z: `(rows, channels, *positions)`.
            context: as for `inverse`.
            dtype: to solve in, `torch.float64` for ill-conditioned maps; by default that of `z`.
            throw: False to get the last iterate instead of an error; look at its `residual`.

        Raises:
            ConvergenceError: if the tolerance cannot be met.
        """
        if dtype is not None and dtype != z.dtype:
            twin = copy.deepcopy(self).to(dtype)
            given = as_context(context)
            condition = None if given.condition is None else given.condition.to(dtype)
            return twin.solve(z.to(dtype), with_condition(context, condition), throw=throw)
        tol = self._tolerance(z.dtype)
        *tries, last = self._methods(z, context)
        for attempt in tries:
            found = self._solve(*attempt, z, context, tol)
            if found.residual <= tol:
                return found
        found = self._solve(*last, z, context, tol)
        if throw and found.residual > tol:
            raise ConvergenceError(
                f"The inverse of TriangularResidual by {found.method!r} ended after {found.evaluations:.4g} "
                f"evaluations with a relative residual of {found.residual:.3g}; {tol:.2g} is allowed. {ADVICE}",
                found,
            )
        return found

    def _tolerance(self, dtype: torch.dtype) -> float:
        if self.tol is not None:
            return self.tol
        return 1e-12 if dtype == torch.float64 else max(1e-5, 64 * torch.finfo(dtype).eps)

    def _methods(self, z: Tensor, context: ContextLike) -> list[tuple[InverseMethod, int]]:
        """Return the methods to try in turn, with their limits of steps."""
        most = _most_steps(z, context) if self.max_steps is None else self.max_steps
        if self._wavefront_net() is None and self.method == "auto" or not z.numel():
            return [("newton", most)]
        if self.method != "auto":
            return [(self.method, most)]
        if z.device.type != "cpu":
            return [("newton", NEWTON_STEPS), ("wavefront", most)]
        few = z[:, 0].numel() <= FEW_POSITIONS
        return [("newton", FEW_STEPS), ("wavefront", most)] if few else [("wavefront", most)]

    def _solve(
        self, method: InverseMethod, max_steps: int, z: Tensor, context: ContextLike, tol: float
    ) -> TriangularSolution:
        net = self._wavefront_net()
        if method == "wavefront" and net is not None:
            wave = wavefront.solve(net, self.scalar, z, context, tol)
            log_det = sum_items(torch.log1p(wave.slope), context)
            return TriangularSolution(wave.value, log_det, wave.residual, method, wave.evaluations)
        slopes = torch.empty(0)

        def update(u: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal slopes
            raw = self._checked(self.heads(u, context), u)
            value, slopes = self.scalar.evaluate(u, raw)
            residual = u + value - z
            gap = (residual.abs() / (1 + z.abs())).flatten(1).amax(1)
            if method == "fixed-point":
                return u - residual, gap
            return self.scalar.step(u, raw, z, residual, slopes), gap

        found = iterate(update, z.clone(), tol=tol, max_steps=max_steps, what="", advice="", throw=False)
        residual = float(found.gap.nan_to_num(math.inf).max()) if len(z) else 0.0
        log_det = sum_items(torch.log1p(slopes), context)
        return TriangularSolution(found.value, log_det, residual, method, found.steps)

    def _wavefront_net(self) -> AutoregressiveNet | None:
        """Return the heads if the wavefront, which works on their weights, computes what calling them does."""
        heads = self.heads
        if not isinstance(heads, AutoregressiveNet) or type(heads).forward is not AutoregressiveNet.forward:
            return None
        return None if heads._forward_hooks or heads._forward_pre_hooks else heads

    def _evaluate(self, u: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        return self.scalar.evaluate(u, self._checked(self.heads(u, context), u))

    def _checked(self, raw: Tensor, u: Tensor) -> Tensor:
        expected = (u.shape[0], self.scalar.size * u.shape[1], *u.shape[2:])
        if tuple(raw.shape) != expected:
            raise ShapeError(
                f"The heads returned {tuple(raw.shape)}; {self.scalar} needs {expected} ({self.scalar.size} parameters "
                "for each element)."
            )
        return raw.unflatten(1, (self.scalar.size, u.shape[1]))

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"scalar={self.scalar}, method={self.method!r}, tol={self.tol}"


class _TriangularInverse(torch.autograd.Function):
    r"""The solution `u` of `u + f(u; theta) = v` and `l = sum log(1 + f')` there.

    With upstream gradients `a` of `u` and `b` of `l`: `y = (I + J)^-T (a + b dl/du)`, `dL/dv = y`, and
    `dL/dtheta = b dl/dtheta - y df/dtheta` (implicit function theorem). Only `u` is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: TriangularResidual, z: Tensor, context: ContextLike, condition: Tensor | None, *theta: Tensor
    ) -> Any:
        found = layer.solve(z, context)
        ctx.layer = layer
        ctx.context = with_condition(context, None)
        ctx.has_condition = condition is not None
        ctx.save_for_backward(found.value, *([] if condition is None else [condition]), *theta)
        return found.value, found.log_det

    @staticmethod
    @once_differentiable
    @outside_autocast
    def backward(ctx: Any, a: Tensor, b: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        layer: TriangularResidual = ctx.layer
        u, *rest = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:] if ctx.has_condition else ctx.needs_input_grad[4:]
        leaves = [t.detach().requires_grad_(need) for t, need in zip(rest, needed, strict=True)]
        context = with_condition(ctx.context, leaves[0] if ctx.has_condition else None)
        names = [f"layer.{name}" for name, _ in layer.named_parameters()]
        theta = dict(zip(names, leaves[ctx.has_condition :], strict=True))
        # The parameters of the forward pass, which need not be those that the layer holds by now.
        with torch.enable_grad():
            y, grads = functional_call(
                _InverseGradients(layer), theta, (u.detach().requires_grad_(), a, b, context, leaves)
            )
        return None, y, None, *([] if ctx.has_condition else [None]), *grads


class _InverseGradients(nn.Module):
    """The backward pass of `_TriangularInverse` as a module, so that other parameters can stand in for the layer's."""

    def __init__(self, layer: TriangularResidual) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, u: Tensor, a: Tensor, b: Tensor, context: Context, leaves: list[Tensor]
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the gradients by `v` and by the leaves."""
        value, slope = self.layer._evaluate(u, context)
        log_det = sum_items(torch.log1p(slope), context)
        (from_log_det,) = torch.autograd.grad(log_det, u, b, retain_graph=True, allow_unused=True)
        y = _solve_transposed(self.layer, u, a if from_log_det is None else a + from_log_det, context, value, slope)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad((log_det, value), wanted, (b, -y), allow_unused=True) if wanted else ())
        return y, [next(found) if leaf.requires_grad else None for leaf in leaves]


def _solve_transposed(
    layer: TriangularResidual, u: Tensor, g: Tensor, context: Context, value: Tensor, slope: Tensor
) -> Tensor:
    """Solve `(I + J)^T y = g`."""
    tol = layer._tolerance(u.dtype)
    net = layer._wavefront_net()
    if net is not None and layer.method in ("auto", "wavefront") and g.numel():
        with torch.no_grad():
            return wavefront.solve_transposed(net, layer.scalar, u.detach(), g, context, tol)
    scale = g.abs().flatten(1).amax(1) if context.structure is None else g.abs().max().expand(len(g))
    scale = scale.clamp_min(torch.finfo(g.dtype).tiny)
    diagonal = 1 + slope.detach()

    def update(y: Tensor) -> tuple[Tensor, Tensor]:
        (back,) = torch.autograd.grad(value, u, y, retain_graph=True, allow_unused=True)
        residual = g - y if back is None else g - y - back
        gap = (residual.abs().flatten(1) / (scale[:, None] + y.abs().flatten(1))).amax(1)
        return y + residual / diagonal, gap

    return iterate(
        update,
        g / diagonal,
        tol=tol,
        max_steps=_most_steps(g, context),
        what="The gradient of the inverse of TriangularResidual",
        advice=ADVICE,
    ).value


def _most_steps(x: Tensor, context: ContextLike) -> int:
    """Return as many steps as an item may have elements, and enough more for scalar equations to converge."""
    elements = x[:1].numel() if as_context(context).structure is None else x.numel()
    return elements + SCALAR_STEPS
