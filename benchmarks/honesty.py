"""Whether anything fails in silence: the engine, the layers and flows are fed what should fail or be refused.

A failure is *silent* if the answer is wrong and nothing says so: the relative error against `scipy.linalg.expm` in
double precision is above ten times the tolerance, or a number is not finite, or a gradient is lost, while no exception
was raised and the diagnostics claim convergence. Outcomes:

- right: the answer is right;
- refused: an exception of the library, with a message that says what to do;
- admitted: wrong by more than ten times the tolerance, and the diagnostics say so (no convergence, a problem, or a
  reported allowance for rounding that covers it);
- cryptic: an exception of another kind, from PyTorch or Python;
- SILENT.
"""

import copy
import math
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.certificates import extended_action
from benchmarks.report import Entry, arguments, report
from likelify.errors import LikelifyError
from likelify.linalg.expm import recorded
from likelify.linalg.expm.action import TOLERANCE
from likelify.linalg.maps import LinearMap, Scaled, Shape
from likelify.testing import randomize

FACTOR = 10
SINGLE, DOUBLE = torch.float32, torch.float64


@dataclass(frozen=True)
class Case:
    """Something that should fail, be refused, or just work.

    Attributes:
        group: what it is about.
        name: what it is.
        run: takes a seed and gives an outcome, or raises.
        times: number of seeds.
        must: `"accept"` if it must not be refused, `"refuse"` if there is no right answer.
        informative: a contract that is broken and cannot be checked; counted apart.
    """

    group: str
    name: str
    run: Callable[[int], str]
    times: int = 1
    must: str | None = None
    informative: bool = False


CASES: list[Case] = []


def add(group: str, name: str, run: Callable[[], str], *, times: int = 1, must: str | None = None, **more: Any) -> None:
    """Add a case that takes its random numbers from the global generator."""
    CASES.append(Case(group, name, lambda seed: run(), times, must, **more))  # noqa: ARG005


def tolerance(dtype: torch.dtype) -> float:
    """Give the tolerance that `exp_action` takes by default."""
    return TOLERANCE.get(dtype, 8 * torch.finfo(dtype).eps)


def exponential(matrix: Tensor) -> Tensor:
    """Compute the exponential in double precision."""
    return torch.from_numpy(np.asarray(scipy.linalg.expm(matrix.detach().double().numpy())))


def compare(value: Tensor, exact: Tensor, x: Tensor, diagnostics: Any, tol: float) -> str:
    """Judge an answer row by row."""
    # The smallest numbers of a format have few digits; what is lost there is lost in the input already.
    grain = 64 * torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    value, exact, x = (t.detach().double().flatten(1) for t in (value, exact, x))
    if not bool(torch.isfinite(value).all()):
        return "SILENT: not finite" if claims(diagnostics) else "admitted"
    scale = x.abs().amax().clamp_min(1e-300) if x.numel() else 1.0
    value, exact, x = value / scale, exact / scale, x / scale
    norms = torch.linalg.vector_norm(x, dim=1)
    error = torch.linalg.vector_norm(value - exact, dim=1)
    relative = error / norms.maximum(torch.linalg.vector_norm(exact, dim=1)).clamp_min(1e-300)
    worst = float(relative.max()) if len(relative) else 0.0
    if worst <= FACTOR * tol + grain / float(scale):
        return "right"
    if not claims(diagnostics):
        return "admitted"
    allowance = 0.0 if diagnostics is None else diagnostics.round_off_allowance + tol
    covered = diagnostics is not None and bool((error <= allowance * norms).all())
    return f"admitted as rounding ({worst:.0e})" if covered else f"SILENT: error {worst:.0e}"


def claims(diagnostics: Any) -> bool:
    """Tell whether diagnostics claim that the answer is right; what reports nothing claims it."""
    return diagnostics is None or (diagnostics.converged is True and diagnostics.problem is None)


def matrix_of(map_: LinearMap, event: Shape) -> Tensor:
    """Form the matrix of a map in double precision."""
    return map_.materialize(event, like=torch.zeros(1, dtype=DOUBLE))


def exact_value(matrix: Tensor, x: Tensor, time: float) -> Tensor:
    """Give `exp(t M) x` in double precision, for one matrix or one for each row."""
    rows = x.detach().double().flatten(1)
    if matrix.ndim == 3:
        value = torch.cat([act(time * m, r[None]) for m, r in zip(matrix, rows, strict=True)])
    elif len(matrix) == rows.numel() != rows.shape[1]:
        value = act(time * matrix, rows.reshape(1, -1))
    else:
        value = act(time * matrix, rows)
    return value.reshape(x.shape)


def act(matrix: Tensor, rows: Tensor) -> Tensor:
    """Give `exp(M) r` for each row, where it matters in 80-bit numbers."""
    norm = float(torch.linalg.matrix_norm(matrix, 2)) if matrix.numel() else 0.0
    if not 8 < norm < 2000:
        return rows @ exponential(matrix).T
    return torch.from_numpy(extended_action(matrix.numpy(), rows.T.numpy()).T.astype(np.float64))


def judge(
    map_: LinearMap, matrix: Tensor, x: Tensor, *, time: float = 1.0, tol: float | None = None, **more: Any
) -> str:
    """Run the engine and judge its answer."""
    before = x.detach().clone()
    action = lk.exp_action(map_, x, time=time, tol=tol, **more)
    if not torch.equal(before, x.detach()) and not bool(torch.isnan(before).any()):
        return "SILENT: the input was changed"
    if action.value.dtype != x.dtype or action.value.shape != x.shape:
        return f"SILENT: {action.value.dtype} {tuple(action.value.shape)} for {x.dtype} {tuple(x.shape)}"
    used = tolerance(x.dtype) if tol is None else tol
    if matrix.numel() and (norm := abs(time) * float(torch.linalg.matrix_norm(matrix, 2).max())) > 2000:
        # There the reference is no better than its own rounding.
        used = max(used, 1e-15 * norm)
    return compare(action.value, exact_value(matrix, before, time), before, action.diagnostics, used)


def judge_layer(layer: Any, matrix: Tensor, x: Tensor, context: Any = None, tol: float | None = None) -> str:
    """Run a layer both ways and judge values and log-determinants."""
    used = tolerance(x.dtype) if tol is None else tol
    for time in (1.0, -1.0):
        with recorded() as found, torch.no_grad():
            value, log_det = layer(x, context) if time > 0 else layer.inverse(x, context)
        if not found:
            return "SILENT: nothing was recorded"
        outcome = compare(value, exact_value(matrix, x, time), x, found[-1], used)
        trace = time * matrix.diagonal(dim1=-2, dim2=-1)
        wrong = float((log_det.double() - trace.sum(-1)).abs().max()) if len(log_det) else 0.0
        if not wrong <= FACTOR * used * max(1.0, float(trace.abs().sum(-1).max())):
            return f"SILENT: log-determinant off by {wrong:.1g}"
        if outcome != "right":
            return outcome
    return "right"


