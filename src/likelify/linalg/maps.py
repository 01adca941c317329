r"""Linear maps that are applied, not formed.

A `LinearMap` is a light immutable object that holds tensors. It works on the rows of `(rows, *event)`; all maps
keep the event's shape, so they can be added, composed and exponentiated. Parameters live in layers, which build
a map whenever they are called; that is how a map can depend on a condition.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError, unknown_word
from likelify.shapes import Shape, as_shape

Symmetry = Literal["symmetric", "skew"] | None

# A map is probed column by column only up to this event size: 4096 columns of 4096 elements are 64 MB in float32.
PROBE_LIMIT = 4096
# Fields of maps that are neither maps nor hold any; asking for them first is several times faster than asking for maps.
PLAIN = (type(None), Tensor, str, int, float, torch.dtype, torch.device)


@dataclass(frozen=True, eq=False)
class LinearMap(ABC):
    r"""A linear map on tensors `(rows, *event)`, each row mapped by itself.

    Write `apply`, `adjoint`, `trace` and `norm_bound`; the algebra `a * L`, `-L`, `L + M`, `L - M`, `L @ M` follows.
    The other methods have defaults that are right for every map; a map that knows more overrides them.
    Subclasses are frozen dataclasses whose fields are tensors, maps or settings. A map is a snapshot of its tensors:
    what it derives from them is computed once, so build it anew after parameters have changed, as layers do.
    Whether a class depends on other tensors with gradients is tried out on one row in each call of `exp_action`; with
    `class MyMap(LinearMap, vouches=True)` it vouches that it does not.
    """

    _vouches: ClassVar[bool] = False

    def __init_subclass__(cls, *, vouches: bool = False, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        # Not inherited: a subclass may use tensors that its parent does not know. Other classes are tried out.
        cls._vouches = vouches

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """Apply the map to each row of `x`, `(rows, *event)`."""

    @abstractmethod
    def adjoint(self) -> LinearMap:
        """Return the map `L*` with `<L x, y> = <x, L* y>`."""

    @abstractmethod
    def trace(self, event_shape: Shape) -> Tensor:
        """Return the exact trace on events of that shape, a scalar or one number per row; differentiable."""

    @abstractmethod
    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Return a guaranteed upper bound of the 2-norm on events of that shape.

        A Python float is a bound known without looking at tensors (no host sync); a tensor, scalar or one
        per row, is detached from the autograd graph.
        """

    @property
    def symmetry(self) -> Symmetry:
        """`"symmetric"` if `L* = L`, `"skew"` if `L* = -L`, by construction; None where that is not known."""
        return None

    @property
    def rows(self) -> int | None:
        """How many rows the map is made for, each by its own parameters; None if all rows are mapped alike."""
        return None

    @property
    def couples_rows(self) -> bool:
        """Whether a row of the output depends on other rows of the input, as nodes of a graph do."""
        return False

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the norm of the symmetric part `(L + L*) / 2`, so that `||exp(tL)|| <= e^(|t| growth)`."""
        return 0.0 if self.symmetry == "skew" else self.norm_bound(event_shape)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Bound the Frobenius norm on one item; by default the 2-norm times the root of the item's size."""
        return self.norm_bound(event_shape) * self.item_size(event_shape) ** 0.5

    def sharpened(self) -> LinearMap:
        """Return the same map with the best bounds it can compute, in place of declared and of cheap ones."""
        parts = self.inner_maps
        return replace(self, **{name: part.sharpened() for name, part in parts.items()}) if parts else self

    def item_size(self, event_shape: Shape) -> int | Tensor:
        """Count the elements of one item; for maps that couple rows, one count for each item."""
        return math.prod(as_shape(event_shape))

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Return `(shift, M)` with `L = shift + M`, where `M` has a smaller norm if the map knows how; else `(0, L)`.

        The shift is a constant for automatic differentiation (any constant makes the identity true).
        """
        return 0.0, self

    def arrange(self, x: Tensor) -> Tensor:
        """Return `x` in the memory layout on which the map is fastest."""
        return x

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Return the gradient of `<v, L u>` with respect to `tensors()`, by name; differentiable in `u` and `v`."""
        floating = {name: t for name, t in self.tensors().items() if t.is_floating_point()}
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            leaves = {
                name: t if create_graph and t.requires_grad else t.detach().requires_grad_()
                for name, t in floating.items()
            }
            value = self.with_tensors(self.tensors() | leaves).apply(u)
            grads = torch.autograd.grad(value, list(leaves.values()), v, create_graph=create_graph, allow_unused=True)
        return {
            name: torch.zeros_like(leaves[name]) if grad is None else grad
            for name, grad in zip(leaves, grads, strict=True)
        }

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Return the 2-norm of each item of `x`; maps that couple rows override this.

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

    def materialize(self, event_shape: int | Shape, *, like: Tensor | None = None) -> Tensor:
        """Form the matrix on flattened events by applying the map to all unit vectors (small events only).

        Args:
            event_shape: of one event.
            like: a tensor with the dtype and device of the unit vectors; by default those of the map.

        Returns:
            `(D, D)`; for a map with its own `rows` one matrix for each, `(rows, D, D)`; for a map that couples its
            rows one matrix on all of them, `(rows D, rows D)`.
        """
        rows = 1 if self.rows is None else self.rows
        space = (rows, *as_shape(event_shape)) if self.couples_rows else as_shape(event_shape)
        size = math.prod(space)
        if size > PROBE_LIMIT:
            raise UnsupportedError(
                f"An event of {size} elements is too large to form the matrix of {type(self).__name__} "
                f"(limit {PROBE_LIMIT}), by which its norm and its trace are found. Say what its norm is at most "
                "(norm=), and let the trace be estimated: trace='hutch++' of Exponential and linear_exponential, "
                "estimate_trace of a map by itself."
            )
        floating = (tensor for tensor in self.tensors().values() if tensor.is_floating_point())
        like = next(floating, None) if like is None else like
        eye = torch.eye(size) if like is None else torch.eye(size, dtype=like.dtype, device=like.device)
        if self.couples_rows:
            return torch.stack([self.apply(unit.reshape(space)).flatten() for unit in eye], 1)
        if self.rows is None:
            return self.apply(eye.reshape(size, *space)).reshape(size, size).T
        units = eye.reshape(size, 1, *space).expand(size, rows, *space)
        return torch.stack([self.apply(unit).flatten(1) for unit in units], 2)

    def matching(self, x: Tensor) -> LinearMap:
        """Return the map ready for inputs like `x`; only maps that hold no tensor of their own need to know."""
        parts = self.inner_maps
        return replace(self, **{name: part.matching(x) for name, part in parts.items()}) if parts else self

    @property
    def inner_maps(self) -> dict[str, LinearMap]:
        """The maps that this one is made of, by the names of the fields that hold them."""
        found = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, PLAIN) and isinstance(value, LinearMap):
                found[field.name] = value
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Name the tensors that the map holds, those of inner maps with a dotted prefix."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                found[field.name] = value
            elif not isinstance(value, PLAIN) and isinstance(value, LinearMap):
                found |= {f"{field.name}.{name}": inner for name, inner in value.tensors().items()}
        return found

    def with_tensors(self, tensors: dict[str, Tensor]) -> LinearMap:
        """Return the same map with other tensors, named as in `tensors()`."""
        changes: dict[str, Tensor | LinearMap] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = tensors[field.name]
            elif isinstance(value, LinearMap):
                prefix = f"{field.name}."
                inner = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                changes[field.name] = value.with_tensors(inner)
        try:
            return replace(self, **changes)
        except TypeError as error:
            raise UnsupportedError(
                f"{type(self).__name__} cannot be built again from its fields ({error}). A LinearMap must be a frozen "
                "dataclass: write @dataclass(frozen=True, eq=False) above it and derive values in __post_init__."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        # What was derived from the fields is computed again: a tensor with a history cannot be copied.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)
        if (derive := getattr(self, "__post_init__", None)) is not None:
            derive()

    @property
    def vouched(self) -> bool:
        """Whether the class guarantees that its fields hold every tensor it depends on."""
        return type(self)._vouches and all(part.vouched for part in self.inner_maps.values())

    @property
    def declared(self) -> bool:
        """Whether `tensors()` names every tensor that the map depends on, so that gradients can be found by name."""
        return all(_is_declared(getattr(self, field.name)) for field in fields(self))

    def __mul__(self, factor: float | Tensor) -> LinearMap:
        return Scaled(self, factor) if isinstance(factor, Real | Tensor) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | Tensor) -> LinearMap:
        return Scaled(self, 1 / divisor) if isinstance(divisor, Real | Tensor) else NotImplemented

    def __neg__(self) -> LinearMap:
        return Scaled(self, -1.0)

    def __add__(self, other: LinearMap) -> LinearMap:
        return Added(self, other) if isinstance(other, LinearMap) else NotImplemented

    def __radd__(self, other: object) -> LinearMap:
        # Where `sum` starts.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: LinearMap) -> LinearMap:
        return Added(self, -other) if isinstance(other, LinearMap) else NotImplemented

    def __matmul__(self, other: LinearMap) -> LinearMap:
        if isinstance(other, Tensor):
            raise TypeError("@ composes maps. A map is applied to rows of events by map.apply(x).")
        return Composed(self, other) if isinstance(other, LinearMap) else NotImplemented


