"""Values that depend on parameters alone, kept inside `frozen()` blocks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from likelify.errors import StateError
from likelify.tracing import in_forward_mode, is_tracing

# What the blocks keep for each part that they froze, from the outermost block to the innermost. A thread begins with
# none, so that what is frozen in one is trained in another; a task of asyncio sees the blocks around its creation.
_BLOCKS: "ContextVar[tuple[dict[nn.Module, dict[str, Any]], ...]]" = ContextVar("likelify_frozen", default=())


@contextmanager
def freeze(module: nn.Module) -> Iterator[None]:
    """Let every part of `module` keep what it derives from its parameters, for the block (see `Transform.frozen`)."""
    block: dict[nn.Module, dict[str, Any]] = {
        m: {} for m in module.modules() if isinstance(m, Caching) and m._kept() is None
    }
    _BLOCKS.set((*_BLOCKS.get(), block))
    try:
        yield
    finally:
        # Blocks of generators and tasks may end in any order, and in other contexts than they began in. An empty one
        # freezes nothing, whoever still holds it.
        block.clear()
        _BLOCKS.set(tuple(open_ for open_ in _BLOCKS.get() if open_))


class Caching(nn.Module):
    """A part that can keep values derived from its parameters while it is frozen."""

    @property
    def _cache(self) -> dict[str, Any] | None:
        """What is kept of this part in the current thread; None where it is not frozen, or nothing may be kept."""
        # Compiled code runs inside and outside of blocks, and tensors of torch.func and tangents are of one call.
        if torch.compiler.is_compiling() or not _BLOCKS.get() or is_tracing() or in_forward_mode():
            return None
        return self._kept()

    def _kept(self) -> dict[str, Any] | None:
        return next((block[self] for block in _BLOCKS.get() if self in block), None)

    def cached(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return `compute()`, from the cache inside `frozen()`; it must depend on this module's tensors only."""
        cache = self._cache
        if cache is None:
            return compute()
        tensors = [*self.parameters(), *self.buffers()]
        stamp = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
        if name not in cache:
            # What outlives the call is free of its modes: of inference mode, which would bind it, and of autocast.
            off = torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False)
            with torch.inference_mode(mode=False), torch.no_grad(), off:
                cache[name] = (stamp, compute())
        kept, value = cache[name]
        if kept != stamp:
            raise StateError(
                f"A parameter of {type(self).__name__} changed inside frozen(), so its cache is stale. "
                "Leave the frozen() block before changing parameters or moving the model."
            )
        return value
