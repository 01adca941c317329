"""Declared norms that are too low, overflow, and condition numbers that leave no digits."""

from collections.abc import Callable

import torch
from torch import Tensor

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, SINGLE, add, compare, exact_value, judge, judge_layer, tolerance
from benchmarks.honesty.maps import BUILDERS, SKEWS, declared, double_matrix, judge_built, normal, with_norm
from likelify.linalg.maps import LinearMap


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
    """Return a map, its matrix and an input in a dtype."""
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
    """Judge under `torch.vmap`, where the terms cannot be inspected."""
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
