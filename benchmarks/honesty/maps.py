"""Random maps of a chosen norm, and small layers, that the cases are built from."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from benchmarks.honesty.judging import DOUBLE, judge
from likelify import linalg
from likelify.linalg.maps import LinearMap
from likelify.shapes import Shape
from likelify.testing import randomize


def matrix_of(map_: LinearMap, event: Shape) -> Tensor:
    """Form the matrix of a map in double precision."""
    return map_.materialize(event, like=torch.zeros(1, dtype=DOUBLE))


def normal(*shape: int, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Draw."""
    return torch.randn(*shape, dtype=DOUBLE).to(dtype)


def with_norm(matrix: Tensor, norm: float) -> Tensor:
    """Scale a matrix."""
    return matrix * (norm / torch.linalg.matrix_norm(matrix, 2))


def skew_part(matrix: Tensor) -> Tensor:
    """Return the skew part."""
    return (matrix - matrix.mT) / 2


PAIR = lk.GraphBatch(torch.tensor([3, 2]), torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]]))
# Maps of about a norm, with the shape of their input.
BUILDERS: dict[str, tuple[Callable[[float, torch.dtype], LinearMap], tuple[int, ...]]] = {
    "dense, few rows": (lambda s, d: lk.Dense(with_norm(normal(6, 6), s).to(d)), (2, 6)),
    "dense, many rows": (lambda s, d: lk.Dense(with_norm(normal(4, 4), s).to(d)), (40, 4)),
    "dense, own rows": (lambda s, d: lk.Dense((s / 4 * normal(3, 4, 4)).to(d)), (3, 4)),
    "symmetric": (lambda s, d: lk.Dense((s / 4 * normal(6, 6)).to(d), "symmetric"), (2, 6)),
    "diagonal": (lambda s, d: linalg.Diagonal((s * torch.linspace(-1, 1, 5)).to(d)), (3, 5)),
    "conv": (lambda s, d: lk.ConvMap((s / 5 * normal(2, 2, 3, 3)).to(d)), (2, 2, 4, 4)),
    "conv circular": (lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3)).to(d), "circular"), (2, 2, 7)),
    "conv reflect": (lambda s, d: lk.ConvMap((s / 5 * normal(2, 2, 3)).to(d), "reflect"), (2, 2, 7)),
    "conv own rows": (lambda s, d: lk.ConvMap((s / 5 * normal(3, 2, 2, 3)).to(d), own_rows=True), (3, 2, 6)),
    "sets": (lambda s, d: linalg.SetMap((s / 4 * normal(3, 3)).to(d), (s / 4 * normal(3, 3)).to(d)), (2, 3, 5)),
    "pairs": (lambda s, d: linalg.PairMap((s / 8 * normal(15, 2, 2)).to(d)), (2, 2, 3, 3)),
    "graph": (lambda s, d: lk.GraphMap((s / 4 * normal(2, 2)).to(d), (s / 4 * normal(2, 2)).to(d), PAIR), (5, 2)),
    "complete graph": (
        lambda s, d: lk.GraphMap(
            (s / 4 * normal(2, 2)).to(d), (s / 4 * normal(2, 2)).to(d), lk.GraphBatch.complete([3, 2])
        ),
        (5, 2),
    ),
    "sum": (
        lambda s, d: lk.ConvMap((s / 6 * normal(2, 2, 3)).to(d)) + lk.Dense((s / 6 * normal(2, 2)).to(d)),
        (2, 2, 6),
    ),
    "product": (
        lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3)).to(d)) @ lk.Dense(with_norm(normal(2, 2), 1).to(d)),
        (2, 2, 6),
    ),
    "scaled": (
        lambda s, d: torch.tensor(0.5, dtype=d) * lk.Dense(with_norm(normal(4, 4), 2 * s).to(d)),
        (2, 4),
    ),
}
SKEWS: dict[str, tuple[Callable[[float, torch.dtype], LinearMap], tuple[int, ...]]] = {
    "skew, few rows": (lambda s, d: lk.Skew(with_norm(skew_part(normal(6, 6)), s).to(d)), (2, 6)),
    "skew, many rows": (lambda s, d: lk.Skew(with_norm(skew_part(normal(6, 6)), s).to(d)), (60, 6)),
    "skew, own rows": (lambda s, d: lk.Skew((s / 3 * normal(3, 4, 4)).to(d)), (3, 4)),
    "skew conv": (lambda s, d: lk.ConvMap((s / 3 * normal(2, 2, 3, 3)).to(d), symmetry="skew"), (2, 2, 4, 4)),
    "skew conv circular": (
        lambda s, d: lk.ConvMap((s / 2 * normal(2, 2, 3)).to(d), "circular", symmetry="skew"),
        (2, 2, 7),
    ),
}


