"""Flows: certificates against determinants, inference mode, autocast."""

import math

import torch

import likelify as lk
from benchmarks.honesty.gradients import close
from benchmarks.honesty.judging import DOUBLE, SINGLE, add, compare, exponential, judge, judge_layer, tolerance
from benchmarks.honesty.maps import BUILDERS, PAIR, SKEWS, double_matrix, judge_built, layer_matrix, normal, some_layer
from likelify.testing import randomize


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
    flow = lk.Flow(lk.Normal((3,)), randomize(lk.dense_exponential(3, context_features=2)))
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
