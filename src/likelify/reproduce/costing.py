"""Measures what training steps and samples of several methods cost, side by side in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from likelify.data import Batch, Source
from likelify.fitting.cost import one_step, wait_for
from likelify.fitting.feeding import generator
from likelify.fitting.memory import KeptMemory, in_memory_of
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.sources import open_data, public_facts
from likelify.fitting.training import Objective, build_optimizer
from likelify.flows import Flow
from likelify.reproduce.cell import Cell
from likelify.reproduce.code import code_hashes
from likelify.reproduce.costs import Cost, CostCell, CostResult
from likelify.reproduce.measure import load_fitted, machine_of, now, run_of, versions
from likelify.reproduce.runner import Folders
from likelify.reproduce.scores import OnProgress
from likelify.reproduce.store import save_cell
from likelify.seeding import Order, seeded
from likelify.transforms import unchecked

# Seconds of a training step and of drawing samples.
Pair = tuple[float, float]


@dataclass(frozen=True)
class _Model:
    """A model that is measured."""

    flow: Flow
    objective: Objective
    optimizer: torch.optim.Optimizer
    settings: FitSettings
    steps: int


def run_costs(cell: CostCell, folders: Folders, on_progress: OnProgress) -> None:
    """Measure the costs of the methods of a cell and keep the result.

    Args:
        cell: the cell.
        folders: of results and runs.
        on_progress: called with the phase, its share that is done (0 to 1), and an empty figure.

    Raises:
        LikelifyError: if the data or the settings are at fault.
    """
    on_progress("reading", 0.0, "")
    device = OneProcess(None if cell.device == "auto" else cell.device).device
    clock = time.process_time if device.type == "cpu" else _waiting_clock(device)
    start = clock()
    source = open_data(cell.data)
    facts = public_facts(source, cell.data)
    settings = cell.settle(facts)
    models = {part.method: _model(part, source, folders, device) for part in cell.cells}
    batch = _batch(source, next(iter(models.values())).settings.batch_size, device)
    with seeded(0):
        kept = {title: _kept(model, batch) for title, model in models.items()}
        rounds: list[dict[str, Pair]] = []
        while len(rounds) < cell.costing.rounds and not (rounds and _is_late(cell, clock() - start)):
            on_progress("measuring costs", len(rounds) / cell.costing.rounds, "")
            rounds.append({title: _timed(m, batch, cell.costing.samples, clock) for title, m in models.items()})
    result = CostResult(
        settings=settings,
        facts=facts,
        costs={title: _cost(title, models[title], kept[title], rounds, cell.costing.baseline) for title in models},
        rounds=len(rounds),
        batch_size=len(batch),
        clock="processor" if device.type == "cpu" else "wall",
        versions=versions() | {"fitting": _hashes(cell.cells[0])["fitting"]},
        machine=machine_of(next(iter(models.values())).flow),
        finished=now(),
    )
    save_cell(folders.results, cell.name, result.model_dump(mode="json"))


def _is_late(cell: CostCell, seconds: float) -> bool:
    return cell.costing.seconds is not None and seconds > cell.costing.seconds


def _model(cell: Cell, source: Source, folders: Folders, device: torch.device) -> _Model:
    """Return the model that a cell has fitted, or a fresh one."""
    config, folder = run_of(cell, source, folders, _hashes(cell)["code"])
    found = load_fitted(folder) if Path(folder).is_dir() else None
    if found is None:
        with seeded(config.fit.seed):
            flow = config.model.build()
        order = Order(source.size("train"), generator(config.fit.seed, "initialize", 0))
        sample = source.read("train", order.part(0, config.fit.initialize_items))
        flow.initialize(sample.x, sample.context())
        steps = 0
    else:
        flow, steps = found[0], found[1].steps
    flow.to(device)
    optimizer = build_optimizer(flow, config.fit)
    for group in optimizer.param_groups:
        # A step costs as much, and what is measured stays what was fitted.
        group["lr"] = 0.0
    return _Model(flow, Objective(flow), optimizer, config.fit, steps)


def _hashes(cell: Cell) -> dict[str, str]:
    return code_hashes(str(cell.model["model"]), truth=cell.measuring.truth)


def _batch(source: Source, items: int, device: torch.device) -> Batch:
    items = min(items, source.size("train"))
    return source.read("train", torch.arange(items)).to(device)


def _kept(model: _Model, batch: Batch) -> int:
    """Return the most bytes that autograd holds during a training step."""
    with KeptMemory(in_memory_of(model.flow.parameters())) as memory:
        one_step(model.objective, model.settings, batch, model.optimizer)
    return memory.most


def _timed(model: _Model, batch: Batch, samples: int, clock: Callable[[], float]) -> Pair:
    """Make one training step and draw samples; what is formed once for all samples is formed before.

    Nobody looks at what inverses lose of their digits: a single draw far out would end the comparison.
    """
    begun = clock()
    one_step(model.objective, model.settings, batch, model.optimizer)
    step = clock() - begun
    with torch.no_grad(), unchecked(), model.flow.frozen():
        model.flow.sample((1,))
        begun = clock()
        model.flow.sample((samples,))
        return step, clock() - begun


def _cost(title: str, model: _Model, kept: int, rounds: list[dict[str, Pair]], baseline: str) -> Cost:
    own, base = [times[title] for times in rounds], [times[baseline] for times in rounds]
    step, sample = (median(times[which] for times in own) for which in (0, 1))
    shares = [median(mine[which] / theirs[which] for mine, theirs in zip(own, base, strict=True)) for which in (0, 1)]
    return Cost(
        step_seconds=round(step, 6),
        sample_seconds=round(sample, 6),
        step_percent=round(100 * shares[0], 2),
        sample_percent=round(100 * shares[1], 2),
        kept_bytes=kept,
        parameters=sum(parameter.numel() for parameter in model.flow.parameters()),
        steps=model.steps,
    )


def _waiting_clock(device: torch.device) -> Callable[[], float]:
    """Return a clock that waits for the device to be done."""

    def clock() -> float:
        wait_for(device)
        return time.perf_counter()

    return clock
