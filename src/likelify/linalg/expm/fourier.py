r"""Circular convolutions in the frequency domain, where each frequency has a matrix on the channels of its own.

`y[p] = sum_s K_s x[p + s]` on a torus has the Fourier transform `Y(f) = P(f) X(f)` with
`P(f) = sum_s K_s exp(2 pi i f s / n)`, so `exp(L)` is `exp(P(f))` at each `f`.
"""

import torch
from torch import Tensor

from likelify.linalg.conv import ConvMap


def frequency_matrices(map_: ConvMap, event_shape: tuple[int, ...]) -> Tensor:
    """Return `P(f)` for the frequencies of a real transform, `(*frequencies, c, c)`, complex."""
    kernel, sizes = map_.effective, event_shape[1:]
    taps = kernel.shape[2:]
    if map_.groups > 1:
        blocks = kernel.unflatten(0, (map_.groups, -1))
        kernel = torch.stack([torch.block_diag(*tap) for tap in blocks.flatten(3).movedim(-1, 0)], -1)
        kernel = kernel.unflatten(-1, tuple(taps))
    grid = kernel.new_zeros(*kernel.shape[:2], *sizes)
    # A tap at s belongs to exp(+2 pi i f s / n): index -s of a forward transform. Small images wrap onto themselves.
    offsets = [
        -(torch.arange(tap, device=kernel.device) - tap // 2) % size for tap, size in zip(taps, sizes, strict=True)
    ]
    index = torch.meshgrid(*offsets, indexing="ij")
    grid = _accumulate(grid, index, kernel)
    symbol = torch.fft.rfftn(grid, dim=tuple(range(2, grid.ndim)))
    return symbol.movedim((0, 1), (-2, -1))


def _accumulate(grid: Tensor, index: tuple[Tensor, ...], kernel: Tensor) -> Tensor:
    flat = torch.zeros_like(index[0])
    for axis, size in zip(index, grid.shape[2:], strict=True):
        flat = flat * size + axis
    return grid.flatten(2).index_add(2, flat.flatten(), kernel.flatten(2)).reshape(grid.shape)


def multiply_frequencies(matrices: Tensor, x: Tensor) -> Tensor:
    """Multiply each frequency of `x`, `(rows, c, *sizes)`, by its matrix."""
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.rfftn(x, dim=axes).movedim((0, 1), (-1, -2))
    return torch.fft.irfftn((matrices @ spectrum).movedim((-1, -2), (0, 1)), s=x.shape[2:], dim=axes)
