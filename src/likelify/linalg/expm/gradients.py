r"""Gradients of exponentials: one batched call of low rank instead of one for each term.

With the vectors `p_j` of an expansion of `exp(M) x` and those `l_k` of `exp(M*) g`,

    <g, d exp(M) x> = sum_jk D_jk <l_k, dM p_j>,     |sum_jk E_jk <l_k, dM p_j>| <= sum_jk |E_jk| ||g|| ||x|| ||dM||,

where `D` is the matrix of the divided differences of the exponential (`Expansion.divided`; for the power series the
Hankel matrix `1 / (j+k+1)!`). Its numerical rank is 3 to 6 where the expansion has 7 to 14 terms. With an orthonormal
basis `e_0, w_1, ..., w_(r-1)` of almost all of its column space, `D = e_0 D_0 + sum_i w_i (w_i^T D) + E` and so

    u_0 = x,  u_i = sum_j w_ij p_j,     v_0 = sum_k D_0k l_k,  v_i = sum_k (w_i^T D)_k l_k,

and the gradient is that of `sum_i <v_i, M u_i>`: one call of `LinearMap.pullback` on r times the rows. `x` is one of
the vectors so that it is kept once, for this and for second derivatives.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likelify.linalg.expm.expansion import Expansion, evaluate
from likelify.linalg.expm.series import PowerSeries
from likelify.linalg.expm.watch import Watch, watch
from likelify.linalg.maps import LinearMap
from likelify.tracing import outside_autocast

# Factors by which vectors shrink are rounded up to multiples of one over it.
DECAYS = 16
# Terms beyond the degree that the bound of the gradient's error still counts; those after them are below rounding.
BEYOND = 12
# Vectors that are combined in one matrix product.
BLOCK = 8


@dataclass(frozen=True)
class Stored:
    """Keep the input and a few combinations of the terms: least work. The default."""


@dataclass(frozen=True)
class Recompute:
    """Keep only the input; the backward pass computes the terms again (half as many operator calls on top)."""


@dataclass(frozen=True)
class Unrolled:
    """Keep every term and let automatic differentiation work through the sum.

    The gradient is exactly that of the truncated sum. What `torch.compile`, `torch.func` and forward-mode
    differentiation need, what a fixed `degree` gets, and what maps get whose tensors likelify does not know.
    """


Gradient = Stored | Recompute | Unrolled


@functools.lru_cache(maxsize=1024)
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
    observed = max((size ** (1 / j) for j, size in enumerate(sizes) if j), default=1.0)
    return min(1.0, max(1, math.ceil(observed * DECAYS)) / DECAYS)


@functools.lru_cache(maxsize=1024)
def _factors(
    expansion: Expansion, basis: Expansion, terms: int, decay: float, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    divided, rows, _ = _decompose(basis, terms, decay)
    units = np.array([expansion.unit(k, basis.radius) for k in range(terms)])
    left = rows[:rank, :terms] / units / decay ** np.arange(terms)
    right = np.vstack([divided[:1], rows[:rank] @ divided])[:, :terms] / units
    return left, right * (expansion.step * expansion.gain)


class Combiner:
    """Linear combinations of vectors that come one by one, by matrix products of a block of them at a time."""

    def __init__(self, coefficients: np.ndarray, like: Tensor) -> None:
        # Columns of zeros in front stand for vectors that no combination contains.
        self._skip = int((coefficients != 0).any(0).argmax()) if coefficients.size else coefficients.shape[1]
        self._coefficients = torch.as_tensor(coefficients[:, self._skip :], dtype=like.dtype).to(like.device)
        self._last = like.ndim == 4 and not like.is_contiguous() and _is_channels_last(like)
        self._shape = like.shape
        self._pending: list[Tensor] = []
        self._used = 0
        self._sums: Tensor | None = None

    def add(self, vector: Tensor) -> None:
        """Take the next vector."""
        if self._skip:
            self._skip -= 1
        elif self._used + len(self._pending) < self._coefficients.shape[1]:
            self._pending.append(self._flat(vector))
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

    def _flat(self, vector: Tensor) -> Tensor:
        return (vector.permute(0, 2, 3, 1) if self._last else vector).reshape(-1)

    def _flush(self) -> None:
        block = torch.stack(self._pending)
        coefficients = self._coefficients[:, self._used : self._used + len(block)]
        self._used += len(block)
        self._pending = []
        self._sums = coefficients @ block if self._sums is None else self._sums.addmm_(coefficients, block)


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


@dataclass(eq=False)
class Job:
    """One step of an exponential: what forward and backward need to know of it.

    Attributes:
        expansion: of the step.
        map_: the centered map.
        degree: highest degree that may be needed, from the a-priori bound.
        tol: allowed error of gradients relative to `||x|| ||g|| sup ||dM||`.
        gradient: `Stored` or `Recompute`.
        watch: the stopping rule of the forward pass, or None where nobody may look.
        used: degree that was used, set by the forward pass.
    """

    expansion: Expansion
    map_: LinearMap
    degree: int
    tol: float
    gradient: Gradient
    watch: Watch | None
    used: int = 0

    @functools.cached_property
    def low_rank(self) -> LowRank:
        """The derivative by low rank, for what the forward pass has seen."""
        sizes = [1.0] if self.watch is None else self.watch.sizes[: self.used + 1]
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
        value, self.used = evaluate(self.expansion, self.map_, x, self.degree, done=self.watch, keep=keep)
        return value

    def combine(self, x: Tensor, vectors: Iterable[Tensor]) -> Tensor:
        """Return the combinations `u_1, ...` of the vectors of the recurrence."""
        combiner = Combiner(self.low_rank.left, x)
        for vector in vectors:
            combiner.add(vector)
        return combiner.result()

    def recombine(self, x: Tensor) -> Tensor:
        """Compute the vectors of the recurrence once more and give their combinations."""
        combiner = Combiner(self.low_rank.left, x)
        evaluate(self.expansion, self.map_, x, self.used, keep=combiner.add)
        return combiner.result()

    def adjoint_chain(self, g: Tensor, *, combine: bool) -> tuple[Tensor, Tensor | None]:
        """Return `exp(M*) g` and the combinations `v_0, v_1, ...`."""
        adjoint = self.map_.adjoint()
        g = adjoint.arrange(g)
        combiner = Combiner(self.low_rank.right, g) if combine else None
        done = None
        if self.watch is not None:
            start = adjoint.item_norms(g)
            done = watch(adjoint, self.expansion, start, self.tol * min(1.0, self.expansion.gain) * start, self.degree)
        keep = None if combiner is None else combiner.add
        value, _ = evaluate(self.expansion, adjoint, g, self.degree, done=done, keep=keep)
        return value, None if combiner is None else combiner.result()

    def pullback(self, x: Tensor, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Add up the gradients of `<v_i, L u_i>`, in as few calls as the map and the memory allow."""
        rows = x.shape[0]
        if self.map_.rows is not None:
            # A map with parameters for each row, or one that couples rows, takes only as many as it is made for.
            starts = range(rows, len(v), rows)
            parts = [(x, v[:rows]), *((u[start - rows : start], v[start : start + rows]) for start in starts)]
        elif x.numel() < sum(tensor.numel() for tensor in self.map_.tensors().values()):
            parts = [(torch.cat([x, u]), v)]
        else:
            parts = [(x, v[:rows]), *([(u, v[rows:])] if len(u) else [])]
        grads = self.map_.pullback(*parts[0])
        for part in parts[1:]:
            more = self.map_.pullback(*part)
            grads = {name: grad + more[name] for name, grad in grads.items()}
        return grads

    def differentiable(self, x: Tensor, names: Sequence[str], tensors: Sequence[Tensor]) -> Tensor:
        """Compute the value by operations that automatic differentiation sees, for second derivatives."""
        map_ = self.map_.with_tensors(self.map_.tensors() | dict(zip(names, tensors, strict=True)))
        # Differentiating a truncated sum costs about two of its terms, and again for the next derivative.
        return evaluate(self.expansion, map_, x, self.degree + 4)[0]