def double_matrix(map_: LinearMap, event: Shape) -> Tensor:
    """Form the matrix of a map of any dtype."""
    tensors = {n: t.double() if t.is_floating_point() else t for n, t in map_.tensors().items()}
    return matrix_of(map_.with_tensors(tensors), event)


def judge_built(
    name: str, norm: float, dtype: torch.dtype, *, change: Callable[[Tensor], Tensor] = lambda x: x, **more: Any
) -> str:
    """Build a map of about a norm and judge the engine on a random input."""
    build, shape = (BUILDERS | SKEWS)[name]
    map_ = build(norm, dtype)
    x = change(normal(*shape)).to(dtype)
    return judge(map_, double_matrix(map_, tuple(x.shape[1:])), x, **more)


def declared(norm: Callable[[float], float], few: int = 2) -> dict[str, Callable[[], tuple[LinearMap, Tensor, Tensor]]]:
    """Return makers of (map, matrix, input) whose norm is declared as a function of the exact norm."""

    def function() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = normal(6, 6)
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        return lk.Function(lambda x: x @ matrix.T, norm=norm(exact)), matrix, normal(few, 6)

    def nilpotent() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = 2 * torch.diag(torch.ones(11, dtype=DOUBLE), 1)
        return lk.Function(lambda x: x @ matrix.T, norm=norm(2.0)), matrix, normal(few, 12)

    def symmetric_function() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = normal(6, 6)
        matrix = with_norm(matrix + matrix.T, 4)
        return lk.Function(lambda x: x @ matrix.T, norm=norm(4.0)), matrix, normal(few, 6)

    def conv(symmetry: Any, padding: Any) -> tuple[LinearMap, Tensor, Tensor]:
        kernel = 0.5 * normal(2, 2, 3)
        matrix = matrix_of(lk.ConvMap(kernel, padding, symmetry=symmetry), (2, 8))
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        return lk.ConvMap(kernel, padding, norm=norm(exact), symmetry=symmetry), matrix, normal(few, 2, 8)

    def skew() -> tuple[LinearMap, Tensor, Tensor]:
        matrix = with_norm(skew_part(normal(6, 6)), 3)
        return lk.Skew(matrix, norm=norm(3.0)), matrix, normal(few, 6)

    return {
        "function": function,
        "nilpotent function": nilpotent,
        "symmetric function": symmetric_function,
        "conv": lambda: conv(None, "zeros"),
        "conv circular": lambda: conv(None, "circular"),
        "conv symmetric": lambda: conv("symmetric", "zeros"),
        "conv skew": lambda: conv("skew", "zeros"),
        "skew": skew,
    }


def some_layer(what: str) -> tuple[Any, Shape]:
    """Return a layer with parameters away from their start, and the shape of its events."""
    layer, shape = {
        "conv": (lk.conv_exponential(2), (2, 4, 4)),
        "dense": (lk.dense_exponential(4, norm_limit=1.0), (4,)),
        "rotation": (lk.rotation(4), (4,)),
    }[what]
    return randomize(layer, scale=0.3, seed=random.randrange(1000)), shape


def layer_matrix(layer: Any, shape: Shape) -> Tensor:
    """Form the matrix of a layer's map in double precision."""
    return double_matrix(layer.map().with_tensors({n: t.detach() for n, t in layer.map().tensors().items()}), shape)
