"""Cases of what `flowify` makes."""

import torch
from torch import nn

from likelify.flowification import Flowified, flowify
from likelify.transforms import PermuteAxes
from likelify.transforms.core import Transform
from tests.cases.common import LayerCase, normal, on_graphs


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Conv1d(2, 2, 2, stride=2), nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.leaky_relu(self.norm(self.inner(x)), 0.3)
        return torch.cat([y[:, :1] * 2, y.transpose(1, 2).transpose(1, 2)[:, 1:]], 1).flatten(1)


def _narrow() -> Transform:
    return flowify(nn.Sequential(nn.Linear(3, 3), nn.LeakyReLU(0.3), nn.Linear(3, 2)), torch.randn(2, 3), hidden=4)


LAYERS: dict[str, LayerCase] = {
    "permute-axes": LayerCase(lambda: PermuteAxes((3, 1, 2)), lambda: normal(3, 2, 3, 4), PermuteAxes),
    "flowified": LayerCase(
        lambda: flowify(_Block(), torch.randn(2, 2, 4), hidden=4), lambda: normal(3, 2, 4), Flowified
    ),
    "flowified-graphs": LayerCase(_narrow, lambda: normal(5, 3), Flowified, on_graphs),
}
