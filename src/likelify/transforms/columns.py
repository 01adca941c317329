"""The first layer of models of tables: columns in the units of the user to values around zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from likelify.errors import DataError
from likelify.shapes import check_size
from likelify.structure import ContextLike, sum_constant
from likelify.transforms.core import Transform
from likelify.transforms.rules import FINITE, POSITIVE

# Of as many rows this share of the values that differ must differ when they are standardised; scales below the last
# lose digits in float64.
SAMPLE, KEPT, SMALLEST = 1000, 0.75, 1e-290


class InDouble(nn.Module):
    """What a layer is besides, whose buffers stay in float64 where there is float64, whatever the dtype of the flow.

    Attributes:
        in_double: names of these buffers.
    """

    in_double: ClassVar[tuple[str, ...]]
    like: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Follows the dtype of the flow, which the buffers in float64 do not.
        self.register_buffer("like", torch.empty(0), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Move to another device, but leave what is in float64 in that where there is float64."""
        kept = {name: self.get_buffer(name) for name in self.in_double}
        for name, tensor in kept.items():
            setattr(self, name, tensor.float())
        super()._apply(fn, recurse)
        for name, tensor in kept.items():
            device = self.get_buffer(name).device
            if device.type != "mps":
                # What is on no device has no values to take along.
                empty = tensor.is_meta and device.type != "meta"
                setattr(self, name, torch.empty_like(tensor, device=device) if empty else tensor.to(device))
        return self


class Columns(InDouble, Transform):
    r"""Subtract from each column its mean and divide by its scale, both fitted to data and not trained.

    `z = (x - mean) / scale`, `log |det dz/dx| = -sum ln scale`: the likelihood of a flow that starts with this layer is
    a density in the units of the rows, and its samples are in these units. The difference and the quotient are computed
    in float64, whatever the dtype of the flow, and only `z` has that dtype: of a column like `1.7e9 +- 100` float32
    would keep one digit. `inverse` returns float64 likewise. (On Apple's MPS, which has no float64, everything is in
    float32.)

    Before `initialize` the mean is zero and the scale one. A column that has one value only in the sample keeps the
    scale one.

    Args:
        columns: number of columns.

    Raises:
        ShapeError: for rows of another length.

    Example:
        >>> layer = Columns(2)
        >>> rows = torch.tensor([[1.7e9, 0.1], [1.7e9 + 200, 0.3]], dtype=torch.float64)
        >>> z = layer.initialize(rows)
        >>> z.dtype, z.round(decimals=3)
        (torch.float32, tensor([[-1., -1.],
                [ 1.,  1.]]))
        >>> torch.equal(layer.inverse(z)[0].round(decimals=3), rows)
        True
    """

    fills_space = True
    inverse_check = None

    takes_float64 = True

    in_double = ("mean", "scale")

    buffer_rules = {"mean": FINITE, "scale": POSITIVE}
    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        columns = check_size(columns, "The number of Columns")
        self.takes = (columns,)
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(columns, dtype=torch.float64))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Take mean and standard deviation of each column of the sample.

        They are computed without squares that overflow or vanish, so that columns of any units that float64 can carry
        are standardised.

        Raises:
            DataError: if the sample is empty, a value is not finite or too large, or most values of a column become the
                same number in the dtype of the flow, as they do beside a value that is far from all others.
        """
        if len(x) == 0:
            raise DataError("Columns.initialize got an empty sample.")
        if faults := self.faults(x):
            column, said = next(iter(faults.items()))
            raise DataError(f"Column {column} (from 0) of the sample {said}.")
        with torch.no_grad():
            mean, scale = moments(x.to(self.mean))
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(scale > 0, scale, 1.0))
        return super().initialize(x, context)

    def faults(self, x: Tensor) -> dict[int, str]:
        """Return what is wrong with the columns of a sample, by their numbers from 0, for the end of a sentence.

        Args:
            x: the sample `(n, columns)`, not empty.
        """
        with torch.no_grad():
            rows = x.to(self.mean)
            mean, scale = moments(rows)
            spread = rows.amax(0) - rows.amin(0)
            wrong = ~torch.isfinite(mean + scale + spread) | ((scale > 0) & (scale < SMALLEST))
            some = rows[:SAMPLE].sort(0).values
            kept = ((some - mean) / torch.where(scale > 0, scale, 1.0)).to(self.like)
            lost = ~wrong & (_distinct(kept) < KEPT * _distinct(some))
        number = str(self.like.dtype).rpartition(".")[2]
        found = dict.fromkeys(
            wrong.nonzero()[:, 0].tolist(),
            "has values that are not finite, too large, or too close for float64 to compute with",
        )
        return found | dict.fromkeys(
            lost.nonzero()[:, 0].tolist(),
            f"has values so far from the others that {number} cannot tell these apart once they are standardised. Mend "
            "such values, drop their rows, or take logarithms of the column",
        )

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the standardised rows in the dtype of the flow, and minus the sum of the logarithms of the scales."""
        z = ((x.to(self.mean) - self.mean) / self.scale).to(self.like)
        return z, sum_constant(-self._log_volume().to(z), z, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return rows in the units of the data, in float64."""
        x = self.mean + self.scale * z.to(self.mean)
        return x, sum_constant(self._log_volume(), x, context)

    def _log_volume(self) -> Tensor:
        return self.scale.log().sum()


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column, computed in units near its largest value."""
    # Powers of two change no digit.
    largest = rows.abs().amax(0)
    unit = torch.where(largest > 0, torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1), 1.0)
    scaled = rows / unit
    return scaled.mean(0) * unit, scaled.std(0, correction=0) * unit


def _distinct(ordered: Tensor) -> Tensor:
    """Return the number of distinct values of each column, of which the values are in order."""
    return (ordered.diff(dim=0) > 0).sum(0) + 1
