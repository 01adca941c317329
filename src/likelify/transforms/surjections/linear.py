r"""Linear layers of any shape: `z = W x + b` from `D_1` to `D_2` channels, with a likelihood.

One door, `linear`, to the parametrizations of the matrix. With two rotations and a scale, `W = U S V`:

    keep      log p(x) = log p(z) + sum log s                                        exact
    reduce    log p(x) = log p(z) + sum log s + log p(dropped | z)                   exact
    increase  log p(x) >= E[log p(z) + sum log s - log q(noise)]                     a bound

(Mate et al. 2022, section 3.1 and theorem 3). What is dropped may depend on all of `z`, since the kept coordinates
determine it.
"""

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from likelify.distributions.core import Distribution
from likelify.distributions.noise import ChannelNoise
from likelify.distributions.normal import ConditionalNormal
from likelify.errors import ConfigError, DomainError, unknown_word
from likelify.linalg.bounds import widest
from likelify.names import LinearMethod, NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.shapes import check_size, check_sizes
from likelify.structure import ContextLike
from likelify.support import check_sample
from likelify.transforms.core import Chain, Transform
from likelify.transforms.elementwise import ActNorm
from likelify.transforms.exponential.parametrizations import HouseholderVectors
from likelify.transforms.exponential.rotations import Householder, Orthogonal, rotation
from likelify.transforms.surjections.dimension import Augment, Slice
from likelify.transforms.surjections.fibre import FreeLinear, check_shape


class PrincipalAxes(Orthogonal):
    """A fixed rotation of the channels to the principal axes of a sample, the widest first; the identity before.

    `initialize` sets it (at every position alike). Behind it, dropping the last channels loses least.

    Args:
        channels: size of axis 1 of `(rows, channels, ...)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(torch.eye(channels))

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Find the axes of every second row; scales that are set behind this layer see the others too.

        With fewer rows than channels the narrow axes of the rows that were used have no width at all, and a scale that
        saw only these would be infinite.
        """
        check_sample(x, self)
        with torch.no_grad():
            columns = widest(x[::2].transpose(0, 1).flatten(1))
            columns = columns - columns.mean(1, keepdim=True)
            _, axes = torch.linalg.eigh(columns @ columns.T / columns.shape[1])
            self.matrix.copy_(axes.flip(1).T)
        return super().initialize(x, context)


