r"""Linear maps that are applied, not formed.

A `LinearMap` is a light immutable object that holds tensors. It works on the rows of `(rows, *event)`; all maps
keep the event's shape, so they can be added, composed and exponentiated. Parameters live in layers, which build
a map whenever they are called; that is how a map can depend on a condition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from likelify.errors import ShapeError, UnsupportedError
from likelify.linalg.bounds import gram_bound, widest

Shape = tuple[int, ...]

# A map is probed column by column only up to this event size: 4096 columns of 4096 numbers are 64 MB in float32.
PROBE_LIMIT = 4096


@dataclass(frozen=True, eq=False)
class LinearMap(ABC):
    r"""A linear map on tensors `(rows, *event)`, each row mapped alike and by itself.

    Write `apply`, `adjoint`, `trace` and `norm_bound`; the algebra `a * L`, `-L`, `L + M`, `L - M`, `L @ M` follows.
    Subclasses are frozen dataclasses whose fields are tensors, maps or settings.
    """

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Apply the map to each row of `x`, `(rows, *event)`."""

    @abstractmethod
    def adjoint(self) -> LinearMap:
        """Give the map `L*` with `<L x, y> = <x, L* y>`."""

    @abstractmethod
    def trace(self, event_shape: Shape) -> Tensor:
        """Give the exact trace on events of that shape, a scalar or one number per row; differentiable."""

    @abstractmethod
    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Give a guaranteed upper bound of the 2-norm on events of that shape.

        A Python float is a bound known without looking at tensors (no host sync); a tensor, scalar or one
        per row, is detached from the autograd graph.
        """

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Give the 2-norm of each item of `x`; maps that couple rows override this.

        Args:
            x: `(rows, *event)`.
            plain: the caller knows that no square leaves the floating range, which makes it faster.
        """
        event = tuple(range(1, x.ndim))
        if plain:
            return torch.linalg.vector_norm(x, dim=event)
        if x.dtype != torch.float64 and x.device.type != "mps":
            # In double precision no square of a single-precision number leaves the range.
            return torch.linalg.vector_norm(x, dim=event, dtype=torch.float64)
        largest = torch.linalg.vector_norm(x, ord=math.inf, dim=event, keepdim=True).clamp_min(
            torch.finfo(x.dtype).tiny
        )
        return largest.flatten() * torch.linalg.vector_norm(x / largest, dim=event)

    def materialize(self, event_shape: Shape) -> Tensor:
        """Form the matrix on flattened events by applying the map to all unit vectors (small events only)."""
        size = math.prod(event_shape)
        if size > PROBE_LIMIT:
            raise UnsupportedError(
                f"An event of {size} numbers is too large to form the matrix of {type(self).__name__} "
                f"(limit {PROBE_LIMIT})."
            )
        like = next(iter(self.tensors().values()), None)
        eye = torch.eye(size) if like is None else torch.eye(size, dtype=like.dtype, device=like.device)
        return self.apply(eye.reshape(size, *event_shape)).reshape(size, size).T

    def matching(self, x: Tensor) -> LinearMap:
        """Give the map ready for inputs like `x`; only maps that hold no tensor of their own need to know."""
        inner = {f.name: getattr(self, f.name).matching(x) for f in fields(self) if _is_map(getattr(self, f.name))}
        return replace(self, **inner) if inner else self

    def tensors(self) -> dict[str, Tensor]:
        """Name the tensors that the map holds, those of inner maps with a dotted prefix."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                found[field.name] = value
            elif isinstance(value, LinearMap):
                found |= {f"{field.name}.{name}": inner for name, inner in value.tensors().items()}
        return found

    def with_tensors(self, tensors: dict[str, Tensor]) -> LinearMap:
        """Give the same map with other tensors, named as in `tensors()`."""
        changes: dict[str, Tensor | LinearMap] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = tensors[field.name]
            elif isinstance(value, LinearMap):
                prefix = f"{field.name}."
                inner = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                changes[field.name] = value.with_tensors(inner)
        return replace(self, **changes)

    def __mul__(self, factor: float | Tensor) -> LinearMap:
        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self) -> LinearMap:
        return Scaled(self, -1.0)

    def __add__(self, other: LinearMap) -> LinearMap:
        return Sum(self, other)

    def __sub__(self, other: LinearMap) -> LinearMap:
        return Sum(self, -other)

    def __matmul__(self, other: LinearMap) -> LinearMap:
        return Composed(self, other)


def _is_map(value: object) -> bool:
    return isinstance(value, LinearMap)


@dataclass(frozen=True, eq=False)
class Dense(LinearMap):
    r"""A matrix on the channel axis: `y[:, i, ...] = sum_j matrix[i, j] x[:, j, ...]`.

    On rows `(rows, d)` it is the usual matrix product; on images `(rows, c, h, w)` a 1x1 convolution.

    Args:
        matrix: `(c, c)`.

    Example:
        >>> rotation = Dense(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> rotation.apply(torch.tensor([[1.0, 0.0]]))
        tensor([[0., 1.]])
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ShapeError(f"Dense needs a square matrix, got shape {tuple(self.matrix.shape)}.")

    def apply(self, x: Tensor) -> Tensor:
        """Multiply the channels of each position by the matrix."""
        return apply_matrix(self.matrix, x)

    def adjoint(self) -> Dense:
        """Give the transposed matrix."""
        return Dense(self.matrix.T)

    def trace(self, event_shape: Shape) -> Tensor:
        """Give the trace of the matrix times the number of positions."""
        return self.matrix.trace() * math.prod(event_shape[1:])

    def norm_bound(self, event_shape: Shape) -> Tensor:
        """Bound the norm by repeated squaring (`gram_bound`)."""
        return gram_bound(widest(self.matrix.detach()), steps=5)


def apply_matrix(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply the channel axis (axis 1) of `x` by a matrix `(c_out, c_in)`, at every position."""
    if x.ndim < 2 or x.shape[1] != matrix.shape[1]:
        raise ShapeError(
            f"A matrix for {matrix.shape[1]} channels cannot act on an input of shape {tuple(x.shape)} "
            "(rows, channels, ...)."
        )
    if x.ndim == 2:
        return x @ matrix.T
    if x.ndim == 4:
        # A convolution keeps the memory layout of images, whichever it is; a matrix product would copy one of them.
        return F.conv2d(x, matrix[:, :, None, None])
    return (matrix @ x.flatten(2)).reshape(x.shape[0], matrix.shape[0], *x.shape[2:])


@dataclass(frozen=True, eq=False)
class Scaled(LinearMap):
    """The map `factor * base`; the factor is a number or a scalar tensor."""

    base: LinearMap
    factor: float | Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Apply the base and multiply."""
        return self.factor * self.base.apply(x)

    def adjoint(self) -> LinearMap:
        """Scale the adjoint of the base."""
        return Scaled(self.base.adjoint(), self.factor)

    def trace(self, event_shape: Shape) -> Tensor:
        """Scale the trace of the base."""
        return self.factor * self.base.trace(event_shape)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Multiply the bound of the base by the size of the factor."""
        factor = self.factor.detach() if isinstance(self.factor, Tensor) else self.factor
        return abs(factor) * self.base.norm_bound(event_shape)

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Give the norms by which the base measures items."""
        return self.base.item_norms(x, plain=plain)


@dataclass(frozen=True, eq=False)
class Sum(LinearMap):
    """The map `left + right`."""

    left: LinearMap
    right: LinearMap

    def apply(self, x: Tensor) -> Tensor:
        """Apply both and add."""
        return self.left.apply(x) + self.right.apply(x)

    def adjoint(self) -> LinearMap:
        """Add the adjoints."""
        return Sum(self.left.adjoint(), self.right.adjoint())

    def trace(self, event_shape: Shape) -> Tensor:
        """Add the traces."""
        return self.left.trace(event_shape) + self.right.trace(event_shape)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds (triangle inequality)."""
        return self.left.norm_bound(event_shape) + self.right.norm_bound(event_shape)

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Give the norms by which the left map measures items."""
        return self.left.item_norms(x, plain=plain)


@dataclass(frozen=True, eq=False)
class Composed(LinearMap):
    """The map `left @ right`: first `right`, then `left`. Its trace is exact and needs a small event."""

    left: LinearMap
    right: LinearMap

    def apply(self, x: Tensor) -> Tensor:
        """Apply the right map, then the left one."""
        return self.left.apply(self.right.apply(x))

    def adjoint(self) -> LinearMap:
        """Compose the adjoints in the opposite order."""
        return Composed(self.right.adjoint(), self.left.adjoint())

    def trace(self, event_shape: Shape) -> Tensor:
        """Probe with all unit vectors; a product has no cheaper exact trace in general."""
        return self.materialize(event_shape).trace()

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Multiply the bounds."""
        return self.left.norm_bound(event_shape) * self.right.norm_bound(event_shape)

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Give the norms by which the left map measures items."""
        return self.left.item_norms(x, plain=plain)


@dataclass(frozen=True, eq=False)
class Function(LinearMap):
    r"""Any linear callable as a map.

    Args:
        function: linear, acting on each row of `(rows, *event)` by itself. It is taken at its word here.
        norm: a guaranteed upper bound of its 2-norm. Without one, small events are probed.
        adjoint_function: its adjoint. Without one, the adjoint is found by automatic differentiation.
        like: a tensor whose dtype and device the function needs when it is probed. `exp_action` and layers take those
            of their input; elsewhere it is the default dtype.

    The trace is found by probing with all unit vectors, so the event may hold at most 4096 numbers.

    Example:
        >>> blur = Function(lambda x: (x + x.roll(1, dims=1)) / 2, norm=1.0)
        >>> blur.trace((4,))
        tensor(2.)
    """

    function: Callable[[Tensor], Tensor]
    norm: float | None = None
    adjoint_function: Callable[[Tensor], Tensor] | None = None
    like: Tensor | None = None

    def matching(self, x: Tensor) -> Function:
        """Give the function with probes like `x`, unless it has its own."""
        return self if self.like is not None else replace(self, like=x.detach()[:0])

    def apply(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x)

    def adjoint(self) -> Function:
        """Give the adjoint function, by automatic differentiation where none was given."""
        return Function(self.adjoint_function or self._transposed, self.norm, self.function, self.like)

    def trace(self, event_shape: Shape) -> Tensor:
        """Probe with all unit vectors."""
        return self.materialize(event_shape).trace()

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Give the bound that was declared, or bound the probed matrix."""
        if self.norm is not None:
            return self.norm
        with torch.no_grad():
            return gram_bound(widest(self.materialize(event_shape)), steps=5)

    def _transposed(self, y: Tensor) -> Tensor:
        # A linear function equals its derivative anywhere, so zero is as good a point as any.
        with torch.enable_grad():
            point = torch.zeros_like(y, requires_grad=True)
            value = self.function(point)
            (result,) = torch.autograd.grad(value, point, y, create_graph=True)
        return result
