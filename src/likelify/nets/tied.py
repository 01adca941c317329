"""Heads of Sylvester layers that have no network: two masked convolutions that share a kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.linalg.conv import odd_taps
from likelify.shapes import check_event, check_sizes, kept_arguments
from likelify.structure import ContextLike

# Of the diagonals: tanh rounds to one, and a slope of minus one could not be inverted.
LIMIT = 0.99


class TiedHeads(nn.Module):
    r"""The parameters of `f(u) = R2 tanh(R1 (u + b))` as heads of scalar maps `s2 tanh(s1 u + t1) + t2`.

    `R1` and `R2` are masked convolutions: every element sees those before it, by position in raster order, then by
    channel. `R1` has the kernel `d`, `R2` has `d` with its two channel axes and its two spatial axes swapped; the
    diagonals are `0.99 tanh(diagonal_1)` and `0.99 tanh(diagonal_2)`, so that every slope is at least 0.0199. So `s1`
    and `s2` are those diagonals, the same at every position, `t1` is what the earlier elements and `b` add inside the
    tanh, and `t2` what they add outside.

    Args:
        channels: of the images `(rows, channels, h, w)`.
        kernel_size: odd.

    Source:
        van den Berg et al. 2018 (the form without networks); as a convolution Hoogeboom et al. 2020, section 6.2.
    """

    context_features = 0
    extra_repr = kept_arguments

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        check_sizes(channels=channels)
        odd_taps(kernel_size, 2)
        self.channels, self.kernel_size = channels, kernel_size
        taps = kernel_size**2
        self.kernel = nn.Parameter(torch.randn(channels, channels, kernel_size, kernel_size) / (taps * channels))
        self.diagonal_1 = nn.Parameter(0.5 + 0.1 * torch.randn(channels))
        self.diagonal_2 = nn.Parameter(0.1 * torch.randn(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, u: Tensor, context: ContextLike = None) -> Tensor:
        """Return `t1` of every channel, then `s1`, `s2` and `t2`: `(rows, 4 channels, h, w)`.

        Raises:
            ShapeError: if the input is not an image of that many channels.
        """
        check_event(u.shape[1:], (self.channels, "height", "width"), "TiedHeads")
        inner, outer = self.kernels()
        s1, s2 = (LIMIT * torch.tanh(d)[:, None, None] for d in (self.diagonal_1, self.diagonal_2))
        bias, padding = self.bias[:, None, None], self.kernel_size // 2
        t1 = F.conv2d(u + bias, inner, padding=padding) + s1 * bias
        t2 = F.conv2d(torch.tanh(t1 + s1 * u), outer, padding=padding)
        return torch.cat([t1, s1.expand_as(u), s2.expand_as(u), t2], 1)

    def kernels(self) -> tuple[Tensor, Tensor]:
        """Return the kernels of `R1` and `R2` without their diagonals, `(channels, channels, k, k)`."""
        mask, swapped = self._mask(), self.kernel.transpose(0, 1).transpose(2, 3)
        return self.kernel * mask, swapped * mask

    def _mask(self) -> Tensor:
        """Return which weights there are. As a buffer that no state holds it would be lost by `to_empty`."""
        size, device = self.kernel_size, self.kernel.device
        middle = size**2 // 2
        place = torch.arange(size**2, device=device).reshape(size, size)
        below = torch.ones(self.channels, self.channels, device=device).tril(-1).bool()[:, :, None, None]
        return (place < middle) | (below & (place == middle))
