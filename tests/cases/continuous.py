"""Cases of continuous flows: slow ones, so that the error of their solver is below what the laws allow."""

import torch
from torch import nn

import likelify as lk
from likelify import nets, transforms
from tests.cases.common import LayerCase, normal, on_graphs


class Swirl(nn.Module):
    """A field of rows that does not know its divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(0.01 * torch.randn(3, 3))
        self.turn = nn.Parameter(0.01 * torch.randn(3, 3))

    def forward(self, x: torch.Tensor, t: torch.Tensor, context: lk.Context) -> torch.Tensor:
        return torch.tanh(x + t) @ self.rate + torch.sin(x @ self.turn)


def _points(context: int = 0) -> lk.Transform:
    net = nets.SetVelocity(2, width=4, rounds=1, heads=2, frequencies=1, times=1, context_features=context)
    return transforms.ContinuousFlow(net, steps=8)


def complete() -> lk.Context:
    return lk.Context(structure=lk.GraphBatch.complete([2, 3]))


def _case(build: object, data: object, context: object = lambda: None) -> LayerCase:
    return LayerCase(build, data, transforms.ContinuousFlow, context, scale=0.005)


LAYERS: dict[str, LayerCase] = {
    "continuous-rows": _case(lambda: transforms.ContinuousFlow(Swirl(), steps=4), lambda: normal(3, 3)),
    "continuous-complete-graphs": _case(_points, lambda: 0.5 * normal(5, 2), complete),
    "continuous-graphs-condition": _case(
        lambda: _points(2), lambda: 0.5 * normal(5, 2), lambda: on_graphs(condition=True)
    ),
}


def _turning() -> lk.Transform:
    return transforms.ContinuousFlow(nets.RotationVelocity(2, width=3, bumps=4, times=1), steps=8)


def _order(by: str) -> LayerCase:
    nodes = 5 if by == "anchors" else None
    one = lk.Context(structure=lk.GraphBatch.complete([5]))
    return LayerCase(
        lambda: transforms.NodeOrder(2, by, nodes=nodes),
        lambda: normal(5, 2),
        transforms.NodeOrder,
        (lambda: one) if by == "anchors" else complete,
    )


LAYERS |= {
    "continuous-rotations-complete-graphs": _case(_turning, lambda: 0.5 * normal(5, 2), complete),
    **{f"node-order-{by}-graphs": _order(by) for by in ("random", "feature", "angle", "anchors")},
    "centre-graphs": LayerCase(
        lambda: transforms.Centre(2, centre="normal"), lambda: normal(5, 2), transforms.Centre, on_graphs
    ),
}
