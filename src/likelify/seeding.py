"""Reproducible randomness without touching the caller's random state."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

# Of more numbers no permutation is kept.
PERMUTED = 2**25


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


class Order:
    """The numbers `0 .. size - 1` in a random order.

    A permutation; where there are more numbers than are kept, such as of graphs that are drawn when they are read,
    `i -> (a i + b) mod size` with random a, prime to the size, and b: each number still comes once.

    Args:
        size: how many numbers there are.
        random: what is random is drawn from it.

    Example:
        >>> import torch
        >>> huge = Order(10**9, torch.Generator().manual_seed(0)).part(10**9 - 3, 5)
        >>> len(huge), bool((huge < 10**9).all())
        (3, True)
    """

    def __init__(self, size: int, random: torch.Generator) -> None:
        import torch

        self.size, self.whole, self.factor, self.shift = size, None, 1, 0
        if size <= PERMUTED:
            self.whole = torch.randperm(size, generator=random)
            return
        # No product is too large for 64 bits.
        most = min(size, 2**62 // size)
        while math.gcd(self.factor, size) > 1 or self.factor < most // 3:
            self.factor = int(torch.randint(most, (1,), generator=random))
        self.shift = int(torch.randint(size, (1,), generator=random))

    def part(self, start: int, count: int) -> Tensor:
        """Return the numbers from that place on, fewer at the end."""
        import torch

        if self.whole is not None:
            return self.whole[start : start + count]
        return (torch.arange(start, min(start + count, self.size)) * self.factor + self.shift) % self.size


def picked(size: int, count: int) -> np.ndarray:
    """Return `count` of the numbers `0 .. size - 1`, the first of a random order that depends on the size alone.

    The order is `numpy.random.default_rng(0).permutation`, and for more numbers than are kept an `Order`.
    """
    import numpy as np
    import torch

    if size <= PERMUTED:
        return np.random.default_rng(0).permutation(size)[:count]
    return Order(size, torch.Generator().manual_seed(0)).part(0, count).numpy()
