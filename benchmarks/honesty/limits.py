"""Degrees, tolerances, times and sizes at their limits."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, SINGLE, add, judge, judge_layer
from benchmarks.honesty.maps import BUILDERS, SKEWS, double_matrix, judge_built, matrix_of, normal, with_norm
from benchmarks.honesty.shapes import judge_graph
from likelify import linalg, transforms
from likelify.linalg.maps import LinearMap
from likelify.shapes import Shape


def limits() -> None:
    """Add degrees, tolerances, times and sizes at their limits."""
    tolerances_and_degrees()
    times()
    for name in BUILDERS | SKEWS:
        inputs(name)
    without_rows()
    few_elements()


def tolerances_and_degrees() -> None:
    """Add tolerances that nothing attains, or that are none, and fixed degrees."""
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


def times() -> None:
    """Add small maps for a long time."""
    for scale in (1e-2, 1e-4, 1e-6, 1e-8, 1e-12, 1e-20, 1e-30):
        for name in BUILDERS | SKEWS:
            for dtype in (SINGLE, DOUBLE):
                title = f"map of norm {scale:g}, time {2 / scale:g}, {str(dtype)[6:]}: {name}"
                add("limits", title, lambda n=name, s=scale, d=dtype: judge_built(n, s, d, time=2 / s), must="accept")


def inputs(name: str) -> None:
    """Add times of zero and beyond all bounds, maps and inputs of zeros, few rows, and inputs of extreme sizes."""
    add("limits", f"time 0: {name}", lambda: judge_built(name, 3.0, DOUBLE, time=0.0), must="accept")
    add("limits", f"time 1e5: {name}", lambda: judge_built(name, 3.0, DOUBLE, time=1e5))
    add("limits", f"time -1e300: {name}", lambda: judge_built(name, 3.0, DOUBLE, time=-1e300))
    add("limits", f"zero map: {name}", lambda: judge_built(name, 0.0, SINGLE), must="accept")
    changes: list[tuple[str, torch.dtype, Callable[[Tensor], Tensor], bool]] = [
        ("zero input", SINGLE, lambda x: 0 * x, True)
    ]
    if "own rows" not in name and "graph" not in name:
        changes += [(f"{size} rows", SINGLE, lambda x, s=size: x[:s], True) for size in (0, 1)]
    for dtype, safe, scales in (
        (SINGLE, 1e31, (1e-40, 1e-30, 1e-15, 1e15, 1e30, 1e36)),
        (DOUBLE, 1e201, (1e-310, 1e-200, 1e200, 1e300)),
    ):
        for scale in scales:
            title = f"input of size {scale:g} in {str(dtype)[6:]}"
            changes.append((title, dtype, lambda x, s=scale: s * x, 1 / safe < scale < safe))
    for title, dtype, change, must in changes:

        def run(dtype: torch.dtype = dtype, change: Callable[[Tensor], Tensor] = change) -> str:
            return judge_built(name, 2.0, dtype, change=change)

        add("limits", f"{title}: {name}", run, must="accept" if must else None)


def without_rows() -> None:
    """Add batches without rows, to the engine and to layers."""
    for own in (
        lambda: lk.Dense(torch.randn(0, 4, 4)),
        lambda: linalg.Diagonal(torch.randn(0, 4)),
        lambda: linalg.SetMap(*torch.randn(2, 0, 4, 4)),
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
        (lambda: transforms.equivariant_exponential(2, "sets"), (2, 3)),
        (lambda: lk.linear_exponential(nn.Linear(3, 3, bias=False)), (3,)),
    ):
        for frozen in (False, True):
            add(
                "limits",
                f"empty batch, layer of {shape}, frozen {frozen}",
                lambda b=build, s=shape, f=frozen: empty_flow(b(), s, f),
                must="accept",
            )
    for condition in (lk.dense_exponential(3, context_features=2), lk.rotation(3, context_features=2)):
        add(
            "limits",
            "empty batch, conditional layer",
            lambda c=condition: str(c(torch.randn(0, 3), torch.randn(0, 2))) and "right",
            must="accept",
        )


def few_elements() -> None:
    """Add sets, pairs, images and graphs of one element or none."""
    for event in ((2, 0), (2, 1)):
        add(
            "limits",
            f"sets of {event[1]} elements",
            lambda e=event: judge_event(linalg.SetMap(normal(2, 2), normal(2, 2)), e),
        )
    for norm in (1.0, 10.0, 50.0):
        for dtype in (SINGLE, DOUBLE):
            title = f"sets of one element, matrices of size {norm:g} that cancel, {str(dtype)[6:]}"
            add("limits", title, lambda n=norm, d=dtype: judge_cancelling(n, d), times=3)
    for event in ((1, 0, 0), (1, 1, 1), (1, 2, 2)):
        add(
            "limits",
            f"pairs of {event[1]} nodes",
            lambda e=event: judge_event(linalg.PairMap(0.3 * normal(15, 1, 1)), e),
        )
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
    map_ = linalg.SetMap(first, second - first)
    return judge(map_, double_matrix(map_, (2, 1)), normal(3, 2, 1).to(dtype))


def judge_event(map_: LinearMap, event: Shape) -> str:
    """Judge a map on events of few elements."""
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
