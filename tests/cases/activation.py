"""Cases of activations, and of the elementwise layers that came with them."""

import torch
from torch import nn

from likelify.transforms import elementwise, splines
from likelify.transforms.surjections import activation
from tests.cases.common import LayerCase, normal, on_graphs


def _affine() -> elementwise.ChannelAffine:
    return elementwise.ChannelAffine(torch.tensor([0.5, -2.0, 1.0]), torch.tensor([1.0, 0.0, -3.0]))


def _net(numbers: int, condition: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3 + condition, 5), nn.Tanh(), nn.Linear(5, 3 * numbers))


LAYERS: dict[str, LayerCase] = {
    "leaky-relu": LayerCase(lambda: activation.LeakyReLU(0.3), lambda: normal(3, 2, 2), activation.LeakyReLU),
    "leaky-relu-graphs": LayerCase(activation.LeakyReLU, lambda: normal(5, 3), activation.LeakyReLU, on_graphs),
    "prelu": LayerCase(activation.PReLU, lambda: normal(3, 2, 2), activation.PReLU),
    "prelu-channels": LayerCase(lambda: activation.PReLU(3), lambda: normal(6, 3, 2), activation.PReLU),
    "prelu-graphs": LayerCase(activation.PReLU, lambda: normal(5, 3), activation.PReLU, on_graphs),
    "elu": LayerCase(lambda: activation.ELU(0.7), lambda: 2 * normal(3, 4), activation.ELU),
    "celu": LayerCase(lambda: activation.celu(0.7), lambda: normal(3, 4), activation.ELU),
    "selu-graphs": LayerCase(activation.selu, lambda: normal(5, 3), activation.ELU, on_graphs),
    "abs": LayerCase(activation.Abs, lambda: normal(3, 2, 2), activation.Abs),
    "abs-net": LayerCase(lambda: activation.Abs(_net(1)), lambda: normal(4, 3), activation.Abs),
    "abs-condition-graphs": LayerCase(
        lambda: activation.Abs(_net(1, 2)), lambda: normal(5, 3), activation.Abs, lambda: on_graphs(condition=True)
    ),
    "relu": LayerCase(activation.ReLU, lambda: normal(3, 2, 2), activation.ReLU),
    "relu-net-graphs": LayerCase(lambda: activation.ReLU(_net(1)), lambda: normal(5, 3), activation.ReLU, on_graphs),
    "noisy-relu": LayerCase(
        activation.NoisyReLU, lambda: normal(4, 3, 2), activation.NoisyReLU, draws_without_gradient=True
    ),
    "noisy-relu-net": LayerCase(
        lambda: activation.NoisyReLU(net=_net(4)),
        lambda: normal(4, 3),
        activation.NoisyReLU,
        draws_without_gradient=True,
    ),
    "noisy-relu-graphs": LayerCase(
        lambda: activation.NoisyReLU(noise_scale=0.5),
        lambda: normal(5, 3),
        activation.NoisyReLU,
        on_graphs,
        draws_without_gradient=True,
    ),
    "shared-spline": LayerCase(
        lambda: splines.SharedSpline(bins=4), lambda: normal(4, 3, 2), splines.SharedSpline, near_identity=True
    ),
    "shared-spline-cells": LayerCase(splines.SharedSpline, lambda: normal(60, 5, 7), splines.SharedSpline),
    "shared-spline-graphs": LayerCase(splines.SharedSpline, lambda: normal(5, 3), splines.SharedSpline, on_graphs),
    "channel-affine": LayerCase(_affine, lambda: normal(2, 3, 2, 2), elementwise.ChannelAffine),
    "channel-affine-graphs": LayerCase(_affine, lambda: normal(5, 3), elementwise.ChannelAffine, on_graphs),
}
