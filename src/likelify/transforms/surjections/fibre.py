r"""Linear layers with a free weight of any shape: what they share, and the matrix on the channels.

With as many outputs as inputs they are bijections. With fewer, what the map forgets, the place on the *fibre*
`{x : W x + b = z}`, has a density: that of a normal distribution `N(m(z), S)` in data space restricted to the fibre, so
that

    log p(x) = log p(z) + log N(x; m, S) - log N(W x; W m, W S W^T)

is exact. With more outputs, noise orthogonal to the columns of `W` fills the space, and the likelihood is a bound.
No singular values and no rotations are needed, and a pretrained weight is taken as it is
(`docs/maths/flowification-linear.md`).
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from likelify.caching import Caching
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.factors import (
    Factors,
    MatrixFactors,
    orthonormal,
    positive_variances,
    principal_maps,
    require_rank,
)
from likelify.names import NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.shapes import Shape, along, check_size
from likelify.structure import ContextLike, sum_constant
from likelify.support import check_sample
from likelify.transforms.core import Transform
from likelify.transforms.inversion import PART
from likelify.transforms.looks import look_linear
from likelify.transforms.surjections.complement import ComplementNoise, FibreDensity

# Steps for the variances of a fibre when a layer is initialized, and positions of the sample that they look at.
VARIANCE_STEPS = 20
VARIANCE_SAMPLE = 8192


class FibreLayer(Transform, Caching, ABC):
    r"""The common part of linear layers with a free weight: `z = W x + b` with a full-rank `W`.

    Write `_factorize`, which gives the map in a form that knows its volume and its complement, and `_set_weight`.
    """

    inverse_check = PART

    def __init__(
        self,
        weight: Tensor,
        channels: tuple[int, int],
        *,
        pretrained: bool,
        bias: bool | Tensor,
        groups: int,
        noise: NoiseName,
        net_factory: NetFactory,
        posterior_factory: NetFactory | None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = channels
        self.takes, self.gives = (self.in_channels, ...), (self.out_channels, ...)
        self.groups, self.pretrained = groups, pretrained
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = self._make_bias(bias)
        sizes = (self.in_channels, self.out_channels, groups)
        self.random_inverse = self.out_channels < self.in_channels
        self.random_forward = self.out_channels > self.in_channels
        self.fills_space = self.in_channels == self.out_channels
        self.density = FibreDensity(*sizes, net_factory).to(weight) if self.random_inverse else None
        self.noise = ComplementNoise(*sizes, noise, posterior_factory).to(weight) if self.random_forward else None

    def _make_bias(self, bias: bool | Tensor) -> nn.Parameter | None:  # noqa: FBT001 - as torch has it
        if bias is False:
            return None
        value = self.weight.new_zeros(self.out_channels) if bias is True else bias.detach().clone()
        check_shape(value, (self.out_channels,), "bias")
        return nn.Parameter(value)

    @abstractmethod
    def _factorize(self, positions: Shape) -> Factors:
        """Factorize `W`, with the inputs in units of their deviations if it has a fibre density."""

    @abstractmethod
    def _set_weight(self, blocks: Tensor, deviations: Tensor) -> None:
        """Start at the matrices `(groups, out, in)` on each position; the data have those deviations."""

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Multiply by `W`; add noise if there are more outputs than inputs."""
        factors = self._factors(x)
        white = self._whiten(x)
        z = self._shift(factors.apply(white))
        volume = sum_constant(factors.log_volume(x.shape[2:]), x, context)
        if self.density is not None:
            return z, volume + self.density.log_prob(white, z, factors, context)
        if self.noise is not None:
            drawn, log_prob = self.noise.sample_and_log_prob(x, z, factors, context)
            return z + drawn, volume - log_prob
        return z, volume

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the product; draw a place on the fibre if there are fewer outputs than inputs (Matheron's rule)."""
        factors = self._factors(z)
        x, volume = self._solve(z, factors), -sum_constant(factors.log_volume(z.shape[2:]), z, context)
        if self.density is not None:
            drawn, log_prob = self.density.sample_and_log_prob(z, factors, context)
            return (x + drawn) * self.density.deviations(x.ndim), volume - log_prob
        if self.noise is not None:
            off = factors.complement(self._unshift(z))
            return x, volume + self.noise.log_prob(off, x, factors, context)
        return x, volume

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return `W x + b`."""
        return self._shift(self._factors(x).apply(self._whiten(x)))

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Return the mean of the fibre, or the least-squares solution."""
        factors = self._factors(z)
        x = self._solve(z, factors)
        if self.density is None:
            return x
        return (x + self.density.mean(z, factors, context)) * self.density.deviations(x.ndim)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        r"""Start at the data: a weight that was not given, the density on the fibres, the scale of the noise.

        A weight that was not given takes the leading principal directions, scaled so that the outputs have unit
        variance and mean zero. The variances `v` of the fibres climb the likelihood by a few steps; noise gets the mean
        variance that the data have in the image of the map.
        """
        check_sample(x, self)
        with torch.no_grad():
            if not self.pretrained:
                blocks, deviations = principal_maps(x, self.groups, self.out_channels // self.groups)
                self._set_weight(blocks.to(self.weight), deviations.to(self.weight))
                if self.bias is not None:
                    self.bias -= _channel_mean(self.mean_forward(x, context))
            if self.density is not None:
                self._fit_density(self.density, x)
            if self.noise is not None:
                self._fit_noise(self.noise, self.mean_forward(x, context))
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the same positions with the latent's channels."""
        return (self.out_channels, *in_shape[1:])

    def _factors(self, value: Tensor) -> Factors:
        positions = tuple(value.shape[2:])
        return self.cached(f"factors {positions}", lambda: self._factorize(positions))

    def _solve(self, z: Tensor, factors: Factors) -> Tensor:
        """Return the least solution, in units of the deviations if there are any."""
        inverse = self.cached(f"inverse {tuple(z.shape[2:])}", factors.inverse)
        u = self._unshift(z)
        x = factors.times(u, inverse)
        if self.noise is None:
            # With more outputs than inputs there are latents off the image of the map, to which nothing leads.
            look_linear(self, u, x, factors.apply, lambda rows: factors.times(rows, inverse))
        return x

    def _whiten(self, x: Tensor) -> Tensor:
        return x if self.density is None else self.density.whiten(x)

    def _shift(self, z: Tensor) -> Tensor:
        return z if self.bias is None else z + along(self.bias, z.ndim)

    def _unshift(self, z: Tensor) -> Tensor:
        return z if self.bias is None else z - along(self.bias, z.ndim)

    def _fit_density(self, density: FibreDensity, x: Tensor) -> None:
        """Climb to the variances that make the sample likeliest, with its mean as the mean (docs/maths)."""
        positions = tuple(x.shape[2:])
        mean = _channel_mean(x)
        centred = x - along(mean, x.ndim)
        variances = positive_variances(_channel_mean(centred.square()))
        # The rows are spread over the sample, which may be sorted.
        rows = -(-VARIANCE_SAMPLE // math.prod(positions))
        centred = centred[:: max(1, len(x) // rows)]
        for _ in range(VARIANCE_STEPS):
            density.log_deviation.copy_(0.5 * variances.log())
            factors, white = self._factorize(positions), self._whiten(centred)
            known = white - factors.complement(white)
            up = _channel_mean(white.square()) + factors.leverage(positions)
            variances = positive_variances(variances * up / (1 + _channel_mean(known.square())))
        density.log_deviation.copy_(0.5 * variances.log())
        density.location.copy_(mean / variances.sqrt())

    def _fit_noise(self, noise: ComplementNoise, image: Tensor) -> None:
        """Set the variance of the noise in each dimension to the mean variance of the image's dimensions."""
        squares = _channel_mean((image - along(_channel_mean(image), image.ndim)).square())
        variances = self.out_channels / self.in_channels * squares.unflatten(0, (self.groups, -1)).mean(1)
        noise.set_variances(
            positive_variances(variances), self._factorize(tuple(image.shape[2:])).freedom(image.shape[2:])
        )

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"{self.in_channels} -> {self.out_channels}, groups={self.groups}, bias={self.bias is not None}"


class FreeLinear(FibreLayer):
    r"""A matrix of any shape on the channels of every position, `z[:, :, p] = W x[:, :, p] + b`.

    | channels | kind | contribution at each position |
    | --- | --- | --- |
    | out = in | bijection | `log |det W|`, of any sign |
    | out < in | exact, draws in `inverse` | `log N(x; m, S) - log N(W x; W m, W S W^T)`, `S = t^2 diag(v)` |
    | out > in | bound, draws in `forward` | `1/2 log det W^T W - log q(u)`, `u` orthogonal to the columns of `W` |

    A call factorizes `W` once, whatever the batch; a position then costs up to three products of the size of `W`.

    Args:
        in_channels: of the data, axis 1 of `(rows, channels, *positions)`; rows of vectors and graph nodes alike.
        out_channels: of the latent.
        weight: `(out_channels, in_channels / groups)` to start from; without it, orthonormal rows or columns, and in
            `initialize` the leading principal directions of the data.
        bias: train `b` from zero, or from a tensor `(out_channels,)`.
        groups: of consecutive channels that do not mix, as in `torch.nn.Conv2d`: `W` is block diagonal.
        dims: number of position axes, for the default network.
        noise: for out > in the distribution of `u`, `"normal"` or `"uniform"` (in a ball), with a trained scale.
        net_factory: for out < in, makes the network behind `m(z)` and `t(z)`, see `FibreDensity`; by default
            `density_nets(dims)`. Not used otherwise.
        posterior_factory: for out > in, makes a network for `q(u | x)`, see `ComplementNoise`.

    Raises:
        DomainError: if `W` has no full rank, at the start or after training.
        ShapeError: for other shapes.

    Source:
        The layer of Mate et al. 2022, section 3.1, without its singular values; Matheron's rule: Journel and
        Huijbregts 1978.

    Example:
        >>> layer = FreeLinear(3, 2, weight=torch.tensor([[1.0, 2.0, 2.0], [0.0, 1.0, -1.0]]))
        >>> z = layer(torch.tensor([[1.0, 0.0, 1.0]]))[0]
        >>> layer(layer.inverse(z)[0])[0].round(decimals=4)
        tensor([[ 3., -1.]], grad_fn=<RoundBackward1>)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        weight: Tensor | None = None,
        bias: bool | Tensor = True,
        groups: int = 1,
        dims: int = 0,
        noise: NoiseName = "normal",
        net_factory: NetFactory | None = None,
        posterior_factory: NetFactory | None = None,
    ) -> None:
        in_channels, out_channels, groups = check_groups(in_channels, out_channels, groups)
        if weight is None:
            start = torch.stack([orthonormal(out_channels // groups, in_channels // groups) for _ in range(groups)])
        else:
            check_shape(weight, (out_channels, in_channels // groups), "weight")
            start = weight.unflatten(0, (groups, -1))
            require_rank(start, type(self).__name__)
        super().__init__(
            start.flatten(0, 1),
            (in_channels, out_channels),
            pretrained=weight is not None,
            bias=bias,
            groups=groups,
            noise=noise,
            net_factory=net_factory or density_nets(dims),
            posterior_factory=posterior_factory,
        )
        # A network that was given may be for any positions.
        self.dims = dims if net_factory is None and self.density is not None else None

    def matrix(self) -> Tensor:
        """Form `W`, `(out_channels, in_channels)`."""
        return torch.block_diag(*self.weight.unflatten(0, (self.groups, -1)))

    def _factors(self, value: Tensor) -> Factors:
        if self.dims not in (None, value.ndim - 2):
            raise ShapeError(
                f"The network of this FreeLinear is for {self.dims} position axes and got an input of shape "
                f"{tuple(value.shape)}; say dims={value.ndim - 2}."
            )
        return super()._factors(value)

    def _factorize(self, positions: Shape) -> Factors:
        blocks = self.weight.unflatten(0, (self.groups, -1))
        if self.density is not None:
            blocks = blocks * self.density.log_deviation.exp().reshape(self.groups, 1, -1)
        return MatrixFactors(blocks, type(self).__name__)

    def _set_weight(self, blocks: Tensor, deviations: Tensor) -> None:
        self.weight.copy_(blocks.flatten(0, 1))


def _channel_mean(x: Tensor) -> Tensor:
    return x.movedim(1, -1).flatten(0, -2).mean(0)


def check_groups(in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    """Return both counts of channels and the groups, which must divide them."""
    in_channels = check_size(in_channels, "The channels that go in")
    out_channels = check_size(out_channels, "The channels that come out")
    groups = check_size(groups, "groups")
    if in_channels % groups or out_channels % groups:
        raise ConfigError(f"groups must divide the channels, got {in_channels} -> {out_channels} and {groups}.")
    return in_channels, out_channels, groups


def check_shape(parameter: Tensor, shape: Shape, name: str) -> None:
    """Refuse a given weight or bias of another shape."""
    if tuple(parameter.shape) != shape:
        raise ShapeError(f"The {name} must have shape {shape}, got {tuple(parameter.shape)}.")
