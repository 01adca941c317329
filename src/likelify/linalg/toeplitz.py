r"""Toeplitz and circulant matrices along one axis of an event: filters, with zeros around or on a ring."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ShapeError
from likelify.linalg.axis_maps import AxisMap, margin, scaled_norm
from likelify.linalg.bounds import round_off_margin, widest
from likelify.linalg.dense import project
from likelify.linalg.maps import Symmetry, check_declared_norm, check_entries, check_symmetry
from likelify.shapes import Shape
from likelify.tracing import HALF, is_tracing, may_look

# Points at which the symbol of a Toeplitz matrix is looked at, for each tap but the first.
DENSITY = 8
# Up to this sum of taps no better bound is looked for.
SMALL_SUM = 1.0
# Filters on longer axes are applied by Fourier transforms, without their matrices.
LONG = 512
# Largest matrices that are formed by a product with zeros and ones.
SELECTED = 32
_ODD = "an odd number of taps"


@dataclass(frozen=True, eq=False)
class Toeplitz(AxisMap, vouches=True):
    r"""Toeplitz matrices `T[i, j] = taps[(k - 1) / 2 + j - i]`, zero beyond the taps, on an axis of any size.

    It is the 1-d convolution with these taps and zeros around. Taps further from the centre than the axis is long do
    nothing.

    Args:
        taps: `(G, k)`, or `(rows, G, k)` for taps of its own for each row; k odd.
        symmetry: take the symmetric or the skew part.
        norm: an upper bound of the 2-norm of all of them that is known already.
        proved: that bound was computed from what is given here, so that it need not be checked.
        hollow: the centre taps are zero, and not among those given, `(G, k - 1)` or `(rows, G, k - 1)`.

    Example:
        >>> step = Toeplitz(torch.tensor([[0.0, 0.0, 1.0]]))
        >>> step.apply(torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[2., 3., 0.]]])
    """

    taps: Tensor
    symmetry: Symmetry = None  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
    norm: float | None = None
    proved: bool = False
    hollow: bool = False

    def __post_init__(self) -> None:
        _check_taps(self)
        taps = self.taps if self.symmetry is None else project(self.taps, self.taps.flip(-1), self.symmetry)
        object.__setattr__(self, "_given", taps)

    @property
    def given(self) -> Tensor:
        """The taps that are applied, without those in the centre if these are not given."""
        return self._given  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def effective(self) -> Tensor:
        """The taps that are applied, `(G, k)` or `(rows, G, k)`."""
        if not self.hollow:
            return self.given
        before, after = self.given.tensor_split(2, -1)
        return torch.cat([before, self.taps.new_zeros(*self.taps.shape[:-1], 1), after], -1)

    @property
    def reach(self) -> int:
        """The distance of the outermost taps."""
        return self.taps.shape[-1] // 2

    @property
    def groups(self) -> int:
        """The number of filters."""
        return self.taps.shape[-2]

    @property
    def rows(self) -> int | None:
        """How many rows have taps of their own."""
        return self.taps.shape[0] if self.taps.ndim == 3 else None

    def reaching(self, size: int) -> Tensor:
        """Return the `2 n - 1` taps that matter on an axis of that size, with zeros for those that are not there."""
        more = size - self.reach - 1
        return F.pad(self.effective, (more, more)) if more else self.effective

    def matrix(self, size: int) -> Tensor:
        """Form the matrices."""
        return toeplitz(self.reaching(size), size)

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Multiply by the matrices, on long axes by Fourier transforms with room for zeros."""
        size = x.shape[axis]
        if size <= LONG or not x.numel():
            return super().along(x, axis)
        if x.dtype in HALF:
            # Libraries of Fourier transforms have no half precision, or only for powers of two.
            return replace(self, taps=self.taps.float()).along(x.float(), axis).to(x.dtype)
        ring = self._ring(self._room(size))
        # A tap at s takes what stands s further on: the conjugate of a shift by s.
        symbol = torch.fft.rfft(ring).conj().unsqueeze(-2)
        rows = x.movedim(axis, -1)
        spectrum = torch.fft.rfft(rows.reshape(len(x), self.groups, -1, size), n=ring.shape[-1])
        value = torch.fft.irfft(spectrum * symbol, n=ring.shape[-1])[..., :size]
        return value.reshape(rows.shape).movedim(-1, axis)

    def _room(self, size: int) -> int:
        """Return a length on which taps that go round meet zeros only."""
        return size + max(size, self.reach + 1)

    def _ring(self, size: int) -> Tensor:
        """Return the taps on a ring of that size, the centre first."""
        taps = self.effective
        place = (torch.arange(taps.shape[-1], device=taps.device) - taps.shape[-1] // 2) % size
        return taps.new_zeros(*taps.shape[:-1], size).index_add(-1, place, taps)

    def squares(self, size: int) -> Tensor:
        """Add up each tap as often as it stands in the matrix, which is not formed."""
        away = torch.arange(1 - size, size, device=self.taps.device).abs()
        return (widest(self.reaching(size).detach()).square() * (size - away)).sum(-1)

    def group_traces(self, size: int) -> Tensor:
        """Return the centre taps times the size; exactly zero for skew ones."""
        if self.hollow:
            return self.taps.new_zeros(self.taps.shape[:-1])
        return self.given[..., self.reach] * size

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return the declared norm, the sum of the taps' sizes where that is small enough, or the best bound."""
        _, size = self._event(event_shape)
        if self.norm is None and may_look(self.taps):
            total = self._tap_sums(size).amax(-1)
            # The symbol takes as long as the squaring of small matrices that a better bound may save.
            if bool((total <= SMALL_SUM).all()):
                return total
        return super().norm_bound(event_shape)

    def _acting(self, size: int) -> Tensor:
        """Return the taps of which each stands at most once in a row of the matrix."""
        return self.reaching(size)

    def _tap_sums(self, size: int) -> Tensor:
        taps = self._acting(size).detach()
        return torch.linalg.vector_norm(taps, 1, dim=-1) * (1 + round_off_margin(taps.dtype, taps.shape[-1]))

    def bounds(self, size: int, *, of_symmetric_part: bool = False) -> Tensor:
        r"""Return the smaller of two bounds: the sum of the taps' sizes, and the largest value of the symbol.

        The matrix is a part of the infinite one, whose norm is `sup |sum_s t_s e^(i s theta)|`; between the points of
        the grid that are looked at, the symbol is bounded as in `torus_bound`.
        """
        taps = widest(self.reaching(size).detach())
        if of_symmetric_part:
            taps = project(taps, taps.flip(-1), "symmetric")
        total = taps.abs().sum(-1)
        if not taps.numel():
            return total
        points = max(1, DENSITY * (taps.shape[-1] - 1))
        loss = math.cos(math.pi * (taps.shape[-1] - 1) / 2 / points)
        symbol = torch.fft.rfft(taps, n=points).abs().amax(-1) / loss
        # The transform rounds relative to the taps, not to its values.
        return torch.minimum(symbol + total * round_off_margin(taps.dtype, 16), total) * (1 + margin(self.taps))

    def scaled(self, factor: float | Tensor) -> Toeplitz:
        """Scale the taps."""
        return replace(self, taps=self.taps * factor, norm=scaled_norm(self.norm, factor))

    def adjoint(self) -> Toeplitz:
        """Reverse the taps."""
        return replace(self, taps=self.taps.flip(-1))

    def sharpened(self) -> Toeplitz:
        """Compute the norm instead of taking the declared one."""
        return replace(self, norm=None, proved=False)


@dataclass(frozen=True, eq=False)
class Circulant(Toeplitz, vouches=True):
    r"""Circulant matrices: 1-d convolutions on a ring, `C[i, j] = sum_s taps[(k - 1) / 2 + s]` over `s = j - i mod n`.

    Taps that reach further than the ring is long go round it. They commute with translations.

    Args:
        taps: `(G, k)`, or `(rows, G, k)`; k odd.
        symmetry: take the symmetric or the skew part.
        norm: an upper bound of the 2-norm of all of them that is known already.
        proved: that bound was computed from what is given here, so that it need not be checked.
        hollow: as in `Toeplitz`.
    """

    def matrix(self, size: int) -> Tensor:
        """Form the matrices."""
        ring = self._ring(size)
        # The taps at -(n - 1) ... n - 1 of a Toeplitz matrix.
        return toeplitz(torch.cat([ring[..., 1:], ring], -1), size)

    def squares(self, size: int) -> Tensor:
        """Add up what each row holds, which is the same in all."""
        return widest(self._ring(size).detach()).square().sum(-1) * size

    def group_traces(self, size: int) -> Tensor:
        """Return what falls on the diagonal times the size."""
        return self._ring(size)[..., 0] * size

    def bounds(self, size: int, *, of_symmetric_part: bool = False) -> Tensor:
        """Return the largest size of an eigenvalue, or of its real part: these matrices are normal."""
        ring = widest(self._ring(size).detach())
        if not ring.numel():
            # Libraries of Fourier transforms refuse no rows.
            return ring.sum(-1)
        symbol = torch.fft.rfft(ring)
        largest = (symbol.real if of_symmetric_part else symbol).abs().amax(-1)
        return (largest + ring.abs().sum(-1) * round_off_margin(ring.dtype, 16)) * (1 + margin(self.taps))

    def _acting(self, size: int) -> Tensor:
        """Return the taps on the ring, where those that go round it add up."""
        return self._ring(size)

    def _room(self, size: int) -> int:
        """Return the ring's own length."""
        return size


def toeplitz(taps: Tensor, size: int, *, transposed: bool = False, hollow: bool = False) -> Tensor:
    """Form Toeplitz matrices `(..., n, n)` from their taps at `-(n - 1) ... n - 1`, hollow ones from those but 0."""
    if taps.device.type == "cpu" and size <= SELECTED and not is_tracing():
        # A product with zeros and ones, whose backward pass is one too: half the time of gathering and scattering.
        places = selection(size, taps.dtype, hollow=hollow, transposed=transposed)
        return (taps @ places).view(*taps.shape[:-1], size, size)
    if hollow:
        before, after = taps.tensor_split(2, -1)
        taps = torch.cat([before, taps.new_zeros(*taps.shape[:-1], 1), after], -1)
    return taps[..., _places(size, taps.device, transposed=transposed)]


def _places(size: int, device: torch.device, *, transposed: bool) -> Tensor:
    """Return which tap stands where."""
    place = torch.arange(size, device=device)
    return (size - 1) + (-1 if transposed else 1) * (place[None, :] - place[:, None])


@functools.lru_cache(maxsize=256)
def selection(size: int, dtype: torch.dtype, *, hollow: bool, transposed: bool) -> Tensor:
    """Return the zeros and ones that put taps into their places, `(taps, n n)`."""
    with torch.inference_mode(mode=False):
        places = _places(size, torch.device("cpu"), transposed=transposed).flatten()
        chosen = torch.nn.functional.one_hot(places, 2 * size - 1).T
        return (torch.cat([chosen[: size - 1], chosen[size:]]) if hollow else chosen).to(dtype).contiguous()


def transposed_matrices(parts: Sequence[AxisMap], size: int) -> Tensor:
    """Form the transposed matrices of parts for axes of one size, one after the other: `(..., sum of groups, n, n)`."""
    if all(type(part) is Toeplitz for part in parts):
        filters = [part for part in parts if isinstance(part, Toeplitz)]
        hollow = all(part.hollow and part.reach == size - 1 for part in filters)
        taps = [part.given if hollow else part.reaching(size) for part in filters]
        return toeplitz(torch.cat(taps, -2) if len(taps) > 1 else taps[0], size, transposed=True, hollow=hollow)
    matrices = [part.matrix(size).mT for part in parts]
    return torch.cat(matrices, -3) if len(matrices) > 1 else matrices[0]


def _check_taps(map_: Toeplitz) -> None:
    taps = map_.taps
    if taps.ndim not in (2, 3) or taps.shape[-1] % 2 == map_.hollow:
        raise ShapeError(
            f"{type(map_).__name__} needs {'an even number of taps, as it is hollow' if map_.hollow else _ODD}, "
            f"(groups, k), or (rows, groups, k) for those of each row, got shape {tuple(taps.shape)}."
        )
    check_entries(taps, "taps")
    check_symmetry(map_.symmetry)
    check_declared_norm(map_.norm)
