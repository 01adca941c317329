"""Rules for what moves, selects or adds elements, and for what does nothing in evaluation."""

from __future__ import annotations

import math
import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.distributions.normal import ConditionalNormal
from likelify.flowification.options import Options
from likelify.flowification.refusals import DROPOUT_CALLS, DROPOUTS, NotConvertibleError, refuse_active_dropout
from likelify.flowification.rules import DATA, Call, full_index, out_shape_of, rule, setting
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.reshape import Flatten, Flip, Permute, PermuteAxes, Reshape
from likelify.transforms.surjections.dimension import Crop, Pad, Slice


@rule(nn.Identity, *DROPOUTS)
@rule("contiguous", "clone", "detach", torch.clone, "requires_grad_", "requires_grad")
def nothing(what: nn.Module | Call, in_shape: Shape, options: Options) -> None:
    """Leave out what does nothing to the values in evaluation."""


rule(torch.dropout, *(getattr(F, name) for name in DROPOUT_CALLS))(
    lambda call, in_shape, options: refuse_active_dropout(call)
)


@rule("to", "float", "double", "type_as", "type")
def cast(call: Call, in_shape: Shape, options: Options) -> None:
    """Leave out casts to floating types: a flow computes in the type of its input."""
    for value in (*call.args[1:], *call.kwargs.values()):
        kind = torch.empty(0).type(value).dtype if call.name == "type" and isinstance(value, str) else value
        kind = kind.dtype if isinstance(kind, Tensor) else kind
        if isinstance(kind, torch.dtype) and not kind.is_floating_point:
            raise NotConvertibleError(f"rounds to {kind}, which is flat almost everywhere. Take the cast out.")


