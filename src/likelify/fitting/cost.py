"""What a training step costs, measured on made-up items before anything is fitted."""

from __future__ import annotations

import time

import torch

from likelify.data import Batch, Facts
from likelify.fitting.process import OneProcess
from likelify.fitting.settings import FitSettings
from likelify.fitting.training import Objective, build_optimizer, descend
from likelify.nets import regularized
from likelify.structure import GraphBatch

# Of a made-up graph, where nothing is known of the real ones.
NODES = 8


def made_up_batch(facts: Facts, items: int) -> Batch:
    """Draw uniform pixels, or normal values where there are no levels, and labels if the data have them.

    Graphs have as many nodes as the training graphs, and the edges of rings where they are not complete.
    """
    structure = None if facts.kind != "graph" else _made_up_graphs(facts, items)
    shape = (items if structure is None else len(structure.owner), *facts.event_shape)
    x = torch.randn(shape) if facts.levels is None else torch.randint(facts.levels, shape)
    return Batch(x, None if facts.classes is None else torch.arange(items) % facts.classes, structure)


def _made_up_graphs(facts: Facts, items: int) -> GraphBatch:
    known = {NODES: 1} if facts.graphs is None else facts.graphs.sizes
    upto = torch.tensor(list(known.values())).cumsum(0)
    places = torch.linspace(0, int(upto[-1]) - 1, items, dtype=torch.float64).round()
    sizes = torch.tensor(list(known))[torch.searchsorted(upto, places.long(), right=True)]
    if facts.graphs is None or facts.graphs.complete:
        return GraphBatch.complete(sizes)
    starts, nodes = (sizes.cumsum(0) - sizes).repeat_interleave(sizes), torch.arange(int(sizes.sum()))
    following = starts + (nodes - starts + 1) % sizes.repeat_interleave(sizes)
    return GraphBatch(sizes, torch.stack([nodes, following])[:, nodes != following]).undirected()


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
