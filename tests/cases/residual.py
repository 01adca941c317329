"""Cases of residual layers."""

import torch
from torch import nn

import likelify as lk
from likelify import nets
from likelify.linalg.log_det import Roulette, Truncated
from tests.cases.common import LayerCase, normal, on_graphs


class _Wave(nn.Module):
    """`a sin(x w) w^T`, whose slope is at most `|a| ||w||^2`; that of the declared constant while `|a| <= 1`."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(0.3 * torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.raw / (1 + self.raw.square().sum()).sqrt()
        return torch.sin(x @ weight)[:, None] * weight


def _mlp(features: int, log_det: object, context: int = 0) -> lk.LipschitzResidual:
    return lk.LipschitzResidual(nets.LipschitzMLP(features, (6, 5), context_features=context), log_det=log_det)


def _conv(log_det: object, context: int = 0, **settings: object) -> lk.LipschitzResidual:
    net = nets.LipschitzConvNet(2, 4, context_features=context, **settings)
    return lk.LipschitzResidual(net, log_det=log_det)


def _case(build: object, data: object, context: object = lambda: None, **settings: object) -> LayerCase:
    return LayerCase(build, data, lk.LipschitzResidual, context, near_identity=True, **settings)


LAYERS: dict[str, LayerCase] = {
    "residual-mlp": _case(lambda: _mlp(4, "exact"), lambda: normal(3, 4), scale=1.0),
    "residual-mlp-condition": _case(lambda: _mlp(3, "exact", 2), lambda: normal(3, 3), lambda: normal(3, 2)),
    "residual-mlp-truncated": _case(lambda: _mlp(4, Truncated(1e-11)), lambda: normal(3, 4)),
    "residual-mlp-roulette": _case(lambda: _mlp(4, Roulette(samples=8)), lambda: normal(3, 4)),
    "residual-mlp-graphs": _case(lambda: _mlp(3, "exact"), lambda: normal(5, 3), on_graphs),
    "residual-mlp-graphs-condition": _case(
        lambda: _mlp(3, Truncated(1e-11), 2), lambda: normal(5, 3), lambda: on_graphs(condition=True)
    ),
    "residual-mlp-roulette-graphs": _case(lambda: _mlp(3, Roulette(samples=8)), lambda: normal(5, 3), on_graphs),
    "residual-conv": _case(lambda: _conv("exact"), lambda: normal(2, 2, 3, 4)),
    "residual-conv-reshape": _case(
        lambda: _conv("exact", kernel_sizes=(3, 3), norm_bound="reshape"), lambda: normal(2, 2, 3, 3)
    ),
    "residual-conv-condition": _case(lambda: _conv("exact", 3), lambda: normal(2, 2, 3, 2), lambda: normal(2, 3, 3, 2)),
    "residual-conv-truncated": _case(
        lambda: _conv(Truncated(1e-11), 2), lambda: normal(2, 2, 3, 2), lambda: normal(2, 2)
    ),
    "residual-conv-roulette": _case(lambda: _conv(Roulette(samples=8)), lambda: normal(2, 2, 3, 2)),
    "residual-declared": LayerCase(
        lambda: lk.LipschitzResidual(_Wave(), lipschitz=0.999, log_det="exact"),
        lambda: normal(3, 3),
        lk.LipschitzResidual,
    ),
}
