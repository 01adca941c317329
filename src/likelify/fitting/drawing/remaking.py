"""Given items as a run's model sees them: encoded and decoded, on the way to one another, with hidden parts drawn."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import SPLITS, Batch, SplitName
from likelify.errors import ConfigError, DataError
from likelify.fitting.checks import for_flow
from likelify.fitting.drawing.draw import OnShare, as_stored, check_seed, chunk_items, whole_draws, whole_limit
from likelify.fitting.settings import ITEM_DRAWS, STEPS
from likelify.schema import all_plain

if TYPE_CHECKING:
    from torch import Tensor

    from likelify.fitting.drawing.inpainting import Completions, Effort
    from likelify.fitting.drawing.latents import Latent
    from likelify.fitting.run import Run
    from likelify.flows import Flow

# Items that are read at a time.
MOST_READ = 4096
NUMBERED = re.compile(rf"(?:({'|'.join(SPLITS)}):)?(\d+)")


@dataclass(frozen=True, eq=False)
class Remade:
    """Items, and what is left of them on the way to the latent and back.

    Attributes:
        original: `(items, *event)`.
        x: through the whole latent.
        from_last: through what is left of it behind all split priors, which put their means in the place of what they
            drop; None for models without split priors.
        lossy: names of layers that drop what no latent keeps; without any, `x` is the original but for rounding.
    """

    original: Tensor
    x: Tensor
    from_last: Tensor | None
    lossy: tuple[str, ...]


def reconstruct(run: Run, items: Any, *, limit: int | None = None, labels: Tensor | None = None) -> Remade:
    """Encode items to the latent and decode them again, without noise.

    Args:
        run: a fitted model.
        items: as for `chosen_items`.
        limit: how many, the first; None for all.
        labels: class of each item, for a class-conditional model, unless the items have labels.
    """
    import torch

    from likelify.fitting.drawing.latents import decode, encode, losses, splits

    flow, batch = run.flow(), chosen_items(run, items, limit, labels)
    taken = for_flow(flow, batch)
    rows, whole, last = chunk_items(run.config.data.event_shape), [], []
    for start in range(0, len(batch), rows):
        part = slice(start, start + rows)
        latent = encode(flow, taken.x[part], None if taken.labels is None else taken.labels[part])
        whole.append(decode(flow, latent))
        if splits(flow):
            last.append(decode(flow, latent.without_dropped()))
    facts = run.config.data
    from_last = as_stored(torch.cat(last), facts) if last else None
    return Remade(batch.x, as_stored(torch.cat(whole), facts), from_last, tuple(losses(flow)))


def interpolate(run: Run, start: Any, end: Any, steps: int = STEPS, *, labels: tuple[int, int] | None = None) -> Tensor:
    """Return items on the way between two in the latent, `(steps, *event)`, both included as the model sees them.

    Args:
        run: a fitted model.
        start: one item; as for `chosen_items`.
        end: one item.
        steps: number of items, at least two.
        labels: classes of both, for a class-conditional model, unless the items have labels.
    """
    import torch

    from likelify.fitting.drawing.latents import between, decode, encode

    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 2:
        raise ConfigError(f"A way from one item to another has at least 2 steps, got {steps}.")
    flow = run.flow()
    if flow.transform.writes_elements:
        # Places on the way are decoded together, and both ends must come out as they are (see `LevelPyramid`).
        flow = flow.double()

    def found(what: Any, label: int | None) -> Latent:
        given = None if label is None else torch.tensor([label])
        batch = chosen_items(run, what, 2, given)
        if len(batch) > 1:
            raise DataError(f"One item is needed at each end of the way, and '{what}' has more.")
        batch = for_flow(flow, batch)
        return encode(flow, batch.x, batch.labels)

    ends = found(start, labels and labels[0]), found(end, labels and labels[1])
    return as_stored(decode(flow, between(*ends, steps)), run.config.data)


def inpaint(
    run: Run,
    items: Any,
    mask: Tensor,
    draws: int = ITEM_DRAWS,
    *,
    limit: int | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    effort: Effort | None = None,
    on_share: OnShare | None = None,
) -> tuple[Tensor, Completions]:
    """Draw what a mask hides of items, given the rest; return the items and what was drawn.

    Of rows, a model that draws its columns one after the other draws the hidden ones, see `conditioning.draw_given`.

    Args:
        run: a fitted model.
        items: as for `chosen_items`; what they hold at hidden places is not looked at.
        mask: `(*event)` or one for each item, true where an element is hidden.
        draws: of each item.
        limit: how many items, the first; None for all.
        labels: class of each item, for a class-conditional model, unless the items have labels.
        seed: of all draws.
        effort: see `complete`.
        on_share: called with the share that is done.
    """
    import torch

    from likelify.distributions.mixture import can_complete
    from likelify.fitting.drawing.inpainting import complete

    check_seed(seed)
    draws = whole_draws(draws)
    flow = run.flow()
    if run.config.data.kind == "table" and (can_complete(flow.base) or not all_plain(run.config.data.meaning)):
        if effort is not None:
            raise ConfigError("effort is of what is guessed and corrected; the columns of this model are drawn.")
        batch = chosen_items(run, items, limit, labels)
        return batch.x, _of_columns(run, flow, batch.x, torch.as_tensor(mask), draws, seed, on_share)
    items = _known_alone(items, mask)
    if flow.likelihood == "estimate" and "log_det" in type(run.config.model).model_fields:
        flow = run.flow(log_det="exact")
    batch = chosen_items(run, items, limit, labels)
    taken = for_flow(flow, batch)
    hidden, settings = torch.as_tensor(mask), {"effort": effort, "seed": seed, "on_share": on_share}
    levels = run.config.data.levels
    found = complete(flow, taken.x, hidden, draws, levels=levels, labels=taken.labels, **settings)
    return batch.x, replace(found, x=as_stored(found.x, run.config.data))


def _known_alone(items: Any, mask: Any) -> Any:
    """Return items in memory with zeros in hidden places where they are missing, which readers would refuse."""
    if not (isinstance(items, np.ndarray) or hasattr(items, "detach")) or np.asarray(items).dtype.kind != "f":
        return items
    values, hidden = np.asarray(items), np.asarray(mask, dtype=bool)
    if hidden.shape not in (values.shape, values.shape[1:]):
        return items
    return np.where(np.isnan(values) & hidden, 0.0, values)


def _of_columns(
    run: Run, flow: Flow, rows: Tensor, hidden: Tensor, draws: int, seed: int, on_share: OnShare | None
) -> Completions:
    """Draw columns of rows given the others."""
    import torch

    from likelify.fitting.conditioning.given import draw_given
    from likelify.fitting.drawing.filling import completing
    from likelify.fitting.drawing.inpainting import Completions, hidden_places

    hidden = hidden_places(rows, hidden)
    flow = completing(flow, run.config.model.model)
    drawn = draw_given(flow, run.config.data.meaning, rows, ~hidden, draws=draws, seed=seed, on_share=on_share)
    ess = torch.from_numpy(drawn.ess)
    return Completions(torch.from_numpy(drawn.rows), ess, None, torch.ones(len(ess), dtype=torch.long))


def chosen_items(run: Run, what: Any, limit: int | None = None, labels: Tensor | None = None) -> Batch:
    """Return items that were named, with their classes if the model is conditional.

    Args:
        run: whose model they are for.
        what: the name of a split of the run's own data, or one item of it by its number (`7`, `"7"` and `"test:7"` are
            of the test split); else a file, an array, a tensor, a table: what `data.open_items` takes.
        limit: how many, the first; None for all.
        labels: class of each item, or one for all.

    Raises:
        DataError: if there are none such, or they do not fit the model.
        ConfigError: if the model is conditional and there are no classes, or none such; for graphs.
    """
    if run.config.data.kind == "graph":
        raise ConfigError(
            "Graphs are scored and drawn; this command is for items of one shape. In Python flow.to_noise(x, context) "
            "and flow.from_noise(noise, context) go to the latent and back, with lk.Context(structure=...)."
        )
    limit = whole_limit(limit)
    batch = _own_items(run, what, limit)
    batch = _opened_items(run, what, limit) if batch is None else batch
    if not len(batch):
        raise DataError("There are no items.")
    levels = run.config.data.levels
    if levels is not None and not 0 <= int(batch.x.min()) <= int(batch.x.max()) < levels:
        raise DataError(
            f"The model is of {levels} levels, 0..{levels - 1}, and '{what}' holds values up to {int(batch.x.max())}. "
            "Bring them to these levels first, as a .npy file."
        )
    return Batch(batch.x, classes_of(run, batch, labels))


def _own_items(run: Run, what: Any, limit: int | None) -> Batch | None:
    """Return items of the run's own data, or None if something else was named."""
    import torch

    if not isinstance(what, Integral | str):
        return None
    numbered = NUMBERED.fullmatch(str(what))
    if numbered is None and what not in SPLITS:
        return None
    source = run.source()
    split: SplitName = what if numbered is None else numbered[1] or "test"  # pyright: ignore[reportAssignmentType]
    size = source.size(split)
    if numbered is None:
        return source.read(split, torch.arange(size if limit is None else min(limit, size)))
    number = int(numbered[2])
    if number >= size:
        raise DataError(f"The {split} split of '{source.name}' has the {run.config.data.items} 0..{size - 1}.")
    return source.read(split, torch.tensor([number]))


