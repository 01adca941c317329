"""Memory that automatic differentiation holds between the forward and the backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def in_memory_of(tensors: Iterable[Tensor]) -> Callable[[Tensor], bool]:
    """Return a function that tells whether a tensor lies in the memory of one of these."""
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return lambda tensor: tensor.untyped_storage().data_ptr() in places


class KeptMemory(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd holds for backward passes inside of a `with` block: each storage once.

    What is let go again before the end counts only while it is held: a layer that differentiates inside of its forward
    pass, or runs a network again in the backward pass, adds to `most` what it holds at that moment. So the block has to
    contain the backward pass too.

    Args:
        left_out: tells which tensors are not counted, such as parameters, which are there anyway (`in_memory_of`).

    Attributes:
        now: bytes that are held.
        most: bytes at the moment when they were most.

    Example:
        >>> weight = torch.ones(3, requires_grad=True)
        >>> with KeptMemory() as memory:
        ...     loss = (weight * torch.ones(3)).square().sum()
        ...     kept = memory.now
        ...     loss.backward()
        >>> kept, memory.most, memory.now
        (24, 24, 0)
    """

    def __init__(self, left_out: Callable[[Tensor], bool] | None = None) -> None:
        self._left_out = left_out
        self._holders: Counter[int] = Counter()
        self.now = 0
        self.most = 0
        super().__init__(self._pack, lambda kept: kept.tensor if isinstance(kept, _Held) else kept)

    def __enter__(self) -> KeptMemory:  # pyright: ignore[reportIncompatibleMethodOverride] - it says None
        """Begin to count."""
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor | _Held:
        left_out = self._left_out is not None and self._left_out(tensor)
        return tensor if left_out else _Held(tensor, self)

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