class _Expand(torch.autograd.Function):
    """The value of an expansion, with the gradients of this module."""

    @staticmethod
    def forward(ctx: Any, job: Job, names: Sequence[str], x: Tensor, *tensors: Tensor) -> Tensor:
        kept = []
        if job.watch is not None:
            # What is known of the vectors' norms makes the rank of the gradient smaller.
            job.watch.measures_all = any(ctx.needs_input_grad[3:]) and isinstance(job.expansion, PowerSeries)
        if isinstance(job.gradient, Stored) and any(ctx.needs_input_grad[3:]):
            vectors: list[Tensor] = []
            value = job.forward(x, vectors.append)
            kept = [job.combine(x, vectors)]
        else:
            value = job.forward(x)
        ctx.job, ctx.names = job, names
        ctx.save_for_backward(x, *tensors, *kept)
        return value

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, g: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        job, names = ctx.job, ctx.names
        x, *rest = ctx.saved_tensors
        tensors, kept = rest[: len(names)], rest[len(names) :]
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return (None, None, *_second_order(job, x, names, tensors, g, needed))
        dx, v = job.adjoint_chain(g, combine=any(needed[1:]))
        if v is None:
            return (None, None, dx, *(None for _ in tensors))
        u = kept[0] if kept else job.recombine(x)
        grads = job.pullback(x, u, v)
        wanted = [grads[name] if need else None for name, need in zip(names, needed[1:], strict=True)]
        return (None, None, dx if needed[0] else None, *wanted)


def _second_order(
    job: Job, x: Tensor, names: Sequence[str], tensors: Sequence[Tensor], g: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Differentiate the plain sum, so that the gradients can be differentiated again."""
    with torch.enable_grad():
        # Views, because one tensor may be made from another, or be there twice: autograd follows those paths itself.
        fresh = [tensor.view_as(tensor) for tensor in (x, *tensors)]
        value = job.differentiable(fresh[0], names, fresh[1:])
        inputs = [tensor for tensor, need in zip(fresh, needed, strict=True) if need]
        grads = iter(torch.autograd.grad(value, inputs, g, create_graph=True, allow_unused=True))
    return [next(grads) if need else None for need in needed]


def expand(job: Job, x: Tensor) -> Tensor:
    """Compute one step with gradients by low rank."""
    named = {name: tensor for name, tensor in job.map_.tensors().items() if tensor.is_floating_point()}
    if not torch.is_grad_enabled() or not (x.requires_grad or any(t.requires_grad for t in named.values())):
        return job.forward(x)
    return _Expand.apply(job, list(named), x, *named.values())  # pyright: ignore[reportReturnType]
