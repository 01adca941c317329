"""Flows whose layers are a network of the user's, converted by `flowify`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from likelify.distributions.core import Distribution
from likelify.distributions.normal import Normal
from likelify.distributions.rectified import RectifiedNormal
from likelify.errors import ConfigError, UnsupportedError
from likelify.flowification.convert import Flowified, convert, flowify
from likelify.flowification.options import Options
from likelify.flowification.report import WHOLE
from likelify.flows import Flow
from likelify.transforms.columns import Columns
from likelify.transforms.core import Chain, Shape, Transform
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.elementwise import Affine, Softplus
from likelify.transforms.inverted import Inverse
from likelify.transforms.surjections.activation import Abs, ReLU

FOREIGN = (
    "ConvertedConfig.of takes flows made by zoo.converted_flow, for what others have could not be built again. Save "
    "flow.state_dict() yourself."
)


def converted_flow(
    module: nn.Module,
    example: Tensor,
    *,
    pixel_levels: int | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    columns: bool = False,
    **options: Any,
) -> Flow:
    """Return a flow made of a network: data to latent is the network's own `forward`, and the latent is normal.

    Args:
        module: the network, from events to features.
        example: an input of the network, with rows in front; for `columns` of standardised values.
        pixel_levels: for images as integers `0 .. pixel_levels - 1`: they are dequantized first, and the log-density is
            a bound of a log-probability of pixels.
        value_range: the interval that the network expects these integers to be spread over, such as (-1, 1).
        columns: for rows of a table in the user's units: `Columns` comes first, and standardises each column by what
            `flow.initialize` or `fit` finds. Raw tables with large offsets (years, coordinates, times in seconds) need
            it: without it they are float32 in front of the network, and what distinguishes their rows is lost.
        **options: of `flowify`.

    Returns:
        A flow, with `flow.transform` or its last layer the `Flowified` network. If that ends in a bounded activation,
        the base is a normal distribution pushed onto its range (for a ReLU, `RectifiedNormal`).

    Raises:
        UnsupportedError: listing all that cannot be converted.
        ConfigError: for options with unknown values, and for `columns` of what is not rows of real numbers.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.1), nn.Linear(8, 4))
        >>> flow = converted_flow(net, torch.rand(2, 1, 4, 4), pixel_levels=17)
        >>> flow.elbo(torch.randint(17, (5, 1, 4, 4))).value.shape
        torch.Size([5])
    """
    layer = flowify(module, example, **options)
    return _as_flow(layer, example, pixel_levels=pixel_levels, value_range=value_range, columns=columns)


def parts_of(flow: Flow) -> tuple[Flowified, dict[str, Any]]:
    """Return the network of a flow that `converted_flow` has made, and the arguments for what is in front of it.

    Raises:
        ConfigError: if the flow was made by other means.
    """
    front, found = [], flow.transform
    if isinstance(found, Chain) and not isinstance(found, Flowified):
        *front, found = found.parts()
    if not isinstance(found, Flowified) or flow.event_shape is None or flow.encoder is not None:
        raise ConfigError(FOREIGN)
    if _shown(flow.base) != _shown(latent_base(found)):
        raise ConfigError(f"{FOREIGN} This one has a base of its own, {_shown(flow.base)[0]}.")
    return found, _arguments(front)


def _arguments(front: Sequence[Transform]) -> dict[str, Any]:
    """Return the arguments of `converted_flow` that put these layers in front of the network.

    Raises:
        ConfigError: if none do.
    """
    if not front:
        return {}
    if len(front) == 1 and isinstance(front[0], Columns):
        return {"columns": True}
    if [type(layer) for layer in front] == [Dequantize, Affine]:
        dequantize, affine = front
        if isinstance(dequantize, Dequantize) and isinstance(affine, Affine) and dequantize.noise is None:
            low = affine.shift * affine.scale
            return {"pixel_levels": dequantize.levels, "value_range": (low, low + dequantize.levels * affine.scale)}
    named = ", ".join(type(layer).__name__ for layer in front)
    raise ConfigError(f"{FOREIGN} This one has other layers in front of its network: {named}.")


def _shown(base: Distribution) -> tuple[Any, ...]:
    """Return what makes one base another: its kinds of parts, its shape, and what its parameters are called."""
    parts = tuple(type(part).__name__ for part in base.modules())
    return (parts[0], parts, base.event_shape, tuple(name for name, _ in base.named_parameters()))


def converted_again(
    module: nn.Module, event_shape: Shape, options: Options, repeated: tuple[bool, ...], **front: Any
) -> Flow:
    """Return the flow of a module as an earlier conversion has made one, whatever the module's weights are.

    Args:
        module: of the same architecture.
        event_shape: of the data.
        options: of the conversion.
        repeated: its `contractions`.
        **front: `pixel_levels`, `value_range` and `columns` of `converted_flow`.

    Raises:
        UnsupportedError: if the module cannot be converted.
    """
    low, high = front["value_range"]
    draws = torch.rand((2, *event_shape), generator=torch.Generator().manual_seed(0))
    dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
    example = (low + (high - low) * draws).to(dtype)
    try:
        layers = convert(module, example, options, repeated=repeated)
    except UnsupportedError as error:
        try:
            layers = convert(_harmless(module), example, options, repeated=repeated, check=False)
        except UnsupportedError:
            raise error from None
        with torch.no_grad():
            for p in layers.parameters():
                p.fill_(torch.nan)
    return _as_flow(layers, example, **front)


def _as_flow(
    layer: Flowified, example: Tensor, *, pixel_levels: int | None, value_range: tuple[float, float], columns: bool
) -> Flow:
    """Return the flow of a layer, with dequantization or columns in front of it and the base behind."""
    (low, high), shape = value_range, tuple(example.shape[1:])
    if not low < high:
        raise ConfigError(f"value_range must be (low, high) with low < high, got {value_range}.")
    if columns and (len(shape) != 1 or pixel_levels is not None):
        raise ConfigError(f"columns=True is for events (columns,) of real numbers, not {shape} or pixel_levels.")
    transform: Transform = layer
    if columns:
        transform = Chain([Columns(*shape), layer])
    elif pixel_levels is not None:
        scale = (high - low) / pixel_levels
        transform = Chain([Dequantize(pixel_levels), Affine(scale=scale, shift=low / scale), layer])
    return Flow(latent_base(layer), transform, event_shape=shape).to(example)


def _harmless(module: nn.Module) -> nn.Module:
    """Return a copy with weights that any conversion takes: small, positive values and multiples of rotations."""
    twin, generator = copy.deepcopy(module), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in twin.parameters():
            if isinstance(p, nn.parameter.UninitializedParameter) or not p.is_floating_point():
                continue
            if p.ndim > 1:
                flat = torch.randn(len(p), p[0].numel(), generator=generator)
                p.copy_(0.1 * nn.init.orthogonal_(flat, generator=generator).reshape(p.shape))
            else:
                p.copy_(0.1 + 0.01 * torch.rand(p.shape, generator=generator))
        for buffer in twin.buffers():
            if buffer.is_floating_point():
                buffer.data = torch.where(torch.isfinite(buffer) & (buffer != 0), buffer, 1.0)
    return twin


def latent_base(layer: Flowified) -> Distribution:
    """Return a base on the range of a converted network.

    Standard normal on the line; behind a bounded activation, a normal distribution pushed onto its range by that
    activation; behind a ReLU, `RectifiedNormal`, which has probability at zero.
    """
    shape = layer.conversion.out_shape
    if layer.conversion.latent_range == WHOLE:
        return Normal(shape)
    last = next((inner for inner in reversed(list(layer)) if inner.image is not None), None)
    if last is None:
        raise UnsupportedError(f"There is no usual base on {layer.conversion.latent_range}; give the Flow one.")
    if isinstance(last, ReLU):
        return RectifiedNormal(shape)
    return Flow(Normal(shape), Inverse(Softplus() if isinstance(last, Abs) else last))
