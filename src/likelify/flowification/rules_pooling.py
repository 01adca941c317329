"""Rules for pooling and upsampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from likelify.flowification.options import Options
from likelify.flowification.refusals import NotConvertibleError
from likelify.flowification.rules import Call, out_shape_of, rule, setting, settings_of
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.reshape import Reshape
from likelify.transforms.surjections.pooling import (
    average_pool,
    global_average_pool,
    global_max_pool,
    max_pool,
    upsample_nearest,
)


@rule(nn.MaxPool1d, nn.MaxPool2d, F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d)
def max_pooling(what: nn.MaxPool2d | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert max pooling."""
    values = settings_of(what, 1, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False)
    return _pooled(max_pool, values, in_shape, options)


@rule(nn.AvgPool1d, nn.AvgPool2d, F.avg_pool1d, F.avg_pool2d)
def average_pooling(what: nn.AvgPool2d | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert average pooling."""
    windows = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False}
    values = settings_of(what, 1, **windows, count_include_pad=True, divisor_override=None)
    values["divisor"] = values.pop("divisor_override")
    return _pooled(average_pool, values, in_shape, options)


def _pooled(pool: Callable[..., Transform], values: dict[str, Any], in_shape: Shape, options: Options) -> Transform:
    # An empty stride is that of the windows, as None is.
    values["stride"] = values["stride"] or None
    return pool(in_shape, values.pop("kernel_size"), **values, **options.densities(in_shape))


AVERAGES = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)
MAXIMA = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, F.adaptive_max_pool1d, F.adaptive_max_pool2d)


def _adaptive(what: nn.Module | Call, in_shape: Shape, options: Options, *, average: bool) -> Transform | None:
    """Convert pooling to a given size."""
    size, positions = setting(what, 1, "output_size"), in_shape[1:]
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
    return (average_pool if average else max_pool)(in_shape, kernel, **options.densities(in_shape))


rule(*AVERAGES, torch.adaptive_avg_pool1d)(partial(_adaptive, average=True))
rule(*MAXIMA, torch.adaptive_max_pool1d)(partial(_adaptive, average=False))


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


@rule(nn.Upsample, nn.UpsamplingNearest2d, F.interpolate, F.upsample, F.upsample_nearest)
def upsample(what: nn.Upsample | Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert nearest-neighbour upsampling."""
    mode, out_shape = setting(what, 3, "mode", "nearest"), out_shape_of(what, in_shape)
    if mode not in ("nearest", "nearest-exact"):
        raise NotConvertibleError(
            f"interpolates with mode '{mode}', which makes more values that are fixed combinations of fewer. Take "
            "mode='nearest', or a transposed convolution."
        )
    if in_shape == out_shape:
        return None
    if any(after % before for before, after in zip(in_shape[1:], out_shape[1:], strict=True)):
        raise NotConvertibleError(
            f"resizes positions {in_shape[1:]} to {out_shape[1:]}; whole factors are needed. Pad or crop so that they "
            "fit."
        )
    factors = [after // before for before, after in zip(in_shape[1:], out_shape[1:], strict=True)]
    return upsample_nearest(in_shape, factors, noise=options.noise, posterior_factory=options.posterior(in_shape))
