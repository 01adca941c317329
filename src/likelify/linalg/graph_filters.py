r"""Functions of the adjacency of a graph applied to features of nodes, `f(A) X`: diffusion, PageRank, bands, your own.

`A` is the normalized adjacency, symmetric with eigenvalues in [-1, 1]. A polynomial stands for `f`, whose degree
follows from the tolerance by a proof (`filter_polynomials`). Complete graphs have two eigenvalues, so two values of `f`
do, and nothing is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import widest, widest_dtype
from likelify.linalg.expm.action import default_tolerance
from likelify.linalg.expm.adjacency import apply_polynomial
from likelify.linalg.expm.chebyshev import MAX_DEGREE, bessel_tail
from likelify.linalg.expm.expansion import ORDERS, PER_ORDER
from likelify.linalg.filter_polynomials import GraphFilter, ellipse_tail
from likelify.linalg.graph import normalized_adjacency
from likelify.structure import GraphBatch
from likelify.tracing import in_forward_mode, in_full_precision, is_tracing

# Below this time the bound of the exponential engine is the better one by far.
SHORT = 1e-3
# Widths of bands whose squares stay in the floating range.
WIDTHS = (1e-100, 1e100)


@dataclass(frozen=True, eq=False)
class HeatFilter(GraphFilter):
    r"""Diffusion, `exp(-t (I - A))`: `f(mu) = exp(-t (1 - mu))`, at most one in size.

    Args:
        time: one number `()` or one for each feature `(features,)`, from zero on; may have a gradient.

    Raises:
        DomainError: (when used) for a time that is negative or not finite.

    Source:
        Kondor and Lafferty 2002.
    """

    time: Tensor
    proved: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.time.ndim > 1:
            raise ShapeError(f"A time is one number, or one for each feature, got shape {tuple(self.time.shape)}.")

    def __str__(self) -> str:
        return f"the heat kernel of time{'s up to' if self.time.numel() > 1 else ''} {self._longest:.3g}"

    @property
    def constant(self) -> bool:
        """Whether nothing is trained; what is changed in place is seen by its stamp."""
        return not (self.time.requires_grad or in_forward_mode())

    @property
    def stamp(self) -> Hashable:
        """What changes with the time."""
        return None if self.time.is_inference() else (self.time.data_ptr(), self.time._version)

    @property
    def _longest(self) -> float:
        times = self.time.detach()
        longest = float(times.max()) if times.numel() else 0.0
        if not (math.isfinite(longest) and bool((times >= 0).all())):
            raise DomainError("The time of a heat kernel must be finite and from zero on; diffusion has no way back.")
        return longest

    def values(self, points: Tensor) -> Tensor:
        """Return `exp(-t (1 - mu))`."""
        return torch.exp((points - 1)[:, None] * widest(self.time).to(points).reshape(1, -1))

    def tail(self, degree: int) -> float:
        r"""Return the smaller one of two bounds of `2 e^-t sum_{k > K} I_k(t)`.

        One is that of the exponential engine (`bessel_tail`), good where `t` is small; the other comes from
        `|f| <= e^(t (cosh s - 1))` on the ellipse of `rho = e^s` with a good `s`: its degree grows with the root of `t`
        only. The longest time counts: the sum is the probability that a random walk in continuous time is more than `K`
        away from its start at time `t`, which grows with `t`.
        """
        time = self._longest
        if time == 0:
            return 0.0
        by_engine = bessel_tail(time, degree, skew=False, exponent=-time)
        if time < SHORT:
            return by_engine
        log_rho = math.asinh((degree + 1) / time)
        return min(by_engine, ellipse_tail(time * 2 * math.sinh(log_rho / 2) ** 2, log_rho, degree))

    def derivative_degree(self, tol: float) -> int:
        r"""Return it: `j` derivatives by `t` are factors `-(1 - mu)`, and cost `2^j tail(K - j)`."""
        least = 0
        for order in range(1, ORDERS + 1):
            least = max(least, order)
            while 2**order * self.error(least - order) > PER_ORDER**order * tol and least < MAX_DEGREE:
                least += 1
        return least


@dataclass(frozen=True, eq=False)
class PageRankFilter(GraphFilter):
    r"""Personalised PageRank, `r (I - (1 - r) A)^-1`: random walks that stop with probability `r` at each step.

    Its Chebyshev coefficients are known: `f = (r / b) / (1/b - mu)` with `b = 1 - r`, so
    `a_k = 2 (r / b) rho^-k / sqrt(1/b^2 - 1)` with `rho = 1/b + sqrt(1/b^2 - 1)`. The power series in
    `A` falls like `b^k` only: at `r = 0.15` it needs 3.6 times as many terms.

    Args:
        restart: `r`, above 0 and up to 1.

    Source:
        Gasteiger et al. 2019, whose walks are iterated a fixed number of times.
    """

    restart: float = 0.15
    proved: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.restart <= 1:
            raise ConfigError(f"restart is a probability above 0, got {self.restart!r}.")

    def __str__(self) -> str:
        return f"PageRank with restart {self.restart:g}"

    @property
    def constant(self) -> bool:
        """There is nothing to train."""
        return True

    def values(self, points: Tensor) -> Tensor:
        """Return `r / (1 - (1 - r) mu)`."""
        return (self.restart / (1 - (1 - self.restart) * points))[:, None]

    def tail(self, degree: int) -> float:
        """Return the sum of the coefficients, which is exact."""
        follow = 1 - self.restart
        if follow == 0:
            return 0.0
        root = math.sqrt(self.restart * (1 + follow)) / follow
        log_rho = math.log(1 / follow + root)
        return ellipse_tail(math.log(self.restart / follow / root), log_rho, degree)


@dataclass(frozen=True, eq=False)
class BandFilter(GraphFilter):
    r"""A band of frequencies: `f(mu) = exp(-((mu - centre) / width)^2 / 2)`.

    Eigenvalues near 1 belong to features that neighbours share, those near -1 to features that alternate. On the
    ellipse of `rho = e^s` it is at most `exp(sinh(s)^2 / (2 width^2))`, and a good `s` is taken for each degree.

    Args:
        centre: of the band, in [-1, 1].
        width: standard deviation, positive.
    """

    centre: float = 1.0
    width: float = 0.25
    proved: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (-1 <= self.centre <= 1 and WIDTHS[0] < self.width < WIDTHS[1]):
            raise ConfigError(
                f"A band has a centre in [-1, 1] and a positive width; got {self.centre!r} and {self.width!r}."
            )

    def __str__(self) -> str:
        return f"the band at {self.centre:g} of width {self.width:g}"

    @property
    def constant(self) -> bool:
        """There is nothing to train."""
        return True

    def values(self, points: Tensor) -> Tensor:
        """Return the band."""
        return torch.exp(-(((points - self.centre) / self.width) ** 2) / 2)[:, None]

    def tail(self, degree: int) -> float:
        """Return the bound by an ellipse."""
        log_rho = math.asinh(2 * (degree + 1) * self.width**2) / 2
        return ellipse_tail((math.sinh(log_rho) / self.width) ** 2 / 2, log_rho, degree)


@dataclass(frozen=True, eq=False)
class AnalyticFilter(GraphFilter):
    r"""A function of your own, and what is known of it: its size on an ellipse, or the tail of its series.

    The coefficients at hand are compared with what the bound allows, so most wrong bounds are found; that all are found
    is not promised.

    Args:
        function: of the eigenvalues, elementwise; a tensor `(points,)` in double precision to `(points,)`, or to
            `(points, features)`. A module with parameters can be trained.
        ellipse: `(rho, bound)`: the function is analytic on the ellipse with foci -1 and 1 and half axes
            `(rho + 1/rho) / 2` and `(rho - 1/rho) / 2`, and at most `bound` in size there.
        tail_bound: bounds the sum of the sizes of the coefficients beyond a degree, of the Chebyshev series or of the
            power series; `lambda k: 0.0 if k >= n else math.inf` for a polynomial of degree `n`.

    Raises:
        ConfigError: unless one of both is given, or for an ellipse that is none.

    Example:
        >>> cube = AnalyticFilter(lambda mu: mu**3, tail_bound=lambda k: 0.0 if k >= 3 else math.inf)
        >>> cube.polynomial(1e-9).coefficients.round(decimals=2).flatten().abs().tolist()
        [0.0, 0.75, 0.0, 0.25]
    """

    function: Callable[[Tensor], Tensor]
    ellipse: tuple[float, float] | None = None
    tail_bound: Callable[[int], float] | None = None

    def __post_init__(self) -> None:
        if (self.ellipse is None) == (self.tail_bound is None):
            raise ConfigError(
                "A function of your own needs one thing that is known of it: ellipse=(rho, bound), its largest size on "
                "a Bernstein ellipse, or tail_bound=, a function of the degree."
            )
        if self.ellipse is not None and not (1 < self.ellipse[0] < math.inf and 0 <= self.ellipse[1] < math.inf):
            raise ConfigError(f"ellipse is (rho, bound) with rho above 1 and a bound from 0, got {self.ellipse!r}.")

    def __str__(self) -> str:
        return f"the function {getattr(self.function, '__name__', type(self.function).__name__)}"

    def values(self, points: Tensor) -> Tensor:
        """Call the function."""
        values = self.function(points)
        if not isinstance(values, Tensor):
            raise UnsupportedError(f"{self} must return a tensor, not a {type(values).__name__}.")
        return values[:, None] if values.ndim == 1 else values

    def tail(self, degree: int) -> float:
        """Return the bound that was given."""
        if self.tail_bound is not None:
            return float(self.tail_bound(degree))
        rho, bound = self.ellipse or (math.inf, 0.0)
        return ellipse_tail(math.log(bound), math.log(rho), degree) if bound else 0.0


FILTERS: dict[str, type[GraphFilter]] = {"heat": HeatFilter, "pagerank": PageRankFilter, "band": BandFilter}


@dataclass(frozen=True, eq=False)
class Filtered:
    """The value of `f(A) X` and the bound of its error.

    Attributes:
        value: as the input.
        degree: of the polynomial that was applied, which is the number of sparse products; 0 on complete graphs.
        error_bound: proved, relative to the norm of each feature over each graph; rounding is not part of it.
    """

    value: Tensor
    degree: int
    error_bound: float


def graph_filter(
    filter: GraphFilter,  # noqa: A002 - the field's word for it; the builtin is not needed here
    graph: GraphBatch,
    x: Tensor,
    *,
    tol: float | None = None,
) -> Filtered:
    r"""Apply a function of the normalized adjacency to features of nodes: `f(A) X`.

    Gradients reach `X` and what the filter is made of, to any order; only `X` and the coefficients are kept for them.
    The gradient by `X` has the error bound of the value. That of order `j` by the time of a `HeatFilter` is found to
    `20^j` times the tolerance (up to the fourth); by parameters of a function of your own it is that of the polynomial.

    Args:
        filter: the function.
        graph: undirected graphs whose nodes are the rows.
        x: `(nodes, features)`, floating.
        tol: error allowed, relative to the norm of each feature over each graph; by default 1e-6 in single and 1e-12 in
            double precision.

    Raises:
        ConvergenceError: if the tolerance is out of reach, or the bound of a function contradicted.
        DomainError: for directed graphs (see `normalized_adjacency`) and functions that are not finite.
        ShapeError: if `x` does not hold features of the nodes.
        UnsupportedError: while `torch.compile` or `torch.func` is at work, where no degree can be chosen.

    Example:
        >>> pair = GraphBatch.complete([2])
        >>> graph_filter(HeatFilter(torch.tensor(50.0)), pair, torch.tensor([[0.0], [2.0]])).value
        tensor([[1.],
                [1.]])
    """
    _check(graph, x, tol)
    # Half precision in the middle would void the bound.
    return in_full_precision(lambda x: _filtered(filter, graph, x, tol), x)


def _filtered(filter_: GraphFilter, graph: GraphBatch, x: Tensor, tol: float | None) -> Filtered:
    if x.dtype not in (torch.float32, torch.float64):
        # Sparse products know no other precision.
        found = _filtered(filter_, graph, x.float(), default_tolerance(x.dtype) if tol is None else tol)
        return Filtered(found.value.to(x.dtype), found.degree, found.error_bound)
    if graph.is_complete:
        return Filtered(_on_complete(filter_, graph, x), 0, 0.0)
    polynomial = filter_.polynomial(default_tolerance(x.dtype) if tol is None else tol, device=x.device)
    coefficients = _for_features(polynomial.coefficients, x).to(x.dtype).contiguous()
    value = apply_polynomial(normalized_adjacency(graph, x.dtype), x, coefficients)
    return Filtered(value, polynomial.degree, polynomial.error_bound)


def _check(graph: GraphBatch, x: Tensor, tol: float | None) -> None:
    if is_tracing():
        raise UnsupportedError(
            "A filter of a graph chooses its degree in each call, which torch.compile and torch.func cannot record. "
            "Call it outside of them."
        )
    if tol is not None and not 0 < tol < math.inf:
        raise ConfigError(f"tol must be positive and finite, got {tol}.")
    if not x.is_floating_point():
        raise DomainError(f"Features of nodes must be floating, got {x.dtype}. Convert them, e.g. x.float().")
    if x.ndim != 2 or len(x) != len(graph.owner):
        raise ShapeError(
            f"The graph has {len(graph.owner)} nodes and the input is of shape {tuple(x.shape)}; it must be "
            "(nodes, features)."
        )


def _for_features(values: Tensor, x: Tensor) -> Tensor:
    """Repeat what is the same for all features; refuse other counts."""
    features = x.shape[1]
    if values.shape[1] not in (1, features):
        raise ShapeError(f"The filter is for {values.shape[1]} features, and the nodes have {features}.")
    return values.expand(-1, features)


def _on_complete(filter_: GraphFilter, graph: GraphBatch, x: Tensor) -> Tensor:
    """Multiply the mean over the nodes of each graph and what is left by the values at their eigenvalues."""
    points, first, rest = graph.derived("eigenvalues of complete graphs", _eigenvalues)
    values = _for_features(filter_.checked_values(points), x).to(x.dtype)
    owner = graph.owner
    means = x.new_zeros(len(graph), x.shape[1]).index_add(0, owner, x)
    means = means / graph.sizes.clamp_min(1)[:, None]
    return torch.addcmul((means * (values[first] - values[rest]))[owner], x, values[rest][owner])


def _eigenvalues(graph: GraphBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct eigenvalues, and for each graph which is that of the mean and which that of the rest."""
    sizes, place = graph.sizes.unique(return_inverse=True)
    rest = torch.where(sizes > 1, -1 / (sizes - 1).clamp_min(1).to(widest_dtype(sizes.device)), 0.0)
    points = torch.cat([rest.new_ones(1), rest])
    # A node alone has no neighbours: its only eigenvalue is zero.
    return points, torch.where(graph.sizes > 1, 0, place + 1), place + 1
