"""Exponentials of matrices in extended precision that tests compare with.

Not `torch.matrix_exp`, which in float32 is off by 2.5e-5 for single matrices and in float64 by up to 1e-11; and not
`scipy.linalg.expm` either where every digit counts: from norm 4 on it is off by 2e-13 (SciPy 1.17).
"""

import numpy as np
import torch


def _extended(matrix):
    """Sum the series of the matrix over a power of two, and square it back."""
    scaled = matrix.astype(np.clongdouble if np.iscomplexobj(matrix) else np.longdouble)
    squarings = int(np.ceil(np.log2(max(float(np.sqrt((abs(scaled) ** 2).sum((-2, -1))).max(initial=0)), 1.0))))
    scaled = scaled / 2**squarings
    value = term = np.broadcast_to(np.eye(matrix.shape[-1], dtype=scaled.dtype), scaled.shape)
    for k in range(1, 24):
        term = term @ scaled / k
        value = value + term
    for _ in range(squarings):
        value = value @ value
    return value


class _Exponential(torch.autograd.Function):
    @staticmethod
    def forward(ctx, matrix):
        ctx.save_for_backward(matrix)
        return torch.from_numpy(_extended(matrix.detach().numpy()).astype(matrix.detach().numpy().dtype))

    @staticmethod
    def backward(ctx, grad):
        # The derivative of the transpose in the direction of the gradient stands in the exponential of a block matrix.
        (matrix,) = ctx.saved_tensors
        size, scale = matrix.shape[-1], float(grad.norm()) or 1.0
        upper = torch.cat([matrix.mT, grad / scale], -1)
        lower = torch.cat([torch.zeros_like(matrix), matrix.mT], -1)
        block = _extended(torch.cat([upper, lower], -2).numpy())[..., :size, size:]
        return torch.from_numpy(block.astype(np.float64)) * scale


def exponential(matrix):
    """Return `exp(matrix)` in float64 or complex128, of one matrix or of several; once differentiable if real."""
    return _Exponential.apply(matrix.to(torch.complex128 if matrix.is_complex() else torch.float64))


def apply_exponential(map_, x, time=1.0):
    """Return `exp(time map) x` in float64 for the rows of `x`, from the matrix of the map."""
    matrix = time * map_.materialize(tuple(x.shape[1:]))
    return (x.double().flatten(1) @ exponential(matrix).mT).reshape(x.shape)