def _is_declared(value: object) -> bool:
    if isinstance(value, PLAIN):
        return True
    if isinstance(value, LinearMap):
        return value.declared
    if isinstance(value, tuple):
        # Tensors inside a tuple have no name.
        return all(_is_declared(item) and not isinstance(item, Tensor | LinearMap) for item in value)
    return False


def check_entries(entries: Tensor, name: str) -> None:
    """Refuse whole numbers, which no floating input can be multiplied by."""
    if not (entries.is_floating_point() or entries.is_complex()):
        raise DomainError(
            f"A linear map needs floating numbers, and its {name} is {entries.dtype}. Convert it, e.g. {name}.float()."
        )


def check_factor(factor: float | Tensor) -> None:
    """Refuse several factors in the place of one."""
    if isinstance(factor, Tensor) and factor.numel() != 1:
        raise ShapeError(
            f"The factor of a map must be one number, got a tensor of shape {tuple(factor.shape)}. Factors of channels "
            "are a map of their own: Diagonal(factors) @ map."
        )


def check_symmetry(symmetry: str | None) -> None:
    """Refuse a symmetry that there is none of."""
    if symmetry not in (None, "symmetric", "skew"):
        raise ConfigError(unknown_word("symmetry", str(symmetry), ["symmetric", "skew"]))


