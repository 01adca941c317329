r"""The four planes of an image, and the order in which a pyramid writes its elements.

The pixels `(2 i + a, 2 j + b)` of an image are its plane `(a, b)`: an exact reshape. Plane (0, 0) is the image at half
the resolution, which has planes itself, down to a single pixel. A pyramid writes from the coarsest image on; at each
level plane (1, 1) is written given (0, 0), then (0, 1), then (1, 0), each given those before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.shapes import Shape

# Planes behind (0, 0) in the order in which they are written.
ORDER = ((1, 1), (0, 1), (1, 0))


def image_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the sizes of an image at all its levels, the coarsest first, which is a single pixel.

    Example:
        >>> image_sizes(5, 2)
        [(1, 1), (2, 1), (3, 1), (5, 2)]
    """
    sizes = [(height, width)]
    while sizes[0] != (1, 1):
        sizes.insert(0, tuple(-(-side // 2) for side in sizes[0]))  # pyright: ignore[reportArgumentType]
    return sizes


def planes_at(height: int, width: int) -> list[tuple[int, int]]:
    """Return the planes behind (0, 0) that an image of that size has, in the order in which they are written.

    Example:
        >>> planes_at(5, 1)
        [(1, 0)]
    """
    return [(row, column) for row, column in ORDER if row < height and column < width]


class Served(NamedTuple):
    """The planes that one network writes.

    Attributes:
        known: places of the planes that it reads.
        place: of the planes that it writes.
        levels: of these, from the coarsest on; level 0 is the pixel at the top.
    """

    known: tuple[tuple[int, int], ...]
    place: tuple[int, int]
    levels: list[int]


def served_by(sizes: Sequence[tuple[int, int]], *, shared: bool) -> list[Served]:
    """Return which planes of an image each of the networks of a pyramid writes, in the order in which they are written.

    Args:
        sizes: of the image at all its levels, see `image_sizes`.
        shared: whether planes of the same place that are written given the same planes have one network on all levels.

    Example:
        >>> [(network.place, network.levels) for network in served_by(image_sizes(4, 4), shared=True)]
        [((1, 1), [1, 2]), ((0, 1), [1, 2]), ((1, 0), [1, 2])]
    """
    found: dict[Hashable, Served] = {}
    for level, size in enumerate(sizes[1:], 1):
        known = ((0, 0),)
        for place in planes_at(*size):
            key = (known, place) if shared else (level, place)
            found.setdefault(key, Served(known, place, [])).levels.append(level)
            known = (*known, place)
    return list(found.values())


def plane(image: Tensor, place: tuple[int, int]) -> Tensor:
    """Return a plane of images `(..., height, width)`, a view."""
    return image[..., place[0] :: 2, place[1] :: 2]


def filled(values: Tensor, like: Tensor) -> Tensor:
    """Return a plane in the size of plane (0, 0), whose elements stand where an odd side has no pixels.

    They must be known when the plane is written, as only plane (0, 0) is.
    """
    height, width = values.shape[-2:]
    if values.shape[-2:] == like.shape[-2:]:
        return values
    found = like.clone()
    found[..., :height, :width] = values
    return found


def by_colour(values: Tensor) -> Tensor:
    """Return `(rows, channels, height, width)` as `(channels, rows height width)`."""
    return values.permute(1, 0, 2, 3).reshape(values.shape[1], -1)


def from_colours(values: Tensor, size: Sequence[int]) -> Tensor:
    """Undo `by_colour`, for planes of that size."""
    return values.reshape(len(values), -1, *size).permute(1, 0, 2, 3)


def written_places(event_shape: Shape, rows: int, device: torch.device) -> Tensor:
    """Return where the elements of a batch are that a pyramid writes one after another, `by_colour` in each plane.

    Args:
        event_shape: `(channels, height, width)`.
        rows: number of images.
        device: of the result.

    Returns:
        Places in the flattened batch; for elements that stand where an odd side has no pixels its number of elements.
    """
    channels, height, width = event_shape
    count = rows * channels * height * width
    places = torch.arange(count, device=device).reshape(rows, *event_shape)
    sizes = image_sizes(height, width)
    strides = [2 ** (len(sizes) - 1 - level) for level in range(len(sizes))]
    found = [by_colour(places[..., :: strides[0], :: strides[0]]).flatten()]
    for size, stride in zip(sizes[1:], strides[1:], strict=True):
        image = places[..., ::stride, ::stride]
        coarse = plane(image, (0, 0))
        for place in planes_at(*size):
            written = plane(image, place)
            missing = [n - m for n, m in zip(coarse.shape[-2:], written.shape[-2:], strict=True)]
            padded = F.pad(written, (0, missing[1], 0, missing[0]), value=count)
            found.append(by_colour(padded).flatten())
    return torch.cat(found)
