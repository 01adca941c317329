"""Callables and modules that are not linear, or not the same function of each row."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, SINGLE, add, judge, judge_layer
from benchmarks.honesty.maps import normal, with_norm

MODULES: dict[str, Callable[[], nn.Module]] = {
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


def functions_of(linear: Callable[[Tensor], Tensor]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return what is made of a linear function and is not linear, or does more than it should."""
    return {  # pyright: ignore[reportReturnType]
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
        "a list": lambda x: [linear(x)],
    }


def wrong_functions() -> None:
    """Add callables and modules that are not linear, or not the same function of each row."""
    matrix = with_norm(normal(4, 4), 1.0)
    for name, function in functions_of(lambda x: x @ matrix.to(x).T).items():
        for dtype in (DOUBLE, SINGLE):
            for norm in (None, 2.0):

                def run(function: Any = function, dtype: Any = dtype, norm: Any = norm, name: str = name) -> str:
                    own = 0.5 * torch.eye(4) if name.startswith("changes its input") else matrix
                    x = normal(3, 4).to(dtype)
                    return judge(lk.Function(function, norm=norm), own.to(dtype).double(), x)

                title = f"{name}, {'probed' if norm is None else 'declared'}, {str(dtype)[6:]}"
                add("functions", title, run, times=3)
    for name, build in MODULES.items():
        add("functions", f"module {name}", lambda b=build: judge_module(b()), times=10)


def with_bias(bias: float) -> nn.Module:
    """Return a linear module with a bias of that size."""
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
