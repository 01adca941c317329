"""Residual blocks as exact bijections: `x + f(x)` where the branch is certified to be a contraction.

The branch may hold what has no inverse of its own (ReLU, GELU, bottlenecks), since it is only ever evaluated. Its
weights are limited by a function of themselves, so it stays a contraction in training; at the start the limits lie
above what the weights have, and the block computes what it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.flowification.graph import Node
from likelify.flowification.options import Options
from likelify.flowification.reduction import Branches
from likelify.flowification.refusals import DROPOUT_CALLS, DROPOUTS, NotConvertibleError, refuse_active_dropout
from likelify.flowification.rules import DATA, Call, setting
from likelify.linalg.bounds import gram_bound, limit_norm, reshape_bound, torus_bound
from likelify.nets.lipschitz import Constrained, LipschitzNet
from likelify.structure import ContextLike
from likelify.transforms.elementwise import scale_and_shift
from likelify.transforms.residual_flows.layer import LipschitzResidual

# The product of the limits; below one, so that the inverse converges.
LIMIT = 0.98
# How far weights may grow beside others that are zero and take what is left of the product.
HEADROOM = 2.0

# Calls that give another shape to the same elements.
RESHAPES = ("view", "reshape", "flatten", "unflatten")
# The largest slopes, rounded up: GELU 1.1290, SiLU 1.0999, Mish 1.0885, Hardswish 1.5, SELU 1.7581.
STEEPER = {"gelu": 1.13, "silu": 1.1, "mish": 1.09, "hardswish": 1.5, "selu": 1.7582}
UNIT_SLOPES = ("relu", "tanh", "abs", "sin", "hardtanh", "relu6", "logsigmoid", "identity")
# Behind its threshold softplus is the identity, below it a little more: from here on the jump is below rounding.
SMOOTH = 20.0
MOVES = ("contiguous", "clone", "permute", "transpose", "pixelshuffle", "pixelunshuffle")
SLOPES = dict.fromkeys((*UNIT_SLOPES, *MOVES, *RESHAPES), 1.0) | {"sigmoid": 0.25, "hardsigmoid": 0.25} | STEEPER


class _Limited(nn.Module):
    """Something with weights whose norm is limited, by a value that is saved with them."""

    limit: Tensor

    def _start_unlimited(self, like: Tensor) -> None:
        self.register_buffer("limit", torch.full((), math.inf, dtype=like.dtype))

    def _limited(self, tensor: Tensor, bound: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tensor within the limit, and the bound that then holds."""
        return limit_norm(tensor, bound / self.limit, 1.0), torch.minimum(bound, self.limit)


