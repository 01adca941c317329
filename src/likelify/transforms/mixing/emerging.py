r"""Autoregressive convolutions, which are triangular, and emerging convolutions, which are made of them.

With an order of the pixels in which the taps of a kernel reach back only, `K x = z` is solved by substitution,

    x_p = A (z_p - sum_s W_s x_{p - s}),     A the inverse of the centre tap,

and all pixels `(i, j)` with the same `t = step * i + j` can be solved at once: if rows above are seen up to r columns
to the right, `step = r + 1` makes every tap lead to a smaller t. The image is held *skewed*, in
`S[t][channel][i][row]`, where what a set sees through the taps of one image row is one matrix without a copy: channels
of successive t follow each other. A set is then solved by one matrix product for each row of the kernel.

The gradient solves the transposed system, which is of the same kind in the opposite order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from likelify.caching import Caching
from likelify.errors import ConfigError
from likelify.shapes import check_size, per_axis
from likelify.structure import ContextLike, sum_constant
from likelify.tracing import (
    in_forward_mode,
    is_tracing,
    outside_autocast,
    primals,
    with_outer_tangents,
)
from likelify.transforms.core import Chain, Transform
from likelify.transforms.inversion import InverseCheck
from likelify.transforms.mixing.conv1x1 import Conv1x1


class AutoregressiveConv(Transform, Caching):
    r"""A convolution that reads pixels before its own in raster order, and of its own pixel the channels before.

    The centre of a kernel of size k is at `k // 2` of each axis, and the taps after it are not there: size 2 reaches
    one pixel up and left, size 3 one pixel up and to all sides of that. The centre tap is triangular with the diagonal
    `exp(log_diagonal)`, so the layer cannot become singular, and `log |det| = positions * sum log_diagonal`.

    The inverse solves sets of pixels one after the other, about `height + width` of them; its derivatives, of every
    order, as well, and only the result is kept for them. On a GPU each set costs a few kernel launches. With large
    weights the inverse is ill-conditioned, like that of every triangular matrix; its residual is looked at in every
    row.

    Args:
        channels: of the images `(rows, channels, h, w)`; any image size.
        kernel_size: one size, or height and width.
        reverse: read the pixels and channels after instead of before.

    Raises:
        ShapeError: if the input is no image or has other channels.
        ConvergenceError: by `inverse`, if the weights are so large that rounding spoils it.

    Source:
        Hoogeboom et al. 2019 (emerging convolutions), section 3.1; the inverse and its gradient are our own.
    """

    fills_space = True
    inverse_check = InverseCheck("every row", unit=0.0)

    def __init__(self, channels: int, kernel_size: int | Sequence[int] = 2, *, reverse: bool = False) -> None:
        super().__init__()
        channels = check_size(channels, "The channels of AutoregressiveConv")
        self.takes = (channels, "height", "width")
        taps = per_axis(kernel_size, 2, "kernel_size")
        self.rows, self.left, self.right = taps[0] // 2, taps[1] // 2, (taps[1] - 1) // 2
        self.reverse = reverse
        before = self.rows * taps[1] + self.left
        if before == 0:
            raise ConfigError(f"A kernel of size {taps} has no taps before its centre; take sizes from 2.")
        scale = (channels * channels * taps[0] * taps[1]) ** -0.5
        self.before = nn.Parameter(scale * torch.randn(channels, channels, before))
        triangle = scale * torch.randn(channels, channels)
        self.triangle = nn.Parameter(triangle.triu(1) if reverse else triangle.tril(-1))
        self.log_diagonal = nn.Parameter(scale * torch.randn(channels))

    def kernel(self) -> Tensor:
        """Form the kernel, `(channels, channels, height, width)` with the centre in the last row.

        With `reverse` its taps are those of the turned image.
        """
        triangle = self.triangle.triu(1) if self.reverse else self.triangle.tril(-1)
        centre = triangle + self.log_diagonal.exp().diag()
        parts = [self.before, centre[:, :, None]]
        if self.right:
            parts.append(self.before.new_zeros(*centre.shape, self.right))
        flat = torch.cat(parts, 2)
        return flat.unflatten(2, (self.rows + 1, self.left + 1 + self.right))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Convolve."""
        kernel, _ = self._weights()
        return convolve(x, kernel, self.left, reverse=self.reverse), self._log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Solve for the image."""
        kernel, prepared = self._weights()
        x = solve_convolution(z, kernel, Order(self.left, self.reverse, self.reverse), prepared)
        return x, -self._log_det(z, context)

    def _weights(self) -> "tuple[Tensor, PreparedKernel | None]":
        if self._cache is None:
            return self.kernel(), None

        def compute() -> "tuple[Tensor, PreparedKernel]":
            kernel = self.kernel()
            return kernel, prepare_kernel(kernel, Order(self.left, self.reverse, self.reverse))

        return self.cached("weights", compute)

    def _log_det(self, x: Tensor, context: ContextLike) -> Tensor:
        return sum_constant(self.log_diagonal.sum() * (x.shape[2] * x.shape[3]), x, context)

    def extra_repr(self) -> str:
        """Show the settings."""
        taps = (self.rows + 1, self.left + 1 + self.right)
        return f"{len(self.log_diagonal)}, rows and columns {taps}, reverse={self.reverse}"


def emerging_conv(channels: int, kernel_size: int | Sequence[int] = 2) -> Chain:
    """Build an emerging convolution: a 1x1 convolution, then autoregressive convolutions in both orders.

    Together the two of size k see as far as an ordinary kernel of size `2k - 1`.

    Args:
        channels: of the images; any image size.
        kernel_size: of the two.

    Source:
        Hoogeboom et al. 2019, section 3.1.
    """
    return Chain(
        [
            Conv1x1(channels),
            AutoregressiveConv(channels, kernel_size),
            AutoregressiveConv(channels, kernel_size, reverse=True),
        ]
    )


def convolve(x: Tensor, kernel: Tensor, left: int, *, reverse: bool) -> Tensor:
    """Convolve with a kernel whose centre is in its last row, `left` columns from the first; `reverse` turns it."""
    return F.conv2d(_pad(x, kernel, left, reverse=reverse), kernel.flip(2, 3) if reverse else kernel)


def _pad(x: Tensor, kernel: Tensor, left: int, *, reverse: bool) -> Tensor:
    rows, right = kernel.shape[2] - 1, kernel.shape[3] - 1 - left
    return F.pad(x, (right, left, 0, rows) if reverse else (left, right, rows, 0))


@dataclass(frozen=True)
class Order:
    """The order in which a convolution is triangular.

    Attributes:
        left: columns of the kernel before its centre.
        reverse: the taps reach to later pixels.
        upper: the centre tap is upper triangular.
    """

    left: int
    reverse: bool
    upper: bool

    def transposed(self) -> "Order":
        """Return the order of the transposed convolution."""
        return Order(self.left, not self.reverse, not self.upper)


@dataclass(frozen=True, eq=False)
class RowTaps:
    """The taps on one image row.

    Attributes:
        rows: how far that row is from the pixel's own.
        nearest: the smallest distance in t.
        matrix: the taps, divided by the centre tap, `(channels, taps * channels)` in the order of t.
    """

    rows: int
    nearest: int
    matrix: Tensor


@dataclass(frozen=True, eq=False)
class PreparedKernel:
    """A kernel made ready for `solve_by_sets`.

    Attributes:
        centre: inverse of the centre tap.
        groups: the other taps.
        step: of t from one image row to the next.
        reach: the largest distance in t.
    """

    centre: Tensor
    groups: tuple[RowTaps, ...]
    step: int
    reach: int


def prepare_kernel(kernel: Tensor, order: Order) -> PreparedKernel:
    """Invert the centre tap, divide the others by it, and sort them into groups; no gradients."""
    channels, _, height, width = kernel.shape
    kernel = kernel.detach()
    left, right, rows = order.left, width - 1 - order.left, height - 1
    step = right + 1 if rows else 0
    eye = torch.eye(channels, dtype=kernel.dtype, device=kernel.device)
    centre = torch.linalg.solve_triangular(kernel[:, :, -1, left], eye, upper=order.upper)
    taps = (centre @ kernel.reshape(channels, -1)).view(channels, channels, height, width)
    if order.reverse:
        # The distances in t grow with the columns of the kernel from right to left, and here time runs back.
        taps = taps.flip(3)
    taps = taps.permute(2, 0, 3, 1).reshape(height, channels, -1)
    groups = []
    if left:
        own = taps[-1, :, channels * (right + 1) :] if order.reverse else taps[-1, :, : channels * left]
        groups.append(RowTaps(0, 1, own))
    groups += [RowTaps(i, i * step - right, taps[rows - i]) for i in range(1, rows + 1)]
    return PreparedKernel(centre, tuple(groups), step, max(rows * step + left, 1))


def solve_by_sets(z: Tensor, prepared: PreparedKernel, *, reverse: bool) -> Tensor:
    """Solve `K x = z` by sets of pixels; no gradients.

    Args:
        z: `(rows, channels, h, w)`.
        prepared: the kernel.
        reverse: its taps reach to later pixels.
    """
    rows, channels, height, width = z.shape
    if z.numel() == 0:
        return z.clone()
    step, reach = prepared.step, prepared.reach
    margin = max(group.rows for group in prepared.groups)
    times, columns = (height - 1) * step + width, (height + margin) * rows
    # Zeros stand for what lies beyond the border: the times before the first, the rows above, the corners of the skew.
    store = z.new_zeros(times + reach, channels, columns)
    first_time, first_row = (0, 0) if reverse else (reach, margin)
    origin = first_time * channels * columns + first_row * rows
    strides = (columns, step * channels * columns + rows, channels * columns, 1)
    image = store.as_strided((channels, height, width, rows), strides, origin)
    by_channel = z.reshape(rows, -1).T.contiguous().view(channels, -1)
    image.copy_((prepared.centre @ by_channel).view(image.shape))
    sign = -1 if reverse else 1
    for time in range(times - 2, -1, -1) if reverse else range(1, times):
        low, high = _image_rows(time, step, height, width)
        count, start = (high - low) * rows, origin + time * channels * columns + low * rows
        target = store.as_strided((channels, count), (columns, 1), start)
        for group in prepared.groups:
            size = group.matrix.shape[1]
            # The block of the times that are seen begins at the farthest, or, if time runs back, at the nearest.
            away = group.nearest if reverse else group.nearest + size // channels - 1
            seen = start - sign * (away * channels * columns + group.rows * rows)
            target.addmm_(group.matrix, store.as_strided((size, count), (columns, 1), seen), alpha=-1)
    return image.reshape(-1, rows).T.contiguous().view(z.shape)


def _image_rows(time: int, step: int, height: int, width: int) -> tuple[int, int]:
    """Return the range of the image rows that have a pixel with `step * row + column = time`."""
    if step == 0:
        return 0, height
    return max(0, -((width - 1 - time) // step)), min(height - 1, time // step) + 1


def solve_convolution(z: Tensor, kernel: Tensor, order: Order, prepared: PreparedKernel | None = None) -> Tensor:
    """Solve `K x = z` with gradients for both; `prepared` is what `prepare_kernel` gives, if that is known."""
    function = _ConvolutionSolve
    if is_tracing() or in_forward_mode():
        # torch.compile refuses functions that know forward mode.
        function = _ForwardConvolutionSolve if in_forward_mode() else _TracedConvolutionSolve
    return function.apply(z, kernel, order, prepared)  # pyright: ignore


class _ConvolutionSolve(torch.autograd.Function):
    """`solve_by_sets` with its gradients, which are made of it; keeps the result and the kernel."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, kernel: Tensor, order: Order, prepared: PreparedKernel | None) -> Tensor:
        x = solve_by_sets(z, prepare_kernel(kernel, order) if prepared is None else prepared, reverse=order.reverse)
        ctx.save_for_backward(x, kernel)
        ctx.order = order
        return x

    @staticmethod
    @outside_autocast
    def backward(ctx: Any, *grads: Any) -> Any:
        x, kernel = ctx.saved_tensors
        order: Order = ctx.order
        # K x = z gives K dx = dz - dK x, so everything follows from the solution of the transposed system.
        adjoint = solve_convolution(grads[0], kernel.transpose(0, 1), order.transposed())
        if not ctx.needs_input_grad[1]:
            return adjoint, None, None, None
        padded = _pad(x, kernel, order.left, reverse=order.reverse)
        grad_kernel = -conv2d_weight(padded, list(kernel.shape), adjoint)
        return adjoint, grad_kernel.flip(2, 3) if order.reverse else grad_kernel, None, None


