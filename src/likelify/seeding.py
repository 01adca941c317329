"""Reproducible randomness without touching the caller's random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's generators seeded, and put their state back afterwards.

    All random draws of likelify use torch's global generators, as everywhere in PyTorch; this makes a
    block of them reproducible. The CPU generator and those of all visible accelerators are restored.

    Args:
        seed: any integer; the same seed gives the same draws on the same device.

    Example:
        >>> with seeded(0):
        ...     a = torch.rand(3)
        >>> with seeded(0):
        ...     b = torch.rand(3)
        >>> bool((a == b).all())
        True
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
