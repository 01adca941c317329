"""Fine pixels drawn given coarse ones, by models that write images from coarse to fine.

A pyramid writes every `2^k`-th pixel of every `2^k`-th row before all others. Its noise has the shape of the image, and
the noise of a pixel depends on pixels that are written before it alone: that of the coarse ones is found from them, the
rest is drawn, and the inverse then gives images with these coarse pixels, from the exact conditional distribution of
the model. A coarse pixel is one of the picture, not a mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from likelify.data import Batch
from likelify.data.adapt import table_in
from likelify.data.catalog import PICTURE_ENDINGS
from likelify.data.options import SourceOptions
from likelify.data.picture_items import picture_target
from likelify.data.pictures import decode, look_at
from likelify.data.values import as_images, require_levels
from likelify.errors import ConfigError, ConvergenceError, DataError
from likelify.fitting.checks import for_flow
from likelify.fitting.drawing.draw import OnShare, as_stored, check_draws, check_seed, chunk_items, whole_limit
from likelify.fitting.drawing.remaking import chosen_items, classes_of
from likelify.fitting.settings import FINER, ITEM_DRAWS
from likelify.seeding import chunk_seed, seeded
from likelify.transforms.core import require_writer
from likelify.transforms.levels.planes import image_sizes

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow


@dataclass(frozen=True, eq=False)
class Upscaled:
    """Images that were drawn around coarse ones.

    Attributes:
        coarse: `(items, channels, coarse height, coarse width)`.
        x: `(items, draws, channels, height, width)`; `x[..., ::factor, ::factor]` is the coarse image.
        factor: how much finer they are.
        original: the images that the coarse pixels were taken from, or None if only these were given.
    """

    coarse: Tensor
    x: Tensor
    factor: int
    original: Tensor | None


def upscale(
    run: Run,
    items: Any,
    *,
    factor: int = FINER,
    draws: int = ITEM_DRAWS,
    limit: int | None = None,
    labels: Tensor | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_share: OnShare | None = None,
) -> Upscaled:
    """Draw fine images around coarse ones.

    Args:
        run: of a model that writes images from coarse to fine.
        items: coarse images, a picture or an array (see `data.values.as_images`); what is finer they decide
            themselves. Or items of the model's size, as for `chosen_items`: of these every `factor`-th pixel of every
            `factor`-th row is kept.
        factor: a power of two; for items of the model's size.
        draws: of each item.
        limit: how many items, the first; None for all.
        labels: class of each item, for a class-conditional model, unless the items have labels.
        temperature: of what is drawn; below 1 it is smoother.
        seed: of the draws.
        on_share: called with the share that is drawn.

    Raises:
        ConfigError: if the model writes its pixels in another order, or a setting does not fit.
        DataError: if there are no such items, or they are of a size that is none of the coarse ones.
    """
    check_seed(seed)
    check_draws(draws, temperature)
    flow = run.flow()
    require_writer(flow.transform, "Hidden parts of images are drawn by --inpaint, with all models of images.")
    coarse, factor, original, labels = _coarse(run, items, factor, limit, labels)
    drawn = _drawn(flow, run, coarse, factor, labels, draws, temperature, seed, on_share)
    return Upscaled(coarse, as_stored(drawn, run.config.data), factor, original)


@torch.no_grad()
def fine_given_coarse(
    flow: Flow, coarse: Tensor, factor: int, labels: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Draw images `(rows, *event)` of which every `factor`-th pixel of every `factor`-th row is known.

    Args:
        flow: a model that writes images from coarse to fine, in float64: then noise and pixels belong to one another
            without exception.
        coarse: the known pixels `(rows, channels, coarse height, coarse width)`.
        factor: a power of two.
        labels: classes `(rows,)`, for a class-conditional model.
        temperature: of what is drawn.

    Raises:
        ConvergenceError: if a drawn image has other coarse pixels.
    """
    shape = flow.event_shape or ()
    x = coarse.new_zeros(len(coarse), *shape)
    x[..., ::factor, ::factor] = coarse
    known = flow.to_noise(x, labels)[..., ::factor, ::factor]
    noise = temperature * torch.randn_like(x)
    noise[..., ::factor, ::factor] = known
    drawn = flow.from_noise(noise, labels)
    if not torch.equal(drawn[..., ::factor, ::factor], coarse):
        raise ConvergenceError("Drawn images do not have the coarse pixels that they were drawn around.")
    return drawn


