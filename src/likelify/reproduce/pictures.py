"""Pictures of a fitted model of images: what it draws beside what is real, and the noise of its inverse."""

import io

import torch
from torch import Tensor

from likelify.data import Source
from likelify.errors import DataError
from likelify.flows import Flow
from likelify.plots import show_images
from likelify.reproduce.cell import Picture
from likelify.seeding import seeded

IMAGES = 64


def draw_picture(kind: Picture, flow: Flow, source: Source, *, seed: int) -> bytes:
    """Draw a picture as PNG.

    Args:
        kind: `"samples"` shows samples beside real images; `"inverses"` shows for the same latents first the inverse
            without its noise, then the inverse with it, which is a sample, then real images.
        flow: the model.
        source: of the real images, the first of the test split.
        seed: of the draws.

    Raises:
        DataError: if the source has no images.
    """
    if source.levels is None or len(source.event_shape) != 3:
        raise DataError(f"'{source.name}' has no images, so no pictures can be drawn of a model of it.")
    panels = samples(flow, seed) if kind == "samples" else inverses(flow, seed)
    panels["real (test)"] = source.read("test", torch.arange(min(IMAGES, source.size("test")))).x
    content = io.BytesIO()
    show_images(panels, source.levels).savefig(content, format="png", dpi=110)
    return content.getvalue()


def samples(flow: Flow, seed: int, number: int = IMAGES) -> dict[str, Tensor]:
    """Draw from the model."""
    with seeded(seed), flow.frozen():
        return {"samples": flow.sample((number,))}


def inverses(flow: Flow, seed: int, number: int = IMAGES) -> dict[str, Tensor]:
    """Invert the same latents without and with the noise of the inverse."""
    with seeded(seed), torch.no_grad(), flow.frozen():
        z = flow.base.sample((number,))
        return {
            "inverse without noise": flow.transform.mean_inverse(z),
            "inverse with noise (samples)": flow.transform.inverse(z)[0],
        }
