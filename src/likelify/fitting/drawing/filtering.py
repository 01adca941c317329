"""Hidden parts of images drawn by models that write one pixel after the other: particles in the order of writing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from likelify.fitting.drawing.tempering import KEPT, Effort, effective_size, resampled
from likelify.flows import Flow
from likelify.structure import Context
from likelify.transforms.core import layers_of
from likelify.transforms.levels.filling import fill
from likelify.transforms.levels.planes import image_sizes, planes_at


def can_filter(flow: Flow, hidden: Tensor) -> bool:
    """Tell whether particles can be drawn in the order of writing: whole pixels are, behind layers of colours too."""
    alone = len(list(layers_of(flow.transform))) == 1 or bool((hidden == hidden[:1]).all())
    return flow.transform.writes_elements and alone


@torch.no_grad()
def filtered(
    flow: Flow, item: Tensor, hidden: Tensor, label: int | None, effort: Effort, on_share: Callable[[float], None]
) -> tuple[Tensor, float, int]:
    """Return particles `(count, *event)`, their effective sample size, and how often they were resampled.

    Args:
        flow: a model that writes pixels one after the other.
        item: of which a part is hidden, `event`.
        hidden: which, of the same shape.
        label: class of the item, for a class-conditional model.
        effort: islands and particles.
        on_share: called with the share that is written.
    """
    from likelify.door import admit

    *front, layer = layers_of(flow.transform)
    count = effort.islands * effort.particles
    rows = torch.where(hidden, 0, item)[None].expand(count, *item.shape)
    labels = None if label is None else torch.full((count,), label)
    x, context, _ = admit(flow, rows, labels)
    for each in front:
        x = each(x, context)[0]
    islands = _Islands(effort, layer.event_shape, on_share)  # pyright: ignore[reportArgumentType]
    with flow.frozen():
        x, weights = fill(layer, x, hidden, islands.resample, context)  # pyright: ignore[reportArgumentType]
    x = x[resampled(weights.reshape(effort.islands, -1))]
    for each in reversed(front):
        x = each.inverse(x, Context())[0]
    ess = effective_size(x[:, hidden].reshape(effort.islands, effort.particles, -1))
    return x, ess, islands.times + 1


@dataclass
class _Islands:
    """Particles in islands that never meet."""

    effort: Effort
    shape: tuple[int, ...]
    on_share: Callable[[float], None]
    times: int = 0
    written: int = 0

    def resample(self, weights: Tensor) -> Tensor | None:
        """Return which particles go on, or None while enough of each island count."""
        planes = 1 + sum(len(planes_at(*size)) for size in image_sizes(*self.shape[1:])[1:])
        self.written += 1
        self.on_share(self.written / planes)
        by_island = weights.reshape(self.effort.islands, -1)
        shares = by_island.softmax(1)
        counting = 1 / shares.square().sum(1) / self.effort.particles
        if self.written == planes or float(counting.min()) >= KEPT:
            return None
        self.times += 1
        return resampled(by_island)
