r"""Hidden elements of images drawn given the others, in the order in which a pyramid writes them.

A particle is an image in which hidden elements are drawn, each from its own distribution given those before it, and
known ones stay. Its weight is the product of the probabilities of the known elements: then weighted particles follow
the distribution of the hidden elements given the known ones (sequential importance sampling; with resampling in between
Gordon, Salmond and Smith 1993). Known coarse pixels have their say at once, known fine ones when they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.linalg.bounds import widest, widest_dtype
from likelify.structure import ContextLike, as_context
from likelify.transforms.levels.mixture import level_at, log_mass
from likelify.transforms.levels.planes import by_colour, filled, from_colours

if TYPE_CHECKING:
    from likelify.transforms.levels.pyramid import LevelPyramid, Stage

# Given the log-weights of particles `(rows,)`, return the numbers of those that go on in their places, or None for all.
Resample = Callable[[Tensor], Tensor | None]


@torch.no_grad()
def fill(
    layer: LevelPyramid, x: Tensor, hidden: Tensor, resample: Resample, context: ContextLike = None
) -> tuple[Tensor, Tensor]:
    """Draw hidden elements of images given those before them, with the weights of the known ones.

    Args:
        layer: that writes the images.
        x: particles `(rows, channels, height, width)`; what they hold at hidden places is not looked at.
        hidden: which elements are hidden, of the shape of one image.
        resample: called after each plane.
        context: as for the layer; the same for all particles, since they exchange places.

    Returns:
        Images, and the log-weights that they have since they were last resampled, `(rows,)` in
        float64, where the device has it.
    """
    context = as_context(context)
    x = torch.where(hidden, 0, x).to(layer.top.links.dtype)
    image = layer.levels.middle(x)
    weights = torch.zeros(len(x), dtype=widest_dtype(x.device), device=x.device)
    number, stages = 0, layer.stages(image, context)
    while (stage := next(stages, None)) is not None:
        weights += _write(layer, stage, x, hidden.expand(x.shape))
        number += 1
        chosen = resample(weights)
        if chosen is not None:
            x, image, weights = x[chosen], image[chosen], torch.zeros_like(weights)
            # What networks have read belongs to the particles as they were.
            stages = islice(layer.stages(image, context), number, None)
    return x, weights


def _write(layer: LevelPyramid, stage: Stage, x: Tensor, hidden: Tensor) -> Tensor:
    """Draw what is hidden of a plane, and return the log-probability of what is known of it, `(rows,)`."""
    nothing = torch.zeros_like(stage.coarse)
    given = by_colour(filled(stage.of(x), nothing))
    unknown = by_colour(filled(stage.of(hidden), nothing.bool()))
    counted = by_colour(filled(torch.ones_like(stage.own), nothing)) * ~unknown
    target, levels, total = torch.zeros_like(stage.prediction), given.clone(), torch.zeros_like(given[0])
    for channel in range(len(given)):
        raw, centre = stage.parameters(target)
        mixture = raw[channel].mT.contiguous(), centre[channel]
        if bool(unknown[channel].any()):
            uniform = torch.rand(given.shape[1], dtype=widest_dtype(given.device), device=given.device)
            drawn = level_at(layer.levels, *mixture, uniform).to(given.dtype)
            levels[channel] = torch.where(unknown[channel], drawn, given[channel])
        total += log_mass(layer.levels, *mixture, levels[channel]) * counted[channel]
        target[channel] = layer.levels.middle(levels[channel])
    height, width = stage.own.shape[-2:]
    whole = stage.coarse.shape[-2], stage.coarse.shape[-1]
    found = from_colours(levels, whole)[..., :height, :width]
    stage.of(x).copy_(found)
    stage.own.copy_(layer.levels.middle(found))
    return widest(total.view(len(x), -1)).sum(1)
