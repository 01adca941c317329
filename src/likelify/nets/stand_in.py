"""Running a module with other parameters than its own, without touching it."""

import functools
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from likelify.errors import UnsupportedError
from likelify.tracing import is_tracing, refuse_kept_weights

CONTAINERS = (list, tuple, dict, OrderedDict)


def trained(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name; in a replica of `DataParallel`, the tensors that stand at their places."""
    found: dict[str, Tensor] = dict(module.named_parameters())
    if found:
        return found
    for prefix, part in module.named_modules():
        for name, tensor in getattr(part, "_former_parameters", {}).items():
            found[f"{prefix}.{name}".lstrip(".")] = tensor
    return found


def run_with(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any) -> Any:
    """Call a module as if these tensors were its parameters.

    `torch.func.functional_call` puts them into the module for the time of the call, where other threads would meet
    them. Here a copy is called, which shares all but the parameters. Whatever still has hold of a parameter (a closure,
    an object of another library) is given the other tensor where it calls PyTorch, in this thread only; and the graph
    of the result is searched for parameters that came through all the same. Compiled modules run uncompiled.

    Args:
        module: to be called.
        tensors: by the names that `trained` gives.
        args: for the call.

    Raises:
        UnsupportedError: if the module computes with its own parameters nevertheless, and inside of
            `torch.nn.utils.parametrize.cached()`.
    """
    if torch.compiler.is_compiling():
        return functional_call(module, dict(tensors), args)
    own = trained(module)
    if all(own.get(name) is tensor for name, tensor in tensors.items()):
        return module(*args)
    refuse_kept_weights(f"A derivative of {type(module).__name__}")
    places = {id(own[name]): tensor for name, tensor in tensors.items() if own[name] is not tensor}
    twin = _Copies(places).of(module)
    with _Replacing(places):
        value = twin(*args)
    if not is_tracing():
        _refuse_own(module, places, value, (*tensors.values(), *args))
    return value


class _Copies:
    """Copies of modules and of what refers to them, each made once, with other parameters in them."""

    def __init__(self, places: Mapping[int, Tensor]) -> None:
        self._places = places
        self._copies: dict[int, Any] = dict(places)

    def of(self, value: Any) -> Any:
        """Return the copy of a module, a parameter, or what holds them; anything else is what it was."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value) in CONTAINERS:
            return self._container(value)
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if type(value) is functools.partial:
            return functools.partial(self.of(value.func), *self.of(value.args), **self.of(value.keywords))
        compiled_from = getattr(value, "_torchdynamo_orig_callable", None)
        return value if compiled_from is None else self.of(compiled_from)

    def _container(self, value: Any) -> Any:
        if not value:
            return value
        # Whoever holds itself is met again on the way.
        self._copies[id(value)] = value
        keyed = isinstance(value, dict)
        parts = list(value.values()) if keyed else value
        copies = [self.of(part) for part in parts]
        if any(copy is not part for copy, part in zip(copies, parts, strict=True)):
            self._copies[id(value)] = type(value)(zip(value, copies, strict=True) if keyed else copies)
        return self._copies[id(value)]

    def _module(self, module: nn.Module) -> nn.Module:
        if isinstance(module, torch.jit.ScriptModule):
            if any(id(tensor) in self._places for tensor in module.parameters()):
                raise _unsupported(module)
            return module
        twin = self._copies[id(module)] = nn.Module.__new__(type(module))
        for name, value in vars(module).items():
            twin.__dict__[name] = self.of(value)
        # What was compiled has hold of the module that it was compiled from.
        twin.__dict__["_compiled_call_impl"] = None
        if isinstance(module, torch._dynamo.OptimizedModule):
            twin.__dict__["forward"] = self.of(module._orig_mod)
        return twin


class _Replacing(TorchFunctionMode):
    """Gives PyTorch's functions other tensors than those they are called with; a mode belongs to its thread."""

    def __init__(self, places: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function."""
        kwargs = {name: self._of(value) for name, value in kwargs.items()} if kwargs else {}
        return func(*map(self._of, args), **kwargs)

    def _of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._places.get(id(value), value)
        return type(value)(map(self._of, value)) if type(value) in (list, tuple) else value


def _refuse_own(module: nn.Module, places: Mapping[int, Tensor], value: Any, given: Any) -> None:
    """Refuse a value that was computed from parameters for which others were given."""
    given = [getattr(leaf, "condition", leaf) for leaf in tree_leaves(given)]
    for node in _nodes(_ends(tree_leaves(value)), seen=_ends(given)):
        if id(getattr(node, "variable", None)) in places:
            raise _unsupported(module)


def _ends(values: list[Any]) -> set[Any]:
    """Return the nodes of the graph at which tensors are."""
    return {get_gradient_edge(value).node for value in values if isinstance(value, Tensor) and value.requires_grad}


def _nodes(start: set[Any], seen: set[Any]) -> Iterator[Any]:
    """Return the nodes that lead to some, up to those that were seen."""
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(before for before, _ in node.next_functions)


def _unsupported(module: nn.Module) -> UnsupportedError:
    return UnsupportedError(
        f"{type(module).__name__} computes with its own parameters where others were given, which these derivatives "
        "need: a scripted module, or an object that is no nn.Module, has hold of them. Hold them as parameters and "
        "submodules of an nn.Module."
    )
