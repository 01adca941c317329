r"""Pooling and nearest-neighbour upsampling with a likelihood.

Pooling first gathers its windows into channels (`Unfold`: exact if they do not overlap, a bound if they do) and then
reduces each window to one element (`MaxOfPatches`, `MeanOfPatches`). Both are exact: given the element `z` that a
window of entries `x` becomes,

    maximum:  log p(x) = log p(z) + log p(place of the maximum | z) + sum over the others of log p(z - x_j | z)
    average:  log p(x) = log p(z) + (log n) / 2 - log(divisor) + log p(x - mean(x) | z).

Positions that PyTorch pads with are new elements here (`Pad`), which no maximum and no average looks at; their own
density takes back what they cost.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from likelify.distributions.normal import LOG_SQRT_2PI, limit_log_scale, normal_log_prob
from likelify.errors import ConfigError, ShapeError
from likelify.names import NoiseName
from likelify.nets import NetFactory
from likelify.nets.density import read_net
from likelify.shapes import Shape, along, per_axis
from likelify.structure import ContextLike, as_context, sum_items
from likelify.support import Interval, check_sample
from likelify.transforms.core import Chain, Transform, chain_of
from likelify.transforms.inverted import Inverse
from likelify.transforms.reshape import Reshape, Squeeze
from likelify.transforms.surjections.copy_pattern import count_axes
from likelify.transforms.surjections.copying import Repeat, Unfold
from likelify.transforms.surjections.dimension import Pad


class Pooling(Transform, ABC):
    """The common part of `MaxOfPatches` and `MeanOfPatches`: windows in channels, some of whose entries may not count.

    Entry `j` of channel `c` is channel `c size + j`. Entries outside `valid` are normal with mean zero and a scale
    that is trained for each channel.

    Args:
        channels: of the latent.
        size: entries of a window.
        valid: which entries count, boolean `(size, *positions)`; all by default.
        net_factory: makes a network that reads the latent and gives `(rows, channels (size + 1), *positions)`: a value
            for each entry, then for each channel the log of a factor on its scale (kept within +-3 by
            `3 tanh(. / 3)`). Without one, values trained for each channel serve all windows.
    """

    joins_condition = True

    random_inverse = True
    valid: Tensor | None
    # How many entries of each window count.
    counts: Tensor

    def __init__(self, channels: int, size: int, valid: Tensor | None, net_factory: NetFactory | None) -> None:
        super().__init__()
        if channels < 1 or size < 1:
            raise ConfigError(f"{type(self).__name__} needs channels and entries, got {channels} and {size}.")
        self.channels, self.size = channels, size
        if valid is not None and bool(valid.all()):
            valid = None
        if valid is not None and (len(valid) != size or not bool(valid.any(0).all())):
            raise ShapeError(f"Each window needs {size} entries, of which at least one counts.")
        positions = (...,) if valid is None else tuple(valid.shape[1:])
        self.takes, self.gives = (channels * size, *positions), (channels, *positions)
        self.register_buffer("valid", valid, persistent=False)
        counts = torch.as_tensor(size if valid is None else valid.sum(0), dtype=torch.get_default_dtype())
        self.register_buffer("counts", counts, persistent=False)
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.log_outside = None if valid is None else nn.Parameter(torch.zeros(channels))
        self.net = None if net_factory is None else net_factory(channels, channels * (size + 1))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Reduce the windows; the contribution is the log-density of what they lose."""
        t = self._windows(x)
        z, place = self._reduce(t)
        return z, self._contribution(t, z, place, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw what the windows lost; the context's temperature acts on it."""
        t, place = self._draw(z, context, as_context(context).temperature)
        return t.flatten(1, 2), -self._contribution(t, z, place, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Reduce the windows."""
        return self._reduce(self._windows(x))[0]

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Fill the windows with the likeliest values."""
        return self._draw(z, context, 0.0)[0].flatten(1, 2)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape with one element for each window."""
        return (self.channels, *in_shape[1:])

    @abstractmethod
    def _reduce(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent of windows `(rows, channels, size, *positions)`, and the place that is chosen, if any."""

    @abstractmethod
    def _lost(self, t: Tensor, z: Tensor, place: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density of what each window loses, Jacobian included, `(rows, channels, *positions)`."""

    @abstractmethod
    def _draw(self, z: Tensor, context: ContextLike, temperature: float) -> tuple[Tensor, Tensor]:
        """Draw windows, and the place that is chosen in them, or nothing."""

    def _contribution(self, t: Tensor, z: Tensor, place: Tensor, context: ContextLike) -> Tensor:
        contribution = sum_items(self._lost(t, z, place, context), context)
        if self.valid is None or self.log_outside is None:
            return contribution
        log_scale = along(self.log_outside, t.ndim)
        outside = normal_log_prob(t, torch.zeros_like(log_scale), log_scale)
        return contribution + sum_items(outside.masked_fill(self.valid, 0.0), context)

    def _fill_outside(self, t: Tensor, temperature: float) -> Tensor:
        """Draw the entries that do not count."""
        if self.valid is None or self.log_outside is None:
            return t
        noise = temperature * along(self.log_outside, t.ndim).exp() * torch.randn_like(t)
        return torch.where(self.valid, t, noise)

    def _windows(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.channels, self.size))

    def _read(self, z: Tensor, context: ContextLike) -> tuple[Tensor | None, Tensor]:
        """Return the network's value for each entry `(rows, channels, size, *positions)`, and the log scales."""
        log_scale = along(self.log_scale, z.ndim)[None]
        if self.net is None:
            return None, log_scale
        read = read_net(self.net, z, context, self.channels * (self.size + 1))
        entries, factor = read.split([self.channels * self.size, self.channels], 1)
        return entries.unflatten(1, (self.channels, self.size)), log_scale + limit_log_scale(factor)

    def _mask(self, t: Tensor, value: float) -> Tensor:
        return t if self.valid is None else t.masked_fill(~self.valid, value)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.channels}, size={self.size}" + ("" if self.valid is None else ", partly valid")


class MaxOfPatches(Pooling):
    r"""The largest entry of each window: `(rows, channels size, *positions)` to `(rows, channels, *positions)`; exact.

    Contribution: `log p(place | z) + sum over the others of -log s - (z - x_j) / s`: a categorical place of the maximum
    and exponential distances below it. `inverse` draws both, so nothing exceeds `z`
    (Nielsen et al. 2020, section 3.2).

    Args:
        channels: of the latent.
        size: entries of a window; entry `j` of channel `c` is channel `c size + j`, as `Unfold` gives it.
        valid: which entries count, boolean `(size, *positions)`; all by default.
        net_factory: makes a network that reads log-odds of the places and scales off the latent, see `Pooling`.

    Example:
        >>> MaxOfPatches(1, 4)(torch.tensor([[0.0, 3.0, 2.0, 1.0]]))[0]
        tensor([[3.]])
    """

    def __init__(
        self, channels: int, size: int, *, valid: Tensor | None = None, net_factory: NetFactory | None = None
    ) -> None:
        super().__init__(channels, size, valid, net_factory)
        self.log_odds = nn.Parameter(torch.zeros(channels, size))

    def carry(self, support: Interval | None) -> Interval | None:
        """Return the same: the largest entry is one of them."""
        return support

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set log-odds and scales of the channels from the sample."""
        check_sample(x, self)
        with torch.no_grad():
            t = self._windows(x)
            z, place = self._reduce(t)
            chosen = (torch.arange(self.size, device=x.device) == place.unsqueeze(-1)).double()
            # Half an observation of each place keeps the odds finite.
            counts = chosen.movedim(1, -2).flatten(0, -3).sum(0) + 0.5
            self.log_odds.copy_((counts / counts.mean(1, keepdim=True)).log())
            below = self._mask(z.unsqueeze(2) - t, 0.0).sum(2).transpose(0, 1).flatten(1).mean(1)
            others = (self.counts - 1).to(x).mean()
            self.log_scale.copy_(torch.where(below > 0, (below / others.clamp_min(1e-6)).log(), self.log_scale))
        return super().initialize(x, context)

    def _reduce(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._mask(t, -math.inf).max(2)

    def _lost(self, t: Tensor, z: Tensor, place: Tensor, context: ContextLike) -> Tensor:
        log_odds, log_scale = self._moments(z, context)
        chosen = log_odds.expand_as(t).gather(2, place.unsqueeze(2)).squeeze(2)
        # The distance of the maximum itself is zero, so it only counts in the constant.
        below = self._mask(z.unsqueeze(2) - t, 0.0).sum(2)
        return chosen - (self.counts - 1) * log_scale - below * (-log_scale).exp()

    def _draw(self, z: Tensor, context: ContextLike, temperature: float) -> tuple[Tensor, Tensor]:
        log_odds, log_scale = self._moments(z, context)
        shape = (*z.shape[:2], self.size, *z.shape[2:])
        surprise, noise = torch.empty(2, *shape, dtype=z.dtype, device=z.device).exponential_()
        # The largest of log-odds with Gumbel noise follows them (Gumbel 1954); noise times T divides them by T.
        place = (log_odds.detach() - temperature * noise.log()).argmax(2)
        t = z.unsqueeze(2) - temperature * log_scale.exp().unsqueeze(2) * surprise
        t = t.scatter(2, place.unsqueeze(2), z.unsqueeze(2))
        return self._fill_outside(t, temperature), place

    def _moments(self, z: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of the places and the log scales of the distances."""
        odds, log_scale = self._read(z, context)
        trained = self.log_odds.reshape(self.channels, self.size, *(1,) * (z.ndim - 2))
        odds = trained.unsqueeze(0) if odds is None else trained + odds
        return self._mask(odds, -math.inf).log_softmax(2), log_scale


class MeanOfPatches(Pooling):
    r"""The average of each window: `(rows, channels size, *positions)` to `(rows, channels, *positions)`; exact.

    With `n` entries that count and residuals `r = x - sum(x) / n`, `z = sum(x) / divisor` and the contribution is

        1/2 log n - log divisor - (n - 1) (log s + 1/2 log 2 pi) - |r - m|^2 / (2 s^2):

    `sum(x) / sqrt n` is an orthonormal coordinate, and the residuals are normal in the `n - 1` dimensions orthogonal to
    it, with mean `m(z)`, of which only the part orthogonal to a constant matters. `inverse` draws the residuals.

    Args:
        channels: of the latent.
        size: entries of a window; entry `j` of channel `c` is channel `c size + j`, as `Unfold` gives it.
        valid: which entries count, boolean `(size, *positions)`; all by default.
        divisor: what the sum is divided by, one value or `(*positions)`; the number of entries that count by default.
        net_factory: makes a network that reads means of the entries and scales off the latent, see `Pooling`.

    Example:
        >>> MeanOfPatches(1, 4)(torch.tensor([[0.0, 3.0, 2.0, 1.0]]))[0]
        tensor([[1.5000]])
    """

    divisor: Tensor

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        valid: Tensor | None = None,
        divisor: Tensor | float | None = None,
        net_factory: NetFactory | None = None,
    ) -> None:
        super().__init__(channels, size, valid, net_factory)
        divisor = torch.as_tensor(self.counts if divisor is None else divisor, dtype=torch.get_default_dtype())
        if not bool((divisor > 0).all()):
            raise ConfigError("MeanOfPatches needs a positive divisor.")
        self.register_buffer("divisor", divisor, persistent=False)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the scales of the channels from the sample."""
        check_sample(x, self)
        with torch.no_grad():
            square = self._residuals(self._windows(x)).square().sum(2).transpose(0, 1).flatten(1).mean(1)
            free = (self.counts - 1).to(x).mean()
            self.log_scale.copy_(torch.where(square > 0, 0.5 * (square / free.clamp_min(1e-6)).log(), self.log_scale))
        return super().initialize(x, context)

    def _reduce(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._mask(t, 0.0).sum(2) / self.divisor, t.new_empty(0)

    def _lost(self, t: Tensor, z: Tensor, place: Tensor, context: ContextLike) -> Tensor:
        loc, log_scale = self._read(z, context)
        residuals = self._residuals(t if loc is None else t - loc)
        counts = self.counts.to(z.dtype)
        constant = 0.5 * counts.log() - self.divisor.log() - (counts - 1) * (log_scale + LOG_SQRT_2PI)
        return constant - 0.5 * residuals.square().sum(2) * (-2 * log_scale).exp()

    def _draw(self, z: Tensor, context: ContextLike, temperature: float) -> tuple[Tensor, Tensor]:
        loc, log_scale = self._read(z, context)
        noise = torch.randn(*z.shape[:2], self.size, *z.shape[2:], dtype=z.dtype, device=z.device)
        moved = temperature * log_scale.exp().unsqueeze(2) * noise
        mean = (z * self.divisor / self.counts).unsqueeze(2)
        t = mean + self._residuals(moved if loc is None else moved + loc)
        return self._fill_outside(t, temperature), t.new_empty(0)

    def _residuals(self, t: Tensor) -> Tensor:
        mean = self._mask(t, 0.0).sum(2) / self.counts
        return self._mask(t - mean.unsqueeze(2), 0.0)


def max_pool(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Chain:
    """Build max pooling, whose mean path is that of `torch.nn.MaxPool1d` and `MaxPool2d`.

    Exact for disjoint windows without padding; otherwise a bound.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows; their size by default.
        padding: on both sides, at most half the window.
        dilation: of the windows.
        ceil_mode: let the last window reach beyond the event.
        noise: of the copies of elements that several windows read, and of the padding: `"normal"` or `"uniform"`.
        net_factory: makes the networks of what is lost, see `MaxOfPatches` and `Unfold`.
        posterior_factory: makes a network for the noise of the copies, see `Unfold`.
    """
    sizes = (kernel_size, stride, padding, dilation)
    densities = {"noise": noise, "net_factory": net_factory, "posterior_factory": posterior_factory}
    layers, inside, _ = _gather_windows(in_shape, *sizes, ceil_mode=ceil_mode, **densities)
    return chain_of(
        [*layers, MaxOfPatches(in_shape[0], len(inside), valid=inside, net_factory=net_factory)], "max_pool"
    )


def average_pool(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: float | None = None,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Chain:
    """Build average pooling, whose mean path is that of `torch.nn.AvgPool1d` and `AvgPool2d`.

    Exact for disjoint windows without padding; otherwise a bound.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows; their size by default.
        padding: on both sides, at most half the window.
        ceil_mode: let the last window reach beyond the event.
        count_include_pad: divide by the size of the window, padding included.
        divisor: divide by this instead.
        noise: of the copies of elements that several windows read, and of the padding: `"normal"` or `"uniform"`.
        net_factory: makes the networks of what is lost, see `MeanOfPatches` and `Unfold`.
        posterior_factory: makes a network for the noise of the copies, see `Unfold`.
    """
    densities = {"noise": noise, "net_factory": net_factory, "posterior_factory": posterior_factory}
    layers, inside, padded = _gather_windows(
        in_shape, kernel_size, stride, padding, 1, ceil_mode=ceil_mode, **densities
    )
    by = (padded if count_include_pad else inside).sum(0) if divisor is None else divisor
    pool = MeanOfPatches(in_shape[0], len(inside), valid=inside, divisor=by, net_factory=net_factory)
    return chain_of([*layers, pool], "average_pool")


def global_average_pool(in_shape: Shape, *, net_factory: NetFactory | None = None) -> Chain:
    """Build the average of each channel, `(c, *positions)` to `(c, 1, ...)`: `torch.nn.AdaptiveAvgPool2d(1)`; exact.

    Args:
        in_shape: `(channels, *positions)`.
        net_factory: makes the network of what is lost, see `MeanOfPatches`.
    """
    gather, size = _gather_positions(in_shape)
    return chain_of([gather, MeanOfPatches(in_shape[0], size, net_factory=net_factory)], "global_average_pool")


def global_max_pool(in_shape: Shape, *, net_factory: NetFactory | None = None) -> Chain:
    """Build the maximum of each channel, `(c, *positions)` to `(c, 1, ...)`: `torch.nn.AdaptiveMaxPool2d(1)`; exact.

    Args:
        in_shape: `(channels, *positions)`.
        net_factory: makes the network of what is lost, see `MaxOfPatches`.
    """
    gather, size = _gather_positions(in_shape)
    return chain_of([gather, MaxOfPatches(in_shape[0], size, net_factory=net_factory)], "global_max_pool")


def upsample_nearest(
    in_shape: Shape,
    factor: int | Sequence[int],
    *,
    noise: NoiseName = "normal",
    posterior_factory: NetFactory | None = None,
) -> Chain:
    """Build nearest-neighbour upsampling by whole factors, as `torch.nn.Upsample(scale_factor=factor)`; a bound.

    The inverse is the average of each block.

    Args:
        in_shape: `(channels, *positions)`.
        factor: one for all position axes, or one for each.
        noise: what makes the copies differ, `"normal"` or `"uniform"`.
        posterior_factory: makes a network for the noise, see `Repeat`.
    """
    factors = per_axis(factor, count_axes(in_shape), "factor")
    copies = Repeat(in_shape[0], math.prod(factors), noise=noise, posterior_factory=posterior_factory)
    return Chain([copies, Inverse(Squeeze(factors))])


def _gather_windows(
    in_shape: Shape,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    *,
    ceil_mode: bool,
    **densities: Any,
) -> tuple[list[Transform], Tensor, Tensor]:
    """Return layers that gather windows into channels, and which entries are data, and which data or padding."""
    axes = count_axes(in_shape)
    kernel = per_axis(kernel_size, axes, "kernel_size")
    steps = kernel if stride is None else per_axis(stride, axes, "stride")
    padding, dilation = per_axis(padding, axes, "padding", least=0), per_axis(dilation, axes, "dilation")
    pads, inside, padded = [], [], []
    for n, k, s, p, d in zip(in_shape[1:], kernel, steps, padding, dilation, strict=True):
        if 2 * p > k:
            raise ShapeError(f"Pooling needs a padding of at most half the window, got padding {p} for size {k}.")
        places = _places(n, k, s, p, d, ceil_mode=ceil_mode)
        pads.append((p, max(0, int(places[-1, -1]) + 1 - n)))
        inside.append((places >= 0) & (places < n))
        padded.append((places >= -p) & (places < n + p))
    layers: list[Transform] = []
    if any(side for pair in pads for side in pair):
        layers.append(Pad(in_shape, pads, noise=densities["noise"]))
        in_shape = layers[0].out_shape(in_shape)
    layers.append(Unfold(in_shape, kernel, stride=steps, dilation=dilation, **densities))
    return layers, _outer(inside), _outer(padded)


def _places(n: int, k: int, s: int, p: int, d: int, *, ceil_mode: bool) -> Tensor:
    """Return where the entries of the windows along an axis are read, `(k, windows)`."""
    room = n + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (count - 1) * s >= n + p:
        # PyTorch drops a window that would start in the padding behind.
        count -= 1
    if (room < 0 and not ceil_mode) or count < 1:
        raise ShapeError(f"A window of size {k} with dilation {d} does not fit into {n} positions padded by {p}.")
    return torch.arange(count) * s - p + d * torch.arange(k)[:, None]


def _outer(masks: list[Tensor]) -> Tensor:
    """Join masks `(k, windows)` of the axes to one `(prod k, *windows)`."""
    joined = masks[0]
    for mask in masks[1:]:
        view = mask.reshape(1, mask.shape[0], *(1,) * (joined.ndim - 1), mask.shape[1])
        joined = (joined.unsqueeze(1).unsqueeze(-1) & view).flatten(0, 1)
    return joined


def _gather_positions(in_shape: Shape) -> tuple[Reshape, int]:
    """Return a layer that makes all positions of a channel one window, and its size."""
    axes, size = count_axes(in_shape), math.prod(in_shape[1:])
    return Reshape(in_shape, (in_shape[0] * size, *(1,) * axes)), size
