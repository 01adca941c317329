"""Cases of linear maps."""

import torch

import likelify as lk
from likelify import linalg
from likelify.linalg import AxisMatrix, Circulant, KroneckerSum, Toeplitz
from likelify.linalg.axis_maps import AxisSum
from likelify.linalg.conv import ReflectAdjoint
from likelify.linalg.equivariant import PairMap, SetMap, rotation_kernel
from likelify.linalg.maps import Added, Composed, Scaled
from tests.cases.common import GRAPHS, MapCase, normal, weighted_graphs


def _graphs() -> lk.GraphBatch:
    return GRAPHS.to(torch.get_default_device())


def _function() -> lk.Function:
    matrix = normal(3, 3)
    return lk.Function(lambda x: torch.tanh(torch.ones(()).double()) * x @ matrix.T, like=matrix)


def _function_with_adjoint() -> lk.Function:
    matrix = 0.3 * normal(4, 4)
    return lk.Function(lambda x: x @ matrix.T, norm=5.0, adjoint_function=lambda y: y @ matrix, like=matrix)


MAPS: dict[str, MapCase] = {
    "dense": MapCase(lambda: lk.Dense(0.5 * normal(4, 4)), (4,), lk.Dense),
    "dense-image": MapCase(lambda: lk.Dense(0.5 * normal(2, 2)), (2, 2, 3), lk.Dense),
    "conv": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 3)), (2, 4, 5), lk.ConvMap),
    "conv-oblong": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 1, 5)), (2, 3, 4), lk.ConvMap),
    "conv-torus": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 5, 3), bound="torus"), (2, 3, 2), lk.ConvMap),
    "conv-1d": MapCase(lambda: lk.ConvMap(0.4 * normal(3, 3, 3)), (3, 5), lk.ConvMap),
    "conv-3d": MapCase(lambda: lk.ConvMap(0.2 * normal(2, 2, 3, 1, 3)), (2, 2, 2, 3), lk.ConvMap),
    "conv-circular": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 3), "circular"), (2, 4, 3), lk.ConvMap),
    "conv-circular-wraps": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 5), "circular"), (2, 1, 3), lk.ConvMap),
    "conv-reflect": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 5), "reflect"), (2, 2, 4), lk.ConvMap),
    "conv-reflect-adjoint": MapCase(
        lambda: lk.ConvMap(0.3 * normal(2, 2, 5, 3), "reflect").adjoint(), (2, 3, 3), ReflectAdjoint
    ),
    "conv-reflect-adjoint-own-rows": MapCase(
        lambda: lk.ConvMap(0.3 * normal(3, 2, 1, 5), "reflect", groups=2, own_rows=True).adjoint(),
        (2, 4),
        ReflectAdjoint,
    ),
    "conv-groups": MapCase(lambda: lk.ConvMap(0.3 * normal(4, 2, 3, 3), groups=2), (4, 3, 3), lk.ConvMap),
    "conv-depthwise": MapCase(
        lambda: lk.ConvMap(0.3 * normal(3, 1, 3, 3), "circular", "torus", groups=3), (3, 3, 4), lk.ConvMap
    ),
    "conv-mask": MapCase(
        lambda: lk.ConvMap(0.4 * normal(2, 2, 3, 3), mask=torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]])),
        (2, 3, 4),
        lk.ConvMap,
    ),
    "conv-symmetric": MapCase(
        lambda: lk.ConvMap(0.4 * normal(4, 2, 3, 3), groups=2, symmetry="symmetric"), (4, 3, 2), lk.ConvMap
    ),
    "conv-skew": MapCase(
        lambda: lk.ConvMap(0.4 * normal(2, 2, 3, 3), "circular", mask=1 - torch.eye(3), symmetry="skew"),
        (2, 3, 4),
        lk.ConvMap,
    ),
    "conv-own-rows": MapCase(lambda: lk.ConvMap(0.3 * normal(3, 2, 2, 3, 3), own_rows=True), (2, 3, 4), lk.ConvMap),
    "conv-own-rows-groups": MapCase(
        lambda: lk.ConvMap(0.4 * normal(3, 4, 2, 3), "circular", groups=2, symmetry="symmetric", own_rows=True),
        (4, 4),
        lk.ConvMap,
    ),
    "conv-p4": MapCase(lambda: lk.ConvMap(rotation_kernel(0.3 * normal(1, 1, 4, 3, 3))), (4, 3, 2), lk.ConvMap),
    "set": MapCase(lambda: SetMap(0.5 * normal(3, 3), normal(3, 3)), (3, 4), SetMap),
    "set-own-rows": MapCase(lambda: SetMap(0.5 * normal(3, 2, 2), normal(3, 2, 2)), (2, 3), SetMap),
    "pair": MapCase(lambda: PairMap(0.2 * normal(15, 2, 2)), (2, 4, 4), PairMap),
    "pair-own-rows": MapCase(lambda: PairMap(0.2 * normal(3, 15, 2, 2)), (2, 3, 3), PairMap),
    "graph": MapCase(
        lambda: lk.GraphMap(0.5 * normal(2, 2), normal(2, 2), _graphs().undirected()), (2,), lk.GraphMap, rows=5
    ),
    "graph-complete": MapCase(
        lambda: lk.GraphMap(0.5 * normal(2, 2), normal(2, 2), lk.GraphBatch.complete([3, 1, 2])), (2,), lk.GraphMap, 6
    ),
    "graph-weighted-loops": MapCase(
        lambda: lk.GraphMap(0.3 * normal(3, 3), normal(3, 3), weighted_graphs()), (3,), lk.GraphMap, rows=5
    ),
    "dense-own-rows": MapCase(lambda: lk.Dense(0.5 * normal(3, 4, 4)), (4,), lk.Dense),
    "dense-image-own-rows": MapCase(lambda: lk.Dense(0.5 * normal(3, 2, 2)), (2, 2, 3), lk.Dense),
    "dense-symmetric": MapCase(lambda: lk.Dense(0.5 * normal(4, 4), "symmetric"), (4,), lk.Dense),
    "skew": MapCase(lambda: lk.Skew(normal(5, 5)), (5,), lk.Skew),
    "skew-own-rows": MapCase(lambda: lk.Skew(normal(3, 4, 4)), (4,), lk.Skew),
    "diagonal": MapCase(lambda: linalg.Diagonal(normal(3)), (3, 2), linalg.Diagonal),
    "diagonal-own-rows": MapCase(lambda: linalg.Diagonal(normal(3, 4)), (4,), linalg.Diagonal),
    "function": MapCase(_function, (3,), lk.Function),
    "function-adjoint": MapCase(_function_with_adjoint, (4,), lk.Function),
    "toeplitz": MapCase(lambda: Toeplitz(0.4 * normal(2, 5)), (4, 4), Toeplitz),
    "toeplitz-outer-taps": MapCase(lambda: Toeplitz(0.4 * normal(3, 9), "symmetric"), (3, 3), Toeplitz),
    "circulant": MapCase(lambda: Circulant(0.4 * normal(3, 2, 9)), (2, 3), Circulant),
    "axis-matrix": MapCase(lambda: AxisMatrix(0.4 * normal(2, 3, 3)), (4, 3), AxisMatrix),
    "axis-sum": MapCase(
        lambda: AxisSum(Toeplitz(0.3 * normal(2, 3)), AxisMatrix(0.3 * normal(3, 4, 4))), (6, 4), AxisSum
    ),
    "kronecker": MapCase(
        lambda: KroneckerSum(Toeplitz(0.2 * normal(2, 7)), Toeplitz(0.2 * normal(2, 9))), (2, 4, 5), KroneckerSum
    ),
    "kronecker-one-axis": MapCase(lambda: KroneckerSum(second=Circulant(0.3 * normal(1, 3))), (2, 2, 4), KroneckerSum),
    "kronecker-skew": MapCase(
        lambda: KroneckerSum(
            AxisMatrix(normal(1, 3, 3), "skew"), Toeplitz(normal(2, 5), "skew"), Circulant(normal(4, 3), "skew")
        ),
        (4, 3, 3, 2),
        KroneckerSum,
    ),
    "kronecker-channels": MapCase(
        lambda: KroneckerSum(Toeplitz(0.3 * normal(2, 3)), channels=AxisMatrix(0.4 * normal(2, 3, 3))),
        (6, 4),
        KroneckerSum,
    ),
    "kronecker-own-rows": MapCase(
        lambda: KroneckerSum(
            Toeplitz(0.2 * normal(3, 1, 5)), AxisMatrix(0.2 * normal(1, 4, 4)), channels=AxisMatrix(normal(3, 1, 2, 2))
        ),
        (2, 3, 4),
        KroneckerSum,
    ),
    "scaled": MapCase(lambda: -0.7 * lk.Dense(normal(3, 3)), (3,), Scaled),
    "sum": MapCase(lambda: lk.ConvMap(0.2 * normal(2, 2, 3, 3)) - lk.Dense(0.4 * normal(2, 2)), (2, 3, 3), Added),
    "composed": MapCase(lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 3)) @ lk.Dense(normal(2, 2)), (2, 3, 3), Composed),
}
