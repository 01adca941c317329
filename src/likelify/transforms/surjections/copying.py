r"""Layers that repeat numbers, and their duals that add numbers up.

A number with `N` copies is carried into `R^N` along the diagonal; orthogonal noise `u` (of `N - 1` dimensions) makes
that a bijection of `(x, u)`:

    t = (x, ..., x) + u,   x = mean(t),   log p(x) >= E[log p(t) + 1/2 log N - log q(u | x)].

The dual adds the copies up, `z = sum(t)`; what is orthogonal to the diagonal gets a density given `z`, which is exact:

    log p(t) = log p(z) + 1/2 log N + log p(u | z),   u = t - mean(t).

For normal noise no basis of the orthogonal complement is needed: a standard normal number for each copy, less the mean
over the copies, is standard normal there (Mate et al. 2022, section 3.2 and figure 5, draw a direction and a radius).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from likelify.distributions import LOG_SQRT_2PI, check_law
from likelify.names import NoiseName
from likelify.nets import NetFactory
from likelify.structure import ContextLike, as_context, join_condition, sum_constant, sum_items
from likelify.transforms.core import Shape, Transform, check_sample
from likelify.transforms.surjections.dimension import MissingNumbers
from likelify.transforms.surjections.geometry import Geometry, Stacked, windows


class OrthogonalDensity(nn.Module):
    r"""The density of what is orthogonal to repeated numbers, given these: normal, or uniform in a ball.

    With `N` copies of a number, scale `A` and `d = N - 1`, `-log q(u) = d (log(2 pi) / 2 + log A) + |u|^2 / (2 A^2)`;
    or `d/2 log pi - log Gamma(d/2 + 1) + d log A` for `|u| <= A`.

    Args:
        geometry: what is repeated where.
        channels: of the repeated event.
        law: `"normal"` or `"uniform"`.
        net: makes a network that reads the copies `(rows, channels copies, ...)` and gives twice as many numbers:
            means, and log scales that are averaged over the copies (kept within +-3). Without one the mean is zero, and
            the scales are trained numbers, one for each channel.
    """

    def __init__(
        self, geometry: Geometry, channels: int, law: NoiseName = "normal", net: NetFactory | None = None
    ) -> None:
        super().__init__()
        check_law(law)
        self.geometry, self.law = geometry, law
        self.log_scale = nn.Parameter(torch.zeros(channels))
        size = channels * geometry.copies
        self.net = None if net is None else net(size, 2 * size)

    def draw(self, x: Tensor, context: ContextLike, temperature: float) -> tuple[Tensor, Tensor]:
        """Draw beside the numbers `x`; also give the log-density `(items,)`. Temperature zero gives the mean."""
        loc, log_scale = self._moments(x, context)
        u = self._noise(x)
        moved = temperature * self.geometry.copy(log_scale.exp().expand(x.shape)) * u
        return moved if loc is None else moved + loc, self._log_density(u * temperature, log_scale, x, context)

    def mean(self, x: Tensor, context: ContextLike) -> Tensor:
        """Return the mean beside the numbers `x`."""
        loc, _ = self._moments(x, context)
        return torch.zeros_like(self.geometry.copy(x)) if loc is None else loc

    def log_prob(self, u: Tensor, x: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density `(items,)` of `u`, which is orthogonal to repeated numbers, beside the numbers `x`."""
        loc, log_scale = self._moments(x, context)
        centred = u if loc is None else u - loc
        scaled = centred * self.geometry.copy((-log_scale).exp().expand(x.shape))
        return self._log_density(scaled, log_scale, x, context)

    def initialize(self, u: Tensor, x: Tensor) -> None:
        """Set the scale of each channel to that of a sample."""
        check_sample(u, self)
        with torch.no_grad():
            spread = self.geometry.total(u * u).transpose(0, 1).flatten(1).mean(1)
            size = (self.geometry.counts - 1).expand(x.shape[2:]).mean() if x.ndim > 2 else self.geometry.counts - 1
            self.log_scale.copy_(0.5 * (spread / size.clamp_min(1e-3)).clamp_min(1e-6).log())

    def _moments(self, x: Tensor, context: ContextLike) -> tuple[Tensor | None, Tensor]:
        log_scale = self.log_scale.reshape(-1, *(1,) * (x.ndim - 2))
        if self.net is None:
            return None, log_scale
        loc, raw = self.net(join_condition(self.geometry.copy(x), context)).chunk(2, dim=1)
        return self.geometry.project(loc), log_scale + 3 * torch.tanh(self.geometry.mean(raw) / 3)

    def _noise(self, x: Tensor) -> Tensor:
        like = self.geometry.copied_shape(tuple(x.shape[1:]))
        u = self.geometry.project(torch.randn(len(x), *like, dtype=x.dtype, device=x.device))
        if self.law == "normal":
            return u
        # A direction of normal noise is uniform on the sphere; in d dimensions the radius is a d-th root.
        length = self.geometry.total(u * u).sqrt()
        radius = torch.rand_like(x) ** (1 / (self.geometry.counts - 1).clamp_min(1))
        return u * self.geometry.copy(radius / length.clamp_min(torch.finfo(x.dtype).tiny))

    def _log_density(self, u: Tensor, log_scale: Tensor, x: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density of `u` in units of the scale."""
        free = self.geometry.counts - 1
        constant = -(free * log_scale).expand(x.shape)
        if self.law == "normal":
            return sum_items(constant - free * LOG_SQRT_2PI, context) - 0.5 * sum_items(u * u, context)
        volume = 0.5 * free * math.log(math.pi) - torch.lgamma(0.5 * free + 1)
        # What is left of a number after the mean is taken off has the number's rounding.
        slack = 100 * torch.finfo(u.dtype).eps * (1 + x.detach().abs() * (-log_scale.detach()).exp())
        inside = self.geometry.total(u * u).sqrt() <= 1 + slack
        return sum_items(torch.where(inside | (free == 0), constant - volume, -math.inf), context)


class Copying(Transform, ABC):
    """What `Repeat` and `Unfold` share: copy and add orthogonal noise, or average."""

    def __init__(
        self,
        geometry: Geometry,
        noise: OrthogonalDensity | None,
        rest: MissingNumbers | None = None,
    ) -> None:
        super().__init__()
        self.geometry, self.noise, self.rest = geometry, noise, rest
        self.random_forward = noise is not None
        self.random_inverse = rest is not None

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Copy and add noise."""
        t, contribution = self.geometry.copy(x), _half_log_counts(self.geometry, x, context)
        if self.noise is not None:
            u, log_q = self.noise.draw(x, context, 1.0)
            t, contribution = t + u, contribution - log_q
        if self.rest is not None:
            contribution = contribution + self.rest.log_prob(x, context)
        return t, contribution

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Average; what was never copied is drawn."""
        x = self.geometry.mean(z)
        if self.rest is not None:
            x = self.rest.fill(x, context)
        contribution = -_half_log_counts(self.geometry, x, context)
        if self.noise is not None:
            contribution = contribution + self.noise.log_prob(z - self.geometry.copy(x), x, context)
        if self.rest is not None:
            contribution = contribution - self.rest.log_prob(x, context)
        return x, contribution

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Copy."""
        return self.geometry.copy(x)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Average; what was never copied gets its mean."""
        x = self.geometry.mean(z)
        return x if self.rest is None else self.rest.fill(x, context, temperature=0.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the density of what is never copied."""
        if self.rest is not None:
            self.rest.initialize(x, context)
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the copies."""
        return self.geometry.copied_shape(in_shape)

    @abstractmethod
    def extra_repr(self) -> str:
        """Show the settings."""


class Repeat(Copying):
    r"""Repeat each number: `(rows, c, ...)` to `(rows, c copies, ...)`, with orthogonal noise; a bound.

    The inverse is the mean of the copies.

    Args:
        channels: c.
        copies: N; copy `j` of channel `i` becomes channel `i N + j`.
        noise: `"normal"` or `"uniform"` in a ball; its scale is trained.
        posterior: makes a network for a learned mean and scale of the noise given `x`, see `OrthogonalDensity`.
        blocks: make copy `j` of channel `i` channel `j c + i`: whole events one behind the other.

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
        noise: NoiseName = "normal",
        *,
        posterior: NetFactory | None = None,
        blocks: bool = False,
    ) -> None:
        geometry = Stacked(copies, blocks=blocks)
        super().__init__(geometry, OrthogonalDensity(geometry, channels, noise, posterior) if copies > 1 else None)

    def extra_repr(self) -> str:
        """Show the number of copies."""
        return f"copies={self.geometry.copies}"


