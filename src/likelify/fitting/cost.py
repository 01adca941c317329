"""What a training step costs, measured on made-up items before anything is fitted."""

from __future__ import annotations

import time

import torch

from likelify.data import Batch, Facts
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import Objective, build_optimizer, descend
from likelify.nets import regularized


def made_up_batch(facts: Facts, items: int) -> Batch:
    """Draw uniform pixels, or normal values where there are no levels, and labels if the data have them."""
    shape = (items, *facts.event_shape)
    x = torch.randn(shape) if facts.levels is None else torch.randint(facts.levels, shape)
    return Batch(x, None if facts.classes is None else torch.arange(items) % facts.classes)


def one_step(
    objective: Objective, settings: FitSettings, batch: Batch, optimizer: torch.optim.Optimizer | None = None
) -> float:
    """Make one training step, with a fresh optimizer unless one is given; return its seconds."""
    optimizer = optimizer or build_optimizer(objective.flow, settings)
    wait_for(batch.x.device)
    start = time.perf_counter()
    with regularized(objective.flow, exp_tol=settings.exp_tol):
        loss, _ = objective(batch)
    descend(optimizer, loss, settings, OneProcess(batch.x.device))
    wait_for(batch.x.device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
