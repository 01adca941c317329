r"""Layers that repeat elements, and their duals that add elements up.

An element with `N` copies is carried into `R^N` along the diagonal; orthogonal noise `u` (of `N - 1` dimensions) makes
that a bijection of `(x, u)`:

    t = (x, ..., x) + u,   x = mean(t),   log p(x) >= E[log p(t) + 1/2 log N - log q(u | x)].

The dual adds the copies up, `z = sum(t)`; what is orthogonal to the diagonal gets a density given `z`, which is exact:

    log p(t) = log p(z) + 1/2 log N + log p(u | z),   u = t - mean(t).

For normal noise no basis of the orthogonal complement is needed: a standard normal draw for each copy, less the mean
over the copies, is standard normal there (Mate et al. 2022, section 3.2 and figure 5, draw a direction and a radius).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likelify.distributions.noise import check_noise
from likelify.distributions.normal import LOG_SQRT_2PI, limit_log_scale
from likelify.names import NoiseName
from likelify.nets import NetFactory
from likelify.nets.density import read_net
from likelify.shapes import Shape, along
from likelify.structure import ContextLike, as_context, sum_constant, sum_items
from likelify.support import Interval, check_sample
from likelify.transforms.core import Transform
from likelify.transforms.surjections.copy_pattern import CopyPattern, EqualCopies, window_copies
from likelify.transforms.surjections.dimension import MissingElements


class OrthogonalDensity(nn.Module):
    r"""The density of what is orthogonal to repeated elements, given these: normal, or uniform in a ball.

    With `N` copies of an element, scale `A` and `d = N - 1`, `-log q(u) = d (log(2 pi) / 2 + log A) + |u|^2 / (2 A^2)`;
    or `d/2 log pi - log Gamma(d/2 + 1) + d log A` for `|u| <= A`.

    Args:
        pattern: what is repeated where.
        noise: `"normal"` or `"uniform"`.
        net_factory: makes a network that reads the copies `(rows, channels copies, ...)` and gives twice as many
            outputs: means, and log scales that are averaged over the copies (kept within +-3). Without one the mean is
            zero, and the scales are trained, one for each channel.
    """

    joins_condition = True

    def __init__(
        self, pattern: CopyPattern, noise: NoiseName = "normal", net_factory: NetFactory | None = None
    ) -> None:
        super().__init__()
        check_noise(noise)
        self.pattern, self.noise = pattern, noise
        self.log_scale = nn.Parameter(torch.zeros(pattern.channels))
        size = pattern.channels * pattern.copies
        self.net = None if net_factory is None else net_factory(size, 2 * size)

    def draw(self, x: Tensor, context: ContextLike, temperature: float) -> tuple[Tensor, Tensor]:
        """Draw noise for the copies of `x`, and return its log-density `(items,)`; temperature zero gives the mean."""
        loc, log_scale = self._moments(x, context)
        u = self._noise(x)
        moved = temperature * self.pattern.copy(log_scale.exp().expand(x.shape)) * u
        return moved if loc is None else moved + loc, self._log_density(u * temperature, loc, log_scale, x, context)

    def mean(self, x: Tensor, context: ContextLike) -> Tensor:
        """Return the mean of the noise for the copies of `x`."""
        loc, _ = self._moments(x, context)
        return torch.zeros_like(self.pattern.copy(x)) if loc is None else loc

    def log_prob(self, u: Tensor, x: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density `(items,)` of `u`, which is orthogonal to repeated elements, given these."""
        loc, log_scale = self._moments(x, context)
        centred = u if loc is None else u - loc
        scaled = centred * self.pattern.copy((-log_scale).exp().expand(x.shape))
        return self._log_density(scaled, loc, log_scale, x, context)

    def initialize(self, u: Tensor, x: Tensor) -> None:
        """Set the scale of each channel to that of a sample."""
        check_sample(u, self)
        with torch.no_grad():
            spread = self.pattern.total(u * u).transpose(0, 1).flatten(1).mean(1)
            size = (self.pattern.counts - 1).expand(x.shape[2:]).mean() if x.ndim > 2 else self.pattern.counts - 1
            self.log_scale.copy_(0.5 * (spread / size.clamp_min(1e-3)).clamp_min(1e-6).log())

    def _moments(self, x: Tensor, context: ContextLike) -> tuple[Tensor | None, Tensor]:
        log_scale = along(self.log_scale, x.ndim)
        if self.net is None:
            return None, log_scale
        copies = self.pattern.copy(x)
        loc, raw = read_net(self.net, copies, context, 2 * copies.shape[1]).chunk(2, dim=1)
        return self.pattern.project(loc), log_scale + limit_log_scale(self.pattern.mean(raw))

    def _noise(self, x: Tensor) -> Tensor:
        like = self.pattern.copied_shape(tuple(x.shape[1:]))
        u = self.pattern.project(torch.randn(len(x), *like, dtype=x.dtype, device=x.device))
        if self.noise == "normal":
            return u
        # A direction of normal noise is uniform on the sphere; in d dimensions the radius is a d-th root.
        length = self.pattern.total(u * u).sqrt()
        radius = torch.rand_like(x) ** (1 / (self.pattern.counts - 1).clamp_min(1))
        return u * self.pattern.copy(radius / length.clamp_min(torch.finfo(x.dtype).tiny))

    def _log_density(self, u: Tensor, loc: Tensor | None, log_scale: Tensor, x: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density of `u`, in units of the scale about the mean."""
        free = self.pattern.counts - 1
        constant = -(free * log_scale).expand(x.shape)
        if self.noise == "normal":
            return sum_items(constant - free * LOG_SQRT_2PI, context) - 0.5 * sum_items(u * u, context)
        volume = 0.5 * free * math.log(math.pi) - torch.lgamma(0.5 * free + 1)
        # What is left of a copy after the means are taken off has the rounding of the copy, and theirs.
        sizes = x.detach().abs() if loc is None else x.detach().abs() + self.pattern.total(loc.detach().abs())
        slack = 100 * torch.finfo(u.dtype).eps * (1 + sizes * (-log_scale.detach()).exp())
        inside = self.pattern.total(u * u).sqrt() <= 1 + slack
        return sum_items(torch.where(inside | (free == 0), constant - volume, -math.inf), context)


class _Copying(Transform):
    """The common part of `Repeat` and `Unfold`: copy and add orthogonal noise, or average."""

    inverse_check = None

    def __init__(
        self,
        pattern: CopyPattern,
        noise: OrthogonalDensity | None,
        rest: MissingElements | None = None,
    ) -> None:
        super().__init__()
        self.takes, self.gives = pattern.original, pattern.copied
        self.pattern, self.noise, self.rest = pattern, noise, rest
        self.random_forward = noise is not None
        self.random_inverse = rest is not None

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Copy and add noise."""
        t, contribution = self.pattern.copy(x), _half_log_counts(self.pattern, x, context)
        if self.noise is not None:
            u, log_q = self.noise.draw(x, context, 1.0)
            t, contribution = t + u, contribution - log_q
        if self.rest is not None:
            contribution = contribution + self.rest.log_prob(x, context)
        return t, contribution

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Average; what was never copied is drawn."""
        x = self.pattern.mean(z)
        if self.rest is not None:
            x = self.rest.fill(x, context)
        contribution = -_half_log_counts(self.pattern, x, context)
        if self.noise is not None:
            contribution = contribution + self.noise.log_prob(z - self.pattern.copy(x), x, context)
        if self.rest is not None:
            contribution = contribution - self.rest.log_prob(x, context)
        return x, contribution

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Copy."""
        return self.pattern.copy(x)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Average; what was never copied gets its mean."""
        x = self.pattern.mean(z)
        return x if self.rest is None else self.rest.fill(x, context, temperature=0.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the density of what is never copied."""
        if self.rest is not None:
            self.rest.initialize(x, context)
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the copies."""
        return self.pattern.copied_shape(in_shape)


class Repeat(_Copying):
    r"""Repeat each element: `(rows, c, ...)` to `(rows, c copies, ...)`, with orthogonal noise; a bound.

    The inverse is the mean of the copies.

    Args:
        channels: c.
        copies: N; copy `j` of channel `i` becomes channel `i N + j`.
        blocks: make copy `j` of channel `i` channel `j c + i`: whole events one behind the other.
        noise: `"normal"` or `"uniform"` in a ball; its scale is trained.
        posterior_factory: makes a network for a learned mean and scale of the noise given `x`, see
            `OrthogonalDensity`.

    Source:
        Mate et al. 2022, section 3.2 (coordinate repetition).

    Example:
        >>> Repeat(2, 2).mean_forward(torch.tensor([[1.0, 2.0]]))
        tensor([[1., 1., 2., 2.]])
    """

    def __init__(
        self,
        channels: int,
        copies: int,
        *,
        blocks: bool = False,
        noise: NoiseName = "normal",
        posterior_factory: NetFactory | None = None,
    ) -> None:
        pattern = EqualCopies(channels, copies, blocks=blocks)
        density = OrthogonalDensity(pattern, noise, posterior_factory) if copies > 1 else None
        super().__init__(pattern, density)


class Unfold(_Copying):
    r"""Gather sliding windows into channels, `(c, *positions)` to `(c prod(kernel), *out_positions)`.

    Elements that several windows read are repeated with orthogonal noise, which makes the layer a bound; without
    overlap it is exact. Elements that no window reads get a density given all others, and are drawn in the inverse.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows.
        dilation: of the windows.
        noise: `"normal"` or `"uniform"` in a ball; its scale is trained.
        net_factory: makes the network of `MissingElements`.
        posterior_factory: makes a network for a learned mean and scale of the noise, see `OrthogonalDensity`.

    Raises:
        ShapeError: if no window fits.

    Source:
        Mate et al. 2022, section 3.2 and appendix B.
    """

    def __init__(
        self,
        in_shape: Shape,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        noise: NoiseName = "normal",
        net_factory: NetFactory | None = None,
        posterior_factory: NetFactory | None = None,
    ) -> None:
        pattern = window_copies(in_shape, kernel_size, stride, dilation)
        density = OrthogonalDensity(pattern, noise, posterior_factory) if pattern.free else None
        rest = None if pattern.missing is None else MissingElements(in_shape, pattern.missing, net_factory)
        super().__init__(pattern, density, rest)


class _Gathering(Transform):
    """The common part of `Sum` and `FoldSum`: add copies up, or draw what is orthogonal to repeated elements."""

    inverse_check = None

    def __init__(self, pattern: CopyPattern, net_factory: NetFactory | None) -> None:
        super().__init__()
        self.takes, self.gives = pattern.copied, pattern.original
        self.pattern = pattern
        self.density = OrthogonalDensity(pattern, "normal", net_factory) if pattern.free else None
        self.random_forward = pattern.missing is not None
        self.random_inverse = self.density is not None
        if pattern.missing is not None:
            self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Add up; positions that nothing reaches get noise."""
        z = self.pattern.total(x)
        contribution = _half_log_counts(self.pattern, z, context)
        if self.density is not None:
            u = x - self._shared(z)
            contribution = contribution + self.density.log_prob(u, z, context)
        missing = self.pattern.missing
        if missing is None:
            return z, contribution
        noise = torch.randn_like(z) * missing
        return z + self.log_scale.exp() * noise, contribution - self._log_filler(noise, missing, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Share each element among its copies and draw what is orthogonal to that."""
        z, contribution = self._reached(z, context)
        x, contribution = self._shared(z), contribution - _half_log_counts(self.pattern, z, context)
        if self.density is None:
            return x, contribution
        u, log_p = self.density.draw(z, context, as_context(context).temperature)
        return x + u, contribution - log_p

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Add up."""
        return self.pattern.total(x)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Share each element among its copies, and add the mean of what is orthogonal."""
        z, _ = self._reached(z, context)
        return self._shared(z) if self.density is None else self._shared(z) + self.density.mean(z, context)

    def _shared(self, z: Tensor) -> Tensor:
        return self.pattern.copy(z / self.pattern.counts)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the scale of what is orthogonal."""
        if self.density is not None:
            z = self.pattern.total(x)
            self.density.initialize(x - self._shared(z), z)
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the sums."""
        return self.pattern.total_shape(in_shape)

    def _reached(self, z: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        """Set to zero what nothing reaches, and return the log-density of the noise that was there."""
        missing = self.pattern.missing
        if missing is None:
            return z, sum_constant(z.new_zeros(()), z, context)
        noise = z * missing * (-self.log_scale).exp()
        return z.masked_fill(missing, 0.0), self._log_filler(noise, missing, context)

    def _log_filler(self, noise: Tensor, missing: Tensor, context: ContextLike) -> Tensor:
        each = -0.5 * noise * noise - (LOG_SQRT_2PI + self.log_scale) * missing
        return sum_items(each, context)


class Sum(_Gathering):
    r"""Add up groups of channels, `(rows, c terms, ...)` to `(rows, c, ...)`: `z_i = sum_j x_{i terms + j}`; exact.

    The order of the channels is that of `Repeat`.

    Args:
        channels: c.
        terms: N.
        blocks: the terms are whole events one behind the other, `z_i = sum_j x_{j c + i}`.
        net_factory: makes a network for mean and scale of what is orthogonal given `z`, see `OrthogonalDensity`.
    """

    def __init__(
        self, channels: int, terms: int, *, blocks: bool = False, net_factory: NetFactory | None = None
    ) -> None:
        super().__init__(EqualCopies(channels, terms, blocks=blocks), net_factory)
        self.terms = terms

    def carry(self, support: Interval | None) -> Interval | None:
        """Return where sums of so many elements lie."""
        return None if support is None else support.scaled(self.terms, 0.0)


class FoldSum(_Gathering):
    r"""Put windows back and add them up where they overlap, `(c prod(kernel), *windows)` to `(c, *positions)`.

    The adjoint of `Unfold`, and the last step of a transposed convolution. Exact, except that positions that no window
    reaches get noise of a trained scale, which makes it a bound.

    Args:
        out_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows.
        dilation: of the windows.
        net_factory: makes a network for mean and scale of what is orthogonal given `z`, see `OrthogonalDensity`.
    """

    def __init__(
        self,
        out_shape: Shape,
        kernel_size: int | Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        net_factory: NetFactory | None = None,
    ) -> None:
        super().__init__(window_copies(out_shape, kernel_size, stride, dilation), net_factory)


def _half_log_counts(pattern: CopyPattern, x: Tensor, context: ContextLike) -> Tensor:
    return sum_items((0.5 * pattern.counts.log()).expand(x.shape).to(x.dtype), context)
