"""Layers that work on other axes than the channels, and indices of axes."""

from __future__ import annotations

from typing import Any

from likelify.transforms.core import Chain, Transform
from likelify.transforms.reshape import PermuteAxes


def on_last_axis(transform: Transform, dims: int) -> Transform:
    """Let a layer that works on the channels of events with `dims` axes behind them work on the last axis instead."""
    if dims == 0:
        return transform
    last = dims + 1
    into = PermuteAxes((last, *range(1, last)))
    return Chain([into, transform, PermuteAxes((*range(2, last + 1), 1))])


def full_index(index: tuple[Any, ...], axes: int) -> tuple[slice, ...] | None:
    """Write an index of slices with one for each axis; None if there is something else in it."""
    places = [i for i, part in enumerate(index) if part is Ellipsis]
    if len(places) > 1 or any(not isinstance(part, slice) for part in index if part is not Ellipsis):
        return None
    place = places[0] if places else len(index)
    missing = [slice(None)] * (axes - len(index) + len(places))
    return (*index[:place], *missing, *index[place + 1 :])
