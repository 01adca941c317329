"""Reordered axes, for layers that work on other axes than the channels, and indices of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from likelify.errors import ShapeError
from likelify.structure import ContextLike
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.reshape import zero_log_det


class PermuteAxes(Transform):
    """Put the axes of an event in another order; the log-determinant is zero.

    Args:
        order: of the axes `1 .. n` behind the rows, as in `torch.permute`.

    Raises:
        ShapeError: unless each axis is named once.

    Example:
        >>> import torch
        >>> PermuteAxes((2, 1))(torch.zeros(4, 3, 5))[0].shape
        torch.Size([4, 5, 3])
    """

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        if sorted(order) != list(range(1, len(order) + 1)):
            raise ShapeError(f"PermuteAxes needs each of the axes 1..{len(order)} once, got {order}.")
        self.order = tuple(order)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Reorder the axes."""
        return self._permuted(x, self.order), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Put them back."""
        back = tuple(self.order.index(axis) + 1 for axis in range(1, len(self.order) + 1))
        return self._permuted(z, back), zero_log_det(z, context)

    def _permuted(self, x: Tensor, order: tuple[int, ...]) -> Tensor:
        if x.ndim != len(order) + 1:
            raise ShapeError(f"PermuteAxes has {len(order)} axes behind the rows, got an input {tuple(x.shape)}.")
        return x.permute(0, *order)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the sizes in their new order."""
        if len(in_shape) != len(self.order):
            raise ShapeError(f"PermuteAxes has {len(self.order)} axes behind the rows, got events {tuple(in_shape)}.")
        return tuple(in_shape[axis - 1] for axis in self.order)

    def extra_repr(self) -> str:
        """Show the order."""
        return f"{self.order}"


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
