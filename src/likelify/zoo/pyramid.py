"""The default model of photographs: from coarse to fine, each grey level with its own exact probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from likelify import nets, transforms
from likelify.zoo.images import ImageConfig
from likelify.zoo.registry import Size, register

if TYPE_CHECKING:
    from likelify.flows import Flow

Place = tuple[int, int]


@register("pyramid", kind="image", summary="from coarse to fine, exact, any size; default of images above 16x16")
class PyramidConfig(ImageConfig):
    """Settings of a pyramid, whose likelihood is the exact probability of the pixels.

    Attributes:
        networks: `per-level`: one for each plane of each level; `shared`: one for each plane, the same on all levels.
        width: channels of the networks.
        blocks: residual blocks of each.
        head: hidden units of the last layers of each channel.
        components: logistics of the mixture of each pixel.
        aligned: let the networks know where in the image they are, for images that are all in the same place.
    """

    networks: Literal["per-level", "shared"] = "shared"
    width: Size = 48
    blocks: int = Field(default=2, ge=0, le=64)
    head: Size = 32
    components: int = Field(default=5, ge=1, le=64)
    aligned: bool = False

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions.normal import Normal

        pyramid = transforms.LevelPyramid(
            self.event_shape,
            self.pixel_levels,
            self._net,
            components=self.components,
            shared=self.networks == "shared",
        )
        return self._flow(pyramid, Normal(self.event_shape))

    def _net(self, known: Sequence[Place], place: Place, sizes: Sequence[tuple[int, int]]) -> nets.PlaneNet:
        return nets.PlaneNet(
            self.event_shape[0],
            known,
            place,
            3 * self.components + 2,
            width=self.width,
            blocks=self.blocks,
            head=self.head,
            context_features=self.classes or 0,
            levels=len(sizes),
            positions=sizes if self.aligned else None,
        )
