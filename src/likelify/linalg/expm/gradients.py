r"""Gradients of exponentials: one step by each strategy, and the derivative of low rank behind the default one.

With the vectors `p_j` of an expansion of `exp(M) x` and those `l_k` of `exp(M*) g`,

    <g, d exp(M) x> = sum_jk D_jk <l_k, dM p_j>,     |sum_jk E_jk <l_k, dM p_j>| <= sum_jk |E_jk| ||g|| ||x|| ||dM||,

where `D` is the matrix of the divided differences of the exponential (`Expansion.divided`; for the power series the
Hankel matrix `1 / (j+k+1)!`). Its numerical rank is 3 to 6 where the expansion has 7 to 14 terms. With an orthonormal
basis `e_0, w_1, ..., w_(r-1)` of almost all of its column space, `D = e_0 D_0 + sum_i w_i (w_i^T D) + E` and so

    u_0 = x,  u_i = sum_j w_ij p_j,     v_0 = sum_k D_0k l_k,  v_i = sum_k (w_i^T D)_k l_k,

and the gradient is that of `sum_i <v_i, M u_i>`: one call of `LinearMap.pullback` on r times the rows. `x` is one of
the vectors so that it is kept once, for this and for second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from likelify.linalg.bounds import safe_exp
from likelify.linalg.expm.constants import constant
from likelify.linalg.expm.expansion import Expansion, StoppingRule, evaluate, stopping_rule
from likelify.linalg.expm.problem import ExpProblem, Gradient, Stored, Unrolled
from likelify.linalg.maps import LinearMap
from likelify.tracing import cached_property, is_watched, outside_autocast, refuse_old_batches, traceable_gradients

# Factors by which vectors shrink are rounded up to multiples of one over it.
DECAYS = 16
# Terms beyond the degree that the bound of the gradient's error still counts; those after them are below rounding.
BEYOND = 12
# Vectors that are combined in one matrix product.
BLOCK = 8


@lru_cache(maxsize=1024)
def _decompose(basis: Expansion, terms: int, decay: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decompose `D` for vectors that shrink by `decay` from one to the next beyond what the radius says.

    Returns:
        `D` with row `j` times `decay^j`; the orthonormal rows `w_1, ...`; and for each rank the row sums of what it
        leaves of `|D|`.
    """
    size = terms + BEYOND
    divided = basis.divided(size) * decay ** np.arange(size)[:, None]
    left, _, _ = np.linalg.svd(divided[1:terms], full_matrices=False)
    rows = np.zeros((left.shape[1], size))
    rows[:, 1:terms] = left.T
    rest = divided.copy()
    rest[0] = 0
    left_over = []
    for rank in range(len(rows) + 1):
        if rank:
            row = rows[rank - 1]
            rest = rest - np.outer(row, row @ divided)
        missing = np.abs(rest)
        # The adjoint chain has no more terms than the other one, so what lies beyond is not represented.
        missing[:, terms:] = np.abs(divided[:, terms:])
        left_over.append(missing.sum(1))
    return divided, rows, np.array(left_over)


@dataclass(frozen=True)
class LowRank:
    """The derivative of an expansion as a few combinations.

    Attributes:
        left: coefficients on the vectors `p_j`, `(rank - 1, terms)`; the first combination is `p_0` itself.
        right: coefficients on the vectors `l_k`, `(rank, terms)`.
        error: bound of the gradient's error, relative to `||x|| ||g|| sup ||dM||` and without the gain.
    """

    left: np.ndarray
    right: np.ndarray
    error: float