class Unfold(Copying):
    r"""Gather sliding windows into channels, `(c, *positions)` to `(c prod(kernel), *out_positions)`.

    Numbers that several windows read are repeated with orthogonal noise, which makes the layer a bound; without overlap
    it is exact. Numbers that no window reads get a density given all others, and are drawn in the inverse.

    Args:
        in_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows.
        dilation: of the windows.
        noise: `"normal"` or `"uniform"` in a ball; its scale is trained.
        posterior: makes a network for a learned mean and scale of the noise, see `OrthogonalDensity`.
        net: makes the network of `MissingNumbers`.

    Raises:
        ShapeError: if no window fits.

    Source:
        Mate et al. 2022, section 3.2 and appendix B.
    """

    def __init__(
        self,
        in_shape: Shape,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        noise: NoiseName = "normal",
        *,
        posterior: NetFactory | None = None,
        net: NetFactory | None = None,
    ) -> None:
        geometry = windows(in_shape, kernel_size, stride, dilation)
        density = OrthogonalDensity(geometry, in_shape[0], noise, posterior) if geometry.free else None
        rest = None if geometry.missing is None else MissingNumbers(in_shape, geometry.missing, net)
        super().__init__(geometry, density, rest)

    def extra_repr(self) -> str:
        """Show whether windows overlap."""
        return "disjoint windows" if self.noise is None else "overlapping windows"


