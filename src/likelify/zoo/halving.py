"""Events of any size in multi-scale models: how often they can be halved, and the layers that do it.

Where a side is odd, its last positions are cut off and get a density given the others: exact, where padding would give
a bound. Sides of one position stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from likelify import nets, transforms
from likelify.errors import ShapeError
from likelify.zoo.registry import ModelConfig

if TYPE_CHECKING:
    from likelify.transforms.core import Shape, Transform

# Width of the network that describes what is cut off.
BORDER_HIDDEN = 32


class HalvedConfig(ModelConfig):
    """Settings of a multi-scale model of events `(channels, *positions)` of any size.

    Attributes:
        usual_levels: scales if none are asked for, where so many fit.
        levels: scales; half of the channels leave after each but the last, through a split prior. By default as many as
            fit, up to the usual number of the model.
        crop: where a side is odd, cut its last positions off and give them a density given the others (`Crop`), which
            is exact. By default only if `levels` is not given: a number that does not fit is an error.
    """

    usual_levels: ClassVar[int]

    levels: int | None = Field(default=None, ge=1, le=16)
    crop: bool | None = None

    @property
    def scales(self) -> int:
        """Number of scales: `levels`, or as many as fit.

        Raises:
            ShapeError: if `levels` are more than the event can be halved, or `crop` is False and it cannot be at all.
        """
        sides = self.event_shape[1:]
        fitting = halvings(sides, crop=self.levels is None if self.crop is None else self.crop)
        if self.crop is False and not fitting and max(sides) > 1:
            raise ShapeError(_too_many(self.model, sides, self.levels or 1, fitting, asked=self.levels is not None))
        if self.levels is None:
            return max(1, min(self.usual_levels, fitting))
        if self.levels > fitting:
            raise ShapeError(_too_many(self.model, sides, self.levels, fitting, asked=True))
        return self.levels

    def remarks(self) -> list[str]:
        """Return what was decided for events of this size."""
        sides = self.event_shape[1:]
        chosen = [] if self.levels is not None else [f"{self.scales} scales for {_size(sides)} positions."]
        return [*chosen, *_said_of_cuts(sides, self.scales)]


def halved(sides: Shape) -> Shape:
    """Return half of each side, rounded down, but never less than one position."""
    return tuple(max(1, side // 2) for side in sides)


def halvings(sides: Shape, *, crop: bool) -> int:
    """Return how often positions can be halved until one is left; without `crop`, until a longer side is odd."""
    count = 0
    while max(sides) > 1 and (crop or not any(_leftover(side) for side in sides)):
        sides, count = halved(sides), count + 1
    return count


def halving(event_shape: Shape, classes: int | None = None) -> list[Transform]:
    """Return the layers that bring an event to half its sides: a `Crop` where one is odd, and a `Squeeze`.

    Args:
        event_shape: `(channels, *positions)`.
        classes: size of the condition that the density of what is cut off reads.
    """
    sides = event_shape[1:]
    cut = [(0, _leftover(side)) for side in sides]
    layers: list[Transform] = []
    if any(behind for _, behind in cut):
        net = nets.density_nets(len(sides), hidden=BORDER_HIDDEN, context_features=classes or 0)
        layers.append(transforms.Crop(event_shape, cut, net_factory=net))
    if max(sides) > 1:
        layers.append(transforms.Squeeze([2 if side > 1 else 1 for side in sides]))
    return layers


def _leftover(side: int) -> int:
    return side % 2 if side > 1 else 0


def _size(sides: Shape) -> str:
    return "x".join(map(str, sides))


def _too_many(model: str, sides: Shape, levels: int, fitting: int, *, asked: bool) -> str:
    """Say why so many scales do not fit, asked for or usual, and what to do."""
    size, remedies = _size(sides), []
    if fitting:
        remedies.append(f"use levels={fitting}")
    if levels <= halvings(sides, crop=True):
        remedies.append("say crop=true, which gives what is left over at odd sides a density given the rest")
    if asked:
        remedies.append("leave levels out, and as many are taken as fit")
    advice = "; or ".join(remedies)
    return (
        f"{model} with {levels} levels halves {size} positions {levels} times, and {size} is not a multiple of "
        f"{2**levels}: {advice}."
    )


def _said_of_cuts(sides: Shape, levels: int) -> list[str]:
    cuts: list[str] = []
    for _ in range(levels):
        if any(map(_leftover, sides)):
            cuts.append(f"{_size(sides)} to {_size(tuple(side - _leftover(side) for side in sides))}")
        sides = halved(sides)
    if not cuts:
        return []
    return [
        f"Odd sides are cut before they are halved ({', '.join(cuts)}). What is cut off gets a density given the rest, "
        "so the likelihood is that of all values."
    ]
