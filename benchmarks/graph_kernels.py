"""Diffusion on graphs against PyTorch Geometric and SciPy: ratios of processor times, at equal error.

    python -m benchmarks.graph_kernels --part cora --part large

`cora` is a random graph of the size of Cora (2,708 nodes, 5,278 edges) with 16 and 1,433 features, `large` one of 1e5
nodes and 5e5 edges. Rivals: the matrix that PyTorch Geometric's `GDC` forms by an eigenbasis (its making, and then a
dense product in each call); its `APPNP` for personalised PageRank, and the power series of the heat kernel by its
propagation, each with the fewest terms whose error is at most ours, over edges and by sparse products, the two forms in
which PyTorch Geometric takes a graph; SciPy's `expm_multiply` in double precision. Errors
are relative to the norm of the features, against `expm_multiply` and, for PageRank, the same iteration in double
precision. Our layers know their degree before they see a feature; the rivals' are searched for here, outside the clock.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import expm_multiply
from torch import Tensor

import likelify as lk
from benchmarks.exponential_graphs import random_graph
from benchmarks.report import Entry, run_parts
from benchmarks.timing import ratio
from likelify.linalg.graph import normalized_adjacency

TIME, RESTART = 5.0, 0.15
CORA = 2708, 10_556
TOL = 1e-5
# Features on which the terms of rivals are searched for.
SEARCHED = 16
# Whether a rival makes sparse products, in words.
FORMS = {False: "over edges", True: "by sparse products"}


def laplacian(graph: lk.GraphBatch) -> csr_array:
    """Return `I - A` in double precision."""
    adjacency, nodes = normalized_adjacency(graph, torch.float64), len(graph.owner)
    parts = adjacency.values(), adjacency.col_indices(), adjacency.crow_indices()
    return csr_array(eye_array(nodes) - csr_array(tuple(part.numpy() for part in parts), shape=(nodes, nodes)))


def relative(value: Tensor, exact: Tensor) -> float:
    """Return the largest error of a feature relative to its norm before."""
    return float((value.double() - exact).norm(dim=0).max())


def unit_features(nodes: int, features: int) -> Tensor:
    """Return random features of norm one."""
    return torch.nn.functional.normalize(torch.randn(nodes, features, dtype=torch.float64), dim=0)


def sparse(edge_index: Tensor, weight: Tensor, nodes: int) -> Tensor:
    """Return the adjacency in the form of which PyTorch Geometric makes sparse products."""
    return torch.sparse_coo_tensor(edge_index.flip(0), weight, (nodes, nodes), check_invariants=True).to_sparse_csr()


class PowerSeries(torch.nn.Module):
    """The heat kernel by its power series, with PyTorch Geometric's normalization and propagation, kept as in APPNP.

    Args:
        terms: of the series.
        edge_index: of the graph.
        nodes: of it.
        products: propagate by sparse products, not over edges.
    """

    def __init__(self, terms: int, edge_index: Tensor, nodes: int, *, products: bool = False) -> None:
        from torch_geometric.nn.conv import SimpleConv
        from torch_geometric.nn.conv.gcn_conv import gcn_norm

        super().__init__()
        self.terms, self.propagate = terms, SimpleConv(aggr="sum")
        normed: Any = gcn_norm(edge_index, None, nodes, add_self_loops=False)
        index, weight = normed
        self.graph = (sparse(index, weight, nodes),) if products else (index, weight)

    def forward(self, x: Tensor) -> Tensor:
        """Sum the series."""
        term = value = x * torch.exp(torch.tensor(-TIME))
        for k in range(1, self.terms + 1):
            term = self.propagate(term, *self.graph) * (TIME / k)
            value = value + term
        return value


def fewest(make: Callable[[int], Callable[[Tensor], Tensor]], x: Tensor, exact: Tensor, error: float) -> int:
    """Return the fewest terms with at most that error, or with one that more terms do not lower: that of rounding."""
    low, high, before = 0, 8, math.inf
    while (found := relative(make(high)(x), exact)) > error and found < 0.98 * before:
        low, high, before = high, 2 * high, found
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if relative(make(middle)(x), exact) <= max(error, found) else (middle, high)
    return high


def page_rank(graph: lk.GraphBatch, x: Tensor) -> Tensor:
    """Return personalised PageRank by 400 iterations in double precision."""
    adjacency = normalized_adjacency(graph, torch.float64)
    value = x
    for _ in range(400):
        value = (1 - RESTART) * (adjacency @ value) + RESTART * x
    return value


def heat_entries(name: str, graph: lk.GraphBatch, features: int, repeats: int) -> list[Entry]:
    """Compare the heat kernel with the power series by propagation, and in double precision with SciPy."""
    nodes, edges = len(graph.owner), graph.edge_index
    exact_x = unit_features(nodes, features)
    matrix = laplacian(graph) * -TIME
    exact = torch.from_numpy(expm_multiply(matrix, exact_x.numpy(), traceA=-TIME * nodes))
    x, conv = exact_x.float(), lk.nets.HeatKernel(TIME, tol=TOL)
    error = relative(conv(x, edges), exact)
    terms = fewest(lambda terms: PowerSeries(terms, edges, nodes), x[:, :SEARCHED], exact[:, :SEARCHED], error)
    over = {FORMS[products]: PowerSeries(terms, edges, nodes, products=products) for products in (False, True)}
    found = {form: ratio(lambda: conv(x, edges), lambda s=s: s(x), repeats) for form, s in over.items()}
    double = lk.nets.HeatKernel(TIME, tol=1e-12)
    array = exact_x.numpy()
    by_scipy = ratio(
        lambda: double(exact_x, edges),
        lambda: expm_multiply(matrix, array, traceA=-TIME * nodes),
        max(1, repeats // 2),
    )
    of_double = relative(double(exact_x, edges), exact) / double.error_bound
    return [
        *(
            Entry(f"{name}, heat, against {terms} terms by propagation {form}", value, "x faster", 3, 5, "higher")
            for form, value in found.items()
        ),
        Entry(f"{name}, heat, float64, against expm_multiply", by_scipy, "x faster", 3, 5, "higher"),
        Entry(f"{name}, heat, {conv.degree} products, error", error, "relative"),
        Entry(f"{name}, heat, error over the bound {conv.error_bound:.1e}", error / conv.error_bound, "", 1.0),
        Entry(f"{name}, heat, float64, error over the bound {double.error_bound:.1e}", of_double, "", 1.0),
    ]


def page_rank_entries(name: str, graph: lk.GraphBatch, features: int, repeats: int) -> list[Entry]:
    """Compare personalised PageRank with APPNP."""
    from torch_geometric.nn import APPNP
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    edges, exact_x = graph.edge_index, unit_features(len(graph.owner), features)
    exact = page_rank(graph, exact_x)
    x, conv = exact_x.float(), lk.nets.GraphKernel("pagerank", restart=RESTART, tol=TOL)
    error = relative(conv(x, edges), exact)

    products = sparse(*gcn_norm(edges, None, len(graph.owner), add_self_loops=False), len(graph.owner))

    def rival(steps: int, form: str = FORMS[False]) -> Callable[[Tensor], Tensor]:
        if form == FORMS[True]:
            normed = APPNP(steps, RESTART, normalize=False)
            return lambda x: normed(x, products)
        layer = APPNP(steps, RESTART, cached=True, add_self_loops=False)
        return lambda x: layer(x, edges)

    steps = fewest(rival, x[:, :SEARCHED], exact[:, :SEARCHED], error)
    over = {form: rival(steps, form) for form in FORMS.values()}
    found = {form: ratio(lambda: conv(x, edges), lambda s=s: s(x), repeats) for form, s in over.items()}
    return [
        *(
            Entry(f"{name}, PageRank, against APPNP of {steps} steps {form}", value, "x faster", 3, 5, "higher")
            for form, value in found.items()
        ),
        Entry(f"{name}, PageRank, error over the bound {conv.error_bound:.1e}", error / conv.error_bound, "", 1.0),
    ]


def dense_entries(graph: lk.GraphBatch, repeats: int, *, form: bool) -> list[Entry]:
    """Compare with GDC's matrix: with its making if it is to be formed, and with a product with one of that size."""
    from torch_geometric.transforms import GDC

    nodes, edges, conv = len(graph.owner), graph.edge_index, lk.nets.HeatKernel(TIME)
    entries, matrix = [], torch.rand(nodes, nodes) / nodes
    if form:
        transform, weight = GDC(), torch.ones(edges.shape[1])
        start = time.thread_time()
        normed = transform.transition_matrix(edges, weight, nodes, "sym")
        matrix = transform.diffusion_matrix_exact(*normed, nodes, method="heat", t=TIME)
        taken, x = time.thread_time() - start, unit_features(nodes, 16)
        exact = torch.from_numpy(expm_multiply(laplacian(graph) * -TIME, x.numpy(), traceA=-TIME * nodes))
        start = time.thread_time()
        value = conv(x.float(), edges.clone())
        first = time.thread_time() - start
        entries = [
            Entry("cora, heat, first call, against forming GDC's matrix", taken / first, "x faster", 3, 100, "higher"),
            Entry("cora, heat, error at the default tolerance", relative(value, exact), "relative"),
            Entry("cora, heat, error of GDC's matrix", relative(matrix @ x.float(), exact), "relative"),
        ]
    for features in (16, 1433):
        x = torch.randn(nodes, features)
        found = ratio(lambda x=x: conv(x, edges), lambda x=x: matrix @ x, repeats)
        name = f"cora, heat, {features} features, against a product with GDC's matrix"
        entries.append(Entry(name, found, "x faster", 3, 5, "higher"))
    return entries


def cora(*, quick: bool = False) -> list[Entry]:
    """Measure on a graph of the size of Cora."""
    nodes, entries = CORA[0], []
    pairs = torch.randint(nodes, (2, 2 * CORA[1]))
    pairs = pairs[:, pairs[0] < pairs[1]].unique(dim=1)
    graph = lk.GraphBatch(torch.tensor([nodes]), pairs[:, torch.randperm(pairs.shape[1])[: CORA[1] // 2]]).undirected()
    for features in (16, 1433):
        repeats = (3 if quick else 9) if features == 16 else 3
        name = f"cora, {features} features"
        entries += heat_entries(name, graph, features, repeats)
        entries += page_rank_entries(name, graph, features, repeats)
    return entries + dense_entries(graph, 3 if quick else 9, form=not quick)


def large(*, quick: bool = False) -> list[Entry]:
    """Measure on a graph of 1e5 nodes."""
    graph, repeats = random_graph(10**5, 10), 1 if quick else 5
    entries = heat_entries("1e5 nodes, 16 features", graph, 16, repeats)
    return entries + page_rank_entries("1e5 nodes, 16 features", graph, 16, repeats)


if __name__ == "__main__":
    run_parts("Diffusion on graphs.", {"cora": cora, "large": large})