def check_declared_norm(norm: float | None) -> None:
    """Refuse a declared norm that bounds nothing."""
    if norm is not None and not 0 < norm < math.inf:
        raise ConfigError(
            f"norm={norm} declares no bound; it must be positive and finite, or None to have it computed."
        )


class _Combination(LinearMap):
    """What maps made of maps have in common: rows, layout and norms are those of the parts."""

    def __post_init__(self) -> None:
        rows = {part.rows for part in self.inner_maps.values() if part.rows is not None}
        if len(rows) > 1:
            raise ShapeError(f"These maps are made for different numbers of rows: {sorted(rows)}.")

    @property
    def rows(self) -> int | None:
        """The rows of the first part that has its own."""
        return next((part.rows for part in self.inner_maps.values() if part.rows is not None), None)

    @property
    def couples_rows(self) -> bool:
        """Whether any part does."""
        return any(part.couples_rows for part in self.inner_maps.values())

    def arrange(self, x: Tensor) -> Tensor:
        """Take the layout of the first part."""
        return next(iter(self.inner_maps.values())).arrange(x)

    def item_norms(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Measure items as a part that couples rows does, if there is one."""
        return self._measuring.item_norms(x, plain=plain)

    def item_size(self, event_shape: Shape) -> int | Tensor:
        """Count as the same part does."""
        return self._measuring.item_size(event_shape)

    @property
    def _measuring(self) -> LinearMap:
        parts = list(self.inner_maps.values())
        return next((part for part in parts if part.couples_rows), parts[0])


@dataclass(frozen=True, eq=False)
class Scaled(_Combination, vouches=True):
    """The map `factor * base`; the factor is a number or a scalar tensor."""

    base: LinearMap
    factor: float | Tensor

    def __post_init__(self) -> None:
        check_factor(self.factor)

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
        return self._size() * self.base.norm_bound(event_shape)

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Multiply the bound of the base by the size of the factor."""
        return self._size() * self.base.growth_bound(event_shape)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Multiply the bound of the base by the size of the factor."""
        return self._size() * self.base.frobenius_bound(event_shape)

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Scale what the base gives."""
        shift, rest = self.base.centered(event_shape)
        factor = self.factor.detach() if isinstance(self.factor, Tensor) else self.factor
        # The shift is a constant, so the part of it that varies with the factor must stay in the map.
        return (0.0, self) if isinstance(factor, Tensor) else (factor * shift, Scaled(rest, self.factor))

    @property
    def symmetry(self) -> Symmetry:
        """A multiple has the symmetry of its base."""
        return self.base.symmetry

    def pullback(self, u: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Scale the gradients of the base; that of the factor is `<v, L u>`."""
        grads = {f"base.{name}": grad for name, grad in self.base.pullback(u, self.factor * v).items()}
        if isinstance(self.factor, Tensor):
            grads["factor"] = (v * self.base.apply(u)).sum().reshape(self.factor.shape)
        return grads

    def _size(self) -> float | Tensor:
        return abs(self.factor.detach() if isinstance(self.factor, Tensor) else self.factor)


@dataclass(frozen=True, eq=False)
class Added(_Combination, vouches=True):
    """The map `left + right`."""

    left: LinearMap
    right: LinearMap

    def apply(self, x: Tensor) -> Tensor:
        """Apply both and add."""
        return self.left.apply(x) + self.right.apply(x)

    def adjoint(self) -> LinearMap:
        """Add the adjoints."""
        return Added(self.left.adjoint(), self.right.adjoint())

    def trace(self, event_shape: Shape) -> Tensor:
        """Add the traces."""
        return self.left.trace(event_shape) + self.right.trace(event_shape)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds (triangle inequality)."""
        return self.left.norm_bound(event_shape) + self.right.norm_bound(event_shape)

    def growth_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds."""
        return self.left.growth_bound(event_shape) + self.right.growth_bound(event_shape)

    def frobenius_bound(self, event_shape: Shape) -> float | Tensor:
        """Add the bounds, of a part that acts on each row alone as often as an item has rows."""
        return self._of_items(self.left, event_shape) + self._of_items(self.right, event_shape)

    def _of_items(self, part: LinearMap, event_shape: Shape) -> float | Tensor:
        bound = part.frobenius_bound(event_shape)
        if not self.couples_rows or part.couples_rows:
            return bound
        largest = bound.amax() if isinstance(bound, Tensor) and bound.numel() else bound
        return largest * (self.item_size(event_shape) / math.prod(as_shape(event_shape))) ** 0.5

    def centered(self, event_shape: Shape) -> tuple[float | Tensor, LinearMap]:
        """Center both."""
        (one, left), (other, right) = self.left.centered(event_shape), self.right.centered(event_shape)
        return one + other, Added(left, right)

    @property
    def symmetry(self) -> Symmetry:
        """A sum has the symmetry that both have."""
        return self.left.symmetry if self.left.symmetry == self.right.symmetry else None


@dataclass(frozen=True, eq=False)
class Composed(_Combination, vouches=True):
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
        diagonal = self.materialize(event_shape).diagonal(dim1=-2, dim2=-1)
        # Where rows are coupled one matrix acts on all of them; the trace is counted for each.
        rows = 1 if self.rows is None else self.rows
        # Of no rows nothing tells how many elements each would have.
        size = len(diagonal) // rows if rows else 0
        return diagonal.reshape(rows, size).sum(1) if self.couples_rows else diagonal.sum(-1)

    def norm_bound(self, event_shape: Shape) -> float | Tensor:
        """Multiply the bounds."""
        return self.left.norm_bound(event_shape) * self.right.norm_bound(event_shape)
