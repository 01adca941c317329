"""Exponentials of graph convolutions against plain series: ratios of times.

The rivals are written here: the truncated power series, differentiated term by term by autograd, with sparse CSR
products or, for small complete graphs, with batched dense ones; and SciPy's `expm_multiply`. Each figure is the ratio
of the medians of processor times of the thread, the runs interleaved in one process (`benchmarks.timing`); our side
goes through `exp_action`, as any user's call does.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Entry
from benchmarks.timing import ratio, training
from likelify.linalg.expm import exp_action
from likelify.linalg.graph import GraphMap, normalized_adjacency
from likelify.structure import GraphBatch

NORM = 0.45


def random_graph(nodes: int, degree: int) -> GraphBatch:
    """Return a random graph with that mean degree."""
    edges = torch.randint(nodes, (2, nodes * degree // 2))
    return GraphBatch(torch.tensor([nodes]), edges[:, edges[0] != edges[1]]).undirected()


def random_matrices(features: int, norm: float = NORM) -> tuple[Tensor, Tensor]:
    """Return two Gaussian matrices of that 2-norm."""
    first, second = (m * (norm / torch.linalg.matrix_norm(m, 2)) for m in torch.randn(2, features, features))
    return first, second


def unrolled_series(adjacency: Tensor, x: Tensor, theta0: Tensor, theta1: Tensor, degree: int) -> Tensor:
    """Sum the power series as it stands; the adjacency is sparse, or dense `(graphs, n, n)` for `x` `(graphs, n, f)`.

    The published algorithm for convolutions (Hoogeboom et al. 2020, algorithm 2) with the graph convolution in it.
    """
    value = term = x
    for k in range(1, degree + 1):
        term = (term @ theta0 + adjacency @ term @ theta1) / k
        value = value + term
    return value


def training_ratio(nodes: int, *, degree: int = 10, features: int = 16, tol: float = 1e-4, repeats: int = 9) -> float:
    """Compare forward and backward with the unrolled series of degree 7, whose certificate meets 1e-4 at norm 0.9."""
    torch.manual_seed(0)
    graph = random_graph(nodes, degree)
    leaves = torch.randn(nodes, features), *random_matrices(features)
    adjacency = normalized_adjacency(graph, torch.float32)

    def ours(x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
        return exp_action(GraphMap(theta0, theta1, graph), x, tol=tol).value

    def rival(x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
        return unrolled_series(adjacency, x, theta0, theta1, 7)

    return ratio(training(ours, leaves), training(rival, leaves), repeats)


def scipy_ratio(
    nodes: int, *, degree: int = 10, features: int = 16, dtype: torch.dtype = torch.float64, repeats: int = 3
) -> float:
    """Compare the forward pass with SciPy's `expm_multiply` in double precision, given the exact trace.

    Ours is to 1e-12, in single precision to 1e-6, which is no equal error.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import LinearOperator, expm_multiply

    torch.manual_seed(0)
    graph = random_graph(nodes, degree)
    x, (theta0, theta1) = torch.randn(nodes, features), random_matrices(features)
    matrix = normalized_adjacency(graph, torch.float64)
    parts = matrix.values(), matrix.col_indices(), matrix.crow_indices()
    sparse = csr_array(tuple(part.numpy() for part in parts), shape=matrix.shape)
    first, second = theta0.double().numpy(), theta1.double().numpy()

    def product(vector: np.ndarray, first: np.ndarray = first, second: np.ndarray = second) -> np.ndarray:
        array = vector.reshape(nodes, features)
        return (array @ first + sparse @ (array @ second)).reshape(vector.shape)

    size = nodes * features
    transposed = LinearOperator((size, size), lambda v: product(v, first.T, second.T), dtype="float64")
    operator = LinearOperator((size, size), product, rmatvec=transposed.matvec, dtype="float64")
    vector, trace = x.double().numpy().ravel(), nodes * float(first.trace())
    map_, x = GraphMap(theta0.to(dtype), theta1.to(dtype), graph), x.to(dtype)
    tol = 1e-12 if dtype == torch.float64 else 1e-6
    return ratio(lambda: exp_action(map_, x, tol=tol), lambda: expm_multiply(operator, vector, traceA=trace), repeats)


def complete_ratio(nodes: int, features: int, *, graphs: int = 512, repeats: int = 25) -> float:
    """Compare forward and backward on complete graphs with the unrolled series of batched dense products."""
    torch.manual_seed(0)
    graph = GraphBatch.complete([nodes] * graphs)
    leaves = torch.randn(graphs * nodes, features), *random_matrices(features)
    adjacency = ((1 - torch.eye(nodes)) / (nodes - 1)).expand(graphs, nodes, nodes).contiguous()

    def ours(x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
        return exp_action(GraphMap(theta0, theta1, graph), x, tol=1e-4).value

    def rival(x: Tensor, theta0: Tensor, theta1: Tensor) -> Tensor:
        return unrolled_series(adjacency, x.unflatten(0, (graphs, nodes)), theta0, theta1, 7).flatten(0, 1)

    return ratio(training(ours, leaves), training(rival, leaves), repeats)


def entries(*, quick: bool = False) -> list[Entry]:
    """Measure all figures, the large graph only if there is time."""
    found = []
    for nodes in (10**5,) if quick else (10**5, 10**6):
        value = training_ratio(nodes, repeats=5 if nodes > 10**5 else 9)
        found.append(Entry(f"graph training, {nodes:.0e} nodes", value, "x faster", 6, 8, "higher"))
    for dtype, name, goals in (
        (torch.float64, "both in float64", (15, 40)),
        (torch.float32, "ours in float32 to 1e-6", (None, None)),
    ):
        value = scipy_ratio(10**5, dtype=dtype, repeats=1 if quick else 3)
        found.append(Entry(f"graph forward against scipy, 1e5 nodes, {name}", value, "x faster", *goals, "higher"))
    for features, must, aim in ((2, 2.5, 4), (16, 5, 9)):
        for nodes in (4, 8, 16):
            name = f"complete graphs training, {nodes} nodes, {features} features"
            found.append(Entry(name, complete_ratio(nodes, features), "x faster", must, aim, "higher"))
    return found
