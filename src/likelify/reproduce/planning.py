"""What an experiment would take: its cells and their hours, before anything is run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from likelify.data import Batch, Facts
from likelify.data.published import published_facts
from likelify.errors import DataError, MissingDependencyError
from likelify.fitting.cost import made_up_batch, one_step, wait_for
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.sources import DataChoice, open_data, public_facts
from likelify.fitting.training import Objective, build_optimizer
from likelify.flows import Flow
from likelify.reproduce.cell import Cell
from likelify.reproduce.experiment import AROUND_SECONDS
from likelify.seeding import seeded
from likelify.zoo import config_from_dict

# Items of the step that is measured: on a processor a few large ones, on a device as many as keep it busy.
FEW_ITEMS, MANY_ITEMS = 2, 64
# Share of a training step that its forward pass is.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Estimate:
    """What one cell takes.

    Attributes:
        cell: the cell, which stands for all seeds.
        steps: of its fit; None if the time ends it.
        hours: at most, or what it usually takes, or as a measured step tells.
        measured: whether a training step was measured for it.
    """

    cell: Cell
    steps: int | None
    hours: float
    measured: bool


def estimates(cells: Iterable[Cell], devices: int = 1) -> Iterator[Estimate]:
    """Return what each cell takes: what its limits say, or else what one training step of its model takes here.

    Args:
        cells: one for each method and data set.
        devices: that share the steps of a fit.

    Raises:
        DataError: if there is no limit, and neither the data nor their shape is known.
    """
    for cell in cells:
        if cell.most_seconds is not None:
            steps = None if cell.is_limited else cell.fit.get("steps")
            yield Estimate(cell, steps, (cell.most_seconds + AROUND_SECONDS) / 3600, measured=False)
        else:
            yield _measured(cell, devices)


def _measured(cell: Cell, devices: int) -> Estimate:
    facts = _facts(cell.data)
    settings = cell.settle(facts)
    fit, device = FitSettings.parse(settings["fit"]), OneProcess(None if cell.device == "auto" else cell.device).device
    few = device.type == "cpu" and facts.kind == "image"
    with seeded(0):
        flow = config_from_dict(settings["model"]).build().to(device)
        batch = made_up_batch(facts, min(fit.batch_size, FEW_ITEMS if few else MANY_ITEMS)).to(device)
        flow.initialize(batch.x, batch.context())
        item, update = _step_seconds(flow, fit, batch)
    sizes, draws = facts.sizes, cell.measuring
    tested = min(draws.items or sizes["test"], sizes["test"])
    weighted = min(draws.iw_items, tested) * draws.iw_samples if flow.likelihood == "bound" else 0
    training = fit.steps * (update + item * fit.batch_size / devices)
    validating = FORWARD * item * fit.validations * fit.validated(sizes["validation"])
    measuring = FORWARD * item * (draws.elbo_samples * tested + weighted)
    fitting = min(training + validating, fit.max_time or math.inf)
    steps = fit.steps if fitting == training + validating else None
    return Estimate(cell, steps, (fitting + measuring) / 3600, measured=True)


def _step_seconds(flow: Flow, fit: FitSettings, batch: Batch) -> tuple[float, float]:
    """Return the seconds of a training step for each item, and those of its update, which all items share."""
    objective, optimizer = Objective(flow), build_optimizer(flow, fit)
    if batch.x.device.type != "cpu":
        one_step(objective, fit, batch, optimizer)  # the first one prepares the device
    seconds = one_step(objective, fit, batch, optimizer)
    start = time.perf_counter()
    optimizer.step()
    wait_for(batch.x.device)
    update = time.perf_counter() - start
    return max(seconds - update, 0.0) / len(batch), update


def _facts(choice: DataChoice) -> Facts:
    """Return the facts of data, or as much as is known of them without their files."""
    try:
        return public_facts(open_data(choice), choice)
    except (DataError, MissingDependencyError, OSError):
        if (facts := published_facts(choice.source)) is None:
            raise
    sizes = {split: min(count, choice.limits.get(split, count)) for split, count in facts.sizes.items()}
    return facts.model_copy(update={"sizes": sizes})


def device_name() -> str:
    """Return where steps are measured."""
    device = OneProcess().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} of this machine"
