r"""Kronecker sums: one small matrix for each axis of an event, whose exponentials multiply.

On events `(channels, height, width)` the map `K = A (+) B` does `K x = A x + x B^T` in each channel. Its parts commute,
so `exp(K) x = exp(A) x exp(B)^T`: the exponential of a map on the whole image is that of two small matrices, and an
output at one corner depends on the input at every other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from likelify.errors import ConfigError, ShapeError, UnsupportedError
from likelify.linalg.axis_maps import AxisMap, AxisSum
from likelify.linalg.axis_products import apply_along
from likelify.linalg.maps import LinearMap, Symmetry, check_factor
from likelify.linalg.toeplitz import LONG, Toeplitz
from likelify.shapes import Shape, as_shape

AXES = ("channels", "first", "second", "third")


@dataclass(frozen=True, eq=False)
class KroneckerSum(LinearMap, vouches=True):
    r"""The Kronecker sum of small maps along the axes of events `(channels, *positions)`, of one to three positions.

    `K = sum_a I (x) F_a (x) I`, where `F_a` acts along the axis `a` alone and may be another matrix for each group of
    channels. `tr K = sum_a (D / n_a) tr F_a` for events of `D` elements, and `||K|| <= sum_a ||F_a||`. All the parts
    commute, and `exp(K)` is the product of their exponentials. Multiples and sums of Kronecker sums are Kronecker sums.

    Args:
        first: `Toeplitz`, `Circulant` or `AxisMatrix` along the first axis of positions (the rows of an image are
            numbered along it), or None where nothing happens along it.
        second: along the second one.
        third: along the third one.
        channels: matrices `AxisMatrix` of shape `(blocks, c, c)` on blocks of `c` consecutive channels. They commute
            with the others only if the channels of a block share those.

    Raises:
        ConfigError: if there is no part, or if the channels of a block do not share their matrices along an axis.
        ShapeError: if the parts are made for different numbers of rows or of channels, or do not fit the event.

    Example:
        >>> import torch
        >>> from likelify.linalg import KroneckerSum, Toeplitz
        >>> down = Toeplitz(torch.tensor([[1.0, 0.0, 0.0]]))
        >>> spread = KroneckerSum(down, down)
        >>> spread.apply(torch.eye(3)[None, None])
        tensor([[[[0., 1., 0.],
                  [1., 0., 1.],
                  [0., 1., 0.]]]])
    """

    first: AxisMap | None = None
    second: AxisMap | None = None
    third: AxisMap | None = None
    channels: AxisMap | None = None

    def __post_init__(self) -> None:
        places = enumerate((self.channels, self.first, self.second, self.third), 1)
        found = {axis: part for axis, part in places if part is not None}
        if not found:
            raise ConfigError("A KroneckerSum needs a map along at least one axis.")
        for axis, part in found.items():
            if not isinstance(part, AxisMap):
                raise UnsupportedError(
                    f"The part {AXES[axis - 1]} of a KroneckerSum must be a Toeplitz, Circulant or AxisMatrix, not "
                    f"{type(part).__name__}."
                )
        rows = {part.rows for part in found.values()} - {None}
        if len(rows) > 1:
            raise ShapeError(f"The parts of a KroneckerSum are made for different numbers of rows: {rows}.")
        if (conflict := _conflict(found)) is not None:
            raise ConfigError(conflict)
        object.__setattr__(self, "_parts", found)

    @property
    def parts(self) -> dict[int, AxisMap]:
        """The maps by the axis of `(rows, channels, *positions)` along which they act."""
        return self._parts  # pyright: ignore[reportAttributeAccessIssue]

    def matching(self, x: Tensor) -> LinearMap:
        """Return the map itself: every part holds tensors."""
        return self

    @property
    def rows(self) -> int | None:
        """How many rows have matrices of their own."""
        return next((part.rows for part in self.parts.values() if part.rows is not None), None)

    @property
    def symmetry(self) -> Symmetry:
        """What all parts have."""
        found: list[Symmetry] = [part.symmetry for part in self.parts.values()]
        return found[0] if all(symmetry == found[0] for symmetry in found) else None

    def is_long(self, event_shape: Shape) -> bool:
        """Tell whether a filter acts along so long an axis that its matrix is better not formed."""
        sized = self.sized(event_shape).items()
        return any(axis > 1 and size > LONG and isinstance(part, Toeplitz) for axis, (part, _, size) in sized)

    def sized(self, event_shape: Shape) -> dict[int, tuple[AxisMap, int, int]]:
        """Return for each axis its map, the number of copies of each matrix's axis in the event, and the axis' size.

        The copies are `D / n` for the axes of positions and for blocks of channels alike, of all groups together.
        """
        shape = as_shape(event_shape)
        found = {}
        for axis, part in self.parts.items():
            if axis > len(shape):
                raise ShapeError(
                    f"A KroneckerSum with a map along axis {axis - 1} of the positions cannot act on events of shape "
                    f"{shape} (channels, *positions)."
                )
            if shape[0] % part.groups:
                raise ShapeError(f"Matrices for {part.groups} groups of channels do not fit {shape[0]} channels.")
            size = shape[0] // part.groups if axis == 1 else shape[axis - 1]
            found[axis] = (part, math.prod(shape) // size, size)
        return found

    def apply(self, x: Tensor) -> Tensor:
        """Add what the parts do."""
        sized = self.sized(tuple(x.shape[1:]))
        if self.rows not in (None, len(x)):
            raise ShapeError(f"This KroneckerSum is made for {self.rows} rows, got {len(x)}.")
        terms = [
            apply_along(part.matrix(size), x, axis) if axis == 1 else part.along(x, axis)
            for axis, (part, _, size) in sized.items()
        ]
        return sum(terms[1:], terms[0])

    def adjoint(self) -> KroneckerSum:
        """Take the adjoints of the parts."""
        return self._each(lambda part: part.adjoint())

    def trace(self, event_shape: Shape) -> Tensor:
        """Add the traces of the parts, as often as each is there; exactly zero for skew ones."""
        traces = [
            part.group_traces(size).sum(-1) * (copies // part.groups)
            for part, copies, size in self.sized(event_shape).values()
        ]
        return sum(traces[1:], traces[0])

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds of the parts."""
        bounds = [part.norm_bound((part.groups, size)) for part, _, size in self.sized(event_shape).values()]
        return sum(bounds[1:], bounds[0])

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds of the parts."""
        bounds = [part.growth_bound((part.groups, size)) for part, _, size in self.sized(event_shape).values()]
        return sum(bounds[1:], bounds[0])

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the norms of the parts, as often as each is there."""
        norms = [
            part.frobenius_bound((part.groups, size)) * math.sqrt(copies / part.groups)
            for part, copies, size in self.sized(event_shape).values()
        ]
        return sum(norms[1:], norms[0])

    def __mul__(self, factor: float | Tensor) -> LinearMap:
        """Scale the parts."""
        check_factor(factor)
        one = factor.reshape(()) if isinstance(factor, Tensor) else factor
        return self._each(lambda part: part.scaled(one))

    __rmul__ = __mul__

    def __neg__(self) -> LinearMap:
        return self * -1.0

    def __add__(self, other: LinearMap) -> LinearMap:
        """Add the parts axis by axis, where the sum is a Kronecker sum of parts that commute."""
        if not isinstance(other, KroneckerSum):
            return super().__add__(other)
        blocks = {part.groups for map_ in (self, other) if (part := map_.channels) is not None}
        if len(blocks) > 1:
            return super().__add__(other)
        sums = {}
        for name in AXES:
            one, two = getattr(self, name), getattr(other, name)
            sums[name] = AxisSum(one, two) if one is not None and two is not None else one or two
        parts = {axis: sums[name] for axis, name in enumerate(AXES, 1) if sums[name] is not None}
        return super().__add__(other) if _conflict(parts) else KroneckerSum(**sums)

    def __sub__(self, other: LinearMap) -> LinearMap:
        return self + -other

    def _each(self, change: Callable[[AxisMap], AxisMap]) -> KroneckerSum:
        return replace(self, **{AXES[axis - 1]: change(part) for axis, part in self.parts.items()})


def _conflict(parts: dict[int, AxisMap]) -> str | None:
    """Say why the matrices on the channels do not commute with those along the axes, or return None."""
    blocks = parts.get(1)
    if blocks is None:
        return None
    for axis, part in parts.items():
        # Every block of channels lies in one group, whatever the number of channels, if the blocks are finer.
        if axis > 1 and blocks.groups % part.groups:
            return (
                f"The matrices along axis {axis - 1} of the positions are {part.groups}, one for each group of "
                f"channels, and those on the channels are {blocks.groups} blocks: they commute only if all channels of "
                "a block share one matrix along the axis. Let the number of groups divide the number of blocks."
            )
    return None
