"""In which mode tensors are worked on: traced, or under autocast."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from functools import cached_property as cached_property
else:

    class cached_property(functools.cached_property):  # noqa: N801 - it stands in for the one of functools
        """`functools.cached_property` without the lock it has in Python 3.11, which `torch.compile` cannot trace."""

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self.attrname] = self.func(instance)
            return value


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
