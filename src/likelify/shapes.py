"""Sizes and shapes: counts that are checked by name, and what events must look like."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError

Shape = tuple[int, ...]
# What an event must look like: sizes, names of axes of any size, and at the end perhaps `...` for any further axes.
EventShape = tuple[int | str | EllipsisType, ...]


def along(values: Tensor, ndim: int) -> Tensor:
    """Return values `(channels,)` in a shape that meets `(rows, channels, *positions)`."""
    return values.reshape(-1, *(1,) * (ndim - 2))


def as_shape(shape: int | Sequence[int], *, least: int = 0) -> Shape:
    """Return a shape that may be given as a number as a tuple.

    Args:
        shape: whole numbers, in any form that Python counts with (`numpy.int64` too).
        least: the smallest size allowed.

    Raises:
        ShapeError: for sizes that are not whole numbers, or too small.

    Example:
        >>> as_shape(3), as_shape([2, 3])
        ((3,), (2, 3))
    """
    return _sizes(shape, f"A size of the shape {shape!r}", least)


def _sizes(shape: int | Sequence[int], name: str, least: int) -> Shape:
    single = not isinstance(shape, Iterable) or (isinstance(shape, Tensor) and shape.ndim == 0)
    sizes: tuple[Any, ...] = (shape,) if single else tuple(shape)  # pyright: ignore[reportArgumentType]
    # Traced sizes are not of type int.
    if all((type(size) is int and size >= least) or isinstance(size, torch.SymInt) for size in sizes):
        return sizes
    return tuple(_whole(size, name, least, ShapeError) for size in sizes)


def check_size(size: int, name: str, *, least: int = 1) -> int:
    """Return a count (of channels, levels, units) as an int.

    Args:
        size: a whole number, in any form that Python counts with.
        name: what is counted, for the refusal.
        least: the smallest number allowed.

    Raises:
        ConfigError: if it is not a whole number, or too small.

    Example:
        >>> check_size(2, "channels")
        2
    """
    return _whole(size, name, least, ConfigError)


def check_sizes(*, least: int = 1, **sizes: int) -> None:
    """Refuse counts that are no whole numbers, or too small; see `check_size`.

    Args:
        least: the smallest number allowed.
        **sizes: the counts, by what they count.

    Example:
        >>> check_sizes(hidden=64, depth=3)
    """
    for name, size in sizes.items():
        check_size(size, name, least=least)


def _whole(size: Any, name: str, least: int, error: type[ConfigError] | type[ShapeError]) -> int:
    try:
        whole = operator.index(size)
    except TypeError:
        raise error(f"{name} must be a whole number, got {size!r}.") from None
    if isinstance(size, bool):
        raise error(f"{name} must be a whole number, got {size!r}.")
    if whole < least:
        raise error(f"{name} must be at least {least}, got {size!r}.")
    return whole


def axis_names(dims: int) -> tuple[str, ...]:
    """Return the names of that many position axes, 0 to 3, as `EventShape` has them."""
    return ("depth", "height", "width")[3 - dims :]


def fits_event(shape: Sequence[int], expected: EventShape) -> bool:
    """Tell whether events of that shape are as described, see `check_event`."""
    if expected[-1:] == (...,):
        expected = expected[:-1]
        if len(shape) < len(expected):
            return False
    elif len(shape) != len(expected):
        return False
    # Not a generator, which costs more than the comparisons: each layer asks in each call.
    for size, found in zip(expected, shape, strict=False):
        if size != found and not isinstance(size, str):
            return False
    return True


def check_event(shape: Sequence[int], expected: EventShape, name: str) -> None:
    """Raise `ShapeError` unless events of that shape are what a layer, network or distribution was built for.

    Args:
        shape: of the event, without the axis of the rows.
        expected: `(3, ...)` for three channels and any positions, `(3, "height", "width")` for images of three
            channels, `(3, 8, 8)` for events of just that shape.
        name: of what refuses.

    Raises:
        ShapeError: if they are not.
    """
    if fits_event(shape, expected):
        return
    found, wanted = ", ".join(["rows", *map(str, shape)]), event_words(expected)
    raise ShapeError(f"{name} works on inputs of shape (rows, {wanted}) and got one of shape ({found}).")


def per_axis(value: int | Sequence[int], axes: int, name: str, *, least: int = 1) -> Shape:
    """Return one number for each position axis of a setting that may be given once for all.

    Args:
        value: one number, or one for each axis.
        axes: how many position axes there are.
        name: of the setting, for the refusal.
        least: smallest number allowed.

    Raises:
        ShapeError: for another count of numbers.
        ConfigError: for a number that is too small.
    """
    values = _sizes(value, name, -(2**63))
    values = values * axes if len(values) == 1 and not isinstance(value, Sequence) else values
    if len(values) != axes:
        raise ShapeError(f"{name} is {value!r}; it must be one number, or one for each of the {axes} position axes.")
    if min(values, default=least) < least:
        raise ConfigError(f"{name} must be at least {least} along every axis, got {value!r}.")
    return values


def kept_arguments(self: object) -> str:
    """Return the `extra_repr` of modules: the constructor arguments kept under their names, or what it `takes`."""
    kept = {name: getattr(self, name, None) for name in inspect.signature(type(self).__init__).parameters}
    shown = [f"{name}={value!r}" for name, value in kept.items() if isinstance(value, int | float | str | tuple)]
    return ", ".join(shown) or event_words(getattr(self, "takes", None) or ())


def event_words(expected: EventShape) -> str:
    """Return an expected shape of events as messages say it, `"3 channels, height, width"`."""
    exact = all(isinstance(size, int) for size in expected)
    first = expected[:1] if exact or not isinstance(expected[0], int) else (f"{expected[0]} channels",)
    return ", ".join("..." if size is ... else str(size) for size in (*first, *expected[1:]))