class Spectrum(ActNorm):
    """Shift and scale of the channels, of which the first are given: `initialize` only sets the others.

    Args:
        given: log scales of the first channels.
        shift: of the first channels.
        channels: how many there are in all.
    """

    def __init__(self, given: Tensor, shift: Tensor, channels: int) -> None:
        super().__init__(channels)
        self.given = len(given)
        # First the dtype, then the values, lest double precision is lost.
        self.to(given.dtype)
        with torch.no_grad():
            self.log_scale[: self.given] = given
            self.shift[: self.given] = shift

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Set the statistics of the channels that are not given."""
        kept = [(p, p.detach()[: self.given].clone()) for p in (self.shift, self.log_scale)]
        super().initialize(x, context)
        with torch.no_grad():
            for parameter, values in kept:
                parameter[: self.given] = values
            return self(x, context)[0]


class RotatedLinear(Chain):
    """The linear layer `W = U S V`, made of layers: rotation, scale, what is dropped or added, rotation.

    Built by `linear`.
    """

    def matrix(self) -> Tensor:
        """Form `W`, `(out_channels, in_channels)`, on the noise-free path."""
        first = next(layer for layer in self.modules() if isinstance(layer, Orthogonal))
        eye = torch.eye(len(first.matrix)).to(first.matrix)
        return (self.mean_forward(eye) - self.mean_forward(torch.zeros_like(eye))).T


def linear(
    in_channels: int,
    out_channels: int,
    *,
    method: LinearMethod = "cayley",
    weight: Tensor | None = None,
    bias: Tensor | bool = True,
    dims: int = 0,
    reflections: int | None = None,
    noise: NoiseName = "normal",
    net_factory: NetFactory | None = None,
    posterior_factory: NetFactory | None = None,
) -> Transform:
    r"""Build `z = W x + b` on the channels (axis 1) at every position, with a likelihood for any shape of `W`.

    Args:
        in_channels: D_1.
        out_channels: D_2.
        method: how `W` is parametrized. `"exponential"`, `"cayley"` and `"householder"` are two rotations and positive
            singular values: the map can never become singular, and dropped coordinates have scales of their own.
            `"free"` takes any matrix of full rank as it is (`FreeLinear`), which is cheapest.
        weight: `(out_channels, in_channels)`, which the layer then has exactly, with the sign of its determinant.
            Without one the layer starts at the identity, as far as that goes, or with `"free"` at random orthonormal
            rows, and `initialize` turns it to the principal axes of the data.
        bias: `(out_channels,)`; False starts it at zero and, with `"free"`, leaves it out.
        dims: number of position axes, for the usual networks.
        reflections: of each rotation of `"householder"`, an even number; 16 by default.
        noise: of added coordinates, `"normal"` or `"uniform"`.
        net_factory: makes the network of the density of dropped coordinates, see `nets.density_net`.
        posterior_factory: makes a network for a learned mean and scale of the noise given `x`; without one it has a
            trained scale.

    Returns:
        An exact layer if `out_channels <= in_channels`, otherwise a bound.

    Raises:
        DomainError: if the weight does not have full rank.
        ShapeError: if weight or bias do not have these sizes.

    Source:
        Mate et al. 2022, sections 3.1 and appendix G; `docs/maths/flowification-linear.md`.

    Example:
        >>> layer = linear(5, 3, method="free", weight=torch.eye(3, 5))
        >>> layer.likelihood, layer.mean_forward(torch.arange(5.0)[None])
        ('exact', tensor([[0., 1., 2.]], grad_fn=...))
    """
    if method not in get_args(LinearMethod):
        raise ConfigError(unknown_word("method of linear layers", method, get_args(LinearMethod)))
    check_sizes(in_channels=in_channels, out_channels=out_channels)
    if reflections is not None and method != "householder":
        raise ConfigError(f"reflections= is for method='householder', and the method is '{method}'. Leave it out.")
    if weight is not None:
        check_shape(weight, (out_channels, in_channels), "weight")
    if isinstance(bias, Tensor):
        check_shape(bias, (out_channels,), "bias")
    net_factory = net_factory or density_nets(dims)
    if method == "free":
        return FreeLinear(
            in_channels,
            out_channels,
            weight=weight,
            bias=bias,
            dims=dims,
            noise=noise,
            net_factory=net_factory,
            posterior_factory=posterior_factory,
        )
    smaller = min(in_channels, out_channels)
    if weight is None:
        middle: Transform = ActNorm(max(in_channels, out_channels))
        into, out = PrincipalAxes(in_channels), None
    else:
        factors = _factorize(weight, bias)
        middle = Spectrum(factors.log_singular, factors.shift, max(in_channels, out_channels))
        into, out = Orthogonal(factors.into), Orthogonal(factors.out)
    layers: list[Transform] = [into, *_trained_rotation(in_channels, method, reflections)]
    if out_channels > in_channels:
        added = out_channels - in_channels
        layers.append(Augment(added, _added_channels(in_channels, added, noise, posterior_factory)))
    layers.append(middle)
    if out_channels < in_channels:
        density = ConditionalNormal(net_factory(smaller, 2 * (in_channels - smaller)))
        layers.append(Slice(smaller, density))
    layers += [*_trained_rotation(out_channels, method, reflections), *([] if out is None else [out])]
    # One dtype throughout: what is trained beside a weight is as wide as it.
    return RotatedLinear(layers) if weight is None else RotatedLinear(layers).to(weight.dtype)


class _SingularFactors(NamedTuple):
    """`W x + b = U diag(s) (V x - shift)` with square orthogonal `U` and `V`; `s` and `shift` as long as the output."""

    into: Tensor
    out: Tensor
    log_singular: Tensor
    shift: Tensor


def _factorize(weight: Tensor, bias: Tensor | bool) -> _SingularFactors:  # noqa: FBT001
    u, s, vh = torch.linalg.svd(widest(weight.detach()), full_matrices=True)
    smallest = float(s[-1] / s[0].clamp_min(torch.finfo(s.dtype).tiny))
    if not smallest > 1e-6:
        raise DomainError(
            f"A weight of shape {tuple(weight.shape)} does not have full rank: its smallest singular value is "
            f"{smallest:.2g} of its largest. It maps different inputs to one output and leaves no density. Replace the "
            "layer by a narrower one, or train it from another start."
        )
    # Coordinates that are added have scale one.
    scale = torch.cat([s, s.new_ones(len(u) - len(s))])
    given = bias.detach().to(u) if isinstance(bias, Tensor) else torch.zeros_like(scale)
    shift = -(u.T @ given) / scale
    return _SingularFactors(*(t.to(weight.dtype) for t in (vh, u, scale.log(), shift)))


def _trained_rotation(size: int, method: str, reflections: int | None) -> list[Transform]:
    """Build a trained rotation that starts at the identity; a single channel has none."""
    if size == 1:
        return []
    if method != "householder":
        return [rotation(size, method="cayley" if method == "cayley" else "exponential")]
    # Reflections in pairs of equal vectors start at the identity.
    count = check_size(16 if reflections is None else reflections, "reflections", least=2)
    if count % 2:
        raise ConfigError(f"The reflections of linear come in pairs, which start at the identity; got {count}.")
    half = torch.randn(count // 2, size)
    vectors = half.repeat_interleave(2, 0)
    return [Householder(HouseholderVectors(size, len(vectors), vectors=vectors))]


def _added_channels(
    in_channels: int, added: int, noise: NoiseName, posterior_factory: NetFactory | None
) -> Distribution:
    if posterior_factory is None:
        return ChannelNoise(added, noise)
    if noise != "normal":
        raise ConfigError("A learned posterior is normal; leave noise at 'normal' beside it.")
    return ConditionalNormal(posterior_factory(in_channels, 2 * added))
