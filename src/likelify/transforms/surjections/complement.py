r"""Densities on the orthogonal complement of a linear map: of what it forgets, and of noise beside its image.

A spherical normal distribution projected on a subspace of `k` dimensions is spherical normal there, with the density
`(2 pi scale^2)^(-k/2) exp(-|u|^2 / (2 scale^2))`; no basis of the subspace is needed to draw from it or to weigh it.
"""

import math

import torch
from torch import Tensor, nn

from likelify.distributions.noise import check_noise
from likelify.distributions.normal import LOG_SQRT_2PI, limit_log_scale
from likelify.linalg.factors import Factors
from likelify.names import NoiseName
from likelify.nets import NetFactory
from likelify.nets.density import read_net
from likelify.shapes import along, kept_arguments
from likelify.structure import ContextLike, as_context, sum_constant, sum_items


class FibreDensity(nn.Module):
    r"""The density of what a map to fewer channels forgets: `N(m(z), t(z)^2 diag(v))` restricted to the fibre.

    In units of the deviations `sqrt(v)` it is spherical normal on the complement of the map, with the mean
    `c + net(z)` and the scale `t`: one for each block of the map (a position, or a whole image).

    Args:
        in_channels: of the data.
        out_channels: of the latent.
        groups: of channels.
        net_factory: makes the network: from `z`, joined by the flow's condition if it has one, to a log scale for each
            group (kept within +-3 by `3 tanh(. / 3)`), then the mean of each data channel in units of its deviation.
    """

    joins_condition = True

    def __init__(self, in_channels: int, out_channels: int, groups: int, net_factory: NetFactory) -> None:
        super().__init__()
        self.groups = groups
        self.net = net_factory(out_channels, groups + in_channels)
        self.log_deviation = nn.Parameter(torch.zeros(in_channels))
        self.location = nn.Parameter(torch.zeros(in_channels))

    def deviations(self, ndim: int) -> Tensor:
        """Return `sqrt(v)` for inputs with that many axes."""
        return along(self.log_deviation.exp(), ndim)

    def whiten(self, x: Tensor) -> Tensor:
        """Return inputs in units of their deviations."""
        # The gradient of a product is cheaper than that of a quotient.
        return x * along((-self.log_deviation).exp(), x.ndim)

    def log_prob(self, white: Tensor, z: Tensor, factors: Factors, context: ContextLike) -> Tensor:
        """Return the log-density of the places of inputs, in units of their deviations, on the fibres of `z`."""
        mean, log_scale = self._moments(z, factors, context)
        return self._density(factors.complement(white - mean), log_scale, factors, context)

    def sample_and_log_prob(self, z: Tensor, factors: Factors, context: ContextLike) -> tuple[Tensor, Tensor]:
        """Draw the part in the complement, in units of the deviations; the context's temperature scales the noise."""
        mean, log_scale = self._moments(z, factors, context)
        noise = torch.randn_like(mean) * _spread(log_scale.exp(), mean)
        noise = factors.complement(as_context(context).temperature * noise)
        return noise + factors.complement(mean), self._density(noise, log_scale, factors, context)

    def mean(self, z: Tensor, factors: Factors, context: ContextLike) -> Tensor:
        """Return the mean of the part in the complement, in units of the deviations."""
        return factors.complement(self._moments(z, factors, context)[0])

    def _moments(self, z: Tensor, factors: Factors, context: ContextLike) -> tuple[Tensor, Tensor]:
        raw = read_net(self.net, z, context, self.groups + len(self.location))
        log_scale = factors.mean_blocks(limit_log_scale(raw[:, : self.groups]))
        return along(self.location, z.ndim) + raw[:, self.groups :], log_scale

    def _density(self, off: Tensor, log_scale: Tensor, factors: Factors, context: ContextLike) -> Tensor:
        units = self.log_deviation.sum() * math.prod(off.shape[2:])
        return _normal_log_prob(off, log_scale, factors, context) - sum_constant(units, off, context)


