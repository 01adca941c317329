"""From a module to a graph of named steps: what is computed from what, with event shapes and constants.

The module is traced symbolically, then run twice with different numbers of rows, which tells event shapes from rows,
and constants from what depends on the input.
"""

from __future__ import annotations

import copy
import inspect
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from likelify.errors import ShapeError, UnsupportedError
from likelify.flowification.execution import Recorder
from likelify.flowification.graph import Graph, Kind, Node
from likelify.flowification.refusals import TENSOR_ALPHA, Refusals
from likelify.flowification.rules import DATA, Call, argument, full_index, module_rule
from likelify.flowification.symbolic import Tracer, ancestors, reachable, reads_size, symbolic
from likelify.transforms.core import Shape

ADD = {operator.add, operator.iadd, torch.add, "add"}
SUBTRACT = {operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "subtract"}
CONCAT = {torch.cat, torch.concat, torch.concatenate, torch.hstack}
SPLIT = {torch.chunk, torch.split, torch.tensor_split, "chunk", "split", "tensor_split"}

# What networks are wrapped in, to be compiled or trained on several devices, and where they are in that.
WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
# More would be kept in memory, all steps of it, and tell nothing new.
EXAMPLE_ROWS = 4


def trace(module: nn.Module, example: Tensor, refusals: Refusals) -> Graph | None:
    """Return the graph of a module; what is in the way goes to `refusals`, and without any graph the result is None."""
    _check_example(example)
    module = _copied(module)
    if Tracer((example,)).is_leaf_module(module, ""):
        # A tracer looks into the module that it is given; what it should not look into goes one level down.
        module = nn.Sequential(module)
    example = example[:EXAMPLE_ROWS].detach().cpu()
    more = torch.cat([example, example[:1]])
    results = _results(module, example, more, refusals)
    found = None if results is None else symbolic(module, (example, more), refusals)
    if results is None or found is None:
        return None
    recorders = [Recorder(found), Recorder(found)]
    with torch.no_grad():
        for recorder, batch in zip(recorders, (example, more), strict=True):
            recorder.run(batch.clone())
    nodes = _GraphBuilder(found, (len(example), len(more)), recorders, refusals).build()
    return None if nodes is None else Graph(nodes, module, list(zip((example, more), results, strict=True)))


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode on the CPU.

    Raises:
        UnsupportedError: for what is no module that can be copied, or one that takes any number of inputs.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        kind = type(module).__name__
        raise UnsupportedError(f"flowify takes an nn.Module, as it was before torch.jit, and got a {kind}.")
    scripted = [name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        raise UnsupportedError(
            f"The part '{scripted[0]}' is scripted. flowify takes parts as they were before torch.jit."
        )
    inner = WRAPPERS.get(type(module).__name__)
    if inner is not None and isinstance(getattr(module, inner, None), nn.Module):
        kind = type(module).__name__
        raise UnsupportedError(f"This is a network inside of a {kind}. Give the network itself: net.{inner}.")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise UnsupportedError("This module is on the meta device and has no weights. Load them first.")
    parameters = list(inspect.signature(module.forward).parameters.values())
    if parameters and parameters[0].kind == inspect.Parameter.VAR_POSITIONAL:
        raise UnsupportedError("The forward of this module takes any number of inputs (*args); a flow has one.")
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    more = [p.name for p in parameters[1:] if p.default is inspect.Parameter.empty and p.kind not in variable]
    if more:
        raise UnsupportedError(
            f"The forward of this module needs {', '.join(map(repr, more))} beside its first input; a flow has one. "
            "Make the others constants of the module, or give them defaults."
        )
    try:
        return _unwrapped(copy.deepcopy(module)).cpu().eval()
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise UnsupportedError(
            f"This module cannot be copied ({' '.join(str(error).split())[:120]}). If weights are computed by "
            "torch.nn.utils.weight_norm or spectral_norm, take those of torch.nn.utils.parametrizations, or fix them "
            "with remove_weight_norm or remove_spectral_norm; those of torch.nn.utils.prune are fixed by prune.remove. "
            "A lazy module that cannot be copied gets its shapes when it is called once."
        ) from error


def _unwrapped(module: nn.Module) -> nn.Module:
    """Return a network without the wrappers of its parts, which change nothing of what they compute."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            inner = getattr(child, WRAPPERS.get(type(child).__name__, ""), None)
            if isinstance(inner, nn.Module):
                setattr(part, name, inner)
    return module


def _results(module: nn.Module, example: Tensor, more: Tensor, refusals: Refusals) -> list[Tensor] | None:
    """Return what the module gives for two batches, which also gives lazy modules their shapes."""
    found = []
    for batch in (example, more):
        try:
            with torch.no_grad():
                found.append(module(batch.clone()))
        except Exception as error:  # Whatever the user's forward raises.
            tensors = [*module.parameters(), *module.buffers()]
            others = {str(t.dtype) for t in tensors if t.is_floating_point() and t.dtype != example.dtype}
            if found:
                what = f"works on {len(example)} rows and fails on {len(more)} ({error}); allow any number."
            elif others:
                what = f"fails on the example ({error}), which is {example.dtype} where the module is "
                what += f"{', '.join(others)}. Give both the same type."
            else:
                raise
            refusals.add("forward", what)
            return None
    if all(isinstance(result, Tensor) for result in found):
        return found
    refusals.add("output", f"the module gives a {type(found[0]).__name__}; return one tensor.")
    return None


def _check_example(example: Tensor) -> None:
    if not isinstance(example, Tensor) or example.ndim < 2 or len(example) == 0:
        got = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ShapeError(
            f"flowify needs an example of the input with rows in front, (rows, channels, ...), as the module is called "
            f"in training; got {got}. For a single event x give x[None]."
        )
    if not example.is_floating_point():
        raise UnsupportedError(
            f"The example is {example.dtype}; a density lives on real numbers. Give the floating-point values that the "
            "module works on; for integers put Dequantize in front (zoo.converted_flow does)."
        )
    if example.dtype not in (torch.float32, torch.float64):
        raise UnsupportedError(
            f"The example is {example.dtype}, too coarse for a log-determinant. Convert in float32: "
            "flowify(module.float(), example.float())."
        )


class _GraphBuilder:
    """Turns a traced graph into nodes."""

    def __init__(
        self, traced: fx.GraphModule, rows: tuple[int, int], recorders: list[Recorder], refusals: Refusals
    ) -> None:
        self.traced, self.rows, self.refusals = traced, rows, refusals
        self.first, self.second = recorders[0].values, recorders[1].values
        self.stale = recorders[0].stale
        self.nodes: dict[fx.Node, Node] = {}
        self.parts: dict[fx.Node, list[tuple[int, int]]] = {}
        self.uses: dict[fx.Node, list[int]] = {}
        self.names: set[str] = set()
        self.named: dict[fx.Node, str] = {}

    def build(self) -> list[Node] | None:
        """Return the nodes that the output depends on."""
        output = next(node for node in self.traced.graph.nodes if node.op == "output")
        needed = ancestors(output)
        for node in self.traced.graph.nodes:
            if node in needed and node.op != "output":
                self._visit(node)
        # What is read after a change in place, which the graph knows nothing of.
        for reader, changer in self.stale:
            if reader in needed:
                what = f"reads again what '{self._name(changer)}' has changed in place. Use inplace=False there"
                self._refuse(reader, f"{what} (or y = y + x for y += x).")
        result = output.args[0]
        if result not in self.nodes:
            if not self.refusals.found:
                self.refusals.add("output", "does not depend on the input.")
            return None
        used = reachable(self.nodes[result], lambda node: node.inputs)
        return [node for node in dict.fromkeys(self.nodes.values()) if node in used]

    def _refuse(self, node: fx.Node, what: str) -> None:
        self.refusals.add(self._name(node), what)

    def _visit(self, node: fx.Node) -> None:
        before = [n for n in _operands(node) if n in self.nodes or n in self.parts]
        if node.op == "placeholder":
            self._placeholder(node)
        elif not before:
            self.uses[node] = self._uses(node)
        elif isinstance(value := self.first[node], Tensor) or not reads_size(node):
            shape = self._event_shape(node)
            if shape is not None:
                self._data(node, before, shape)
            elif isinstance(value, Tensor):
                # Behind a problem it goes on all the same, so that everything is reported at once.
                self.nodes[node] = self._new_node(node, "step", [self.nodes[before[0]]], tuple(value.shape[1:]))

    def _placeholder(self, node: fx.Node) -> None:
        if not self.nodes:
            shape = tuple(self.first[node].shape[1:])
            self.nodes[node] = Node("input", "input", [], shape, traced=node)
            self.names.add("input")
            self.named[node] = "input"
        elif isinstance(self.first[node], Tensor):
            self.refusals.add(str(node), "is a second input; a flow has one. Make it a constant of the module.")

    def _uses(self, node: fx.Node) -> list[int]:
        """Return the ids of the parameters and buffers that a node reads, itself or through constants."""
        own = []
        if node.op == "get_attr" and isinstance(self.first[node], Tensor):
            own = [self.first[node]]
        elif node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            own = [*module.parameters(), *module.buffers()]
        return [*map(id, own), *(use for n in node.all_input_nodes for use in self.uses.get(n, []))]

    def _event_shape(self, node: fx.Node) -> Shape | list[Shape] | None:
        """Return the shape of the event, or of several; None after noting a problem."""
        values = [values[node] for values in (self.first, self.second)]
        if isinstance(values[0], tuple | list) and values[0] and isinstance(values[0][0], Tensor):
            tensors = [[part for part in value if isinstance(part, Tensor)] for value in values]
            shapes = [self._rows_apart(a, b) for a, b in zip(*tensors, strict=True)]
            if node.op == "call_module" and shapes[0] is not None:
                # Such as the last state beside the outputs: the refusal of the module says what is wrong.
                shapes = [shape for shape in shapes if shape is not None]
            found = None if None in shapes else shapes
        elif isinstance(values[0], Tensor):
            found = self._rows_apart(*values)
        else:
            kind = type(values[0]).__name__
            what = f"turns data into a Python {kind}, so the function depends on data in a way that has no density."
            self._refuse(node, f"{what} Keep it a tensor, or take it out.")
            return None
        if found is None:
            what = f"mixes the {self.rows[0]} rows of the batch with other axes, or drops them."
            self._refuse(node, f"{what} Each row must be mapped by itself; keep axis 0 for the rows.")
        return found  # pyright: ignore[reportReturnType]

    def _rows_apart(self, a: Tensor, b: Tensor) -> Shape | None:
        if a.ndim < 1 or (len(a), len(b)) != self.rows or a.shape[1:] != b.shape[1:]:
            return None
        return tuple(a.shape[1:])

    def _data(self, node: fx.Node, before: list[fx.Node], shape: Shape | list[Shape]) -> None:
        target = _target(node)
        if isinstance(shape, list):
            self._split(node, before, target, shape)
        elif target is operator.getitem and before[0] in self.parts:
            parts, inner = self.parts[before[0]], self.nodes[before[0]]
            self.nodes[node] = inner
            if parts:
                part = parts[self._values(node.args[1])]
                self.nodes[node] = self._new_node(node, "select", [inner], shape, channels=[part])
        elif (channels := self._selected(node, target)) is not None:
            self.nodes[node] = self._new_node(node, "select", [self.nodes[before[0]]], shape, channels=[channels])
        elif target in CONCAT and len(before) == len(_operands(node)) == 1:
            # All parts of a split in their order.
            self._require_channels(node, shape)
            self.nodes[node] = self.nodes[before[0]]
        elif len(before) == 1:
            self.nodes[node] = self._step(node, self.nodes[before[0]], shape, target)
        else:
            self._join(node, before, shape, target)

    def _new_node(self, node: fx.Node, kind: Kind, inputs: list[Node], shape: Shape, **rest: Any) -> Node:
        return Node(self._name(node), kind, inputs, shape, traced=node, **rest)

    def _split(self, node: fx.Node, before: list[fx.Node], target: Any, shapes: list[Shape]) -> None:
        inner = self.nodes[before[0]]
        axis = argument(node, 2, "dim", 0)
        axis = axis + len(inner.shape) + 1 if isinstance(axis, int) and axis < 0 else axis
        if target in SPLIT and len(before) == 1 and axis == 1:
            ends = [sum(s[0] for s in shapes[: i + 1]) for i in range(len(shapes))]
            self.parts[node] = [(end - shape[0], end) for end, shape in zip(ends, shapes, strict=True)]
        elif target in SPLIT:
            self._refuse(node, f"splits axis {axis}; only channels (axis 1) can be split.")
            self.parts[node] = [(0, inner.shape[0])] * len(shapes)
        else:
            # A module with several results, such as attention: the refusal comes from its rule.
            self.nodes[node] = self._step(node, inner, shapes[0], target)
            self.nodes[node].inputs = [self.nodes[n] for n in before]
            self.parts[node] = []
            return
        self.nodes[node] = inner

    def _selected(self, node: fx.Node, target: Any) -> tuple[int, int] | None:
        """Return the range of channels that `x[:, a:b]` or `narrow` takes."""
        if target is operator.getitem and isinstance(node.args[1], tuple):
            shape = self.first[node.args[0]].shape  # pyright: ignore[reportArgumentType]
            index = full_index(self._values(node.args[1]), len(shape))
            if index is not None and [n for n, part in enumerate(index) if part != slice(None)] == [1]:
                start, stop, step = index[1].indices(shape[1])
                return (start, stop) if step == 1 else None
        if target in ("narrow", torch.narrow):
            named = ((1, "dim"), (2, "start"), (3, "length"))
            axis, start, length = (self._values(argument(node, *where)) for where in named)
            start += self.first[node.args[0]].shape[1] if axis == 1 and start < 0 else 0  # pyright: ignore[reportArgumentType]
            return (start, start + length) if axis == 1 else None
        return None

    def _step(self, node: fx.Node, before: Node, shape: Shape, target: Any) -> Node:
        if node.op == "call_module":
            module = self.traced.get_submodule(str(node.target))
            if len(node.args) + len(node.kwargs) != 1 and module_rule(module) is not None:
                self._refuse(node, "is called with more than its input. Give such settings when it is built.")
            return self._new_node(node, "step", [before], shape, target=module, uses=self._uses(node))
        call, again = (
            Call(_label(target), self._values(node.args, on), self._values(node.kwargs, on), before.shape, shape)
            for on in (self.first, self.second)
        )
        settings = {
            "target": target,
            "call": call,
            "again": again,
            "uses": self._uses(node),
            "frees": self._frees(node),
        }
        return self._new_node(node, "step", [before], shape, **settings)

    def _frees(self, node: fx.Node) -> bool:
        """Tell whether a step makes weights of their own of what the network computes, or has once for all channels."""
        for constant in node.all_input_nodes:
            value = self.first.get(constant)
            if constant in self.nodes or constant in self.parts or not isinstance(value, Tensor):
                continue
            trained = value.is_floating_point() and any(self._is_trained(other) for other in ancestors(constant))
            if trained and (not isinstance(value, nn.Parameter) or value.numel() == 1):
                return True
        return False

    def _join(self, node: fx.Node, before: list[fx.Node], shape: Shape, target: Any) -> None:
        inputs = [self.nodes[n] for n in before]
        if target in ADD or target in SUBTRACT:
            alpha = self._values(argument(node, 2, "alpha", 1))
            if isinstance(alpha, Tensor):
                self._refuse(node, TENSOR_ALPHA)
                alpha = 1.0
            self.nodes[node] = self._sum(node, inputs, shape, -alpha if target in SUBTRACT else alpha)
        elif target in CONCAT and len(inputs) == len(_operands(node)):
            self._require_channels(node, shape)
            self.nodes[node] = self._new_node(node, "concat", inputs, shape)
        else:
            self.nodes[node] = self._step(node, inputs[0], shape, target)
            self.nodes[node].inputs = inputs

    def _require_channels(self, node: fx.Node, shape: Shape) -> None:
        axis = 1 if _target(node) is torch.hstack else argument(node, 1, "dim", 0)
        if axis not in (1, -len(shape)):
            what = f"joins along axis {axis}; branches can be joined along the channels (axis 1)."
            self._refuse(node, f"{what} Move that axis to place 1 with transpose before and back afterwards.")

    def _sum(self, node: fx.Node, inputs: list[Node], shape: Shape, weight: float) -> Node:
        if any(n.shape != shape for n in inputs):
            shapes = " and ".join(str(n.shape) for n in inputs)
            what = f"adds events of different shapes {shapes}, so one is repeated over axes of the other."
            self._refuse(node, f"{what} Repeat it by a step of its own, such as nn.Upsample.")
        if weight == 0:
            self._refuse(node, "adds something times zero. Take it out.")
        if inputs[0] is inputs[1]:
            call = Call("mul", (DATA, 1 + weight), {}, shape, shape)
            return self._new_node(node, "step", inputs[:1], shape, target=torch.mul, call=call)
        return self._new_node(node, "sum", inputs, shape, weights=[1.0, float(weight)])

    def _values(self, argument: Any, on: dict[fx.Node, Any] | None = None) -> Any:
        """Return an argument with its constants evaluated; `DATA` stands for what depends on the input."""
        return fx.map_arg(argument, lambda node: self._value(node, self.first if on is None else on))

    def _value(self, node: fx.Node, on: dict[fx.Node, Any]) -> Any:
        if node in self.nodes or node in self.parts:
            return DATA
        value = on[node]
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            trained = any(self._is_trained(n) for n in ancestors(node))
            return nn.Parameter(value.clone()) if trained and value.is_floating_point() else value
        return value

    def _is_trained(self, node: fx.Node) -> bool:
        """Return whether a constant is a parameter, or what a module makes of its parameters."""
        if node.op == "call_module":
            return any(True for _ in self.traced.get_submodule(str(node.target)).parameters())
        return isinstance(self.first[node], nn.Parameter)

    def _name(self, node: fx.Node) -> str:
        if node not in self.named:
            self.named[node] = self._new_name(node)
        return self.named[node]

    def _new_name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            name = str(node.target)
        else:
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            place = stack[-1][0] if stack else ""
            name = f"{place}.{_label(_target(node))}" if place else _label(_target(node))
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}#{count}"
        self.names.add(unique)
        return unique


def _target(node: fx.Node) -> Any:
    """Return what is called; methods in their plain form, without the underscore of those that work in place."""
    target = node.target
    if node.op == "call_method" and isinstance(target, str):
        return target.removesuffix("_") if not target.startswith("__") else target
    return target


def _label(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _operands(node: fx.Node) -> list[fx.Node]:
    """Return the nodes among the arguments in order, as often as they occur."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), lambda n: found.append(n) or n)
    return found
