"""Reproducible randomness without touching the caller's random state."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's generators seeded, and put their state back afterwards.

    All random draws of likelify use torch's global generators, as everywhere in PyTorch; this makes a
    block of them reproducible. The CPU generator and those of all visible accelerators are restored.

    Args:
        seed: any integer; the same seed gives the same draws on the same device.

    Example:
        >>> import torch
        >>> with seeded(0):
        ...     a = torch.rand(3)
        >>> with seeded(0):
        ...     b = torch.rand(3)
        >>> bool((a == b).all())
        True
    """
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed of its own for a purpose and the number of a step, a pass or a part; all look independent."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def chunk_seed(seed: int, chunk: int) -> int:
    """Return the seed of a chunk of draws: that of all for the first, and for others one made of both numbers."""
    return seed if chunk == 0 else derived_seed(seed, "chunk", chunk)
