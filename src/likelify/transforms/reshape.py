"""Layers that only move elements; their log-determinant is zero."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.errors import ShapeError
from likelify.shapes import Shape, as_shape, per_axis
from likelify.structure import ContextLike, zero_log_det
from likelify.tracing import is_tracing
from likelify.transforms.core import Transform
from likelify.transforms.rules import PERMUTATION


class Identity(Transform):
    """The layer that does nothing, such as dropout in evaluation."""

    moves_elements = True

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the input."""
        return x, zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the input."""
        return self(z, context)


class Squeeze(Transform):
    r"""Space to depth: each block of positions becomes one position with as many times the channels.

    With a factor `f` for images, `(c, h, w)` becomes `(c f^2, h / f, w / f)`; channel `c f^2` counts the input channel
    first, then row, then column of the block. `Inverse(Squeeze(f))` is depth to space.

    Args:
        factor: side of the blocks of images, or one side for each position axis of events with any number of them.

    Raises:
        ShapeError: if a side of the event is not a multiple of that of a block.

    Example:
        >>> Squeeze()(torch.arange(4.0).reshape(1, 1, 2, 2))[0].flatten()
        tensor([0., 1., 2., 3.])
    """

    moves_elements = True

    def __init__(self, factor: int | Sequence[int] = 2) -> None:
        super().__init__()
        self.factors = per_axis(factor, max(1, len(factor)) if isinstance(factor, Sequence) else 2, "factor")
        # What torch's kernels for images can do.
        self._is_square = len(self.factors) == 2 and self.factors[0] == self.factors[1]

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Gather blocks into channels."""
        shape = self.out_shape(tuple(x.shape[1:]))
        if self._is_square and len(x):
            z = torch.pixel_unshuffle(x, self.factors[0])
            if torch.compiler.is_compiling() or not is_tracing():
                # The layout that the convolutions behind it work in; it stays through the layers between.
                z = z.contiguous(memory_format=torch.channels_last)
        else:
            sides = itertools.chain.from_iterable(zip(shape[1:], self.factors, strict=True))
            positions = range(2, 2 + 2 * len(self.factors))
            blocks = x.reshape(*x.shape[:2], *sides).permute(0, 1, *positions[1::2], *positions[::2])
            z = blocks.reshape(len(x), *shape)
        return z, zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Spread channels over blocks."""
        shape = self.data_shape(tuple(z.shape[1:]))
        if self._is_square and len(z):
            x = torch.pixel_shuffle(z, self.factors[0])
        else:
            axes = len(self.factors)
            order = itertools.chain.from_iterable((2 + axes + axis, 2 + axis) for axis in range(axes))
            blocks = z.unflatten(1, (shape[0], *self.factors)).permute(0, 1, *order)
            x = blocks.reshape(len(z), *shape)
        return x, zero_log_det(z, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the gathered event, `(c f^2, h / f, w / f)` for images."""
        channels, *sides = in_shape
        per_axis(self.factors, len(sides), "The factor of Squeeze")
        if any(n % f for n, f in zip(sides, self.factors, strict=True)):
            raise ShapeError(
                f"Squeeze needs events (channels, *positions) with sides that are multiples of {self.factors}, got "
                f"{tuple(in_shape)}. Use fewer levels, or pad or crop the images."
            )
        return channels * math.prod(self.factors), *(n // f for n, f in zip(sides, self.factors, strict=True))

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the shape of the spread event."""
        channels, *sides = latent_shape
        per_axis(self.factors, len(sides), "The factor of Squeeze")
        if channels % math.prod(self.factors):
            raise ShapeError(
                f"Squeeze cannot spread events {tuple(latent_shape)} over blocks of {self.factors}: it needs a "
                f"multiple of {math.prod(self.factors)} channels."
            )
        return channels // math.prod(self.factors), *(n * f for n, f in zip(sides, self.factors, strict=True))

    def extra_repr(self) -> str:
        """Show the factors."""
        return "x".join(map(str, self.factors))


class Reshape(Transform):
    """Reorder nothing, only read the same elements as an event of another shape."""

    moves_elements = True

    def __init__(self, in_shape: int | Shape, out_shape: int | Shape) -> None:
        super().__init__()
        self._in, self._out = as_shape(in_shape, least=1), as_shape(out_shape, least=1)
        self.takes, self.gives = self._in, self._out
        if math.prod(self._in) != math.prod(self._out):
            raise ShapeError(f"Reshape cannot turn {self._in} into {self._out}: the sizes differ.")

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Read as the latent shape."""
        return x.reshape(-1, *self._out), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Read as the data shape."""
        return z.reshape(-1, *self._in), zero_log_det(z, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the latent shape."""
        return self._out

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the data shape."""
        return self._in

    def extra_repr(self) -> str:
        """Show both shapes."""
        return f"{self._in} -> {self._out}"


class Flatten(Reshape):
    """Read an event as a vector."""

    def __init__(self, in_shape: int | Shape) -> None:
        super().__init__(in_shape, math.prod(as_shape(in_shape)))


class Permute(Transform):
    """A fixed permutation of the channels: `z[:, i] = x[:, order[i]]`.

    Args:
        order: the permutation, integers `(channels,)`; `Permute.random(channels)` draws one.
    """

    moves_elements = True
    buffer_rules = {"order": PERMUTATION}
    order: Tensor

    def __init__(self, order: Tensor | list[int]) -> None:
        super().__init__()
        order = torch.as_tensor(order, dtype=torch.long)
        if order.ndim != 1 or not torch.equal(order.sort().values, torch.arange(len(order), device=order.device)):
            raise ShapeError("Permute needs each of the indices 0..channels-1 exactly once.")
        self.takes = (len(order), ...)
        self.register_buffer("order", order)

    @staticmethod
    def random(channels: int) -> Permute:
        """Draw a permutation from torch's generator."""
        return Permute(torch.randperm(channels))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take the channels in the new order."""
        return x[:, self.order], zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Put the channels back."""
        return z[:, self.order.argsort()], zero_log_det(z, context)


class PermuteAxes(Transform):
    """Put the axes of an event in another order; the log-determinant is zero.

    Args:
        order: of the axes `1 .. n` behind the rows, as in `torch.permute`.

    Raises:
        ShapeError: unless each axis is named once.

    Example:
        >>> PermuteAxes((2, 1))(torch.zeros(4, 3, 5))[0].shape
        torch.Size([4, 5, 3])
    """

    moves_elements = True

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        if sorted(order) != list(range(1, len(order) + 1)):
            raise ShapeError(f"PermuteAxes needs each of the axes 1..{len(order)} once, got {order}.")
        self.order = tuple(order)
        self.takes, self.gives = (tuple(f"axis {axis}" for axis in axes) for axes in (sorted(order), order))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Reorder the axes."""
        return x.permute(0, *self.order), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Put them back."""
        back = tuple(self.order.index(axis) + 1 for axis in range(1, len(self.order) + 1))
        return z.permute(0, *back), zero_log_det(z, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the sizes in their new order."""
        return tuple(in_shape[axis - 1] for axis in self.order)

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the sizes in their old order."""
        return tuple(latent_shape[self.order.index(axis)] for axis in sorted(self.order))


class Flip(Transform):
    """Mirror an event along some axes; its own inverse.

    Between autoregressive layers it lets each element come first and last in turn: along height and width it reverses
    the raster order of the positions.

    Args:
        axes: of `(rows, channels, ...)`, counted from 1; height and width of images by default.

    Example:
        >>> Flip((1,))(torch.tensor([[1.0, 2.0, 3.0]]))[0]
        tensor([[3., 2., 1.]])
    """

    moves_elements = True

    def __init__(self, axes: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        if not axes or min(axes) < 1 or len(set(axes)) != len(axes):
            raise ShapeError(f"Flip needs different axes, counted from 1 (axis 0 runs over the rows), got {axes}.")
        self.axes = tuple(axes)
        self.takes = (*(f"axis {axis}" for axis in range(1, max(axes) + 1)), ...)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Reverse the order along the axes."""
        return x.flip(self.axes), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Reverse it again."""
        return self(z, context)