def _opened_items(run: Run, what: Any, limit: int | None) -> Batch:
    import torch

    from likelify.fitting.scoring.scoring import items_of

    items = items_of(run, what)
    parts, count = [], 0
    for part in items.batches(MOST_READ if limit is None else min(limit, MOST_READ)):
        parts.append(part.batch if limit is None else part.batch.head(limit - count))
        count += len(parts[-1])
        if limit is not None and count >= limit:
            break
    given = [part.labels for part in parts if part.labels is not None]
    x = torch.cat([part.x for part in parts]) if parts else torch.empty(0)
    return Batch(x, torch.cat(given) if given else None)


def classes_of(run: Run, batch: Batch, labels: Tensor | None) -> Tensor | None:
    """Return the classes that a conditional model reads, given or those of the items; None for other models."""
    import torch

    if not run.config.conditional:
        if labels is not None:
            raise ConfigError("This run has no classes, and takes no labels.")
        return None
    classes = run.config.data.classes or 0
    found = batch.labels if labels is None else torch.as_tensor(labels).expand(len(batch))
    if found is None:
        raise ConfigError(
            f"The model is conditional, and these items have no classes: give a label of 0..{classes - 1}."
        )
    if bool(((found < 0) | (found >= classes)).any()):
        raise ConfigError(f"The label {int(found.max())} does not fit: its classes are 0..{classes - 1}.")
    return found
