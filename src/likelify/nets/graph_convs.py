r"""Graph convolutions in the manner of PyTorch Geometric, `conv(x, edge_index, edge_weight)`, with proved error bounds.

They are for networks on graphs, with or without a flow, and need no other package. What they apply is a function of the
normalized adjacency `A` (`linalg.normalized_adjacency`, without added self-loops) by a polynomial whose degree follows
from a tolerance; `conv.degree` and `conv.error_bound` say which, and so does `print(conv)`. Nothing is remembered from
call to call but the adjacency: that of an `edge_index` is normalized when the tensor first comes, and kept while it is
there and unchanged.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from likelify.errors import ConfigError, ShapeError, UnsupportedError, unknown_word
from likelify.linalg.bounds import widest
from likelify.linalg.expm.action import default_tolerance, exp_action
from likelify.linalg.expm.expansion import ORDERS
from likelify.linalg.expm.graphs import adjacency_coefficients
from likelify.linalg.filter_polynomials import FilterPolynomial, GraphFilter
from likelify.linalg.graph import GraphMap
from likelify.linalg.graph_filters import FILTERS, AnalyticFilter, HeatFilter, graph_filter
from likelify.shapes import check_size
from likelify.structure import GraphBatch
from likelify.tracing import in_full_precision


@dataclass(frozen=True, eq=False)
class _Known:
    """The graph of an `edge_index`, and of what else it was made."""

    stamp: tuple[Any, ...]
    weight: Callable[[], Tensor | None]
    graph: GraphBatch


# By the `edge_index` itself; an entry goes with it, since no graph in here holds that very object.
_GRAPHS: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_LOCK = threading.Lock()


def as_graph(nodes: int, edges: Any, edge_weight: Tensor | None = None) -> GraphBatch:
    r"""Return edges in any of the forms that graph convolutions take as a `GraphBatch`, kept for the next call.

    Args:
        nodes: how many there are.
        edges: an `edge_index` `(2, E)`; a `GraphBatch`; or what has an `edge_index` and perhaps an `edge_weight`, such
            as `torch_geometric.data.Data`.
        edge_weight: one weight per edge, `(E,)`.

    Returns:
        The graphs, all nodes as one graph where `edges` is no `GraphBatch`. It is the same object for the same tensors
        as long as they are not changed in place (by PyTorch: it counts changes, but not those made through numpy or
        `.data`); so the adjacency is normalized once. Tensors of inference mode count no changes and are not kept.

    Raises:
        ShapeError: if the graphs have another number of nodes, or tensors have the wrong shape.
        UnsupportedError: for edges in another form.
    """
    if isinstance(edges, GraphBatch):
        if edge_weight is not None:
            raise UnsupportedError("A GraphBatch has its own edge_weight; none can be given beside it.")
        if len(edges.owner) != nodes:
            raise ShapeError(f"The GraphBatch has {len(edges.owner)} nodes, and the input has {nodes} rows.")
        return edges
    if not isinstance(edges, Tensor) and isinstance(getattr(edges, "edge_index", None), Tensor):
        edge_weight = getattr(edges, "edge_weight", None) if edge_weight is None else edge_weight
        edges = edges.edge_index
    if not isinstance(edges, Tensor) or edges.layout != torch.strided:
        found = type(edges).__name__ if not isinstance(edges, Tensor) else f"tensor of layout {edges.layout}"
        raise UnsupportedError(
            f"Edges come as an edge_index (2, E), a likelify.GraphBatch or a torch_geometric Data, not as a {found}. "
            "Of a sparse adjacency give adjacency.indices() and adjacency.values()."
        )
    return _known_graph(nodes, edges, edge_weight)


def _known_graph(nodes: int, edge_index: Tensor, edge_weight: Tensor | None) -> GraphBatch:
    if edge_weight is not None and edge_weight.requires_grad:
        raise UnsupportedError(
            "edge_weight requires a gradient, which the normalized adjacency does not give: it is a constant, computed "
            "once. Detach the weights."
        )
    tensors = [edge_index] if edge_weight is None else [edge_index, edge_weight]
    if any(tensor.is_inference() for tensor in tensors):
        return _one_graph(nodes, edge_index, edge_weight)
    stamp = (nodes, *((t._version, t.data_ptr(), t.shape) for t in tensors))
    with _LOCK:
        known: _Known | None = _GRAPHS.get(edge_index)
        if known is not None and known.stamp == stamp and known.weight() is edge_weight:
            return known.graph
    graph = _one_graph(nodes, edge_index, edge_weight)
    with _LOCK:
        _GRAPHS[edge_index] = _Known(stamp, _nothing if edge_weight is None else ref(edge_weight), graph)
    return graph


def _nothing() -> None:
    """Stand in for a reference to weights where there are none."""


def _one_graph(nodes: int, edge_index: Tensor, edge_weight: Tensor | None) -> GraphBatch:
    sizes = torch.tensor([nodes], device=edge_index.device)
    # Other objects on the same memory: a kept graph must not keep its key.
    return GraphBatch(sizes, edge_index.detach(), None if edge_weight is None else edge_weight.detach())


class GraphKernel(nn.Module):
    r"""Apply a function of the normalized adjacency to the features of nodes: `f(A) X`.

    Args:
        kernel: a name, `"heat"`, `"pagerank"` or `"band"`, with its settings; a `linalg.GraphFilter`; or a function of
            the eigenvalues with `ellipse=` or `tail_bound=` (see `linalg.AnalyticFilter`), which may be a module with
            parameters to train.
        tol: error allowed, relative to the norm of each feature over each graph; by default 1e-6 in single and 1e-12 in
            double precision.
        **settings: of the named kernel, such as `restart=0.1` or `centre=0.0, width=0.2`; or of the function.

    Raises:
        ConfigError: for an unknown name, and settings that the kernel does not have or take.

    Example:
        >>> smooth = GraphKernel("pagerank", restart=0.2)
        >>> smooth
        GraphKernel(PageRank with restart 0.2, degree=20, error_bound=...)
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> smooth(torch.eye(3), path).shape
        torch.Size([3, 3])
    """

    def __init__(
        self, kernel: str | GraphFilter | Callable[[Tensor], Tensor], *, tol: float | None = None, **settings: Any
    ) -> None:
        super().__init__()
        if tol is not None and not 0 < tol < math.inf:
            raise ConfigError(f"tol must be positive and finite, got {tol}.")
        self.tol = tol
        self._filter = _filter_of(kernel, settings)
        if isinstance(kernel, nn.Module):
            self.function = kernel
        # Of a filter that was made with parameters.
        self._trained = [name for name, value in vars(self._filter).items() if isinstance(value, nn.Parameter)]
        for name in self._trained:
            self.register_parameter(f"filter_{name}", vars(self._filter)[name])

    @property
    def filter(self) -> GraphFilter:
        """The function, as it is now."""
        if not self._trained:
            return self._filter
        changed = {name: getattr(self, f"filter_{name}") for name in self._trained}
        return replace(self._filter, **changed)  # pyright: ignore[reportArgumentType]

    def polynomial(self, dtype: torch.dtype | None = None) -> FilterPolynomial:
        """Return the polynomial that stands for the function now.

        Args:
            dtype: of the features, whose default tolerance counts if there is none; by default that of the parameters,
                or the default dtype.
        """
        first = next(self.parameters(), None)
        dtype = dtype or (torch.get_default_dtype() if first is None else first.dtype)
        tol = default_tolerance(dtype) if self.tol is None else self.tol
        return self.filter.polynomial(tol, device="cpu" if first is None else first.device)

    @property
    def degree(self) -> int:
        """How many sparse products a call costs now; none on `GraphBatch.complete`."""
        return self.polynomial().degree

    @property
    def error_bound(self) -> float:
        """Proved bound of the error now, relative to the norm of each feature over each graph."""
        return self.polynomial().error_bound

    def forward(self, x: Tensor, edges: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Apply the function.

        Args:
            x: `(nodes, features)`.
            edges: an `edge_index`, a `GraphBatch` or a PyTorch Geometric `Data` (see `as_graph`), undirected.
            edge_weight: one weight per edge, `(E,)`, from zero on.

        Raises:
            DomainError: if some edge lacks its opposite of the same weight, or is there twice.
            ShapeError, UnsupportedError: for inputs that do not belong together.
        """
        return graph_filter(self.filter, as_graph(len(x), edges, edge_weight), x, tol=self.tol).value

    def extra_repr(self) -> str:
        """Show the function, and which polynomial stands for it now."""
        with torch.no_grad():
            found = self.polynomial()
        return f"{self.filter}, degree={found.degree}, error_bound={found.error_bound:.2g}"


