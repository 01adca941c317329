"""Sources of simulated graphs that are drawn when they are read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from likelify.data.facts import SPLITS, GraphFacts, SplitName
from likelify.data.graphs import complete_graphs
from likelify.data.simulated.mixtures import MIXTURES
from likelify.data.source import Batch, Source, require_split, sizes_of
from likelify.errors import DataError, unknown_word

if TYPE_CHECKING:
    from torch import Tensor

# Twenty thousand steps with batches of two hundred meet no training graph twice.
TRAINING, HELD_OUT = 4_000_000, 4_000


class SimulatedGraphs(Source):
    """Point sets in the plane of a known density, as complete graphs: `mog-4`, `mog-9`, `mog-16`, `mog-ring`.

    Graphs are drawn when they are read, each a pure function of the seed, the split and its number, so that any number
    of training graphs costs no memory. `mixtures` defines the distributions; `true_log_prob` and `entropy` give their
    densities and entropies.

    Args:
        name: of the distribution.
        train: number of training graphs.
        validation: the same of the validation split.
        test: the same of the test split.
        seed: of all splits.

    Raises:
        DataError: if there is no such distribution, a number is below 1, or the seed no whole number.

    Example:
        >>> import torch
        >>> batch = SimulatedGraphs("mog-9").read("train", torch.tensor([7, 3_000_000]))
        >>> batch.x.shape, batch.structure.sizes
        (torch.Size([18, 2]), tensor([9, 9]))
    """

    kind = "graph"
    event_shape = (2,)
    columns = ("x", "y")

    def __init__(
        self, name: str, *, train: int = TRAINING, validation: int = HELD_OUT, test: int = HELD_OUT, seed: int = 0
    ) -> None:
        if name not in MIXTURES:
            raise DataError(unknown_word("distribution of point sets", str(name), MIXTURES))
        numbers = {"train": train, "validation": validation, "test": test, "seed": seed}
        for word, number in numbers.items():
            least = 0 if word == "seed" else 1
            if type(number) is not int or not least <= number < 2**40:
                raise DataError(f"{word}= of '{name}' must be a whole number from {least} to 2^40 - 1, got {number!r}.")
        self.name, self.seed, self._mixture = name, seed, MIXTURES[name]
        self._sizes: dict[SplitName, int] = {"train": train, "validation": validation, "test": test}
        self.graphs = GraphFacts(complete=True, sizes={self._mixture.nodes: train})
        sizes = sizes_of({split: range(size) for split, size in self._sizes.items()})
        seeded = f" by the seed {seed}" if seed else ""
        self.description = f"simulated: {self._mixture.said}; {sizes}{seeded}, drawn when they are read"

    def size(self, split: SplitName) -> int:
        """Return the number of graphs of a split."""
        require_split(split)
        return self._sizes[split]

    def node_counts(self, split: SplitName) -> Tensor:
        """Return the number of nodes of each graph of a split, which are alike."""
        import torch

        return torch.tensor(self._mixture.nodes).expand(self.size(split))

    def read(self, split: SplitName, indices: Tensor) -> Batch:
        """Draw the graphs with these numbers; `x` is float64, nodes in random order."""
        import torch

        require_split(split)
        items = np.asarray(indices)
        if items.ndim != 1 or items.dtype.kind not in "iu" or (len(items) and not self._has(split, items)):
            raise DataError(
                f"The split '{split}' of '{self.name}' has the graphs 0..{self.size(split) - 1}; they cannot be read "
                f"by the numbers {str(indices)[:60]}."
            )
        x = self._mixture.draw(self.seed, split, items)
        return Batch(torch.from_numpy(x.reshape(-1, 2)), structure=complete_graphs(len(items), self._mixture.nodes))

    def _has(self, split: SplitName, items: np.ndarray) -> bool:
        return bool(items.min() >= 0 and items.max() < self.size(split))

    def fingerprint(self) -> str:
        """Hash what the graphs are made of, and the first of each split."""
        digest = hashlib.sha256(repr((self.name, self.seed, self._sizes)).encode())
        for split in SPLITS:
            # The last digits of a cosine are not the same on every machine.
            digest.update(np.float32(self._mixture.draw(self.seed, split, np.arange(4)).round(3)).tobytes())
        return digest.hexdigest()[:16]
