"""Symbolic tracing: what a module calls on its input, with questions about shapes answered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn

from likelify.flowification.refusals import Refusals
from likelify.flowification.rules import module_rule, traced_functions

N = TypeVar("N")

# What reads shapes, never values.
SIZES = {"size", "dim", "ndimension", "numel", "type", "is_floating_point", getattr, len, torch.numel}
SIZES |= {torch.is_floating_point}
SIZE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"}


class Tracer(fx.Tracer):
    """Symbolic tracer that enters the user's modules, but neither PyTorch's own nor those with a rule."""

    proxy_buffer_attributes = True

    def __init__(self, example: Tensor) -> None:
        super().__init__(autowrap_functions=traced_functions())
        self.example = example

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step."""
        return module_rule(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Answer questions about shapes, such as asserts; those about values are an error of tracing."""
        if not _asks_for_sizes(obj.node):
            return super().to_bool(obj)
        return bool(self._value(obj.node))

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Unpack shapes whose length is known."""
        if not _asks_for_sizes(obj.node):
            return super().iter(obj)
        return iter([obj[i] for i in range(len(self._value(obj.node)))])  # pyright: ignore[reportIndexIssue]

    @functools.cached_property
    def _interpreter(self) -> fx.Interpreter:
        """Evaluates single nodes on the example, while the graph still grows."""
        interpreter = _Plain(self.root, garbage_collect_values=False, graph=self.graph)
        interpreter.args_iter = iter([self.example.clone()])
        return interpreter

    def _value(self, node: fx.Node) -> Any:
        needed, values = ancestors(node), self._interpreter.env
        with torch.no_grad():
            for other in self.graph.nodes:
                if other in needed and other not in values:
                    values[other] = self._interpreter.run_node(other)
        return values[node]


class _Plain(fx.Interpreter):
    """Reads attributes as they are: while a module is traced, its own `__getattr__` gives stand-ins."""

    def fetch_attr(self, target: str) -> Any:
        """Return a parameter, a buffer or a plain attribute of a module."""
        *path, last = target.split(".")
        module: Any = self.module
        for name in path:
            module = vars(module)["_modules"][name]
        kinds = (vars(module).get(kind, {}) for kind in ("_parameters", "_buffers", "_modules"))
        return next((kind[last] for kind in kinds if last in kind), vars(module).get(last))


def _asks_for_sizes(node: fx.Node) -> bool:
    """Return whether a value depends on the shapes of data and on constants only."""
    needed = reachable(node, lambda other: [] if reads_size(other) else other.all_input_nodes)
    return all(other.op != "placeholder" for other in needed)


def reads_size(node: fx.Node) -> bool:
    """Return whether a node reads the shape or type of a tensor, never its values."""
    return node.target in SIZES and (node.target is not getattr or node.args[1] in SIZE_ATTRIBUTES)


def symbolic(module: nn.Module, example: Tensor, refusals: Refusals) -> fx.GraphModule | None:
    """Return what a module calls on its input, or None, with what is in the way added to `refusals`."""
    tracer = Tracer(example)
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    fixed = {
        p.name: p.default for p in parameters[1:] if p.default is not inspect.Parameter.empty and p.kind not in kinds
    }
    try:
        graph = tracer.trace(module, concrete_args=fixed or None)
    except Exception as error:  # Whatever the user's forward does with symbolic values.
        refusals.add(
            "forward",
            f"cannot be traced, because it looks at the values of tensors or calls what is not PyTorch ({error}). Take "
            "branches and loops that depend on data out of it, or move them into a module of its own and register a "
            "rule for that (flowification.rule).",
        )
        return None
    return fx.GraphModule(tracer.root, graph)


def ancestors(node: fx.Node) -> set[fx.Node]:
    """Return a node and all that it is computed from."""
    return reachable(node, lambda other: other.all_input_nodes)


def reachable(node: N, inputs: Callable[[N], Iterable[N]]) -> set[N]:
    """Return a node of any graph and all that its inputs lead back to."""
    found, waiting = set(), [node]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += inputs(current)
    return found
