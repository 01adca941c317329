"""The contract that bases, split priors, noise and flows share, and what a context says of their draws."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from likelify.calling import parts_read
from likelify.errors import DomainError, ShapeError, UnsupportedError
from likelify.shapes import Shape, as_shape, check_event, kept_arguments
from likelify.structure import Context, ContextLike, as_context
from likelify.support import Interval

Likelihood = Literal["exact", "bound", "estimate"]


class Distribution(nn.Module):
    r"""A distribution over events, perhaps under a context. Write `log_prob` and `rsample`.

    Shapes: `log_prob` takes `(rows, *event)` and gives one number per item, in nats. `sample(shape)` gives
    `(*shape, *event)`; with a context it draws one event per row of the context, `(*shape, rows, *event)`. A shape may
    be a single number.

    Attributes:
        likelihood: `"exact"`, or `"bound"` / `"estimate"` for distributions that only have that.
        has_atoms: some values have a positive probability, which `log_prob` gives there in place of a density.
        is_standard: it is the standard normal distribution of independent elements, for good.
        of_integers: draws are whole numbers, and `log_prob` gives their probabilities.
        support: where the elements of draws lie; None if that is not known.
        event_shape: shape of an event; None if it is any, or that of the condition.
        stacks: it has weights that `stack` sets.
    """

    likelihood: Likelihood = "exact"
    has_atoms: bool = False
    is_standard: bool = False
    of_integers: bool = False
    support: Interval | None = None
    event_shape: Shape | None = None
    stacks: bool = False
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

    def stack(self, x: Tensor, context: ContextLike = None) -> None:
        """Set the weights of what is mixed by rows that nothing was trained on; most distributions mix nothing."""

    def complete(self, x: Tensor, known: Tensor, *, draws: int = 1, present: bool = False) -> tuple[Tensor, Tensor]:
        """Return events of which some columns are kept and the others are drawn given them, with log-weights.

        Args:
            x: cells of rows of a table, `(rows, 3, d)`; what is not known is not read.
            known: which columns are kept, truth values `(rows, d)` or `(d,)`.
            draws: of each row.
            present: draw no missing values.

        Returns:
            Events `(draws, *x.shape)`, and log-weights `(draws, rows)` in nats: weighted so, they follow
            `p(unknown | known)`, and the weights have the mean `p(known)`. Draws whose weights are equal are exact.

        Raises:
            UnsupportedError: if it is no distribution of cells that can do so.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot draw some columns given others.")

    def completes_exactly(self, known: Tensor, *, present: bool = False) -> Tensor:
        """Tell of which rows `complete` draws all from `p(unknown | known)` itself, with equal weights, `(rows,)`.

        That follows from the order in which columns are drawn, whatever the parameters are.

        Args:
            known: which columns are kept, truth values `(rows, d)`.
            present: draw no missing values.
        """
        return known.new_zeros(len(known))

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
        structure = structure.repeated(times)
    if condition is not None and times != 1:
        condition = condition.repeat(times, *(1,) * (condition.ndim - 1))
    return times * row_count(context), replace(context, condition=condition, structure=structure)


def with_channels(event_shape: int | Shape, name: str) -> Shape:
    """Return the shape of an event whose first axis counts channels."""
    shape = as_shape(event_shape, least=1)
    if not shape:
        raise ShapeError(f"{name} needs an event of at least one axis, such as (1,).")
    return shape


def check_values(x: Any, event_shape: Shape, name: str) -> None:
    """Refuse what has no density: no tensors, whole numbers, other events."""
    if not isinstance(x, Tensor):
        raise UnsupportedError(f"{name} works on tensors and got a {type(x).__name__}; give torch.as_tensor(x).")
    if not x.is_floating_point():
        raise DomainError(
            f"{name} is a density of real values and got {x.dtype}. Give x.float() if they are measurements that "
            "happen to be whole; counts and levels need lk.Dequantize(levels) in front, in a Flow."
        )
    check_event(x.shape[1:], event_shape, name)