class ComplementNoise(nn.Module):
    r"""Noise orthogonal to the image of a map to more channels, normal or uniform in a ball, with a trained scale.

    A spherical normal draw projected on the complement is spherical normal there. The scale, one for each group, is
    also the radius of the uniform ball, of dimension `k`, whose volume is `pi^(k/2) scale^k / Gamma(k/2 + 1)`.
    Every block of the map (a position, or a whole image) has a draw of its own.

    Args:
        in_channels: of the data.
        out_channels: of the latent.
        groups: of channels.
        noise: `"normal"` or `"uniform"`.
        posterior_factory: makes a network from `x` to a log scale for each group (kept within +-3), then a mean for
            each latent channel, of which the part in the complement counts: `q(u | x)`.
    """

    joins_condition = True

    extra_repr = kept_arguments

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, noise: NoiseName, posterior_factory: NetFactory | None
    ) -> None:
        super().__init__()
        check_noise(noise)
        self.groups, self.noise = groups, noise
        self.log_scale = nn.Parameter(torch.zeros(groups))
        self.net = None if posterior_factory is None else posterior_factory(in_channels, groups + out_channels)

    def sample_and_log_prob(
        self, x: Tensor, image: Tensor, factors: Factors, context: ContextLike
    ) -> tuple[Tensor, Tensor]:
        """Draw for inputs `x` whose images are given, and return the log-density in nats."""
        mean, log_scale = self._moments(x, factors, context)
        noise = factors.complement(torch.randn_like(image))
        if self.noise == "uniform":
            squares = factors.sum_blocks(noise.square())
            radius = torch.rand_like(squares) ** (1 / factors.freedom(image.shape[2:]))
            noise = noise * _spread(radius * squares.rsqrt(), noise)
        noise = noise * _spread(log_scale.exp(), noise)
        drawn = noise if mean is None else noise + mean
        return drawn, self._density(noise, log_scale, factors, context)

    def log_prob(self, drawn: Tensor, x: Tensor, factors: Factors, context: ContextLike) -> Tensor:
        """Return the log-density of noise in the complement; minus infinity outside of the ball."""
        mean, log_scale = self._moments(x, factors, context)
        noise = drawn if mean is None else drawn - mean
        log_prob = self._density(noise, log_scale, factors, context)
        if self.noise == "normal":
            return log_prob
        # What lay just inside when it was drawn must not fall outside by rounding, of itself or of the latent.
        eps = torch.finfo(noise.dtype).eps
        radius = (0.5 * math.sqrt(eps) + 1) * log_scale.exp() + 100 * eps * self._size(drawn, x, factors)
        outside = factors.sum_blocks(noise.square()) > radius.square()
        return torch.where(sum_items(outside.to(noise.dtype), context) > 0, -math.inf, log_prob)

    @staticmethod
    def _size(drawn: Tensor, x: Tensor, factors: Factors) -> Tensor:
        """Return the size of the latent in each block."""
        latent = drawn.detach().square() + factors.apply(x.detach()).square()
        return factors.sum_blocks(latent).sqrt()

    def set_variances(self, variances: Tensor, freedom: int) -> None:
        """Set the scale by the variances of one dimension, `(groups,)`, in blocks of that many dimensions."""
        # In a ball of radius r each of k coordinates has the variance r^2 / (k + 2).
        squares = variances * (freedom + 2) if self.noise == "uniform" else variances
        self.log_scale.copy_(0.5 * squares.log())

    def _moments(self, x: Tensor, factors: Factors, context: ContextLike) -> tuple[Tensor | None, Tensor]:
        log_scale = along(self.log_scale, x.ndim)
        if self.net is None:
            return None, log_scale
        raw = read_net(self.net, x, context, self.groups * (1 + factors.rows_out))
        own = factors.mean_blocks(limit_log_scale(raw[:, : self.groups]))
        return factors.complement(raw[:, self.groups :]), log_scale + own

    def _density(self, noise: Tensor, log_scale: Tensor, factors: Factors, context: ContextLike) -> Tensor:
        if self.noise == "normal":
            return _normal_log_prob(noise, log_scale, factors, context)
        freedom = factors.freedom(noise.shape[2:])
        log_volume = 0.5 * freedom * math.log(math.pi) - math.lgamma(0.5 * freedom + 1) + freedom * log_scale
        return -sum_items(log_volume.expand_as(factors.sum_blocks(noise)), context)


def _normal_log_prob(off: Tensor, log_scale: Tensor, factors: Factors, context: ContextLike) -> Tensor:
    """Return the log-density of a spherical normal distribution on the complement, for values that lie in it."""
    squares = factors.sum_blocks(off.square()) * (-2 * log_scale).exp()
    return -sum_items(0.5 * squares + factors.freedom(off.shape[2:]) * (log_scale + LOG_SQRT_2PI), context)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Return for every channel the value of its group: `(rows, groups, ...)` to `(rows, channels, ...)`."""
    axis = 1 - like.ndim
    return values if values.shape[axis] == 1 else values.repeat_interleave(like.shape[1] // values.shape[axis], axis)
