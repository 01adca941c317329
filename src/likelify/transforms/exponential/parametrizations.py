"""Parametrizations of linear maps: modules that build the map of an `Exponential` whenever the layer is called."""

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from likelify.errors import ConfigError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.bounds import aimed_at, gram_bound, limit_norm
from likelify.linalg.conv import ConvMap, PaddingName, check_conv_settings, odd_taps
from likelify.linalg.dense import Dense, Diagonal, Skew
from likelify.linalg.equivariant import PairMap, SetMap, rotation_kernel
from likelify.linalg.expm.expansion import on_grid
from likelify.linalg.expm.problem import largest_of
from likelify.linalg.function import Function
from likelify.linalg.graph import GraphMap, limit_by_neighbours
from likelify.linalg.maps import LinearMap, Symmetry
from likelify.names import NormBoundName
from likelify.nets.stand_in import run_with, trained
from likelify.shapes import EventShape, axis_names, check_size, check_sizes, kept_arguments
from likelify.structure import ContextLike, as_context
from likelify.tracing import may_look


class Parametrization(nn.Module):
    """A module that builds a linear map, or what one is made of, from its parameters and the context.

    Write `forward(context)`; it builds the map anew at each call, so the parameters may be trained and may depend on a
    condition, row by row.

    Args:
        context_features: size of the condition `(rows, context_features)` on which the parameters of each row depend
            linearly; 0 if they depend on nothing.

    Attributes:
        takes: the events that the map acts on, if they are known, such as `(channels, ...)`.
        traceless: the trace is zero whatever the parameters are, so that it need not be computed.
    """

    extra_repr = kept_arguments
    takes: EventShape | None = None
    traceless = False

    def __init__(self, context_features: int = 0) -> None:
        super().__init__()
        self.context_features = check_size(context_features, "context_features", least=0)

    def add(self, name: str, start: Tensor) -> None:
        """Register a parameter, and the linear map that moves it with the condition; that one starts at zero."""
        self.register_parameter(name, nn.Parameter(start))
        if self.context_features:
            moved = nn.Linear(self.context_features, start.numel(), bias=False)
            nn.init.zeros_(moved.weight)
            self.add_module(f"{name}_condition", moved)

    def start_from(self, x: Tensor) -> None:
        """Set the parameters to where training on data like this sample, the layer's input, had better start."""

    def tensor(self, name: str) -> Tensor:
        """Return what stands for a parameter now, which inside `torch.func.functional_call` need not be a parameter."""
        return getattr(self, name)

    def value(self, name: str, context: ContextLike) -> Tensor:
        """Return the parameter, `(*shape)`, or the parameters of each row, `(rows, *shape)`."""
        start = self.tensor(name)
        if not self.context_features:
            return start
        condition = as_context(context).condition
        if condition is None or condition.ndim != 2 or condition.shape[1] != self.context_features:
            given = "none" if condition is None else f"one of shape {tuple(condition.shape)}"
            raise ShapeError(
                f"This layer needs a condition (rows, {self.context_features}) as its context and got {given}."
            )
        return start + self.get_submodule(f"{name}_condition")(condition.to(start.dtype)).unflatten(1, start.shape)


def _draw(deviation: float, *shape: int) -> Tensor:
    """Draw a parameter with that deviation over the root of its last size."""
    return deviation / math.sqrt(shape[-1]) * torch.randn(*shape)


def _turn(size: int) -> Tensor:
    """Draw a skew matrix, whose exponential is a rotation by angles of about one."""
    drawn = _draw(math.sqrt(0.5), size, size)
    return drawn - drawn.mT


def check_limit(norm_limit: float | None) -> None:
    """Refuse a norm limit that is none."""
    if norm_limit is not None and not (isinstance(norm_limit, Real) and 0 < norm_limit < math.inf):
        raise ConfigError(f"norm_limit must be positive and finite, or None for no limit, got {norm_limit!r}.")


