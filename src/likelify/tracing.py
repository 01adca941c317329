"""In which mode tensors are worked on: traced, or under autocast."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def is_tracing() -> bool:
    """Tell whether `torch.compile` or a `torch.func` transform is at work, so that tensors have no values yet."""
    return torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None  # pyright: ignore[reportAttributeAccessIssue]


def outside_autocast(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a backward pass leave `torch.autocast`, in which a caller may have put it, as its forward pass did."""

    @functools.wraps(backward)
    def run(ctx: Any, *grads: Any) -> Any:
        device = next((grad.device.type for grad in grads if isinstance(grad, Tensor)), None)
        if device is None or not torch.is_autocast_enabled(device):
            return backward(ctx, *grads)
        with torch.autocast(device, enabled=False):
            return backward(ctx, *grads)

    return run
