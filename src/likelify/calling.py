"""How parts of a flow are called: with a condition or without, and in words where a network does not fit."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from likelify.errors import DomainError, ShapeError
from likelify.structure import ContextLike, as_context
from likelify.tracing import is_tracing

# Where torch.compile and DataParallel keep the network that they call.
WRAPPED = ("_orig_mod", "module")
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def reads_condition(part: nn.Module) -> bool:
    """Tell whether a part of a flow may read the condition that a call gives.

    Layers and distributions say so themselves. A network reads it if it was built with `context_features`; one that
    does not say, if its `forward` takes a second argument, or if it belongs to a part that joins the condition to the
    input of its networks (`joins_condition`).
    """
    return _reads(part, joined=False)


def parts_read(whole: nn.Module) -> bool:
    """Tell whether some part of a layer or distribution may read the condition."""
    # Each call of a flow with a condition asks all parts, as they are then. So no generators, and no search by
    # `nn.Module` for what is not there, which takes the most time.
    joined = _fact(whole, "joins_condition") or False
    for part in whole._modules.values():
        if part is not None and _reads(part, joined=joined):
            return True
    return False


def _reads(part: nn.Module, *, joined: bool) -> bool:
    declared = _fact(part, "reads_condition")
    if declared is not None:
        return bool(declared)
    features = _fact(part, "context_features")
    if features is not None:
        return int(features) > 0
    if type(part).forward is nn.Module.forward:
        # A container, or a part of a layer that is not called by itself.
        return parts_read(part)
    return joined or takes_context(part)


def _fact(part: nn.Module, name: str) -> Any:
    """Return an attribute of a module or of its class, or None."""
    return getattr(part, name) if name in vars(part) or hasattr(type(part), name) else None


class CallsNet(nn.Module):
    """What a module has that calls a network of its user, its `net`.

    Attributes:
        net_takes_context: whether it is called as `net(x, context)`, asked whenever a network is set, because asking in
            each call would slow it down.
    """

    net_takes_context: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "net":
            self.net_takes_context = takes_context(value)
        super().__setattr__(name, value)


def takes_context(net: nn.Module) -> bool:
    """Tell whether a network is called as `net(x, context)`, and not as `net(x)`; wrapped ones as what is inside."""
    for name in WRAPPED:
        inner = net._modules.get(name)
        if inner is not None and _passes_all(type(net).forward):
            return takes_context(inner)
    own = vars(net).get("forward")
    if own is not None:
        return _places(own) > 1
    # Without the place of the network itself.
    return _places(type(net).forward) > 2 and type(net).forward is not nn.Sequential.forward


@functools.lru_cache(maxsize=1024)
def _places(forward: Callable[..., Any]) -> float:
    """Count the arguments that a function takes by their place."""
    kinds = [parameter.kind for parameter in inspect.signature(forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return math.inf
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)


def _passes_all(forward: Callable[..., Any]) -> bool:
    return _places(forward) == math.inf


def refuse_condition(context: ContextLike, owner: str) -> None:
    """Refuse a condition for a network that is called as `net(x)`.

    Raises:
        ShapeError: if there is one.
    """
    if as_context(context).condition is not None:
        raise ShapeError(
            f"The network of {owner} is called as net(x), so it cannot read the condition that was given. Take one "
            "with context_features= (nets.MLP, nets.ResidualConvNet), or one whose forward takes the context as well."
        )


def call_net(net: nn.Module, x: Tensor, *more: Any, owner: str) -> Tensor:
    """Call a network, and say in words what is wrong if its first layer does not fit the input.

    Raises:
        ShapeError: if the input has another width.
        DomainError: if it has another dtype.
    """
    if is_tracing():
        return net(x, *more)
    try:
        return net(x, *more)
    except RuntimeError as error:
        _explain(net, x, owner, error)
        raise


def _explain(net: nn.Module, x: Tensor, owner: str, error: RuntimeError) -> None:
    first = next((module for module in net.modules() if isinstance(module, WEIGHTED)), None)
    if first is None:
        return
    if x.ndim < 2:
        raise ShapeError(
            f"The network of {owner} reads rows (rows, features, ...) and got shape {tuple(x.shape)}. Labels enter as "
            "one-hot rows, or as integers through a Flow whose encoder is nets.OneHot(classes)."
        ) from error
    linear = isinstance(first, nn.Linear)
    wanted, found = (first.in_features, x.shape[-1]) if linear else (first.in_channels, x.shape[1])
    if wanted != found:
        raise ShapeError(
            f"The network of {owner} begins with a {type(first).__name__} of {wanted} inputs, and what it is to read "
            f"has {found}, of shape {tuple(x.shape)}. Build it for {found}; if there is a condition, it counts."
        ) from error
    if first.weight.dtype != x.dtype:
        raise DomainError(
            f"The network of {owner} is in {first.weight.dtype} and its input in {x.dtype}; convert one of them."
        ) from error
