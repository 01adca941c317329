"""The default flow of sequences: linear prediction, then scales of couplings with convolutions along the length."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.names import NormBoundName, SequenceMixing
from likelify.zoo.halving import HalvedConfig, halving
from likelify.zoo.mixers import mixing_layers
from likelify.zoo.registry import Bins, Size, register
from likelify.zoo.single import single_number

if TYPE_CHECKING:
    from torch import nn

    from likelify.distributions.core import Distribution
    from likelify.flows import Flow
    from likelify.transforms.core import Shape, Transform

# Values of a sequence beyond which the matrix of the linear prediction is larger than the rest of the model.
MOST_PREDICTED = 1024
# Integers of fewer levels pile up on some of them, which a linear map of their neighbours smears out.
FEWEST_PREDICTED_LEVELS = 64


@register("series", kind="sequence", summary="linear prediction and scales of couplings, for series of any length")
class SeriesConfig(HalvedConfig):
    """A multi-scale flow of sequences `(channels, length)` of any length, of real numbers or of integers.

    Call `flow.initialize(items)` once before training: it fits the first layer, and the flow then is a normal
    distribution with full covariance, or with independent values where there is no linear prediction. Each scale
    squeezes the length into the channels, and has `steps` times actnorm, mixing along channels and length, and a
    coupling whose network convolves along the length.

    Attributes:
        event_shape: `(channels, length)`.
        pixel_levels: number of values of integers, which are dequantized; None for real numbers, whose densities are in
            the units of the data.
        predict: begin with linear prediction (`LinearPrediction`); otherwise each channel is only standardised. By
            default unless a sequence has more than 1024 values, or integers have fewer than 64 levels.
        steps: per level.
        mixing: the layers that mix, see `likelify.zoo.mixers.mixing_layers`.
        coupling: bijector of the couplings.
        hidden: width of the networks.
        blocks: residual blocks of each network, with taps 1, 2, 4, ... apart.
        kernel_size: of their convolutions.
        times: let the networks know the time, so that what they say may depend on it.
        dropout: rate in the networks, acting in training steps only.
        bins: pieces of the splines.
        interval: the splines act on `[-interval, interval]`.
        norm_limit: of `conv_exponential`; None leaves the norm free.
        norm_bound: the bound that `norm_limit` limits.
    """

    usual_levels = 4

    event_shape: tuple[Size, Size]
    pixel_levels: int | None = Field(default=None, ge=2, le=65536)
    predict: bool | None = None
    steps: int = Field(default=2, ge=1, le=4096)
    mixing: SequenceMixing = "conv-exponential"
    coupling: Literal["affine", "spline"] = "spline"
    hidden: Size = 32
    blocks: int = Field(default=2, ge=0, le=16)
    kernel_size: Literal[1, 3, 5, 7, 9] = 3
    times: bool = True
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bins: Bins = 8
    interval: float = Field(default=5.0, gt=0)
    norm_limit: float | None = Field(default=1.8, gt=0)
    norm_bound: NormBoundName = "reshape"

    def build(self) -> Flow:
        """Return the flow with fresh weights.

        Raises:
            ShapeError: if the length cannot be halved as often as `levels` say.
        """
        from likelify.flows import Flow

        layers = self._enter()
        if math.prod(self.event_shape) == 1:
            more, base = single_number(self.event_shape, self.classes)
        else:
            more, base = self._scales()
        encoder = None if self.classes is None else nets.OneHot(self.classes)
        return Flow(base, transforms.Chain([*layers, *more]), encoder=encoder, event_shape=self.event_shape)

    def remarks(self) -> list[str]:
        """Return what was decided for sequences of this shape."""
        remarks = super().remarks()
        if self.predict is None and math.prod(self.event_shape) > MOST_PREDICTED:
            size = "x".join(map(str, self.event_shape))
            remarks.append(f"No linear prediction in front: {size} values are more than {MOST_PREDICTED}.")
        return remarks

    @property
    def _predicts(self) -> bool:
        if self.predict is not None:
            return self.predict
        few = self.pixel_levels is not None and self.pixel_levels < FEWEST_PREDICTED_LEVELS
        return math.prod(self.event_shape) <= MOST_PREDICTED and not few

    def _enter(self) -> list[Transform]:
        """Return the layers that the data meet first: noise for integers, prediction, a spline for each channel."""
        noise = [] if self.pixel_levels is None else [transforms.Dequantize(self.pixel_levels)]
        return [
            *noise,
            transforms.LinearPrediction(self.event_shape, predict=self._predicts),
            transforms.ChannelSpline(self.event_shape[0], bins=self.bins, interval=self.interval),
        ]

    def _scales(self) -> tuple[list[Transform], Distribution]:
        from likelify.distributions.normal import Normal

        shape: Shape = self.event_shape
        layers: list[Transform] = []
        for level in range(self.scales):
            for layer in halving(shape, self.classes):
                layers.append(layer)
                shape = layer.out_shape(shape)
            for step in range(self.steps):
                layers += self._step(step, *shape)
            if level < self.scales - 1:
                layers.append(self._split_prior(*shape))
                shape = layers[-1].out_shape(shape)
        return layers, Normal(shape, trainable=True)

    def _step(self, step: int, channels: int, length: int) -> list[Transform]:
        """Return actnorm, mixing, and a coupling."""
        limits = {"norm_limit": self.norm_limit, "norm_bound": self.norm_bound}
        split = transforms.ChannelSplit(channels, swap=step % 2 == 1)
        bijector = transforms.SplineBijector(self.bins, self.interval)
        if self.coupling == "affine":
            bijector = transforms.AffineBijector()
        read, changed = split.sizes
        return [
            transforms.ActNorm(channels),
            *mixing_layers(self.mixing, channels, (length,), **limits),
            transforms.Coupling(split, bijector, self._net(read, bijector.size * changed, length)),
        ]

    def _split_prior(self, channels: int, length: int) -> Transform:
        """Return a layer that drops the last half of the channels, with a normal density given the first."""
        from likelify.distributions.normal import ConditionalNormal

        keep = channels // 2
        return transforms.Slice(keep, ConditionalNormal(self._net(keep, 2 * (channels - keep), length)))

    def _net(self, size_in: int, size_out: int, length: int) -> nn.Module:
        return nets.SequenceNet(
            size_in,
            size_out,
            self.hidden,
            self.blocks,
            kernel_size=self.kernel_size,
            length=length if self.times else None,
            context_features=self.classes or 0,
            dropout=self.dropout,
        )
