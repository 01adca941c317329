"""Rules for layers with weights, and for arithmetic with constants."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.flowification.options import Options
from likelify.flowification.refusals import TENSOR_ALPHA, NotConvertibleError
from likelify.flowification.rules import DATA, Call, rule, setting, settings_of
from likelify.shapes import as_shape
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.elementwise import Affine, ChannelAffine
from likelify.transforms.reshape import Flatten, PermuteAxes, Reshape
from likelify.transforms.surjections.convolution import convolution, transposed_convolution
from likelify.transforms.surjections.linear import linear


def check_rank(matrix: Tensor, what: str = "weight") -> None:
    """Refuse a matrix, or one of several `(..., m, n)`, without full rank.

    Raises:
        NotConvertibleError: with its smallest singular value.
    """
    if not bool(torch.isfinite(matrix).all()):
        raise NotConvertibleError(f"the {what} has values that are not finite.")
    values = torch.linalg.svdvals(matrix.detach().double())
    smallest, largest = values[..., -1].min(), values[..., 0].max()
    # What rounding makes of a zero, which does not grow with the sizes; a random square matrix of size n has 1 / n.
    least = largest * 8 * torch.finfo(matrix.dtype).eps
    if not smallest > least:
        rank = int((values > least).sum(-1).min())
        raise NotConvertibleError(
            f"the {what} ({matrix.shape[-2]} x {matrix.shape[-1]}) has rank {rank}, not {min(matrix.shape[-2:])}: its "
            f"smallest singular value is {float(smallest):.2g}, the largest {float(largest):.2g}. It maps different "
            "inputs to one output and leaves no density. Take the dead or duplicate units out (a narrower layer), or "
            "add a little noise to the weight and train on."
        )


@rule(nn.Linear, F.linear)
def dense(what: nn.Linear | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a linear layer on the last axis, with constant weights."""
    return _dense(*_weights(what), in_shape, options)


@rule(torch.matmul, operator.matmul, "matmul", torch.mm, "mm")
def product_call(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert `x @ W`."""
    _require_first(call)
    weight = call.argument(1, "other", call.argument(1, "mat2"))
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise NotConvertibleError("multiplies by what is not one constant matrix.")
    return _dense(weight.T, None, in_shape, options)


def _dense(weight: Tensor, bias: Tensor | None, in_shape: Shape, options: Options) -> Transform:
    check_rank(weight)
    dims, shape = len(in_shape) - 1, (weight.shape[1], *in_shape[:-1])
    layer = linear(weight.shape[1], weight.shape[0], dims=dims, **_values(weight, bias, shape, options))
    if dims == 0:
        return layer
    # The layer works on channels, so the last axis takes their place meanwhile.
    last = dims + 1
    return Chain([PermuteAxes((last, *range(1, last))), layer, PermuteAxes((*range(2, last + 1), 1))])


@rule(nn.Conv1d, nn.Conv2d, F.conv1d, F.conv2d, torch.conv1d, torch.conv2d)
def conv(what: nn.Conv2d | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a convolution with constant weights."""
    weight, bias = _weights(what)
    values = settings_of(what, 3, stride=1, padding=0, dilation=1, groups=1)
    groups, padding = values.pop("groups"), values["padding"]
    # "same" counts as zero here, which only the width of networks depends on.
    sides = 0 if isinstance(padding, str) else padding
    _require_zeros(what, padding)
    check_rank(weight.detach().flatten(1).unflatten(0, (groups, -1)), "kernel as a matrix of a patch")
    dims = weight.ndim - 2
    if len(in_shape) != dims + 1:
        raise NotConvertibleError(f"gets events {in_shape}, which are not (channels, {dims} position axes).")
    stride, margins, dilation = (_per_axis(value, dims) for value in (values["stride"], sides, values["dilation"]))
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(in_shape[1:], weight.shape[2:], stride, margins, dilation, strict=True)
    ]
    return convolution(
        in_shape,
        len(weight),
        tuple(weight.shape[2:]),
        stride=stride,
        padding="same" if padding == "same" else margins,
        dilation=dilation,
        groups=groups,
        **_values(weight, bias, (len(weight), *out), options),
    )


def _require_zeros(what: nn.Module | Call, padding: Any) -> None:
    mode = getattr(what, "padding_mode", "zeros")
    if mode != "zeros" and padding not in ("valid", (0,), (0, 0)):
        raise NotConvertibleError(
            f"has padding_mode='{mode}'; what is padded must be fresh values around zero. Take "
            "padding_mode='zeros' and train on."
        )


