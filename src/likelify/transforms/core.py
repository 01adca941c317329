r"""The contract of every layer, and the layers made of layers.

A layer maps data to latent in `forward` and latent to data in `inverse`; both return the value and a *contribution*,
one number per item, such that

    log p(x) = log p(z) + contribution

is exact for bijections (the contribution is `log |det dz/dx|`) and for layers that draw only in the inverse, and an
unbiased estimate `p(x) = E[p(z) exp(contribution)]` for layers that draw in `forward` (Nielsen et al. 2020, SurVAE).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, overload

import torch
from torch import Tensor, nn

from likelify.caching import freeze
from likelify.calling import parts_read
from likelify.distributions.core import Distribution, Likelihood
from likelify.errors import ConfigError, ShapeError, StateError, UnsupportedError
from likelify.shapes import EventShape, Shape, as_shape, check_event, kept_arguments
from likelify.structure import ContextLike
from likelify.support import Interval
from likelify.transforms import watching
from likelify.transforms.inputs import CHECKED, checked, instead_of
from likelify.transforms.inversion import InverseCheck, Inversion
from likelify.transforms.shapes import behind, events_behind

# Name of a buffer -> what it has to be, in words, and the test of that.
BufferRules = Mapping[str, tuple[str, Callable[[Tensor], Tensor | bool]]]


def derived(fact: Callable[[Any], Any]) -> Any:
    """Return a fact of a layer that follows from others at any time."""
    # Not typed as a property, which type checkers do not let stand for an attribute.
    return property(fact)


# Of a layer that hands its own elements to distributions, joined by the condition of the caller.
inner_reads = derived(
    lambda layer: any(inner.reads_outer_condition for inner in layer.children() if isinstance(inner, Distribution))
)


class Transform(nn.Module):
    r"""A layer of a flow: it maps data to latent and back, and says what that contributes to `log p(x)`.

    Write `forward` and `inverse`, and `out_shape` if the shape changes; declare the facts that are not the default.
    Rules: the contribution has one number per item in the dtype of the value; inputs are never modified; nothing is
    remembered from the last call; nothing depends on `train()` or `eval()`. A layer made of layers is a `Composite`,
    whose facts are those of its parts.

    Attributes:
        random_forward: `forward` draws at random, so the likelihood is a bound.
        random_inverse: `inverse` draws at random, so a round trip latent to data to latent is not the identity.
        noisy_log_det: the contribution is itself an unbiased estimate.
        has_atoms: the latent takes some values with positive probability, so its base has to give them one.
        takes_integers: data in an integer dtype are what the layer is for.
        keeps_integers: integers become whole numbers, which are then raw data of the layer behind.
        writes_elements: data are whole numbers, each with a probability of its own given those written before it (see
            `log_masses`); the latent is standard normal noise that stands for them. A flow refuses any base but a
            standard normal one behind such a layer, and anything between the two.
        takes_float64: data in float64 are what the layer is for, whatever the dtype of the flow.
        takes_missing: data may be missing (NaN) and still have a likelihood, and `inverse` gives such data.
        moves_elements: the latent holds the elements of the data, in other places.
        keeps_autocast: networks inside work in the precision of `torch.autocast`. The layer raises to float32 what they
            give; layers without this fact leave autocast altogether, so that contributions are never in half precision.
        shown_as: what refusals of shapes call it, if not by its class: the function that made it.
        takes: events of the data that the layer was built for, such as `(channels, ...)` (see `check_event`); None for
            any. Inputs of all methods are compared with it, and refused with a `ShapeError`, before they are called.
        gives: the same for the latent; None if it is as for the data.
        inverse_check: what is looked at after `inverse` and `mean_inverse`, which raise a `ConvergenceError` if the
            result cannot be trusted; None if no rounding can spoil it, as in elementwise formulas and rotations.
            Layers that draw at random are not looked at, whatever they say.
        domain: where the elements of the data must lie; None for anywhere.
        image: where those of the latent lie; None for anywhere. A flow refuses a base that reaches further.
        fills_space: a bijection of the whole space onto itself: a latent everywhere needs data everywhere.
        keeps_shape: whether the latent has the shape of the data; by default, unless `out_shape` is overridden.
        reads_condition: whether it, or a network or layer inside, may read the condition of the context.
        buffer_rules: what buffers that only construction or `initialize` set have to be; other states are refused.
    """

    random_forward: bool = False
    random_inverse: bool = False
    noisy_log_det: bool = False
    has_atoms: bool = False
    takes_integers: bool = False
    keeps_integers: bool = False
    writes_elements: bool = False
    takes_float64: bool = False
    takes_missing: bool = False
    moves_elements: bool = False
    keeps_autocast: bool = False
    shown_as: str | None = None
    takes: EventShape | None = None
    gives: EventShape | None = None
    inverse_check: InverseCheck | None = InverseCheck()
    domain: Interval | None = None
    image: Interval | None = None
    fills_space: bool = False
    keeps_shape: bool = derived(lambda layer: type(layer).out_shape is Transform.out_shape)
    reads_condition: bool = derived(parts_read)
    buffer_rules: ClassVar[BufferRules] = {}
    extra_repr = kept_arguments

    def __init_subclass__(cls, *, checks: bool = True, **settings: Any) -> None:
        # Classes say `checks=False` if what they are made of looks at the shapes of inputs already.
        super().__init_subclass__(**settings)
        for name in CHECKED.keys() & vars(cls).keys():
            setattr(cls, name, checked(vars(cls)[name], CHECKED[name] if checks else None))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *how: Any, **named: Any) -> None:
        for name, (meaning, holds) in self.buffer_rules.items():
            given, own = state_dict.get(prefix + name), self.get_buffer(name)
            # Another shape is what PyTorch refuses by itself.
            if isinstance(given, Tensor) and given.shape == own.shape and not bool(holds(given)):
                raise StateError(
                    f"'{prefix}{name}' of {type(self).__name__} must be {meaning}, and what is to be loaded is not. "
                    "The state dictionary is damaged, was changed, or belongs to another layer."
                )
        super()._load_from_state_dict(state_dict, prefix, *how, **named)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map data to latent: `(rows, *in_shape)` to `(rows, *out_shape)`, and the contribution `(items,)` in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no forward.")

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Map latent to data; the contribution is minus that of `forward` on the same pair."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse.")

    def checked_inverse(self, z: Tensor, context: ContextLike = None, *, throw: bool = True) -> Inversion:
        """Map latent to data, look at every row in every layer, and report what was found.

        Args:
            z: `(rows, *out_shape)`.
            context: as for `inverse`.
            throw: False to get the result of inverses that cannot be trusted too; look at its `reports`.

        Raises:
            ConvergenceError: if a row cannot be trusted, as its `diagnostics` say, or a solver found no result.
        """
        return watching.inspected(self, z, context, throw=throw)

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Map data to latent without noise and without likelihood; for bijections the same as the call."""
        if self.random_forward:
            raise NotImplementedError(f"{type(self).__name__} has no noise-free forward.")
        return self(x, context)[0]

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Map latent to data without noise and without likelihood; for bijections the same as `inverse`."""
        if self.random_inverse:
            raise NotImplementedError(f"{type(self).__name__} has no noise-free inverse.")
        return self.inverse(z, context)[0]

    def random_latent(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Draw one of the latents that stand for data; of a bijection there is but one, which the call gives."""
        return self(x, context)[0]

    def log_masses(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-probability of each element given those that are written before it, in nats.

        They add up to that of the event. Among several elements none is to blame alone: what is surprising of the first
        one is expected of those behind it.

        Args:
            x: whole numbers `(rows, *event)`.
            context: as for the call.

        Returns:
            One number for each element, of the shape of the data.

        Raises:
            UnsupportedError: if elements have no probability of their own (`writes_elements`).
        """
        raise UnsupportedError(f"The elements of data have no probability of their own in {type(self).__name__}.")

    def out_shape(self, in_shape: Shape) -> Shape:
        """Return the event shape of the latent for data events of that shape."""
        if self.takes is not None:
            check_event(as_shape(in_shape), self.takes, type(self).__name__)
        return as_shape(in_shape)

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Return the event shape of the data for latents of that shape, where it can be told.

        Raises:
            ShapeError: if there are no such latents.
            UnsupportedError: if it cannot be told.
        """
        latent, takes = as_shape(latent_shape), self.takes
        if self.gives is not None or self.keeps_shape:
            check_event(latent, self.gives or takes or (...,), type(self).__name__)
        if takes is not None and all(isinstance(size, int) for size in takes):
            return takes  # pyright: ignore[reportReturnType]
        if self.keeps_shape:
            return latent
        if takes is not None and isinstance(takes[0], int):
            # A layer that changes the channels and may leave the positions as they are.
            candidate = (takes[0], *latent[1:])
            with suppress(ShapeError):
                if self.out_shape(candidate) == latent:
                    return candidate
        raise UnsupportedError(
            f"The data shape of {type(self).__name__} cannot be told from its latent shape; "
            "trace it forward instead: transform.out_shape(data_shape)."
        )

    def events_behind(self, known: EventShape | None) -> EventShape | None:
        """Return what is known of the events of the latent, given what is known of those of the data.

        Raises:
            ShapeError: if there is no place for these in the layer.
        """
        return behind(self, known)

    def carry(self, support: Interval | None) -> Interval | None:
        """Return where the elements of the latent lie if those of the data lie there; None for anywhere."""
        return support if self.moves_elements else self.image

    def confine(self, before: Transform | None) -> Transform | None:
        """Return the layer that keeps some elements of the latent within its image, None if they reach everywhere.

        Args:
            before: the layer that does so to the data, if there is one.
        """
        if self.image is not None:
            return self
        if before is None or self.fills_space or self.moves_elements:
            return before
        return before if self.carry(before.image) is not None else None

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Fit what depends on data (statistics, marginals) to a sample of it, once; return the layer's output.

        The only data-dependent step there is. Layers without such parts just map the sample on.
        """
        with torch.no_grad():
            return self(x, context)[0]

    @property
    def likelihood(self) -> Likelihood:
        """What the contribution gives: an exact log-density, a bound of it, or a noisy estimate."""
        return "estimate" if self.noisy_log_det else "bound" if self.random_forward else "exact"

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Cache what depends on parameters alone (kernels, inverse matrices) inside a ``with`` block.

        For evaluation and sampling: parameters count as constants inside, and no gradient reaches what is cached. Do
        not train inside: a parameter that was changed in place or replaced raises `StateError` when its cache is used
        next, but changes that PyTorch does not count (a fused optimizer's) cannot be noticed. The caches are dropped on
        exit, and belong to the thread that opened the block: another may train meanwhile, or open its own.
        """
        with freeze(self):
            yield


class Composite(Transform, ABC):
    """A layer made of layers. Write `parts`; its facts are those of the parts as they are now, and never stored."""

    made_of_layers = True
    keeps_autocast = True
    random_forward = derived(lambda layer: any(part.random_forward for part in layer.parts()))
    random_inverse = derived(lambda layer: any(part.random_inverse for part in layer.parts()))
    noisy_log_det = derived(lambda layer: any(part.noisy_log_det for part in layer.parts()))
    has_atoms = derived(lambda layer: any(part.has_atoms for part in layer.parts()))
    takes_integers = derived(lambda layer: any(part.takes_integers for part in _entrance(layer)))
    takes_float64 = derived(lambda layer: any(part.takes_float64 for part in _entrance(layer)))
    takes_missing = derived(lambda layer: any(part.takes_missing for part in _entrance(layer)))
    moves_elements = derived(lambda layer: all(part.moves_elements for part in layer.parts()))
    keeps_integers = derived(lambda layer: not _entrance(layer))
    inverse_check = None
    keeps_shape = derived(lambda layer: all(part.keeps_shape for part in layer.parts()))
    fills_space = derived(lambda layer: all(part.fills_space or part.moves_elements for part in layer.parts()))

    @abstractmethod
    def parts(self) -> Sequence[Transform]:
        """Return the layers in the order in which data meet them."""


def _entrance(layer: Composite) -> list[Transform]:
    """Return the first part that does more than move elements or change integers, which is the one raw data meet."""
    return [part for part in layer.parts() if not (part.moves_elements or part.keeps_integers)][:1]


def require_transforms(name: str, *layers: object) -> None:
    """Refuse what stands in the place of a layer and is none, with what to do about it.

    Raises:
        UnsupportedError: if there is such a part.
    """
    for layer in layers:
        if not isinstance(layer, Transform):
            raise UnsupportedError(
                f"{name} takes Transforms, not {type(layer).__name__}. {instead_of(layer, Transform)}"
            )


def require_writer(transform: Transform, what: str) -> None:
    """Refuse layers that give elements no probability of their own.

    Raises:
        ConfigError: with what is to be done instead.
    """
    if not transform.writes_elements:
        raise ConfigError(
            f"Pixels have a probability of their own in models that write one after the other, such as pyramid, and "
            f"this one is not of that kind. {what}"
        )


class Chain(Composite, checks=False):
    """Several layers one after the other, in the order data meets them.

    Example:
        >>> from likelify.transforms.elementwise import Affine
        >>> chain = Chain([Affine(shift=1.0), Affine(scale=2.0)])
        >>> z, log_det = chain(torch.tensor([[0.0, 1.0]]))
        >>> z
        tensor([[2., 4.]])
    """

    def __init__(self, transforms: Sequence[Transform], *more: Transform) -> None:
        super().__init__()
        if more or not isinstance(transforms, Iterable) or isinstance(transforms, Transform):
            raise UnsupportedError(
                "Chain takes one list of layers, in the order in which data meet them: lk.Chain([first, second])."
            )
        layers = list(transforms)
        require_transforms("Chain", *layers)
        self.transforms = nn.ModuleList(layers)
        self.events_behind(None)

    def parts(self) -> Sequence[Transform]:
        """Return the layers in their order."""
        return list(self)

    def __len__(self) -> int:
        return len(self.transforms)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)  # pyright: ignore[reportReturnType]

    @overload
    def __getitem__(self, index: int) -> Transform: ...
    @overload
    def __getitem__(self, index: slice) -> Chain: ...
    def __getitem__(self, index: int | slice) -> Transform | Chain:
        part = list(self)[index]
        return Chain(part) if isinstance(part, list) else part

    domain = derived(lambda layer: next((part.domain for part in layer if not part.moves_elements), None))
    image = derived(lambda layer: layer.carry(None))

    # Of pixels that are moved the probabilities would be elsewhere.
    writes_elements = derived(
        lambda layer: (
            bool(parts := list(layer))
            and parts[-1].writes_elements
            and all(part.keeps_integers and not part.moves_elements for part in parts[:-1])
        )
    )

    def carry(self, support: Interval | None) -> Interval | None:
        """Pass the interval through all layers."""
        for transform in self:
            support = transform.carry(support)
        return support

    def confine(self, before: Transform | None) -> Transform | None:
        """Pass through all layers what keeps elements within its image."""
        for transform in self:
            before = transform.confine(before)
        return before

    def events_behind(self, known: EventShape | None) -> EventShape | None:
        """Pass what is known through all layers, each of which must fit the one before it."""
        return events_behind(list(self), known, type(self).__name__)

    def forward(self, x: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Apply the layers in order and add their contributions."""
        return _accumulate(list(self), x, context, inverse=False)

    def inverse(self, z: Tensor, context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Undo the layers, the last one first."""
        return _accumulate(self._backwards(z), z, context, inverse=True)

    def _backwards(self, z: Tensor) -> list[Transform]:
        """Return the layers, the last one first; where inverses are looked at, what is looked at together is one."""
        layers = list(self)[::-1]
        if not watching.cuts(z):
            return layers
        groups = [(edge, list(group)) for edge, group in itertools.groupby(layers, watching.is_boundary)]
        whole = (1, len(layers))
        steps = [group if edge or len(group) in whole else [self._part(group[::-1])] for edge, group in groups]
        return [layer for step in steps for layer in step]

    @staticmethod
    def _part(layers: list[Transform]) -> Chain:
        """Make a chain of layers that are known to fit."""
        chain = Chain.__new__(Chain)
        nn.Module.__init__(chain)
        chain.transforms = nn.ModuleList(layers)
        return chain

    def mean_forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Apply the noise-free layers in order."""
        for transform in self:
            x = transform.mean_forward(x, context)
        return x

    def random_latent(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Let each layer draw, in their order."""
        for transform in self:
            x = transform.random_latent(x, context)
        return x

    def log_masses(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-probability of each element as the last layer sees it, if those in front keep integers."""
        if not self.writes_elements:
            return super().log_masses(x, context)
        *front, last = self
        for transform in front:
            x = transform(x, context)[0]
        return last.log_masses(x, context)

    def mean_inverse(self, z: Tensor, context: ContextLike = None) -> Tensor:
        """Undo the noise-free layers, the last one first."""
        for transform in self._backwards(z):
            z = transform.mean_inverse(z, context)
        return z

    def out_shape(self, in_shape: Shape) -> Shape:
        """Pass the shape through all layers."""
        for transform in self:
            in_shape = transform.out_shape(in_shape)
        return in_shape

    def data_shape(self, latent_shape: Shape) -> Shape:
        """Pass the shape back through all layers."""
        for transform in reversed(list(self)):
            latent_shape = transform.data_shape(latent_shape)
        return latent_shape

    def initialize(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Initialize each layer with what reaches it."""
        for transform in self:
            x = transform.initialize(x, context)
        return x


def layers_of(transform: Transform) -> Iterator[Transform]:
    """Give the layers of chains inside chains in their order, or the layer itself."""
    for layer in transform if isinstance(transform, Chain) else (transform,):
        if isinstance(layer, Chain):
            yield from layers_of(layer)
        else:
            yield layer


def chain_of(layers: Sequence[Transform], name: str) -> Chain:
    """Return a chain whose layers refuse shapes under the name of the function that the user has called."""
    chain = Chain(layers)
    for layer in chain.modules():
        if isinstance(layer, Transform):
            layer.shown_as = name
    return chain


def _accumulate(
    layers: list[Transform], value: Tensor, context: ContextLike, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    total, only_moved = None, True
    given = value.dtype
    for layer in layers:
        if (
            inverse
            and value.dtype is torch.float64
            and given is torch.float32
            and not (layer.takes_float64 or layer.moves_elements)
        ):
            # Behind one that gives float64 whatever it gets, such as columns in their units.
            value = value.float()
        value, contribution = layer.inverse(value, context) if inverse else layer(value, context)
        # The zeros of layers that move raw data have their dtype, which is not that of the flow.
        total = contribution if total is None or only_moved else total + contribution
        only_moved = only_moved and layer.moves_elements
    if total is None:
        raise ShapeError("An empty Chain has no contribution; give it at least one layer.")
    return value, total
