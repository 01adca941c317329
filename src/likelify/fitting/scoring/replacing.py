r"""Which part of an item is to blame: what the item gains if that part alone is replaced.

For a part `j` of an item `x`, a column of a row or a place of an image, the gain is

    gain_j(x) = max_t l(x with x_j replaced by t) - l(x) >= 0,   in nats,

where `l` is the log-likelihood of an image, and of a row minus its outlier score (`fitting.outliers`): its
log-likelihood where all columns are on one scale, so that a probability can be compared with a density. That is the
likelihood ratio between the best value that could stand there, given all other parts, and the one that does. It has no
unit, so columns in metres and in grams can be compared, which their densities `p(x_j | others)` cannot; no
normalisation is needed, since `p(others)` cancels. For a normal distribution it is half the square of the standardised
residual of `x_j` given the others. The maximum is over values that were seen in training and values between them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from likelify.errors import ConfigError
from likelify.fitting.scoring.candidates import HELD, found_in
from likelify.fitting.scoring.kept import FOLDER, keep_numbers, read_numbers

if TYPE_CHECKING:
    from likelify.data import Facts, Source
    from likelify.fitting.run import Run

# The log-likelihood of each of some items; the same draws in every call.
Score = Callable[[Tensor], Tensor]
FILE = "replacements.safetensors"
# Training rows that are looked at for values of their columns.
LOOKED_AT = 2**16
# Training images whose places replace those of an image.
IMAGES = 12


def can_replace(facts: Facts) -> bool:
    """Tell whether parts of such items can be blamed: columns of rows, places of images of levels."""
    return facts.kind == "table" or (facts.kind == "image" and facts.levels is not None)


def replacements(run: Run, source: Source | None = None) -> np.ndarray:
    """Return what stands in training items: values of columns, see `candidates.found_in`, or some images.

    They are kept in the run, so that the data are needed once only.

    Args:
        run: the run.
        source: the data of the run, if they are open already.

    Returns:
        `(48, columns)`, NaN where a column has fewer values; or `(12, c, h, w)`.

    Raises:
        ConfigError: if the items of the run are neither rows nor images of levels.
        DataError, RunError: if the data are needed and are not there any more, or have changed.
    """
    facts = run.config.data
    if not can_replace(facts):
        raise ConfigError(f"What is to blame is found in rows of tables and in images of pixels, not in {facts.items}.")
    shape = (_number(facts), *facts.event_shape)
    found = read_numbers(run.path / FOLDER / FILE, _about(facts), shape, holes=facts.kind == "table")
    if found is None:
        source = run.source() if source is None else source
        found = values_in(source, facts) if facts.kind == "table" else _images(source)
        keep_replacements(run, found)
    return found


def keep_replacements(run: Run, found: np.ndarray) -> None:
    """Keep in a run what stands in training items; see `replacements`."""
    keep_numbers(run.path / FOLDER / FILE, found, _about(run.config.data))


def _number(facts: Facts) -> int:
    return HELD if facts.kind == "table" else IMAGES


def _about(facts: Facts) -> str:
    return json.dumps({"data": facts.fingerprint, "number": _number(facts)})


def values_in(source: Source, facts: Facts) -> np.ndarray:
    """Return what stands in the columns of training rows; see `candidates.found_in`."""
    return found_in(source.read("train", _spread(source, LOOKED_AT)).x.double().numpy(), facts.meaning)


def _images(source: Source) -> np.ndarray:
    images = source.read("train", _spread(source, IMAGES)).x.double().numpy()
    return np.resize(images, (IMAGES, *images.shape[1:]))


def _spread(source: Source, number: int) -> Tensor:
    """Return the numbers of at most so many training items, in equal steps."""
    size = source.size("train")
    return torch.linspace(0, size - 1, min(number, size), dtype=torch.float64).round().long()


def patch_of(height: int, width: int) -> tuple[int, int]:
    """Return the side of the places of images of that size that are replaced, and the step between them."""
    side = max(2, round(max(height, width) / 8))
    return min(side, height, width), max(1, side // 2)


def patch_gains(
    score: Score, images: Tensor, others: np.ndarray, levels: int, on_place: Callable[[float], None] | None = None
) -> np.ndarray:
    """Return for each pixel of images what they gain, on average over the places around it, if that place is replaced.

    Places are squares of an eighth of the image, at least 2 pixels wide, a half of that apart. What replaces them is
    what stands there in some training images, and the mean of the pixels around them.

    Args:
        score: log-likelihoods of images.
        images: `(n, c, h, w)`, whole numbers below `levels`.
        others: training images `(m, c, h, w)`.
        levels: number of values of a pixel.
        on_place: called with the share that is done.

    Returns:
        Nats, `(n, h, w)`; zero where no replacement is more likely than what is there.
    """
    before, (height, width) = score(images).double(), images.shape[2:]
    known = torch.from_numpy(others).round().clamp(0, levels - 1).to(images)
    side, step = patch_of(height, width)
    total, count = torch.zeros(len(images), height, width, dtype=torch.float64), torch.zeros(height, width)
    places = list(itertools.product(_starts(height, side, step), _starts(width, side, step)))
    for number, (top, left) in enumerate(places, 1):
        place = (..., slice(top, top + side), slice(left, left + side))
        best = before
        for patch in (*known[place], None):
            changed = images.clone()
            changed[place] = _mean_around(images, top, left, side) if patch is None else patch
            best = torch.fmax(best, score(changed).double())
        total[place] += (best - before).cpu()[:, None, None]
        count[place] += 1
        if on_place is not None:
            on_place(number / len(places))
    return (total / count).numpy()


def _starts(size: int, side: int, step: int) -> list[int]:
    """Return where places begin, so that the last one ends with the image."""
    return sorted({*range(0, size - side + 1, step), size - side})


def _mean_around(images: Tensor, top: int, left: int, side: int) -> Tensor:
    """Return for each image and channel the mean of the pixels around a place, as a level, `(n, c, 1, 1)`."""
    rows, columns = slice(max(top - 1, 0), top + side + 1), slice(max(left - 1, 0), left + side + 1)
    inside = images[..., top : top + side, left : left + side]
    around = images[..., rows, columns]
    number = around[0, 0].numel() - inside[0, 0].numel()
    total = around.double().sum((2, 3), keepdim=True) - inside.double().sum((2, 3), keepdim=True)
    return (total / max(number, 1)).round().to(images)
