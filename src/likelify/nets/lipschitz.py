"""Networks whose Lipschitz constant has a guaranteed bound, for residual layers.

The bound is of the map from the input to the output at a fixed condition. Weights are limited by a function of the
weights alone: nothing is estimated, nothing is kept from call to call, and evaluation sees what training sees.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likelify.calling import CallsNet, reads_condition
from likelify.errors import ConfigError, ShapeError
from likelify.linalg.bounds import correlation_bound, gram_bound, limit_norm, reshape_bound
from likelify.linalg.conv import odd_taps
from likelify.linalg.dense import apply_matrix
from likelify.names import NormBoundName
from likelify.nets.conditioners import CONV_FORMAT
from likelify.nets.stand_in import run_with, trained
from likelify.shapes import as_shape, axis_names, check_event, check_sizes, kept_arguments
from likelify.structure import ContextLike, as_context
from likelify.tracing import in_forward_mode, is_tracing

# The largest slope of t sigmoid(t) is 1.0998, at t = 2.40; that of t sigmoid(b t) is the same for every b.
SWISH_SLOPE = 1.1
# Kept away from zero, where dividing by it would overflow.
SMALLEST_BETA = 1e-3


@dataclass(frozen=True, eq=False)
class Constrained:
    """What a Lipschitz network computes with.

    Attributes:
        tensors: everything trained that its `run` reads, by name, differentiable.
        lipschitz: guaranteed bound of the Lipschitz constant of the network with these tensors.
    """

    tensors: dict[str, Tensor]
    lipschitz: Tensor | float


class LipschitzNet(nn.Module, ABC):
    """A network with a guaranteed bound of its Lipschitz constant. Write `constrained` and `run`.

    The two are apart so that a layer can limit the weights once and run the network often, and so that the trained
    tensors are seen by name.
    """

    extra_repr = kept_arguments

    @abstractmethod
    def constrained(self) -> Constrained:
        """Return the tensors that `run` reads, and the bound that holds with them."""

    @abstractmethod
    def run(self, tensors: dict[str, Tensor], x: Tensor, context: ContextLike = None) -> Tensor:
        """Compute the output, of the shape of `x`, with these tensors; rows must not see each other."""

    def forward(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return the output, of the shape of `x`."""
        return self.run(self.constrained().tensors, x, context)

    def lipschitz_bound(self) -> float:
        """Return the guaranteed bound of the Lipschitz constant in `x`, for every condition."""
        with torch.no_grad():
            return float(self.constrained().lipschitz)


class DeclaredNet(CallsNet, LipschitzNet):
    """Any network, with a Lipschitz constant that its author vouches for.

    Args:
        net: called as `net(x, context)`, or as `net(x)` if its `forward` takes a single argument. It must be
            deterministic and map every row by itself.
        lipschitz: a bound of its Lipschitz constant, below one.

    Raises:
        ConfigError: unless `0 <= lipschitz < 1`.
    """

    def __init__(self, net: nn.Module, lipschitz: float) -> None:
        super().__init__()
        if not 0 <= lipschitz < 1:
            raise ConfigError(
                f"A residual layer x + g(x) is invertible if g has a Lipschitz constant below 1; {lipschitz} was "
                "declared. Scale the network down, or take nets.LipschitzMLP or nets.LipschitzConvNet."
            )
        self.net = net
        self.lipschitz = float(lipschitz)

    @property
    def reads_condition(self) -> bool:
        """Whether the network may read the condition."""
        return reads_condition(self.net)

    def constrained(self) -> Constrained:
        """Return the network's parameters and the declared bound."""
        return Constrained(trained(self.net), self.lipschitz)

    def run(self, tensors: dict[str, Tensor], x: Tensor, context: ContextLike = None) -> Tensor:
        """Call the network with these parameters."""
        given = (x, context) if self.net_takes_context else (x,)
        return run_with(self.net, tensors, *given)


