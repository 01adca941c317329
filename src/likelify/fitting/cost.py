"""What a training step costs, measured on made-up items before anything is fitted."""

import time

import torch
from torch import Tensor

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


def one_step(objective: Objective, settings: FitSettings, batch: Batch) -> tuple[float, int]:
    """Make one training step; return its seconds, and the bytes that its forward pass kept, parameters not counted."""
    flow, optimizer = objective.flow, build_optimizer(objective.flow, settings)
    kept: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in flow.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = time.perf_counter()
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with regularized(flow, exp_tol=settings.exp_tol), hooks:
        loss, _ = objective(batch)
    descend(optimizer, loss, settings, OneProcess("cpu"))
    return time.perf_counter() - start, sum(kept.values())
