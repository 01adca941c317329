"""Functions of the adjacency by polynomials: against dense ones, and within their bounds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

import likelify as lk
from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg import AnalyticFilter, BandFilter, GraphFilter, HeatFilter, PageRankFilter, graph_filter
from likelify.linalg.expm.chebyshev import bessel_tail
from likelify.linalg.filter_polynomials import chebyshev_coefficients, ellipse_tail
from likelify.linalg.graph import normalized_adjacency
from tests.cases import normal
from tests.linalg.graphs import kinds, random_graph
from tests.linalg.reference import exponential

# Rounding of sums of products of about a hundred numbers.
ROUNDING = 3e-14


def dense(function, graph, x):
    """Return the same by an eigenbasis, a function for each feature."""
    adjacency = normalized_adjacency(graph, torch.float64).to_dense()
    eigenvalues, vectors = torch.linalg.eigh(adjacency)
    values = function.values(eigenvalues).expand(-1, x.shape[1])
    return vectors @ (values * (vectors.T @ x))


def heat(*times):
    return HeatFilter(torch.tensor(times[0] if len(times) == 1 else times, dtype=torch.float64))


def exponential_tail(degree):
    return sum(1 / math.factorial(j) for j in range(degree + 1, degree + 40))


FILTERS = {
    "heat": heat(1.7),
    "heat for long": heat(300.0),
    "heat for no time": heat(0.0),
    "heat of each feature": heat(0.1, 3.0, 20.0),
    "pagerank": PageRankFilter(),
    "pagerank, slow": PageRankFilter(0.02),
    "no walk": PageRankFilter(1.0),
    "low": BandFilter(),
    "narrow": BandFilter(0.3, 0.06),
    "ellipse": AnalyticFilter(lambda mu: 1 / (2 - mu), ellipse=(3.0, 3.0)),
    "series": AnalyticFilter(torch.sin, tail_bound=exponential_tail),
    "polynomial": AnalyticFilter(lambda mu: 8 * mu**3 - mu, tail_bound=lambda k: 0.0 if k >= 3 else math.inf),
    "zero": AnalyticFilter(torch.zeros_like, ellipse=(2.0, 0.0)),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_equal_dense_ones_within_their_bounds(name):
    function = FILTERS[name]
    for graph in kinds().values():
        x = normal(len(graph.owner), 3)
        exact = dense(function, graph, x)
        # What is steep magnifies the rounding of eigenvalues, and needs a high degree.
        allowance = ROUNDING * (1 + function.polynomial(1e-12).degree)
        for tol in (1e-2, 1e-5, 1e-12):
            found = graph_filter(function, graph, x, tol=tol)
            assert found.error_bound <= tol
            assert found.degree == 0 or not graph.is_complete
            errors = (found.value - exact).norm(dim=0)
            assert (errors <= (found.error_bound + allowance) * x.norm(dim=0)).all()
    assert graph_filter(function, graph, x.float()).value.dtype == torch.float32
    assert graph_filter(function, graph, x.bfloat16()).value.dtype == torch.bfloat16


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    nodes=st.integers(1, 12),
    density=st.floats(0.0, 1.0),
    weighted=st.booleans(),
    loops=st.booleans(),
    tol=st.floats(1e-11, 0.5),
    kernel=st.one_of(
        st.floats(0, 200).map(heat),
        st.floats(0.01, 1).map(PageRankFilter),
        st.tuples(st.floats(-1, 1), st.floats(0.05, 3)).map(lambda pair: BandFilter(*pair)),
    ),
)
def test_no_error_exceeds_its_bound(seed, nodes, density, weighted, loops, tol, kernel):
    torch.manual_seed(seed)
    graph = random_graph(nodes, density, weighted=weighted, loops=loops)
    x = normal(nodes, 2)
    found = graph_filter(kernel, graph, x, tol=tol)
    assert found.error_bound <= tol
    errors = (found.value - dense(kernel, graph, x)).norm(dim=0)
    assert (errors <= (found.error_bound + 1e-13) * x.norm(dim=0)).all()


@pytest.mark.parametrize("kind", ["plain", "weighted", "batch", "complete", "complete of one size"])
def test_heat_is_the_dense_exponential(kind):
    graph = kinds()[kind]
    adjacency = normalized_adjacency(graph, torch.float64).to_dense()
    x = normal(len(adjacency), 3)
    exact = exponential(2.5 * (adjacency - torch.eye(len(adjacency)))) @ x
    torch.testing.assert_close(graph_filter(heat(2.5), graph, x).value, exact, rtol=0, atol=1e-12)


def test_bounds_are_not_loose():
    """The bound is at most three times the truth of the worst graph, whose eigenvalues are dense in [-1, 1]."""
    points = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for name in ("heat", "heat for long", "pagerank", "narrow", "ellipse"):
        found = FILTERS[name].polynomial(1e-6)
        degrees = torch.arange(found.degree + 1)
        values = (degrees * points.arccos()[:, None]).cos() @ found.coefficients
        worst = float((values - FILTERS[name].values(points)).abs().max())
        assert worst <= found.error_bound <= 3 * worst


def test_tails():
    special = pytest.importorskip("scipy.special")
    for time in (0.01, 1.0, 30.0, 1000.0):
        for degree in (0, 1, 5, 20, 100, 300):
            true = 2 * sum(special.ive(k, time) for k in range(degree + 1, degree + 800))
            assert heat(time).tail(degree) >= true * (1 - 1e-12)
            assert heat(time).tail(degree) <= bessel_tail(time, degree, skew=False, exponent=-time)
    for restart in (0.05, 0.5):
        values = PageRankFilter(restart).values((math.pi * (torch.arange(4000).double() + 0.5) / 4000).cos())
        true = chebyshev_coefficients(values)[:, 0].abs()
        for degree in (0, 3, 10):
            assert PageRankFilter(restart).tail(degree) == pytest.approx(float(true[degree + 1 :].sum()), rel=1e-9)
    assert ellipse_tail(0.0, math.log(2.0), 1) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_gradients_of_any_order():
    general, complete = random_graph(5, 0.6, weighted=True), lk.GraphBatch.complete([2, 3])
    leaves = [normal(5, 2).requires_grad_(), torch.tensor([0.3, 2.0], dtype=torch.float64, requires_grad=True)]

    class Low(torch.nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, mu):
            return torch.exp(self.scale * mu[:, None])

    for graph in (general, complete):

        def by_heat(x, time, graph=graph):
            return graph_filter(HeatFilter(time), graph, x, tol=1e-11).value

        def by_function(x, scale, graph=graph):
            function = AnalyticFilter(Low(scale), ellipse=(20.0, math.exp(40.0)))
            return graph_filter(function, graph, x, tol=1e-11).value

        for function in (by_heat, by_function):
            assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
            assert torch.autograd.gradgradcheck(function, leaves)
        exact = lambda x, time, graph=graph: dense(HeatFilter(time), graph, x)  # noqa: E731
        found = [torch.autograd.grad(f(*leaves).pow(3).sum(), leaves) for f in (by_heat, exact)]
        torch.testing.assert_close(*found, rtol=0, atol=1e-9)


def test_gradients_by_the_time_are_exact_at_loose_tolerances():
    """What is left out of the value may be small by chance where its derivative is not."""
    graph = random_graph(12, 0.3)
    x = normal(12, 1)
    for start in (1e-4, 0.3, 5.0):
        time = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        first = [
            torch.autograd.grad(value.square().sum(), time)[0]
            for value in (graph_filter(HeatFilter(time), graph, x, tol=1e-4).value, dense(HeatFilter(time), graph, x))
        ]
        assert abs(first[0] - first[1]) <= 100 * 1e-4 * x.square().sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_knows_that_the_time_is_differentiated():
    graph, x, time = random_graph(12, 0.3), normal(12, 1), torch.tensor(1e-4, dtype=torch.float64)
    with forward_ad.dual_level():
        dual = HeatFilter(forward_ad.make_dual(time, torch.ones_like(time)))
        found = forward_ad.unpack_dual(graph_filter(dual, graph, x, tol=1e-3).value).tangent
    adjacency = normalized_adjacency(graph, torch.float64).to_dense()
    assert (found - (adjacency @ x - x)).norm() <= 20 * 1e-3 * x.norm()


def test_saved_memory_does_not_grow_with_the_degree():
    graph, saved = random_graph(100, 0.1), []
    for tol in (1e-1, 1e-12):
        time, sizes = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            graph_filter(HeatFilter(time), graph, normal(100, 3).requires_grad_(), tol=tol)
        saved.append(sum(size for size in sizes if size >= 300))
    assert saved == [300, 300]


def test_permutations_of_the_nodes_commute_with_filters():
    for kind in ("plain", "weighted", "complete of one size"):
        graph = kinds()[kind]
        x, order = normal(len(graph.owner), 3), torch.randperm(int(graph.sizes[0]))
        order = torch.cat([order, torch.arange(len(order), len(x))])
        moved = lk.GraphBatch(graph.sizes, order.argsort()[graph.edge_index], graph.edge_weight)
        for function in FILTERS.values():
            value = graph_filter(function, graph, x).value
            torch.testing.assert_close(graph_filter(function, moved, x[order]).value, value[order], rtol=0, atol=1e-11)


def test_polynomials_of_what_cannot_change_are_kept():
    function = PageRankFilter(0.3)
    with torch.inference_mode():
        kept = function.polynomial(1e-6)
    assert function.polynomial(1e-6) is kept
    assert not kept.coefficients.is_inference()
    assert function.polynomial(1e-3).degree < kept.degree
    trained = heat(1.0)
    trained.time.requires_grad_()
    assert trained.polynomial(1e-6) is not trained.polynomial(1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: AnalyticFilter(torch.cos), ConfigError, "one thing that is known of it"),
        (lambda: AnalyticFilter(torch.cos, ellipse=(1.0, 2.0)), ConfigError, "rho above 1"),
        (lambda: AnalyticFilter(torch.cos, ellipse=(10.0, 1.0)).polynomial(1e-6), ConvergenceError, "It is wrong"),
        (lambda: AnalyticFilter(torch.log, ellipse=(2.0, 1.0)).polynomial(1e-6), DomainError, "not finite"),
        (
            lambda: AnalyticFilter(torch.abs, tail_bound=lambda k: 1 / (k + 1)).polynomial(1e-6),
            ConvergenceError,
            "2000",
        ),
        (lambda: AnalyticFilter(lambda mu: 1.0, ellipse=(2.0, 1.0)).polynomial(1e-6), UnsupportedError, "a float"),
        (lambda: AnalyticFilter(torch.sum, ellipse=(2.0, 1.0)).polynomial(1e-6), ShapeError, "at 48 points"),
        (lambda: PageRankFilter(0.0), ConfigError, "above 0"),
        (lambda: BandFilter(1.5), ConfigError, "centre"),
        (lambda: heat(-1.0).polynomial(1e-6), DomainError, "no way back"),
        (lambda: HeatFilter(torch.ones(2, 2)), ShapeError, "one for each feature"),
        (lambda: heat(1e9).polynomial(1e-6), ConvergenceError, "the heat kernel of time 1e"),
    ],
)
def test_filters_that_cannot_be_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_inputs_that_do_not_fit_are_refused():
    graph = random_graph()
    with pytest.raises(DomainError, match="directed"):
        graph_filter(heat(1.0), lk.GraphBatch(torch.tensor([2]), torch.tensor([[0], [1]])), normal(2, 1))
    with pytest.raises(ShapeError, match="7 nodes"):
        graph_filter(heat(1.0), graph, normal(6, 1))
    with pytest.raises(ShapeError, match="for 2 features, and the nodes have 3"):
        graph_filter(heat(1.0, 2.0), graph, normal(7, 3))
    with pytest.raises(DomainError, match="floating"):
        graph_filter(heat(1.0), graph, torch.ones(7, 1, dtype=torch.long))
    with pytest.raises(ConfigError, match="tol"):
        graph_filter(heat(1.0), graph, normal(7, 1), tol=0.0)
    with pytest.raises(UnsupportedError, match="outside of them"):
        torch.func.grad(lambda x: graph_filter(heat(1.0), graph, x).value.sum())(normal(7, 1))


def test_a_filter_of_ones_own():
    class Comb(GraphFilter):
        def values(self, points):
            return points[:, None] ** 2

        def tail(self, degree):
            return 0.0 if degree >= 2 else 1.0

    graph = random_graph()
    x, adjacency = normal(7, 2), normalized_adjacency(graph, torch.float64).to_dense()
    torch.testing.assert_close(graph_filter(Comb(), graph, x).value, adjacency @ adjacency @ x)
