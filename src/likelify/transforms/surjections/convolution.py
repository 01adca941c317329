r"""Convolutions of any kind as layers with a likelihood: pad, unfold, a linear layer on each patch.

Mate et al. 2022, section 3.2. Without overlap of the patches and without padding a convolution that keeps or reduces
the dimension is exact; otherwise it is a bound. A transposed convolution is the adjoint: a linear layer at each
position, patches that are added up, a border that is cut off.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, unknown_word
from likelify.names import LinearMethod, NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.shapes import Shape, per_axis
from likelify.transforms.core import Chain, Transform, chain_of
from likelify.transforms.elementwise import ChannelAffine
from likelify.transforms.surjections.combinators import Parallel
from likelify.transforms.surjections.copy_pattern import count_axes
from likelify.transforms.surjections.copying import FoldSum, Unfold
from likelify.transforms.surjections.dimension import Crop, Pad, Sides
from likelify.transforms.surjections.fibre import check_groups
from likelify.transforms.surjections.linear import linear

Padding = int | Sequence[int] | Sides | Literal["fit", "same"]


def convolution(
    in_shape: Shape,
    out_channels: int,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: LinearMethod = "cayley",
    weight: Tensor | None = None,
    bias: Tensor | bool = True,
    reflections: int | None = None,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Chain:
    r"""Build a convolution of sequences or images, whose mean path is that of `torch.nn.Conv1d` or `Conv2d`.

    Args:
        in_shape: `(channels, *positions)` of the data.
        out_channels: of the result.
        kernel_size: one size, or one for each position axis, as for stride and dilation.
        stride: rows that no window reads are dropped, with a density given all others.
        padding: of zeros (the mean of the noise): one width, one for each axis, `(before, after)` for each axis,
            `"same"`, or `"fit"`: behind, so that the windows fit, as in the paper's models.
        dilation: of the kernel.
        groups: as in torch; each has a linear layer of its own.
        method: parametrization of the patch's linear layer, see `linear`.
        weight: `(out_channels, channels / groups, *kernel)` to start from exactly.
        bias: `(out_channels,)`, see `linear`.
        reflections: of each rotation of `"householder"`, see `linear`.
        noise: of padding, repetition and added coordinates, `"normal"` or `"uniform"`.
        net_factory: makes the networks of the densities of what is dropped, given the whole result.
        posterior_factory: makes networks for learned noise of repetition and added coordinates.

    Raises:
        ShapeError: if no window fits, or the weight has another shape.
        DomainError: if the weight of a patch does not have full rank.

    Example:
        >>> layer = convolution((1, 28, 28), 4, 2, stride=2)
        >>> layer.likelihood, layer.out_shape((1, 28, 28))
        ('exact', (4, 14, 14))
    """
    dims = count_axes(in_shape)
    kernel, step = per_axis(kernel_size, dims, "kernel_size"), per_axis(stride, dims, "stride")
    spread = per_axis(dilation, dims, "dilation")
    layers: list[Transform] = []
    shape = tuple(in_shape)
    pads = _pads(padding, shape, kernel, step, spread)
    if any(side for pair in pads for side in pair):
        layers.append(Pad(shape, pads, noise=noise))
        shape = layers[-1].out_shape(shape)
    densities: dict[str, Any] = {"noise": noise, "net_factory": net_factory, "posterior_factory": posterior_factory}
    if any(n > 1 for n in (*kernel, *step)):
        layers.append(Unfold(shape, kernel, stride=step, dilation=spread, **densities))
        shape = layers[-1].out_shape(shape)
    densities["net_factory"] = net_factory or density_nets(dims, kernel_size=3 if max(shape[1:]) > 1 else 1)
    matrix = None if weight is None else weight.detach().reshape(out_channels, -1)
    settings = {"method": method, "reflections": reflections, **densities}
    layers.append(_grouped_linear(shape[0], out_channels, groups, matrix, bias, **settings))
    return chain_of(layers, "convolution")


def transposed_convolution(
    in_shape: Shape,
    out_channels: int,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: LinearMethod = "cayley",
    weight: Tensor | None = None,
    bias: Tensor | bool = True,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Chain:
    r"""Build a transposed convolution, whose mean path is that of `torch.nn.ConvTranspose1d` or `ConvTranspose2d`.

    Args:
        in_shape: `(channels, *positions)` of the data.
        out_channels: of the result.
        kernel_size: one size, or one for each position axis, as for the next four.
        stride: distance of the patches in the result; where it is larger than the kernel there is noise between them.
        padding: positions cut off on all sides; they get a density given the rest.
        output_padding: positions of the last ones that are kept after all.
        dilation: of the kernel.
        groups: as in torch.
        method: parametrization of the linear layer at each position, see `linear`.
        weight: `(channels, out_channels / groups, *kernel)` to start from exactly.
        bias: `(out_channels,)` to start from.
        noise: of added coordinates, `"normal"` or `"uniform"`.
        net_factory: makes the networks of the densities of what is dropped.
        posterior_factory: makes networks for learned noise.
    """
    dims = count_axes(in_shape)
    kernel, step = per_axis(kernel_size, dims, "kernel_size"), per_axis(stride, dims, "stride")
    spread = per_axis(dilation, dims, "dilation")
    cut, more = per_axis(padding, dims, "padding", least=0), per_axis(output_padding, dims, "output_padding", least=0)
    patch = out_channels * torch.Size(kernel).numel()
    matrix = None
    if weight is not None:
        matrix = weight.detach().reshape(groups, in_shape[0] // groups, -1).mT.reshape(patch, -1)
    net_factory = net_factory or density_nets(dims)
    densities: dict[str, Any] = {"noise": noise, "net_factory": net_factory, "posterior_factory": posterior_factory}
    layers: list[Transform] = [
        _grouped_linear(in_shape[0], patch, groups, matrix, bias=False, method=method, **densities)
    ]
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(in_shape[1:], step, spread, kernel, strict=True)]
    shape = (out_channels, *full)
    if any(n > 1 for n in (*kernel, *step)):
        layers.append(FoldSum(shape, kernel, stride=step, dilation=spread, net_factory=net_factory))
    layers += _trim(shape, cut, more, noise, net_factory)
    if isinstance(bias, Tensor) or bias:
        shift = bias.detach().clone() if isinstance(bias, Tensor) else torch.zeros(out_channels)
        layers.append(ChannelAffine(torch.ones_like(shift), shift))
    return chain_of(layers, "transposed_convolution")


def _trim(shape: Shape, cut: Shape, more: Shape, noise: NoiseName, net_factory: NetFactory) -> list[Transform]:
    """Cut positions off on all sides but keep some of the last ones, or add them where there are none to keep."""
    layers: list[Transform] = []
    crops = [(c, max(c - m, 0)) for c, m in zip(cut, more, strict=True)]
    if any(side for pair in crops for side in pair):
        layers.append(Crop(shape, crops, net_factory=net_factory))
        shape = layers[-1].out_shape(shape)
    pads = [(0, max(m - c, 0)) for c, m in zip(cut, more, strict=True)]
    if any(side for pair in pads for side in pair):
        layers.append(Pad(shape, pads, noise=noise))
    return layers


def _grouped_linear(
    in_channels: int,
    out_channels: int,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | bool,  # noqa: FBT001
    **settings: Any,
) -> Transform:
    """Build one `linear` layer with these settings, or one for each group of channels."""
    in_channels, out_channels, groups = check_groups(in_channels, out_channels, groups)
    before, after = in_channels // groups, out_channels // groups
    weights = [None] * groups if weight is None else weight.chunk(groups)
    biases = bias.chunk(groups) if isinstance(bias, Tensor) else [bias] * groups
    parts = [linear(before, after, weight=w, bias=b, **settings) for w, b in zip(weights, biases, strict=True)]
    return parts[0] if groups == 1 else Parallel(parts, [before] * groups, [after] * groups)


def _pads(padding: Padding, in_shape: Shape, kernel: Shape, stride: Shape, dilation: Shape) -> Sides:
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ConfigError("padding='same' needs stride one, as in torch.")
        return [((r - 1) // 2, r - 1 - (r - 1) // 2) for r in reach]
    if padding == "fit":
        return [(0, r - n if n < r else -(n - r) % s) for n, r, s in zip(in_shape[1:], reach, stride, strict=True)]
    if isinstance(padding, str):
        raise ConfigError(unknown_word("padding", padding, ("same", "fit")))
    dims = len(kernel)
    if isinstance(padding, int) or all(isinstance(side, int) for side in padding):
        return [(side, side) for side in per_axis(padding, dims, "padding", least=0)]  # pyright: ignore[reportArgumentType]
    return [(before, after) for before, after in padding]  # pyright: ignore[reportGeneralTypeIssues]
