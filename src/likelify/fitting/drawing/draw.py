"""Samples of a fitted model, in chunks: any number of them in constant memory, the same for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Batch, Facts
from likelify.errors import ConfigError, unknown_word

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.flows import Flow

# What is drawn at a time: so many elements, but no more than so many items. Each chunk has a seed of its own, so these
# numbers belong to what a seed means; nothing else does, not the number of threads, nor what is done with a chunk.
CHUNK_ELEMENTS, CHUNK_ITEMS = 2**18, 4096
OnShare = Callable[[float], None]
# A class: its number or its name.
Label = int | str


def check_draws(number: int, temperature: float) -> None:
    """Refuse a number of samples or a temperature with which nothing can be drawn.

    Raises:
        ConfigError: if the number is not 1, 2, ..., or the temperature is negative or not finite.
    """
    whole_draws(number)
    if not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise ConfigError(f"The temperature must be a number that is not negative, got {temperature}.")


def whole_draws(number: Any) -> int:
    """Return a number of samples.

    Raises:
        ConfigError: if it is not 1, 2, ...
    """
    if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
        raise ConfigError(f"The number of samples must be 1, 2, ..., got {number!r:.40}.")
    return int(number)


def whole_limit(limit: Any) -> int | None:
    """Return how many items are taken, None for all.

    Raises:
        ConfigError: if it is not 1, 2, ...
    """
    if limit is not None and (not isinstance(limit, Integral) or isinstance(limit, bool) or limit < 1):
        raise ConfigError(f"The limit of the items must be 1, 2, ..., or None for all, got {limit!r:.40}.")
    return None if limit is None else int(limit)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: if it is not a whole number 0, 1, ... below 2^63.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise ConfigError(f"A seed is a whole number 0, 1, ... below 2^63, got {seed}.")


def label_cycle(label: Label | Sequence[Label] | None, facts: Facts, *, conditional: bool) -> tuple[int, ...] | None:
    """Return the numbers of the classes that are drawn in turn, or None for a model without classes.

    Args:
        label: a class by its number or name, several, or None for all.
        facts: of the data.
        conditional: whether the model knows classes.

    Raises:
        ConfigError: if there is no such class.
    """
    if not conditional:
        if label is not None:
            raise ConfigError(f"The label {_shown(label)} does not fit: this run has no classes.")
        return None
    wanted = range(facts.classes or 0) if label is None else _several(label)
    if not len(wanted):
        raise ConfigError("No label is given to draw; leave label out to draw all classes in turn.")
    return tuple(class_number(each, facts) for each in wanted)


def class_number(label: Label, facts: Facts) -> int:
    """Return the number of a class that is given by it, as a number or a word, or by its name.

    Raises:
        ConfigError: if there is no such class.
    """
    names, classes = facts.class_names or (), facts.classes or 0
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, str) and label.isdecimal():
        label = int(label)
    if isinstance(label, int | np.integer) and not isinstance(label, bool) and 0 <= label < classes:
        return int(label)
    if isinstance(label, str) and names:
        raise ConfigError(unknown_word("class", label, names))
    raise ConfigError(f"The label {label} does not fit: its classes are 0..{classes - 1}.")


def _several(label: Label | Sequence[Label]) -> Sequence[Label]:
    return (label,) if isinstance(label, int | str | np.integer) else label


def _shown(label: Label | Sequence[Label]) -> str:
    return ", ".join(map(str, _several(label)))


def chunk_items(event_shape: Sequence[int]) -> int:
    """Return how many items of that shape are drawn at a time."""
    return min(CHUNK_ITEMS, max(1, CHUNK_ELEMENTS // max(1, math.prod(event_shape))))


def draw_chunks(
    flow: Flow,
    number: int,
    chunk: int,
    *,
    labels: Sequence[int] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    on_share: OnShare | None = None,
) -> Iterator[Batch]:
    """Draw from a model, a chunk at a time; each is drawn with a seed made of the seed and its number.

    Args:
        flow: the model.
        number: of samples.
        chunk: items of a chunk; another number gives other draws.
        labels: classes that are drawn in turn, for a class-conditional model.
        temperature: below 1 samples are less varied; see `Flow.sample`.
        seed: of the draws.
        on_share: called with the share that is drawn, before a chunk is given.
    """
    import torch

    from likelify.seeding import chunk_seed, seeded

    for start in range(0, number, chunk):
        items = torch.arange(start, min(start + chunk, number))
        given = None if labels is None else torch.tensor(labels)[items % len(labels)]
        with seeded(chunk_seed(seed, start // chunk)), flow.frozen():
            shape = (len(items),) if given is None else ()
            drawn = flow.sample(shape, given, temperature=temperature)
        if on_share is not None:
            on_share((start + len(items)) / number)
        yield Batch(drawn, given)


def draw(
    flow: Flow, number: int, *, labels: Sequence[int] | None = None, temperature: float = 1.0, seed: int = 0
) -> Tensor:
    """Draw from a model, all at once; see `draw_chunks`."""
    import torch

    chunk = chunk_items(flow.event_shape or (1,))
    drawn = draw_chunks(flow, number, chunk, labels=labels, temperature=temperature, seed=seed)
    return torch.cat([batch.x for batch in drawn])


def draw_inverses(flow: Flow, number: int, *, seed: int = 0) -> dict[str, Tensor]:
    """Return, for the same latents, the inverse without its noise, and the inverse with it: samples of the model."""
    import torch

    from likelify.seeding import seeded

    with seeded(seed), torch.no_grad(), flow.frozen():
        z = flow.base.sample((number,))
        return {
            "inverse without noise": flow.transform.mean_inverse(z),
            "inverse with noise (samples)": flow.transform.inverse(z)[0],
        }


def as_stored(x: Tensor, facts: Facts) -> Tensor:
    """Return items as the source keeps them: values of levels as integers, others as they are."""
    import torch

    if facts.levels is None:
        return x
    return x.round().to(torch.uint8 if facts.levels <= 256 else torch.int32)