def low_rank(expansion: Expansion, terms: int, tol: float, sizes: Sequence[float]) -> LowRank:
    """Choose the rank for a tolerance.

    Args:
        expansion: of the step.
        terms: number of vectors that a chain has at most.
        tol: allowed error, relative to `||x|| ||g|| sup ||dM||`.
        sizes: bounds of `||p_j|| / (|unit_j| ||p_0||)` of the vectors that were computed, at most one; those observed
            are often much smaller than one and allow a smaller rank.
    """
    basis = expansion.rounded()
    decay = _decay(sizes)
    divided, rows, left_over = _decompose(basis, terms, decay)
    size = np.full(left_over.shape[1], sizes[-1])
    size[: len(sizes)] = sizes
    size = size / decay ** np.arange(len(size))
    computed = len(sizes) if len(sizes) > 1 else terms
    errors = left_over[:, :computed] @ size[:computed]
    enough = np.flatnonzero(errors <= tol)
    rank = int(enough[0]) if len(enough) else len(errors) - 1
    dropped = np.abs(divided[computed:]).sum(1) @ size[computed:]
    left, right = _factors(expansion, basis, terms, decay, rank)
    return LowRank(left, right, float(errors[rank] + dropped))


def _decay(sizes: Sequence[float]) -> float:
    """Return a factor, from a grid so that few decompositions are needed, by which the vectors shrink at least."""
    observed = 0.0 if len(sizes) > 1 else 1.0
    for j, size in enumerate(sizes[1:], 1):
        observed = max(observed, size ** (1 / j))
    return min(1.0, max(1, math.ceil(observed * DECAYS)) / DECAYS)


@lru_cache(maxsize=1024)
def _factors(
    expansion: Expansion, basis: Expansion, terms: int, decay: float, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    divided, rows, _ = _decompose(basis, terms, decay)
    units = np.array([expansion.unit(k, basis.radius) for k in range(terms)])
    left = rows[:rank, :terms] / units / decay ** np.arange(terms)
    right = np.vstack([divided[:1], rows[:rank] @ divided])[:, :terms] / units
    # In two factors, since the gain alone may be too small for a number.
    root = safe_exp(expansion.exponent / 2)
    return left, right * root * (root * expansion.step)


class Combiner:
    """Linear combinations of vectors that come one by one, by matrix products of a block of them at a time."""

    def __init__(self, coefficients: np.ndarray, like: Tensor) -> None:
        # Columns of zeros in front stand for vectors that no combination contains.
        self._skip = int((coefficients != 0).any(0).argmax()) if coefficients.size else coefficients.shape[1]
        self._coefficients = constant(coefficients[:, self._skip :], like)
        self._last = (
            like.ndim == 4 and not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last)
        )
        self._shape = like.shape
        self._pending: list[Tensor] = []
        self._used = 0
        self._sums: Tensor | None = None

    def add(self, vector: Tensor) -> None:
        """Take the next vector."""
        if self._skip:
            self._skip -= 1
        elif self._used + len(self._pending) < self._coefficients.shape[1]:
            self._pending.append((vector.permute(0, 2, 3, 1) if self._last else vector).reshape(-1))
            if len(self._pending) == BLOCK:
                self._flush()

    def result(self) -> Tensor:
        """Return the combinations one below the other, `(combinations * rows, *event)`."""
        if self._pending:
            self._flush()
        count = len(self._coefficients)
        if self._sums is None:
            return self._coefficients.new_zeros(count * self._shape[0], *self._shape[1:])
        if self._last:
            rows, channels, height, width = self._shape
            return self._sums.view(count * rows, height, width, channels).permute(0, 3, 1, 2)
        return self._sums.view(count * self._shape[0], *self._shape[1:])

    def _flush(self) -> None:
        block = torch.stack(self._pending)
        coefficients = self._coefficients[:, self._used : self._used + len(block)]
        self._used += len(block)
        self._pending = []
        self._sums = coefficients @ block if self._sums is None else self._sums.addmm_(coefficients, block)


