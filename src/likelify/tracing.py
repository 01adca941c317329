"""In which mode tensors are worked on: traced, under autocast, or recorded."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from likelify.errors import UnsupportedError

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])

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


class Recorder(Generic[T]):
    """A list that computations add to, while a ``with`` block that collects them is open; the innermost one counts.

    Example:
        >>> from likelify import conv_exponential
        >>> from likelify.linalg import recorded
        >>> with recorded() as found:
        ...     _ = conv_exponential(2)(torch.ones(1, 2, 4, 4))
        >>> found[0].method
        'series'
    """

    def __init__(self, name: str) -> None:
        self._open: ContextVar[list[T] | None] = ContextVar(f"likelify_{name}", default=None)

    @contextmanager
    def __call__(self) -> Iterator[list[T]]:
        """Collect in a list what is added inside of the block."""
        found: list[T] = []
        token = self._open.set(found)
        try:
            yield found
        finally:
            self._open.reset(token)

    @property
    def is_open(self) -> bool:
        """Whether a block collects."""
        return self._open.get() is not None

    def add(self, value: T) -> None:
        """Add to the list of the innermost block."""
        found = self._open.get()
        if found is not None:
            found.append(value)


def is_tracing() -> bool:
    """Tell whether `torch.compile` or a `torch.func` transform is at work, so that tensors have no values yet."""
    return torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None  # pyright: ignore[reportAttributeAccessIssue]


def in_forward_mode() -> bool:
    """Tell whether tangents may be at work (`torch.autograd.forward_ad`)."""
    return forward_ad._current_level >= 0


def can_look(tensor: Tensor) -> bool:
    """Tell whether values of a tensor can be read at all, if need be by waiting for its device."""
    return not (is_tracing() or (tensor.device.type == "cuda" and torch.cuda.is_current_stream_capturing()))


def may_look(tensor: Tensor) -> bool:
    """Tell whether reading a value of a tensor costs nothing, and changes nothing for those who transform functions."""
    return tensor.device.type == "cpu" and not is_tracing() and not in_forward_mode()


def refuse_old_batches(what: str, *grads: Tensor) -> None:
    """Refuse gradients in batches of `torch.autograd`, which no backward pass of our own sees through."""
    if any(torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads):  # pyright: ignore[reportAttributeAccessIssue]
        raise UnsupportedError(
            f"The gradient of {what} does not take the batches of torch.autograd (vectorize=True, "
            "is_grads_batched=True). Use torch.func.jacrev or torch.func.hessian, or leave vectorize out."
        )


def refuse_kept_weights(what: str) -> None:
    """Refuse `parametrize.cached()`, where weights stay those of the first call, which may have had no gradients."""
    if parametrize._cache_enabled:
        raise UnsupportedError(
            f"{what} inside of torch.nn.utils.parametrize.cached() would have the weights of another call, without "
            "gradients. Call it outside of that block."
        )


def is_watched() -> bool:
    """Tell whether a backward pass is itself differentiated or traced, so that it must keep to plain operations."""
    return torch.is_grad_enabled() or in_forward_mode() or is_tracing()


HALF = (torch.float16, torch.bfloat16)


def under_autocast(tensor: Tensor) -> bool:
    """Tell whether `torch.autocast` is at work on the device of a tensor."""
    # The first question costs a quarter of the second, and knows all devices.
    if not torch._C._is_any_autocast_enabled() or tensor.device.type == "meta":
        return False
    return torch.is_autocast_enabled(tensor.device.type)


def raised(tensor: Tensor) -> Tensor:
    """Return what a network gave in half precision under `torch.autocast` in float32, and all else as it is."""
    return tensor.float() if tensor.dtype in HALF and under_autocast(tensor) else tensor


class _AutocastOff:
    """What `torch.autocast(device, enabled=False)` does inside of another, at a twentieth of the cost of entering."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __enter__(self) -> None:
        torch.set_autocast_enabled(self.device, False)  # noqa: FBT003

    def __exit__(self, *error: object) -> None:
        torch.set_autocast_enabled(self.device, True)  # noqa: FBT003


def autocast_off(device: str) -> Any:
    """Return a ``with`` block in which `torch.autocast` is off, for where it is at work on that kind of device."""
    return torch.autocast(device, enabled=False) if is_tracing() else _AutocastOff(device)


def in_full_precision(function: Callable[..., T], *tensors: Tensor) -> T:
    """Call a function with `torch.autocast` off, and with what autocast made in half precision raised to float32.

    What a bijection and its inverse compute in bfloat16 are not each other's inverse to more than two digits, and the
    log-determinant is that of neither.
    """
    if not under_autocast(tensors[0]):
        return function(*tensors)
    raised_ = [raised(tensor) for tensor in tensors]
    with autocast_off(tensors[0].device.type):
        return function(*raised_)


def traceable_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """Return the gradients of a function by operations that can be differentiated again, for second derivatives.

    Args:
        function: of all inputs; what a backward pass differentiates by formulas of its own.
        inputs: the tensors at which it was called.
        needed: of which inputs a gradient is wanted; the others get None.
        grad: the gradient of its value.
    """
    with torch.enable_grad():
        # Views, because one input may be made from another, or be there twice: autograd follows those paths itself.
        fresh = [tensor.view_as(tensor) for tensor in inputs]
        wanted = [tensor for tensor, need in zip(fresh, needed, strict=True) if need]
        value = function(*fresh)
        found = torch.autograd.grad(value, wanted, grad, create_graph=True, allow_unused=True)
    return at_places(found, needed)


def at_places(found: Iterable[Any], needed: Sequence[bool]) -> list[Any]:
    """Put the gradients of the needed tensors at their places, and None at the others."""
    given = iter(found)
    return [next(given) if need else None for need in needed]


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


def with_outer_tangents(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """Let what the `jvp` of a function computes have the tangents of an outer forward mode of `torch.func`.

    PyTorch turns them off while a `jvp` runs, so that a second derivative would be zero without a word. The tangents
    that the `jvp` was called for must stay out of it: take what was kept by `primals`.
    """

    @functools.wraps(jvp)
    def run(ctx: Any, *tangents: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):  # noqa: FBT003
            return jvp(ctx, *tangents)

    return run


def primals(ctx: Any) -> list[Any]:
    """Return the tensors that a function has kept, without the tangents for which its `jvp` was called."""
    return [None if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]
