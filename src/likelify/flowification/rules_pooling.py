"""Rules for pooling and upsampling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from likelify.flowification.options import Options
from likelify.flowification.refusals import NotConvertibleError
from likelify.flowification.rules import Call, rule
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.reshape import Reshape
from likelify.transforms.surjections.pooling import (
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    upsample_nearest,
)


def _noise(in_shape: Shape, options: Options) -> dict[str, Any]:
    nets = {"net_factory": options.nets(in_shape), "posterior_factory": options.posterior(in_shape)}
    return {"noise": options.noise, **nets}


@rule(nn.MaxPool1d, nn.MaxPool2d)
def max_pooling(module: nn.MaxPool2d, in_shape: Shape, options: Options) -> Transform:
    """Convert max pooling."""
    return max_pool(
        in_shape,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        ceil_mode=module.ceil_mode,
        **_noise(in_shape, options),
    )


@rule(F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d)
def max_pooling_call(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert `F.max_pool2d`."""
    return max_pool(
        in_shape,
        call.argument(1, "kernel_size", None),
        # An empty stride is that of the windows, as None is.
        stride=call.argument(2, "stride", None) or None,
        padding=call.argument(3, "padding", 0),
        dilation=call.argument(4, "dilation", 1),
        ceil_mode=call.argument(5, "ceil_mode", default=False),
        **_noise(in_shape, options),
    )


@rule(nn.AvgPool1d, nn.AvgPool2d)
def average_pooling(module: nn.AvgPool2d, in_shape: Shape, options: Options) -> Transform:
    """Convert average pooling."""
    return average_pool(
        in_shape,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        ceil_mode=module.ceil_mode,
        count_include_pad=module.count_include_pad,
        divisor=getattr(module, "divisor_override", None),
        **_noise(in_shape, options),
    )


@rule(F.avg_pool1d, F.avg_pool2d)
def average_pooling_call(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert `F.avg_pool2d`."""
    sizes = [call.argument(i, name, None) for i, name in enumerate(("kernel_size", "stride"), 1)]
    return average_pool(
        in_shape,
        sizes[0],
        stride=sizes[1] or None,
        padding=call.argument(3, "padding", 0),
        ceil_mode=call.argument(4, "ceil_mode", default=False),
        count_include_pad=call.argument(5, "count_include_pad", default=True),
        divisor=call.argument(6, "divisor_override"),
        **_noise(in_shape, options),
    )


@rule(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
def adaptive_average(module: nn.AdaptiveAvgPool2d, in_shape: Shape, options: Options) -> Transform | None:
    """Convert average pooling to a given size."""
    return _adaptive(in_shape, module.output_size, options, average=True)


@rule(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, torch.adaptive_avg_pool1d)
def adaptive_average_call(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert `F.adaptive_avg_pool2d`."""
    return _adaptive(in_shape, call.argument(1, "output_size"), options, average=True)


@rule(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
def adaptive_max(module: nn.AdaptiveMaxPool2d, in_shape: Shape, options: Options) -> Transform | None:
    """Convert max pooling to a given size."""
    return _adaptive(in_shape, module.output_size, options, average=False)


@rule(F.adaptive_max_pool1d, F.adaptive_max_pool2d, torch.adaptive_max_pool1d)
def adaptive_max_call(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert `F.adaptive_max_pool2d`."""
    return _adaptive(in_shape, call.argument(1, "output_size"), options, average=False)


def _adaptive(in_shape: Shape, size: Any, options: Options, *, average: bool) -> Transform | None:
    positions = in_shape[1:]
    sizes = (size,) * len(positions) if isinstance(size, int) else tuple(size)
    sizes = tuple(n if s is None else s for n, s in zip(positions, sizes, strict=True))
    if sizes == positions:
        return None
    if set(sizes) == {1}:
        reduced = (in_shape[0], *sizes)
        return (global_average_pool if average else global_max_pool)(in_shape, net_factory=options.nets(reduced))
    if any(n % s for n, s in zip(positions, sizes, strict=True)):
        raise NotConvertibleError(
            f"pools {positions} positions to {sizes} with windows of different sizes. Take sizes that divide, or "
            "average pooling with a kernel size."
        )
    kernel = [n // s for n, s in zip(positions, sizes, strict=True)]
    return (average_pool if average else max_pool)(in_shape, kernel, **_noise(in_shape, options))


@rule(torch.mean, "mean")
def mean_call(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert the mean over all positions."""
    axes = call.argument(1, "dim")
    axes = () if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
    axes = {axis % (len(in_shape) + 1) for axis in axes}
    if len(in_shape) < 2 or axes != set(range(2, len(in_shape) + 1)):
        raise NotConvertibleError("takes a mean over other axes than all positions. Take an average pooling.")
    reduced = (in_shape[0], *(1,) * (len(in_shape) - 1))
    pool = global_average_pool(in_shape, net_factory=options.nets(reduced))
    return pool if call.out_shape == reduced else Chain([pool, Reshape(reduced, call.out_shape)])


@rule(nn.Upsample, nn.UpsamplingNearest2d)
def upsample(module: nn.Upsample, in_shape: Shape, options: Options) -> Transform | None:
    """Convert nearest-neighbour upsampling."""
    _require_nearest(module.mode)
    out = module(torch.empty(2, *in_shape, device="meta")).shape[1:]
    return _upsampled(in_shape, tuple(out), options)


@rule(F.interpolate, F.upsample, F.upsample_nearest)
def upsample_call(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert `F.interpolate(mode="nearest")`."""
    _require_nearest(call.argument(3, "mode", "nearest"))
    return _upsampled(in_shape, call.out_shape, options)


def _require_nearest(mode: str) -> None:
    if mode not in ("nearest", "nearest-exact"):
        raise NotConvertibleError(
            f"interpolates with mode '{mode}', which makes more numbers that are fixed combinations of fewer. Take "
            "mode='nearest', or a transposed convolution."
        )


def _upsampled(in_shape: Shape, out_shape: Shape, options: Options) -> Transform | None:
    if in_shape == out_shape:
        return None
    if any(after % before for before, after in zip(in_shape[1:], out_shape[1:], strict=True)):
        raise NotConvertibleError(
            f"resizes positions {in_shape[1:]} to {out_shape[1:]}; whole factors are needed. Pad or crop so that they "
            "fit."
        )
    factors = [after // before for before, after in zip(in_shape[1:], out_shape[1:], strict=True)]
    return upsample_nearest(in_shape, factors, noise=options.noise, posterior_factory=options.posterior(in_shape))
