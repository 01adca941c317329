"""Half precision, mixed dtypes and autocast."""

from typing import Any

import torch

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, FACTOR, SINGLE, add, compare, exact_value, judge, judge_layer, tolerance
from benchmarks.honesty.maps import BUILDERS, SKEWS, double_matrix, judge_built, layer_matrix, normal, some_layer


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
