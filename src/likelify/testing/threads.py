"""The law of threads: what one thread evaluates, another may train."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from likelify.seeding import seeded
from likelify.structure import ContextLike
from likelify.testing.law import close, require
from likelify.transforms.core import Transform


def check_threads(transform: Transform, x: Tensor, context: ContextLike = None) -> None:
    """Check that one thread trains while another is inside `frozen()`, and neither notices the other.

    Args:
        transform: the layer, in double precision, with its parameters moved from their start.
        x: data rows, at least two, in double precision (or integers for dequantization).
        context: if the layer needs one.
    """
    alone = _in_thread(lambda: _training(transform, x, context))
    with transform.frozen(), torch.no_grad():
        before = _values(transform, x, context)
        beside = _in_thread(lambda: _training(transform, x, context))
        after = _values(transform, x, context)
    lost = sorted(alone.keys() - beside.keys())
    require(not lost, f"while another thread is inside frozen(), {', '.join(lost)} is lost")
    for name, tensor in alone.items():
        close(beside[name], tensor, 0.0, f"{name} while another thread is inside frozen()")
    for name, tensor in before.items():
        close(after[name], tensor, 0.0, f"{name} inside frozen() while another thread trains")


def _values(transform: Transform, x: Tensor, context: ContextLike) -> dict[str, Tensor]:
    with seeded(1):
        value, contribution = transform(x, context)
    return {"the value": value, "the contribution": contribution}


def _training(transform: Transform, x: Tensor, context: ContextLike) -> dict[str, Tensor]:
    """Return values and gradients, those that there are."""
    found = _values(transform, x, context)
    leaves = {name: parameter for name, parameter in transform.named_parameters() if parameter.requires_grad}
    total = torch.stack([tensor.sum() for tensor in found.values() if tensor.is_floating_point()]).sum()
    if leaves and total.requires_grad:
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        found |= {f"the gradient of {name}": g for name, g in zip(leaves, grads, strict=True) if g is not None}
    return found


def _in_thread(run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    found, errors = [], []

    def work() -> None:
        try:
            found.append(run())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return found[0]