class _Feedforward(LipschitzNet):
    """Linear maps of limited norm with LipSwish, `t sigmoid(beta t) / 1.1`, in between; `beta > 0` is trained.

    Args:
        shapes: of the weights, `(out, in, *taps)`.
        norm_limit: of the bound of each linear map.
        context_features: of the condition, which enters the first layer through a matrix without limit.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], norm_limit: float, context_features: int) -> None:
        super().__init__()
        if not shapes:
            raise ConfigError(f"{type(self).__name__} needs a layer at least.")
        check_sizes(least=0, context_features=context_features)
        if not 0 < norm_limit < 1:
            raise ConfigError(f"norm_limit must lie between 0 and 1, got {norm_limit}.")
        self.norm_limit = norm_limit
        self.context_features = context_features
        self.weights = nn.ParameterList(_initial(shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(shape[0]) for shape in shapes)
        self.raw_betas = nn.ParameterList(torch.tensor(math.log(math.e - 1)) for _ in shapes[1:])
        if context_features:
            scale = 1 / math.sqrt(context_features)
            self.context_weight = nn.Parameter(scale * torch.randn(shapes[0][0], context_features))
        with torch.no_grad():
            # A fresh layer is near the identity: the last map has a norm of at most 0.1.
            self.weights[-1].mul_(0.1 / self._bound(self.weights[-1]))

    def constrained(self) -> Constrained:
        """Limit the weights, and fold the parameters of the activations into them.

        The product of the bounds is one of the whole network, because the slope of the activation is below one.
        """
        tensors, product, before = {}, 1.0, None
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            bound = self._bound(weight)
            product = product * bound.clamp(max=self.norm_limit)
            # silu(beta t) / (1.1 beta) is the activation: beta goes into this map, the division into the next one.
            after = F.softplus(self.raw_betas[i]) + SMALLEST_BETA if i < len(self.raw_betas) else 1.0
            factor = after if before is None else after / (SWISH_SLOPE * before)
            tensors[f"weight{i}"] = factor * limit_norm(weight, bound, self.norm_limit)
            tensors[f"bias{i}"] = after * bias
            if i == 0 and self.context_features:
                tensors["context"] = after * self.context_weight
            before = after
        return Constrained(tensors, product)

    def run(self, tensors: dict[str, Tensor], x: Tensor, context: ContextLike = None) -> Tensor:
        """Compute the output, of the shape of `x`."""
        self._check(x)
        h = self._linear(x, tensors["weight0"], tensors["bias0"])
        condition = self._branch(tensors, x, context)
        h = h if condition is None else h + condition
        for i in range(1, len(self.weights)):
            h = self._linear(_swish(h), tensors[f"weight{i}"], tensors[f"bias{i}"])
        return h

    def _branch(self, tensors: dict[str, Tensor], x: Tensor, context: ContextLike) -> Tensor | None:
        condition = as_context(context).condition
        if (condition is None) != (self.context_features == 0):
            raise ShapeError(
                f"{type(self).__name__} was built with context_features={self.context_features}, and the condition is "
                f"{'missing' if condition is None else f'of shape {tuple(condition.shape)}'}."
            )
        if condition is None:
            return None
        shape = tuple(condition.shape)
        fits = condition.ndim == 2 or shape[2:] == x.shape[2:]
        if not fits or shape[:2] != (len(x), self.context_features):
            raise ShapeError(
                f"The condition must be ({len(x)}, {self.context_features}), alone or with the positions "
                f"{tuple(x.shape[2:])}; got {shape}."
            )
        branch = apply_matrix(tensors["context"], condition.to(x.dtype))
        return branch[(...,) + (None,) * (x.ndim - branch.ndim)]

    def _check(self, x: Tensor) -> None:
        axes = axis_names(self.weights[0].ndim - 2)
        check_event(x.shape[1:], (self.weights[0].shape[1], *axes), type(self).__name__)

    def _bound(self, weight: Tensor) -> Tensor:
        return gram_bound(weight.flatten(1))

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)


class LipschitzMLP(_Feedforward):
    r"""A fully connected network on vectors or graph nodes; its Lipschitz constant is at most `norm_limit ** layers`.

    Each weight `W` is used as `W min(1, norm_limit / bound(W))`, where `bound` is an upper bound of its 2-norm
    (repeated squaring of the Gram matrix), with the activation LipSwish (Chen et al. 2019, section 3.3). A fresh
    network is close to zero.

    Args:
        features: of the rows `(rows, features)`.
        hidden: sizes of the hidden layers; a number is one layer.
        norm_limit: of the norm of each linear map, below one.
        context_features: of the condition `(rows, context_features)`, in which there is no limit.

    Example:
        >>> net = LipschitzMLP(4, (16, 16))
        >>> net.lipschitz_bound() <= 0.98**3
        True
    """

    def __init__(
        self,
        features: int,
        hidden: int | Sequence[int] = (128, 128),
        *,
        norm_limit: float = 0.98,
        context_features: int = 0,
    ) -> None:
        check_sizes(features=features)
        sizes = (features, *as_shape(hidden), features)
        super().__init__([(b, a) for a, b in zip(sizes, sizes[1:], strict=False)], norm_limit, context_features)


class LipschitzConvNet(_Feedforward):
    r"""A convolutional network with a Lipschitz constant of at most `norm_limit ** layers`.

    As `LipschitzMLP`; the norm of a convolution with zero padding is bounded for every image size at once.

    Args:
        channels: of the images `(rows, channels, height, width)`.
        hidden: channels of the hidden layers, one number for all or one for each.
        kernel_sizes: odd, one for each layer.
        norm_limit: of the norm of each convolution, below one (0.98 in Chen et al. 2019).
        norm_bound: `"torus"` is tight; `"reshape"` is cheaper and about two times loose, so the true norms stay near
            half the limit.
        context_features: of the condition, `(rows, context_features)` or with the image's positions.
    """

    def __init__(
        self,
        channels: int,
        hidden: int | Sequence[int] = 528,
        kernel_sizes: Sequence[int] = (3, 1, 3),
        *,
        norm_limit: float = 0.98,
        norm_bound: NormBoundName = "torus",
        context_features: int = 0,
    ) -> None:
        if norm_bound not in ("torus", "reshape"):
            raise ConfigError(f"norm_bound must be 'torus' or 'reshape', got {norm_bound!r}.")
        for size in kernel_sizes:
            odd_taps(size, 2)
        self.norm_bound = norm_bound
        check_sizes(channels=channels)
        widths = as_shape(hidden)
        between = widths * (len(kernel_sizes) - 1) if isinstance(hidden, Integral) else widths
        if len(between) != len(kernel_sizes) - 1:
            raise ConfigError(f"hidden={hidden} does not fit kernel_sizes={kernel_sizes}: one kernel for each layer.")
        sizes = (channels, *between, channels)
        shapes = [(b, a, k, k) for a, b, k in zip(sizes, sizes[1:], kernel_sizes, strict=False)]
        super().__init__(shapes, norm_limit, context_features)
        self.to(memory_format=CONV_FORMAT)  # pyright: ignore[reportCallIssue]

    def _bound(self, weight: Tensor) -> Tensor:
        if weight.shape[2:].numel() == 1:
            return super()._bound(weight)
        return correlation_bound(weight) if self.norm_bound == "torus" else reshape_bound(weight)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def _swish(t: Tensor) -> Tensor:
    """Return `t sigmoid(t)`."""
    return F.silu(t) if is_tracing() or in_forward_mode() else _Swish.apply(t)  # pyright: ignore[reportReturnType]


class _Swish(torch.autograd.Function):
    """`t sigmoid(t)`, whose derivatives keep `t` only; automatic differentiation keeps five tensors for the second."""

    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        ctx.save_for_backward(t)
        return F.silu(t)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _SwishSlope.apply(ctx.saved_tensors[0], g)  # pyright: ignore[reportReturnType]


class _SwishSlope(torch.autograd.Function):
    """The slope of `t sigmoid(t)` times `g`."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(t, g)
        return torch.ops.aten.silu_backward(g, t)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        t, g = ctx.saved_tensors
        bend = _bend(t, g, upstream) if ctx.needs_input_grad[0] else None
        return bend, _SwishSlope.apply(t, upstream) if ctx.needs_input_grad[1] else None


def _bend(t: Tensor, g: Tensor, upstream: Tensor) -> Tensor:
    """Return the second derivative of `t sigmoid(t)` times both, with few temporary tensors if no graph is built."""
    s = torch.sigmoid(t)
    if torch.is_grad_enabled():
        return s * (1 - s) * (2 + t * (1 - 2 * s)) * (g * upstream)
    bend = torch.rsub(s, 1, alpha=2).mul_(t).add_(2).mul_(s)
    return bend.mul_(s.neg_().add_(1)).mul_(g).mul_(upstream)


def _initial(shape: Sequence[int]) -> Tensor:
    """Draw a weight whose outputs are as large as its inputs."""
    return torch.randn(*shape) / math.sqrt(math.prod(shape[1:]))
