"""What happens around each call of a layer: what it refuses, in which precision it works, and where it failed."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from likelify.errors import ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.shapes import EventShape, as_shape, check_event, fits_event
from likelify.structure import Context, ContextLike, as_context
from likelify.tracing import Method, autocast_off, is_tracing, raised, under_autocast
from likelify.transforms import watching
from likelify.transforms.blame import locate

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


# The methods that work on what a layer takes, and on what it gives.
TAKING = ("forward", "mean_forward", "initialize", "out_shape", "log_masses", "random_latent")
GIVING = ("inverse", "mean_inverse", "data_shape")
CHECKED = {name: "takes" if name in TAKING else "gives" for name in TAKING + GIVING}


def checked(method: Method, fact: str | None) -> Method:
    """Let a method refuse what its layer was not built for, take a number for a shape, and say where it fails."""
    _, first, *_ = (*inspect.signature(method).parameters, None)
    guard = _on_shapes if method.__name__.endswith("_shape") else _on_tensors
    return functools.wraps(method)(guard(method, fact, first))  # pyright: ignore[reportReturnType]


def name_of(layer: Transform) -> str:
    """Return what messages call a layer: what the user wrote, where its own class is not that."""
    return layer.shown_as or type(layer).__name__


def _expected(layer: Transform, fact: str | None) -> EventShape | None:
    if fact is None:
        return None
    return layer.takes if fact == "takes" or layer.gives is None else layer.gives


def _on_shapes(method: Callable[..., Any], fact: str | None, first: str | None) -> Callable[..., Any]:
    def run(self: Transform, *values: Any, **named: Any) -> Any:
        if not values and first not in named:
            return method(self, **named)
        shape = as_shape(values[0] if values else named.pop(first))  # pyright: ignore[reportArgumentType]
        expected = _expected(self, fact)
        if expected is not None:
            check_event(shape, expected, name_of(self))
        return method(self, shape, *values[1:], **named)

    return run


def _on_tensors(method: Callable[..., Any], fact: str | None, first: str | None) -> Callable[..., Any]:
    work = watching.watched(method) if method.__name__ in ("inverse", "mean_inverse") else method

    # One frame for all of it, and the usual answers first: it runs around each call of each layer.
    def run(self: Transform, *values: Any, **named: Any) -> Any:
        if not values:
            if first not in named:
                return method(self, **named)
            values = (named.pop(first),)  # pyright: ignore[reportArgumentType]
        x, context = values[0], values[1] if len(values) > 1 else named.get("context")
        bare = context is None or type(context) is Context and context.condition is None
        if not bare or type(x) is not Tensor or x.dtype is not torch.float32:
            check_input(self, x, context)
        expected = _expected(self, fact)
        if expected is not None and not fits_event(x.shape[1:], expected):
            check_event(x.shape[1:], expected, name_of(self))
        half = under_autocast(x)
        if is_tracing():
            return _in_full_precision(method, self, values, named) if half else method(self, *values, **named)
        try:
            found = _in_full_precision(work, self, values, named) if half else work(self, *values, **named)
        except (ConvergenceError, RuntimeError, ShapeError) as error:
            _explain(self, x, error)
            raise
        # Weights of more digits than the input show here at no cost; looking for them in each call would have one.
        value = found[0] if isinstance(found, tuple) else found
        if getattr(value, "dtype", None) is torch.float64 and x.dtype is torch.float32:
            _check_dtype(self, x)
        return found

    return run


def _explain(layer: Transform, x: Tensor, error: Exception) -> None:
    """Say where an inverse failed, and in words what PyTorch says of dtypes."""
    if isinstance(error, ConvergenceError):
        locate(error, layer)
    elif RuntimeError in (type(error), type(error.__cause__)):
        _check_dtype(layer, x)


def _in_full_precision(method: Callable[..., Any], layer: Transform, values: tuple[Any, ...], named: Any) -> Any:
    """Call a method with no half precision that `torch.autocast` made, and outside of it unless its layer keeps it."""
    raised_ = [_raised(value) for value in values]
    named = {name: _raised(value) for name, value in named.items()}
    if layer.keeps_autocast:
        return method(layer, *raised_, **named)
    with autocast_off(values[0].device.type):
        return method(layer, *raised_, **named)


def _raised(given: Any) -> Any:
    if isinstance(given, Context):
        condition = _raised(given.condition)
        return given if condition is given.condition else replace(given, condition=condition)
    return raised(given) if isinstance(given, Tensor) else given


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
    # What is usual shows in the result (see `checked`).
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
