"""How parts of a flow are called: with a condition or without, and in words where a network does not fit."""

import inspect
from typing import Any

from torch import Tensor, nn

from likelify.errors import DomainError, ShapeError
from likelify.structure import ContextLike, as_context
from likelify.tracing import is_tracing

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
    joined = getattr(whole, "joins_condition", False)
    return any(_reads(part, joined=joined) for part in whole.children())


def _reads(part: nn.Module, *, joined: bool) -> bool:
    declared = getattr(part, "reads_condition", None)
    if declared is not None:
        return bool(declared)
    features = getattr(part, "context_features", None)
    if features is not None:
        return int(features) > 0
    if type(part).forward is nn.Module.forward:
        # A container, or a part of a layer that is not called by itself.
        return parts_read(part)
    return joined or takes_context(part)


def takes_context(net: nn.Module) -> bool:
    """Tell whether a network is called as `net(x, context)`, and not as `net(x)`."""
    if isinstance(net, (nn.Sequential, *WEIGHTED)):
        return False
    kinds = [parameter.kind for parameter in inspect.signature(net.forward).parameters.values()]
    places = sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
    return places > 1 or inspect.Parameter.VAR_POSITIONAL in kinds


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