@dataclass(eq=False)
class Step:
    """One step of an exponential whose gradient is of low rank: what forward and backward need to know of it.

    Attributes:
        expansion: of the step.
        map: the centered map.
        degree: highest degree that may be needed, from the a-priori bound.
        tol: allowed error of gradients relative to `||x|| ||g|| sup ||dM||`.
        gradient: `Stored` or `Recompute`.
        rule: the stopping rule of the forward pass, or None where values cannot be read.
        differentiable_degree: gives the degree at which the sum can be differentiated term by term.
        used: degree that was used, set by the forward pass.
    """

    expansion: Expansion
    map: LinearMap
    degree: int
    tol: float
    gradient: Gradient
    rule: StoppingRule | None
    differentiable_degree: Callable[[], int]
    used: int = 0

    @cached_property
    def low_rank(self) -> LowRank:
        """The derivative by low rank, for what the forward pass has seen."""
        sizes = [1.0] if self.rule is None else self.rule.sizes(self.used)
        return low_rank(self.expansion, self.degree + 1, self.tol, sizes)

    @property
    def error(self) -> float:
        r"""Bound of the gradient's error relative to `||x|| ||g|| sup ||dM||`.

        The adjoint chain stops when its certificate `tol` is met, at `K` terms or more (a third of the degree, and no
        less than the radius `b`); what is left out counts at most `1 / ((K + 2) (1 - b / (K + 3)))` of it here.
        """
        least = max(1, self.degree // 3, math.ceil(self.expansion.radius))
        early = self.tol / ((least + 2) * (1 - self.expansion.radius / (least + 3)))
        return self.expansion.gain * self.low_rank.error + early

    def forward(self, x: Tensor, keep: Callable[[Tensor], None] | None = None) -> Tensor:
        """Compute the value and show the vectors of the recurrence to `keep`."""
        value, self.used = evaluate(self.expansion, self.map, x, self.degree, stop=self.rule, keep=keep)
        return value

    def combine(self, x: Tensor, vectors: Iterable[Tensor]) -> Tensor:
        """Return the combinations `u_1, ...` of the vectors of the recurrence."""
        combiner = Combiner(self.low_rank.left, x)
        for vector in vectors:
            combiner.add(vector)
        return combiner.result()

    def recombine(self, x: Tensor) -> Tensor:
        """Compute the vectors of the recurrence once more and return their combinations."""
        combiner = Combiner(self.low_rank.left, x)
        evaluate(self.expansion, self.map, x, self.used, keep=combiner.add)
        return combiner.result()

    def adjoint_chain(self, g: Tensor, *, combine: bool) -> tuple[Tensor, Tensor | None]:
        """Return `exp(M*) g` and the combinations `v_0, v_1, ...`."""
        adjoint = self.map.adjoint()
        g = adjoint.arrange(g)
        combiner = Combiner(self.low_rank.right, g) if combine else None
        rule = None
        if self.rule is not None:
            start = adjoint.item_norms(g)
            allowed = self.tol * min(1.0, self.expansion.gain) * start
            rule = stopping_rule(adjoint, self.expansion, start, allowed, self.degree)
        keep = None if combiner is None else combiner.add
        value, _ = evaluate(self.expansion, adjoint, g, self.degree, stop=rule, keep=keep)
        return value, None if combiner is None else combiner.result()

    def pullback(self, x: Tensor, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Add up the gradients of `<v_i, L u_i>`, in as few calls as the map and the memory allow."""
        rows = x.shape[0]
        if self.map.rows is not None:
            # A map with parameters for each row, or one that couples rows, takes only as many as it is made for.
            starts = range(rows, len(v), rows) if rows else ()
            parts = [(x, v[:rows]), *((u[start - rows : start], v[start : start + rows]) for start in starts)]
        elif x.numel() < sum(tensor.numel() for tensor in self.map.tensors().values()):
            parts = [(torch.cat([x, u]), v)]
        else:
            parts = [(x, v[:rows]), *([(u, v[rows:])] if len(u) else [])]
        grads = self.map.pullback(*parts[0])
        for part in parts[1:]:
            for name, more in self.map.pullback(*part).items():
                grads[name] = grads[name] + more
        return grads

    def differentiable(self, names: Sequence[str], x: Tensor, *tensors: Tensor) -> Tensor:
        """Compute the value by operations that automatic differentiation sees, for second derivatives."""
        map_ = self.map.with_tensors(self.map.tensors() | dict(zip(names, tensors, strict=True)))
        return evaluate(self.expansion, map_, x, self.differentiable_degree())[0]


class _LowRankStep(torch.autograd.Function):
    """The value of a step, with its gradients by low rank."""

    @staticmethod
    def forward(ctx: Any, step: Step, names: Sequence[str], x: Tensor, *tensors: Tensor) -> Tensor:
        kept = []
        of_map = any(ctx.needs_input_grad[3:])
        if step.rule is not None:
            # What is known of the vectors' norms makes the rank of the gradient smaller.
            step.rule.measures_all = of_map and step.expansion.powers
        if isinstance(step.gradient, Stored) and of_map:
            vectors: list[Tensor] = []
            value = step.forward(x, vectors.append)
            kept = [step.combine(x, vectors)]
        else:
            value = step.forward(x)
        ctx.step, ctx.names = step, names
        ctx.save_for_backward(x, *tensors, *kept)
        return value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, g: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        refuse_old_batches("an exponential", g)
        step, names = ctx.step, ctx.names
        x, *rest = ctx.saved_tensors
        tensors, kept = rest[: len(names)], rest[len(names) :]
        needed = ctx.needs_input_grad[2:]
        if is_watched():
            return (None, None, *traceable_gradients(partial(step.differentiable, names), (x, *tensors), needed, g))
        dx, v = step.adjoint_chain(g, combine=any(needed[1:]))
        if v is None:
            return (None, None, dx, *(None for _ in tensors))
        grads = step.pullback(x, kept[0] if kept else step.recombine(x), v)
        wanted = [grads[name] if need else None for name, need in zip(names, needed[1:], strict=True)]
        return (None, None, dx if needed[0] else None, *wanted)


def take_step(
    problem: ExpProblem,
    expansion: Expansion,
    x: Tensor,
    degree: int,
    rule: StoppingRule | None,
    differentiable_degree: Callable[[], int],
) -> tuple[Tensor, Step | None, int]:
    """Compute one step with the gradient strategy of the problem.

    Args:
        problem: what is asked.
        expansion: of the step.
        x: its input.
        degree: highest degree that may be needed.
        rule: says when to stop before it.
        differentiable_degree: gives the degree at which the sum can be differentiated term by term.

    Returns:
        The value, the step if its gradient is of low rank, and the degree that was used.
    """
    if degree == 0:
        # The map, which looks at shapes, is not applied otherwise.
        problem.try_map()
    gradient = problem.strategy if torch.is_grad_enabled() else Unrolled()
    if isinstance(gradient, Unrolled):
        value, used = evaluate(expansion, problem.centered, x, degree, stop=rule)
        return value, None, used
    if problem.degree is not None or not problem.declared:
        return _by_checkpoint(problem.centered, expansion, x, degree, rule)
    step = Step(expansion, problem.centered, degree, problem.tol, gradient, rule, differentiable_degree)
    tensors = {name: tensor for name, tensor in step.map.tensors().items() if tensor.is_floating_point()}
    value: Any = _LowRankStep.apply(step, list(tensors), x, *tensors.values())
    return value, step, step.used


def _by_checkpoint(
    map_: LinearMap, expansion: Expansion, x: Tensor, degree: int, rule: StoppingRule | None
) -> tuple[Tensor, None, int]:
    """Compute one step, and once more in the backward pass: for `Recompute` where tensors or errors are not known."""
    used = degree

    def again(x: Tensor) -> Tensor:
        nonlocal used
        value, used = evaluate(expansion, map_, x, used, stop=rule if used == degree else None)
        return value

    value: Any = checkpoint(again, x, use_reentrant=False, preserve_rng_state=False)
    return value, None, used
