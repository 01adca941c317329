"""Layers that change the dimension of the event."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.distributions.core import Distribution
from likelify.distributions.noise import check_noise
from likelify.distributions.normal import LOG_SQRT_2PI, limit_log_scale, normal_log_prob
from likelify.errors import InexactLikelihoodError, ShapeError
from likelify.names import NoiseName
from likelify.nets import NetFactory, density_nets
from likelify.nets.density import read_net
from likelify.shapes import Shape, along, as_shape, check_size
from likelify.structure import Context, ContextLike, as_context, join_condition, sum_items
from likelify.support import Interval, check_sample
from likelify.transforms.core import Transform, inner_reads

Sides = Sequence[tuple[int, int]]


class Slice(Transform):
    r"""Keep the first channels and give the others their final density: the split prior of multi-scale flows.

    `forward` drops `x_2 = x[:, keep:]` with contribution `log p(x_2 | x_1, context)`, exact; `inverse` draws `x_2`
    (Dinh et al. 2017, section 3.6; as a surjection: Nielsen et al. 2020).

    Args:
        keep: number of channels that are kept.
        distribution: of the dropped channels. Its condition is the kept channels, joined by the outer condition along
            the channel axis; a distribution without a condition ignores it.

    Raises:
        InexactLikelihoodError: if the distribution has no exact log-density.
    """

    random_inverse = True
    keeps_autocast = True
    takes = ("channels", ...)
    reads_condition = inner_reads

    def __init__(self, keep: int, distribution: Distribution) -> None:
        super().__init__()
        _check_exact(distribution, self)
        keep = check_size(keep, "The channels that Slice keeps")
        self.keep = keep
        self.gives = (keep, ...)
        self.distribution = distribution

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Drop the last channels; the contribution is their log-density."""
        self.out_shape(tuple(x.shape[1:]))
        kept, dropped = x[:, : self.keep], x[:, self.keep :]
        return kept, self.distribution.log_prob(dropped, self._inner(kept, context))

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the dropped channels; the contribution is minus their log-density."""
        drawn, log_prob = self.distribution.sample_and_log_prob((), self._inner(z, context))
        return torch.cat([z, drawn], 1), -log_prob

    def carry(self, support: Interval | None) -> Interval | None:
        """Return the same: what is kept stays as it is."""
        return support

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Fill the dropped channels with their noise-free value (temperature zero)."""
        drawn = self.distribution.sample((), replace(self._inner(z, context), temperature=0.0))
        return torch.cat([z, drawn], 1)

    def take_apart(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Return the kept channels, and the normal noise of which a draw of the dropped ones is what they are.

        Raises:
            UnsupportedError: if their distribution is not made of such noise.
        """
        self.out_shape(tuple(x.shape[1:]))
        kept = x[:, : self.keep]
        return kept, self.distribution.to_noise(x[:, self.keep :], self._inner(kept, context))

    def put_together(self, kept: Tensor, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return all channels, the dropped ones made of normal noise: the inverse of `take_apart`.

        Raises:
            UnsupportedError: if their distribution is not made of such noise.
        """
        return torch.cat([kept, self.distribution.from_noise(noise, self._inner(kept, context))], 1)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the distribution with the dropped channels."""
        kept = super().initialize(x, context)
        self.distribution.initialize(x[:, self.keep :], self._inner(kept, context))
        return kept

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the kept channels' shape."""
        if in_shape[0] <= self.keep:
            raise ShapeError(f"Slice(keep={self.keep}) needs more than {self.keep} channels, got {tuple(in_shape)}.")
        return (self.keep, *in_shape[1:])

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the shape with the dropped channels, if their distribution knows how many there are."""
        dropped = self.distribution.event_shape
        if dropped is None or dropped[1:] != latent_shape[1:]:
            return super().data_shape(latent_shape)
        return (self.keep + dropped[0], *latent_shape[1:])

    def _inner(self, kept: Tensor, context: ContextLike) -> Context:
        return replace(as_context(context), condition=join_condition(kept, context), must_be_read=False)


class Augment(Transform):
    r"""Add channels of noise: `z = (x, u)` with `u ~ q(u | x)` and contribution `-log q(u | x)`; a bound.

    The rest of the model then describes `x` and `u` together, and what the bound misses is the Kullback-Leibler
    divergence from `q(u | x)` to the model's own `p(u | x)` (Huang et al. 2020, augmented flows): a learned `q` and
    importance weighting both narrow it. The inverse drops the noise. It is a `Slice` turned round.

    Args:
        added: number of channels that are added.
        distribution: of the added channels. Its condition is `x`, joined by the outer condition along the channel axis:
            `ChannelNoise` for noise of a trained scale, `ConditionalNormal` for a learned posterior.

    Raises:
        InexactLikelihoodError: if the distribution has no exact log-density.

    Example:
        >>> from likelify.distributions import ChannelNoise
        >>> Augment(2, ChannelNoise(2))(torch.zeros(4, 3))[0].shape
        torch.Size([4, 5])
    """

    random_forward = True
    keeps_autocast = True
    takes = ("channels", ...)
    reads_condition = inner_reads

    def __init__(self, added: int, distribution: Distribution) -> None:
        super().__init__()
        _check_exact(distribution, self)
        added = check_size(added, "The channels that Augment adds")
        self.added = added
        self.distribution = distribution

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the new channels."""
        u, log_q = self.distribution.sample_and_log_prob((), noise_context(x, context))
        return torch.cat([x, self._checked(u)], 1), -log_q

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Drop the added channels; the contribution is their log-density."""
        x = self.mean_inverse(z)
        return x, self.distribution.log_prob(z[:, x.shape[1] :], noise_context(x, context))

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fill the new channels with their noise-free value (temperature zero)."""
        return torch.cat([x, self.distribution.sample((), noise_context(x, context, temperature=0.0))], 1)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Drop the added channels."""
        if z.shape[1] <= self.added:
            raise ShapeError(f"Augment({self.added}) needs more than {self.added} channels, got {tuple(z.shape)}.")
        return z[:, : z.shape[1] - self.added]

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape with the added channels."""
        return (in_shape[0] + self.added, *in_shape[1:])

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the shape without the added channels."""
        if latent_shape[0] <= self.added:
            raise ShapeError(f"Augment({self.added}) needs more than {self.added} channels, got {tuple(latent_shape)}.")
        return (latent_shape[0] - self.added, *latent_shape[1:])

    def _checked(self, u: Tensor) -> Tensor:
        if u.shape[1] != self.added:
            raise ShapeError(f"added is {self.added}, the distribution of Augment draws {u.shape[1]} channels.")
        return u


def noise_context(x: Tensor, context: ContextLike, *, temperature: float = 1.0) -> Context:
    """Return the context of noise that is added to `x`: it belongs to the likelihood, not to the temperature."""
    return Context(join_condition(x, context), as_context(context).structure, temperature, must_be_read=False)


class Pad(Transform):
    r"""Surround an event with new positions: `value + noise`; a bound, whose mean path is constant padding.

    With `n` new elements of a channel and normal noise of scale `A`, the contribution is
    `n (log(2 pi) / 2 + log A) + |u|^2 / (2 A^2)`; uniform noise within `A / 2` gives `n log A`. The inverse crops.

    Args:
        in_shape: `(channels, *positions)` of the data.
        pads: for each position axis how many positions come in front and behind.
        value: what the noise is added to.
        noise: `"normal"` or `"uniform"`; its scale is trained, one for each channel.

    Source:
        Mate et al. 2022, section 3.2 and appendix B.

    Example:
        >>> Pad((1, 2, 2), ((0, 1), (1, 0))).mean_forward(torch.ones(1, 1, 2, 2))
        tensor([[[[0., 1., 1.],
                  [0., 1., 1.],
                  [0., 0., 0.]]]])
    """

    random_forward = True
    new: Tensor

    def __init__(self, in_shape: Shape, pads: Sides, *, value: float = 0.0, noise: NoiseName = "normal") -> None:
        super().__init__()
        check_noise(noise)
        _check_sides(in_shape, pads, "Pad")
        self.in_shape, self.pads = tuple(in_shape), tuple((before, after) for before, after in pads)
        self.noise, self.value = noise, value
        self.log_scale = nn.Parameter(torch.zeros(in_shape[0]))
        new = F.pad(torch.zeros(self.in_shape[1:]), _flat(self.pads), value=1.0)
        self.takes, self.gives = self.in_shape, (in_shape[0], *new.shape)
        self.register_buffer("new", new, persistent=False)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Pad with noise."""
        z = self.mean_forward(x, context)
        u = torch.randn_like(z) if self.noise == "normal" else torch.rand_like(z) - 0.5
        u = u * self.new
        return z + along(self.log_scale.exp(), z.ndim) * u, -self._log_q(u, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Crop; the contribution is the log-density of the noise."""
        u = (z - self.value) * self.new / along(self.log_scale.exp(), z.ndim)
        return self._crop(z), self._log_q(u, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Pad with the constant value."""
        return F.pad(x, _flat(self.pads), value=self.value)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Crop."""
        return self._crop(z)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the shape with the new positions."""
        return (in_shape[0], *self.new.shape)

    def _crop(self, z: Tensor) -> Tensor:
        return F.pad(z, [-side for side in _flat(self.pads)])

    def _log_q(self, u: Tensor, context: ContextLike) -> Tensor:
        """Return the log-density of noise `u` in units of its scale, zero at the old positions."""
        if self.noise == "normal":
            each = -0.5 * u * u - LOG_SQRT_2PI * self.new
        else:
            each = torch.where(u.abs() <= 0.5, 0.0, -math.inf).to(u.dtype)
        return sum_items(each - along(self.log_scale, u.ndim) * self.new, context)


class MissingElements(nn.Module):
    r"""A conditional density of the elements at fixed positions, given those at all others.

    `p(x_missing | x_rest)` is normal; a network of the event with zeros in place of what is missing, and of a channel
    that marks these places, gives means and scales.

    Args:
        in_shape: `(channels, *positions)` of the whole event.
        missing: boolean, `positions`.
        net_factory: makes the network, with `channels + 1` inputs and `2 channels` outputs.
    """

    joins_condition = True

    missing: Tensor
    places: Tensor

    def __init__(self, in_shape: Shape, missing: Tensor, net_factory: NetFactory | None = None) -> None:
        super().__init__()
        channels = in_shape[0]
        self.net = (net_factory or density_nets(len(in_shape) - 1))(channels + 1, 2 * channels)
        self.loc = nn.Parameter(torch.zeros(channels, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1))
        self.register_buffer("missing", missing, persistent=False)
        self.register_buffer("places", missing.flatten().nonzero()[:, 0], persistent=False)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of the missing elements of whole events, `(items,)` in nats."""
        loc, log_scale = self._moments(self.hidden(x), context)
        return sum_items(normal_log_prob(x.flatten(2)[:, :, self.places], loc, log_scale), context)

    def fill(self, known: Tensor, context: ContextLike = None, *, temperature: float | None = None) -> Tensor:
        """Draw the missing elements of events that hold zeros there; the temperature is the context's or the given."""
        loc, log_scale = self._moments(known, context)
        temperature = as_context(context).temperature if temperature is None else temperature
        drawn = loc + temperature * log_scale.exp() * torch.randn_like(loc)
        return known + torch.zeros_like(known).flatten(2).index_copy(2, self.places, drawn).reshape(known.shape)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the events with zeros in place of the missing elements."""
        return x.masked_fill(self.missing, 0.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Set means and scales of the channels to those of the sample."""
        check_sample(x, self)
        if not len(self.places):
            return
        with torch.no_grad():
            values = x.flatten(2)[:, :, self.places].transpose(0, 1).flatten(1)
            self.loc.copy_(values.mean(1, keepdim=True))
            self.log_scale.copy_(values.std(1, keepdim=True, correction=0).clamp_min(1e-3).log())

    def _moments(self, known: Tensor, context: ContextLike) -> tuple[Tensor, Tensor]:
        mark = self.missing.to(known.dtype).expand(len(known), 1, *self.missing.shape)
        seen = torch.cat([known, mark], 1)
        found = read_net(self.net, seen, context, 2 * known.shape[1]).flatten(2)[:, :, self.places]
        log_scale, loc = found.chunk(2, dim=1)
        return self.loc + self.log_scale.exp() * loc, self.log_scale + limit_log_scale(log_scale)


class Crop(Transform):
    r"""Keep the inner positions of an event and give the border its density given them: exact.

    `forward` drops the border with contribution `log p(border | inside)`, the dual of `Pad`; `inverse` draws it.

    Args:
        in_shape: `(channels, *positions)` of the data.
        crops: for each position axis how many positions are cut in front and behind.
        net_factory: makes the network of `MissingElements`.
    """

    random_inverse = True

    def __init__(self, in_shape: Shape, crops: Sides, *, net_factory: NetFactory | None = None) -> None:
        super().__init__()
        _check_sides(in_shape, crops, "Crop")
        self.in_shape, self.crops = tuple(in_shape), tuple((before, after) for before, after in crops)
        if any(sum(crop) >= n for n, crop in zip(in_shape[1:], crops, strict=True)):
            raise ShapeError(f"Crop{self.crops} leaves nothing of events {self.in_shape}.")
        self.takes, self.gives = self.in_shape, self.out_shape(self.in_shape)
        border = F.pad(torch.zeros(self.gives[1:]), _flat(self.crops), value=1.0).bool()
        self.border = MissingElements(self.in_shape, border, net_factory)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Cut the border off."""
        return self.mean_forward(x), self.border.log_prob(x, context)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw the border."""
        x = self.border.fill(self._framed(z), context)
        return x, -self.border.log_prob(x, context)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Cut the border off."""
        return F.pad(x, [-side for side in _flat(self.crops)])

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Fill the border with its mean."""
        return self.border.fill(self._framed(z), context, temperature=0.0)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize the density of the border."""
        self.border.initialize(x, context)
        return super().initialize(x, context)

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the inner shape."""
        return (in_shape[0], *(n - sum(crop) for n, crop in zip(in_shape[1:], self.crops, strict=True)))

    def _framed(self, z: Tensor) -> Tensor:
        return F.pad(z, _flat(self.crops))


def _flat(sides: Sides) -> list[int]:
    """Order sides as torch's pad wants them: the last axis first."""
    return [side for pair in reversed(sides) for side in pair]


def _check_exact(distribution: Distribution, layer: nn.Module) -> None:
    if distribution.likelihood != "exact":
        raise InexactLikelihoodError(f"{type(layer).__name__} needs a distribution with an exact log_prob.")


def _check_sides(in_shape: Shape, sides: Sides, name: str) -> None:
    pairs = len(sides) == len(as_shape(in_shape)) - 1 > 0 and all(len(pair) == 2 for pair in sides)
    if not pairs or any(side < 0 for pair in sides for side in pair):
        raise ShapeError(
            f"{name} needs (before, after), not negative, for each position axis of {as_shape(in_shape)}, got {sides}."
        )
