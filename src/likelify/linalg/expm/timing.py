"""Time the methods on the machine at hand, for whoever wants more than the fixed rule."""

import statistics
import time
from typing import cast

import torch
from torch import Tensor

from likelify.errors import ConfigError, UnsupportedError
from likelify.linalg.expm.action import METHODS, ExpMethod, exp_action
from likelify.linalg.maps import LinearMap


def time_methods(
    map_: LinearMap, x: Tensor, *, tol: float | None = None, backward: bool = True, repeats: int = 5
) -> dict[ExpMethod, float]:
    """Time every method that works for a map, the fastest first.

    Nothing is remembered: give the name you like to `exp_action(method=)` or `Exponential(method=)`. The runs are
    interleaved and the median is taken, in seconds of the wall clock.

    Args:
        map_: the map; with `backward`, gradients of those of its tensors that require one are timed as well.
        x: rows of the size you will work on.
        tol: as in `exp_action`.
        backward: time the backward pass too, with respect to `x` and the map's tensors.
        repeats: runs of each method after a first one that does not count.

    Example:
        >>> import torch
        >>> from likelify.linalg.dense import Dense
        >>> times = time_methods(Dense(torch.randn(16, 16) / 8), torch.randn(64, 16), repeats=1)
        >>> sorted(times)
        ['dense', 'polynomial', 'series']
    """
    x = x.detach().requires_grad_(backward)
    found: dict[ExpMethod, list[float]] = {}
    for name in cast(tuple[ExpMethod, ...], tuple(METHODS)):
        try:
            _run(map_, x, name, tol, backward=backward)
        except (ConfigError, UnsupportedError):
            continue
        found[name] = []
    for _ in range(repeats):
        for name, times in found.items():
            _wait(x)
            start = time.perf_counter()
            _run(map_, x, name, tol, backward=backward)
            _wait(x)
            times.append(time.perf_counter() - start)
    return dict(sorted(((name, statistics.median(times)) for name, times in found.items()), key=lambda item: item[1]))


def _run(map_: LinearMap, x: Tensor, method: ExpMethod, tol: float | None, *, backward: bool) -> None:
    with torch.set_grad_enabled(backward):
        value = exp_action(map_, x, method=method, tol=tol).value
    if backward:
        leaves = [tensor for tensor in map_.tensors().values() if tensor.requires_grad]
        torch.autograd.grad(value.sum(), [x, *leaves], allow_unused=True)


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
