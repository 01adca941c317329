"""What frozen layers keep and should have dropped."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import likelify as lk
from benchmarks.honesty.judging import add, judge_layer
from benchmarks.honesty.maps import layer_matrix, normal, some_layer, with_norm


def caches() -> None:
    """Add caches of frozen layers that should be stale, and copies made inside."""
    changes: dict[str, Callable[[Any], None]] = {
        "in place": lambda layer: change_in_place(layer),
        "an optimizer's step": lambda layer: optimizer_step(layer, fused=False),
        "load_state_dict": lambda layer: layer.load_state_dict({k: v * 1.5 for k, v in layer.state_dict().items()}),
        "another parameter": lambda layer: setattr(
            layer.parametrization, "weight", nn.Parameter(1.5 * layer.parametrization.weight.data)
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
    """Return a frozen layer inputs of another dtype."""
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
        layer.parametrization.norm_limit = 0.3
        return judge_layer(layer, layer_matrix(copy.deepcopy(layer), shape), x)