class ConvKernel(Parametrization):
    r"""Build a convolution, a `ConvMap`, from a trained kernel whose norm has a guaranteed limit.

    The kernel that is applied is `W min(1, limit / bound(W))`, where `bound` is an upper bound of the convolution's
    2-norm: stateless, differentiable, the same in training and evaluation, for any image size. Arguments as in
    `conv_exponential`; `rotations=True` makes the convolution commute with rotations by 90 degrees.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        dims: int = 2,
        norm_limit: float | None = 1.8,
        norm_bound: NormBoundName = "reshape",
        padding: PaddingName = "zeros",
        groups: int = 1,
        symmetry: Symmetry = None,
        rotations: bool = False,
        context_features: int = 0,
    ) -> None:
        super().__init__(context_features)
        taps = odd_taps(kernel_size, dims)
        check_limit(norm_limit)
        check_conv_settings(padding, norm_bound, symmetry)
        check_sizes(channels=channels, groups=groups)
        if channels % groups:
            raise ConfigError(f"{channels} channels cannot be split into {groups} groups of the same size.")
        if rotations and (channels % 4 or dims != 2 or groups != 1 or taps[0] != taps[1]):
            raise ConfigError(
                "A convolution that commutes with rotations has a square kernel, one group and a multiple of four "
                f"channels (one for each rotation), got {channels} channels, {groups} groups and taps {taps}."
            )
        self.takes = (channels, *axis_names(dims))
        self.norm_limit = norm_limit
        self.settings = {"padding": padding, "bound": norm_bound, "groups": groups, "symmetry": symmetry}
        self.rotations = rotations
        # A norm of about 0.1: near the identity, and no two channels alike.
        scale = 0.05 / (math.sqrt(math.prod(taps)) * math.sqrt(channels / groups))
        shape = (channels // 4, channels // 4, 4, *taps) if rotations else (channels, channels // groups, *taps)
        weight = scale * torch.randn(*shape)
        # Faster with few channels, slower with many; and the layers around keep their layout.
        last = channels <= 48 and weight.ndim == 4
        self.add("weight", weight.contiguous(memory_format=torch.channels_last) if last else weight)

    def forward(self, context: ContextLike = None) -> ConvMap:
        """Build the map."""
        kernel = self.value("weight", context)
        own_rows = self.context_features > 0
        if self.rotations:
            # The kernels of rows are built as the filters of so many more channels.
            built = rotation_kernel(kernel.flatten(0, 1) if own_rows else kernel)
            kernel = built.unflatten(0, (len(kernel), 4 * kernel.shape[1])) if own_rows else built
        map_ = ConvMap(kernel, own_rows=own_rows, **self.settings)
        return map_ if self.norm_limit is None else self._limited(map_, self.norm_limit)

    @staticmethod
    def _limited(map_: ConvMap, limit: float) -> ConvMap:
        """Scale the kernel down to the limit where it is beyond, and declare what its norm is known to be at most."""
        kernel = map_.effective
        aim = aimed_at(limit, kernel, map_.rows or 1)
        bound = map_.kernel_bound(enough=aim)
        if not may_look(kernel) or not (largest := largest_of(bound.detach())) <= aim:
            return replace(map_, kernel=limit_norm(kernel, bound, limit), norm=limit)
        # On a grid, so that what is computed once for each norm is computed seldom.
        return map_.declaring(min(limit, on_grid(largest)))

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{tuple(self.tensor('weight').shape)}, norm_limit={self.norm_limit}, {self.settings}"


class SkewMatrix(Parametrization):
    """Build a `Skew` map from a trained matrix; it starts at zero, where its exponential is the identity."""

    def __init__(self, size: int, *, context_features: int = 0) -> None:
        super().__init__(context_features)
        check_sizes(size=size)
        self.takes = (size, ...)
        self.add("weight", torch.zeros(size, size))

    def forward(self, context: ContextLike = None) -> Skew:
        """Build the map."""
        return Skew(self.value("weight", context))


class HouseholderVectors(Parametrization):
    r"""Hold the trained vectors of a product of Householder reflections, `(K, size)`, or such for each row.

    They start at random (standard normal; their lengths do not count), so the product is a random orthogonal matrix,
    with the determinant `(-1)^K`.

    Args:
        size: of the vectors.
        reflections: K; by default the largest even number up to `size`, which reaches every rotation.
        vectors: another start, `(K, size)`.
        context_features: as in `Parametrization`.

    Raises:
        ConfigError: for fewer than one reflection.
        ShapeError: if `vectors` have another shape.
        DomainError: if one of the vectors is zero or not finite.
    """

    def __init__(
        self,
        size: int,
        reflections: int | None = None,
        *,
        vectors: Tensor | None = None,
        context_features: int = 0,
    ) -> None:
        super().__init__(context_features)
        check_sizes(size=size)
        count = max(size - size % 2, 2) if reflections is None else check_size(reflections, "reflections")
        if vectors is None:
            vectors = torch.randn(count, size)
        elif vectors.shape != (count, size):
            raise ShapeError(f"{count} reflections need vectors ({count}, {size}), got {tuple(vectors.shape)}.")
        lengths = torch.linalg.vector_norm(vectors.detach().double(), dim=1)
        if not bool((lengths.isfinite() & (lengths > 0)).all()):
            raise DomainError(
                f"The vectors of reflections have the lengths {lengths.tolist()}: a vector that is zero or not finite "
                "has no direction to reflect. Start from random vectors, as is the default."
            )
        self.add("vectors", vectors.detach().clone())

    def forward(self, context: ContextLike = None) -> Tensor:
        """Return the vectors."""
        return self.value("vectors", context)

    def extra_repr(self) -> str:
        """Show the numbers of reflections and channels."""
        count, size = self.tensor("vectors").shape
        return f"{size}, reflections={count}"


class Matrix(Parametrization):
    """Build a `Dense` map of the channels from a trained matrix, with an optional norm limit."""

    def __init__(self, size: int, *, norm_limit: float | None, context_features: int = 0) -> None:
        super().__init__(context_features)
        check_sizes(channels=size)
        check_limit(norm_limit)
        self.takes = (size, ...)
        self.norm_limit = norm_limit
        self.add("weight", _draw(0.05, size, size))

    def forward(self, context: ContextLike = None) -> Dense:
        """Build the map."""
        weight = self.value("weight", context)
        if self.norm_limit is None:
            return Dense(weight)
        return Dense(limit_norm(weight, gram_bound(weight), self.norm_limit), norm=self.norm_limit)


class GraphMatrices(Parametrization):
    """Build a graph convolution, a `GraphMap`, from two trained matrices; the graph comes with the context."""

    def __init__(self, features: int, *, neighbours: int | None, turned: bool = False) -> None:
        super().__init__()
        if neighbours is not None:
            check_sizes(neighbours=neighbours)
        check_sizes(features=features)
        self.takes = (features,)
        self.neighbours = neighbours
        self.add("theta0", _turn(features) if turned else _draw(0.05, features, features))
        self.add("theta1", _draw(0.05, features, features))

    def forward(self, context: ContextLike = None) -> GraphMap:
        """Build the map on the graphs of the context."""
        graph = as_context(context).structure
        if graph is None:
            raise ShapeError("A graph exponential needs the graphs: pass context=Context(structure=GraphBatch(...)).")
        theta0, theta1 = self.tensor("theta0"), self.tensor("theta1")
        if self.neighbours is None:
            return GraphMap(theta0, theta1, graph)
        return GraphMap(*limit_by_neighbours(theta0, theta1, self.neighbours), graph, norm=1 + 1 / self.neighbours)


class SetMatrices(Parametrization):
    """Build a map of sets, a `SetMap`, from two trained matrices."""

    def __init__(self, channels: int, *, context_features: int = 0) -> None:
        super().__init__(context_features)
        check_sizes(channels=channels)
        self.takes = (channels, "elements")
        for name in ("theta0", "theta1"):
            self.add(name, _draw(0.05, channels, channels))

    def forward(self, context: ContextLike = None) -> SetMap:
        """Build the map."""
        return SetMap(self.value("theta0", context), self.value("theta1", context))


class PairMatrices(Parametrization):
    """Build a map of pairs of nodes, a `PairMap`, from fifteen trained matrices."""

    def __init__(self, channels: int, *, context_features: int = 0) -> None:
        super().__init__(context_features)
        check_sizes(channels=channels)
        self.takes = (channels, "nodes", "nodes")
        self.add("theta", _draw(0.02, 15, channels, channels))

    def forward(self, context: ContextLike = None) -> PairMap:
        """Build the map."""
        return PairMap(self.value("theta", context))


class LinearModule(Parametrization):
    """Build a map from any linear `nn.Module`; its parameters are trained."""

    def __init__(self, module: nn.Module, norm: float | None) -> None:
        super().__init__()
        random = [m for m in module.modules() if isinstance(m, nn.modules.dropout._DropoutNd)]
        if random:
            raise UnsupportedError(f"A linear map has no randomness, and the module has a {type(random[0]).__name__}.")
        self.module = module
        self.norm = norm

    def forward(self, context: ContextLike = None) -> LinearMap:
        """Wrap the module with the parameters that it has now, which a backward pass may come back to later."""
        return Function(partial(run_with, self.module, trained(self.module)), norm=self.norm)


def _events_of(map_: LinearMap) -> EventShape | None:
    """Return the events that a map acts on, where its kind says so."""
    if isinstance(map_, Dense):
        return (map_.matrix.shape[-1], ...)
    if isinstance(map_, Diagonal):
        return (map_.factors.shape[-1], ...)
    return (map_.channels, *axis_names(map_.dims)) if isinstance(map_, ConvMap) else None


class ConstantMap(Parametrization):
    """Return a fixed `LinearMap`, whose tensors are buffers: they move and are saved with the model."""

    def __init__(self, map_: LinearMap) -> None:
        super().__init__()
        self._map = _without_proofs(map_)
        self.takes = _events_of(map_)
        self._names = {name: f"tensor_{i}" for i, name in enumerate(map_.tensors())}
        for name, tensor in map_.tensors().items():
            self.register_buffer(self._names[name], tensor.detach().clone())

    def forward(self, context: ContextLike = None) -> LinearMap:
        """Return the map with the tensors as they are now.

        Bounds that were computed for its first tensors are left out, since others may have been loaded.
        """
        return self._map.with_tensors({name: self.get_buffer(attr) for name, attr in self._names.items()})

    def extra_repr(self) -> str:
        """Name the kind of map."""
        return type(self._map).__name__


def _without_proofs(map_: LinearMap) -> LinearMap:
    """Return the same map without norms that were computed from its tensors; those that were declared stay."""
    changes: dict[str, Any] = {name: _without_proofs(part) for name, part in map_.inner_maps.items()}
    if getattr(map_, "proved", False) and "proved" in {field.name for field in fields(map_)}:
        changes |= {"norm": None, "proved": False}
    return replace(map_, **changes) if changes else map_