@rule(nn.ConvTranspose1d, nn.ConvTranspose2d)
@rule(F.conv_transpose1d, F.conv_transpose2d, torch.conv_transpose1d, torch.conv_transpose2d)
def transposed(what: nn.ConvTranspose2d | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a transposed convolution with constant weights."""
    weight, bias = _weights(what)
    values = settings_of(what, 3, stride=1, padding=0, output_padding=0, groups=1, dilation=1)
    groups, dims = values.pop("groups"), weight.ndim - 2
    check_rank(weight.detach().flatten(1).unflatten(0, (groups, -1)), "kernel as a matrix to a patch")
    return transposed_convolution(
        in_shape,
        weight.shape[1] * groups,
        tuple(weight.shape[2:]),
        groups=groups,
        **{name: _per_axis(value, dims) for name, value in values.items()},
        **_values(weight, bias, in_shape, options),
    )


def _weights(what: nn.Module | Call) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias, which must not depend on the input."""
    if isinstance(what, Call):
        _require_first(what)
    return setting(what, 1, "weight"), setting(what, 2, "bias")


def _values(weight: Tensor, bias: Tensor | None, shape: Shape, options: Options) -> dict[str, Any]:
    """Return the arguments of a linear layer or convolution for its weights, and for what it adds and drops."""
    kept = {"weight": weight.detach(), "bias": False if bias is None else bias.detach()}
    return {"method": options.method, **kept, **options.densities(shape)}


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(module: nn.BatchNorm2d, in_shape: Shape, options: Options) -> Transform:
    """Convert batch normalization in its evaluation form, a scale and shift of each channel."""
    if module.running_mean is None:
        raise NotConvertibleError(
            "normalizes by the statistics of the batch, which couples its rows. Train it with "
            "track_running_stats=True, or take it out."
        )
    if module.weight is not None and bool((module.weight == 0).any()):
        raise NotConvertibleError(
            f"{int((module.weight == 0).sum())} channels have scale zero, so they forget their input. Set these scales "
            "to a small number, or take the channels out."
        )
    return ChannelAffine.from_batch_norm(module)


@rule(operator.add, operator.iadd, torch.add, "add")
@rule(operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "subtract")
def plus(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert the sum or difference of the data and a constant; `alpha` multiplies the second of the two."""
    alpha = call.kwargs.get("alpha", 1)
    if isinstance(alpha, Tensor):
        raise NotConvertibleError(TENSOR_ALPHA)
    factor = -alpha if call.name in ("sub", "isub", "subtract") else alpha
    value, first = _constant(call)
    if not first:
        return _affine(factor, value, in_shape)
    return _affine(1.0, value if factor == 1 else _like(value * factor, value), in_shape)


@rule(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "multiply")
def times(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert the multiplication by a constant."""
    return _affine(_constant(call)[0], 0.0, in_shape)


@rule(operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "divide")
def over(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert the division by a constant."""
    value, first = _constant(call)
    if not first:
        raise NotConvertibleError("divides by the data; 1 / x jumps at zero. Take it out.")
    if call.kwargs.get("rounding_mode") is not None:
        raise NotConvertibleError("rounds, which is flat almost everywhere. Take the rounding out.")
    if not isinstance(value, Tensor) and value == 0:
        raise NotConvertibleError("divides by zero. Take it out.")
    return _affine(_like(1 / value, value), 0.0, in_shape)


rule(operator.pos, torch.positive, "positive")(lambda call, in_shape, options: None)
rule(operator.neg, torch.neg, torch.negative, "neg", "negative")(lambda call, in_shape, options: Affine(scale=-1.0))


def _constant(call: Call) -> tuple[Any, bool]:
    """Return the constant of a call of two arguments, and whether the data come first."""
    values = [call.argument(0, "input"), call.argument(1, "other")]
    first = values[0] is DATA
    value = values[1] if first else values[0]
    if value is DATA or not isinstance(value, Tensor | int | float):
        raise NotConvertibleError("does not have one constant beside the data.")
    if isinstance(value, Tensor) and not value.is_floating_point():
        value = value.double()
    return value, first


def _like(made: Any, value: Any) -> Any:
    """Return a value as a parameter if it was made of one."""
    return nn.Parameter(made.detach()) if isinstance(value, nn.Parameter) else made


def _affine(scale: Any, shift: Any, in_shape: Shape) -> Transform | None:
    """Return `scale * x + shift`, of Python numbers, or of tensors that are saved, and trained if the module's were.

    Whether a tensor holds a value for each channel or each position is told by its shape, never by its values.
    """
    tensors = [value for value in (scale, shift) if isinstance(value, Tensor)]
    if not tensors:
        if scale == 0 or not math.isfinite(scale):
            raise NotConvertibleError(f"multiplies by {float(scale)}, which forgets the input.")
        return None if (scale, shift) == (1, 0) else Affine(shift=shift / scale, scale=float(scale))
    values = []
    for value in (scale, shift):
        tensor = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value)).to(tensors[0].detach())
        try:
            values.append(tensor.expand(1, *in_shape)[0])
        except RuntimeError as error:
            raise NotConvertibleError(
                f"combines events {in_shape} with a constant of shape {tuple(tensor.shape)}, which changes the shape "
                "or depends on the number of rows. Give the constant the event's shape."
            ) from error
    if bool((values[0] == 0).any()) or not bool(torch.isfinite(values[0]).all()):
        raise NotConvertibleError("multiplies by a tensor with zeros, or values that are not finite.")
    trained = any(isinstance(tensor, nn.Parameter) for tensor in tensors)
    # Shapes are aligned at their ends, so the position axes are the last ones.
    places = len(in_shape) - 1
    if all(set(tensor.shape[max(tensor.ndim - places, 0) :]) <= {1} for tensor in tensors):
        return ChannelAffine(*(value.reshape(len(value), -1)[:, 0].clone() for value in values)).requires_grad_(trained)
    flat = ChannelAffine(*(value.flatten().clone() for value in values)).requires_grad_(trained)
    return Chain([Flatten(in_shape), flat, Reshape((math.prod(in_shape),), in_shape)])


def _require_first(call: Call) -> None:
    behind = any(value is DATA for value in call.args[1:])
    if call.argument(0, "input", DATA) is DATA and behind:
        raise NotConvertibleError("has weights that depend on the input. Take it out.")
    if behind:
        raise NotConvertibleError(
            "multiplies by a matrix from the left. Write W @ x with the data in front: x @ W.T, or for channels in "
            "front of positions (x.transpose(1, 2) @ W.T).transpose(1, 2)."
        )


def _per_axis(value: Any, dims: int) -> Shape:
    found = as_shape(value)
    return found * dims if len(found) == 1 else found
