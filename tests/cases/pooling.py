"""Cases of pooling and upsampling."""

import torch
from torch import nn

import likelify as lk
from likelify.transforms.surjections import pooling
from tests.cases.common import LayerCase, normal, on_graphs


def _net(size_in: int, size_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(size_in, 4, 1), nn.Tanh(), nn.Conv2d(4, size_out, 1))


def _rows_net(size_in: int, size_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size_in, 4), nn.Tanh(), nn.Linear(4, size_out))


def _conditional_net(size_in: int, size_out: int) -> nn.Module:
    return _rows_net(size_in + 2, size_out)


VALID = torch.tensor([[True, True], [False, True], [True, True]])


LAYERS: dict[str, LayerCase] = {
    "max-of-patches": LayerCase(lambda: pooling.MaxOfPatches(2, 3), lambda: normal(4, 6, 2), pooling.MaxOfPatches),
    "max-of-patches-valid": LayerCase(
        lambda: pooling.MaxOfPatches(2, 3, valid=VALID), lambda: normal(4, 6, 2), pooling.MaxOfPatches
    ),
    "max-of-patches-net": LayerCase(
        lambda: pooling.MaxOfPatches(2, 4, net_factory=_net), lambda: normal(4, 8, 2, 2), pooling.MaxOfPatches
    ),
    "max-of-patches-condition-graphs": LayerCase(
        lambda: pooling.MaxOfPatches(1, 3, net_factory=_conditional_net),
        lambda: normal(5, 3),
        pooling.MaxOfPatches,
        lambda: on_graphs(condition=True),
    ),
    "mean-of-patches": LayerCase(lambda: pooling.MeanOfPatches(2, 3), lambda: normal(4, 6, 2), pooling.MeanOfPatches),
    "mean-of-patches-valid": LayerCase(
        lambda: pooling.MeanOfPatches(2, 3, valid=VALID, divisor=torch.tensor([3.0, 2.0])),
        lambda: normal(4, 6, 2),
        pooling.MeanOfPatches,
    ),
    "mean-of-patches-net": LayerCase(
        lambda: pooling.MeanOfPatches(2, 4, net_factory=_net), lambda: normal(4, 8, 2, 2), pooling.MeanOfPatches
    ),
    "mean-of-patches-graphs": LayerCase(
        lambda: pooling.MeanOfPatches(2, 2, net_factory=_rows_net),
        lambda: normal(5, 4),
        pooling.MeanOfPatches,
        on_graphs,
    ),
    "squeeze-oblong": LayerCase(lambda: lk.Squeeze((2, 3)), lambda: normal(2, 2, 4, 6), lk.Squeeze),
    "depth-to-space-sequence": LayerCase(lambda: lk.Inverse(lk.Squeeze((2,))), lambda: normal(2, 4, 3), lk.Inverse),
    "max-pool": LayerCase(lambda: pooling.max_pool((2, 4, 4), 2), lambda: normal(3, 2, 4, 4), lk.Chain),
    "max-pool-overlapping-padded": LayerCase(
        lambda: pooling.max_pool((1, 4, 5), 3, stride=2, padding=1, net_factory=_net),
        lambda: normal(3, 1, 4, 5),
        lk.Chain,
    ),
    "average-pool": LayerCase(
        lambda: pooling.average_pool((2, 5), 2, net_factory=None), lambda: normal(3, 2, 5), lk.Chain
    ),
    "average-pool-padded": LayerCase(
        lambda: pooling.average_pool((1, 4, 4), 3, stride=2, padding=1), lambda: normal(3, 1, 4, 4), lk.Chain
    ),
    "global-average-pool": LayerCase(
        lambda: pooling.global_average_pool((2, 2, 3), net_factory=_net), lambda: normal(3, 2, 2, 3), lk.Chain
    ),
    "global-max-pool": LayerCase(lambda: pooling.global_max_pool((2, 4)), lambda: normal(3, 2, 4), lk.Chain),
    "upsample-nearest": LayerCase(lambda: pooling.upsample_nearest((2, 2, 3), 2), lambda: normal(3, 2, 2, 3), lk.Chain),
}
