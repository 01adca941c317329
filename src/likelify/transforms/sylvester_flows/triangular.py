r"""Residual layers with a triangular Jacobian, `v = u + f(u)`: the heart of Sylvester flows (Hoogeboom et al. 2020).

`f` acts on every element by a scalar function whose parameters are strictly autoregressive: they depend on the elements
before it only. The Jacobian is then triangular with the diagonal `1 + f_i'`, and the layer is invertible wherever
`f_i' > -1` (theorem 2 of the paper).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from likelify.errors import ConfigError, ConvergenceError, ShapeError, unknown_word
from likelify.linalg import implicit
from likelify.linalg.fixed_point import iterate
from likelify.linalg.implicit import Equation, Linearization
from likelify.nets.masked import AutoregressiveNet
from likelify.nets.stand_in import run_with, trained
from likelify.structure import ContextLike, as_context, sum_items, with_condition
from likelify.support import check_domain
from likelify.tracing import in_full_precision
from likelify.transforms.core import Transform
from likelify.transforms.inversion import SOLVED
from likelify.transforms.sylvester_flows import wavefront
from likelify.transforms.sylvester_flows.scalar import ScalarResidual, TanhResidual

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
    solution or raises. Derivatives through it, of every order, follow from the implicit function theorem and keep only
    the solution.

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
        ConvergenceError: by `inverse`, if the tolerance cannot be met, or if the rounding of `z` spoils the result.
    """

    fills_space = True

    # The solver sees to the residual.
    inverse_check = SOLVED

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

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Add `f(x)`.

        Raises:
            DomainError: if a scalar function of yours has a slope of -1 or less somewhere.
        """
        value, slope = self._evaluate(x, context)
        if not isinstance(self.scalar, TanhResidual):
            check_domain(~(slope <= -1), self, "the values at which the slope of f is above -1")
        return x + value, sum_items(torch.log1p(slope), context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Solve `x + f(x) = z`.

        Raises:
            ConvergenceError: if the tolerance cannot be met.
        """
        equation = _TriangularEquation(self, context)
        value, log_det = implicit.solve(equation, z, as_context(context).condition, *trained(self).values())
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
        found = in_full_precision(lambda z: self._first_good(z, context), z)
        tol = self._tolerance(found.value.dtype)
        if throw and not found.residual <= tol:
            raise ConvergenceError(
                f"The inverse of TriangularResidual by {found.method!r} ended after {found.evaluations:.4g} "
                f"evaluations with a relative residual of {found.residual:.3g}; {tol:.2g} is allowed. {ADVICE}",
                found,
            )
        return found

    def _first_good(self, z: Tensor, context: ContextLike) -> TriangularSolution:
        """Return what the first method finds that meets the tolerance, else what the last one does."""
        tol = self._tolerance(z.dtype)
        *tries, last = self._methods(z, context)
        for attempt in tries:
            found = self._solve(*attempt, z, context, tol)
            if found.residual <= tol:
                return found
        return self._solve(*last, z, context, tol)

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

    @torch.no_grad()
    def _solve_linear(self, u: Tensor, context: ContextLike, h: Tensor, transposed: bool) -> Tensor:  # noqa: FBT001
        """Solve `(I + J) w = h`, or the transposed system, by the wavefront."""
        net = cast(AutoregressiveNet, self.heads)
        return wavefront.solve_linear(net, self.scalar, u, h, context, self._tolerance(h.dtype), transposed=transposed)

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


class _TriangularEquation(Equation):
    """`u + f(u) = v` with the log-determinant `sum log(1 + f_i')`; `theta` is the condition and the parameters."""

    values = 2

    def __init__(self, layer: TriangularResidual, context: ContextLike) -> None:
        self._layer = layer
        self._context = with_condition(context, None)
        self.layer = type(layer).__name__
        self.rows_alone = self._context.structure is None

    def evaluate(self, u: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Return `f(u)`, the log-determinant, and the diagonal of `J`."""
        value, slope = self._run("_evaluate", u, theta)
        return value, sum_items(torch.log1p(slope), self._context), slope

    def solve(self, v: Tensor, *theta: Tensor | None) -> tuple[Tensor, ...]:
        """Return the solution and the log-determinant."""
        found = self._run("solve", v, theta)
        return found.value, found.log_det

    def solve_linear(self, at: Linearization, h: Tensor, *, transposed: bool) -> Tensor:
        """Solve by the wavefront where there is one, else by diagonal Newton steps."""
        if not h.numel():
            return h
        layer, tol = self._layer, self._layer._tolerance(h.dtype)
        if layer._wavefront_net() is not None and layer.method in ("auto", "wavefront"):
            return self._run("_solve_linear", at.u.detach(), at.theta, h, transposed)
        scale = h.abs().flatten(1).amax(1) if self.rows_alone else h.abs().max().expand(len(h))
        scale = scale.clamp_min(torch.finfo(h.dtype).tiny)
        product = at.pull if transposed else at.push
        diagonal = 1 + at.values[2].detach()

        def update(w: Tensor) -> tuple[Tensor, Tensor]:
            residual = h - w - product(w)
            gap = (residual.abs().flatten(1) / (scale[:, None] + w.abs().flatten(1))).amax(1)
            return w + residual / diagonal, gap

        what = f"The gradient of the inverse of {self.layer}"
        steps = _most_steps(h, self._context)
        return iterate(update, h / diagonal, tol=tol, max_steps=steps, what=what, advice=ADVICE).value

    def _run(self, method: str, u: Tensor, theta: Sequence[Tensor | None], *args: Any) -> Any:
        """Call a method of the layer as if `theta` were its parameters, which need not be those it holds by now."""
        condition, *tensors = theta
        layer, given = self._layer, (u, with_condition(self._context, condition), *args)
        own = trained(layer)
        if all(mine is tensor for mine, tensor in zip(own.values(), tensors, strict=True)):
            return getattr(layer, method)(*given)
        names = [f"layer.{name}" for name in own]
        named = cast(dict[str, Tensor], dict(zip(names, tensors, strict=True)))
        return run_with(_Calling(layer, method), named, *given)


class _Calling(nn.Module):
    """A method of a layer as a module, so that other parameters can stand in for the layer's."""

    def __init__(self, layer: TriangularResidual, method: str) -> None:
        super().__init__()
        self.layer = layer
        self.method = method

    def forward(self, *args: Any) -> Any:
        """Call the method."""
        return getattr(self.layer, self.method)(*args)


def _most_steps(x: Tensor, context: ContextLike) -> int:
    """Return as many steps as an item may have elements, and enough more for scalar equations to converge."""
    elements = x[:1].numel() if as_context(context).structure is None else x.numel()
    return elements + SCALAR_STEPS
