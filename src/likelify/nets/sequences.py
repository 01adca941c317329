"""Networks of sequences: convolutions along the length that see far, and that may know where they are."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.errors import ShapeError
from likelify.linalg.conv import odd_taps
from likelify.nets.conditioners import Dropout, joined, zeroed
from likelify.shapes import check_size, check_sizes
from likelify.structure import ContextLike
from likelify.tracing import in_full_precision


class SequenceNet(nn.Module):
    """A residual network of dilated convolutions on sequences; it gives zeros before training.

    A convolution in; blocks of SiLU and a convolution whose taps are 1, 2, 4, ... apart, added to their input; SiLU and
    a 1x1 convolution out. With `length`, it adds a trained value for each channel at each time, so that what it says
    may depend on the time.

    Args:
        in_channels: of the input, without the condition.
        out_channels: of the output.
        hidden: width.
        blocks: number of residual blocks.
        kernel_size: of the convolutions, odd.
        length: of the sequences, if the network is to know the time; None for any length.
        context_features: of the condition.
        dropout: rate inside each block, see `Dropout`.

    Source:
        Bai, Kolter and Koltun 2018 (temporal convolutional networks), without their causal order.

    Example:
        >>> SequenceNet(2, 6, hidden=8, blocks=2)(torch.zeros(3, 2, 7)).shape
        torch.Size([3, 6, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 32,
        blocks: int = 2,
        *,
        kernel_size: int = 3,
        length: int | None = None,
        context_features: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels = check_size(in_channels, "in_channels")
        self.context_features = check_size(context_features, "context_features", least=0)
        check_sizes(out_channels=out_channels, hidden=hidden)
        check_sizes(least=0, blocks=blocks)
        odd_taps(kernel_size, 1)
        if length is not None:
            check_sizes(length=length)
        self.enter = nn.Conv1d(in_channels + context_features, hidden, kernel_size, padding=kernel_size // 2)
        self.times = None if length is None else nn.Parameter(torch.zeros(hidden, length))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.SiLU(),
                *([Dropout(dropout)] if dropout else []),
                nn.Conv1d(hidden, hidden, kernel_size, padding=2**index * (kernel_size // 2), dilation=2**index),
            )
            for index in range(blocks)
        )
        self.leave = zeroed(nn.Conv1d(hidden, out_channels, 1))

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `(rows, out_channels, length)`."""
        h = in_full_precision(self.enter, joined(self, (self.in_channels, self.context_features), x, context))
        if self.times is not None:
            if h.shape[2] != self.times.shape[1]:
                raise ShapeError(f"This SequenceNet knows {self.times.shape[1]} times, and got {h.shape[2]}.")
            h = h + self.times
        for block in self.blocks:
            h = h + block(h)
        return in_full_precision(self.leave, F.silu(h))
