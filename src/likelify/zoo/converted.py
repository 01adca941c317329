"""Flows made of the user's own networks by `flowify`, and their configuration.

The configuration cannot hold the network, so building takes it as an argument; a fingerprint of its architecture tells
whether it is the one that the weights were saved for.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from likelify.distributions import Distribution, Normal, RectifiedNormal
from likelify.errors import ConfigError, UnsupportedError
from likelify.flowification.conversion import WHOLE
from likelify.flowification.convert import Flowified, convert, flowify
from likelify.flowification.options import Options, ReluName, ResidualName, SharedName
from likelify.flowification.rules_activation import image_of
from likelify.flows import Flow
from likelify.names import LinearMethod, LogDetName, NoiseName
from likelify.settings import Settings
from likelify.transforms.core import Chain, Inverse, Transform
from likelify.transforms.dequantize import Dequantize
from likelify.transforms.elementwise import Affine, Softplus
from likelify.transforms.surjections.activation import Abs, ReLU
from likelify.zoo.settings import Size


class FlowifySettings(Settings):
    """The options of `flowify` as plain data; see `likelify.flowification.Options`."""

    method: LinearMethod = "free"
    relu: ReluName = "refuse"
    noise: NoiseName = "normal"
    residual: ResidualName = "repeat"
    log_det: LogDetName = "exact"
    shared: SharedName = "refuse"
    learned_noise: bool = False
    hidden: Size = 64


class ConvertedConfig(Settings):
    """Settings of a flow whose layers come from a network of the user's: all but the network.

    Attributes:
        model: name of the model.
        event_shape: of the data.
        pixel_levels: number of values of a pixel, for integers; None for real numbers.
        value_range: the interval that the integers are spread over in front of the network.
        options: of the conversion.
        fingerprint: of the network's architecture, the options and the contractions.
        contractions: which sums of the network are exact residual blocks, as `Conversion.contractions`.
        classes: such flows have no classes.
    """

    summary: ClassVar[str] = "a network of your own, converted by flowify; from Python only"

    model: Literal["converted"] = "converted"
    event_shape: tuple[Size, ...] = Field(min_length=1)
    pixel_levels: int | None = Field(default=None, ge=2, le=65536)
    value_range: tuple[float, float] = (0.0, 1.0)
    options: FlowifySettings = FlowifySettings()
    fingerprint: str
    contractions: tuple[bool, ...] = ()
    classes: None = None

    @classmethod
    def of(cls, flow: Flow) -> ConvertedConfig:
        """Return the configuration of a flow that `converted_flow` has made.

        Raises:
            ConfigError: if it was made by other means, or with networks (`net=`) that cannot be written down.
        """
        layers = list(flow.transform) if isinstance(flow.transform, Chain) else [flow.transform]
        found = flow.transform if isinstance(flow.transform, Flowified) else layers[-1]
        if not isinstance(found, Flowified) or flow.event_shape is None:
            raise ConfigError("ConvertedConfig.of takes flows made by zoo.converted_flow.")
        if found.conversion.has_own_nets:
            raise ConfigError(
                "This flow was converted with net=, a function that cannot be written to a file. Leave it out (hidden= "
                "sets the width of the usual networks), or save flow.state_dict() yourself."
            )
        values: dict[str, Any] = {}
        if isinstance(layers[0], Dequantize) and isinstance(layers[1], Affine):
            levels, affine = layers[0].levels, layers[1]
            low = affine.shift * affine.scale
            values = {"pixel_levels": levels, "value_range": (low, low + levels * affine.scale)}
        return cls(
            event_shape=flow.event_shape,
            options=FlowifySettings(**found.conversion.options),
            fingerprint=found.conversion.fingerprint,
            contractions=found.conversion.contractions,
            **values,
        )

    def build(self, module: nn.Module | None = None) -> Flow:
        """Build the flow, with the weights of the module, to load others or to train on.

        A fresh network may have weights that cannot be converted although the saved ones can: a head of zeros, residual
        branches that are no contractions yet. Then the flow is made all the same, with weights that are not numbers
        (NaN) until others are loaded.

        Args:
            module: of the architecture that the configuration was made for.

        Raises:
            ConfigError: without a module, or if its architecture is another one.
            UnsupportedError: if it cannot be converted.
        """
        if module is None:
            raise ConfigError(self.how_to_load("RUN"))
        low, high = self.value_range
        generator = torch.Generator().manual_seed(0)
        shape = (2, *self.event_shape)
        if self.pixel_levels is None:
            example = torch.randn(shape, generator=generator)
        else:
            example = low + (high - low) * torch.rand(shape, generator=generator)
        dtype = next((p.dtype for p in module.parameters()), torch.get_default_dtype())
        example = example.to(dtype)
        flow = _as_flow(self._layer(module, example), example, self.pixel_levels, self.value_range)
        found = ConvertedConfig.of(flow).fingerprint
        if found != self.fingerprint:
            raise ConfigError(
                f"The module has another architecture than the one of this configuration (fingerprint {found}, not "
                f"{self.fingerprint}): layers, sizes or their order differ. Its weights play no part in this."
            )
        return flow

    def _layer(self, module: nn.Module, example: Tensor) -> Flowified:
        options = Options(**self.options.model_dump())
        try:
            return convert(module, example, options, wanted=self.contractions)
        except UnsupportedError as error:
            try:
                made = convert(_harmless(module), example, options, wanted=self.contractions, check=False)
            except UnsupportedError:
                raise error from None
        with torch.no_grad():
            for p in made.parameters():
                p.fill_(torch.nan)
        return made

    def how_to_load(self, path: object) -> str:
        """Say how a run with this model is loaded."""
        return (
            "The architecture of this model is a network of your own, which a run folder does not hold. Load it from "
            f"Python with that network: likelify.Run.load({str(path)!r}, module=...).flow()"
        )


def converted_flow(
    module: nn.Module,
    example: Tensor,
    *,
    pixel_levels: int | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
    **options: Any,
) -> Flow:
    """Build a flow from a network: data to latent is the network's own `forward`, and the latent is normal.

    Args:
        module: the network, from events to features.
        example: an input of the network, with rows in front.
        pixel_levels: for images as integers `0 .. pixel_levels - 1`: they are dequantized first, and the log-density is
            a bound of a log-probability of pixels.
        value_range: the interval that the network expects these integers to be spread over, such as (-1, 1).
        **options: of `flowify`.

    Returns:
        A flow, with `flow.transform` or its last layer the `Flowified` network. If that ends in a bounded activation,
        the base is a normal distribution pushed onto its range (for a ReLU, `RectifiedNormal`).

    Raises:
        UnsupportedError: listing all that cannot be converted.
        ConfigError: for options with unknown values.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.1), nn.Linear(8, 4))
        >>> flow = converted_flow(net, torch.rand(2, 1, 4, 4), pixel_levels=17)
        >>> flow.elbo(torch.randint(17, (5, 1, 4, 4))).value.shape
        torch.Size([5])
    """
    if not value_range[0] < value_range[1]:
        raise ConfigError(f"value_range must be (low, high) with low < high, got {value_range}.")
    return _as_flow(flowify(module, example, **options), example, pixel_levels, value_range)


def _as_flow(layer: Flowified, example: Tensor, pixel_levels: int | None, value_range: tuple[float, float]) -> Flow:
    """Put dequantization in front, and the base behind."""
    low, high = value_range
    transform: Transform = layer
    if pixel_levels is not None:
        scale = (high - low) / pixel_levels
        transform = Chain([Dequantize(pixel_levels), Affine(scale=scale, shift=low / scale), layer])
    flow = Flow(latent_base(layer), transform, event_shape=tuple(example.shape[1:]))
    return flow.to(example)


def _harmless(module: nn.Module) -> nn.Module:
    """Return a copy with weights that any conversion takes: small, positive numbers and multiples of rotations."""
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
    last = next((inner for inner in reversed(list(layer)) if image_of(inner) is not None), None)
    if last is None:
        raise UnsupportedError(f"There is no usual base on {layer.conversion.latent_range}; give the Flow one.")
    if isinstance(last, ReLU):
        return RectifiedNormal(shape)
    return Flow(Normal(shape), Inverse(Softplus() if isinstance(last, Abs) else last))
