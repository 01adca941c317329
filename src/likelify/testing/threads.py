"""The law of threads: what one thread evaluates, another may train."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from likelify.seeding import seeded
from likelify.structure import ContextLike
from likelify.testing.law import close, require
from likelify.transforms.core import Transform

Found = dict[str, Tensor]
Run = Callable[[], Found]
# How often one thread evaluates while another trains, after how many calls of PyTorch each stops, and for how long.
TIMES = 3
CALLS = 7
SLEEP_SECONDS = 1e-5


def check_threads(transform: Transform, x: Tensor, context: ContextLike = None) -> None:
    """Check that one thread trains while another is inside `frozen()`, at once, and neither notices the other.

    Layers that draw at random take turns.

    Args:
        transform: the layer, in double precision, with its parameters moved from their start.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
    """
    alone = _in_thread(lambda: _training(transform, x, context))
    # The generator is shared by all threads, so layers that draw from it take turns.
    draws = transform.random_forward or transform.noisy_log_det
    with transform.frozen(), torch.no_grad():
        before = _values(transform, x, context)
        run = _in_turn if draws else _at_once
        trained, evaluated = run(lambda: _training(transform, x, context), lambda: _values(transform, x, context))
    for beside in trained:
        lost = sorted(alone.keys() - beside.keys())
        require(not lost, f"while another thread is inside frozen(), {', '.join(lost)} is lost")
        for name, tensor in alone.items():
            close(beside[name], tensor, _rounding(tensor), f"{name} while another thread is inside frozen()")
    for after in evaluated:
        for name, tensor in before.items():
            close(after[name], tensor, _rounding(tensor), f"{name} inside frozen() while another thread trains")


def _values(transform: Transform, x: Tensor, context: ContextLike) -> Found:
    with seeded(1):
        value, contribution = transform(x, context)
    return {"the value": value, "the contribution": contribution}


def _training(transform: Transform, x: Tensor, context: ContextLike) -> Found:
    """Return values and gradients, those that there are."""
    found = _values(transform, x, context)
    leaves = {name: parameter for name, parameter in transform.named_parameters() if parameter.requires_grad}
    sums = [tensor.sum() for tensor in found.values() if tensor.is_floating_point() and tensor.requires_grad]
    if leaves and sums:
        total = torch.stack(sums).sum()
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        found |= {f"the gradient of {name}": g for name, g in zip(leaves, grads, strict=True) if g is not None}
    return found


def _in_thread(run: Run) -> Found:
    with ThreadPoolExecutor(1) as other:
        return other.submit(run).result()


def _in_turn(train: Run, evaluate: Run) -> tuple[list[Found], list[Found]]:
    return [_in_thread(train)], [evaluate()]


def _at_once(train: Run, evaluate: Run) -> tuple[list[Found], list[Found]]:
    """Run one function in another thread for as long as the other one is run here."""
    begun, ended = threading.Event(), threading.Event()

    def repeat() -> list[Found]:
        found = []
        with _Yielding():
            while not (found and ended.is_set()):
                begun.set()
                found.append(train())
        return found

    with ThreadPoolExecutor(1) as other:
        training = other.submit(repeat)
        begun.wait()
        try:
            with _Yielding():
                evaluated = [evaluate() for _ in range(TIMES)]
        finally:
            ended.set()
        return training.result(), evaluated


class _Yielding(TorchFunctionMode):
    """Lets other threads run at some of the calls of PyTorch, wherever in a layer those are."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function."""
        self._calls += 1
        if self._calls % CALLS == 0:
            time.sleep(SLEEP_SECONDS)
        return func(*args, **(kwargs or {}))


def _rounding(values: Tensor) -> float:
    """Return what the place of tensors in memory may change: kernels add up in another order for other alignments."""
    return 1e-12 * (1 + float(values.detach().abs().max())) if values.numel() else 0.0
