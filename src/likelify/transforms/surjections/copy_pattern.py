"""Which elements are copied where: the linear maps behind `Repeat` and `Unfold`, and their adjoints."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.shapes import EventShape, Shape, as_shape, check_event, kept_arguments, per_axis


class CopyPattern(nn.Module, ABC):
    """Which elements are copied where: `copy` repeats them, `total` adds the copies up (its adjoint).

    The copies of a channel are consecutive channels, copy `j` of channel `c` being channel `c copies + j`; only
    `EqualCopies` has another order too.

    Attributes:
        original: events that are copied, as `structure.check_event` knows them.
        copied: the same for their copies.
        channels: of the events that are copied.
        copies: places of copies for each channel; near a border some of them are not used by every element.
        counts: number of copies N of the elements of one channel, broadcast over positions, at least one.
        free: dimensions of the noise of one channel, `sum (N - 1)` over its elements (of one element for
            `EqualCopies`).
        missing: where there is no copy at all, boolean over positions, or None.
    """

    original: EventShape
    copied: EventShape
    channels: int
    copies: int
    counts: Tensor
    free: int
    missing: Tensor | None
    extra_repr = kept_arguments

    @abstractmethod
    def copy(self, x: Tensor) -> Tensor:
        """Repeat: `(rows, c, *positions)` to `(rows, c copies, *out_positions)`."""

    @abstractmethod
    def total(self, t: Tensor) -> Tensor:
        """Add up: `(rows, c copies, *out_positions)` to `(rows, c, *positions)`."""

    @abstractmethod
    def copied_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the copies."""

    @abstractmethod
    def total_shape(self, copied: Shape) -> Shape:
        """Return the shape of the sums."""

    def mean(self, t: Tensor) -> Tensor:
        """Average the copies; zero where there is none."""
        return self.total(t) / self.counts

    def project(self, t: Tensor) -> Tensor:
        """Take the part that is orthogonal to repeated elements."""
        return t - self.copy(self.mean(t))


class EqualCopies(CopyPattern):
    """Every element has the same number of copies.

    Args:
        channels: of the events that are copied.
        copies: how many.
        blocks: put the copies of the whole event behind each other, instead of those of each channel.
    """

    def __init__(self, channels: int, copies: int, *, blocks: bool = False) -> None:
        super().__init__()
        if copies < 1:
            raise ConfigError(f"There must be at least one copy, got {copies}.")
        self.original, self.copied = (channels, ...), (channels * copies, ...)
        self.channels, self.copies, self.blocks = channels, copies, blocks
        self.free = copies - 1
        self.register_buffer("counts", torch.tensor(float(copies)), persistent=False)
        self.register_buffer("missing", None)

    def copy(self, x: Tensor) -> Tensor:
        """Repeat each channel."""
        if self.blocks:
            return torch.cat([x] * self.copies, 1)
        return x.repeat_interleave(self.copies, dim=1)

    def total(self, t: Tensor) -> Tensor:
        """Add the copies of each channel."""
        if self.blocks:
            return t.unflatten(1, (self.copies, -1)).sum(1)
        return t.unflatten(1, (-1, self.copies)).sum(2)

    def copied_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the copies."""
        return (self.channels * self.copies, *in_shape[1:])

    def total_shape(self, copied: Shape) -> Shape:
        """Return the shape of the sums."""
        return (self.channels, *copied[1:])


class WindowCopies(CopyPattern):
    """Sliding windows of sequences and images: each element is copied into every window that reads it.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows, one size for each axis.
        stride: of the windows.
        dilation: of the windows.
    """

    def __init__(self, in_shape: Shape, kernel_size: Shape, stride: Shape, dilation: Shape) -> None:
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.out_positions = tuple(
            (n - d * (k - 1) - 1) // s + 1
            for n, k, s, d in zip(in_shape[1:], kernel_size, stride, dilation, strict=True)
        )
        if min(self.out_positions) < 1:
            raise ShapeError(f"Windows of size {kernel_size} do not fit into events {self.in_shape}; pad them first.")
        self.channels, self.copies = in_shape[0], math.prod(kernel_size)
        self.original, self.copied = self.in_shape, (self.channels * self.copies, *self.out_positions)
        self.disjoint = (
            len(kernel_size) == 2
            and kernel_size == stride
            and kernel_size[0] == kernel_size[1]
            and dilation == (1, 1)
            and all(n % k == 0 for n, k in zip(in_shape[1:], kernel_size, strict=True))
        )
        counts = self.total(torch.ones(1, self.copies, *self.out_positions))[0, 0]
        self.free = int((counts - 1).clamp_min(0).sum())
        self.register_buffer("counts", counts.clamp_min(1), persistent=False)
        self.register_buffer("missing", counts == 0 if bool((counts == 0).any()) else None, persistent=False)

    def copy(self, x: Tensor) -> Tensor:
        """Gather the windows into channels, as `torch.nn.functional.unfold` orders them."""
        # pixel_unshuffle and pixel_shuffle give the shape of their input if there are no rows.
        if self.disjoint and len(x):
            return torch.pixel_unshuffle(x, self.kernel_size[0])
        if len(self.kernel_size) == 1:
            return F.unfold(x.unsqueeze(2), **self._options())
        return F.unfold(x, **self._options()).unflatten(2, self.out_positions)

    def copied_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the windows."""
        return (self.channels * self.copies, *self.out_positions)

    def total_shape(self, copied: Shape) -> Shape:
        """Return the shape of the event."""
        return self.in_shape

    def total(self, t: Tensor) -> Tensor:
        """Add up the windows where they overlap."""
        if self.disjoint and len(t):
            return torch.pixel_shuffle(t, self.kernel_size[0])
        if len(self.kernel_size) == 1:
            return F.fold(t, (1, self.in_shape[1]), **self._options()).squeeze(2)
        return F.fold(t.flatten(2), self.in_shape[1:], **self._options())

    def _options(self) -> dict[str, Shape]:
        line = (1,) if len(self.kernel_size) == 1 else ()
        return {
            "kernel_size": line + self.kernel_size,
            "stride": line + self.stride,
            "dilation": line + self.dilation,
        }


def count_axes(in_shape: int | Shape) -> int:
    """Return the number of position axes of events `(channels, *positions)`, at least one."""
    check_event(as_shape(in_shape), ("channels", "positions", ...), "A layer with windows")
    return len(as_shape(in_shape)) - 1


def window_copies(
    in_shape: Shape, kernel_size: int | Sequence[int], stride: int | Sequence[int], dilation: int | Sequence[int]
) -> WindowCopies:
    """Build the pattern of windows whose sizes, strides and dilations are given for all axes, or for each."""
    axes = count_axes(in_shape)
    if axes > 2:
        raise UnsupportedError(
            f"Windows slide along one or two position axes; events {tuple(in_shape)} have {axes}. Reshape them, or "
            "write a Transform of your own (docs/extending.md)."
        )
    settings = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
    return WindowCopies(in_shape, **{name: per_axis(value, axes, name) for name, value in settings.items()})
