r"""Convolutions on a torus through their Fourier transform: one matrix on the channels for each frequency.

`z[p] = sum_s K_s x[p + s]` on a torus of size `n` has the transform `z_hat(f) = W(f) x_hat(f)` with
`W(f) = sum_s K_s exp(2 pi i f s / n)`. Inverses, volumes and exponentials of the convolution are those of the small
matrices `W(f)`. Of a real image half of the frequencies are kept; the others are their conjugates.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def kernel_frequencies(kernel: Tensor, sizes: Sequence[int], groups: int = 1, dilation: int = 1) -> Tensor:
    r"""Return the matrices `W(f)` of a convolution on a torus, for the frequencies of a real transform.

    Kernels larger than the torus wrap round it.

    Args:
        kernel: `(o, i / groups, *taps)` with odd numbers of taps; the middle one is at `s = 0`.
        sizes: of the torus, one for each axis of taps.
        groups: of channels that do not mix.
        dilation: distance of neighbouring taps.

    Returns:
        `(*frequencies, groups, o / groups, i / groups)`, complex.
    """
    for axis, size in enumerate(sizes, start=2):
        taps = torch.arange(kernel.shape[axis], device=kernel.device) - kernel.shape[axis] // 2
        # A tap at s belongs to exp(+2 pi i f s / n): index -s of a forward transform.
        shape = (*kernel.shape[:axis], size, *kernel.shape[axis + 1 :])
        kernel = kernel.new_zeros(shape).index_add(axis, -(dilation * taps) % size, kernel)
    symbol = torch.fft.rfftn(kernel, dim=tuple(range(2, kernel.ndim)))
    return symbol.unflatten(0, (groups, -1)).movedim((0, 1, 2), (-3, -2, -1))


def multiply_frequencies(x: Tensor, *matrices: Tensor) -> Tensor:
    """Multiply every frequency of `x` by one matrix after the other, between one transform and its inverse.

    Args:
        x: `(rows, groups i, *sizes)`, real.
        matrices: each `(*frequencies, groups, o, i)`, complex, such as `kernel_frequencies` gives.

    Returns:
        `(rows, groups o, *sizes)`.
    """
    axes = tuple(range(2, x.ndim))
    groups = matrices[0].shape[-3]
    if not len(x):
        # Libraries of Fourier transforms refuse no rows. What is added to none keeps the path of the gradients.
        touched = x.sum() + sum(matrix.real.sum() for matrix in matrices)
        return x.new_zeros(0, groups * matrices[-1].shape[-2], *x.shape[2:]) + touched
    spectrum = torch.fft.rfftn(x, dim=axes).unflatten(1, (groups, -1)).movedim((1, 2, 0), (-3, -2, -1))
    for matrix in matrices:
        spectrum = matrix @ spectrum
    spectrum = spectrum.movedim((-3, -2, -1), (1, 2, 0)).flatten(1, 2)
    return torch.fft.irfftn(spectrum, s=x.shape[2:], dim=axes)


def sum_frequencies(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sum over all frequencies of a torus what is known for those of a real transform.

    Args:
        values: real, `(*frequencies, ...)`, the same for a frequency and its conjugate partner.
        sizes: of the torus.

    Returns:
        The sum, `(...)`.
    """
    axes = len(sizes)
    # A real transform leaves out the conjugate partners; zero and, for even widths, the last are their own.
    single = torch.arange(values.shape[axes - 1], device=values.device).mul(2).remainder(sizes[-1]) == 0
    copies = torch.where(single, 1.0, 2.0).to(values.dtype)
    return (values * copies.reshape(-1, *(1,) * (values.ndim - axes))).flatten(0, axes - 1).sum(0)