def _filter_of(kernel: str | GraphFilter | Callable[[Tensor], Tensor], settings: dict[str, Any]) -> GraphFilter:
    if isinstance(kernel, GraphFilter):
        if settings:
            raise ConfigError(f"{kernel} has its settings already; leave out {', '.join(settings)}.")
        return kernel
    if isinstance(kernel, str) and kernel not in FILTERS:
        raise ConfigError(unknown_word("kernel", kernel, FILTERS))
    if not callable(kernel) and not isinstance(kernel, str):
        raise ConfigError(f"A kernel is a name, a GraphFilter or a function, not a {type(kernel).__name__}.")
    time = settings.get("time", 1.0)
    if kernel == "heat" and not isinstance(time, nn.Parameter):
        settings = settings | {"time": torch.as_tensor(time, dtype=torch.float64)}
    elif (
        isinstance(kernel, str)
        and kernel != "heat"
        and (trained := [name for name, value in settings.items() if isinstance(value, Tensor)])
    ):
        raise ConfigError(
            f"{' and '.join(trained)} must be numbers: of the named kernels only the time of 'heat' is trained. A "
            "function of yours can be a module with parameters."
        )
    try:
        return FILTERS[kernel](**settings) if isinstance(kernel, str) else AnalyticFilter(kernel, **settings)
    except TypeError as error:
        name = f"kernel '{kernel}'" if isinstance(kernel, str) else "function"
        raise ConfigError(f"The {name} does not take these settings ({', '.join(settings)}): {error}.") from None


