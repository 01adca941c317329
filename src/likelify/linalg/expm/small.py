r"""Exponentials of a few small matrices, computed on the host: tensor operations would cost more than the arithmetic.

One polynomial of fixed degree serves all matrices of norm up to 5/4, larger ones are scaled and squared. The gradient
is the derivative of the exponential in the direction of the gradient, which stands in the exponential of a matrix twice
as large:

    exp [[M^T, G], [0, M^T]] = [[exp(M)^T, dM], [0, exp(M)^T]].

Source: Paterson and Stockmeyer 1973 for the polynomial; Al-Mohy and Higham 2009 for the derivative.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

# 1 / k! for k = 0..19, in rows of four. The series without the rest differs from the exponential by at most 4e-17 at
# norm 5/4.
COEFFICIENTS = np.array([1 / math.factorial(k) for k in range(20)]).reshape(5, 4)
LONGEST = 1.25


class SmallExponential(torch.autograd.Function):
    """The exponentials of real matrices `(k, f, f)` to rounding in double precision; differentiable to any order."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        """Compute the exponentials."""
        ctx.save_for_backward(matrices)
        return to_tensor(exponential(to_array(matrices)), matrices)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute the derivative in the direction of the gradient."""
        (matrices,) = ctx.saved_tensors
        (grad,) = grads
        if not torch.is_grad_enabled():
            return to_tensor(derivative(to_array(matrices), to_array(grad)), matrices)
        size = float(2 * torch.linalg.vector_norm(grad.detach())) or 1.0
        upper = torch.cat([matrices.mT, grad / size], 2)
        lower = torch.cat([torch.zeros_like(matrices), matrices.mT], 2)
        features = matrices.shape[-1]
        block: Any = SmallExponential.apply(torch.cat([upper, lower], 1))
        return block[:, :features, features:] * size


def to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array on the host, in double precision."""
    return tensor.detach().cpu().double().numpy()


def to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array as a tensor of the dtype and on the device of another one."""
    return torch.from_numpy(array).to(like.dtype).to(like.device)


def exponential(matrices: np.ndarray) -> np.ndarray:
    """Compute the exponentials of matrices `(k, f, f)`; NaN if any entry is not finite."""
    norm = math.sqrt(np.vdot(matrices, matrices))
    if not math.isfinite(norm):
        return np.full_like(matrices, math.nan)
    squarings = math.ceil(math.log2(norm / LONGEST)) if norm > LONGEST else 0
    powers = np.empty((4, *matrices.shape), matrices.dtype)
    powers[0], powers[1] = np.eye(matrices.shape[-1]), matrices / 2**squarings
    np.matmul(powers[1], powers[1], out=powers[2])
    np.matmul(powers[2], powers[1], out=powers[3])
    fourth = powers[2] @ powers[2]
    rows = (COEFFICIENTS.astype(matrices.dtype) @ powers.reshape(4, -1)).reshape(5, *matrices.shape)
    value = rows[4]
    for row in rows[3::-1]:
        value = value @ fourth
        value += row
    for _ in range(squarings):
        value = value @ value
    return value


def derivative(matrices: np.ndarray, grad: np.ndarray) -> np.ndarray:
    """Return the gradient of `<grad, exp(matrices)>`, in the precision of `grad`."""
    # The derivative is linear in the gradient, whose size must not swamp that of the matrices.
    size = 2 * math.sqrt(np.vdot(grad, grad)) or 1.0
    count, features, _ = matrices.shape
    block = np.zeros((count, 2 * features, 2 * features), grad.dtype)
    block[:, :features, :features] = block[:, features:, features:] = matrices.swapaxes(1, 2)
    block[:, :features, features:] = grad / size
    return exponential(block)[:, :features, features:] * size
