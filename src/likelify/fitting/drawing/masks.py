"""Which elements of an item are hidden: words, boxes and files of the command line as masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Facts
from likelify.errors import ConfigError, needs, unknown_word

if TYPE_CHECKING:
    from torch import Tensor

HALVES = ("left", "right", "top", "bottom", "center")
BOX = re.compile(r"(\d+),(\d+),(\d+),(\d+)")
POSITIONS = re.compile(r"(\d+):(\d+)")
# Pixels of the picture of a mask; more would not be one of an image that a model can be fitted to.
MOST_PIXELS = 2**26


def mask_of(word: str, facts: Facts) -> Tensor:
    """Return what is hidden of an item, booleans of its shape.

    Args:
        word: for images a half (`left`, `right`, `top`, `bottom`, or `center`, the inner half of each side), a box
            `LEFT,TOP,WIDTH,HEIGHT` in pixels, or a picture of the size of the images in which what is bright is hidden;
            for sequences positions `START:STOP`; for rows names of columns, with commas between them; for all a `.npy`
            file of the shape of an item, or of an image without its channels, that is not zero where it is hidden.
        facts: of the data.

    Raises:
        ConfigError: if it is none of these, or does not fit the items.
    """
    import torch

    path = Path(word).expanduser()
    if path.suffix.lower() == ".npy":
        found = _shaped(_array_in(path), facts, f"'{word}'")
    elif facts.kind == "image":
        found = _of_image(word, path, facts)
    else:
        found = _of_sequence(word, facts) if facts.kind == "sequence" else _of_row(word, facts)
    if not found.any():
        raise ConfigError(f"The mask '{word}' hides nothing.")
    return torch.from_numpy(found)


def _of_image(word: str, path: Path, facts: Facts) -> np.ndarray:
    height, width = facts.event_shape[-2:]
    found, box = np.zeros((height, width), bool), BOX.fullmatch(word)
    if box is not None:
        left, top, wide, high = map(int, box.groups())
        if left + wide > width or top + high > height:
            raise ConfigError(
                f"The box '{word}' (left, top, width, height) reaches beyond the images of {width}x{height} pixels."
            )
        found[top : top + high, left : left + wide] = True
    elif word in HALVES:
        rows, columns = _half(word, height, width)
        found[rows, columns] = True
    elif path.is_file():
        found = _bright(path)
    else:
        raise ConfigError(
            f"{unknown_word('mask', word, HALVES)} A mask can also be a box LEFT,TOP,WIDTH,HEIGHT, or the path of a "
            "picture in which what is bright is hidden."
        )
    return _shaped(found, facts, f"'{word}'")


def _half(word: str, height: int, width: int) -> tuple[slice, slice]:
    everything = slice(None)
    return {
        "left": (everything, slice(0, width // 2)),
        "right": (everything, slice(width - width // 2, width)),
        "top": (slice(0, height // 2), everything),
        "bottom": (slice(height - height // 2, height), everything),
        "center": (_inner(height), _inner(width)),
    }[word]


def _inner(side: int) -> slice:
    return slice(side // 4, side // 4 + max(1, side // 2))


def _of_sequence(word: str, facts: Facts) -> np.ndarray:
    match, length = POSITIONS.fullmatch(word), facts.event_shape[-1]
    if match is None or not int(match[1]) < int(match[2]) <= length:
        raise ConfigError(
            f"The mask of sequences is START:STOP with positions of 0..{length}, or a .npy file: '{word}'."
        )
    found = np.zeros(facts.event_shape, bool)
    found[..., int(match[1]) : int(match[2])] = True
    return found


def _of_row(word: str, facts: Facts) -> np.ndarray:
    if facts.columns is None:
        raise ConfigError("These rows have no names of columns; give the mask as a .npy file of booleans.")
    wanted = [name.strip() for name in word.split(",")]
    for name in wanted:
        if name not in facts.columns:
            raise ConfigError(unknown_word("column", name, facts.columns))
    return np.array([name in wanted for name in facts.columns])


def _shaped(found: np.ndarray, facts: Facts, name: str) -> np.ndarray:
    shape = tuple(facts.event_shape)
    if facts.kind == "image" and found.shape == shape[-2:]:
        return np.broadcast_to(found, shape).copy()
    if found.shape != shape:
        raise ConfigError(f"The mask {name} has shape {found.shape}; the {facts.items} have {shape}.")
    return found


def _array_in(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"The mask '{path}' cannot be read as a .npy file of numbers.") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.size > MOST_PIXELS:
        raise ConfigError(f"The mask '{path}' must be an array of booleans or numbers.")
    return np.array(array) != 0


def _bright(path: Path) -> np.ndarray:
    image_module = _pillow()
    try:
        with image_module.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ConfigError(f"The mask '{path}' has {image.width}x{image.height} pixels, which is too large.")
            if image.mode.startswith("I;16"):
                # Of 16 bits, which the conversion would cut off at 8.
                return np.asarray(image) > 2**15
            grey = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, image_module.DecompressionBombError) as error:
        raise ConfigError(f"The mask '{path}' cannot be read as a picture.") from error
    return grey > 127


def _pillow() -> Any:
    with needs("pillow", "app"):
        from PIL import Image
    return Image
