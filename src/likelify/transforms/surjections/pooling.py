r"""Pooling and nearest-neighbour upsampling with a likelihood.

Pooling first gathers its windows into channels (`Unfold`: exact if they do not overlap, a bound if they do) and then
reduces each window to one number (`MaxOfPatches`, `MeanOfPatches`: exact). Positions that PyTorch pads with are new
numbers here (`Pad`), which no maximum and no average looks at; their own density takes back what they cost.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from likelify.errors import ConfigError, ShapeError
from likelify.names import NoiseName
from likelify.nets import NetFactory
from likelify.structure import ContextLike
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.reshape import Reshape, zero_log_det
from likelify.transforms.surjections.copying import Repeat, Unfold
from likelify.transforms.surjections.dimension import Pad
from likelify.transforms.surjections.patches import MaxOfPatches, MeanOfPatches, Pooling


class DepthToSpace(Transform):
    r"""Spread channels over blocks of positions: `(c prod(factors), *positions)` to `(c, *(positions * factors))`.

    Channel `c prod(factors) + j` becomes place `j` of the blocks of channel `c`, counted row by row. For two equal
    factors it is `Squeeze` turned round.

    Args:
        factors: for each position axis.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        if not factors or min(factors) < 1:
            raise ConfigError(f"DepthToSpace needs a factor of at least one for each position axis, got {factors}.")
        self.factors = tuple(factors)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Spread."""
        shape = self.out_shape(tuple(x.shape[1:]))
        dims = len(self.factors)
        blocks = x.unflatten(1, (shape[0], *self.factors))
        order = itertools.chain.from_iterable((2 + dims + axis, 2 + axis) for axis in range(dims))
        return blocks.permute(0, 1, *order).reshape(len(x), *shape), zero_log_det(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Gather."""
        dims = len(self.factors)
        if z.ndim != dims + 2 or any(n % f for n, f in zip(z.shape[2:], self.factors, strict=True)):
            raise ShapeError(f"DepthToSpace{self.factors} cannot gather blocks of {tuple(z.shape)}.")
        sides = itertools.chain.from_iterable((n // f, f) for n, f in zip(z.shape[2:], self.factors, strict=True))
        blocks = z.reshape(*z.shape[:2], *sides)
        order = (*range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2))
        return blocks.permute(0, 1, *order).flatten(1, 1 + dims), zero_log_det(z, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the spread event."""
        if len(in_shape) != len(self.factors) + 1 or in_shape[0] % math.prod(self.factors):
            raise ShapeError(
                f"DepthToSpace{self.factors} needs {len(self.factors)} position axes and a multiple of "
                f"{math.prod(self.factors)} channels, got {tuple(in_shape)}."
            )
        positions = (n * f for n, f in zip(in_shape[1:], self.factors, strict=True))
        return (in_shape[0] // math.prod(self.factors), *positions)

    def extra_repr(self) -> str:
        """Show the factors."""
        return f"{self.factors}"


def max_pool(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    ceil_mode: bool = False,
    noise: NoiseName = "normal",
    posterior: NetFactory | None = None,
    net: NetFactory | None = None,
) -> Chain:
    """Build max pooling, whose mean path is that of `torch.nn.MaxPool1d` and `MaxPool2d`.

    Exact for disjoint windows without padding; otherwise a bound.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows; their size by default.
        padding: on both sides, at most half the window.
        dilation: of the windows.
        ceil_mode: let the last window reach beyond the event.
        noise: law of what is added to numbers that several windows read, and of the padding.
        posterior: makes a network for the noise of the copies, see `Unfold`.
        net: makes the networks of what is lost, see `MaxOfPatches` and `Unfold`.
    """
    plan = _plan(in_shape, kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    pool = MaxOfPatches(in_shape[0], len(plan.inside), valid=plan.inside, net=net)
    return _pool_by(pool, plan, in_shape, noise, posterior, net)


def average_pool(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    *,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
    divisor: float | None = None,
    noise: NoiseName = "normal",
    posterior: NetFactory | None = None,
    net: NetFactory | None = None,
) -> Chain:
    """Build average pooling, whose mean path is that of `torch.nn.AvgPool1d` and `AvgPool2d`.

    Exact for disjoint windows without padding; otherwise a bound.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows; their size by default.
        padding: on both sides, at most half the window.
        count_include_pad: divide by the size of the window, padding included.
        ceil_mode: let the last window reach beyond the event.
        divisor: divide by this instead.
        noise: law of what is added to numbers that several windows read, and of the padding.
        posterior: makes a network for the noise of the copies, see `Unfold`.
        net: makes the networks of what is lost, see `MeanOfPatches` and `Unfold`.
    """
    plan = _plan(in_shape, kernel_size, stride, padding, 1, ceil_mode=ceil_mode)
    by = (plan.padded if count_include_pad else plan.inside).sum(0) if divisor is None else divisor
    pool = MeanOfPatches(in_shape[0], len(plan.inside), valid=plan.inside, divisor=by, net=net)
    return _pool_by(pool, plan, in_shape, noise, posterior, net)


def global_average_pool(in_shape: Shape, *, net: NetFactory | None = None) -> Chain:
    """Build the average of each channel, `(c, *positions)` to `(c, 1, ...)`: `torch.nn.AdaptiveAvgPool2d(1)`; exact.

    Args:
        in_shape: `(channels, *positions)`.
        net: makes the network of what is lost, see `MeanOfPatches`.
    """
    gather, size = _gather_positions(in_shape)
    return Chain([gather, MeanOfPatches(in_shape[0], size, net=net)])


def global_max_pool(in_shape: Shape, *, net: NetFactory | None = None) -> Chain:
    """Build the maximum of each channel, `(c, *positions)` to `(c, 1, ...)`: `torch.nn.AdaptiveMaxPool2d(1)`; exact.

    Args:
        in_shape: `(channels, *positions)`.
        net: makes the network of what is lost, see `MaxOfPatches`.
    """
    gather, size = _gather_positions(in_shape)
    return Chain([gather, MaxOfPatches(in_shape[0], size, net=net)])


def upsample_nearest(
    in_shape: Shape, factor: int | Sequence[int], *, noise: NoiseName = "normal", posterior: NetFactory | None = None
) -> Chain:
    """Build nearest-neighbour upsampling by whole factors, as `torch.nn.Upsample(scale_factor=factor)`; a bound.

    The inverse is the average of each block.

    Args:
        in_shape: `(channels, *positions)`.
        factor: one for all position axes, or one for each.
        noise: law of the noise that makes the copies differ.
        posterior: makes a network for the noise, see `Repeat`.
    """
    factors = _per_axis(in_shape, factor, "factor")
    spread = DepthToSpace(factors)
    return Chain([Repeat(in_shape[0], math.prod(factors), noise, posterior=posterior), spread])


class _Plan(NamedTuple):
    """Where windows lie: `inside` tells which entries are data, `padded` which are data or PyTorch's padding."""

    kernel_size: Shape
    stride: Shape
    dilation: Shape
    pads: tuple[tuple[int, int], ...]
    inside: Tensor
    padded: Tensor


def _plan(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    *,
    ceil_mode: bool,
) -> _Plan:
    kernel = _per_axis(in_shape, kernel_size, "kernel_size")
    steps = kernel if stride is None else _per_axis(in_shape, stride, "stride")
    padding = _per_axis(in_shape, padding, "padding", least=0)
    dilation = _per_axis(in_shape, dilation, "dilation")
    pads, inside, padded = [], [], []
    for n, k, s, p, d in zip(in_shape[1:], kernel, steps, padding, dilation, strict=True):
        if 2 * p > k:
            raise ShapeError(f"Pooling needs a padding of at most half the window, got padding {p} for size {k}.")
        places = _places(n, k, s, p, d, ceil_mode=ceil_mode)
        pads.append((p, max(0, int(places[-1, -1]) + 1 - n)))
        inside.append((places >= 0) & (places < n))
        padded.append((places >= -p) & (places < n + p))
    return _Plan(kernel, steps, dilation, tuple(pads), _outer(inside), _outer(padded))


def _places(n: int, k: int, s: int, p: int, d: int, *, ceil_mode: bool) -> Tensor:
    """Return where the entries of the windows along an axis are read, `(k, windows)`."""
    room = n + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (count - 1) * s >= n + p:
        # PyTorch drops a window that would start in the padding behind.
        count -= 1
    if room < 0 or count < 1:
        raise ShapeError(f"A window of size {k} with dilation {d} does not fit into {n} positions padded by {p}.")
    return torch.arange(count) * s - p + d * torch.arange(k)[:, None]


def _outer(masks: list[Tensor]) -> Tensor:
    """Join masks `(k, windows)` of the axes to one `(prod k, *windows)`."""
    joined = masks[0]
    for mask in masks[1:]:
        view = mask.reshape(1, mask.shape[0], *(1,) * (joined.ndim - 1), mask.shape[1])
        joined = (joined.unsqueeze(1).unsqueeze(-1) & view).flatten(0, 1)
    return joined


def _pool_by(
    pool: Pooling,
    plan: _Plan,
    in_shape: Shape,
    noise: NoiseName,
    posterior: NetFactory | None,
    net: NetFactory | None,
) -> Chain:
    layers: list[Transform] = []
    if any(before or after for before, after in plan.pads):
        pad = Pad(in_shape, plan.pads, noise)
        layers, in_shape = [pad], pad.out_shape(in_shape)
    unfold = Unfold(in_shape, plan.kernel_size, plan.stride, plan.dilation, noise, posterior=posterior, net=net)
    return Chain([*layers, unfold, pool])


def _gather_positions(in_shape: Shape) -> tuple[Reshape, int]:
    """Return a layer that makes all positions of a channel one window, and its size."""
    if len(in_shape) < 2:
        raise ShapeError(f"Pooling needs events (channels, *positions), got {tuple(in_shape)}.")
    size = math.prod(in_shape[1:])
    return Reshape(in_shape, (in_shape[0] * size, *(1,) * (len(in_shape) - 1))), size


def _per_axis(in_shape: Shape, value: int | Sequence[int], name: str, *, least: int = 1) -> Shape:
    axes = len(in_shape) - 1
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    if axes < 1 or len(values) != axes or min(values) < least:
        raise ConfigError(
            f"{name} must be a number from {least}, or one for each position axis of {tuple(in_shape)}, got {value}."
        )
    return values
