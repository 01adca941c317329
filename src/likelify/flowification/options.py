"""The settings of a conversion, and the registry of rules."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from torch import Tensor, nn

from likelify.distributions import ConditionalNormal, Distribution
from likelify.errors import ConfigError
from likelify.names import LinearMethod, LogDetName, NoiseName
from likelify.nets.density import NetFactory, density_nets
from likelify.transforms.core import Shape, Transform

ReluName = Literal["refuse", "noisy"]
ResidualName = Literal["repeat", "lipschitz", "auto"]
SharedName = Literal["refuse", "copy"]
# (channels in, channels out, position axes) to a network; `nets.density_net` is one.
DensityNet = Callable[[int, int, int], nn.Module]
Rule = Callable[[Any, Shape, "Options"], Transform | None]
R = TypeVar("R", bound=Rule)


@dataclass(frozen=True)
class Options:
    """How `flowify` converts; what a rule gets as its third argument.

    Attributes:
        method: of the linear layers, see `transforms.linear`.
        relu: `"refuse"`, or `"noisy"` for a ReLU whose flat half gets noise.
        noise: law of the numbers that are added where dimensions grow.
        residual: `"repeat"` for the bound that works for all branches, `"lipschitz"` for the exact bijection
            `x + f(x)` wherever a branch is added to its own input, which must be certified to be a contraction;
            `"auto"` for the latter where it is certified and the former elsewhere.
        log_det: of the residual layers of `"lipschitz"`, see `LipschitzResidual`.
        shared: `"refuse"` weights that are used twice, or give each use a `"copy"` of its own.
        learned_noise: let networks give mean and scale of added noise, for a tighter bound.
        hidden: width of the networks of conditional densities.
        net: makes these networks instead, called as `net(channels_in, channels_out, position_axes)`.
    """

    method: LinearMethod = "free"
    relu: ReluName = "refuse"
    noise: NoiseName = "normal"
    residual: ResidualName = "repeat"
    log_det: LogDetName = "exact"
    shared: SharedName = "refuse"
    learned_noise: bool = False
    hidden: int = 64
    net: DensityNet | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"flowify: {name} must be {', '.join(map(repr, allowed))}; got {getattr(self, name)!r}."
                )
        if not isinstance(self.hidden, int) or self.hidden < 1:
            raise ConfigError(f"flowify: hidden must be a positive number of units, got {self.hidden!r}.")

        if self.learned_noise and self.noise != "normal":
            raise ConfigError("flowify: learned noise is normal; leave noise at 'normal' beside learned_noise=True.")

    def nets(self, shape: Shape) -> NetFactory:
        """Return the maker of networks that read events with the positions of `shape`."""
        made, dims = self.net, len(shape) - 1
        if made is not None:
            return lambda size_in, size_out: made(size_in, size_out, dims)
        # A single position has no neighbours to look at.
        taps = 3 if max(shape[1:], default=1) > 1 else 1
        return density_nets(dims, hidden=self.hidden, kernel_size=taps)

    def posterior(self, shape: Shape) -> NetFactory | None:
        """Return the maker of networks of added noise, or None for noise of a fixed shape."""
        return self.nets(shape) if self.learned_noise else None

    def density(self, kept: Shape, dropped: int) -> Distribution:
        """Return the conditional density of `dropped` channels, read off an event of shape `kept`."""
        return ConditionalNormal(self.nets(kept)(kept[0], 2 * dropped))

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain data, without `net`."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "net"}


CHOICES: dict[str, tuple[Any, ...]] = {
    "method": get_args(LinearMethod),
    "relu": get_args(ReluName),
    "noise": get_args(NoiseName),
    "residual": get_args(ResidualName),
    "log_det": get_args(LogDetName),
    "shared": get_args(SharedName),
    "learned_noise": (True, False),
}


class _Data:
    """Stands for the tensor that depends on the input, in the arguments of a call."""

    def __repr__(self) -> str:
        return "DATA"


DATA = _Data()


@dataclass(frozen=True, eq=False)
class Call:
    """A function or method call of the module; what a rule for one gets as its first argument.

    Attributes:
        name: of the function.
        args: with `flowify.DATA` in place of the tensor that depends on the input, and constants evaluated. Parameters
            of the module are `nn.Parameter`, also when they were computed from parameters.
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
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)

    def constants(self) -> list[Tensor]:
        """Return the tensors among the arguments."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor)]


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
    """Return the functions with rules that are written in Python, into which a tracer would otherwise look."""
    plain = [target for target in RULES if isinstance(target, types.FunctionType)]
    return tuple(f for f in plain if not (inspect.getmodule(f) or types).__name__.startswith("torch"))
