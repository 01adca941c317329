"""Inputs, parameters, times and norms that are not finite."""

import math
import random
from typing import Any

import torch

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, add, judge
from benchmarks.honesty.maps import BUILDERS, PAIR, SKEWS, declared, normal


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
