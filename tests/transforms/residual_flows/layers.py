"""Residual layers that tests put to the proof."""

import torch
from torch import nn

import likelify as lk
from likelify import nets


def strong(method="exact", *, features=3, **settings):
    """A layer whose Jacobian is large: weights at their limit, activations where their slope is large."""
    net = lk.testing.randomize(nets.LipschitzMLP(features, (8,), norm_limit=0.95).double(), scale=3.0, seed=1)
    with torch.no_grad():
        # The last map goes back along the first one, so that the trace does not vanish.
        net.weights[1].copy_(net.weights[0].T)
        net.biases[0].add_(1.0)
    return lk.LipschitzResidual(net, log_det=method, **settings)


class Line(nn.Module):
    """`slope` times the input, a Lipschitz constant that can be lied about."""

    def __init__(self, slope):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x):
        return self.slope * x
