"""Running a traced graph, and finding values that are read after something else has changed them in place.

A traced graph takes every call for a function of what it is given. Where a tensor is changed in place, that is wrong
for its other readers, and the example alone does not always tell: a leaky ReLU changes nothing above zero.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx

from likelify.flowification.symbolic import reads_size


class Recorder(fx.Interpreter):
    """Runs a graph and keeps what each node gave.

    Attributes:
        values: of each node.
        stale: pairs of a node and another one that had changed in place what the first read.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}
        self.stale: list[tuple[fx.Node, fx.Node]] = []
        self._changes: list[tuple[fx.Node, set[fx.Node], list[Tensor]]] = []

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        before = {node: _versions(self.values[node]) for node in n.all_input_nodes}
        value = super().run_node(n)
        if not reads_size(n):
            self._look_at_reads(n, value)
        # The tensor that is written to stands first; others may count as changed because they share its memory.
        changed = next((node for node, versions in before.items() if _versions(self.values[node]) != versions), None)
        if changed is not None:
            self._changes.append((n, set(self.values), _tensors(self.values[changed])))
        self.values[n] = value
        return value

    def _look_at_reads(self, n: fx.Node, value: Any) -> None:
        for node in n.all_input_nodes:
            picked = n.target is operator.getitem and not isinstance(self.values[node], Tensor)
            parts = _tensors(value if picked else self.values[node])
            for changer, older, written in self._changes:
                if node in older and any(_overlap(a, b) for a in parts for b in written):
                    self.stale.append((n, changer))


def _tensors(value: Any) -> list[Tensor]:
    parts = value if isinstance(value, tuple | list) else [value]
    return [part for part in parts if isinstance(part, Tensor)]


def _versions(value: Any) -> list[int]:
    """Return how often tensors were changed in place; those made in inference mode do not count them."""
    return [0 if part.is_inference() else part._version for part in _tensors(value)]


def _overlap(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors have an element of memory in common."""
    if a.dtype != b.dtype or a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
        return False
    touched = torch.zeros(a.untyped_storage().nbytes() // a.element_size(), dtype=torch.bool)
    touched.as_strided(a.shape, a.stride(), a.storage_offset())[...] = True
    return bool(touched.as_strided(b.shape, b.stride(), b.storage_offset()).any())