def normal(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Draw."""
    return torch.randn(*shape, dtype=DOUBLE).to(dtype)


def with_norm(matrix: Tensor, norm: float) -> Tensor:
    """Scale a matrix."""
    return matrix * (norm / torch.linalg.matrix_norm(matrix, 2))


def skew_part(matrix: Tensor) -> Tensor:
    """Give the skew part."""
    return (matrix - matrix.mT) / 2


PAIR = lk.GraphBatch(torch.tensor([3, 2]), torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]]))

# Maps of about a norm, with the shape of their input.
BUILDERS: dict[str, tuple[Callable[[float, torch.dtype], LinearMap], tuple[int, ...]]] = {
    "dense, few rows": (lambda s, d: lk.Dense(with_norm(normal(6, 6), s).to(d)), (2, 6)),
    "dense, many rows": (lambda s, d: lk.Dense(with_norm(normal(4, 4), s).to(d)), (40, 4)),
    "dense, own rows": (lambda s, d: lk.Dense((s / 4 * normal(3, 4, 4)).to(d)), (3, 4)),
    "symmetric": (lambda s, d: lk.Dense((s / 4 * normal(6, 6)).to(d), "symmetric"), (2, 6)),
    "diagonal": (lambda s, d: lk.Diagonal((s * torch.linspace(-1, 1, 5)).to(d)), (3, 5)),
    "conv": (lambda s, d: lk.ConvMap((s / 5 * normal(2, 2, 3, 3)).to(d)), (2, 2, 4, 4)),
    "conv circular": (lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3)).to(d), "circular"), (2, 2, 7)),
    "conv reflect": (lambda s, d: lk.ConvMap((s / 5 * normal(2, 2, 3)).to(d), "reflect"), (2, 2, 7)),
    "conv own rows": (lambda s, d: lk.ConvMap((s / 5 * normal(3, 2, 2, 3)).to(d), own_rows=True), (3, 2, 6)),
    "sets": (lambda s, d: lk.SetMap((s / 4 * normal(3, 3)).to(d), (s / 4 * normal(3, 3)).to(d)), (2, 3, 5)),
    "pairs": (lambda s, d: lk.PairMap((s / 8 * normal(15, 2, 2)).to(d)), (2, 2, 3, 3)),
    "graph": (lambda s, d: lk.GraphMap((s / 4 * normal(2, 2)).to(d), (s / 4 * normal(2, 2)).to(d), PAIR), (5, 2)),
    "complete graph": (
        lambda s, d: lk.GraphMap(
            (s / 4 * normal(2, 2)).to(d), (s / 4 * normal(2, 2)).to(d), lk.GraphBatch.complete([3, 2])
        ),
        (5, 2),
    ),
    "sum": (
        lambda s, d: lk.ConvMap((s / 6 * normal(2, 2, 3)).to(d)) + lk.Dense((s / 6 * normal(2, 2)).to(d)),
        (2, 2, 6),
    ),
    "product": (
        lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3)).to(d)) @ lk.Dense(with_norm(normal(2, 2), 1).to(d)),
        (2, 2, 6),
    ),
    "scaled": (
        lambda s, d: torch.tensor(0.5, dtype=d) * lk.Dense(with_norm(normal(4, 4), 2 * s).to(d)),
        (2, 4),
    ),
}
SKEWS: dict[str, tuple[Callable[[float, torch.dtype], LinearMap], tuple[int, ...]]] = {
    "skew, few rows": (lambda s, d: lk.Skew(with_norm(skew_part(normal(6, 6)), s).to(d)), (2, 6)),
    "skew, many rows": (lambda s, d: lk.Skew(with_norm(skew_part(normal(6, 6)), s).to(d)), (60, 6)),
    "skew, own rows": (lambda s, d: lk.Skew((s / 3 * normal(3, 4, 4)).to(d)), (3, 4)),
    "skew conv": (lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3, 3)).to(d), symmetry="skew"), (2, 2, 4, 4)),
    "skew conv circular": (
        lambda s, d: lk.ConvMap((s / 2 * normal(2, 2, 3)).to(d), "circular", symmetry="skew"),
        (2, 2, 7),
    ),
}


def double_matrix(map_: LinearMap, event: Shape) -> Tensor:
    """Form the matrix of a map of any dtype."""
    tensors = {n: t.double() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    return matrix_of(map_.with_tensors(tensors), event)


def judge_built(
    name: str, norm: float, dtype: torch.dtype, *, change: Callable[[Tensor], Tensor] = lambda x: x, **more: Any
) -> str:
    """Build a map of about a norm and judge the engine on a random input."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(norm, dtype)
    x = change(normal(*shape)).to(dtype)
    return judge(map_, double_matrix(map_, tuple(x.shape[1:])), x, **more)


def non_finite() -> None:  # noqa: C901 - a list of cases
    """Add inputs, parameters, times and norms that are not finite."""
    for bad in (math.nan, math.inf, -math.inf):
        for name in BUILDERS | SKEWS:
            build, shape = (BUILDERS | SKEWS)[name]

            def of_input(build: Any = build, shape: Any = shape, bad: float = bad) -> str:
                x = normal(*shape)
                x.view(-1)[random.randrange(x.numel())] = bad
                lk.exp_action(build(1.0, DOUBLE), x)
                return "SILENT: accepted"

            def of_map(build: Any = build, shape: Any = shape, bad: float = bad, name: str = name) -> str:
                map_ = build(1.0, DOUBLE)
                tensors = {n: t.clone() for n, t in map_.tensors().items()}
                damaged = random.choice([t for t in tensors.values() if t.is_floating_point()])
                damaged.view(-1)[random.randrange(damaged.numel())] = bad
                action = lk.exp_action(map_.with_tensors(tensors), normal(*shape))
                diagonal_of_skew = "skew" in name and damaged.ndim == 2
                return "right" if diagonal_of_skew and bool(action.value.isfinite().all()) else "SILENT: accepted"

            add("non-finite", f"input {bad}: {name}", of_input, times=3, must="refuse")
            add("non-finite", f"parameter {bad}: {name}", of_map, times=3, must="refuse")
    for time in (math.nan, math.inf, -math.inf):
        for name in BUILDERS | SKEWS:
            add("non-finite", f"time {time}: {name}", lambda n=name, t=time: judge_time(n, t), must="refuse")
    for norm in (math.nan, math.inf, -1.0, 0.0):
        for name, make in declared(lambda exact, norm=norm: norm).items():
            add("non-finite", f"declared norm {norm}: {name}", lambda m=make: judge(*m()))
    for kind in ("conv", "dense", "rotation", "graph"):
        for frozen in (False, True):
            add(
                "non-finite",
                f"layer {kind}, NaN weight, frozen {frozen}",
                lambda k=kind, f=frozen: nan_layer(k, f),
                must="refuse",
            )


def judge_time(name: str, time: float) -> str:
    """Run with a time that is not finite."""
    build, shape = (BUILDERS | SKEWS)[name]
    lk.exp_action(build(1.0, DOUBLE), normal(*shape), time=time)
    return "SILENT: accepted"


def nan_layer(kind: str, frozen: bool) -> str:  # noqa: FBT001 - a case
    """Run a flow whose layer has a NaN among its weights."""
    layer, shape, context = {
        "conv": (lk.conv_exponential(2), (2, 4, 4), None),
        "dense": (lk.dense_exponential(3), (3,), None),
        "rotation": (lk.rotation(3), (3,), None),
        "graph": (lk.graph_exponential(2), (2,), lk.Context(structure=PAIR)),
    }[kind]
    with torch.no_grad():
        parameter = next(iter(layer.parameters()))
        parameter[(0,) * (parameter.ndim - 1) + (1,)] = math.nan
    flow = lk.Flow(lk.Normal(shape), layer)
    x = torch.randn(5, *shape)
    with torch.no_grad():
        if frozen:
            with flow.frozen():
                flow.log_prob(x, context)
        else:
            flow.log_prob(x, context)
    return "SILENT: accepted"


def declared(norm: Callable[[float], float], few: int = 2) -> dict[str, Callable[[], tuple[LinearMap, Tensor, Tensor]]]:
    """Give makers of (map, matrix, input) whose norm is declared as a function of the exact norm."""

    def function() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = normal(6, 6)
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        return lk.Function(lambda x: x @ matrix.T, norm=norm(exact)), matrix, normal(few, 6)

    def nilpotent() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = 2 * torch.diag(torch.ones(11, dtype=DOUBLE), 1)
        return lk.Function(lambda x: x @ matrix.T, norm=norm(2.0)), matrix, normal(few, 12)

    def symmetric_function() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = normal(6, 6)
        matrix = with_norm(matrix + matrix.T, 4)
        return lk.Function(lambda x: x @ matrix.T, norm=norm(4.0)), matrix, normal(few, 6)

    def conv(symmetry: Any, padding: Any) -> tuple[LinearMap, Tensor, Tensor]:
        kernel = 0.5 * normal(2, 2, 3)
        matrix = matrix_of(lk.ConvMap(kernel, padding, symmetry=symmetry), (2, 8))
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        return lk.ConvMap(kernel, padding, norm=norm(exact), symmetry=symmetry), matrix, normal(few, 2, 8)

    def skew() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = with_norm(skew_part(normal(6, 6)), 3)
        return lk.Skew(matrix, norm=norm(3.0)), matrix, normal(few, 6)

    return {
        "function": function,
        "nilpotent function": nilpotent,
        "symmetric function": symmetric_function,
        "conv": lambda: conv(None, "zeros"),
        "conv circular": lambda: conv(None, "circular"),
        "conv symmetric": lambda: conv("symmetric", "zeros"),
        "conv skew": lambda: conv("skew", "zeros"),
        "skew": skew,
    }


def low_norms() -> None:  # noqa: C901 - a list of cases
    """Add declared norms that are too low, for every way to use them."""
    for factor in (1.5, 3.0, 10.0, 20.0):

        def lower(exact: float, factor: float = factor) -> float:
            return exact / factor

        for dtype in (DOUBLE, SINGLE):
            for rows in (2, 40):
                for name, make in declared(lower, rows).items():
                    title = f"{name}, norm / {factor:g}, {rows} rows, {str(dtype)[6:]}"
                    add("declared norm", title, lambda m=make, d=dtype: judge_cast(m, d), times=5)
        for name, make in declared(lower).items():
            title = f"{name}, norm / {factor:g}"
            add("declared norm", f"{title}, frozen", lambda m=make: judge_frozen(m), times=5)
            add("declared norm", f"{title}, method dense", lambda m=make: judge(*m(), method="dense"), times=5)
            add("declared norm", f"{title}, faint component", lambda m=make: judge_faint(m), times=5)
            add("declared norm", f"{title}, vmap", lambda m=make: judge_vmap(m), times=5, informative=True)
            if name == "conv circular":
                add("declared norm", f"{title}, fourier", lambda m=make: judge(*m(), method="fourier"), times=5)
    for name, make in declared(lambda exact: exact * (1 + 1e-9)).items():
        for dtype in (DOUBLE, SINGLE):
            title = f"{name}, exact norm, {str(dtype)[6:]}"
            add("declared norm", title, lambda m=make, d=dtype: judge_cast(m, d), times=10, must="accept")
        add("declared norm", f"{name}, exact norm, vmap", lambda m=make: judge_vmap(m), times=5, must="accept")
    for norm in (30.0, 50.0):
        add("condition", f"function of norm {norm:g} in float32 under vmap", lambda n=norm: hopeless_vmap(n), times=5)


def cast(made: tuple[LinearMap, Tensor, Tensor], dtype: torch.dtype) -> tuple[LinearMap, Tensor, Tensor]:
    """Give a map, its matrix and an input in a dtype."""
    map_, matrix, x = made
    if isinstance(map_, lk.Function):
        own = matrix.to(dtype)
        return lk.Function(lambda x: x @ own.T, norm=map_.norm), own.double(), x.to(dtype)
    map_ = map_.with_tensors({n: t.to(dtype) for n, t in map_.tensors().items()})
    return map_, double_matrix(map_, tuple(x.shape[1:])), x.to(dtype)


def judge_cast(make: Callable[[], tuple[LinearMap, Tensor, Tensor]], dtype: torch.dtype) -> str:
    """Judge in a dtype."""
    return judge(*cast(make(), dtype))


def judge_frozen(make: Callable[[], tuple[LinearMap, Tensor, Tensor]]) -> str:
    """Judge a layer inside `frozen()`."""
    map_, matrix, x = make()
    layer = lk.Exponential(map_)
    with layer.frozen():
        return judge_layer(layer, matrix, x)


def judge_faint(make: Callable[[], tuple[LinearMap, Tensor, Tensor]]) -> str:
    """Judge an input that lies where the map does little, but for a faint part where it does most."""
    map_, matrix, x = make()
    values, vectors = torch.linalg.eigh(matrix.T @ matrix)
    row = vectors[:, 0] + 1e-7 * vectors[:, -1]
    return judge(map_, matrix, row.expand(2, -1).reshape(x.shape).clone(), tol=1e-8)


def judge_vmap(make: Callable[[], tuple[LinearMap, Tensor, Tensor]]) -> str:
    """Judge under `torch.vmap`, where nobody can look at the terms."""
    map_, matrix, x = make()
    value = torch.vmap(lambda row: lk.exp_action(map_, row[None]).value[0])(x)
    return compare(value, exact_value(matrix, x, 1.0), x, None, tolerance(x.dtype))


def hopeless_vmap(norm: float) -> str:
    """Judge a map of large norm in single precision under `torch.vmap`."""
    matrix = with_norm(normal(6, 6), norm).float()
    map_ = lk.Function(lambda x: x @ matrix.T, norm=norm * 1.0001)
    x = normal(3, 6).float()
    value = torch.vmap(lambda row: lk.exp_action(map_, row[None]).value[0])(x)
    return compare(value, exact_value(matrix.double(), x, 1.0), x, None, tolerance(x.dtype))


def large_norms() -> None:  # noqa: C901 - a list of cases
    """Add overflow, norms beyond the limit and hopeless condition numbers."""
    for norm in (20.0, 35.0, 50.0):
        for name in BUILDERS:
            add(
                "condition",
                f"norm {norm:g} in float32: {name}",
                lambda n=name, s=norm: judge_built(n, s, SINGLE),
                times=5,
            )
            add(
                "condition",
                f"norm {norm:g} in float64: {name}",
                lambda n=name, s=norm: judge_built(n, s, DOUBLE),
                times=5,
            )
        for name in SKEWS:
            for dtype in (SINGLE, DOUBLE):
                title = f"norm {norm:g} in {str(dtype)[6:]}: {name}"
                add("condition", title, lambda n=name, s=norm, d=dtype: judge_built(n, s, d), times=5, must="accept")
                title += ", frozen layer"
                add("condition", title, lambda n=name, s=norm, d=dtype: frozen_built(n, s, d), times=3, must="accept")
    for norm in (5.0, 8.0, 12.0):
        for name in BUILDERS:
            for dtype in (SINGLE, DOUBLE):
                title = f"norm {norm:g} in {str(dtype)[6:]}: {name}"
                add("condition", title, lambda n=name, s=norm, d=dtype: judge_built(n, s, d), times=5)
    for norm in (120.0, 400.0, 700.0, 1e4, 1e10, 1e37):
        for name in BUILDERS:
            for dtype in (SINGLE, DOUBLE):
                title = f"norm {norm:g} in {str(dtype)[6:]}: {name}"
                add("overflow", title, lambda n=name, s=norm, d=dtype: judge_built(n, s, d))
    for norm in (1e3, 1e4, 1e5, 1e12, 1e30):
        for name in SKEWS:
            for dtype in (SINGLE, DOUBLE):
                title = f"norm {norm:g} in {str(dtype)[6:]}: {name}"
                add("overflow", title, lambda n=name, s=norm, d=dtype: judge_built(n, s, d))
    for trace in (-900.0, -200.0, -50.0, 50.0, 100.0, 650.0):
        add("overflow", f"trace {trace:g} per channel in float32", lambda t=trace: shifted(t, SINGLE))
        add("overflow", f"trace {trace:g} per channel in float64", lambda t=trace: shifted(t, DOUBLE))


def shifted(trace: float, dtype: torch.dtype) -> str:
    """Judge a matrix with a large trace."""
    matrix = (with_norm(normal(4, 4), 1.0) + trace * torch.eye(4)).to(dtype)
    return judge(lk.Dense(matrix), matrix.double(), normal(2, 4).to(dtype))


def frozen_built(name: str, norm: float, dtype: torch.dtype) -> str:
    """Judge a layer with a constant map inside `frozen()`."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(norm, dtype)
    layer = lk.Exponential(map_)
    with layer.frozen():
        return judge_layer(layer, double_matrix(map_, shape[1:]), normal(*shape).to(dtype))


def wrong_functions() -> None:
    """Add callables that are not linear, or not the same function of each row."""
    matrix = with_norm(normal(4, 4), 1.0)

    def linear(x: Tensor) -> Tensor:
        return x @ matrix.to(x).T

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "tanh": lambda x: torch.tanh(linear(x)),
        "relu": lambda x: torch.relu(linear(x)),
        "abs": lambda x: linear(x).abs(),
        "softmax": lambda x: linear(x).softmax(1),
        "square": lambda x: linear(x) + 1e-3 * x**2,
        "faint square": lambda x: linear(x) + 1e-5 * x**2,
        "very faint square": lambda x: linear(x) + 1e-7 * x**2,
        "plus 1": lambda x: linear(x) + 1,
        "plus 1e-3": lambda x: linear(x) + 1e-3,
        "plus 1e-4": lambda x: linear(x) + 1e-4,
        "plus 1e-6": lambda x: linear(x) + 1e-6,
        "plus 1e-8": lambda x: linear(x) + 1e-8,
        "layer norm": lambda x: nn.functional.layer_norm(x, x.shape[1:]),
        "mean of the batch taken off": lambda x: linear(x) - x.mean(0),
        "rows rolled": lambda x: linear(x).roll(1, 0),
        "rounded": lambda x: linear(x).round(decimals=3),
        "in single precision": lambda x: linear(x.float()).to(x.dtype),
        "in bfloat16": lambda x: linear(x.bfloat16()).to(x.dtype),
        "result in bfloat16": lambda x: linear(x).bfloat16(),
        "result in single precision": lambda x: linear(x).float(),
        "sorted": lambda x: linear(x).sort(1)[0],
        "normed by the largest": lambda x: linear(x) / x.abs().amax().clamp_min(1e-3),
        "changes its input": lambda x: x.mul_(0.5),
        "changes its input and gives another": lambda x: linear(x.mul_(0.5)),
        "dropout": lambda x: nn.functional.dropout(linear(x), 0.5, training=True),
        "noise": lambda x: linear(x) + 1e-3 * torch.randn_like(x),
        "complex": lambda x: linear(x) * (1 + 0.1j),
        "another shape": lambda x: linear(x)[:, :2],
        "one column": lambda x: linear(x)[:, :1],
        "more rows": lambda x: linear(x).repeat(2, 1),
        "a list": lambda x: [linear(x)],  # pyright: ignore[reportAssignmentType]
    }
    for name, function in functions.items():
        for dtype in (DOUBLE, SINGLE):
            for norm in (None, 2.0):

                def run(function: Any = function, dtype: Any = dtype, norm: Any = norm, name: str = name) -> str:
                    own = 0.5 * torch.eye(4) if name.startswith("changes its input") else matrix
                    x = normal(3, 4).to(dtype)
                    return judge(lk.Function(function, norm=norm), own.to(dtype).double(), x)

                title = f"{name}, {'probed' if norm is None else 'declared'}, {str(dtype)[6:]}"
                add("functions", title, run, times=3)
    modules: dict[str, Callable[[], nn.Module]] = {
        "Linear with bias": lambda: nn.Linear(4, 4),
        "Linear with a faint bias": lambda: with_bias(1e-4),
        "Linear with a very faint bias": lambda: with_bias(1e-6),
        "BatchNorm": lambda: nn.BatchNorm1d(4),
        "Dropout": lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.Dropout(0.3)),
        "Dropout 0.05": lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.Dropout(0.05)),
        "ReLU": lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU()),
        "LeakyReLU": lambda: nn.Sequential(nn.Linear(4, 4, bias=False), nn.LeakyReLU(0.999)),
        "other size": lambda: nn.Linear(4, 5, bias=False),
    }
    for name, build in modules.items():
        add("functions", f"module {name}", lambda b=build: judge_module(b()), times=10)


def with_bias(bias: float) -> nn.Module:
    """Give a linear module with a bias of that size."""
    module = nn.Linear(4, 4)
    with torch.no_grad():
        module.bias.fill_(bias)
    return module


def judge_module(module: nn.Module) -> str:
    """Judge a layer made of a module by its linear part."""
    first = next(m for m in module.modules() if hasattr(m, "weight") or not list(m.children()))
    weight = getattr(first, "weight", torch.eye(4)).detach()
    matrix = torch.diag(weight) if weight.ndim == 1 else weight
    return judge_layer(lk.linear_exponential(module), matrix.double()[:4], torch.randn(3, 4))


def shapes() -> None:  # noqa: C901 - a list of cases
    """Add inputs of wrong shape, wrong numbers of own rows, wrong types."""
    for name, (build, shape) in (BUILDERS | SKEWS).items():
        wrong = {
            "more channels": (shape[0], shape[1] + 1, *shape[2:]),
            "one channel": (shape[0], 1, *shape[2:]),
            "one axis": (shape[1],),
            "no axis": (),
            "more axes": (*shape, 2, 2),
        }
        if "own rows" in name or "graph" in name:
            wrong |= {
                "other rows": (7, *shape[1:]),
                "one row": (1, *shape[1:]),
                "twice the rows": (2 * shape[0], *shape[1:]),
            }
        for what, other in wrong.items():
            # Dense maps take any number of positions, convolutions any size.
            if what == "more axes" and (
                "dense" in name or "sym" in name or "diag" in name or "skew," in name or "scaled" in name
            ):
                continue
            add("shapes", f"{what}: {name}", lambda b=build, s=other: accepted(b, torch.randn(s)), must="refuse")
        for dtype in (torch.int64, torch.bool, torch.complex64, torch.uint8):
            title = f"{str(dtype)[6:]} input: {name}"
            add("shapes", title, lambda b=build, s=shape, d=dtype: accepted(b, torch.ones(s).to(d)), must="refuse")
    for build, rows in ((lambda: lk.Diagonal(torch.randn(1, 4)), 3), (lambda: lk.SetMap(*torch.randn(2, 1, 4, 4)), 3)):
        add(
            "shapes",
            f"own rows 1 of {rows}",
            lambda b=build, r=rows: accepted(lambda s, d: b(), torch.randn(r, 4, 2)),
            must="refuse",
        )
    for parts in ((2, 3), (3, 1)):

        def mixed(parts: Any = parts) -> str:
            first = lk.ConvMap(0.2 * torch.randn(parts[0], 2, 2, 3), own_rows=True)
            lk.exp_action(first + lk.Dense(0.2 * torch.randn(parts[1], 2, 2)), torch.randn(parts[0], 2, 5))
            return "SILENT: accepted"

        add("shapes", f"sum of maps with {parts[0]} and {parts[1]} rows", mixed, must="refuse")
    layer = lk.dense_exponential(3, condition_features=2)
    for rows in (1, 4):
        add(
            "shapes",
            f"condition of {rows} rows for 3",
            lambda r=rows: str(layer(torch.randn(3, 3), torch.randn(r, 2))) and "SILENT: accepted",
            must="refuse",
        )
    for mask in (torch.ones(2, 2), torch.ones(5, 5), torch.ones(3, 2, 3, 3), torch.ones(4)):
        add(
            "shapes",
            f"mask {tuple(mask.shape)}",
            lambda m=mask: str(lk.ConvMap(torch.randn(2, 2, 3, 3), mask=m)) and "SILENT: accepted",
            must="refuse",
        )
    for symmetry in ("symmetric", "skew"):
        add("shapes", f"mask of a {symmetry} convolution is kept", lambda s=symmetry: masked(s))


def accepted(build: Any, x: Tensor) -> str:
    """Run what should be refused."""
    lk.exp_action(build(1.0, SINGLE), x)
    return "SILENT: accepted"


def masked(symmetry: Any) -> str:
    """Look whether taps that the mask closes stay closed."""
    mask = torch.ones(3, 3).tril(1)
    map_ = lk.ConvMap(torch.randn(2, 2, 3, 3), "circular", mask=mask, symmetry=symmetry)
    return "right" if bool((map_.effective[..., mask == 0] == 0).all()) else "SILENT: a masked tap is not zero"


def graphs() -> None:
    """Add graphs that are not undirected, or whose weights are unusable."""
    sizes = torch.tensor([3])
    weights = torch.ones(4)
    index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    bad = {
        "directed": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 1], [1, 0, 2]])),
        "directed cycle": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 2], [1, 2, 0]])),
        "duplicate edges": lambda: lk.GraphBatch(sizes, torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]])),
        "weights of one edge differ": lambda: lk.GraphBatch(sizes, index, torch.tensor([1.0, 2.0, 1.0, 1.0])),
        "negative weights": lambda: lk.GraphBatch(sizes, index, -weights),
        "NaN weights": lambda: lk.GraphBatch(sizes, index, weights * math.nan),
        "infinite weights": lambda: lk.GraphBatch(sizes, index, weights * math.inf),
        "huge weights": lambda: lk.GraphBatch(sizes, index, weights.double() * 1e308 * 1.7),
        "weights that are trained": lambda: lk.GraphBatch(sizes, index, weights.requires_grad_()),
    }
    for name, make in bad.items():
        for settings in ({}, {"method": "series"}, {"degree": 4}, {"method": "adjacency"}):

            def run(make: Any = make, settings: Any = settings) -> str:
                lk.exp_action(lk.GraphMap(torch.randn(2, 2), torch.randn(2, 2), make()), torch.randn(3, 2), **settings)
                return "SILENT: accepted"

            add("graphs", f"{name}, {settings or 'auto'}", run, must="refuse")
        add(
            "graphs",
            f"{name}, layer",
            lambda m=make: (
                str(lk.graph_exponential(2)(torch.randn(3, 2), lk.Context(structure=m()))) and "SILENT: accepted"
            ),
            must="refuse",
        )
    tiny = lk.GraphBatch(sizes, index, weights.double() * 1e-300)
    add("graphs", "tiny weights", lambda: judge_graph(tiny), must="accept")
    lonely = lk.GraphBatch(torch.tensor([2, 0, 1]), torch.empty(2, 0, dtype=torch.long))
    add("graphs", "no edges, an empty graph", lambda: judge_graph(lonely), must="accept")


def judge_graph(graph: lk.GraphBatch) -> str:
    """Judge a graph."""
    map_ = lk.GraphMap(normal(2, 2), normal(2, 2), graph)
    return judge(map_, matrix_of(map_, (2,)), normal(len(graph.owner), 2))


def limits() -> None:  # noqa: C901 - a list of cases
    """Add degrees, tolerances and times at their limits."""
    for name in BUILDERS | SKEWS:
        for tol in (1e-300, 1e-18, 1e-9):
            title = f"tol {tol:g} in float32: {name}"
            add("limits", title, lambda n=name, t=tol: judge_built(n, 2.0, SINGLE, tol=t))
        for tol in (0.0, -1.0, math.nan):
            title = f"tol {tol:g}: {name}"
            add("limits", title, lambda n=name, t=tol: judge_invalid(n, t), must="refuse")
    for degree in (-1, 0, 2, 1000):
        add("limits", f"degree {degree}", lambda d=degree: judge_built("dense, few rows", 4.0, DOUBLE, degree=d))
        add("limits", f"layer with degree {degree}", lambda d=degree: judge_degree(d))
    for scale in (1e-2, 1e-4, 1e-6, 1e-8, 1e-12, 1e-20, 1e-30):
        for name in BUILDERS | SKEWS:
            for dtype in (SINGLE, DOUBLE):
                title = f"map of norm {scale:g}, time {2 / scale:g}, {str(dtype)[6:]}: {name}"
                add("limits", title, lambda n=name, s=scale, d=dtype: judge_built(n, s, d, time=2 / s), must="accept")
    for name in BUILDERS | SKEWS:
        add("limits", f"time 0: {name}", lambda n=name: judge_built(n, 3.0, DOUBLE, time=0.0), must="accept")
        add("limits", f"time 1e6: {name}", lambda n=name: judge_built(n, 3.0, DOUBLE, time=1e5))
        add("limits", f"time -1e300: {name}", lambda n=name: judge_built(n, 3.0, DOUBLE, time=-1e300))
        add("limits", f"zero map: {name}", lambda n=name: judge_built(n, 0.0, SINGLE), must="accept")
        zero = {"change": lambda x: 0 * x}
        add("limits", f"zero input: {name}", lambda n=name, z=zero: judge_built(n, 2.0, SINGLE, **z), must="accept")
        for size in (0, 1):
            shape = (BUILDERS | SKEWS)[name][1]
            if size == 0 and ("own rows" in name or "graph" in name):
                continue
            cut = {"change": lambda x, s=size: x[:s]}
            if size == 0 or ("own rows" not in name and "graph" not in name):
                title = f"{size} rows: {name}"
                add("limits", title, lambda n=name, c=cut: judge_built(n, 2.0, SINGLE, **c), must="accept")
        for scale in (1e-40, 1e-30, 1e-15, 1e15, 1e30, 1e36):
            change = {"change": lambda x, s=scale: s * x}
            title = f"input of size {scale:g} in float32: {name}"
            must = "accept" if 1e-31 < scale < 1e31 else None
            add("limits", title, lambda n=name, c=change: judge_built(n, 2.0, SINGLE, **c), must=must)
        for scale in (1e-310, 1e-200, 1e200, 1e300):
            change = {"change": lambda x, s=scale: s * x}
            title = f"input of size {scale:g} in float64: {name}"
            must = "accept" if 1e-201 < scale < 1e201 else None
            add("limits", title, lambda n=name, c=change: judge_built(n, 2.0, DOUBLE, **c), must=must)
    for own in (
        lambda: lk.Dense(torch.randn(0, 4, 4)),
        lambda: lk.Diagonal(torch.randn(0, 4)),
        lambda: lk.SetMap(*torch.randn(2, 0, 4, 4)),
        lambda: lk.ConvMap(torch.randn(0, 4, 4, 3), own_rows=True),
    ):
        add(
            "limits",
            "own rows, none of them",
            lambda o=own: str(lk.exp_action(o(), torch.randn(0, 4, 5)).value) and "right",
            must="accept",
        )
    for build, shape in (
        (lambda: lk.conv_exponential(2), (2, 4, 4)),
        (lambda: lk.rotation(3), (3,)),
        (lambda: lk.dense_exponential(3), (3,)),
        (lambda: lk.equivariant_exponential(2, "sets"), (2, 3)),
        (lambda: lk.linear_exponential(nn.Linear(3, 3, bias=False)), (3,)),
    ):
        for frozen in (False, True):
            add(
                "limits",
                f"empty batch, layer of {shape}, frozen {frozen}",
                lambda b=build, s=shape, f=frozen: empty_flow(b(), s, f),
                must="accept",
            )
    for condition in (lk.dense_exponential(3, condition_features=2), lk.rotation(3, condition_features=2)):
        add(
            "limits",
            "empty batch, conditional layer",
            lambda c=condition: str(c(torch.randn(0, 3), torch.randn(0, 2))) and "right",
            must="accept",
        )
    for event in ((2, 0), (2, 1)):
        add(
            "limits",
            f"sets of {event[1]} elements",
            lambda e=event: judge_event(lk.SetMap(normal(2, 2), normal(2, 2)), e),
        )
    for norm in (1.0, 10.0, 50.0):
        for dtype in (SINGLE, DOUBLE):
            title = f"sets of one element, matrices of size {norm:g} that cancel, {str(dtype)[6:]}"
            add("limits", title, lambda n=norm, d=dtype: judge_cancelling(n, d), times=3)
    for event in ((1, 0, 0), (1, 1, 1), (1, 2, 2)):
        add("limits", f"pairs of {event[1]} nodes", lambda e=event: judge_event(lk.PairMap(0.3 * normal(15, 1, 1)), e))
    add("limits", "image without pixels", lambda: judge_event(lk.ConvMap(normal(2, 2, 3, 3)), (2, 0, 4)))
    add("limits", "no channels", lambda: judge_event(lk.Dense(normal(0, 0)), (0,)))
    add(
        "limits",
        "graph without nodes",
        lambda: judge_graph(lk.GraphBatch(torch.tensor([0]), torch.empty(2, 0, dtype=torch.long))),
    )


def judge_invalid(name: str, tol: float) -> str:
    """Ask for a tolerance that is none."""
    outcome = judge_built(name, 2.0, SINGLE, tol=tol)
    return outcome if outcome == "admitted" else "SILENT: accepted"


def judge_cancelling(norm: float, dtype: torch.dtype) -> str:
    """Judge sets of one element, on which only the sum of the two matrices counts."""
    first, second = (norm * normal(2, 2)).to(dtype), (0.5 * normal(2, 2)).to(dtype)
    map_ = lk.SetMap(first, second - first)
    return judge(map_, double_matrix(map_, (2, 1)), normal(3, 2, 1).to(dtype))


def judge_event(map_: LinearMap, event: Shape) -> str:
    """Judge a map on events of few numbers."""
    size = math.prod(event)
    matrix = matrix_of(map_, event) if size else torch.zeros(0, 0)
    return (
        judge(map_, matrix, normal(3, *event))
        if size
        else str(lk.exp_action(map_, normal(3, *event)).value) and "right"
    )


def judge_degree(degree: int) -> str:
    """Judge a layer with a fixed degree: the diagnostics must not claim convergence."""
    matrix = with_norm(normal(4, 4), 4.0)
    return judge_layer(lk.Exponential(lk.Dense(matrix), degree=degree), matrix, normal(2, 4))


def empty_flow(layer: Any, shape: Shape, frozen: bool) -> str:  # noqa: FBT001 - a case
    """Run a flow without rows."""
    flow = lk.Flow(lk.Normal(shape), layer)
    x = torch.randn(0, *shape)
    if frozen:
        with flow.frozen():
            found = flow.log_prob(x)
    else:
        found = flow.log_prob(x)
        found.sum().backward()
    return "right" if found.shape == (0,) and len(flow.certificate(x).nats) == 0 else "SILENT: wrong shape"


def precisions() -> None:
    """Add half precision, mixed dtypes and autocast."""
    for dtype in (torch.float16, torch.bfloat16):
        for norm in (0.3, 1.5, 4.0):
            for name in BUILDERS | SKEWS:
                title = f"{str(dtype)[6:]}, norm {norm:g}: {name}"
                add("precision", title, lambda n=name, s=norm, d=dtype: judge_built(n, s, d), times=2)
        add("precision", f"{str(dtype)[6:]} log-determinant of a large image", lambda d=dtype: half_log_det(d))
        for what in ("conv", "dense", "rotation"):
            title = f"{str(dtype)[6:]} layer {what}"
            add("precision", title, lambda w=what, d=dtype: half_layer(w, d))
    for name, (build, shape) in (BUILDERS | SKEWS).items():
        for of_map, of_x in ((SINGLE, DOUBLE), (DOUBLE, SINGLE), (torch.float16, SINGLE)):

            def mixed(build: Any = build, shape: Any = shape, of_map: Any = of_map, of_x: Any = of_x) -> str:
                map_ = build(1.0, of_map)
                x = normal(*shape).to(of_x)
                return judge(map_, double_matrix(map_, shape[1:]), x)

            add("precision", f"{str(of_map)[6:]} map, {str(of_x)[6:]} input: {name}", mixed)
        for dtype in (SINGLE, DOUBLE):
            title = f"autocast to bfloat16, {str(dtype)[6:]}: {name}"
            add("precision", title, lambda n=name, d=dtype: autocast(n, d))
    for what in ("conv", "dense", "rotation"):
        add("precision", f"autocast, layer {what}", lambda w=what: autocast_layer(w, frozen=False))
        add("precision", f"autocast, frozen layer {what}", lambda w=what: autocast_layer(w, frozen=True))
    add("precision", "medium precision of products", medium)


def autocast(name: str, dtype: torch.dtype) -> str:
    """Judge under autocast."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(1.0, dtype)
    x = normal(*shape).to(dtype)
    matrix = double_matrix(map_, shape[1:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        action = lk.exp_action(map_, x)
    return compare(action.value, exact_value(matrix, x, 1.0), x, action.diagnostics, tolerance(dtype))


def some_layer(what: str) -> tuple[Any, Shape]:
    """Give a layer with parameters away from their start, and the shape of its events."""
    layer, shape = {
        "conv": (lk.conv_exponential(2), (2, 4, 4)),
        "dense": (lk.dense_exponential(4, norm_limit=1.0), (4,)),
        "rotation": (lk.rotation(4), (4,)),
    }[what]
    return randomize(layer, scale=0.3, seed=random.randrange(1000)), shape


def layer_matrix(layer: Any, shape: Shape) -> Tensor:
    """Form the matrix of a layer's map in double precision."""
    return double_matrix(layer.map().with_tensors({n: t.detach() for n, t in layer.map().tensors().items()}), shape)


def autocast_layer(what: str, *, frozen: bool) -> str:
    """Judge a layer under autocast."""
    layer, shape = some_layer(what)
    matrix, x = layer_matrix(layer, shape), torch.randn(3, *shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if frozen:
            with layer.frozen():
                return judge_layer(layer, matrix, x)
        return judge_layer(layer, matrix, x)


def half_layer(what: str, dtype: torch.dtype) -> str:
    """Judge a layer in half precision."""
    layer, shape = some_layer(what)
    layer = layer.to(dtype)
    return judge_layer(layer, layer_matrix(layer, shape), torch.randn(3, *shape).to(dtype))


def half_log_det(dtype: torch.dtype) -> str:
    """Look at the log-determinant of a large image."""
    layer = lk.Exponential(lk.Dense(torch.eye(3).to(dtype)))
    _, log_det = layer(torch.randn(1, 3, 200, 200).to(dtype))
    error = float((log_det.double() - 120_000).abs() / 120_000)
    return "right" if error <= FACTOR * tolerance(dtype) else f"SILENT: log-determinant {float(log_det):g}, not 120000"


def medium() -> str:
    """Judge with the lower precision of matrix products that PyTorch allows."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        return judge_built("dense, many rows", 1.0, SINGLE)
    finally:
        torch.set_float32_matmul_precision(before)


def caches() -> None:
    """Add caches of frozen layers that should be stale, and copies made inside."""
    changes: dict[str, Callable[[Any], None]] = {
        "in place": lambda layer: change_in_place(layer),
        "an optimizer's step": lambda layer: optimizer_step(layer, fused=False),
        "load_state_dict": lambda layer: layer.load_state_dict({k: v * 1.5 for k, v in layer.state_dict().items()}),
        "another parameter": lambda layer: setattr(
            layer.source, "weight", nn.Parameter(1.5 * layer.source.weight.data)
        ),
        "double": lambda layer: layer.double().float(),
        "tol": lambda layer: None,
    }
    for what in ("conv", "dense", "rotation"):
        for name, change in changes.items():
            add("frozen", f"{what}: {name}", lambda w=what, c=change, n=name: stale(w, c, n))
        title = f"{what}: "
        add("frozen", title + ".data (documented)", lambda w=what: stale(w, change_data, "data"), informative=True)
        add(
            "frozen",
            title + "fused (documented)",
            lambda w=what: stale(w, lambda m: optimizer_step(m, fused=True), "fused"),
            informative=True,
        )
        add("frozen", f"{what}: deep copy inside, then trained", lambda w=what: copied(w), must="accept")
        add("frozen", f"{what}: opened twice", lambda w=what: nested(w), must="accept")
        add("frozen", f"{what}: other dtype of input", lambda w=what: other_dtype(w))
    add("frozen", "function over a tensor that changes", closure, informative=True)
    add("frozen", "settings of a source changed", settings_changed, informative=True)


def change_in_place(layer: Any) -> None:
    """Multiply all parameters."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(1.5)


def change_data(layer: Any) -> None:
    """Change parameters behind PyTorch's back."""
    for parameter in layer.parameters():
        parameter.data.mul_(1.5)


def optimizer_step(layer: Any, *, fused: bool) -> None:
    """Make one step of Adam."""
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.Adam(layer.parameters(), lr=0.1, fused=fused).step()


def stale(what: str, change: Callable[[Any], None], name: str) -> str:
    """Use a frozen layer, change it, and use it again."""
    layer, shape = some_layer(what)
    x = torch.randn(3, *shape)
    if name == "tol":
        layer.tol = 0.1
    with layer.frozen():
        layer(x), layer.inverse(x)
        change(layer)
        layer.tol = None
        fresh = copy.deepcopy(layer)
        return judge_layer(layer, layer_matrix(fresh, shape), x)


def copied(what: str) -> str:
    """Copy a layer inside `frozen()` and train the copy."""
    layer, shape = some_layer(what)
    x = torch.randn(3, *shape)
    with layer.frozen():
        layer(x)
        twin = copy.deepcopy(layer)
        change_in_place(twin)
        first = judge_layer(twin, layer_matrix(twin, shape), x)
        twin(x)[0].sum().backward()
        lost = next(twin.parameters()).grad is None
        second = judge_layer(layer, layer_matrix(copy.deepcopy(layer), shape), x)
    return "SILENT: no gradient" if lost else first if first != "right" else second


def nested(what: str) -> str:
    """Open `frozen()` inside `frozen()`, and train afterwards."""
    layer, shape = some_layer(what)
    x = torch.randn(3, *shape)
    with layer.frozen():
        with layer.frozen():
            layer(x)
        layer(x)
    change_in_place(layer)
    return judge_layer(layer, layer_matrix(layer, shape), x)


def other_dtype(what: str) -> str:
    """Give a frozen layer inputs of another dtype."""
    layer, shape = some_layer(what)
    matrix = layer_matrix(layer, shape)
    with layer.frozen():
        layer(torch.randn(3, *shape))
        return judge_layer(layer, matrix, normal(3, *shape))


def closure() -> str:
    """Freeze a function over a tensor and change the tensor."""
    matrix = with_norm(normal(4, 4), 1.0)
    layer, x = lk.Exponential(lk.Function(lambda x: x @ matrix.T)), normal(3, 4)
    with layer.frozen():
        layer(x)
        matrix *= 1.5
        return judge_layer(layer, matrix, x)


def settings_changed() -> str:
    """Freeze a layer and change the norm limit of its source."""
    layer, shape = some_layer("dense")
    x = torch.randn(3, *shape)
    with layer.frozen():
        layer(x)
        layer.source.norm_limit = 0.3
        return judge_layer(layer, layer_matrix(copy.deepcopy(layer), shape), x)


class Attribute(LinearMap):
    """A user's map that keeps its tensor as a plain attribute."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrix.T

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return type(self)(self.matrix.T)

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrix.trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class InTuple(LinearMap):
    """A user's map that keeps its tensor in a tuple."""

    matrices: tuple[Tensor, ...]

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrices[0].T

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return InTuple((self.matrices[0].T,))

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrices[0].trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class InList(Attribute):
    """A user's map that keeps its tensor in a list."""

    matrices: list[Tensor]

    def __init__(self, matrix: Tensor) -> None:
        object.__setattr__(self, "matrices", [matrix])

    @property
    def matrix(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Give the tensor."""
        return self.matrices[0]


@dataclass(frozen=True, eq=False)
class Derived(Attribute):
    """A user's map with a field, whose tensor is derived from another that is no field."""

    size: float

    def __init__(self, matrix: Tensor, size: float = 1.0) -> None:
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "_hidden", matrix)

    @property
    def matrix(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Give the tensor."""
        return self._hidden * self.size  # pyright: ignore[reportAttributeAccessIssue]


GLOBAL: dict[str, Tensor] = {}


@dataclass(frozen=True, eq=False)
class Global(LinearMap):
    """A user's map that reads its tensor from elsewhere."""

    turned: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ (GLOBAL["matrix"] if self.turned else GLOBAL["matrix"].T)

    def adjoint(self) -> LinearMap:
        """Transpose."""
        return Global(not self.turned)

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return GLOBAL["matrix"].trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


@dataclass(frozen=True, eq=False)
class WrongAdjoint(LinearMap):
    """A user's map that says it is its own adjoint and is not."""

    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x @ self.matrix.T

    def adjoint(self) -> LinearMap:
        """Forget to transpose."""
        return self

    def trace(self, event_shape: Shape) -> Tensor:
        """Sum the diagonal."""
        return self.matrix.trace()

    def norm_bound(self, event_shape: Shape) -> float:
        """Bound the norm."""
        return 2.0


def read_global(matrix: Tensor) -> LinearMap:
    """Put the tensor where the map finds it."""
    GLOBAL["matrix"] = matrix
    return Global()


def gradients() -> None:
    """Add maps with hidden tensors, changes between forward and backward, and second backward passes."""
    makers: dict[str, Callable[[Tensor], LinearMap]] = {
        "attribute": Attribute,
        "tuple": lambda m: InTuple((m,)),
        "list": InList,
        "derived": Derived,
        "global": read_global,
        "function": lambda m: lk.Function(lambda x: x @ m.T, norm=2.0),
        "function, probed": lambda m: lk.Function(lambda x: x @ m.T),
        "dense": lk.Dense,
        "sum with a hidden one": lambda m: InTuple((0.5 * m,)) + lk.Dense(0.5 * m),
        "hidden one scaled": lambda m: 1.0 * InTuple((m,)),
        "hidden one by a tensor": lambda m: torch.ones((), dtype=DOUBLE) * InTuple((m,)),
    }
    strategies = {"default": None, "Stored": lk.Stored(), "Recompute": lk.Recompute(), "Unrolled": lk.Unrolled()}
    for name, make in makers.items():
        for title, strategy in strategies.items():
            for of_x in (True, False):
                add(
                    "gradients",
                    f"{name}, {title}, input {'too' if of_x else 'not'}",
                    lambda m=make, s=strategy, o=of_x: gradient_of(m, s, of_x=o),
                )
        add("gradients", f"{name}, dense method", lambda m=make: gradient_of(m, None, of_x=True, method="dense"))
    add("gradients", "wrong adjoint", lambda: gradient_of(WrongAdjoint, None, of_x=True), informative=True)
    add("gradients", "factor that is a vector", vector_factor)
    add("gradients", "factor that is a column", column_factor)
    add("gradients", "factor that is a vector, skew", lambda: vector_value(lk.Skew(3 * normal(4, 4))))
    for name in BUILDERS | SKEWS:
        for strategy in ("default", "Recompute", "Unrolled"):
            title = f"{name}, {strategy}"
            chosen = strategies[strategy]
            add("gradients", f"input changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "input"))
            add("gradients", f"map changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "map"))
            add("gradients", f"value changed before backward: {title}", lambda n=name, s=chosen: changed(n, s, "value"))
            add("gradients", f"backward twice: {title}", lambda n=name, s=chosen: changed(n, s, "twice"), must="accept")
        for zero in (0.0, 1e-30, 2.0):
            title = f"value changed, map of norm {zero:g}, input untouched: {name}"
            add("gradients", title, lambda n=name, z=zero: aliased(n, z), must="accept")
        add("gradients", f"diagnostics read after the input changed: {name}", lambda n=name: late(n))
        for scale in (1e-30, 1e-15, 1e15, 1e30):
            title = f"gradient for inputs of size {scale:g} in float32: {name}"
            add("gradients", title, lambda n=name, s=scale: extreme_gradient(n, s, 1.0))
            title = f"gradient from gradients of size {scale:g} in float32: {name}"
            add("gradients", title, lambda n=name, s=scale: extreme_gradient(n, 1.0, s))
        for what in LAYOUTS:
            title = f"{what} input: {name}"
            add("layouts", title, lambda n=name, w=what: layout(n, w), must="accept")


def close(found: Tensor | None, wanted: Tensor, tol: float) -> str:
    """Judge a gradient."""
    if found is None:
        return "SILENT: no gradient"
    if not bool(torch.isfinite(found).all()):
        return "SILENT: gradient not finite"
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm().clamp_min(1e-300))
    return "right" if error <= tol else f"SILENT: gradient off by {error:.0e}"


def gradient_of(make: Callable[[Tensor], LinearMap], strategy: Any, *, of_x: bool, **more: Any) -> str:
    """Compare the gradients of a user's map with those of the exponential of its matrix."""
    matrix = with_norm(normal(4, 4), 1.0).requires_grad_()
    x, g = normal(3, 4).requires_grad_(of_x), normal(3, 4)
    value = lk.exp_action(make(matrix), x, gradient=strategy, **more).value
    if not value.requires_grad:
        return "SILENT: no gradient"
    value.backward(g)
    found, found_x = matrix.grad, x.grad
    twin, y = matrix.detach().clone().requires_grad_(), x.detach().clone().requires_grad_()
    (y @ torch.linalg.matrix_exp(twin).T).backward(g)
    assert twin.grad is not None
    assert y.grad is not None
    outcome = close(found, twin.grad, 1e-8)
    return close(found_x, y.grad, 1e-8) if of_x and outcome == "right" else outcome


def vector_factor() -> str:
    """Scale a matrix by a vector, which is no multiple of it: its adjoint would be wrong."""
    factor, matrix = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=DOUBLE), with_norm(normal(4, 4), 1.0)
    x, g = normal(3, 4).requires_grad_(), normal(3, 4)
    lk.exp_action(Scaled(lk.Dense(matrix), factor), x).value.backward(g)
    return close(x.grad, g @ exponential(torch.diag(factor) @ matrix), 1e-8)


def column_factor() -> str:
    """Scale each row by a number of its own."""
    factor, matrix = torch.tensor([[0.5], [1.0], [2.0]], dtype=DOUBLE), with_norm(normal(4, 4), 1.0)
    return judge(Scaled(lk.Dense(matrix), factor), torch.stack([f * matrix for f in factor]), normal(3, 4))


def vector_value(map_: Any) -> str:
    """Scale a skew map by a vector, which makes another map of it."""
    factor = torch.tensor([0.5, 1.0, 2.0, -1.0], dtype=DOUBLE)
    return judge(Scaled(map_, factor), torch.diag(factor) @ map_.effective, normal(3, 4))


def built_gradients(name: str, dtype: torch.dtype = DOUBLE) -> tuple[LinearMap, list[Tensor], Tensor]:
    """Give a map with parameters that require gradients, those, and an input that does."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(1.0, dtype)
    leaves = {n: t.detach().clone().requires_grad_() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    x = normal(*shape).to(dtype).requires_grad_()
    return map_.with_tensors(leaves), [t for t in leaves.values() if t.requires_grad], x


def changed(name: str, strategy: Any, what: str) -> str:
    """Change something between forward and backward; the gradient must be that of the forward pass, or an error."""
    map_, leaves, x = built_gradients(name)
    g = normal(*x.shape)
    # What a map derives from its tensors has a history, which a backward pass frees; so each use gets a map of its own.
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, x, gradient=strategy).value, [x, *leaves], g)
    if what == "twice":
        value = lk.exp_action(map_, x, gradient=strategy).value
        torch.autograd.grad(value, [x, *leaves], g, retain_graph=True)
        return worst(torch.autograd.grad(value, [x, *leaves], g), wanted)
    # Not leaves themselves, so that they may be changed in place.
    inner = {n: t * 1.0 if t.is_floating_point() else t for n, t in map_.tensors().items()}
    y = x * 1.0
    value = lk.exp_action(map_.with_tensors(inner), y, gradient=strategy).value
    with torch.no_grad():
        for tensor in {"input": [y], "map": [t for t in inner.values() if t.is_floating_point()], "value": [value]}[
            what
        ]:
            tensor.mul_(1.5)
    try:
        return worst(torch.autograd.grad(value, [x, *leaves], g), wanted)
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error):
            return "refused"
        raise


def worst(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> str:
    """Judge several gradients."""
    outcomes = [close(a, b, 1e-8) for a, b in zip(found, wanted, strict=True)]
    return next((outcome for outcome in outcomes if outcome != "right"), "right")


def aliased(name: str, norm: float) -> str:
    """Change the value in place and look whether the input is still what it was."""
    build, shape = (BUILDERS | SKEWS)[name]
    x = normal(*shape)
    before = x.clone()
    lk.exp_action(build(norm, DOUBLE), x).value.add_(1)
    return "right" if torch.equal(x, before) else "SILENT: the value shares memory with the input"


def late(name: str) -> str:
    """Read the error bound after the input was changed in place."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_, x = build(1.0, DOUBLE), normal(*shape)
    early = lk.exp_action(map_, x).diagnostics.error_bound.clone()
    action = lk.exp_action(map_, x)
    x.mul_(1e-6)
    same = torch.allclose(action.diagnostics.error_bound, early, rtol=1e-6, atol=0)
    return "right" if same else "SILENT: the error bound is that of another input"


def extreme_gradient(name: str, of_x: float, of_g: float) -> str:
    """Compare gradients at extreme scales with those at scale one, which are linear in input and gradient."""
    map_, leaves, x = built_gradients(name, SINGLE)
    g = normal(*x.shape).float()
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, x).value, [x, *leaves], g)
    y = (of_x * x).detach().requires_grad_()
    found = torch.autograd.grad(lk.exp_action(map_, y).value, [y, *leaves], of_g * g)
    scales = [of_g] + [of_x * of_g] * len(leaves)
    outcomes = [close(a.double() / s, b, 1e-4) for a, b, s in zip(found, wanted, scales, strict=True)]
    return next((outcome for outcome in outcomes if outcome != "right"), "right")


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "strided": lambda x: torch.stack([x, x], -1)[..., 0],
    "flipped": lambda x: x.flip(1).contiguous().flip(1),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "offset": lambda x: torch.cat([x.flatten(), x.flatten()])[x.numel() :].view(x.shape),
    "expanded": lambda x: x[:1].expand(x.shape),
}


def layout(name: str, what: str) -> str:
    """Judge value and gradients for an input in another memory layout, and for gradients in it."""
    map_, leaves, x = built_gradients(name)
    y = LAYOUTS[what](x.detach())
    g = LAYOUTS[what](normal(*x.shape))
    plain, other = y.clone(memory_format=torch.contiguous_format).requires_grad_(), y.requires_grad_()
    first = map_.with_tensors(map_.tensors())
    wanted = torch.autograd.grad(lk.exp_action(first, plain).value, [plain, *leaves], g.contiguous())
    found = torch.autograd.grad(lk.exp_action(map_, other).value, [other, *leaves], g)
    outcome = worst(found, wanted)
    detached = map_.with_tensors({n: t.detach() for n, t in map_.tensors().items()})
    value = judge(detached, double_matrix(detached, tuple(x.shape[1:])), LAYOUTS[what](x.detach()))
    return value if outcome == "right" else outcome


def flows() -> None:
    """Add flows: certificates against determinants, and layers under inference mode."""
    for tol in (1e-2, 1e-4):
        for name in (*BUILDERS, *SKEWS):
            if "graph" not in name and "own" not in name:
                add("flows", f"certificate, tol {tol:g}: {name}", lambda n=name, t=tol: certificate(n, t), times=3)
    add("flows", "certificate of a conditional layer on graphs", lambda: conditional_certificate())
    add("flows", "frozen in inference mode, used after it", inference)
    for name in BUILDERS | SKEWS:
        add("flows", f"inference mode: {name}", lambda n=name: in_inference(n, frozen=False), must="accept")
        add(
            "flows", f"inference mode, frozen layer: {name}", lambda n=name: in_inference(n, frozen=True), must="accept"
        )
    for what in ("cayley", "conv1x1"):
        add("flows", f"autocast: {what}", lambda w=what: other_autocast(w), informative=True)


def certificate(name: str, tol: float) -> str:
    """Compare the certificate of a flow with the determinant of what was applied."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_, event = build(2.0, DOUBLE), shape[1:]
    layer = lk.Exponential(map_, tol=tol)
    size = math.prod(event)
    x = torch.eye(size, dtype=DOUBLE).reshape(size, *event)
    value, log_det = layer(x)
    nats = float(lk.Flow(lk.Normal(event), layer).double().certificate(x).nats.min())
    error = float((torch.linalg.slogdet(value.flatten(1))[1] - log_det).abs().max())
    return "right" if error <= nats + 1e-11 else f"SILENT: off by {error:.1e} nats, certified {nats:.1e}"


def conditional_certificate() -> str:
    """Ask for the certificate of a layer with parameters for each node."""
    flow = lk.Flow(lk.Normal((3,)), randomize(lk.dense_exponential(3, condition_features=2)))
    found = flow.certificate(torch.randn(5, 3), lk.Context(torch.randn(5, 2), PAIR))
    return "right" if found.nats.shape == (2,) else f"SILENT: shape {tuple(found.nats.shape)} for two graphs"


def inference() -> str:
    """Freeze in inference mode and ask for gradients later."""
    layer, shape = some_layer("dense")
    x = torch.randn(3, *shape, requires_grad=True)
    with layer.frozen():
        with torch.inference_mode():
            layer(x)
        layer(x)[0].sum().backward()
    assert x.grad is not None
    return close(x.grad, (torch.ones(3, 4).double() @ exponential(layer_matrix(layer, shape))), 1e-5)


def in_inference(name: str, *, frozen: bool) -> str:
    """Judge in inference mode, where tensors have no version counter."""
    with torch.inference_mode():
        if not frozen:
            return judge_built(name, 1.0, SINGLE)
        build, shape = (BUILDERS | SKEWS)[name]
        map_ = build(1.0, SINGLE)
        layer = lk.Exponential(map_)
        if "graph" in name:
            return judge(map_, double_matrix(map_, shape[1:]), normal(*shape).float())
        with layer.frozen():
            return judge_layer(layer, double_matrix(map_, shape[1:]), normal(*shape).float())


def other_autocast(what: str) -> str:
    """Compare a layer that is no exponential under autocast with itself without."""
    layer = lk.rotation(6, method="cayley") if what == "cayley" else lk.Conv1x1(6)
    randomize(layer, scale=0.3)
    x = torch.randn(10, 6, 4, 4)
    with torch.no_grad():
        exact = layer(x)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = layer(x)[0]
    return compare(value, exact, x, None, tolerance(SINGLE))


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def outcome_of(case: Case, seed: int) -> str:
    """Run one case."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        with quiet():
            return case.run(seed)
    except LikelifyError as error:
        return f"refused: {type(error).__name__}: {error}"
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 - what is counted
        return f"cryptic: {type(error).__name__}: {error}"


def main() -> None:
    """Run all cases and print the table."""
    options = arguments(__doc__ or "")
    for fill in (
        non_finite,
        large_norms,
        low_norms,
        wrong_functions,
        shapes,
        graphs,
        limits,
        precisions,
        caches,
        gradients,
        flows,
    ):
        torch.manual_seed(0)
        fill()
    totals: Counter[str] = Counter()
    by_group: dict[str, Counter[str]] = {}
    lines = []
    for case in CASES:
        found = [outcome_of(case, seed) for seed in range(1 if options.quick else case.times)]
        kinds = Counter(outcome.split(":")[0].split(" (")[0] for outcome in found)
        group = by_group.setdefault(case.group, Counter())
        for kind, times in kinds.items():
            kind = f"{kind} (informative)" if case.informative and kind == "SILENT" else kind
            group[kind] += times
            totals[kind] += times
            if case.must == "accept" and kind in ("refused", "cryptic"):
                totals["wrongly refused"] += times
        notable = [
            o
            for o in found
            if o.startswith(("SILENT", "cryptic", "admitted")) or (case.must == "accept" and o != "right")
        ]
        if notable:
            outcomes = ", ".join(f"{times} {kind}" for kind, times in kinds.items())
            lines.append(
                f"[{case.group}] {case.name}: {outcomes}; {notable[0][:150]}" + " (informative)" * case.informative
            )
    print("\n".join(sorted(lines, key=lambda line: ("SILENT" not in line, "cryptic" not in line, line))))
    for name, group in by_group.items():
        print(f"{name:<14}", ", ".join(f"{times} {kind}" for kind, times in group.most_common()))
    entries = [
        Entry("silent failures", totals["SILENT"], f"of {sum(totals.values())}", 0),
        Entry("silent where nothing can be checked", totals["SILENT (informative)"], "cases"),
        Entry("refused though they should work", totals["wrongly refused"], "cases", 0),
        Entry("errors without a message of the library", totals["cryptic"], "cases", aim=0),
        Entry(
            "wrong by more than the tolerance, and said so",
            totals["admitted"] + totals["admitted as rounding"],
            "cases",
        ),
    ]
    report(entries, options.json)


if __name__ == "__main__":
    main()
