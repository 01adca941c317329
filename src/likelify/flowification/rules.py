"""The registry of rules: how each kind of module, function and method is converted, and what a rule is given."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.overrides import get_testing_overrides

from likelify.errors import ConfigError
from likelify.flowification.options import Options
from likelify.transforms.core import Shape, Transform

Rule = Callable[[Any, Shape, Options], Transform | None]
R = TypeVar("R", bound=Rule)


class _DataPlaceholder:
    """Stands for the tensor that depends on the input, in the arguments of a call."""

    def __repr__(self) -> str:
        return "DATA"

    def __reduce__(self) -> str:
        # One and the same in copies of what holds it, too, and after it was read from a file.
        return "DATA"


DATA = _DataPlaceholder()


@dataclass(frozen=True, eq=False)
class Call:
    """A function or method call of the module; what a rule for one gets as its first argument.

    Attributes:
        name: of the function.
        args: with `flowification.DATA` in place of the tensor that depends on the input, and constants evaluated.
            Parameters of the module are `nn.Parameter`, also when they were computed from parameters.
        kwargs: the same by name.
        in_shape: event shape of the input.
        out_shape: event shape of the result.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    in_shape: Shape
    out_shape: Shape

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place, or by its name."""
        return argument(self, position, name, default)

    def constants(self) -> list[Tensor]:
        """Return the tensors among the arguments."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)]


def argument(call: Call | fx.Node, position: int, name: str, default: Any = None) -> Any:
    """Return an argument of a call, or of a step of a traced graph, by its place or by its name."""
    if len(call.args) > position:
        return call.args[position]
    # PyTorch takes NumPy's word, too.
    name = "axis" if name == "dim" and "axis" in call.kwargs else name
    return call.kwargs.get(name, default)


def setting(what: nn.Module | Call, position: int, name: str, default: Any = None) -> Any:
    """Return a setting of what a rule converts: an attribute of a module, or an argument of a call."""
    return getattr(what, name, default) if isinstance(what, nn.Module) else what.argument(position, name, default)


def settings_of(what: nn.Module | Call, position: int, **defaults: Any) -> dict[str, Any]:
    """Return several settings by name, which stand in this order from `position` on among the arguments of a call."""
    names = enumerate(defaults.items(), position)
    return {name: setting(what, place, name, default) for place, (name, default) in names}


def out_shape_of(what: nn.Module | Call, in_shape: Shape) -> Shape:
    """Return the shape of the events that a module without weights, or a call, gives for events of `in_shape`."""
    if isinstance(what, Call):
        return what.out_shape
    return tuple(what(torch.empty(2, *in_shape, device="meta")).shape[1:])


RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[R], R]:
    """Register how `flowify` converts a kind of module, a function or a method; usable as a decorator.

    The rule is called as `rule(what, in_shape, options)` and gives the `Transform` whose noise-free `forward` computes
    the same, or None if nothing is to be done. `what` is the module itself (a copy in eval mode, which the transform
    may keep), or the `Call` of a function or method. `in_shape` is the shape of an event, without the rows. A rule that
    cannot convert raises `UnsupportedError` with a remedy; all such errors of a network are reported together.

    A later rule replaces an earlier one. Modules with a rule are not looked into; a rule of a class also holds for its
    subclasses that have the same `forward`.

    Args:
        *targets: classes of modules; functions; or names of tensor methods as strings.

    Example:
        >>> import torch
        >>> from likelify.transforms.elementwise import Affine
        >>> class Double(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> @rule(Double)
        ... def double(module, in_shape, options):
        ...     return Affine(scale=2.0)
    """
    for target in targets:
        if not (callable(target) or isinstance(target, str)):
            raise ConfigError(f"A rule is for a class of modules, a function or the name of a method, not {target!r}.")

    def register(function: R) -> R:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def module_rule(module: nn.Module) -> Rule | None:
    """Return the rule of a module: that of its class, or of a parent whose `forward` it has kept."""
    for kind in type(module).__mro__:
        if kind in RULES and (kind is type(module) or type(module).forward is kind.forward):
            return RULES[kind]
    return None


def traced_functions() -> tuple[Callable[..., Any], ...]:
    """Return the functions with rules into which a tracer would look: written in Python, and not PyTorch's own."""
    known = get_testing_overrides()
    return tuple(target for target in RULES if isinstance(target, types.FunctionType) and target not in known)


def full_index(index: tuple[Any, ...], axes: int) -> tuple[slice, ...] | None:
    """Return an index of slices with one for each axis; None if there is something else in it."""
    places = [i for i, part in enumerate(index) if part is Ellipsis]
    if len(places) > 1 or any(not isinstance(part, slice) for part in index if part is not Ellipsis):
        return None
    place = places[0] if places else len(index)
    missing = [slice(None)] * (axes - len(index) + len(places))
    return (*index[:place], *missing, *index[place + 1 :])
