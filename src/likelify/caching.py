"""Values that depend on parameters alone, kept inside `frozen()` blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from likelify.errors import StateError


@contextmanager
def freeze(module: nn.Module) -> Iterator[None]:
    """Let every part of `module` keep what it derives from its parameters, for the block (see `Transform.frozen`)."""
    opened = [m for m in module.modules() if isinstance(m, Caching) and m._cache is None]
    for layer in opened:
        layer._cache = {}
    try:
        yield
    finally:
        for layer in opened:
            layer._cache = None


class Caching(nn.Module):
    """A part that can keep values derived from its parameters while it is frozen."""

    _cache: dict[str, tuple[tuple[Any, ...], Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy that is made inside frozen() must not be frozen for ever.
        return self.__dict__ | {"_cache": None}

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return `compute()`, from the cache inside `frozen()`; it must depend on this module's tensors only."""
        if self._cache is None:
            return compute()
        tensors = [*self.parameters(), *self.buffers()]
        stamp = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if name not in self._cache:
            # What is made in inference mode could not be used outside of it.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._cache[name] = (stamp, compute())
        kept, value = self._cache[name]
        if kept != stamp:
            raise StateError(
                f"A parameter of {type(self).__name__} changed inside frozen(), so its cache is stale. "
                "Leave the frozen() block before changing parameters or moving the model."
            )
        return value