class _TracedConvolutionSolve(_ConvolutionSolve):
    """The same in the form that `torch.func` needs, whose every call costs a tenth of a solution more."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        z: Tensor, kernel: Tensor, order: Order, prepared: PreparedKernel | None
    ) -> Tensor:
        return solve_by_sets(z, prepare_kernel(kernel, order) if prepared is None else prepared, reverse=order.reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, kernel, ctx.order, _ = inputs
        ctx.save_for_backward(output, kernel)
        ctx.save_for_forward(output, kernel)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        z, kernel, order, prepared = args
        z = z.expand(info.batch_size, *z.shape) if in_dims[0] is None else z.movedim(in_dims[0], 0)
        if in_dims[1] is None:
            merged = solve_convolution(z.flatten(0, 1), kernel, order, prepared)
            return merged.unflatten(0, z.shape[:2]), 0
        pairs = zip(z, kernel.movedim(in_dims[1], 0), strict=True)
        return torch.stack([solve_convolution(one, own, order) for one, own in pairs]), 0


class _ForwardConvolutionSolve(_TracedConvolutionSolve):
    """The same with forward mode."""

    @staticmethod
    @with_outer_tangents
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        x, kernel = primals(ctx)
        change, by_kernel, *_ = tangents
        order: Order = ctx.order
        if by_kernel is not None:
            product = convolve(x, by_kernel, order.left, reverse=order.reverse)
            change = -product if change is None else change - product
        return solve_convolution(change, kernel, order)
