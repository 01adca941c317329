"""Items of a single number, which has nothing to be coupled with: a spline, and a normal that may read labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify import nets, transforms

if TYPE_CHECKING:
    from likelify.distributions.core import Distribution
    from likelify.transforms.core import Shape, Transform


def single_number(event_shape: Shape, classes: int | None) -> tuple[list[Transform], Distribution]:
    """Return layers for events of one number, and the base behind them, which reads the one-hot labels if there are."""
    from likelify.distributions.normal import ConditionalNormal, Normal

    layers: list[Transform] = [transforms.Flatten(event_shape), transforms.ActNorm(1), transforms.ChannelSpline(1)]
    base = Normal((1,), trainable=True) if classes is None else ConditionalNormal(nets.MLP(classes, 2, (16,)))
    return layers, base
