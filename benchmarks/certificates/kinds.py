"""Random maps of every kind, each of which can be built at every scale."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from likelify import linalg
from likelify.linalg.maps import LinearMap, Scaled

PADDINGS = ("zeros", "circular", "reflect")


@dataclass(frozen=True)
class Kind:
    """A random map that can be built at every scale.

    Attributes:
        build: makes the map from a factor on its tensors, a multiple of the identity, a number of copies of its rows,
            and a function that casts each tensor.
        event: shape of an event.
        rows: how many rows it takes, if it has its own.
        methods: those that apply, besides `"auto"` and `"series"`.
        largest: norm up to which it is tried.
        owner: for graphs, the graph of each row.
    """

    build: Callable[[float, float, int, Callable[[Tensor], Tensor]], LinearMap]
    event: tuple[int, ...]
    rows: int | None = None
    methods: tuple[str, ...] = ("dense", "frozen")
    largest: float = 5.0
    owner: Tensor | None = None


Source = random.Random


def normal(*shape: int) -> Tensor:
    """Draw in double precision."""
    return torch.randn(*shape, dtype=torch.float64)


def tile(tensor: Tensor, copies: int) -> Tensor:
    """Repeat parameters that rows have of their own."""
    return tensor.repeat_interleave(copies, 0) if copies > 1 else tensor


def space(rng: Source, dims: int, least: int) -> tuple[int, ...]:
    """Draw the size of an image."""
    most = {1: 9, 2: 4, 3: 3}[dims]
    return tuple(rng.randint(least, max(least, most)) for _ in range(dims))


def dense(rng: Source) -> Kind:
    """Draw a matrix, sometimes far from normal, on vectors or images, sometimes one for each row."""
    c, rows = rng.randint(1, 9), rng.choice((None, None, 3))
    matrix = normal(c, c) if rows is None else normal(rows, c, c)
    shape = rng.choice(("any", "any", "triangular", "nilpotent", "low rank"))
    if shape in ("triangular", "nilpotent"):
        matrix = matrix.triu(1 if shape == "nilpotent" and c > 1 else 0)
    elif shape == "low rank":
        matrix = matrix[..., :1] @ matrix[..., :1, :]
    event = (c,) if rng.random() < 0.7 else (c, 2, 2) if rng.random() < 0.5 else (c, 3)
    methods = ("polynomial", "dense") if rows else ("polynomial", "dense", "frozen")
    return Kind(lambda s, t, n, f: lk.Dense(f(tile(s * matrix + t * torch.eye(c), n))), event, rows, methods)


def dense_symmetric(rng: Source) -> Kind:
    """Draw a symmetric matrix."""
    c = rng.randint(1, 9)
    matrix = normal(c, c)
    event = (c,) if rng.random() < 0.7 else (c, 3)
    methods = ("polynomial", "dense", "chebyshev", "frozen")
    return Kind(lambda s, t, n, f: lk.Dense(f(s * matrix + t * torch.eye(c)), "symmetric"), event, None, methods, 50.0)


def skew(rng: Source) -> Kind:
    """Draw a skew matrix, sometimes with a declared norm, sometimes one for each row."""
    c, rows, declared = rng.randint(2, 9), rng.choice((None, None, 3)), rng.random() < 0.3
    matrix = normal(c, c) if rows is None else normal(rows, c, c)
    exact = float(torch.linalg.matrix_norm((matrix - matrix.mT) / 2, 2).max()) * (1 + 1e-6)
    methods = ("polynomial", "dense", "chebyshev", *(() if rows else ("frozen",)))
    event = (c,) if rng.random() < 0.7 else (c, 3)
    return Kind(
        lambda s, t, n, f: lk.Skew(f(tile(s * matrix, n)), norm=s * exact if declared else None),
        event,
        rows,
        methods,
        50.0,
    )


def diagonal(rng: Source) -> Kind:
    """Draw factors."""
    c, rows = rng.randint(1, 9), rng.choice((None, None, 3))
    factors = normal(c) if rows is None else normal(rows, c)
    methods = ("dense", "chebyshev", "closed-form")
    event = (c,) if rng.random() < 0.7 else (c, 3)
    return Kind(lambda s, t, n, f: linalg.Diagonal(f(tile(s * factors + t, n))), event, rows, methods, 50.0)


def conv(dims: int, padding: str) -> Callable[[Source], Kind]:
    """Return a drawer of convolutions."""

    def draw(rng: Source) -> Kind:
        groups = rng.choice((1, 1, 2))
        c = groups * rng.randint(1, 2)
        taps = tuple(rng.choice((1, 3, 3, 5) if dims < 3 else (1, 3)) for _ in range(dims))
        least = max(tap // 2 for tap in taps) + (padding == "reflect")
        event = (c, *space(rng, dims, max(1, least)))
        rows = 3 if rng.random() < 0.2 else None
        symmetry = rng.choice((None, "symmetric", "skew")) if padding != "reflect" and rng.random() < 0.5 else None
        bound = rng.choice(("reshape", "torus"))
        mask = torch.rand(taps) < 0.7 if rng.random() < 0.2 else None
        if mask is not None and symmetry is not None:
            mask = mask | mask.flip(tuple(range(dims)))
        shape = (c, c // groups, *taps) if rows is None else (rows, c, c // groups, *taps)
        kernel = normal(*shape)
        centre = torch.zeros(c, c // groups, *taps, dtype=torch.float64)
        for channel in range(c):
            centre[(channel, channel % (c // groups), *(tap // 2 for tap in taps))] = 1.0
        declared = rng.random() < 0.2

        def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
            settings = {"groups": groups, "mask": mask, "symmetry": symmetry, "own_rows": rows is not None}
            own = f(tile(s * kernel + t * centre, n))
            map_ = lk.ConvMap(own, padding, bound, **settings)  # pyright: ignore[reportArgumentType]
            if not declared:
                return map_
            norm = max(float(map_.kernel_bound().max()) * (1 + 1e-5), 1e-12)
            return lk.ConvMap(own, padding, bound, norm, **settings)  # pyright: ignore[reportArgumentType]

        own = () if rows else ("frozen", *(("fourier",) if padding == "circular" else ()))
        methods = ("dense", *own, *(() if symmetry is None else ("chebyshev",)))
        largest = 50.0 if symmetry == "skew" else 5.0
        return Kind(build, event, rows, methods, largest)

    return draw


def reflect_adjoint(rng: Source) -> Kind:
    """Draw the adjoint of a convolution with reflect padding."""
    kernel = normal(2, 2, 3)
    width = rng.randint(2, 8)
    return Kind(lambda s, t, n, f: lk.ConvMap(f(s * kernel), "reflect").adjoint(), (2, width))


def rotations(rng: Source) -> Kind:
    """Draw a convolution that commutes with rotations."""
    weight = normal(1, 1, 4, 3, 3)
    return Kind(lambda s, t, n, f: lk.ConvMap(f(linalg.rotation_kernel(s * weight))), (4, *space(rng, 2, 1)))


def sets(rng: Source) -> Kind:
    """Draw a map on sets."""
    c, rows = rng.randint(1, 4), rng.choice((None, None, 3))
    first, second = (normal(c, c), normal(c, c)) if rows is None else (normal(rows, c, c), normal(rows, c, c))
    eye = torch.eye(c)
    methods = ("dense", "closed-form", *(() if rows else ("frozen",)))
    return Kind(
        lambda s, t, n, f: linalg.SetMap(f(tile(s * first + t * eye, n)), f(tile(s * second, n))),
        (c, rng.randint(1, 6)),
        rows,
        methods,
    )


def pairs(rng: Source) -> Kind:
    """Draw a map on pairs."""
    c, rows, size = rng.randint(1, 2), rng.choice((None, None, 3)), rng.randint(1, 4)
    theta = normal(15, c, c) if rows is None else normal(rows, 15, c, c)
    theta[..., rng.randint(0, 14), :, :] *= 5
    identity = torch.zeros(15, c, c, dtype=torch.float64)
    identity[0] = torch.eye(c)
    methods = ("dense", *(() if rows else ("frozen",)))
    return Kind(lambda s, t, n, f: linalg.PairMap(f(tile(s * theta + t * identity, n))), (c, size, size), rows, methods)


def random_graph(rng: Source, copies: int, sizes: list[int], edges: list[tuple[int, int]], weight: Any) -> Any:
    """Return copies of one batch of graphs side by side."""
    nodes = sum(sizes)
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    index = torch.cat([index + nodes * copy for copy in range(copies)], 1)
    weights = None if weight is None else weight.repeat(copies)
    return lk.GraphBatch(torch.tensor(sizes * copies), index, weights)


def graphs(complete: bool, extra: str) -> Callable[[Source], Kind]:  # noqa: FBT001 - a kind
    """Return a drawer of graph convolutions, alone or in a sum or product with a matrix."""

    def draw(rng: Source) -> Kind:
        features = rng.randint(1, 3)
        sizes = [rng.randint(1, 5) for _ in range(rng.randint(1, 3))]
        if complete and rng.random() < 0.5:
            sizes = [sizes[0]] * len(sizes)
        edges, weight = random_edges(rng, sizes)
        first, second, third = normal(features, features), normal(features, features), normal(features, features)
        eye = torch.eye(features)

        def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
            batch = lk.GraphBatch.complete(sizes * n) if complete else random_graph(rng, n, sizes, edges, weight)
            map_ = lk.GraphMap(f(s * first + t * eye), f(s * second), batch)
            if extra == "sum":
                return map_ + lk.Dense(f(s * third))
            return map_ @ lk.Dense(f(third)) if extra == "product" else map_

        methods = ("adjacency", "closed-form") if complete else ("adjacency",)
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        return Kind(build, (features,), sum(sizes), methods if extra == "none" else (), owner=owner)

    return draw


def random_edges(rng: Source, sizes: list[int]) -> tuple[list[tuple[int, int]], Tensor | None]:
    """Draw undirected edges, sometimes with loops and weights."""
    loops, density, weighted = rng.random() < 0.5, rng.choice((0.2, 0.6, 1.0)), rng.random() < 0.5
    edges, start = [], 0
    for size in sizes:
        for i in range(size):
            for j in range(i + 1):
                if (i != j or loops) and rng.random() < density:
                    edges += [(start + i, start + j), (start + j, start + i)] if i != j else [(start + i, start + i)]
        start += size
    if not weighted:
        return edges, None
    drawn = {frozenset(edge): rng.choice((0.0, 0.1, 1.0, 30.0)) for edge in edges}
    return edges, torch.tensor([drawn[frozenset(edge)] for edge in edges])


def scaled(rng: Source) -> Kind:
    """Draw a multiple, by a float or a tensor, of a matrix or a convolution."""
    inner, factor = rng.choice((dense, conv(1, "circular"), dense_symmetric, sets))(rng), rng.choice((-2.0, 0.1, 3.0))
    as_tensor = rng.random() < 0.5

    def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
        multiple = f(torch.tensor(factor, dtype=torch.float64)) if as_tensor else factor
        return Scaled(inner.build(s / factor, t / factor, n, f), multiple)

    return Kind(build, inner.event, inner.rows, ("dense",), 5.0)


def sums(rng: Source) -> Kind:
    """Draw a sum of a convolution, a matrix and others on the same event."""
    event = (2, rng.randint(2, 6))
    kernel, matrix, theta, factors = normal(2, 2, 3), normal(2, 2), normal(2, 2), normal(2)
    parts = rng.sample(range(4), 2)

    def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
        makers = [
            lambda: lk.ConvMap(f(s * kernel)),
            lambda: lk.Dense(f(s * matrix + t * torch.eye(2))),
            lambda: linalg.SetMap(f(s * theta), f(s * matrix)),
            lambda: linalg.Diagonal(f(s * factors)),
        ]
        first, second = (makers[part]() for part in parts)
        return first + 0.5 * second

    return Kind(build, event)


def products(rng: Source) -> Kind:
    """Draw a product of a convolution and a matrix."""
    kernel, matrix = normal(2, 2, 3), normal(2, 2)
    event = (2, rng.randint(2, 6))
    return Kind(lambda s, t, n, f: lk.ConvMap(f(s * kernel)) @ lk.Dense(f(matrix)), event)


def functions(rng: Source) -> Kind:
    """Draw a matrix behind a callable, with and without a declared norm and adjoint."""
    c, declared, with_adjoint = rng.randint(1, 9), rng.random() < 0.5, rng.random() < 0.5
    matrix = normal(c, c)
    exact = float(torch.linalg.matrix_norm(matrix, 2)) * (1 + 1e-6)

    def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
        own = f(s * matrix + t * torch.eye(c))
        norm = s * exact + abs(t) if declared else None
        adjoint = (lambda y: y @ own) if with_adjoint else None
        return lk.Function(lambda x: x @ own.T, norm=norm, adjoint_function=adjoint, like=own[:0])

    return Kind(build, (c,))


KINDS: dict[str, Callable[[Source], Kind]] = {
    "dense": dense,
    "dense symmetric": dense_symmetric,
    "skew": skew,
    "diagonal": diagonal,
    **{f"conv {dims}d {padding}": conv(dims, padding) for dims in (1, 2, 3) for padding in PADDINGS},
    "reflect adjoint": reflect_adjoint,
    "rotations": rotations,
    "sets": sets,
    "pairs": pairs,
    "graph": graphs(complete=False, extra="none"),
    "graph complete": graphs(complete=True, extra="none"),
    "graph + dense": graphs(complete=False, extra="sum"),
    "graph @ dense": graphs(complete=False, extra="product"),
    "scaled": scaled,
    "sum": sums,
    "product": products,
    "function": functions,
}
