"""Symbolic tracing: what a module calls on its input, with questions about shapes answered."""

from __future__ import annotations

import contextlib
import copy
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.fx.proxy import Attribute, TraceError

from likelify.flowification.refusals import Refusals
from likelify.flowification.rules import module_rule, traced_functions

N = TypeVar("N")

# What a trace puts its own in place of.
PLAIN = {name: getattr(nn.Module, name) for name in ("__call__", "__getattr__")}

# Functions that make tensors, which a trace sees only if their sizes are a tuple.
FACTORIES = ("ones(", "zeros(", "full(", "rand(", "randn(", "empty(")
# What reads shapes, never values.
SIZES = {"size", "dim", "ndimension", "numel", "type", "is_floating_point", getattr, len, torch.numel}
SIZES |= {torch.is_floating_point}
SIZE_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "is_cuda", "requires_grad"}


class Tracer(fx.Tracer):
    """Symbolic tracer that enters the user's modules, but neither PyTorch's own nor those with a rule.

    Args:
        examples: inputs that differ in the number of rows, which questions about shapes are answered on.
    """

    proxy_buffer_attributes = True

    def __init__(self, examples: Sequence[Tensor]) -> None:
        super().__init__(autowrap_functions=traced_functions())
        self.examples = examples

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step."""
        return module_rule(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a module; look into one that is made in the forward itself, such as `self.layers[:2]`."""
        try:
            self.path_of_module(m)
        except NameError:
            if self.is_leaf_module(m, "") and any(True for _ in m.parameters()):
                raise TraceError(
                    f"the {type(m).__name__} that it calls is no attribute of the network, so that its weights would "
                    "be neither trained nor saved; assign it in __init__, several in an nn.ModuleDict or nn.ModuleList"
                ) from None
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return what stands for a value in the user's forward."""
        return _StandIn(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Answer questions about shapes, such as asserts; those about values are an error of tracing."""
        if not _asks_for_sizes(obj.node):
            return super().to_bool(obj)
        return self.answer(obj.node, bool)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Unpack shapes whose length is known."""
        if not _asks_for_sizes(obj.node):
            return super().iter(obj)
        return iter([obj[i] for i in range(self.answer(obj.node, len))])  # pyright: ignore[reportIndexIssue]

    def answer(self, node: fx.Node, ask: Callable[[Any], N]) -> N:
        """Return what is asked of a value that depends on shapes.

        Raises:
            TraceError: if it depends on the values of tensors, or on the number of rows.
        """
        if not _asks_for_sizes(node):
            raise TraceError("a Python number is made of a value that depends on data")
        answers = [ask(self._value(node, interpreter)) for interpreter in self._interpreters]
        if any(other != answers[0] for other in answers):
            raise TraceError(
                "the number of rows is asked for in Python, as by len(x); write x.shape[0], or -1 in shapes"
            )
        return answers[0]

    @functools.cached_property
    def _interpreters(self) -> list[fx.Interpreter]:
        """Evaluate single nodes on the examples, while the graph still grows."""
        found: list[fx.Interpreter] = []
        for example in self.examples:
            found.append(fx.Interpreter(self.root, garbage_collect_values=False, graph=self.graph))
            found[-1].args_iter = iter([example.clone()])
        return found

    def _value(self, node: fx.Node, interpreter: fx.Interpreter) -> Any:
        needed, values = ancestors(node), interpreter.env
        with torch.no_grad(), _untraced():
            for other in self.graph.nodes:
                if other in needed and other not in values:
                    values[other] = interpreter.run_node(other)
        return values[node]


@contextlib.contextmanager
def _untraced() -> Iterator[None]:
    """Let modules compute, in the middle of a trace, in which they record."""
    traced = {name: getattr(nn.Module, name) for name in PLAIN}
    try:
        for name, plain in PLAIN.items():
            setattr(nn.Module, name, plain)
        yield
    finally:
        for name, recording in traced.items():
            setattr(nn.Module, name, recording)


class _Answering(fx.Proxy):
    """Gives Python numbers where Python needs them: `range(x.shape[1])`, `int(x.shape[1] / 2)`, `len(x.shape)`."""

    tracer: Tracer

    def __getattr__(self, k: str) -> fx.Proxy:  # pyright: ignore[reportIncompatibleMethodOverride]
        # The one attribute that computes, as the call it stands for.
        return self.transpose(-2, -1) if k == "mT" else _StandInAttribute(self, k)

    def __int__(self) -> int:
        return self.tracer.answer(self.node, int)

    def __index__(self) -> int:
        return self.tracer.answer(self.node, operator.index)

    def __float__(self) -> float:
        return self.tracer.answer(self.node, float)

    def __round__(self, ndigits: int | None = None) -> float:
        return round(float(self), ndigits)

    def __len__(self) -> int:
        # That of a tensor is its number of rows.
        recorded = self.tracer.create_proxy("call_function", len, (self,), {})
        return self.tracer.answer(recorded.node, int)


class _StandIn(_Answering):
    """What stands for a value."""


class _StandInAttribute(_Answering, Attribute):
    """What stands for an attribute of a value, or for a method that is about to be called."""


def _asks_for_sizes(node: fx.Node) -> bool:
    """Return whether a value depends on the shapes of data and on constants only."""
    needed = reachable(node, lambda other: [] if reads_size(other) else other.all_input_nodes)
    return all(other.op != "placeholder" for other in needed)


def reads_size(node: fx.Node) -> bool:
    """Return whether a node reads the shape or type of a tensor, never its values."""
    return node.target in SIZES and (node.target is not getattr or node.args[1] in SIZE_ATTRIBUTES)


def symbolic(module: nn.Module, examples: Sequence[Tensor], refusals: Refusals) -> fx.GraphModule | None:
    """Return what a module calls on its input, or None, with what is in the way added to `refusals`."""
    tracer = Tracer(examples)
    # What a module keeps of the values of its forward would be stand-ins afterwards.
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    twin = copy.deepcopy(module, shared)
    twin.__class__ = _of_one_input(type(module))
    try:
        graph = tracer.trace(twin)
    except Exception as error:  # Whatever the user's forward does with symbolic values.
        refusals.add("forward", f"cannot be traced: {_reason(error)}")
        return None
    twin.__class__ = type(module)
    return fx.GraphModule(tracer.root, graph)


def _reason(error: Exception) -> str:
    """Say what was in the way of a trace, and what to do."""
    said = " ".join(str(error).split())
    if isinstance(error, TraceError) and "no attribute of the network" in said:
        return f"{said}."
    if isinstance(error, TypeError) and "positional argument" in said and said.startswith(FACTORIES):
        name = said.partition("(")[0]
        return f"torch.{name} got sizes one by one ({said}). Give them as a tuple: torch.{name}((rows, n))."
    if "__cuda_array_interface__" in said:
        return "it asks whether its input is a tensor (torch.is_tensor, torch.as_tensor). Leave that out: it is one."
    return (
        f"it looks at the values or the type of tensors, or calls what is not PyTorch ({said}). Take branches and "
        "loops that depend on data out of it, or move them into a module of its own and register a rule for that "
        "(flowification.rule)."
    )


def _of_one_input(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the same class with a forward of one input, so that defaults of others stay what they are."""

    def forward(self: nn.Module, x: Any) -> Any:
        return kind.forward(self, x)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


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
