"""Distributions: the contract that bases, split priors, noise and flows share."""

import math
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.calling import call_net, parts_read
from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.names import NoiseName
from likelify.structure import (
    Context,
    ContextLike,
    GraphBatch,
    Shape,
    along,
    as_context,
    as_shape,
    check_event,
    check_size,
    kept_arguments,
    sum_items,
)
from likelify.support import LINE, NOT_NEGATIVE, Interval
from likelify.tracing import is_tracing, raised

Likelihood = Literal["exact", "bound", "estimate"]
LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class Distribution(nn.Module):
    r"""A distribution over events, perhaps under a context. Write `log_prob` and `rsample`.

    Shapes: `log_prob` takes `(rows, *event)` and gives one number per item, in nats. `sample(shape)` gives
    `(*shape, *event)`; with a context it draws one event per row of the context, `(*shape, rows, *event)`. A shape may
    be a single number.

    Attributes:
        likelihood: `"exact"`, or `"bound"` / `"estimate"` for distributions that only have that.
        has_atoms: some values have a positive probability, which `log_prob` gives there in place of a density.
        support: where the elements of draws lie; None if that is not known.
        event_shape: shape of an event; None if it is any, or that of the condition.
    """

    likelihood: Likelihood = "exact"
    has_atoms: bool = False
    support: Interval | None = None
    event_shape: Shape | None = None
    extra_repr = kept_arguments

    @property
    def reads_condition(self) -> bool:
        """Whether `log_prob` and draws may depend on the condition of the context."""
        return parts_read(self)

    @property
    def reads_outer_condition(self) -> bool:
        """Whether inside a layer, whose elements are its condition, it may read what the caller's condition adds."""
        return self.reads_condition

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        raise NotImplementedError(f"{type(self).__name__} has no log_prob.")

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw so that gradients reach the parameters."""
        raise UnsupportedError(f"{type(self).__name__} has no differentiable samples; use sample().")

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Fit what depends on data to a sample, once; most distributions have no such part."""

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the standard normal noise that `from_noise` makes `x` of, `(rows, *event)`.

        Raises:
            UnsupportedError: if draws are not made of as many normal elements.
        """
        raise UnsupportedError(f"Draws of {type(self).__name__} are not made of normal noise.")

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return the events `(rows, *event)` that standard normal noise becomes, as in a draw.

        Raises:
            UnsupportedError: if draws are not made of as many normal elements.
        """
        raise UnsupportedError(f"Draws of {type(self).__name__} are not made of normal noise.")

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw without gradients."""
        with torch.no_grad():
            return self.rsample(shape, context)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw differentiably, and return the log-density of what was drawn, `(*shape)` or `(*shape, items)`."""
        shape = as_shape(shape)
        x = self.rsample(shape, context)
        rows, repeated = repeat_context(shape, context)
        leading = len(shape) + has_rows(context)
        log_prob = self.log_prob(x.reshape(rows, *x.shape[leading:]), repeated)
        return x, log_prob.reshape(*shape, item_count(context)) if has_rows(context) else log_prob.reshape(shape)


def has_rows(context: ContextLike) -> bool:
    """Tell whether a context says by itself how many rows there are."""
    context = as_context(context)
    return context.condition is not None or context.structure is not None


def row_count(context: ContextLike) -> int:
    """Return the number of rows that a context speaks of; one if it says nothing."""
    context = as_context(context)
    if context.condition is not None:
        return len(context.condition)
    return 1 if context.structure is None else len(context.structure.owner)


def item_count(context: ContextLike) -> int:
    """Return the number of items that a context speaks of: its graphs, or else its rows."""
    structure = as_context(context).structure
    return row_count(context) if structure is None else len(structure)


def repeat_context(shape: Shape, context: ContextLike) -> tuple[int, Context]:
    """Repeat the rows of a context once for each draw of `shape`; return the number of rows and the new context."""
    context = as_context(context)
    times = math.prod(shape)
    condition, structure = context.condition, context.structure
    if structure is not None and times != 1:
        structure = _repeat_graphs(structure, times)
    if condition is not None and times != 1:
        condition = condition.repeat(times, *(1,) * (condition.ndim - 1))
    return times * row_count(context), replace(context, condition=condition, structure=structure)


def _repeat_graphs(graphs: GraphBatch, times: int) -> GraphBatch:
    nodes = len(graphs.owner)
    offsets = nodes * torch.arange(times, device=graphs.edge_index.device)
    edges = (graphs.edge_index[:, None, :] + offsets[None, :, None]).flatten(1)
    weight = None if graphs.edge_weight is None else graphs.edge_weight.repeat(times)
    return GraphBatch(graphs.sizes.repeat(times), edges, weight)


