"""What comes before the first step of a fit: whether batches can be shared, its checkpoint, and starting values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify.data import Source
from likelify.errors import ConfigError
from likelify.fitting.checkpoint import Checkpoints, Facts, Machine, Saved, check_same
from likelify.fitting.checks import check_front
from likelify.fitting.feeding import by_weight, generator, together
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.state import Position
from likelify.fitting.structures import keep_structures
from likelify.seeding import Order

if TYPE_CHECKING:
    from likelify.fitting.run import Run
    from likelify.flows import Flow


def check_shares(source: Source, settings: FitSettings, place: OneProcess) -> None:
    """Refuse batches of which some process would have no part.

    Raises:
        ConfigError: saying how large they must be.
    """
    batch = min(settings.batch_size, source.size("train"))
    if batch < place.count:
        raise ConfigError(
            f"A batch of {batch} items, over all processes together, cannot be shared by {place.count} of them: take "
            f"fewer processes, or a larger batch_size (at most the {source.size('train')} items to train on)."
        )


def begin(
    run: Run, source: Source, settings: FitSettings, place: OneProcess, *, conditional: bool, initialize: bool
) -> tuple[Checkpoints, Saved | None]:
    """Return what writes the checkpoints of a run, and the one from which its fit goes on, if there is one.

    Raises:
        RunError: if the fit has ended, or began with other settings or data.
    """
    run.refuse_ended()
    facts = Facts(
        machine=Machine.now(place.device, place.count),
        data=source.fingerprint(),
        conditional=conditional,
        fit=settings,
        initialize=initialize,
        initialized=False,
        position=Position(),
    )
    saved = run.saved()
    if saved is not None:
        check_same(saved, facts)
    else:
        run.settle(settings, conditional=conditional)
        keep_structures(run, source)
    return Checkpoints(run.path, facts), saved


def initialize_layers(flow: Flow, source: Source, settings: FitSettings, *, conditional: bool) -> None:
    """Fit the data-dependent layers of a flow to a sample of the training split."""
    check_front(flow, source)
    order = Order(source.size("train"), generator(settings.seed, "initialize", 0))
    some = order.part(0, settings.initialize_items)
    batch = by_weight(together(flow, source, some, workers=settings.workers))
    flow.initialize(batch.x, batch.context(conditional=conditional))
