"""Convolutions as linear maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import reshape_bound, torus_bound, widest
from likelify.linalg.maps import LinearMap, Shape

BoundName = Literal["reshape", "torus"]
BOUNDS = {"reshape": reshape_bound, "torus": torus_bound}


@dataclass(frozen=True, eq=False)
class ConvMap(LinearMap):
    r"""A convolution of stride 1 that keeps the image's size, on events `(c, h, w)`.

    `y[o, p] = sum_{i, s} kernel[o, i, s] x[i, p + s]` (a cross-correlation, as everywhere in deep learning).

    Args:
        kernel: `(c, c, k_h, k_w)` with odd `k_h, k_w`. An even kernel has no centre: its output would be shifted
            against its input or have another size, and the exponential needs `L` to map a space to itself.
        padding: `"zeros"`.
        bound: which guaranteed norm bound certifies the map: `"reshape"` (cheap, about 2x loose) or `"torus"`.
        norm: a norm bound that is known already, for example because the kernel was normalised to it.
    """

    kernel: Tensor
    padding: Literal["zeros"] = "zeros"
    bound: BoundName = "reshape"
    norm: float | None = None

    def __post_init__(self) -> None:
        if self.padding != "zeros":
            raise ConfigError(f"ConvMap knows the padding 'zeros', not {self.padding!r}.")
        if self.bound not in BOUNDS:
            raise ConfigError(f"ConvMap knows the bounds {', '.join(BOUNDS)}, not {self.bound!r}.")
        shape = tuple(self.kernel.shape)
        if len(shape) != 4 or shape[0] != shape[1]:
            raise ShapeError(f"ConvMap needs a kernel (c, c, k_h, k_w), got shape {shape}.")
        check_odd(shape[2:])

    def apply(self, x: Tensor) -> Tensor:
        """Convolve each image of `x`, `(rows, c, h, w)`."""
        if x.ndim != 4 or x.shape[1] != self.kernel.shape[1]:
            raise ShapeError(
                f"ConvMap with {self.kernel.shape[1]} channels needs an input (rows, {self.kernel.shape[1]}, h, w), "
                f"got {tuple(x.shape)}."
            )
        height, width = self.kernel.shape[2:]
        return F.conv2d(x, self.kernel, padding=(height // 2, width // 2))

    def adjoint(self) -> ConvMap:
        """Swap the channels of the kernel and turn it by 180 degrees."""
        return ConvMap(self.kernel.transpose(0, 1).flip(2, 3), self.padding, self.bound, self.norm)

    def trace(self, event_shape: Shape) -> Tensor:
        """Give `h w sum_c kernel[c, c, centre]`: only the centre tap meets its own pixel."""
        height, width = self.kernel.shape[2:]
        return self.kernel[:, :, height // 2, width // 2].trace() * math.prod(event_shape[1:])

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Give the declared bound, or compute the chosen one; it holds for every image size."""
        return self.norm if self.norm is not None else BOUNDS[self.bound](widest(self.kernel.detach()))


def check_odd(kernel_size: tuple[int, ...]) -> None:
    """Refuse kernels without a centre."""
    if any(size % 2 == 0 for size in kernel_size):
        raise ShapeError(
            f"The kernel has size {'x'.join(map(str, kernel_size))}; sizes must be odd. An even kernel has no centre "
            "tap, so the convolution would shift the image or change its size, and has no exact trace of this form."
        )