def _drawn(
    flow: Flow,
    run: Run,
    coarse: Tensor,
    factor: int,
    labels: Tensor | None,
    draws: int,
    temperature: float,
    seed: int,
    on_share: OnShare | None,
) -> Tensor:
    flow = flow.double()
    batch = for_flow(flow, Batch(coarse.repeat_interleave(draws, 0)))
    labels = None if labels is None else labels.repeat_interleave(draws, 0)
    rows, found = chunk_items(run.config.data.event_shape), []
    with flow.frozen():
        for start in range(0, len(batch), rows):
            part = slice(start, start + rows)
            with seeded(chunk_seed(seed, start // rows)):
                own = None if labels is None else labels[part]
                found.append(fine_given_coarse(flow, batch.x[part].double(), factor, own, temperature))
            if on_share is not None:
                on_share(min(1.0, (start + rows) / len(batch)))
    return torch.cat(found).unflatten(0, (len(coarse), draws))


def _coarse(
    run: Run, items: Any, factor: int, limit: int | None, labels: Tensor | None
) -> tuple[Tensor, int, Tensor | None, Tensor | None]:
    """Return the coarse images, how much finer the drawn ones are, what the coarse ones are of, and labels."""
    facts, factors = run.config.data, _factors(run)
    images = _images(run, items)
    if images is not None and (images.shape[2] < facts.event_shape[1] or images.shape[3] < facts.event_shape[2]):
        require_levels("The images", images, facts.levels or 0)
        small = torch.from_numpy(images[: whole_limit(limit)].astype(np.int64))
        found = next((each for each, size in factors.items() if size == tuple(small.shape[2:])), None)
        if found is None:
            sizes = ", ".join(f"{height}x{width}" for height, width in factors.values())
            raise DataError(
                f"The images have {small.shape[2]}x{small.shape[3]} pixels; the model draws finer ones of "
                f"{sizes} pixels."
            )
        return small, found, None, classes_of(run, Batch(small), labels)
    if factor not in factors:
        known = ", ".join(map(str, factors))
        raise ConfigError(f"Images of this model can be drawn {known} times as fine, not {factor!r} times.")
    batch = chosen_items(run, items if images is None else images, limit, labels)
    return batch.x[..., ::factor, ::factor], factor, batch.x, batch.labels


def _factors(run: Run) -> dict[int, tuple[int, int]]:
    """Return the factors, and the size of the coarse images of each."""
    sizes = image_sizes(*run.config.data.event_shape[1:])[:-1]
    if not sizes:
        raise ConfigError("Images of a single pixel are not drawn finer.")
    return {2**step: size for step, size in enumerate(sizes[::-1], 1)}


def _images(run: Run, items: Any) -> np.ndarray | None:
    """Return the images `(n, channels, height, width)` of an array or of a small picture; None of anything else."""
    facts = run.config.data
    channels, height, width = facts.event_shape
    if isinstance(items, str | Path):
        path = Path(items).expanduser()
        if not path.is_file() or not path.name.lower().endswith(PICTURE_ENDINGS):
            return None
        seen = look_at(path, path.name)
        if seen.height >= height and seen.width >= width:
            return None
        target = picture_target(path, facts, SourceOptions())
        return decode(path, replace(target, height=seen.height, width=seen.width))[None]
    if not hasattr(items, "__array__") or table_in(items) is not None:
        return None
    return as_images(items, "The images", channels)
