"""The graph that a traced network becomes: values that depend on the input, and what they are computed from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, fx, nn

from likelify.flowification.rules import Call
from likelify.transforms.core import Shape

Kind = Literal["input", "step", "sum", "concat", "select", "group"]


@dataclass(eq=False)
class Node:
    """A value that depends on the input.

    Attributes:
        name: dotted path of a module, or place and name of a call; unique.
        kind: the input; a step with one input; a sum or concatenation of several; a range of channels (`select`), or
            several ranges beside each other (`group`).
        inputs: what it is computed from, in order.
        shape: of the event.
        target: the module, function or method name of a step.
        call: its arguments, unless it is a module.
        again: the same for a batch with one row more, which tells what counts rows.
        weights: of the inputs of a sum.
        channels: range of a select, ranges of a group.
        uses: ids of the parameters and buffers it reads.
        frees: whether it reads weights that are computed from others, or one for all channels, which become weights of
            their own.
        traced: the node of the traced graph, for error reports.
    """

    name: str
    kind: Kind
    inputs: list[Node]
    shape: Shape
    target: Any = None
    call: Call | None = None
    again: Call | None = None
    weights: list[float] = field(default_factory=list)
    channels: list[tuple[int, int]] = field(default_factory=list)
    uses: list[int] = field(default_factory=list)
    frees: bool = False
    traced: fx.Node | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def what(self) -> str:
        """The class of a module, the name of a call, or the kind."""
        if isinstance(self.target, nn.Module):
            return type(self.target).__name__
        return self.kind if self.call is None else self.call.name


@dataclass(eq=False)
class Graph:
    """The nodes in order, the last of which is the result.

    Attributes:
        nodes: the first is the input.
        module: a copy of the user's module, on the CPU in eval mode, with its weights.
        batches: the two inputs that it was run on, and what it gave.
    """

    nodes: list[Node]
    module: nn.Module
    batches: list[tuple[Tensor, Tensor]]
