"""The axis exponential: long one-dimensional convolutions along the axes of an image, exponentiated in closed form."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, unknown_word
from likelify.linalg.axis_maps import AxisMap, AxisMatrix
from likelify.linalg.bounds import gram_bound, limit_norm, round_off_margin, widest
from likelify.linalg.conv import odd_taps
from likelify.linalg.expm.expansion import on_grid
from likelify.linalg.kronecker import KroneckerSum
from likelify.linalg.toeplitz import Toeplitz
from likelify.shapes import Shape, axis_names, check_sizes, per_axis
from likelify.structure import ContextLike
from likelify.tracing import may_look
from likelify.transforms.exponential.layers import Exponential
from likelify.transforms.exponential.parametrizations import Parametrization, check_limit

# Along an axis of which nothing is known: all taps that there are between 32 positions.
USUAL_TAPS = 63
# Fields of a Kronecker sum.
PARTS = ("first", "second", "third")
# Largest sum of the taps of a filter that whitens; and the share of the layer's limit, if it has one, that it may have,
# so that training can go on in every direction.
LARGEST_START, SHARE_AT_START = 2.0, 0.75


class AxisTaps(Parametrization):
    r"""Build a `KroneckerSum` of Toeplitz matrices from trained taps, a kernel for each axis and group of channels.

    Arguments as in `axis_exponential`; `taps` has a number for each axis. Each kernel is scaled by
    `min(1, limit / bound)`, where `bound` is the sum of the magnitudes of its taps and `limit` an equal share of the
    layer's for each axis; so are matrices on the channels, by the bound of `gram_bound`.
    """

    def __init__(
        self,
        channels: int,
        taps: Shape,
        *,
        groups: int,
        orthogonal: bool = False,
        centre_taps: bool = False,
        channel_factor: bool = False,
        norm_limit: float | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__(context_features)
        self.axes = axis_names(len(taps))
        self.takes, self.channels = (channels, *self.axes), channels
        self.taps, self.groups, self.norm_limit, self.channel_factor = taps, groups, norm_limit, channel_factor
        self.settings = {"symmetry": "skew" if orthogonal else None, "centre_taps": centre_taps}
        self.traceless = orthogonal or not (centre_taps or channel_factor)
        for axis, count in zip(self.axes, taps, strict=True):
            trained = count // 2 if orthogonal else count if centre_taps else count - 1
            # A norm of a few hundredths: near the identity, and no two channels alike.
            self.add(f"taps_{axis}", 0.02 / math.sqrt(count) * torch.randn(groups, trained))
        if channel_factor:
            size = channels // groups
            self.add("matrix", 0.05 / math.sqrt(size) * torch.randn(groups, size, size))

    def start_from(self, x: Tensor) -> None:
        """Set the taps to those that make the elements of each channel independent of one another, as far as they can.

        See `whitening_taps`. An orthogonal layer stays as it is: it cannot make a covariance that of white noise.
        """
        if self._symmetry == "skew":
            return
        for axis, (name, count) in enumerate(zip(self.axes, self.taps, strict=True)):
            most = LARGEST_START if self._share is None else min(LARGEST_START, SHARE_AT_START * self._share)
            found = whitening_taps(x.detach().movedim(axis + 2, -1), count, self.groups, most)
            centre = count // 2
            if not self.settings["centre_taps"]:
                found = torch.cat([found[:, :centre], found[:, centre + 1 :]], -1)
            self.tensor(f"taps_{name}").copy_(found)

    def forward(self, context: ContextLike = None) -> KroneckerSum:
        """Build the map."""
        parts: dict[str, AxisMap] = {}
        for part, axis in zip(PARTS, self.axes, strict=False):
            taps, norm = self._limited(self.value(f"taps_{axis}", context))
            if self._symmetry == "skew":
                taps = torch.cat([-taps.flip(-1), taps], -1)
            parts[part] = Toeplitz(taps, self._symmetry, norm, proved=True, hollow=not self.settings["centre_taps"])
        if self.channel_factor:
            matrix = self.value("matrix", context)
            if self._share is not None:
                matrix = limit_norm(matrix, gram_bound(matrix), self._share)
            parts["channels"] = AxisMatrix(matrix, self._symmetry, self._share, proved=self._share is not None)
        return KroneckerSum(**parts)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.channels}, taps={self.taps}, groups={self.groups}, norm_limit={self.norm_limit}, {self.settings}"

    @property
    def _symmetry(self) -> Literal["skew"] | None:
        return self.settings["symmetry"]

    @property
    def _share(self) -> float | None:
        """What each part may have of the norm limit."""
        return None if self.norm_limit is None else self.norm_limit / (len(self.axes) + self.channel_factor)

    def _limited(self, trained: Tensor) -> tuple[Tensor, float | None]:
        """Scale trained taps down to their share of the limit; return them with a bound of their norm, if one is known.

        Where the taps can be looked at without waiting, those within the limit stay as they are, and what they add up
        to is a better bound than the limit.
        """
        halves = 2 if self._symmetry == "skew" else 1
        if may_look(trained) and trained.numel():
            largest = halves * float(torch.linalg.vector_norm(trained.detach(), 1, -1).amax())
            norm = largest * (1 + round_off_margin(trained.dtype, trained.shape[-1]))
            limit = math.inf if self._share is None else self._share
            if 0 < norm <= limit:
                # On a grid, so that what is planned once for each norm is planned seldom.
                return trained, min(limit, on_grid(norm))
        if self._share is None:
            return trained, None
        return limit_norm(trained, trained.abs().sum(-1), self._share / halves), self._share


def whitening_taps(x: Tensor, count: int, groups: int, most: float) -> Tensor:
    r"""Return taps of filters whose exponentials make white noise of a stationary signal along the last axis.

    A signal with the power spectrum `f` is white behind the filter `f^(-1/2) = exp(-log f / 2)`, so the taps of the
    exponent are minus half the cepstrum: `a_s = -1/2 mean_t log f(t) cos(s t)`, with `a_0 = 0`, which leaves the
    variance alone. For images whose covariance is a product over the axes, the axis exponential with these taps along
    each of them makes all elements of a channel uncorrelated, but for the borders. The spectrum is the mean
    periodogram, which a floor of a thousandth of its mean keeps from zero.

    Args:
        x: `(rows, channels, ..., n)`.
        count: of the taps, an odd number.
        groups: of consecutive channels that share a filter.
        most: largest sum of the magnitudes of the taps of a filter; larger ones are scaled down to it.

    Returns:
        `(groups, count)`, the centre in the middle; zeros for a group that is constant.

    Source:
        Bogert, Healy, Tukey 1963, for the cepstrum; its use here is ours.
    """
    positions = x.shape[-1]
    lines = widest(x).unflatten(1, (groups, -1)).movedim(1, 0).flatten(1, -2)
    lines = lines - lines.mean((1, 2), keepdim=True)
    power = torch.fft.rfft(lines, 2 * positions).abs().square().mean(1)
    mean = power.mean(-1, keepdim=True)
    floored = torch.where(mean > 0, power + 1e-3 * mean, 1.0)
    cepstrum = torch.fft.irfft(floored.log(), 2 * positions)
    taps = cepstrum.new_zeros(groups, count)
    reach = min(count // 2, positions - 1)
    for side in (1, -1):
        places = count // 2 + side * torch.arange(1, reach + 1, device=x.device)
        taps[:, places] = -cepstrum[:, 1 : reach + 1] / 2
    total = taps.abs().sum(-1, keepdim=True)
    return taps * (most / total.clamp_min(most))


def axis_exponential(
    channels: int,
    taps: Literal["all"] | int | Sequence[int] = "all",
    *,
    positions: int | Sequence[int] | None = None,
    dims: int = 2,
    groups: int | None = None,
    orthogonal: bool = False,
    centre_taps: bool = False,
    channel_factor: bool = False,
    norm_limit: float | None = 4.0,
    context_features: int = 0,
    tol: float | None = None,
) -> Exponential:
    r"""Build an axis exponential: it mixes every row and every column of an image, over any distance.

    `z_c = exp(A_c) x_c exp(B_c)^T` for each channel c, where `A_c` and `B_c` are zero-padded convolutions along the
    height and the width, as Toeplitz matrices `A_c[i, j] = a_c[j - i]`. This is the exponential of their Kronecker sum,
    the convolution with a cross of the two kernels, by a small matrix exponential for each axis and a matrix product.
    The log-determinant is `h w sum_c (a_c[0] + b_c[0])`: exactly zero without centre taps, as is the default. Put a
    `Conv1x1` before it, which mixes the channels.

    Args:
        channels: of the images `(rows, channels, h, w)`; any image size.
        taps: of the kernels: an odd number, or one for each axis; `"all"` reaches from one border to the other:
            `2 n - 1` taps along an axis of n positions. The number is fixed when the layer is built, by `positions`;
            without them `"all"` is 63 taps, which are all of up to 32 positions. Larger images then are mixed over
            distances up to 31, and on smaller ones the outer taps do nothing.
        positions: `(h, w)` of the images, for `"all"`; a number stands for each axis. The layer takes other sizes too.
            Not to be given with numbers of taps, which do not depend on it.
        dims: 1 for sequences `(rows, channels, w)`, 2 for images, 3 for volumes.
        groups: of consecutive channels that share their kernels; by default each channel has its own.
        orthogonal: train skew kernels, `a[-s] = -a[s]`: the layer keeps the norm of every image.
        centre_taps: train the centre taps too, which scale each channel, as an `ActNorm` does.
        channel_factor: add a trained matrix on the channels of each group to the sum: the layer then mixes channels as
            well. Needs groups of several channels; by default there is one.
        norm_limit: limit of a bound of the norm, of which each axis (and the matrices on the channels) has an equal
            share: for images each kernel's taps have magnitudes that add up to 2 at most by default. Training on
            photographs stays below that. With None the norm is free, and has to be looked at in each call, which
            `torch.compile` and `torch.func` cannot do.
        context_features: size of the condition; with one, each row has kernels of its own, which depend linearly on
            the condition `(rows, context_features)` given as context.
        tol: as in `exp_action`.

    Raises:
        ConfigError: for numbers of channels, groups or dimensions that do not fit, an unknown word for `taps`,
            `positions` beside numbers of taps, centre taps of an orthogonal layer.
        ShapeError: for an even number of taps.

    Example:
        >>> layer = axis_exponential(3, positions=(8, 8), orthogonal=True)
        >>> x = torch.randn(5, 3, 8, 8)
        >>> z, log_det = layer(x)
        >>> torch.allclose(z.square().sum(), x.square().sum()), float(log_det.abs().sum())
        (True, 0.0)
    """
    check_sizes(channels=channels, dims=dims)
    check_limit(norm_limit)
    groups = _check_groups(channels, groups, channel_factor=channel_factor)
    if orthogonal and centre_taps:
        raise ConfigError("An orthogonal layer has no centre taps: a skew kernel is zero there. Leave centre_taps out.")
    parametrization = AxisTaps(
        channels,
        _taps(taps, positions, dims),
        groups=groups,
        orthogonal=orthogonal,
        centre_taps=centre_taps,
        channel_factor=channel_factor,
        norm_limit=norm_limit,
        context_features=context_features,
    )
    return Exponential(parametrization, tol=tol)


def _check_groups(channels: int, groups: int | None, *, channel_factor: bool) -> int:
    groups = (1 if channel_factor else channels) if groups is None else groups
    check_sizes(groups=groups)
    if channels % groups:
        raise ConfigError(f"{channels} channels cannot be split into {groups} groups of the same size.")
    if channel_factor and groups == channels > 1:
        raise ConfigError(
            "channel_factor mixes the channels that share their kernels, and with groups=channels none do. Give fewer "
            "groups."
        )
    return groups


def _taps(taps: str | int | Sequence[int], positions: int | Sequence[int] | None, dims: int) -> Shape:
    if not isinstance(taps, str):
        if positions is not None:
            raise ConfigError(f"positions are for taps='all'; with taps={taps!r} the kernels fit images of any size.")
        return odd_taps(taps, dims, "taps")
    if taps != "all":
        raise ConfigError(unknown_word("word for taps", taps, ["all"]))
    if positions is None:
        return odd_taps(USUAL_TAPS, dims)
    return odd_taps([2 * size - 1 for size in per_axis(positions, dims, "positions")], dims)
