"""The pyramid: an image from coarse to fine, each grey level with its own exact probability."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from likelify.distributions.normal import LOG_SQRT_2PI, probability_below
from likelify.errors import ConfigError, UnsupportedError
from likelify.linalg.bounds import widest, widest_dtype
from likelify.nets.planes import PlaneNet, around, detail, predicted, surrounding
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, ContextLike, as_context, sum_items, with_condition
from likelify.support import check_domain, check_sample
from likelify.transforms.core import Transform
from likelify.transforms.inversion import EXACT
from likelify.transforms.levels.mixture import as_levels, level_at, log_mass, noise_of
from likelify.transforms.levels.planes import (
    by_colour,
    filled,
    from_colours,
    image_sizes,
    plane,
    served_by,
    written_places,
)

Place = tuple[int, int]
# Makes the network of a plane from the places of the known planes, its own place and its sizes on the levels that the
# network serves, the coarsest first.
NetFactory = Callable[[Sequence[Place], Place, Sequence[tuple[int, int]]], PlaneNet]

# Elements of the sample that predictions are fitted to.
SAMPLE = 2**20


class _Written:
    """What networks gave for the elements of a batch, in the order in which they are written."""

    def __init__(self) -> None:
        self.raw: list[Tensor] = []
        self.centre: list[Tensor] = []

    def add(self, raw: Tensor, centre: Tensor) -> None:
        """Add parameters `(channels, n, size)` and centres `(channels, n)` of a plane."""
        self.raw.append(raw.flatten(0, 1))
        self.centre.append(centre.flatten())

    def joined(self) -> tuple[Tensor, Tensor]:
        """Return parameters `(size, n)` and centres `(n,)` of all."""
        return torch.cat(self.raw).mT.contiguous(), torch.cat(self.centre)


class LevelPyramid(Transform):
    r"""Map images of whole grey levels to normal noise, with the exact probability of each.

    From a single pixel on, an image is doubled until it has its size: at each level the planes (1, 1), (0, 1) and
    (1, 0) of its pixels `(2 i + a, 2 j + b)` are written given plane (0, 0), which is the image before, and the planes
    written already; within a plane one channel is written after the other. Every element has a mixture over its levels
    whose parameters a network reads off what is known, so that

        log p(x) = sum_i log m_i(x_i),        m_i(j) = F_i(j + 1) - F_i(j),

    is the probability of the *integers* themselves: nothing is dequantized, and there is no gap. As a layer the pyramid
    maps the level `j` to `z = Phi^-1((F(j) + F(j + 1)) / 2)`, the noise in the middle of those that `inverse` maps to
    it, and contributes `log m - log phi(z)`, so that behind it a standard normal base cancels. Behind any other base,
    or with a layer in between, what is left would be no probability, and a flow refuses it.

    The round trip from integers to noise and back is exact where both ways are called with the same rows. In float32
    networks may round differently in batches of another size, and where a probability is within rounding of the end of
    a level, one pixel can then become its neighbour, on which all later ones depend: take float64 where noise and
    pixels must belong to one another in any batch.

    Args:
        event_shape: `(channels, height, width)`, of any size.
        levels: number of values; the integers are `0 .. levels - 1`.
        net_factory: makes the networks, see `zoo.pyramid`.
        components: logistics of each mixture.
        shared: whether a plane has one network on all levels, which keeps of each level what it starts from; otherwise
            each level has networks of its own.

    Raises:
        ConfigError: if a network is of other planes or another number of levels than it is asked for, or the factory
            gives one twice.
        DomainError: for values that are not integers of the range.
        ShapeError: for images of another shape.
        UnsupportedError: if the factory makes something else than `nets.PlaneNet`.
    """

    takes_integers = True
    writes_elements = True
    inverse_check = EXACT

    def __init__(
        self, event_shape: Shape, levels: int, net_factory: NetFactory, *, components: int = 5, shared: bool = False
    ) -> None:
        super().__init__()
        self.takes = self.event_shape = as_shape(event_shape, least=1)
        self.levels = as_levels(levels, components, "LevelPyramid")
        self.sizes = image_sizes(*self.event_shape[1:])
        channels = self.event_shape[0]
        self.top = _made(net_factory, channels, [], (0, 0), [(1, 1)])
        self._served = served_by(self.sizes, shared=shared)
        self.nets = nn.ModuleList(
            _made(net_factory, channels, known, place, [self.sizes[level - 1] for level in levels])
            for known, place, levels in self._served
        )
        if len({self.top, *self.nets}) <= len(self.nets):
            raise ConfigError(
                "The factory of a LevelPyramid gave the same network more than once. With shared=True it is asked once "
                "for each plane, and the network serves all levels."
            )

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map levels to the noise in their middle; the contribution is their log-probability less that of the noise."""
        x = self._checked(x)
        written = self._read(self.levels.middle(x), as_context(context))
        raw, centre = written.joined()
        places = self._places(x)
        level = _at(x, places)
        noise = noise_of(self.levels, raw, centre, level).to(x.dtype)
        log_m = log_mass(self.levels, raw, centre, level)
        z = _put(noise, places, x)
        return z, self._contribution(log_m, places, z, context)

    def random_latent(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Draw noise that `inverse` maps to images, anywhere in their levels: standard normal if the model is right.

        That in the middle of levels, which the call gives, is less spread where levels are probable.
        """
        x = self._checked(x)
        raw, centre = self._read(self.levels.middle(x), as_context(context)).joined()
        places = self._places(x)
        level = _at(x, places)
        share = torch.rand(level.shape, dtype=widest_dtype(x.device), device=x.device).clamp(1e-6, 1 - 1e-6)
        return _put(noise_of(self.levels, raw, centre, level, share).to(x.dtype), places, x)

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit to a sample what has a closed form: predictions of planes by least squares, and how wide mixtures are."""
        x = self._checked(x)
        check_sample(x, self)
        # Some hundred small images are enough, a few large ones have as many pixels.
        few = max(1, SAMPLE // x[0].numel())
        with torch.no_grad():
            self._fit_all(self.levels.middle(x[:few]))
            return torch.cat([self(part, given)[0] for part, given in _parts(x, context, few)])

    def _fit_all(self, image: Tensor) -> None:
        for level, stride in enumerate(self._strides()):
            view = image[..., ::stride, ::stride]
            if level == 0:
                self._fit(self.top, 0, view[:, :0], torch.zeros_like(view), view)
                continue
            coarse = plane(view, (0, 0))
            planes = [around(coarse)]
            for net, number in self._nets_at(level):
                target = filled(plane(view, net.place), coarse)
                near = predicted(planes, net.known, net.place)
                self._fit(net, number, torch.cat(planes, 1), near, target)
                planes.append(around(target))

    def _fit(self, net: PlaneNet, number: int, read: Tensor, near: Tensor, target: Tensor) -> None:
        left = net.fit(read, near, target, number)
        # A logistic deviates from its middle by 2 log 2 of its scale, on average.
        scale = ((left - left.mean(1, keepdim=True)).abs().mean(1) / (2 * math.log(2))).clamp_min(1 / self.levels.count)
        k = self.levels.components
        bias = net.heads.bias[number]
        bias[:, 2 * k + 2 :] = self.levels.around(scale).mT
        bias[:, k + 2 : 2 * k + 2] = left.mean(1)[:, None] / self.levels.split(bias.mT)[2].mT.exp()

    def log_masses(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-probability of each element given those that are written before it, in nats."""
        x = self._checked(x)
        raw, centre = self._read(self.levels.middle(x), as_context(context)).joined()
        places = self._places(x)
        return _put(log_mass(self.levels, raw, centre, _at(x, places)), places, x)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Find the levels to which noise belongs, from the coarsest pixel on; the contribution is that of `forward`.

        No gradient reaches whole numbers; the contribution has those of the probabilities.
        """
        x, written = self._drawn(z, as_context(context))
        raw, centre = written.joined()
        places = self._places(x)
        log_m = log_mass(self.levels, raw, centre, _at(x, places))
        return x, -self._contribution(log_m, places, z, context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Find the levels to which noise belongs."""
        with torch.no_grad():
            return self._drawn(z, as_context(context))[0]

    def _checked(self, x: Tensor) -> Tensor:
        # Converted before it is compared: as an 8-bit number, 256 is 0.
        x = x if x.is_floating_point() else x.to(self.top.links.dtype)
        top = self.levels.count
        check_domain((x >= 0) & (x < top) & (x == x.floor()), self, f"the integers 0..{top - 1}")
        return x.detach()

    def _places(self, x: Tensor) -> Tensor:
        return written_places(self.event_shape, len(x), x.device)

    def _contribution(self, log_m: Tensor, places: Tensor, z: Tensor, context: ContextLike) -> Tensor:
        """Add up log-probabilities `(n,)` by images, less the log-density of the noise."""
        by_element = _put(log_m, places, z)
        return sum_items(by_element + 0.5 * z.detach().square() + LOG_SQRT_2PI, context)

    def _read(self, image: Tensor, context: Context) -> _Written:
        """Let all networks read images that are known, on the scale from -1 to 1."""
        written = _Written()
        for stage in self.stages(image, context):
            written.add(*stage.parameters(by_colour(filled(stage.own, stage.coarse))))
        return written

    def _drawn(self, z: Tensor, context: Context) -> tuple[Tensor, _Written]:
        """Find the levels of noise from the top on, and what the networks gave for them."""
        written, image, x = _Written(), torch.empty_like(z), torch.empty_like(z)
        probability = probability_below(widest(z))
        for stage in self.stages(image, context):
            own = filled(stage.of(probability), torch.full_like(stage.coarse, 0.5, dtype=probability.dtype))
            levels, parameters = self._draw(stage, by_colour(own))
            size = stage.own.shape[-2:]
            found = from_colours(levels, stage.coarse.shape[-2:])[..., : size[0], : size[1]]
            stage.of(x).copy_(found)
            stage.own.copy_(self.levels.middle(found.to(z.dtype)))
            written.add(*parameters)
        return x, written

    def _draw(self, stage: Stage, probability: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Find the levels of a plane, `(channels, n)`, one channel after the other; also return the parameters."""
        levels = torch.zeros_like(probability)
        target = torch.zeros_like(stage.prediction)
        raw, centre = stage.parameters(target)
        for channel in range(len(levels)):
            if channel:
                raw, centre = stage.parameters(target)
            levels[channel] = level_at(self.levels, raw[channel].mT, centre[channel], probability[channel])
            # Not in place, because gradients may need what was there.
            known = [*target[:channel], self.levels.middle(levels[channel].to(target.dtype)), *target[channel + 1 :]]
            target = torch.stack(known)
        return levels, (raw, centre)

    def _nets_at(self, level: int) -> list[tuple[PlaneNet, int]]:
        """Return the networks of the planes of a level, each with the number that this level is of its own."""
        return [
            (net, served.levels.index(level))  # pyright: ignore[reportReturnType]
            for net, served in zip(self.nets, self._served, strict=True)
            if level in served.levels
        ]

    def _strides(self) -> list[int]:
        """Return for each level how far its pixels are apart in the whole image."""
        return [2**level for level in reversed(range(len(self.sizes)))]

    def stages(self, image: Tensor, context: Context) -> Iterator[Stage]:
        """Give what is to be written, one plane after the other; images may be filled in meanwhile."""
        empty = image.new_zeros(len(image), 0, 1, 1)
        for level, (size, stride) in enumerate(zip(self.sizes, self._strides(), strict=True)):
            view = image[..., ::stride, ::stride]
            if level == 0:
                features, prediction = self.top(empty, size, context)
                prediction = by_colour(prediction)
                yield Stage(self.top, 0, stride, features, prediction, torch.zeros_like(prediction), view, view)
                continue
            coarse = plane(view, (0, 0))
            planes, details = [around(coarse)], [around(detail(coarse - surrounding(coarse)))]
            for net, number in self._nets_at(level):
                read = torch.cat([*planes, *details], 1)
                features, change = net(read, tuple(coarse.shape[-2:]), context, number)
                near, own = predicted(planes, net.known, net.place), plane(view, net.place)
                middle = by_colour(near)
                prediction = net.moved(middle, by_colour(change), number)
                yield Stage(net, number, stride, features, prediction, middle, own, coarse)
                known = filled(own, coarse)
                planes.append(around(known))
                details.append(around(detail(known - near)))


class Stage(NamedTuple):
    """A plane that is to be written.

    Attributes:
        net: its network.
        number: which of the levels that the network serves this is.
        stride: of the level's image in the whole one.
        features: that the network found, `(n, width)`.
        prediction: of the network, `(channels, n)`.
        near: means of the neighbours, `(channels, n)`.
        own: the plane, as far as it is known, a view of the image.
        coarse: plane (0, 0) of the level, which has its size or is one larger.
    """

    net: PlaneNet
    number: int
    stride: int
    features: Tensor
    prediction: Tensor
    near: Tensor
    own: Tensor
    coarse: Tensor

    def parameters(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixtures `(channels, n, size)` and their centres `(channels, n)`, given the elements of the plane."""
        raw = self.net.heads(self.features, detail(target - self.near), self.number)
        return raw, self.net.centres(self.prediction, target - self.prediction, self.number)

    def of(self, image: Tensor) -> Tensor:
        """Return the same plane of another image, a view."""
        return (
            plane(image[..., :: self.stride, :: self.stride], self.net.place)
            if self.net.known
            else (image[..., :: self.stride, :: self.stride])
        )


def _parts(x: Tensor, context: ContextLike, size: int) -> Iterator[tuple[Tensor, ContextLike]]:
    """Give images and their conditions, some at a time."""
    given = as_context(context)
    for start in range(0, len(x), size):
        some = None if given.condition is None else given.condition[start : start + size]
        yield x[start : start + size], with_condition(given, some)


def _at(x: Tensor, places: Tensor) -> Tensor:
    """Return the elements of a batch at places `(n,)`, and 0 where there is none."""
    return torch.cat([x.flatten(), x.new_zeros(1)])[places]


def _put(values: Tensor, places: Tensor, like: Tensor) -> Tensor:
    """Return values `(n,)` at their places in a batch."""
    found = values.new_zeros(like.numel() + 1).index_copy(0, places, values)
    return found[:-1].view(like.shape)


def _made(
    net_factory: NetFactory,
    channels: int,
    known: Sequence[Place],
    place: Place,
    sizes: Sequence[tuple[int, int]],
) -> PlaneNet:
    net = net_factory(list(known), place, sizes)
    if not isinstance(net, PlaneNet):
        raise UnsupportedError(
            f"The networks of a LevelPyramid are of the kind nets.PlaneNet, not {type(net).__name__}."
        )
    if net.levels != len(sizes):
        raise ConfigError(
            f"The network of plane {place} is made for {net.levels} levels, and in this LevelPyramid it serves "
            f"{len(sizes)}: give nets.PlaneNet levels=len(sizes)."
        )
    asked = {"channels": (net.channels, channels), "known": (list(net.known), list(known)), "place": (net.place, place)}
    if net.is_aligned:
        asked["positions"] = (net.positions, list(sizes))
    for name, (own, wanted) in asked.items():
        if own != wanted:
            raise ConfigError(f"The network of plane {place} has {name}={own}; the factory was asked for {wanted}.")
    return net
