"""The default flow of small images: fitted marginals, spline couplings on position masks, an exponential."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from likelify import nets, transforms
from likelify.zoo.images import ImageConfig, ImageShape
from likelify.zoo.registry import Bins, Size, register
from likelify.zoo.single import single_number

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.flows import Flow
    from likelify.transforms.core import Transform


@register(
    "marginal-spline", kind="image", summary="marginals and spline couplings, for small images; default of digits"
)
class MarginalSplineConfig(ImageConfig):
    """Settings of a flow of small images, whose networks read whole images.

    Call `flow.initialize(images)` once before training, which fits the marginals; the flow then starts as the
    independent-pixel model.

    Attributes:
        couplings: number of spline couplings; their masks alternate between checkerboards, columns and rows.
        bins: pieces of the splines.
        interval: the splines act on `[-interval, interval]`.
        hidden: widths of the hidden layers of the coupling networks.
        dropout: rate in the coupling networks, acting in training steps only.
        exponentials: convolution exponentials after the couplings.
        norm_limit: of these; None leaves the norm free.
        pseudo_count: of the fitted marginals.
    """

    couplings: int = Field(default=10, ge=1, le=4096)
    bins: Bins = 4
    interval: float = Field(default=4.0, gt=0)
    hidden: tuple[Size, ...] = (128, 128)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    exponentials: int = Field(default=1, ge=0, le=4096)
    norm_limit: float | None = Field(default=1.8, gt=0)
    pseudo_count: float = Field(default=0.5, gt=0)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions.normal import Normal

        front = [
            transforms.Dequantize(self.pixel_levels),
            transforms.FittedMarginal(self.event_shape, self.pixel_levels, pseudo_count=self.pseudo_count),
        ]
        if math.prod(self.event_shape) == 1:
            single, base = single_number(self.event_shape, self.classes)
            return self._flow(transforms.Chain([*front, *single]), base)
        channels = self.event_shape[0]
        layers: list[Transform] = [
            *(self._coupling(index) for index in range(self.couplings)),
            *(transforms.conv_exponential(channels, norm_limit=self.norm_limit) for _ in range(self.exponentials)),
        ]
        flatten = transforms.Flatten(self.event_shape)
        size = flatten.out_shape(self.event_shape)
        return self._flow(transforms.Chain([*front, *layers, flatten, transforms.ActNorm(*size)]), Normal(size))

    def _coupling(self, index: int) -> Transform:
        split = transforms.MaskSplit(position_mask(self.event_shape, index))
        bijector = transforms.SplineBijector(self.bins, self.interval)
        read, changed = split.sizes
        context = self.classes or 0
        net = nets.MLP(read, changed * bijector.size, self.hidden, context_features=context, dropout=self.dropout)
        return transforms.Coupling(split, bijector, net)


def position_mask(event_shape: ImageShape, index: int) -> Tensor:
    """Return the mask of the coupling at that place: checkerboard, columns, checkerboard, rows, and so on.

    Odd places give the complement of the mask before; where an image is one pixel wide, its columns are alike, and the
    checkerboard stands in.
    """
    import torch

    channel, row, column = torch.meshgrid(*(torch.arange(n) for n in event_shape), indexing="ij")
    checkerboard = (channel + row + column) % 2
    stripes = column if (index // 2) % 4 == 1 else row
    mask = checkerboard if (index // 2) % 2 == 0 or int(stripes.max()) == 0 else stripes % 2
    return mask == index % 2
