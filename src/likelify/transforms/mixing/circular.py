"""Circular convolutions between any counts of channels, which are one matrix for each frequency."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likelify.linalg.conv import odd_taps
from likelify.linalg.factors import (
    Factors,
    FourierFactors,
    orthonormal,
    require_rank,
)
from likelify.linalg.frequencies import kernel_frequencies
from likelify.names import NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.shapes import Shape, axis_names, check_size
from likelify.transforms.surjections.fibre import FibreLayer, check_groups, check_shape


class CircularConv(FibreLayer):
    r"""A convolution on a torus, stride 1, from any count of channels to any other; the kernel is kept in space.

    `z[p] = sum_s K_s x[p + s] + b` is one matrix for each frequency, so volume, inverse and complement come from small
    matrices: `1/2 sum_f log det K(f) V K(f)^H` where channels are dropped, `1/2 sum_f log det K(f)^H K(f)` where they
    are added. Unlike `unfold` and a matrix, it repeats no pixels and so needs no noise for them: with `out <= in` the
    likelihood is exact. The images may have any size, another in every call; kernels larger than they wrap round.

    It computes the same as `torch.nn.Conv2d(padding_mode="circular")` with stride 1 and the padding that keeps the
    size. Each image and group has one scale of the fibre, and one radius of uniform noise.

    Args:
        in_channels: of the data `(rows, channels, *positions)`.
        out_channels: of the latent.
        kernel_size: odd; one size, or one for each axis.
        dims: 1 for sequences, 2 for images, 3 for volumes.
        dilation: distance of neighbouring taps.
        weight: `(out_channels, in_channels / groups, *kernel_size)` to start from; without it, orthonormal at the
            centre with little beside it.
        bias: as in `FreeLinear`.
        groups: as in `FreeLinear`.
        noise: as in `FreeLinear`.
        net_factory: as in `FreeLinear`; the network's log scales are averaged over the positions.
        posterior_factory: as in `FreeLinear`.

    Raises:
        DomainError: if the matrix of a frequency has no full rank.
        ShapeError: for other shapes.

    Source:
        Mate et al. 2022, appendix H, where the kernel is free in the frequency domain.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        dims: int = 2,
        dilation: int = 1,
        weight: Tensor | None = None,
        bias: bool | Tensor = True,
        groups: int = 1,
        noise: NoiseName = "normal",
        net_factory: NetFactory | None = None,
        posterior_factory: NetFactory | None = None,
    ) -> None:
        taps = odd_taps(kernel_size, dims)
        dilation = check_size(dilation, "The dilation of CircularConv")
        in_channels, out_channels, groups = check_groups(in_channels, out_channels, groups)
        shape = (out_channels, in_channels // groups, *taps)
        if weight is not None:
            check_shape(weight, shape, "weight")
            _require_kernel_rank(weight, groups, type(self).__name__)
        super().__init__(
            torch.zeros(shape) if weight is None else weight,
            (in_channels, out_channels),
            pretrained=weight is not None,
            bias=bias,
            groups=groups,
            noise=noise,
            net_factory=net_factory or density_nets(dims),
            posterior_factory=posterior_factory,
        )
        self.dilation = dilation
        axes = axis_names(dims)
        self.takes, self.gives = (in_channels, *axes), (out_channels, *axes)
        if weight is None:
            sizes = (out_channels // groups, in_channels // groups)
            with torch.no_grad():
                self._set_weight(
                    torch.stack([orthonormal(*sizes) for _ in range(groups)]), self.weight.new_ones(in_channels)
                )

    def _factorize(self, positions: Shape) -> Factors:
        kernel = self.weight
        if self.density is not None:
            deviations = self.density.log_deviation.exp().reshape(self.groups, 1, -1, *(1,) * len(positions))
            kernel = (kernel.unflatten(0, (self.groups, -1)) * deviations).flatten(0, 1)
        matrices = kernel_frequencies(kernel, positions, self.groups, self.dilation)
        return FourierFactors(matrices, f"{type(self).__name__} on {positions}")

    def _set_weight(self, blocks: Tensor, deviations: Tensor) -> None:
        noise = 0.05 / math.sqrt(self.weight[0].numel()) * torch.randn_like(self.weight)
        scales = deviations.reshape(self.groups, 1, -1, *(1,) * (self.weight.ndim - 2))
        kernel = (noise.unflatten(0, (self.groups, -1)) / scales).flatten(0, 1)
        kernel[(..., *(tap // 2 for tap in self.weight.shape[2:]))] += blocks.flatten(0, 1)
        self.weight.copy_(kernel)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{super().extra_repr()}, kernel_size={tuple(self.weight.shape[2:])}, dilation={self.dilation}"


def periodic_conv(channels: int, kernel_size: int | Sequence[int] = 3, *, dims: int = 2) -> CircularConv:
    """Build the periodic convolution of mixing steps: a square `CircularConv` near the identity, without bias.

    Args:
        channels: of the images; any image size.
        kernel_size: odd; one size, or one for each axis.
        dims: 1 for sequences, 2 for images, 3 for volumes.

    Source:
        Hoogeboom et al. 2019, section 3.2.
    """
    taps = odd_taps(kernel_size, dims)
    channels = check_size(channels, "The channels of periodic_conv")
    kernel = 0.05 / math.sqrt(channels * math.prod(taps)) * torch.randn(channels, channels, *taps)
    kernel[(..., *(tap // 2 for tap in taps))] += torch.eye(channels)
    return CircularConv(channels, channels, taps, dims=dims, weight=kernel, bias=False)


def _require_kernel_rank(kernel: Tensor, groups: int, owner: str) -> None:
    """Refuse a kernel that has no full rank at any frequency, because a combination of its channels is zero."""
    blocks = kernel.unflatten(0, (groups, -1)).flatten(3)
    wide = blocks.shape[1] <= blocks.shape[2]
    require_rank(blocks.flatten(2) if wide else blocks.transpose(1, 2).flatten(2), owner)