def _with_channels(event_shape: int | Shape, name: str) -> Shape:
    shape = as_shape(event_shape, least=1)
    if not shape:
        raise ShapeError(f"{name} needs an event of at least one axis, such as (1,).")
    return shape


class Normal(Distribution):
    r"""Independent normal elements: `log p(x) = -sum (x - loc)^2 / (2 scale^2) + log scale + log(2 pi) / 2`.

    Args:
        event_shape: shape of an event; for graphs, of the features of one node.
        trainable: train a location and a scale for each channel (the first axis of the event), from 0 and 1.

    Example:
        >>> Normal((2,)).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    support = LINE
    loc: Tensor
    log_scale: Tensor

    def __init__(self, event_shape: int | Shape, *, trainable: bool = False) -> None:
        super().__init__()
        self.event_shape: Shape = _with_channels(event_shape, "Normal")  # pyright: ignore[reportIncompatibleVariableOverride]
        shape = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
        if trainable:
            self.loc = nn.Parameter(torch.zeros(shape))
            self.log_scale = nn.Parameter(torch.zeros(shape))
        else:
            self.register_buffer("loc", torch.zeros(shape), persistent=False)
            self.register_buffer("log_scale", torch.zeros(shape), persistent=False)

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        _check_values(x, self.event_shape, "Normal")
        return sum_items(normal_log_prob(x, self.loc, self.log_scale), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw; the context's temperature multiplies the scale."""
        rows = (row_count(context),) if has_rows(context) else ()
        noise = torch.randn(*as_shape(shape), *rows, *self.event_shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + as_context(context).temperature * self.log_scale.exp() * noise

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the elements in units of their deviations from their means."""
        return (x - self.loc) * (-self.log_scale).exp()

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return means plus deviations times noise."""
        return self.loc + self.log_scale.exp() * noise


class _OfCondition(Distribution):
    """A distribution whose parameters a network reads off the condition, called as `net(condition)`."""

    net: nn.Module

    @property
    def reads_condition(self) -> bool:
        """Always: without a condition there is no distribution."""
        return True

    @property
    def reads_outer_condition(self) -> bool:
        """Whether the network was built for more than the elements of a layer, or does not say."""
        return getattr(self.net, "context_features", None) != 0

    def _read(self, context: Context) -> Tensor:
        """Return what the network says of the condition."""
        name = type(self).__name__
        if context.condition is None:
            raise UnsupportedError(f"{name} needs a condition; give context=.")
        return raised(call_net(self.net, context.condition, owner=name))


class ConditionalNormal(_OfCondition):
    r"""Independent normal elements whose means and scales a network reads off the condition.

    Args:
        net: called as `net(condition)`; returns `(rows, 2 channels, *positions)`: the log scales of all channels
            (kept within +-3 by `3 tanh(. / 3)`), then the means.
    """

    support = LINE

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats."""
        loc, log_scale = self._moments(as_context(context))
        if loc.shape != x.shape:
            raise ShapeError(f"The network gave means of shape {tuple(loc.shape)}, the input has {tuple(x.shape)}.")
        return sum_items(normal_log_prob(x, loc, log_scale), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition; the context's temperature multiplies the scale."""
        loc, log_scale = self._moments(as_context(context))
        noise = torch.randn(*as_shape(shape), *loc.shape, dtype=loc.dtype, device=loc.device)
        return loc + as_context(context).temperature * log_scale.exp() * noise

    def to_noise(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the elements in units of their deviations from their means."""
        loc, log_scale = self._moments(as_context(context))
        return (x - loc) * (-log_scale).exp()

    def from_noise(self, noise: Tensor, context: ContextLike = None) -> Tensor:
        """Return means plus deviations times noise."""
        loc, log_scale = self._moments(as_context(context))
        return loc + log_scale.exp() * noise

    def _moments(self, context: Context) -> tuple[Tensor, Tensor]:
        log_scale, loc = self._read(context).chunk(2, dim=1)
        return loc, limit_log_scale(log_scale)


class ChannelNoise(Distribution):
    r"""Independent elements around zero with a trained scale for each channel: noise at the positions of its condition.

    With `"normal"` noise, `log q(u) = -sum u^2 / (2 scale^2) + log scale + log(2 pi) / 2`; with `"uniform"` they lie
    within `scale / 2` of zero, and `log q(u) = -sum log scale` there.

    Args:
        channels: of the noise; its rows and positions are those of the condition `(rows, any, *positions)`.
        noise: `"normal"` or `"uniform"`. A model puts mass everywhere, and what lies outside of uniform noise is lost
            for good; so uniform noise is the worse one (appendix B of the flowification paper).
        scale: at the start.

    Example:
        >>> ChannelNoise(2).rsample((), torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 2, 4, 4])
    """

    def __init__(self, channels: int, noise: NoiseName = "normal", *, scale: float = 1.0) -> None:
        super().__init__()
        check_noise(noise)
        self.noise = noise
        channels = check_size(channels, "The channels of ChannelNoise")
        self.log_scale = nn.Parameter(torch.full((channels,), math.log(scale)))

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-density of each item in nats; minus infinity outside of uniform noise."""
        log_scale = along(self.log_scale, x.ndim).expand_as(x)
        if self.noise == "normal":
            return sum_items(normal_log_prob(x, torch.zeros_like(x), log_scale), context)
        inside = x.abs() <= 0.5 * log_scale.exp()
        return sum_items(torch.where(inside, -log_scale, -math.inf), context)

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition; the context's temperature multiplies the scale."""
        context = as_context(context)
        if context.condition is None:
            raise UnsupportedError("ChannelNoise takes rows and positions from its condition; give context=.")
        event = (len(self.log_scale), *context.condition.shape[2:])
        size = (*as_shape(shape), len(context.condition), *event)
        like = {"dtype": self.log_scale.dtype, "device": self.log_scale.device}
        noise = torch.randn(size, **like) if self.noise == "normal" else torch.rand(size, **like) - 0.5
        return context.temperature * along(self.log_scale, 1 + len(event)).exp() * noise


def limit_log_scale(raw: Tensor, limit: float = 3) -> Tensor:
    """Return the log scale that a network means by its output: `limit tanh(raw / limit)`, near zero the output."""
    return limit * torch.tanh(raw / limit)


def check_noise(noise: str) -> None:
    """Refuse a kind of noise that there is not."""
    if noise not in get_args(NoiseName):
        raise ConfigError(f"Noise is 'normal' or 'uniform', not {noise!r}.")


class ConditionalCategorical(_OfCondition):
    r"""Independent integers `0 .. levels - 1` whose log-odds a network reads off the condition: pixels of an image.

    `log p(x) = sum log softmax(net(condition))[x]`, a log-probability; the observation model of a VAE on images needs
    no dequantization.

    Args:
        net: called as `net(condition)`; returns `(rows, levels * channels, *positions)`: the first level of every
            channel, then the second of every channel, and so on.
        levels: number of values, at least two.

    Raises:
        DomainError: for values that are not integers of the range.

    Example:
        >>> pixels = ConditionalCategorical(nn.Linear(3, 2 * 4), levels=4)
        >>> pixels.log_prob(torch.tensor([[0, 3]]), torch.zeros(1, 3)).shape
        torch.Size([1])
    """

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ConfigError(f"ConditionalCategorical needs at least 2 levels, got {levels}.")
        self.net = net
        self.levels = levels

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the log-probability of each item in nats, for integers in any dtype."""
        log_odds = self._log_odds(as_context(context))
        if x.shape != (len(log_odds), *log_odds.shape[2:]):
            raise ShapeError(
                f"The network is for events {tuple(log_odds.shape[2:])} in {len(log_odds)} rows, the input has shape "
                f"{tuple(x.shape)}."
            )
        if not is_tracing() and not bool(((x >= 0) & (x < self.levels) & (x == x.floor())).all()):
            raise DomainError(f"ConditionalCategorical: some values are not integers 0..{self.levels - 1}.")
        return sum_items(_at_levels(log_odds, x), context)

    def sample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw for each row of the condition, integers in the network's dtype.

        The log-odds are divided by the context's temperature; at temperature zero each is the likeliest one.
        """
        with torch.no_grad():
            return self._draw(self._log_odds(as_context(context)), as_shape(shape), context)

    def sample_and_log_prob(self, shape: int | Shape = (), context: ContextLike = None) -> tuple[Tensor, Tensor]:
        """Draw, and return the log-probabilities `(*shape, items)`, which have gradients; the draws have none."""
        log_odds, shape = self._log_odds(as_context(context)), as_shape(shape)
        drawn = self._draw(log_odds, shape, context)
        rows, repeated = repeat_context(shape, context)
        flat = drawn.reshape(rows, *log_odds.shape[2:])
        log_odds = log_odds.repeat(math.prod(shape), *(1,) * (log_odds.ndim - 1))
        return drawn, sum_items(_at_levels(log_odds, flat), repeated).reshape(*shape, item_count(context))

    def _log_odds(self, context: Context) -> Tensor:
        """Return normalized log-probabilities, `(rows, levels, channels, *positions)`."""
        raw = self._read(context)
        if raw.ndim < 2 or raw.shape[1] % self.levels:
            raise ShapeError(
                f"The network gave {tuple(raw.shape)}; its axis 1 must be a multiple of the {self.levels} levels."
            )
        return raw.unflatten(1, (self.levels, -1)).log_softmax(1)

    @staticmethod
    def _draw(log_odds: Tensor, shape: Shape, context: ContextLike) -> Tensor:
        # The largest of log-odds with Gumbel noise follows them (Gumbel 1954); noise times T divides them by T.
        noise = -torch.empty(*shape, *log_odds.shape, dtype=log_odds.dtype, device=log_odds.device).exponential_().log()
        drawn = log_odds.detach() + as_context(context).temperature * noise
        return drawn.argmax(len(shape) + 1).to(log_odds.dtype)


def _at_levels(log_odds: Tensor, x: Tensor) -> Tensor:
    return log_odds.gather(1, x.long()[:, None])[:, 0]


def _check_values(x: Any, event_shape: Shape, name: str) -> None:
    """Refuse what has no density: no tensors, whole numbers, other events."""
    if not isinstance(x, Tensor):
        raise UnsupportedError(f"{name} works on tensors and got a {type(x).__name__}; give torch.as_tensor(x).")
    if not x.is_floating_point():
        raise DomainError(
            f"{name} is a density of real values and got {x.dtype}. Give x.float() if they are measurements that "
            "happen to be whole; counts and levels need lk.Dequantize(levels) in front, in a Flow."
        )
    check_event(x.shape[1:], event_shape, name)


def normal_log_prob(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Return the normal log-density of each element."""
    return -0.5 * ((x - loc) * (-log_scale).exp()) ** 2 - log_scale - LOG_SQRT_2PI


class RectifiedNormal(Distribution):
    r"""Independent elements that are zero with a trained probability, and half-normal above zero otherwise.

    The distribution of `max(x, 0)` for normal elements, and so the base behind `ReLU`. `log_prob` adds, for each
    element, the log-probability `log sigmoid(log_odds)` of zero, or elsewhere the log-density
    `log sigmoid(-log_odds) + log(2 N(x; 0, scale^2))`; each channel (the first axis of the event) has two
    parameters of its own. Negative values have density zero.

    Args:
        event_shape: shape of an event; for graphs, of the features of one node.

    Example:
        >>> RectifiedNormal((2,)).log_prob(torch.zeros(1, 2))
        tensor([-1.3863], grad_fn=<SumBackward1>)
    """

    has_atoms = True
    support = NOT_NEGATIVE

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        self.event_shape: Shape = _with_channels(event_shape, "RectifiedNormal")  # pyright: ignore[reportIncompatibleVariableOverride]
        shape = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
        self.log_odds = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return for each item the log-probability of its zeros plus the log-density of its other elements, in nats."""
        _check_values(x, self.event_shape, "RectifiedNormal")
        above = normal_log_prob(x, torch.zeros_like(self.log_scale), self.log_scale) + math.log(2)
        above = torch.where(x > 0, above + F.logsigmoid(-self.log_odds), -math.inf)
        return sum_items(torch.where(x == 0, F.logsigmoid(self.log_odds), above), context)

    def initialize(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the probabilities and scales of the channels from a sample."""
        with torch.no_grad():
            channels = x.transpose(0, 1).flatten(1)
            zeros, others = (channels == 0).sum(1), (channels != 0).sum(1)
            # Half an observation of each kind keeps the odds finite.
            log_odds = ((zeros + 0.5) / (others + 0.5)).log()
            square = channels.square().sum(1) / others.clamp_min(1)
            log_scale = torch.where(square > 0, 0.5 * square.log(), self.log_scale.flatten())
            self.log_odds.copy_(log_odds.reshape(self.log_odds.shape))
            self.log_scale.copy_(log_scale.reshape(self.log_scale.shape))

    def rsample(self, shape: int | Shape = (), context: ContextLike = None) -> Tensor:
        """Draw; the context's temperature multiplies the scale and divides the log-odds.

        Gradients reach the scales alone: which elements are zero is decided by chance.
        """
        rows = (row_count(context),) if has_rows(context) else ()
        size = (*as_shape(shape), *rows, *self.event_shape)
        temperature = as_context(context).temperature
        like = {"dtype": self.log_scale.dtype, "device": self.log_scale.device}
        # The difference of two Gumbel variables is logistic.
        one, other = torch.empty(2, *size, **like).exponential_().log()
        above = temperature * self.log_scale.exp() * torch.randn(size, **like).abs()
        return torch.where(self.log_odds + temperature * (one - other) >= 0, 0.0, above)
