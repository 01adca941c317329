"""What the models of images share: their common settings, and how layers become a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import nets
from likelify.errors import ShapeError
from likelify.zoo.registry import ModelConfig, Size

if TYPE_CHECKING:
    from torch import nn

    from likelify.distributions.core import Distribution
    from likelify.flows import Flow
    from likelify.transforms.core import Transform

ImageShape = tuple[Size, Size, Size]


class ImageConfig(ModelConfig):
    """Settings that all models of images have.

    Attributes:
        event_shape: `(channels, height, width)`.
        pixel_levels: number of values of a pixel.
    """

    event_shape: ImageShape
    pixel_levels: int = Field(default=256, ge=2, le=65536)

    def _flow(self, transform: Transform, base: Distribution, encoder: nn.Module | None = None) -> Flow:
        """Return the flow of a transform; labels are one-hot vectors in it, unless it has an encoder of its own."""
        from likelify.flows import Flow

        if encoder is None and self.classes is not None:
            encoder = nets.OneHot(self.classes)
        return Flow(base, transform, encoder=encoder, event_shape=self.event_shape)


def require_halves(event_shape: ImageShape, model: str) -> None:
    """Raise `ShapeError` unless height and width are even."""
    if any(side % 2 for side in event_shape[1:]):
        raise ShapeError(
            f"{model} halves the image, and {event_shape[1]}x{event_shape[2]} is not a multiple of 2. Pad or crop the "
            "images, or take another model."
        )
