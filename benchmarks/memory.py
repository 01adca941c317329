"""Memory that a call keeps for its backward pass."""

import gc
from collections.abc import Callable

from torch import Tensor

from likelify.fitting.memory import KeptMemory


def kept_bytes(run: Callable[[], object], left_out: Callable[[Tensor], bool] | None = None) -> int:
    """Return the bytes that are still kept when a call is over, each storage once, some tensors left out."""
    with KeptMemory(left_out) as memory:
        # The result holds the graph until everything is counted.
        result = run()
        gc.collect()
        kept = memory.now
    del result
    return kept
