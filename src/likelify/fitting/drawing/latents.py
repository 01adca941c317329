"""Items in the latent space of a flow: there and back, and on the way from one to another.

A split prior drops part of the latent, and the layers below need it again. What is dropped is kept here as the noise of
which a draw would be just that, so that nothing is lost on the way, and so that it can be blended like the rest. Noise
of dequantization is left out: pixels stand in the middle of their levels, unless a draw of it is asked for. What other
layers drop, as pooling does, is gone; the way back fills it with its most likely values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likelify.errors import UnsupportedError
from likelify.structure import Context, ContextLike
from likelify.transforms import Slice, Transform
from likelify.transforms.core import layers_of

if TYPE_CHECKING:
    from likelify.flows import Flow

# Vectors with a smaller angle between them are blended along the straight line.
SMALL_ANGLE = 1e-4


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the latent, `(items, *shape)`: normal noise, or values of another distribution.

    Attributes:
        values: of the part.
        is_noise: whether they are standard normal under the model.
    """

    values: Tensor
    is_noise: bool


@dataclass(frozen=True, eq=False)
class Latent:
    """Where items are in the latent space.

    Attributes:
        last: what the base is the distribution of.
        dropped: what split priors are the distributions of, in the order in which data meet them.
        context: as the layers read it.
    """

    last: Part
    dropped: tuple[Part, ...]
    context: Context

    def without_dropped(self) -> Latent:
        """Return the same with what split priors drop at its means."""
        dropped = tuple(replace(part, values=torch.zeros_like(part.values)) for part in self.dropped if part.is_noise)
        if len(dropped) < len(self.dropped):
            raise UnsupportedError("A split prior of this model is not normal, and has no mean to put in its place.")
        return replace(self, dropped=dropped)


def encode(flow: Flow, x: Tensor, context: ContextLike = None, *, noisy: bool = False) -> Latent:
    """Return where items `(items, *event)` are in the latent space of a flow, without noise or with one draw of it."""
    from likelify.door import admit

    with torch.no_grad(), flow.frozen():
        x, encoded, _ = admit(flow, x, context)
        dropped = []
        for layer in layers_of(flow.transform):
            if isinstance(layer, Slice):
                x, part = _take_apart(layer, x, encoded)
                dropped.append(part)
            else:
                x = layer.random_latent(x, encoded) if noisy else layer.mean_forward(x, encoded)
        return Latent(_as_noise(flow.base.to_noise, x, encoded), tuple(dropped), encoded)


def decode(flow: Flow, latent: Latent) -> Tensor:
    """Return the items `(items, *event)` at a place in the latent space, without noise."""
    with torch.no_grad(), flow.frozen():
        last, context, dropped = latent.last, latent.context, list(latent.dropped)
        x = flow.base.from_noise(last.values, context) if last.is_noise else last.values
        for layer in reversed(list(layers_of(flow.transform))):
            if isinstance(layer, Slice):
                part = dropped.pop()
                together = layer.put_together(x, part.values, context) if part.is_noise else None
                x = torch.cat([x, part.values], 1) if together is None else together
            else:
                x = layer.mean_inverse(x, context)
        return x


def losses(flow: Flow) -> list[str]:
    """Return the names of the layers that drop what no latent keeps, each once; empty for bijections and splits."""
    layers = [layer for layer in layers_of(flow.transform) if layer.random_inverse and not isinstance(layer, Slice)]
    inner = [part for layer in layers for part in layer.modules() if isinstance(part, Transform)]
    return sorted({type(part).__name__ for part in inner if part.random_inverse and not hasattr(part, "parts")})


def splits(flow: Flow) -> int:
    """Return the number of split priors of a flow."""
    return sum(isinstance(layer, Slice) for layer in layers_of(flow.transform))


def between(start: Latent, end: Latent, steps: int) -> Latent:
    """Return places on the way from one item to another, both included.

    Normal noise of many elements lies near a sphere, on which the way stays; other parts, and conditions of real
    numbers, are blended along the straight line.

    Args:
        start: of one item.
        end: of one item.
        steps: number of places, at least two.
    """
    places = torch.linspace(0, 1, steps, dtype=start.last.values.dtype, device=start.last.values.device)
    dropped = [_blended(one, other, places) for one, other in zip(start.dropped, end.dropped, strict=True)]
    return Latent(
        _blended(start.last, end.last, places), tuple(dropped), _blended_context(start.context, end.context, places)
    )


def _take_apart(layer: Slice, x: Tensor, context: Context) -> tuple[Tensor, Part]:
    try:
        kept, noise = layer.take_apart(x, context)
    except UnsupportedError:
        return x[:, : layer.keep], Part(x[:, layer.keep :], is_noise=False)
    return kept, Part(noise, is_noise=True)


def _as_noise(to_noise: Callable[[Tensor, Context], Tensor], z: Tensor, context: Context) -> Part:
    try:
        return Part(to_noise(z, context), is_noise=True)
    except UnsupportedError:
        return Part(z, is_noise=False)


def _blended(start: Part, end: Part, places: Tensor) -> Part:
    t = places.reshape(-1, *(1,) * (start.values.ndim - 1))
    one, other = start.values, end.values
    if not (start.is_noise and end.is_noise):
        return Part((1 - t) * one + t * other, is_noise=False)
    cosine = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0).clamp(-1, 1)
    angle = torch.acos(cosine)
    # Opposite vectors have no one way on the sphere.
    if not SMALL_ANGLE < angle < torch.pi - SMALL_ANGLE:
        return Part((1 - t) * one + t * other, is_noise=True)
    weights = torch.sin((1 - t) * angle) / torch.sin(angle), torch.sin(t * angle) / torch.sin(angle)
    return Part(weights[0] * one + weights[1] * other, is_noise=True)


def _blended_context(start: Context, end: Context, places: Tensor) -> Context:
    if start.condition is None or end.condition is None:
        return start
    t = places.reshape(-1, *(1,) * (start.condition.ndim - 1))
    return replace(start, condition=(1 - t) * start.condition + t * end.condition)
