"""Memory that automatic differentiation keeps between the forward and the backward pass."""

import gc
import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor


class _Kept:
    """A tensor that automatic differentiation keeps; unlike the tensor itself it has no other owner."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept_bytes(run: Callable[[], object], left_out: Callable[[Tensor], bool]) -> int:
    """Return the bytes that are still kept when a call is over, each storage once, some tensors left out."""
    found = []

    def pack(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        found.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        # The result holds the graph until everything is counted.
        result = run()
    gc.collect()
    tensors = [kept.tensor for reference in found if (kept := reference()) is not None]
    storages = [tensor.untyped_storage() for tensor in tensors if not left_out(tensor)]
    del result
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def in_memory_of(tensors: Iterable[Tensor]) -> Callable[[Tensor], bool]:
    """Return a function that tells whether a tensor lies in the memory of one of these."""
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return lambda tensor: tensor.untyped_storage().data_ptr() in places
