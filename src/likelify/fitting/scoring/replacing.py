r"""Which part of an item is to blame: what its log-likelihood gains if that part alone is replaced.

For a part `j` of an item `x`, a column of a row or a place of an image, the gain is

    gain_j(x) = max_t log p(x with x_j replaced by t) - log p(x) >= 0,   in nats,

the likelihood ratio between the best value that could stand there, given all other parts, and the one that does. It
has no unit, so columns in metres and in grams can be compared, which their densities `p(x_j | others)` cannot; no
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
from likelify.fitting.scoring.kept import FOLDER, keep_numbers, read_numbers

if TYPE_CHECKING:
    from likelify.data import Facts, Source
    from likelify.fitting.run import Run

# The log-likelihood of each of some items; the same draws in every call.
Score = Callable[[Tensor], Tensor]
FILE = "replacements.safetensors"
# Training items that are looked at for quantiles of their columns, and how many quantiles.
LOOKED_AT, QUANTILES = 2**16, 24
# How often, and to how many values, the neighbourhood of the best value so far is looked at.
ROUNDS, FINER = 2, 6
# Training images whose places replace those of an image.
IMAGES = 12


def can_replace(facts: Facts) -> bool:
    """Tell whether parts of such items can be blamed: columns of rows, places of images of levels."""
    return facts.kind == "table" or (facts.kind == "image" and facts.levels is not None)


def replacements(run: Run) -> np.ndarray:
    """Return what stands in training items: quantiles of columns `(24, columns)`, or some images `(12, c, h, w)`.

    They are kept in the run, so that the data are needed once only.

    Raises:
        ConfigError: if the items of the run are neither rows nor images of levels.
        DataError, RunError: if the data are needed and are not there any more, or have changed.
    """
    facts = run.config.data
    if not can_replace(facts):
        raise ConfigError(f"What is to blame is found in rows of tables and in images of pixels, not in {facts.items}.")
    number = QUANTILES if facts.kind == "table" else IMAGES
    about = json.dumps({"data": facts.fingerprint, "number": number})
    file = run.path / FOLDER / FILE
    found = read_numbers(file, about, (number, *facts.event_shape))
    if found is None:
        source = run.source()
        found = _quantiles(source) if facts.kind == "table" else _images(source)
        keep_numbers(file, found, about)
    return found


def _quantiles(source: Source) -> np.ndarray:
    """Return values of the training rows at equal steps of their number, the first and the last among them."""
    rows = source.read("train", _spread(source, LOOKED_AT)).x.double().numpy()
    return np.quantile(rows, np.linspace(0, 1, QUANTILES), axis=0, method="nearest")


def _images(source: Source) -> np.ndarray:
    images = source.read("train", _spread(source, IMAGES)).x.double().numpy()
    return np.resize(images, (IMAGES, *images.shape[1:]))


def _spread(source: Source, number: int) -> Tensor:
    """Return the numbers of at most so many training items, in equal steps."""
    size = source.size("train")
    return torch.linspace(0, size - 1, min(number, size)).round().long()


def column_gains(score: Score, x: Tensor, quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row and column what the row gains if that column alone is replaced, and by which value.

    First the quantiles of the column in the training rows are tried, then values between the neighbours of the best of
    them, and once more between the neighbours of that; whole numbers where the column holds nothing else.

    Args:
        score: log-likelihoods of rows.
        x: `(rows, columns)`.
        quantiles: `(values, columns)`, see `replacements`.

    Returns:
        Gains in nats and values, `(rows, columns)` each. A gain is zero where nothing is better than what is there;
        infinite if only the replaced row has a likelihood, and NaN if neither has.
    """
    before = score(x).double()
    gains, values = torch.empty(x.shape, dtype=torch.float64), torch.empty(x.shape, dtype=torch.float64)
    for column in range(x.shape[1]):
        tried = torch.from_numpy(quantiles[:, column]).to(x.device, torch.float64)
        best, value = _best(score, x, column, before, tried)
        # Infinities of the same sign have no difference.
        gains[:, column], values[:, column] = (best - before).cpu(), value.cpu()
    return gains.numpy(), values.numpy()


def _best(score: Score, x: Tensor, column: int, before: Tensor, tried: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest log-likelihoods with other values in a column, and these values, `(rows,)` each."""
    whole = bool((tried == tried.round()).all())
    grid = tried.expand(len(x), -1)
    best, value = before, x[:, column].double()
    for last in range(ROUNDS + 1):
        found = torch.stack([score(_replaced(x, column, grid[:, place])).double() for place in range(grid.shape[1])], 1)
        # NaN counts as the largest number, and would hide what is better.
        found = found.where(~found.isnan(), -torch.inf)
        top = found.argmax(1, keepdim=True)
        highest, where = found.gather(1, top)[:, 0], grid.gather(1, top)[:, 0]
        better = highest > best
        best, value = torch.where(better, highest, best), torch.where(better, where, value)
        if last < ROUNDS:
            low = grid.gather(1, (top - 1).clamp(min=0))
            high = grid.gather(1, (top + 1).clamp(max=grid.shape[1] - 1))
            grid = low + (high - low) * torch.linspace(0, 1, FINER + 2, dtype=torch.float64, device=x.device)
            grid = grid.round() if whole else grid
    return best, value


def _replaced(x: Tensor, column: int, values: Tensor) -> Tensor:
    changed = x.clone()
    changed[:, column] = values.to(x.dtype)
    return changed


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