class Gathering(Transform, ABC):
    """What `Sum` and `FoldSum` share: add copies up, or draw what is orthogonal to repeated numbers."""

    def __init__(self, geometry: Geometry, channels: int, net: NetFactory | None) -> None:
        super().__init__()
        self.geometry = geometry
        self.density = OrthogonalDensity(geometry, channels, "normal", net) if geometry.free else None
        self.random_forward = geometry.missing is not None
        self.random_inverse = self.density is not None
        if geometry.missing is not None:
            self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Add up; positions that nothing reaches get noise."""
        z = self.geometry.total(x)
        contribution = _half_log_counts(self.geometry, z, context)
        if self.density is not None:
            u = x - self._shared(z)
            contribution = contribution + self.density.log_prob(u, z, context)
        missing = self.geometry.missing
        if missing is None:
            return z, contribution
        noise = torch.randn_like(z) * missing
        return z + self.log_scale.exp() * noise, contribution - self._log_filler(noise, missing, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Share each number among its copies and draw what is orthogonal to that."""
        z, contribution = self._reached(z, context)
        x, contribution = self._shared(z), contribution - _half_log_counts(self.geometry, z, context)
        if self.density is None:
            return x, contribution
        u, log_p = self.density.draw(z, context, as_context(context).temperature)
        return x + u, contribution - log_p

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Add up."""
        return self.geometry.total(x)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Share each number among its copies, and add the mean of what is orthogonal."""
        z, _ = self._reached(z, context)
        return self._shared(z) if self.density is None else self._shared(z) + self.density.mean(z, context)

    def _shared(self, z: Tensor) -> Tensor:
        return self.geometry.copy(z / self.geometry.counts)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the scale of what is orthogonal."""
        if self.density is not None:
            z = self.geometry.total(x)
            self.density.initialize(x - self._shared(z), z)
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape of the sums."""
        return self.geometry.total_shape(in_shape)

    def _reached(self, z: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        """Set to zero what nothing reaches; also give the log-density of the noise that was there."""
        missing = self.geometry.missing
        if missing is None:
            return z, sum_constant(z.new_zeros(()), z, context)
        noise = z * missing * (-self.log_scale).exp()
        return z.masked_fill(missing, 0.0), self._log_filler(noise, missing, context)

    def _log_filler(self, noise: Tensor, missing: Tensor, context: ContextLike) -> Tensor:
        each = -0.5 * noise * noise - (LOG_SQRT_2PI + self.log_scale) * missing
        return sum_items(each, context)

    @abstractmethod
    def extra_repr(self) -> str:
        """Show the settings."""


class Sum(Gathering):
    r"""Add up groups of channels, `(rows, c terms, ...)` to `(rows, c, ...)`: `z_i = sum_j x_{i terms + j}`; exact.

    The order of the channels is that of `Repeat`.

    Args:
        channels: c.
        terms: N.
        net: makes a network for mean and scale of what is orthogonal given `z`, see `OrthogonalDensity`.
        blocks: the terms are whole events one behind the other, `z_i = sum_j x_{j c + i}`.
    """

    def __init__(self, channels: int, terms: int, *, net: NetFactory | None = None, blocks: bool = False) -> None:
        super().__init__(Stacked(terms, blocks=blocks), channels, net)

    def extra_repr(self) -> str:
        """Show the number of terms."""
        return f"terms={self.geometry.copies}"


class FoldSum(Gathering):
    r"""Put windows back and add them up where they overlap, `(c prod(kernel), *windows)` to `(c, *positions)`.

    The adjoint of `Unfold`, and the last step of a transposed convolution. Exact, except that positions that no window
    reaches get noise of a trained scale, which makes it a bound.

    Args:
        out_shape: `(channels, *positions)`, one or two position axes.
        kernel_size: of the windows.
        stride: of the windows.
        dilation: of the windows.
        net: makes a network for mean and scale of what is orthogonal given `z`, see `OrthogonalDensity`.
    """

    def __init__(
        self,
        out_shape: Shape,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        *,
        net: NetFactory | None = None,
    ) -> None:
        super().__init__(windows(out_shape, kernel_size, stride, dilation), out_shape[0], net)

    def extra_repr(self) -> str:
        """Show whether windows overlap."""
        return "disjoint windows" if self.density is None else "overlapping windows"


def _half_log_counts(geometry: Geometry, x: Tensor, context: ContextLike) -> Tensor:
    return sum_items((0.5 * geometry.counts.log()).expand(x.shape).to(x.dtype), context)