class LinearPart(_Limited):
    """A linear layer or convolution whose norm is limited.

    Args:
        layer: the user's.
        name: of it, for errors.
    """

    def __init__(self, layer: nn.Linear | nn.Conv1d | nn.Conv2d, name: str) -> None:
        super().__init__()
        if isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.padding_mode != "zeros":
            raise NotConvertibleError(
                f"'{name}' has padding_mode='{layer.padding_mode}', whose norm has no bound here."
            )
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach().clone())
        names = () if isinstance(layer, nn.Linear) else ("stride", "padding", "dilation", "groups")
        self.settings = {name: getattr(layer, name) for name in names}
        self._start_unlimited(self.weight)

    def _bound(self) -> Tensor:
        """Return an upper bound of the 2-norm, for every image size."""
        if self.weight.ndim == 2:
            return gram_bound(self.weight)
        blocks = self.weight.chunk(self.settings["groups"])
        # Taps of zero make the kernel odd; strides and dilations do not make the norm larger.
        padded = [F.pad(b, [s for n in b.shape[:1:-1] for s in (0, 1 - n % 2)]) for b in blocks]
        return torch.stack([torch.minimum(torus_bound(b), reshape_bound(b)) for b in padded]).amax()

    def constrained(self) -> tuple[dict[str, Tensor], Tensor]:
        """Return the tensors as they are used, and a bound of the norm."""
        weight, bound = self._limited(self.weight, self._bound())
        return {"weight": weight} | ({} if self.bias is None else {"bias": self.bias}), bound

    def run(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        """Apply the layer."""
        weight, bias = tensors["weight"], tensors.get("bias")
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        return (F.conv1d if weight.ndim == 3 else F.conv2d)(x, weight, bias, **self.settings)


class ScalePart(_Limited):
    """Batch normalization in evaluation: a scale of each channel, whose largest is limited."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> None:
        super().__init__()
        # Not by way of a `ChannelAffine`: a branch is never inverted, and scales of zero are a usual start of it.
        scale, shift = scale_and_shift(layer)
        self.scale, self.shift = nn.Parameter(scale.clone()), nn.Parameter(shift.clone())
        self._start_unlimited(self.scale)

    def constrained(self) -> tuple[dict[str, Tensor], Tensor]:
        """Return the tensors as they are used, and a bound of the norm."""
        scale, bound = self._limited(self.scale, self.scale.abs().amax())
        return {"scale": scale, "shift": self.shift}, bound

    def run(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        """Scale and shift."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return x * tensors["scale"].reshape(shape) + tensors["shift"].reshape(shape)


class FixedPart(nn.Module):
    """A part without weights, such as an activation, and its Lipschitz constant.

    Args:
        target: a module, a function or the name of a method.
        call: its arguments, unless it is a module.
        slope: the constant.
    """

    def __init__(self, target: Any, call: Call | None, slope: float) -> None:
        super().__init__()
        self.target, self.call, self.slope = target, call, slope
        self.train(mode=False)

    def train(self, mode: bool = True) -> FixedPart:  # noqa: FBT001, FBT002 - the signature of PyTorch
        """Stay in evaluation: nothing here may depend on the mode."""
        return super().train(mode=False)

    def constrained(self) -> tuple[dict[str, Tensor], float]:
        """Return no tensors, and the constant."""
        return {}, self.slope

    def run(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        """Apply it."""
        if self.call is None:
            return self.target(x)
        if self.call.out_shape != self.call.in_shape or self.call.name in RESHAPES:
            # Written for another number of rows, perhaps.
            return x.reshape(len(x), *self.call.out_shape)
        args = tuple(x if value is DATA else value for value in self.call.args)
        function = getattr(torch.Tensor, self.target) if isinstance(self.target, str) else self.target
        return function(*args, **self.call.kwargs)


class ContractiveNet(LipschitzNet):
    """The branch of a residual block, with limits that keep the product of all bounds below one.

    Args:
        parts: in order.
        factor: of the result.

    Raises:
        NotConvertibleError: if the bound is not below one at the start.
    """

    def __init__(self, parts: list[LinearPart | ScalePart | FixedPart], factor: float) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.factor = factor
        with torch.no_grad():
            bounds = [float(part.constrained()[1]) for part in parts]
        whole = abs(factor) * math.prod(bounds)
        if not whole < 1:
            raise NotConvertibleError(
                f"the branch may multiply distances by up to {whole:.3g} (a guaranteed bound), so x + f(x) is not "
                "certified to be invertible. Train the branch with spectral normalization, scale it down, or take the "
                "bound: residual='repeat' (or 'auto' for blocks of both kinds)."
            )
        trained = [(p, b) for p, b in zip(parts, bounds, strict=True) if isinstance(p, _Limited)]
        fixed = abs(factor) * math.prod(part.slope for part in parts if isinstance(part, FixedPart))
        for (part, _), limit in zip(trained, _limits([b for _, b in trained], fixed), strict=True):
            part.limit.fill_(limit)

    def constrained(self) -> Constrained:
        """Limit the weights; the product of the bounds is one of the whole branch."""
        tensors: dict[str, Tensor] = {}
        product: Tensor | float = abs(self.factor)
        for i, part in enumerate(self.parts):
            own, bound = part.constrained()  # pyright: ignore[reportCallIssue]
            tensors |= {f"{i}.{name}": tensor for name, tensor in own.items()}
            product = product * bound
        return Constrained(tensors, product)

    def run(self, tensors: dict[str, Tensor], x: Tensor, context: ContextLike = None) -> Tensor:
        """Compute the branch."""
        for i, part in enumerate(self.parts):
            own = {name.split(".", 1)[1]: t for name, t in tensors.items() if name.startswith(f"{i}.")}
            x = part.run(own, x)  # pyright: ignore[reportCallIssue]
        return x if self.factor == 1 else self.factor * x


def _limits(bounds: list[float], fixed: float) -> list[float]:
    """Return limits above the bounds whose product, times what is fixed, is at most `LIMIT` or that of the start.

    Args:
        bounds: of the weights at the start; those that are zero share what the others leave.
        fixed: product of everything else.
    """
    whole, zeros = fixed * math.prod(bounds), sum(bound == 0 for bound in bounds)
    if not zeros:
        room = max(1.0, (LIMIT / whole) ** (1 / len(bounds))) if bounds and whole > 0 else 1.0
        return [bound * room for bound in bounds]
    others = fixed * math.prod(HEADROOM * bound for bound in bounds if bound > 0)
    # Behind a factor of zero any limit will do.
    share = (LIMIT / others) ** (1 / zeros) if others > 0 else 1.0
    return [HEADROOM * bound if bound > 0 else share for bound in bounds]


def contraction_layer(part: Branches, options: Options) -> LipschitzResidual:
    """Return `x + f(x)` as an exact layer.

    Raises:
        NotConvertibleError: unless it has that form, and `f` is certified to be a contraction.
    """
    weights = part.join.weights
    straight = [i for i, branch in enumerate(part.branches) if not branch and weights[i] == 1]
    if part.channels is not None or len(part.branches) != 2 or not straight:
        raise NotConvertibleError(
            f"adds {_sum_of(part, weights)}, and an exact residual layer is the input itself and one branch. Take the "
            "bound: residual='repeat' (or 'auto' for blocks of both kinds)."
        )
    other = 1 - straight[0]
    parts = []
    for step in part.branches[other]:
        if isinstance(step, Branches):
            raise NotConvertibleError(
                f"has branches inside its branch ('{step.join.name}'), for which there is no bound. Take the bound of "
                "the likelihood: residual='repeat' or 'auto'."
            )
        if not _does_nothing(step):
            parts.append(_part(step))
    return LipschitzResidual(ContractiveNet(parts, weights[other]), log_det=options.log_det)


def _sum_of(part: Branches, weights: Sequence[float]) -> str:
    """Say what is added at the end of branches."""
    scaled = [weights[i] for i, branch in enumerate(part.branches) if not branch]
    if len(part.branches) != 2:
        return f"{len(part.branches)} branches"
    return f"the input times {scaled[0]:g} and a branch" if scaled else "branches of which none is the input itself"


def _does_nothing(node: Node) -> bool:
    """Return whether a step is dropout, which evaluation leaves out; dropout that acts in evaluation is refused."""
    if node.call is not None and node.call.name in DROPOUT_CALLS:
        refuse_active_dropout(node.call)
        return True
    return isinstance(node.target, DROPOUTS)


def _part(node: Node) -> LinearPart | ScalePart | FixedPart:
    target = node.target
    known = isinstance(target, nn.Module) and _is_torchs(target)
    if known and isinstance(target, nn.Linear | nn.Conv1d | nn.Conv2d):
        return LinearPart(target, node.name)
    if known and isinstance(target, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        if target.running_mean is not None:
            return ScalePart(target)
    slope = _slope(node)
    if slope is None:
        raise NotConvertibleError(
            f"its branch has '{node.name}' ({node.what}), for which no bound of the slope is known. Take the bound of "
            "the likelihood: residual='repeat' or 'auto'."
        )
    if node.call is not None and node.call.constants():
        raise NotConvertibleError(
            f"its branch has '{node.name}' ({node.what}) with a tensor among its settings, which would not be saved "
            "with the weights. Give it a number."
        )
    return FixedPart(target, node.call, slope)


def _is_torchs(module: nn.Module) -> bool:
    """Tell whether a module computes what a class of PyTorch does, whose slopes are known."""
    own = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return own.__module__.startswith("torch.nn.")


def _slope(node: Node) -> float | None:
    target, call = node.target, node.call
    if isinstance(target, nn.Module) and not _is_torchs(target):
        return None
    what, name = (target, type(target).__name__.lower()) if call is None else (call, call.name.rstrip("_"))
    if name in BENT:
        return BENT[name](what)
    if call is not None and call.name in ("mul", "neg"):
        given = (*call.args, *call.kwargs.values())
        numbers = [value for value in given if isinstance(value, int | float)]
        return math.prod(abs(number) for number in numbers) if len(numbers) == len(given) - 1 else None
    if call is not None and call.name in ("add", "sub", "truediv", "div"):
        return _shift_or_division(call)
    if call is not None and call.name in RESHAPES and len(node.inputs) == 1:
        return 1.0
    if call is not None and (call.constants() or (call.in_shape != call.out_shape)):
        return None
    return SLOPES.get(name)


def _shift_or_division(call: Call) -> float | None:
    """Return the slope of `x + c`, `x - c`, `c - x` and `x / c` for a number `c`; None of anything else."""
    numbers = [value for value in call.args if isinstance(value, int | float)]
    if call.kwargs or len(call.args) != 2 or len(numbers) != 1:
        return None
    if call.name in ("add", "sub"):
        return 1.0
    return 1 / abs(numbers[0]) if call.args[0] is DATA and numbers[0] else None


def _softplus_slope(what: nn.Module | Call) -> float | None:
    beta, threshold = setting(what, 1, "beta", 1.0), setting(what, 2, "threshold", SMOOTH)
    return 1.0 if beta > 0 and threshold >= SMOOTH else None


def _leaky_slope(what: nn.Module | Call) -> float:
    return max(1.0, abs(setting(what, 1, "negative_slope", 0.01)))


def _elu_slope(what: nn.Module | Call) -> float:
    return max(1.0, abs(setting(what, 1, "alpha", 1.0)))


def _celu_slope(what: nn.Module | Call) -> float | None:
    return 1.0 if setting(what, 1, "alpha", 1.0) > 0 else None


# Bounds of slopes that depend on settings.
BENT: dict[str, Callable[[nn.Module | Call], float | None]] = {
    "softplus": _softplus_slope,
    "leakyrelu": _leaky_slope,
    "leaky_relu": _leaky_slope,
    "elu": _elu_slope,
    "celu": _celu_slope,
}
