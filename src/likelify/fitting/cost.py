"""What a training step costs, measured on made-up items before anything is fitted."""

from __future__ import annotations

import time
from collections import Counter

import torch
from torch import Tensor, nn

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


class KeptMemory(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd holds for backward passes inside of a `with` block: each storage once.

    What is let go again before the end counts only while it is held: a layer that differentiates inside of its forward
    pass, or runs a network again in the backward pass, adds to `most` what it holds at that moment. So the block has to
    contain the backward pass too.

    Args:
        module: whose parameters are not counted, since they are there anyway.

    Attributes:
        now: bytes that are held.
        most: bytes at the moment when they were most.

    Example:
        >>> weight = torch.ones(3, requires_grad=True)
        >>> with KeptMemory(nn.Identity()) as memory:
        ...     loss = (weight * torch.ones(3)).square().sum()
        ...     kept = memory.now
        ...     loss.backward()
        >>> kept, memory.most, memory.now
        (24, 24, 0)
    """

    def __init__(self, module: nn.Module) -> None:
        self._own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self._holders: Counter[int] = Counter()
        self.now = 0
        self.most = 0
        super().__init__(self._pack, lambda kept: kept.tensor if isinstance(kept, _Held) else kept)

    def __enter__(self) -> KeptMemory:  # pyright: ignore[reportIncompatibleMethodOverride] - it says None
        """Begin to count."""
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor | _Held:
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._own:
            return tensor
        return _Held(tensor, self)

    def add(self, place: int, size: int) -> None:
        """Count one more that holds a storage."""
        if not self._holders[place]:
            self.now += size
            self.most = max(self.most, self.now)
        self._holders[place] += 1

    def remove(self, place: int, size: int) -> None:
        """Count one less."""
        self._holders[place] -= 1
        if not self._holders[place]:
            self.now -= size


class _Held:
    """A tensor that a graph holds, as long as the graph does."""

    def __init__(self, tensor: Tensor, memory: KeptMemory) -> None:
        storage = tensor.untyped_storage()
        # Detached, since a result that its own node holds would keep both for ever. Autograd knows where it belongs.
        self.tensor, self.memory = tensor.detach(), memory
        self.place, self.size = storage.data_ptr(), storage.nbytes()
        memory.add(self.place, self.size)

    def __del__(self) -> None:
        self.memory.remove(self.place, self.size)
