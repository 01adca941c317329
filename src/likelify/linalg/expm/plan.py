"""Which method serves a map best: a fixed rule of its structure and its sizes."""

from typing import Literal, get_args

from likelify.linalg.dense import Dense, Diagonal
from likelify.linalg.equivariant import SetMap
from likelify.linalg.expm.explicit import run_adjacency, run_closed_form, run_dense, run_fourier, run_polynomial
from likelify.linalg.expm.problem import Problem
from likelify.linalg.expm.sums import run_chebyshev, run_series
from likelify.linalg.graph import GraphMap
from likelify.tracing import is_tracing

Method = Literal["auto", "series", "chebyshev", "polynomial", "dense", "fourier", "adjacency", "closed-form"]
NAMES = get_args(Method)
METHODS = {
    "series": run_series,
    "chebyshev": run_chebyshev,
    "polynomial": run_polynomial,
    "dense": run_dense,
    "fourier": run_fourier,
    "adjacency": run_adjacency,
    "closed-form": run_closed_form,
}
# With more columns than about this share of its size, a matrix is cheaper to exponentiate than to apply a dozen times
# (`time_methods` shows it on the machine at hand).
CROSSOVER = 0.7


def choose(problem: Problem) -> str:
    """Choose the method.

    The rule: a fixed degree means the series. Graphs: closed form if complete, else the expansion in the adjacency.
    Diagonal maps and sets: closed form. A matrix that meets at least 0.7 times as many columns (rows times positions)
    as it has: its polynomial. Symmetric or skew by construction: Chebyshev. All else: the power series.
    While `torch.compile` or `torch.func` is at work it is the series, whose plain sum they can see through.
    """
    map_, x = problem.given, problem.x
    if problem.degree is not None or is_tracing():
        return "series"
    if isinstance(map_, GraphMap):
        return "closed-form" if map_.graph.is_complete else "adjacency"
    if isinstance(map_, Diagonal | SetMap):
        return "closed-form"
    if isinstance(map_, Dense):
        columns = x.numel() // max(x.shape[1], 1) // (map_.rows or 1)
        if columns >= CROSSOVER * x.shape[1]:
            return "polynomial"
    return "series" if map_.symmetry is None else "chebyshev"
