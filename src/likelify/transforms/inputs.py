"""What happens around each call of a layer: what it refuses, in which precision it works, and where it failed."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from likelify.errors import ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.structure import Context, ContextLike, EventShape, as_context, as_shape, check_event
from likelify.tracing import Method, is_tracing, raised, under_autocast
from likelify.transforms import watching

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


# The methods that work on what a layer takes, and on what it gives.
TAKING, GIVING = ("forward", "mean_forward", "initialize", "out_shape"), ("inverse", "mean_inverse", "data_shape")
CHECKED = {name: "takes" if name in TAKING else "gives" for name in TAKING + GIVING}


def checked(method: Method, fact: str | None) -> Method:
    """Let a method refuse what its layer was not built for, take a number for a shape, and say where it fails."""
    _, first, *_ = (*inspect.signature(method).parameters, None)
    work = _on_shapes(method, fact) if method.__name__.endswith("_shape") else _on_tensors(method, fact)

    @functools.wraps(method)
    def run(self: Transform, *values: Any, **named: Any) -> Any:
        if not values and first in named:
            values = (named.pop(first),)
        return work(self, *values, **named) if values else method(self, **named)

    return run  # pyright: ignore[reportReturnType]


def name_of(layer: Transform) -> str:
    """Return what messages call a layer: what the user wrote, where its own class is not that."""
    return layer.shown_as or type(layer).__name__


def _expected(layer: Transform, fact: str | None) -> EventShape | None:
    if fact is None:
        return None
    return layer.takes if fact == "takes" or layer.gives is None else layer.gives


def _on_shapes(method: Method, fact: str | None) -> Callable[..., Any]:
    def work(self: Transform, shape: Any) -> Any:
        shape, expected = as_shape(shape), _expected(self, fact)
        if expected is not None:
            check_event(shape, expected, name_of(self))
        return method(self, shape)

    return work


def _on_tensors(method: Method, fact: str | None) -> Callable[..., Any]:
    run = watching.watched(method) if method.__name__ in ("inverse", "mean_inverse") else method

    def attempt(self: Transform, *values: Any, **named: Any) -> Any:
        if is_tracing():
            return method(self, *values, **named)
        try:
            return run(self, *values, **named)
        except ConvergenceError as error:
            watching.locate(error, self)
            raise

    def work(self: Transform, x: Tensor, *more: Any, **named: Any) -> Any:
        check_input(self, x, more[0] if more else named.get("context"))
        expected = _expected(self, fact)
        if expected is not None:
            check_event(x.shape[1:], expected, name_of(self))
        if under_autocast(x):
            return _in_full_precision(attempt, self, x, *more, **named)
        return attempt(self, x, *more, **named)

    return work


def _in_full_precision(method: Callable[..., Any], layer: Transform, *values: Any, **named: Any) -> Any:
    """Call a method with no half precision that `torch.autocast` made, and outside of it unless its layer keeps it."""
    raised_ = [_raised(value) for value in values]
    named = {name: _raised(value) for name, value in named.items()}
    with nullcontext() if layer.keeps_autocast else torch.autocast(values[0].device.type, enabled=False):
        return method(layer, *raised_, **named)


def _raised(context: Any) -> Any:
    if isinstance(context, Context) and context.condition is not None:
        return replace(context, condition=raised(context.condition))
    return raised(context) if isinstance(context, Tensor) else context


def check_input(layer: Transform, x: Any, context: ContextLike) -> None:
    """Refuse what no layer can work on.

    Raises:
        UnsupportedError: if the input is no tensor.
        DomainError: for a dtype other than that of the parameters, unless the layer is for it.
        ShapeError: if input and condition have different numbers of rows.
    """
    if not isinstance(x, Tensor):
        raise UnsupportedError(
            f"{name_of(layer)} works on tensors and got a {type(x).__name__}; give torch.as_tensor(...)."
        )
    # What is usual needs no look at the parameters.
    if x.dtype is not torch.float32 and not is_tracing():
        _check_dtype(layer, x)
    condition = None if context is None else as_context(context).condition
    if condition is not None and condition.shape[:1] != x.shape[:1]:
        raise ShapeError(
            f"{name_of(layer)} got an input of shape {tuple(x.shape)} and a condition of shape "
            f"{tuple(condition.shape)}: both need the same number of rows."
        )


def _check_dtype(layer: Transform, x: Tensor) -> None:
    # Most layers have parameters of their own; the search through all parts takes longer.
    parameters = itertools.chain(layer._parameters.values(), layer.parameters())
    weight = next((tensor for tensor in parameters if tensor is not None and tensor.is_floating_point()), None)
    if weight is None or weight.dtype is x.dtype or torch.is_autocast_enabled(x.device.type):
        return
    if layer.takes_float64 if x.is_floating_point() else layer.takes_integers or layer.moves_elements:
        return
    name = name_of(layer)
    if x.is_floating_point():
        raise DomainError(
            f"{name} is in {weight.dtype} and its input in {x.dtype}; convert one of them: x.to({weight.dtype}), or "
            f"layer.to({x.dtype})."
        )
    raise DomainError(
        f"{name} works on real values and got {x.dtype}: give x.to({weight.dtype}), or put Dequantize in front if "
        "these are levels of pixels or counts."
    )


def instead_of(part: object, layers: type[nn.Module]) -> str:
    """Return what to do about a part that is no layer."""
    if isinstance(part, type) and issubclass(part, layers):
        return f"Give an object of the class: {part.__name__}(...)."
    if isinstance(part, list | tuple | nn.ModuleList) or (
        isinstance(part, nn.Sequential) and all(isinstance(inner, layers) for inner in part)
    ):
        return "Put the layers into a chain: lk.Chain([...])."
    if isinstance(part, nn.Module):
        return "lk.flowify(module, example) makes a layer of a network; its likelihood needs more than its forward."
    if isinstance(part, torch.distributions.Transform):
        return "Write a Transform with forward and inverse around it, or take a layer of lk.transforms."
    if callable(part):
        return "A function has no inverse and no log-determinant: write a Transform with forward and inverse."
    return "Layers are in lk.transforms."
