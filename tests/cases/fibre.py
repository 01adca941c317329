"""Cases of linear layers with a free weight."""

import torch

from likelify.nets import density_nets
from likelify.transforms.mixing.circular import CircularConv
from likelify.transforms.surjections.fibre import FreeLinear
from tests.cases.common import LayerCase, normal, on_graphs

LAYERS: dict[str, LayerCase] = {
    "free-linear-square": LayerCase(lambda: FreeLinear(3, 3), lambda: normal(3, 3), FreeLinear),
    "free-linear-square-groups-image": LayerCase(
        lambda: FreeLinear(4, 4, groups=2, bias=False), lambda: normal(2, 4, 2, 3), FreeLinear, scale=0.1
    ),
    "free-linear-square-reflection": LayerCase(
        lambda: FreeLinear(2, 2, weight=torch.tensor([[0.0, 2.0], [3.0, 0.0]])), lambda: normal(3, 2), FreeLinear
    ),
    "free-linear-reducing": LayerCase(lambda: FreeLinear(5, 2), lambda: normal(3, 5), FreeLinear),
    "free-linear-reducing-groups": LayerCase(lambda: FreeLinear(6, 4, groups=2), lambda: normal(3, 6), FreeLinear),
    "free-linear-reducing-image": LayerCase(
        lambda: FreeLinear(4, 1, dims=2), lambda: normal(2, 4, 3, 2), FreeLinear, scale=0.1
    ),
    "free-linear-reducing-groups-sequence": LayerCase(
        lambda: FreeLinear(6, 2, groups=2, dims=1), lambda: normal(2, 6, 3), FreeLinear, scale=0.1
    ),
    "free-linear-reducing-graphs": LayerCase(lambda: FreeLinear(3, 2), lambda: normal(5, 3), FreeLinear, on_graphs),
    "free-linear-increasing": LayerCase(lambda: FreeLinear(2, 5), lambda: normal(3, 2), FreeLinear),
    "free-linear-increasing-groups-image": LayerCase(
        lambda: FreeLinear(2, 6, groups=2), lambda: normal(2, 2, 3, 2), FreeLinear
    ),
    "free-linear-increasing-uniform": LayerCase(
        lambda: FreeLinear(4, 6, groups=2, noise="uniform"), lambda: normal(3, 4), FreeLinear
    ),
    "free-linear-increasing-posterior": LayerCase(
        lambda: FreeLinear(4, 6, groups=2, posterior_factory=density_nets(0)), lambda: normal(3, 4), FreeLinear
    ),
    "free-linear-increasing-graphs": LayerCase(lambda: FreeLinear(2, 3), lambda: normal(5, 2), FreeLinear, on_graphs),
    "circular-conv-square": LayerCase(lambda: CircularConv(2, 2), lambda: normal(2, 2, 4, 3), CircularConv, scale=0.1),
    "circular-conv-reducing": LayerCase(
        lambda: CircularConv(4, 2, (3, 5)), lambda: normal(2, 4, 4, 3), CircularConv, scale=0.1
    ),
    "circular-conv-reducing-groups-dilated": LayerCase(
        lambda: CircularConv(4, 2, 5, dims=1, groups=2, dilation=2), lambda: normal(2, 4, 7), CircularConv, scale=0.1
    ),
    "circular-conv-reducing-volume": LayerCase(
        lambda: CircularConv(2, 1, dims=3), lambda: normal(2, 2, 2, 3, 2), CircularConv, scale=0.1
    ),
    "circular-conv-increasing": LayerCase(
        lambda: CircularConv(2, 3), lambda: normal(2, 2, 3, 4), CircularConv, scale=0.1
    ),
    "circular-conv-increasing-uniform-posterior": LayerCase(
        lambda: CircularConv(2, 4, groups=2, noise="uniform", posterior_factory=density_nets(2)),
        lambda: normal(2, 2, 3, 4),
        CircularConv,
        scale=0.1,
    ),
}
