r"""Guaranteed upper bounds of 2-norms, and the tails of the exponential series.

Everything here is an *upper* bound in exact arithmetic; `round_off_margin` widens it by what the floating
format can lose. The one exception is `power_iteration`, a *lower* bound, which can only contradict.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ShapeError
from likelify.tracing import (
    HALF,
    in_forward_mode,
    is_tracing,
    is_watched,
    may_look,
    outside_autocast,
    traceable_gradients,
)


def round_off_margin(dtype: torch.dtype, terms: int) -> float:
    """Relative widening that covers the rounding of sums with that many terms."""
    return 4 * max(terms, 1) * torch.finfo(dtype).eps


def rounding_of_sums(terms: int) -> float:
    """Return how many units in the last place a sum of products may lose beside its largest one; a rule of thumb.

    In the worst case each addition rounds away half a unit. Matrix products add up blocks, and where rounding goes both
    ways about the root of the terms is left (Higham and Mary 2019). Entries that are small and all alike, each lost
    alone beside a one on the diagonal, were seen to reach 2.7 times the root (float32, 64 to 2048 terms).
    """
    return max(1.0, 3 * math.sqrt(terms))


def widest(tensor: Tensor) -> Tensor:
    """Return the tensor in double precision, where its device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def widest_dtype(device: torch.device) -> torch.dtype:
    """Return double precision, or single where the device has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def root_of_squares(squares: Tensor, terms: int) -> Tensor:
    """Return the root of sums of that many squares, with room for those that are too small for the floating format."""
    return (squares + terms * torch.finfo(squares.dtype).tiny).sqrt()


def gram_bound(matrix: Tensor, *, steps: int = 4) -> Tensor:
    r"""Bound the largest singular value from above by repeated squaring of the Gram matrix.

    With `G_0 = M M^H` and `G_{k+1} = G_k^2`,

        ||M||_2 <= ||G_k||_F ^ (1 / 2^(k+1))   at every k,

    because the spectral radius of a positive matrix is at most its Frobenius norm. Each squaring halves the
    logarithm of the overshoot, which is at most `rank^(1 / 2^(k+2))`. Differentiable; costs
    `O(min(m, n)^2 (m + n) + steps min(m, n)^3)`.

    Args:
        matrix: real or complex, `(..., m, n)`.
        steps: number of squarings after the first Gram matrix.

    Returns:
        The bounds, shape `(...)`, of real dtype.
    """
    if matrix.shape[-2] > matrix.shape[-1]:
        matrix = matrix.mH
    # Squares of squares leave the floating range, so all is scaled to about one at each step. The bound does not
    # depend on this first scale, which so needs no gradient.
    tiny = torch.finfo(matrix.dtype).tiny
    largest = matrix.detach().abs().amax((-2, -1))
    size = largest.clamp_min(tiny)
    # A matrix of zeros would have no second derivatives: the norms below have a kink there.
    matrix = torch.where(size[..., None, None] > tiny, matrix / size[..., None, None], 1.0)
    log_bound = torch.zeros_like(size)
    gram = matrix @ matrix.mH
    for power in range(1, steps + 2):
        norm = _frobenius(gram).clamp_min(tiny)
        log_bound = log_bound + norm.log() / 2**power
        if power <= steps:
            gram = gram / norm[..., None, None]
            gram = gram @ gram
    size = torch.where(largest == 0, 0.0, size)
    return size * log_bound.exp() * (1 + round_off_margin(matrix.dtype, matrix.shape[-1] + 16))


def _frobenius(matrix: Tensor) -> Tensor:
    # Several times faster than the norm of complex matrices, which takes the root of every entry's square first.
    parts = torch.view_as_real(matrix).flatten(-2) if matrix.is_complex() else matrix
    return torch.linalg.vector_norm(parts, dim=(-2, -1))


def reshape_bound(kernel: Tensor, *, steps: int = 4) -> Tensor:
    r"""Bound the 2-norm of a convolution of stride 1 by the norms of two reshaped kernels.

    Let `R` be the kernel as a matrix `(c_out, c_in t)` with `t` taps. Each output pixel is `R` times its patch,
    and each input value stands in at most `t` patches, so `||L||_2 <= sqrt(t) ||R||_2`; the same for the
    adjoint map gives the matrix `(c_out t, c_in)`. Holds for zero and circular padding and any image size.
    Cheap and about two times loose for random kernels.

    Args:
        kernel: `(c_out, c_in, *taps)`.
        steps: squarings in `gram_bound`.

    Returns:
        A scalar, differentiable.
    """
    return torch.minimum(outward_bound(kernel, steps=steps), outward_bound(kernel.transpose(0, 1), steps=steps))


def outward_bound(kernel: Tensor, *, steps: int = 4) -> Tensor:
    """Bound the 2-norm of a convolution by that of its kernel as a matrix `(c_out, c_in t)`, see `reshape_bound`."""
    return math.sqrt(math.prod(kernel.shape[2:])) * gram_bound(kernel.flatten(1), steps=steps)


def torus_bound(kernel: Tensor, *, steps: int = 5) -> Tensor:
    r"""Bound the 2-norm of a convolution of stride 1, for every image size, by its Fourier symbol.

    A zero-padded convolution is a compression of the circular convolution on a larger torus, whose norm is the
    largest singular value of the symbol `P(theta) = sum_s K_s exp(i s theta)` over the frequencies of that
    torus. The supremum over *all* frequencies is bounded from a grid of `N` points per axis: for unit vectors
    `u, v`, `Re(u^H P(theta) v)` is a real trigonometric polynomial of degree `n = (k - 1) / 2` in each angle, and
    within `pi / N` of its maximum it stays above `cos(n pi / N)` times it (M. Riesz, 1914). With `N = 16 n` the
    loss is at most 2 % per axis. Tight, and dearer than `reshape_bound`.

    Args:
        kernel: `(c_out, c_in, *taps)` with odd numbers of taps.
        steps: squarings in `gram_bound`.

    Returns:
        A scalar, differentiable.
    """
    sizes = kernel.shape[2:]
    if any(size % 2 == 0 for size in sizes):
        raise ShapeError(f"torus_bound needs odd numbers of taps, got {tuple(sizes)}.")
    if kernel.dtype in HALF:
        return _in_single(partial(torus_bound, steps=steps), kernel)
    if is_tracing() or in_forward_mode():
        return _plain_torus_bound(kernel, steps)
    value: Any = _TorusBound.apply(kernel, steps)
    return value


def _in_single(bound: Callable[[Tensor], Tensor], kernel: Tensor) -> Tensor:
    """Compute in single precision, as half has no complex products, and widen what is rounded at the end."""
    return (bound(kernel.float()) * (1 + round_off_margin(kernel.dtype, 1))).to(kernel.dtype)


def tight_bound(kernel: Tensor, *, enough: float = 0.0) -> Tensor:
    """Bound the 2-norm of a convolution by the smaller one of `torus_bound` and the cheap `outward_bound`.

    Args:
        kernel: `(c_out, c_in, *taps)` with odd numbers of taps.
        enough: a bound of at most that need be no better, and has no gradient then; where values can be looked at.

    Returns:
        A scalar, differentiable.
    """
    if not may_look(kernel):
        return torch.minimum(torus_bound(kernel), outward_bound(kernel))
    with torch.no_grad():
        cheap = outward_bound(kernel)
    if float(cheap) <= enough:
        return cheap
    tight = torus_bound(kernel)
    return tight if float(tight.detach()) <= float(cheap) else outward_bound(kernel)


def _plain_torus_bound(kernel: Tensor, steps: int) -> Tensor:
    """Compute `torus_bound` by operations that can be traced, and differentiated as often as one likes."""
    sizes = tuple(kernel.shape[2:])
    grid, loss = _grid(sizes, 8)
    phases = _phases(sizes, tuple(grid), kernel.dtype, kernel.device)
    # Only the frequency with the largest bound has a gradient, so the search for it needs none.
    with torch.no_grad():
        largest = gram_bound(_symbol(kernel, phases), steps=steps).argmax(0, keepdim=True)
    return gram_bound(_symbol(kernel, phases.index_select(1, largest)), steps=steps)[0] / loss


class _TorusBound(torch.autograd.Function):
    """The torus bound by real matrix products on the frequencies that may be the largest, with its gradient."""

    @staticmethod
    def forward(ctx: Any, kernel: Tensor, steps: int) -> Tensor:
        taps = kernel.transpose(0, 1) if len(kernel) > kernel.shape[1] else kernel
        sizes, shape = tuple(taps.shape[2:]), taps.shape[:2]
        grid, loss = _grid(sizes, 8)
        phases = _kept_phases(sizes, tuple(grid), kernel)
        taps = taps.flatten(2).movedim(2, 0).flatten(1)
        largest = taps.abs().amax()
        # Scaled to about one, so that no square leaves the floating range.
        symbols = (phases @ (taps / largest.clamp_min(torch.finfo(taps.dtype).tiny))).unflatten(2, shape)
        best, log_bound = _largest_frequency(symbols[0], symbols[1], steps)
        scaled = log_bound.exp() * (1 + round_off_margin(kernel.dtype, shape[1] + 16)) / loss
        if ctx.needs_input_grad[0]:
            one = symbols.index_select(1, best)[:, 0]
            direction = phases.index_select(1, best)[:, 0].T @ _steepest(torch.complex(*one), steps).flatten(1)
            # A kernel of zeros has no direction.
            direction = (torch.where(largest > 0, scaled, 0) * direction).T.reshape(*shape, *sizes)
            ctx.save_for_backward(kernel, direction.transpose(0, 1) if shape != kernel.shape[:2] else direction)
        ctx.steps = steps
        tiny = torch.finfo(kernel.dtype).tiny
        # Below the normal numbers products lose all digits: there it is the bound of as many ones, as in `gram_bound`.
        return torch.where(largest > tiny, largest * scaled, (largest > 0) * (tiny * kernel.numel()))

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, g: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        kernel, direction = ctx.saved_tensors
        if is_watched():
            plain = partial(_plain_torus_bound, steps=ctx.steps)
            return traceable_gradients(plain, (kernel,), (True,), g)[0], None
        return g * direction, None


def _largest_frequency(real: Tensor, imaginary: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    r"""Return the number `(1,)` of the largest of matrices `(count, m, n)` by Gram bound, and the logarithm of that.

    A Hermitian matrix `A + iB` is held as the real one `S = A + B`, which has its Frobenius norm, and its square as
    `S S^T + (S + S^T) (S - S^T) / 2`: half the work of complex products. For the square `H = G^2 / ||G||_F^2` of a
    positive matrix `||H||_F <= ||G||_2 / ||G||_F <= ||H||_F^(1/2)`: with each upper bound comes a lower one. On a CPU,
    where it costs nothing to look, matrices whose upper bound is below another's lower one are left out.
    """
    hartley = torch.cat([real, imaginary], 2) @ torch.cat([real - imaginary, real + imaginary], 2).mT
    tiny, on_cpu = torch.finfo(real.dtype).tiny, real.device.type == "cpu"
    numbers = torch.arange(len(real), device=real.device)
    norm = _frobenius(hartley).clamp_min(tiny)
    upper = norm.log() / 2
    for power in range(2, steps + 2):
        hartley = hartley / norm[:, None, None]
        turned = hartley.mT
        hartley = torch.baddbmm(hartley @ turned, hartley + turned, hartley - turned, alpha=0.5)
        norm = _frobenius(hartley).clamp_min(tiny)
        lower, upper = upper + 2 * norm.log() / 2**power, upper + norm.log() / 2**power
        if on_cpu and len(upper) > 1:
            # Far more than rounding may have changed.
            open_ = (upper >= lower.amax() - 1e-4).nonzero()[:, 0]
            if 4 * len(open_) < 3 * len(upper):
                hartley, norm, upper, numbers = (t.index_select(0, open_) for t in (hartley, norm, upper, numbers))
    best = upper.argmax(0, keepdim=True)
    return numbers.index_select(0, best), upper.index_select(0, best)[0]


def _steepest(symbol: Tensor, steps: int) -> Tensor:
    r"""Return the gradient of the Gram bound of a matrix `P`, relative to the bound, real and imaginary part stacked.

    With `G = P P^*` and `N = 2^(steps+1)` the bound is `(tr G^N)^(1 / 2N)`, so its gradient is along `G^(N-1) P`; and
    as the bound is homogeneous, the product of the gradient with `P` is the bound itself.
    """
    gram, along = symbol @ symbol.mH, symbol
    tiny = torch.finfo(symbol.real.dtype).tiny
    for _ in range(steps + 1):
        gram = gram / _frobenius(gram).clamp_min(tiny)
        # The powers 1, 2, 4, ... add up to N - 1.
        along = gram @ along
        gram = gram @ gram
    along, symbol = torch.view_as_real(along), torch.view_as_real(symbol)
    return (along / (along * symbol).sum().clamp_min(tiny)).movedim(-1, 0)


def _kept_phases(sizes: tuple[int, ...], grid: tuple[int, ...], like: Tensor) -> Tensor:
    """Return `_phases`; on a CPU they are computed once."""
    if like.device.type != "cpu":
        return _phases(sizes, grid, like.dtype, like.device)
    return torch.from_numpy(_phases_as_array(sizes, grid, like.dtype))


@lru_cache(maxsize=64)
def _phases_as_array(sizes: tuple[int, ...], grid: tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    return _phases(sizes, grid, dtype, torch.device("cpu")).numpy()


def correlation_bound(kernel: Tensor) -> Tensor:
    r"""Bound the 2-norm as `torus_bound` does, for kernels with many more channels on one side than on the other.

    The symbol `P` enters as `P P^*` on the side with few channels, which is the symbol of the kernel's correlation with
    itself. The maximum over the frequencies has the gradient of the largest one, so only that one is differentiated. A
    grid of `N = 12 n` points for degree `n` loses at most `1 / cos(pi / 12)`, 4 % for each axis.

    Args:
        kernel: `(c_out, c_in, height, width)` with odd numbers of taps.

    Returns:
        A scalar, differentiable.
    """
    if kernel.dtype in HALF:
        return _in_single(correlation_bound, kernel)
    if kernel.shape[0] > kernel.shape[1]:
        kernel = kernel.transpose(0, 1)
    # Scaled to about one, as in `gram_bound`, so that its squares do not leave the floating range.
    tiny = torch.finfo(kernel.dtype).tiny
    largest = kernel.detach().abs().amax()
    unit = largest.clamp_min(tiny)
    kernel = torch.where(unit > tiny, kernel / unit, 1.0)
    sizes = kernel.shape[2:]
    grid, loss = _grid(sizes, 6)
    correlation = F.conv2d(kernel, kernel, padding=[size - 1 for size in sizes])
    symbol = torch.fft.rfftn(correlation, s=grid, dim=(2, 3)).flatten(2).movedim(-1, 0)
    with torch.no_grad():
        best = gram_bound(symbol, steps=3).argmax()
    # The sums over the wide side are rounded before the bound is formed, which has a margin for the narrow one only.
    margin = 1 + round_off_margin(kernel.dtype, kernel[0].numel())
    bound = (margin * gram_bound(symbol.index_select(0, best[None]), steps=3)[0]).sqrt() / loss
    return torch.where(largest > 0, unit, 0.0) * bound


def _grid(sizes: Sequence[int], density: int) -> tuple[list[int], float]:
    """Return so many points an axis for each tap but the first, and what a maximum over them may lose, a factor."""
    grid = [max(1, density * (size - 1)) for size in sizes]
    return grid, math.prod([math.cos(math.pi * (size - 1) / 2 / n) for size, n in zip(sizes, grid, strict=True)])


def _phases(sizes: tuple[int, ...], grid: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return cosines and sines of `s theta` for one of each pair of opposite frequencies, `(2, frequencies, taps)`."""
    # The last axis needs only angles up to pi: real kernels have conjugate symbols at opposite frequencies.
    counts = [*grid[:-1], grid[-1] // 2 + 1]
    wide = torch.float64 if device.type != "mps" else torch.float32
    angle = torch.zeros(1, 1, dtype=wide, device=device)
    for size, n, count in zip(sizes, grid, counts, strict=True):
        steps = torch.arange(count, dtype=wide, device=device)[:, None] * torch.arange(size, device=device)
        steps = steps * (2 * math.pi / n)
        angle = (angle[:, None, :, None] + steps[None, :, None, :]).flatten(2).flatten(0, 1)
    return torch.stack([angle.cos(), angle.sin()]).to(dtype)


def _symbol(kernel: Tensor, phases: Tensor) -> Tensor:
    """Return the symbol `(frequencies, c_out, c_in)` of a kernel `(c_out, c_in, *taps)`."""
    taps = kernel.flatten(2).movedim(2, 0).flatten(1)
    real, imaginary = phases @ taps
    return torch.complex(real, imaginary).unflatten(1, kernel.shape[:2])


def limit_norm(tensor: Tensor, bound: Tensor, limit: float) -> Tensor:
    """Scale a tensor (or each of its rows) so that its norm, of which a bound is given, is at most `limit`.

    Differentiable; tensors within the limit stay as they are.

    Args:
        tensor: of any shape.
        bound: of the norm, `()`, or `(rows,)` for the rows.
        limit: positive.
    """
    # The product is rounded too, so the limit that is aimed at lies a little below the one that is promised. The bound
    # is kept away from zero, so that the gradient of a tensor of zeros is finite.
    limit = aimed_at(limit, tensor, bound.numel())
    scale = (limit / bound.clamp_min(1e-6 * limit)).clamp(max=1.0)
    return tensor * scale.reshape(*bound.shape, *(1,) * (tensor.ndim - bound.ndim))


def aimed_at(limit: float, tensor: Tensor, rows: int = 1) -> float:
    """Return the norm that `limit_norm` aims at, a little below the limit, for a tensor of that many rows."""
    # That of single precision in double precision too: the same parameters are to be the same map in both.
    dtype = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
    # What one row becomes must not depend on how many there are.
    return limit / (1 + round_off_margin(dtype, tensor.numel() // max(rows, 1)))


def power_iteration(
    apply: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 8
) -> Tensor:
    """Bound the 2-norm of a linear map from *below*, the best of the rows of `start`.

    It certifies nothing; but a norm that was declared to be smaller is wrong.

    Args:
        apply: the map on `(rows, *event)`.
        adjoint: its adjoint.
        start: random rows.
        steps: applications of both.

    Returns:
        A scalar.
    """
    bound, event = start.new_zeros(()), tuple(range(1, start.ndim))
    for _ in range(steps):
        # Scaled to about one first: squares of very small numbers would vanish, and the bound be too large.
        largest = start.abs().amax(event, keepdim=True)
        start = torch.where(largest > 0, start / largest, 0)
        size = torch.linalg.vector_norm(start, dim=event, keepdim=True)
        image = apply(torch.where(size > 0, start / size, 0))
        bound = torch.maximum(bound, torch.linalg.vector_norm(image, dim=event).max())
        start = adjoint(image)
    return bound


def safe_exp(exponent: float) -> float:
    """Return `e^exponent`, or infinity where double precision ends."""
    return math.exp(exponent) if exponent < 709 else math.inf


def exp_tail(norm: float, degree: int) -> float:
    r"""Bound `sum_{k > degree} norm^k / k!`, the part of `exp(norm)` that a series of that degree leaves out.

    `R_T(b) <= b^(T+1) / (T+1)! / (1 - b / (T+2))` for `b < T + 2` (geometric series); infinite otherwise,
    where the series has not begun to converge.
    """
    if norm == 0:
        return 0.0
    ratio = norm / (degree + 2)
    if not ratio < 1:
        return math.inf
    return safe_exp((degree + 1) * math.log(norm) - math.lgamma(degree + 2)) / (1 - ratio)


def series_degree(norm: float, tol: float, max_degree: int) -> int:
    """Return the smallest degree with `exp_tail(norm, degree) <= tol`, or `max_degree` if there is none below."""
    for degree in range(max_degree):
        if exp_tail(norm, degree) <= tol:
            return degree
    return max_degree
