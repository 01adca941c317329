"""Do layers that follow one another fit?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from likelify.errors import ShapeError, UnsupportedError
from likelify.shapes import EventShape, event_words

if TYPE_CHECKING:
    from likelify.transforms.core import Transform


def can_agree(given: EventShape | None, expected: EventShape | None) -> bool:
    """Tell whether some events are as both descriptions say; None is any.

    Example:
        >>> can_agree((3, ...), (3, 8, 8)), can_agree((3, ...), (4, "height"))
        (True, False)
    """
    if given is None or expected is None:
        return True
    opened = [shape[-1:] == (...,) for shape in (given, expected)]
    sizes = [shape[:-1] if open_ended else shape for shape, open_ended in zip((given, expected), opened, strict=True)]
    missing = len(sizes[1]) - len(sizes[0])
    if (missing > 0 and not opened[0]) or (missing < 0 and not opened[1]):
        return False
    return all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(*sizes, strict=False))


def events_behind(layers: Sequence[Transform], known: EventShape | None, name: str) -> EventShape | None:
    """Return what is known of events behind layers, given what is known of those in front.

    Raises:
        ShapeError: if a layer takes other events than the one before it gives.
    """
    giver = "what comes in"
    for place, layer in enumerate(layers):
        if not can_agree(known, layer.takes):
            raise ShapeError(
                f"Layer {place} of {name} (from 0), {type(layer).__name__}, takes events ({_words(layer.takes)}), and "
                f"{giver} gives ({_words(known)}). Change one of them, or put what reshapes in between."
            )
        known = layer.events_behind(known)
        giver = f"{type(layer).__name__} before it"
    return known


def _words(shape: EventShape | None) -> str:
    return event_words(shape or (...,))


def behind(layer: Transform, known: EventShape | None) -> EventShape | None:
    """Return what an elementary layer lets one know of the events behind it; see `Transform.events_behind`."""
    if known is not None and all(isinstance(size, int) for size in known):
        try:
            return layer.out_shape(known)  # pyright: ignore[reportArgumentType]
        except (UnsupportedError, NotImplementedError):
            return layer.gives
    if layer.gives is not None:
        return layer.gives
    if not layer.keeps_shape:
        return None
    return layer.takes if known is None else known