class HeatKernel(GraphKernel):
    r"""Diffuse features along the edges of a graph for some time: `exp(-t (I - A)) X`.

    A time of zero changes nothing; after a long time each connected graph holds multiples of the root of the degrees.
    The degree of the polynomial grows like `t` while that is small, and like its root when it is large.

    Args:
        time: `t`, or one for each feature, from zero on.
        features: how many, if each is to have a time of its own that starts from the same one.
        trained: whether the logarithms of the times are parameters; they must be positive then.
        tol: as for `GraphKernel`.

    Raises:
        ConfigError: for times that are negative or not finite, or zero where they are trained.

    Source:
        Kondor and Lafferty 2002; with a trained time, Xu et al. 2019 and Zhao et al. 2021. The bound is ours.

    Example:
        >>> heat = HeatKernel(2.0)
        >>> heat
        HeatKernel(the heat kernel of time 2, degree=8, error_bound=...)
        >>> pair = torch.tensor([[0, 1], [1, 0]])
        >>> heat(torch.tensor([[1.0], [3.0]]), pair)
        tensor([[1.9817],
                [2.0183]])
    """

    def __init__(
        self,
        time: float | Sequence[float] = 1.0,
        *,
        features: int | None = None,
        trained: bool = False,
        tol: float | None = None,
    ) -> None:
        times = torch.as_tensor(time, dtype=torch.float64)
        if features is not None:
            times = times.expand(check_size(features, "features")) if times.ndim == 0 else times
        if times.ndim > 1 or (features is not None and len(times) != features):
            raise ConfigError(f"time is one number, or one for each feature; got {time!r} for features={features}.")
        if not bool((torch.isfinite(times) & (times >= 0)).all()) or (trained and not bool((times > 0).all())):
            least = "positive where it is trained" if trained else "from zero on"
            raise ConfigError(f"The time of a HeatKernel must be finite and {least}, got {time!r}.")
        super().__init__(HeatFilter(times.clone()), tol=tol)
        self.log_time = nn.Parameter(times.log().to(torch.get_default_dtype())) if trained else None

    @property
    def time(self) -> Tensor:
        """The time now, `()` or `(features,)`."""
        return self._times if self.log_time is None else self.log_time.exp()

    @property
    def _times(self) -> Tensor:
        return self._filter.time  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def filter(self) -> GraphFilter:
        """The function, as it is now."""
        return self._filter if self.log_time is None else HeatFilter(self.time)


