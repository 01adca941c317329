"""Running a module with other parameters than its own, without touching it."""

import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def run_with(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any) -> Any:
    """Call a module as if these tensors were its parameters.

    `torch.func.functional_call` puts them into the module for the time of the call, where other threads would meet
    them. Here a copy is called, which shares all but the parameters.

    Args:
        module: to be called.
        tensors: by the names of the parameters.
        args: for the call.
    """
    if torch.compiler.is_compiling():
        return functional_call(module, dict(tensors), args)
    own = dict(module.named_parameters())
    if all(own.get(name) is tensor for name, tensor in tensors.items()):
        return module(*args)
    try:
        twin = _Copies({id(own[name]): tensor for name, tensor in tensors.items()}).of(module)
    except _ClosureError:
        return functional_call(module, dict(tensors), args)
    return twin(*args)


class _ClosureError(Exception):
    """An attribute of a module is a function that has hold of a part, which a copy of the module cannot replace."""


class _Copies:
    """Copies of modules and of what refers to them, each made once, with other parameters in them."""

    def __init__(self, places: dict[int, Any]) -> None:
        self._copies = places

    def of(self, value: Any) -> Any:
        """Return the copy of a module, a parameter, or a container of them; anything else is what it was."""
        if id(value) in self._copies:
            return self._copies[id(value)]
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value) in (list, tuple):
            return type(value)(self.of(part) for part in value)
        if isinstance(value, dict):
            return type(value)((key, self.of(part)) for key, part in value.items())
        if isinstance(value, types.MethodType):
            return types.MethodType(value.__func__, self.of(value.__self__))
        if isinstance(value, types.FunctionType):
            for cell in value.__closure__ or ():
                if isinstance(cell.cell_contents, nn.Module | nn.Parameter):
                    raise _ClosureError
        return value

    def _module(self, module: nn.Module) -> nn.Module:
        twin = self._copies[id(module)] = module.__new__(type(module))
        for name, value in vars(module).items():
            # Hooks are given the module that they are called for.
            twin.__dict__[name] = value if name.endswith("_hooks") else self.of(value)
        return twin
