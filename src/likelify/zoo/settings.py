"""What the configurations of all models of images share."""

from typing import Annotated

from pydantic import Field

from likelify.errors import ShapeError
from likelify.settings import Settings

Size = Annotated[int, Field(ge=1, le=2**16)]
ImageShape = tuple[Size, Size, Size]


class ImageConfig(Settings):
    """What the models of images share.

    Attributes:
        event_shape: `(channels, height, width)`.
        pixel_levels: number of values of a pixel.
        norm_limit: of `conv_exponential`; None leaves the norm free.
        classes: number of classes for a class-conditional model.
    """

    event_shape: ImageShape
    pixel_levels: int = Field(default=256, ge=2, le=65536)
    norm_limit: float | None = Field(default=1.8, gt=0)
    classes: int | None = Field(default=None, ge=2)


def require_halves(event_shape: ImageShape, levels: int, model: str) -> None:
    """Raise `ShapeError` unless height and width can be halved that often."""
    factor = 2**levels
    if any(side % factor for side in event_shape[1:]):
        raise ShapeError(
            f"{model} with {levels} levels halves the image {levels} times; {event_shape[1]}x{event_shape[2]} is not a "
            f"multiple of {factor}. Use fewer levels, or pad or crop the images."
        )