class UnitaryConv(nn.Module):
    r"""Mix features and neighbours without changing any norm: `exp(L) X`, `L(X) = X theta_0 + A X theta_1`.

    Both matrices are skew, so `L` is (`A` is symmetric), and `exp(L)` is orthogonal: `||y||` and `||x||` of each graph
    differ by at most `error_bound ||x||`. Stacked layers neither smooth features away nor let gradients vanish. The
    inverse is `exp(-L)`; the log-determinant is zero. In a flow, use `lk.Exponential`.

    Args:
        features: of the nodes, at least two.
        own: whether `theta_0` is trained too, which turns the features of each node; it starts at zero.
        tol: error allowed, relative to the norm of each graph; by default 1e-6 in single and 1e-12 in double precision.

    Raises:
        ConfigError: for fewer than two features: of one, no skew matrix but zero is there.

    Source:
        Kiani et al. 2024, the real case of their Lie form, with a fixed number of terms; the bound is ours.

    Example:
        >>> conv = UnitaryConv(4)
        >>> x, pair = torch.randn(2, 4), torch.tensor([[0, 1], [1, 0]])
        >>> bool((conv(x, pair).norm() - x.norm()).abs() < 1e-5)
        True
    """

    def __init__(self, features: int, *, own: bool = True, tol: float | None = None) -> None:
        super().__init__()
        if check_size(features, "features") < 2:
            raise ConfigError("A UnitaryConv needs at least two features: the only skew matrix of one is zero.")
        if tol is not None and not 0 < tol < math.inf:
            raise ConfigError(f"tol must be positive and finite, got {tol}.")
        self.features, self.tol = features, tol
        # Skew parts of norm about one.
        self.weight = nn.Parameter(torch.randn(features, features) / math.sqrt(8 * features))
        self.own_weight = nn.Parameter(torch.zeros(features, features)) if own else None

    def thetas(self) -> tuple[Tensor, Tensor]:
        """Return the two skew matrices, `(features, features)` each."""
        theta1 = self.weight - self.weight.mT
        return torch.zeros_like(theta1) if self.own_weight is None else self.own_weight - self.own_weight.mT, theta1

    def forward(self, x: Tensor, edges: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Apply the exponential; arguments and errors as of `GraphKernel`, with that many features."""
        return self._applied(x, edges, edge_weight, 1.0)

    def inverse(self, y: Tensor, edges: Any, edge_weight: Tensor | None = None) -> Tensor:
        """Apply `exp(-L)`, which undoes it up to twice the error bound."""
        return self._applied(y, edges, edge_weight, -1.0)

    def _applied(self, x: Tensor, edges: Any, edge_weight: Tensor | None, time: float) -> Tensor:
        map_ = GraphMap(*self.thetas(), as_graph(len(x), edges, edge_weight))
        return in_full_precision(lambda x: exp_action(map_, x, time=time, tol=self.tol).value, x)

    @property
    def degree(self) -> int:
        """How many sparse products a call costs now; none on `GraphBatch.complete`."""
        return self._bound()[0]

    @property
    def error_bound(self) -> float:
        """Proved bound of the error now, relative to the norm of each graph."""
        return self._bound()[1]

    def _bound(self) -> tuple[int, float]:
        theta0, theta1 = self.thetas()
        tol = default_tolerance(theta1.dtype) if self.tol is None else self.tol
        orders = ORDERS if theta1.requires_grad else 0
        coefficients, error = adjacency_coefficients(widest(theta0), widest(theta1), tol, orders)
        return len(coefficients) - 1, error

    def extra_repr(self) -> str:
        """Show the features, and which polynomial stands for the exponential now."""
        degree, error = self._bound()
        return f"{self.features}, degree={degree}, error_bound={error:.2g}"