@rule(nn.Flatten, nn.Unflatten)
@rule("view", "reshape", torch.reshape, "flatten", torch.flatten, "unflatten", torch.unflatten)
@rule("squeeze", torch.squeeze, "unsqueeze", torch.unsqueeze, "view_as", "reshape_as")
def reshape(what: nn.Module | Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert what reads the same elements as another shape, axes of size one included."""
    return _reshape(in_shape, out_shape_of(what, in_shape))


def _reshape(in_shape: Shape, out_shape: Shape) -> Transform | None:
    if in_shape == out_shape:
        return None
    return Flatten(in_shape) if len(out_shape) == 1 else Reshape(in_shape, out_shape)


@rule("permute", torch.permute, "transpose", torch.transpose, "swapaxes", torch.swapaxes, "swapdims", torch.swapdims)
@rule("movedim", torch.movedim, "moveaxis", torch.moveaxis)
def axes_call(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert what reorders axes, through what it does to an empty tensor whose axes have different sizes."""
    moved = _called(call, torch.empty(*range(len(in_shape) + 1), device="meta"))
    order = tuple(moved.shape)
    if order[0] != 0:
        raise NotConvertibleError("moves the rows of the batch away from axis 0.")
    return None if order == tuple(range(len(order))) else PermuteAxes(order[1:])


def _called(call: Call, x: Tensor) -> Tensor:
    """Return what a call of PyTorch's gives for another tensor in place of the data."""
    function = getattr(Tensor, call.name, None) or getattr(torch, call.name)
    return function(x, *call.args[1:], **{name: value for name, value in call.kwargs.items() if value is not DATA})


@rule("flip", torch.flip)
def flip_call(call: Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a mirroring of axes, which are given one by one or in a tuple."""
    given = call.args[1:] or (call.kwargs["dims"],)
    axes = given[0] if isinstance(given[0], tuple | list) else given
    return Flip(tuple(axis % (len(in_shape) + 1) for axis in axes))


@rule(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, torch.roll, "roll")
@rule(F.pixel_shuffle, F.pixel_unshuffle, torch.pixel_shuffle, torch.pixel_unshuffle, F.channel_shuffle)
def shuffle(what: nn.Module | Call, in_shape: Shape, options: Options) -> Transform:
    """Convert a fixed rearrangement of elements, read off the indices of the places."""
    size = math.prod(in_shape)
    numbered = torch.arange(2 * size).reshape(2, *in_shape)
    places = _called(what, numbered) if isinstance(what, Call) else what(numbered)
    if not bool((places[0] < size).all()):
        raise NotConvertibleError("moves elements between rows. Give the axes it works on, other than axis 0.")
    return Chain([Flatten(in_shape), Permute(places[0].flatten()), Reshape((size,), tuple(places.shape[1:]))])


@rule(nn.ZeroPad1d, nn.ZeroPad2d, nn.ConstantPad1d, nn.ConstantPad2d, F.pad)
def pad(what: nn.ConstantPad2d | Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert padding with a constant, around which the noise lies; negative padding crops."""
    mode = setting(what, 2, "mode", "constant")
    if mode != "constant":
        raise NotConvertibleError(
            f"pads with mode '{mode}'; what is padded must be fresh values around a constant. Take mode='constant' and "
            "train on."
        )
    flat = setting(what, 1, "pad" if isinstance(what, Call) else "padding")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
    pairs += [(0, 0)] * (len(in_shape) - len(pairs))
    *positions, channels = pairs[: len(in_shape)]
    if channels != (0, 0) or len(pairs) > len(in_shape):
        raise NotConvertibleError("pads channels or rows. Take a wider layer in front, or concatenate.")
    sides = positions[::-1]
    layers: list[Transform] = []
    crops = [(max(-a, 0), max(-b, 0)) for a, b in sides]
    if any(sum(pair) for pair in crops):
        layers.append(Crop(in_shape, crops, net_factory=options.nets(in_shape)))
        in_shape = layers[-1].out_shape(in_shape)
    pads = [(max(a, 0), max(b, 0)) for a, b in sides]
    if any(sum(pair) for pair in pads):
        value = setting(what, 3, "value", 0.0)
        if isinstance(value, Tensor):
            raise NotConvertibleError(
                "pads with a tensor, which would not be saved with the weights. Give the value as a number."
            )
        layers.append(Pad(in_shape, pads, noise=options.noise, value=value or 0.0))
    return Chain(layers) if layers else None


@rule(operator.getitem)
def crop_call(call: Call, in_shape: Shape, options: Options) -> Transform | None:
    """Convert slices of positions `x[:, :, a:b]`, which drop the others, and new axes `x[:, :, None]`."""
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    if None in index and all(part in (None, Ellipsis, slice(None)) for part in index):
        return _reshape(in_shape, call.out_shape)
    index = full_index(index, len(in_shape) + 1)
    if index is None or any(part.step not in (None, 1) for part in index):
        raise NotConvertibleError(
            "picks single elements, uses steps or an order of its own. Take slices such as x[:, :, 1:-1], a channel as "
            "x[:, :1], and an order by transforms.Permute or a linear layer."
        )
    bounds = [part.indices(n) for part, n in zip(index[1:], in_shape, strict=True)]
    if index[0] != slice(None) or bounds[0][:2] != (0, in_shape[0]):
        raise NotConvertibleError("takes rows, or channels and positions in one step. Take one step for each.")
    crops = [(start, n - stop) for (start, stop, _), n in zip(bounds[1:], in_shape[1:], strict=True)]
    if not any(sum(pair) for pair in crops):
        return None
    return Crop(in_shape, crops, net_factory=options.nets(in_shape))


def keep_first(in_shape: Shape, order: list[int], keep: int, options: Options) -> Transform | None:
    """Return the layer that puts channels into an order and keeps the first of them."""
    layers: list[Transform] = []
    if order != sorted(order):
        layers.append(Permute(order))
    if keep < in_shape[0]:
        net = options.nets((keep, *in_shape[1:]))(keep, 2 * (in_shape[0] - keep))
        layers.append(Slice(keep, ConditionalNormal(net)))
    if not layers:
        return None
    return Chain(layers) if len(layers) > 1 else layers[0]
