"""Whether certificates hold: thousands of random maps, each bound against what happens in extended precision.

Every case draws a kind of map, its sizes, norm, trace, dtype, tolerance, time, method and input from one seed, and
compares with `exp(tL)` in 80-bit numbers (`benchmarks.certificates.run(seed)` gives a single case). Checked are the
norm bound, the error bound of each item, the tolerance of each item, the bound of the log-determinant, the reported
trace and the bound of the parameters' gradients, in the direction of the worst error and in a random one; and for whole
flows the certificate in nats. Rounding gets the allowance that the diagnostics report, no more.
"""

import math
import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

import likelify as lk
from benchmarks.report import Entry, arguments, report
from likelify.errors import LikelifyError
from likelify.linalg.expm.action import apply_frozen, freeze_exponential, pose
from likelify.linalg.maps import LinearMap, Scaled
from likelify.testing import randomize

CASES, QUICK = 10_000, 500
# Figures that are compared differ at least by this much, relative to the result, by the reference itself.
REFERENCE = {torch.float64: 4e-16, torch.float32: 4e-16}
PADDINGS = ("zeros", "circular", "reflect")


@dataclass(frozen=True)
class Kind:
    """A random map that can be built at every scale.

    Attributes:
        build: gives the map from a factor on its tensors, a multiple of the identity, a number of copies of its rows,
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
    return Kind(lambda s, t, n, f: lk.Diagonal(f(tile(s * factors + t, n))), event, rows, methods, 50.0)


def conv(dims: int, padding: str) -> Callable[[Source], Kind]:
    """Give a drawer of convolutions."""

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
    return Kind(lambda s, t, n, f: lk.ConvMap(f(lk.rotation_kernel(s * weight))), (4, *space(rng, 2, 1)))


def sets(rng: Source) -> Kind:
    """Draw a map on sets."""
    c, rows = rng.randint(1, 4), rng.choice((None, None, 3))
    first, second = (normal(c, c), normal(c, c)) if rows is None else (normal(rows, c, c), normal(rows, c, c))
    eye = torch.eye(c)
    methods = ("dense", "closed-form", *(() if rows else ("frozen",)))
    return Kind(
        lambda s, t, n, f: lk.SetMap(f(tile(s * first + t * eye, n)), f(tile(s * second, n))),
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
    return Kind(lambda s, t, n, f: lk.PairMap(f(tile(s * theta + t * identity, n))), (c, size, size), rows, methods)


def random_graph(rng: Source, copies: int, sizes: list[int], edges: list[tuple[int, int]], weight: Any) -> Any:
    """Give copies of one batch of graphs side by side."""
    nodes = sum(sizes)
    index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    index = torch.cat([index + nodes * copy for copy in range(copies)], 1)
    weights = None if weight is None else weight.repeat(copies)
    return lk.GraphBatch(torch.tensor(sizes * copies), index, weights)


def graphs(complete: bool, extra: str) -> Callable[[Source], Kind]:  # noqa: FBT001 - a kind
    """Give a drawer of graph convolutions, alone or in a sum or product with a matrix."""

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
    """Draw a multiple, by a number or a tensor, of a matrix or a convolution."""
    inner, factor = rng.choice((dense, conv(1, "circular"), dense_symmetric, sets))(rng), rng.choice((-2.0, 0.1, 3.0))
    as_tensor = rng.random() < 0.5

    def build(s: float, t: float, n: int, f: Callable[[Tensor], Tensor]) -> LinearMap:
        number = f(torch.tensor(factor, dtype=torch.float64)) if as_tensor else factor
        return Scaled(inner.build(s / factor, t / factor, n, f), number)

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
            lambda: lk.SetMap(f(s * theta), f(s * matrix)),
            lambda: lk.Diagonal(f(s * factors)),
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


@dataclass
class Case:
    """One random case and what was found.

    Attributes:
        name: the kind.
        settings: what was drawn, to be printed.
        found: violated checks with the observed figure and its bound.
        ratios: observed figure over bound of every check.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    found: list[tuple[str, float, float]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    refused: str | None = None

    def check(self, name: str, observed: float, bound: float) -> None:
        """Compare an observed figure with its bound."""
        self.ratios[name] = max(self.ratios.get(name, 0.0), observed / max(bound, 1e-300))
        if not observed <= bound:
            self.found.append((name, observed, bound))


def extended_action(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute `exp(matrix) x` in 80-bit numbers by short steps of the power series."""
    a, value = matrix.astype(np.longdouble), x.astype(np.longdouble)
    steps = max(1, math.ceil(np.linalg.norm(matrix, 2)))
    a = a / steps
    for _ in range(steps):
        term = value
        for k in range(1, 27):
            term = a @ term / k
            value = value + term
    return value


def materialized(map_: LinearMap, event: tuple[int, ...]) -> Tensor:
    """Form the matrix in double precision: `(D, D)`, or one for each row."""
    return map_.materialize(event, like=torch.zeros(1, dtype=torch.float64))


def run(seed: int) -> Case:
    """Draw and check one case."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    name = rng.choice(list(KINDS))
    case = Case(name)
    kind = KINDS[name](rng)
    dtype = rng.choice((torch.float64, torch.float64, torch.float32))
    time = rng.choice((1.0, 1.0, -1.0, 0.3, 6.0))
    norm = math.exp(rng.uniform(math.log(0.01), math.log(kind.largest)))
    shift = rng.choice((0.0, 0.0, 0.0, rng.uniform(-4, 4)))
    tol = 10 ** -rng.uniform(2, 12 if dtype == torch.float64 else 7)
    method = rng.choice(("auto", "series", *kind.methods)) if rng.random() < 0.7 else "auto"
    gradient = rng.choice((None, None, None, lk.Recompute()))
    gradient = None if name == "function" else gradient
    case.settings = {"dtype": dtype, "time": time, "norm": norm, "shift": shift, "tol": tol, "method": method}

    def rounded(tensor: Tensor) -> Tensor:
        return tensor.to(dtype).double()

    plain = materialized(kind.build(1.0, 0.0, 1, lambda t: t), kind.event)
    size = float(torch.linalg.matrix_norm(plain, 2).max())
    # A mask or a symmetry may leave nothing.
    scale = norm / abs(time) / size if size > 1e-9 else 1.0
    exact_map = kind.build(scale, shift / abs(time), 1, rounded)
    map_ = kind.build(scale, shift / abs(time), 1, lambda t: t.to(dtype))
    exact = materialized(exact_map, kind.event)
    x = draw_input(rng, kind, exact, dtype)
    try:
        check_action(case, kind, map_, exact_map, exact, x, time, tol, method, gradient)
        if method != "frozen":
            check_log_det(case, kind, scale, shift / abs(time), x.dtype, exact, time, tol, method, case.settings)
    except LikelifyError as error:
        case.refused = f"{type(error).__name__}: {error}"
    return case


def draw_input(rng: Source, kind: Kind, exact: Tensor, dtype: torch.dtype) -> Tensor:
    """Draw rows of one size, sometimes one along the most magnified direction, sometimes one of zeros."""
    rows = kind.rows if kind.rows is not None else rng.randint(1, 12)
    x = normal(rows, *kind.event)
    if rng.random() < 0.5 and kind.owner is None:
        matrix = exact if exact.ndim == 2 else exact[0]
        symmetric = (matrix + matrix.T) / 2 if rng.random() < 0.5 else matrix.T @ matrix
        x[0] = torch.linalg.eigh(symmetric)[1][:, rng.choice((0, -1))].reshape(kind.event)
    if rng.random() < 0.1 and rows > 1 and kind.owner is None:
        x[1] = 0
    return (x * 10 ** rng.uniform(-3, 3)).to(dtype)


def item_norms(kind: Kind, x: Tensor) -> Tensor:
    """Give the norms of items in double precision."""
    squares = x.double().flatten(1).square().sum(1)
    if kind.owner is None:
        return squares.sqrt()
    return torch.zeros(int(kind.owner.max()) + 1, dtype=torch.float64).index_add(0, kind.owner, squares).sqrt()


def reference(kind: Kind, exact: Tensor, x: Tensor, time: float) -> Tensor:
    """Compute `exp(tL) x`."""
    matrix, rows = time * exact.numpy(), x.double().flatten(1).numpy()
    if kind.owner is not None:
        value = extended_action(matrix, rows.reshape(-1, 1)).reshape(rows.shape)
    elif exact.ndim == 3:
        value = np.stack([extended_action(m, r[:, None])[:, 0] for m, r in zip(matrix, rows, strict=True)])
    else:
        value = extended_action(matrix, rows.T).T
    return torch.from_numpy(value.astype(np.float64)).reshape(x.shape)


def act(map_: LinearMap, x: Tensor, time: float, tol: float, method: str, gradient: Any) -> Any:
    """Apply the exponential by the engine, or by what is formed inside `frozen()`."""
    if method != "frozen":
        return lk.exp_action(map_, x, time=time, tol=tol, method=method, gradient=gradient, throw=False)  # pyright: ignore[reportArgumentType]
    made = freeze_exponential(map_, x, time=time, tol=tol)
    return lk.exp_action(map_, x, time=time, tol=tol, throw=False) if made is None else apply_frozen(made, map_, x)


def check_action(
    case: Case,
    kind: Kind,
    map_: LinearMap,
    exact_map: LinearMap,
    exact: Tensor,
    x: Tensor,
    time: float,
    tol: float,
    method: str,
    gradient: Any,
) -> None:
    """Check the bound of the norm, the error, the tolerance, the trace and the gradient."""
    leaves = {n: t.detach().requires_grad_() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    live = map_.with_tensors(leaves)
    action = act(live, x, time, tol, method, gradient)
    found = action.diagnostics
    case.settings |= {"used": found.method, "degrees": found.degrees[:4], "converged": found.converged}
    case.settings |= {"problem": found.problem is not None, "event": kind.event, "rows": len(x)}
    norms = item_norms(kind, x)
    value = reference(kind, exact, x, time)
    error = item_norms(kind, action.value.detach().double() - value)
    own = REFERENCE[x.dtype] * item_norms(kind, value)
    bound = found.error_bound.detach().double() + found.round_off_allowance * norms + own
    for observed, limit in zip(error.tolist(), bound.tolist(), strict=True):
        case.check("error bound", observed, limit)
    if found.converged and found.problem is None:
        for observed, limit in zip(found.error_bound.tolist(), (tol * norms).tolist(), strict=True):
            case.check("tolerance", observed, limit * (1 + 1e-5) + 1e-300)
    posed = pose(map_, x, time=time, tol=tol)
    shift = posed.time * posed.shift / time
    centered = exact - shift * torch.eye(exact.shape[-1], dtype=exact.dtype)
    largest = float(torch.as_tensor(found.norm_bound, dtype=torch.float64).max())
    margin = 0.0 if x.dtype == torch.float64 else 1e-6 * (1 + abs(time * shift))
    true = abs(time) * float(torch.linalg.matrix_norm(centered, 2).max())
    case.check("norm bound", true, largest * (1 + 1e-12) + margin + 1e-14 * abs(time * shift))
    trace = map_.trace(kind.event).double().sum()
    diagonal_ = exact.diagonal(dim1=-2, dim2=-1)
    allowed = 8 * torch.finfo(x.dtype).eps * float(diagonal_.abs().sum() + 1)
    case.check("trace", float((trace - diagonal_.sum()).abs()), allowed)
    if found.gradient_error_bound is not None and not found.problem:
        check_gradient(case, kind, leaves, action, exact_map, exact, x, time, norms)


def check_gradient(
    case: Case,
    kind: Kind,
    leaves: dict[str, Tensor],
    action: Any,
    exact_map: LinearMap,
    exact: Tensor,
    x: Tensor,
    time: float,
    norms: Tensor,
) -> None:
    """Compare the parameters' gradient with that of the exponential, along its error and along a random direction."""
    g = torch.randn(x.shape, dtype=torch.float64).to(x.dtype)
    if len(g) > 1 and kind.owner is None:
        g[0] *= 100
    named = {n: t for n, t in leaves.items() if t.requires_grad}
    grads = torch.autograd.grad(action.value, list(named.values()), g.to(action.value.dtype))
    exact_leaves = {n: t.detach().double().requires_grad_() for n, t in named.items()}
    live = exact_map.with_tensors(exact_map.tensors() | exact_leaves)
    matrix = materialized(live, kind.event)
    wanted = torch.autograd.grad(matrix, list(exact_leaves.values()), of_matrix(kind, exact, x, g, time))
    errors = {n: a.double() - b for n, a, b in zip(named, grads, wanted, strict=True)}
    scale = float((norms * item_norms(kind, g)).sum())
    found = action.diagnostics
    growth = math.exp(min(abs(time) * float(sym_norm(exact)), 600.0))
    slack = abs(time) * growth * (4 * found.round_off_allowance + 1e-15)
    worst = {
        n: e / max(math.sqrt(sum(float(d.square().sum()) for d in errors.values())), 1e-300) for n, e in errors.items()
    }
    random_direction = {n: torch.randn_like(t) for n, t in errors.items()}
    # Where the map hardly depends on a direction, rounding of the parameters' own products is all there is.
    tiny = 1e-15 * max(float(t.detach().abs().max()) for t in wanted)
    for name, direction in (("gradient bound, worst direction", worst), ("gradient bound", random_direction)):
        largest = derivative_norm(exact_map, exact_leaves, direction, kind.event)
        observed = abs(float(sum((errors[n] * direction[n]).sum() for n in errors)))
        case.check(name, observed, (found.gradient_error_bound + slack) * scale * largest + tiny)


def sym_norm(exact: Tensor) -> Tensor:
    """Give the norm of the symmetric part."""
    return torch.linalg.matrix_norm((exact + exact.mT) / 2, 2).max()


def derivative_norm(
    map_: LinearMap, leaves: dict[str, Tensor], direction: dict[str, Tensor], event: tuple[int, ...]
) -> float:
    """Give the norm of the map's derivative; a central difference is exact up to products of two parameters."""
    base = map_.tensors()
    with torch.no_grad():
        plus = map_.with_tensors(base | {n: leaves[n] + d for n, d in direction.items()})
        minus = map_.with_tensors(base | {n: leaves[n] - d for n, d in direction.items()})
        change = (materialized(plus, event) - materialized(minus, event)) / 2
    return float(torch.linalg.matrix_norm(change, 2).max())


def of_matrix(kind: Kind, exact: Tensor, x: Tensor, g: Tensor, time: float) -> Tensor:
    """Give the gradient of `<g, exp(tL) x>` with respect to the matrix of `L`."""
    rows, grads = x.double().flatten(1), g.double().flatten(1)
    if kind.owner is not None:
        return frechet(exact, torch.outer(grads.flatten(), rows.flatten()), time)
    if exact.ndim == 3:
        found = [frechet(m, torch.outer(b, a), time) for m, a, b in zip(exact, rows, grads, strict=True)]
        return torch.stack(found)
    return frechet(exact, grads.T @ rows, time)


def frechet(matrix: Tensor, outer: Tensor, time: float) -> Tensor:
    """Give the gradient of `<outer, exp(t matrix)>`, from the exponential of a matrix twice as large."""
    size = float(torch.linalg.matrix_norm(outer)) or 1.0
    a, b = time * matrix.T.numpy(), time * (outer / size).numpy()
    block = np.block([[a, b], [np.zeros_like(a), a]])
    n = len(a)
    return size * torch.from_numpy(scipy.linalg.expm(block)[:n, n:])


def check_log_det(
    case: Case,
    kind: Kind,
    scale: float,
    shift: float,
    dtype: torch.dtype,
    exact: Tensor,
    time: float,
    tol: float,
    method: str,
    settings: dict[str, Any],
) -> None:
    """Apply the exponential to all unit vectors at once and compare the determinant with the trace."""
    size = exact.shape[-1]
    own = kind.rows is not None
    copies = size if own else 1
    map_ = kind.build(scale, shift, copies, lambda t: t.to(dtype))
    eye = torch.eye(size, dtype=dtype)
    if kind.owner is not None:
        x = eye.reshape(size * len(kind.owner), *kind.event)
    else:
        x = eye.reshape(size, *kind.event).repeat(kind.rows or 1, *(1,) * len(kind.event))
    used = "auto" if method == "auto" else method
    action = act(map_, x, time, tol, used, None)
    found = action.diagnostics
    if found.problem is not None:
        return
    applied = action.value.detach().double().reshape(-1, size, size).mT
    traces = time * exact.diagonal(dim1=-2, dim2=-1)
    bound = torch.as_tensor(found.log_det_error_bound, dtype=torch.float64).flatten()
    if kind.owner is not None:
        features = size // len(kind.owner)
        member = kind.owner.repeat_interleave(features)
        for graph in range(int(member.max()) + 1):
            inside = member == graph
            block = applied[0][inside][:, inside]
            compare_log_det(case, block, traces[inside].sum(), bound.expand(max(graph + 1, len(bound)))[graph], found)
        return
    every = traces.sum(-1).expand(len(applied))
    limits = bound.expand(len(applied) * copies)[::copies] if bound.numel() > 1 else bound.expand(len(applied))
    for block, trace, limit in zip(applied, every, limits, strict=True):
        compare_log_det(case, block, trace, limit, found)


def compare_log_det(case: Case, block: Tensor, trace: Tensor, limit: Tensor, found: Any) -> None:
    """Compare one determinant; rounding enters by `|tr(P^-1 dP)| <= ||P^-1||_F ||dP||_F`."""
    singular = torch.linalg.svdvals(block)
    inverse = float((1 / singular.clamp_min(1e-300)).square().sum().sqrt())
    rounding = inverse * math.sqrt(len(block)) * (found.round_off_allowance + 1e-16 * float(singular[0]))
    rounding += 1e-15 * (float(singular.log().abs().sum()) + len(block))
    if rounding > 0.1:
        return
    observed = abs(float(torch.linalg.slogdet(block)[1]) - float(trace))
    case.check("log-determinant", observed, float(limit) + 2 * rounding)


def flow_case(seed: int) -> Case:
    """Compare the certificate of a random flow with the determinant of its Jacobian."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    case = Case("flow", {"seed": seed})
    tol = 10 ** -rng.uniform(1, 5)
    shape = (2, 3, 3)
    padding = rng.choice(PADDINGS)
    layers = [
        lk.conv_exponential(2, norm_limit=rng.choice((None, 1.8, 4.0)), padding=padding, tol=tol),
        lk.dense_exponential(2, tol=tol),
        lk.orthogonal_convolution(2, tol=tol),
        lk.Inverse(lk.conv_exponential(2, 3, tol=tol)),
        lk.conv_exponential(2, condition_features=2, tol=tol, norm_limit=rng.choice((None, 1.8))),
        lk.linear_exponential(torch.nn.Conv2d(2, 2, 3, padding=1, bias=False), tol=tol),
        lk.ActNorm(2),
    ]
    chain = randomize(lk.Chain(rng.sample(layers, 3)), scale=0.5, seed=seed).double()
    # All unit vectors and zero in one batch, so that each is mapped by the same polynomials: what the layers apply.
    size = math.prod(shape)
    x = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])
    x, context = x.reshape(-1, *shape), normal(1, 2).expand(size + 1, 2)
    flow = lk.Flow(lk.Normal(shape), chain).double()
    case.settings |= {"tol": tol, "layers": [type(layer).__name__ for layer in chain]}
    try:
        found = flow.certificate(x, context)
        with torch.no_grad():
            value, reported = chain(x, context)
    except LikelifyError as error:
        case.refused = f"{type(error).__name__}: {error}"
        return case
    applied = (value[:-1] - value[-1:]).flatten(1).mT
    observed = float((torch.linalg.slogdet(applied)[1] - reported).abs().max())
    case.check("flow certificate", observed, float(found.nats.min()) + 1e-11)
    return case


def attempt(run_one: Callable[[int], Case], seed: int) -> Case:
    """Run a case; an error that is not a refusal of the library counts as a crash."""
    try:
        return run_one(seed)
    except Exception as error:  # noqa: BLE001 - what is counted
        where = traceback.extract_tb(error.__traceback__)[-1]
        random_name = random.Random(seed).choice(list(KINDS)) if run_one is run else "flow"
        place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        case = Case(random_name)
        case.settings["crash"] = f"{type(error).__name__} at {place}: {str(error)[:100]}"
        return case


def show(cases: dict[int, Case]) -> None:
    """Print every violation, crash and refusal."""
    refusals: dict[tuple[str, str], list[int]] = defaultdict(list)
    crashes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for seed, case in cases.items():
        if "crash" in case.settings:
            crashes[case.name, case.settings["crash"]].append(seed)
        if case.refused is not None:
            refusals[case.name, case.refused[:70]].append(seed)
        for check, observed, bound in {c: (c, o, b) for c, o, b in case.found}.values():
            settings = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in case.settings.items()}
            print(f"VIOLATED seed {seed} {case.name}: {check} {observed:.3e} > {bound:.3e} {settings}")
    for title, table in (("CRASH", crashes), ("refused", refusals)):
        for (name, message), seeds in sorted(table.items(), key=lambda item: -len(item[1])):
            print(f"{title} {len(seeds)} times {name}: {message} (seeds {seeds[:4]})")


def main() -> None:
    """Run all cases and count."""
    options = arguments(__doc__ or "")
    count = QUICK if options.quick else CASES
    cases = {seed: attempt(run, seed) for seed in range(count)}
    flows = {seed: attempt(flow_case, seed) for seed in range(max(20, count // 50))}
    show(cases)
    show(flows)
    every = [*cases.values(), *flows.values()]
    checked: Counter[str] = Counter()
    violated: Counter[str] = Counter()
    ratios: dict[str, list[float]] = defaultdict(list)
    by_kind: Counter[tuple[str, str]] = Counter()
    for case in every:
        for name, ratio in case.ratios.items():
            checked[name] += 1
            ratios[name].append(ratio)
        for name in {name for name, *_ in case.found}:
            violated[name] += 1
            by_kind[case.name, name] += 1
    for (kind, name), times in by_kind.most_common():
        print(f"{times} of {sum(case.name == kind for case in every)} {kind}: {name}")
    for name, values in ratios.items():
        middle, high = np.quantile(values, (0.5, 0.99))
        print(f"{name}: observed over bound, median {middle:.2g}, 99th percentile {high:.2g}")
    entries = [Entry(f"{name} violated (of {total})", violated[name], "cases", 0) for name, total in checked.items()]
    entries.append(Entry("crashes", sum("crash" in case.settings for case in every), "cases", 0))
    entries.append(Entry("refused", sum(case.refused is not None for case in every), "cases"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
