"""Colours of integers in another basis, without loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likelify.errors import ConfigError, DomainError
from likelify.shapes import check_size
from likelify.structure import ContextLike, sum_items, zero_log_det
from likelify.support import check_domain
from likelify.transforms.core import Transform


class YCoCgR(Transform):
    r"""Red, green and blue as luma, orange and green: the reversible YCoCg of lossless codecs, integers to integers.

        Co = R - B,   t = B + floor(Co / 2),   Cg = G - t,   Y = t + floor(Cg / 2).

    Each step adds to one number a function of the others, so the inverse takes them back in the reverse order, and
    nothing is rounded away. A bijection of integers moves their probabilities and changes none: the contribution is
    zero. Put it in front of `Dequantize(layer.out_levels)` or of a model of integers: colours of photographs are nearly
    equal, so most of what differs is then in one channel.

    Differences have twice the range. By default they wrap around, as in 8-bit arithmetic: all three are taken modulo
    the number of levels, with zero difference in the middle. That is a permutation of the `levels^3` colours, so
    every value behind it stands for a colour and no probability is lost; only strongly coloured pixels, with
    differences above half of the range, are torn apart from their neighbours.

    Args:
        levels: number of values of each colour; the integers are `0 .. levels - 1`.
        wrap: keep the range. With False the differences keep their order and need `2 levels - 1` values, of which most
            triples stand for no colour: their inverse is brought into the range and has the contribution minus
            infinity.

    Attributes:
        out_levels: number of values of what comes out.

    Raises:
        DomainError: for values that are not integers of the range, or a floating dtype too short for them.
        ShapeError: unless there are three channels.

    Source:
        Malvar and Sullivan 2003 (YCoCg-R); wrapping is how lossless WebP and PNG filters keep their range.

    Example:
        >>> layer = YCoCgR(256)
        >>> pixel = torch.tensor([200, 180, 150]).reshape(1, 3, 1, 1)
        >>> layer(pixel)[0].flatten(), layer.inverse(layer(pixel)[0])[0].flatten()
        (tensor([177., 178., 133.]), tensor([200., 180., 150.]))
    """

    keeps_integers = True
    inverse_check = None
    takes = (3, ...)
    probe: Tensor

    def __init__(self, levels: int = 256, *, wrap: bool = True) -> None:
        super().__init__()
        self.levels = check_size(levels, "The levels of YCoCgR", least=2)
        if levels > 2**16:
            raise ConfigError(f"YCoCgR needs 2 to 65536 levels, got {levels}.")
        self.wrap = wrap
        # Integers carry no floating dtype; this empty buffer moves with the model and tells which one to use.
        self.register_buffer("probe", torch.empty(0), persistent=False)
        self.out_levels = self.levels if wrap else 2 * self.levels - 1

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Take differences of colours."""
        x = self._integers(x, self.levels)
        red, green, blue = x.unbind(1)
        orange = self._kept(red - blue)
        middle = self._cut(blue + _half(orange))
        leaf = self._kept(green - middle)
        luma = self._cut(middle + _half(leaf))
        shift = self._shift()
        z = torch.stack([luma, orange + shift, leaf + shift], 1)
        return z, zero_log_det(z, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the differences, the last one first."""
        z = self._integers(z, self.out_levels)
        shift = self._shift()
        luma, orange, leaf = z[:, 0], z[:, 1] - shift, z[:, 2] - shift
        middle = self._cut(luma - _half(leaf))
        green = self._cut(leaf + middle)
        blue = self._cut(middle - _half(orange))
        red = self._cut(blue + orange)
        x = torch.stack([red, green, blue], 1)
        if self.wrap:
            return x, zero_log_det(x, context)
        impossible = torch.where((x >= 0) & (x < self.levels), 0.0, -math.inf)
        return x.clamp(0, self.levels - 1), sum_items(impossible.to(z), context)

    def _shift(self) -> int:
        """Return where zero difference lies."""
        return self.levels // 2 if self.wrap else self.levels - 1

    def _cut(self, value: Tensor) -> Tensor:
        return torch.remainder(value, self.levels) if self.wrap else value

    def _kept(self, difference: Tensor) -> Tensor:
        """Return a difference, brought by whole turns to the range around zero."""
        shift = self._shift()
        return self._cut(difference + shift) - shift if self.wrap else difference

    def _integers(self, x: Tensor, levels: int) -> Tensor:
        # Not in 8 bits, where 1 - 2 is 255.
        x = x if x.is_floating_point() else x.to(self.probe.dtype)
        if torch.finfo(x.dtype).eps * levels > 1:
            raise DomainError(f"{x.dtype} is too short for differences of {levels} levels; use float32 or float64.")
        check_domain((x >= 0) & (x < levels) & (x == x.floor()), self, f"the integers 0..{levels - 1}")
        return x


def _half(value: Tensor) -> Tensor:
    return torch.div(value, 2, rounding_mode="floor")
