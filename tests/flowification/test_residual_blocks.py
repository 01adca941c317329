"""Residual blocks as exact bijections, and what is not certified to be one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from likelify.errors import UnsupportedError
from likelify.flowification import flowify
from likelify.flowification.rules import rule
from tests.flowification.networks import Residual, evaluated


def test_contractive_blocks_become_exact_bijections():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3, padding=1)
            with torch.no_grad():
                self.a.weight *= 0.4
                self.b.weight *= 0.4

        def forward(self, x):
            return x - 0.5 * self.b(F.gelu(self.norm(self.a(F.leaky_relu(x, 0.3)))))

    net, x = nn.Sequential(Block(), Block()).double(), torch.randn(3, 2, 3, 3, dtype=torch.float64)
    layer = flowify(net, x, residual="lipschitz")
    assert layer.likelihood == "exact"
    torch.testing.assert_close(layer.mean_forward(x).detach(), evaluated(net, x), atol=1e-12, rtol=1e-12)
    z, log_det = layer(x)
    torch.testing.assert_close(layer.inverse(z)[0], x, atol=1e-9, rtol=0)
    jacobian = torch.autograd.functional.jacobian(lambda v: net.eval()(v[None])[0], x[0])
    torch.testing.assert_close(log_det[0].detach(), torch.linalg.slogdet(jacobian.reshape(18, 18))[1])
    with torch.no_grad():
        for p in layer.parameters():
            p *= 5
    assert all(block.lipschitz_bound() <= 0.99 for block in layer)
    with pytest.raises(UnsupportedError, match=r"gelu is not monotone"):
        flowify(net, x)


def test_blocks_that_are_not_contractions_are_refused_or_bounded():
    net, x = nn.Sequential(Residual(nn.Linear(3, 3)), Residual(nn.Linear(3, 3))), torch.randn(2, 3)
    with torch.no_grad():
        net[0].inner.weight.mul_(0.2)
        net[1].inner.weight.mul_(20)
    with pytest.raises(UnsupportedError, match=r"1\.add: the branch may multiply distances .*residual='repeat'"):
        flowify(net, x, residual="lipschitz")
    layers = flowify(net, x, residual="auto").conversion.layers
    assert [layer.kind for layer in layers] == ["contraction", "sum of 2", "Linear"]
    assert [layer.likelihood for layer in layers] == ["exact", "bound", "exact"]


class Steep(nn.Module):
    """Sine of thirty times the input."""

    def forward(self, x):
        return torch.sin(30 * x)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "activation",
    [nn.Softplus(threshold=0.1), nn.Softplus(beta=-1.0), lambda x: F.softplus(x, 1.0, 0.1), Doubled(2, 2)],
)
def test_no_slope_is_believed_that_is_not_the_function_s(activation):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.activation = nn.Linear(2, 2), nn.Linear(2, 2), activation

        def forward(self, x):
            return x + self.b(self.activation(self.a(x)))

    with pytest.raises(UnsupportedError, match="no bound of the slope is known"):
        flowify(Block(), torch.randn(3, 2), residual="lipschitz")


def test_a_rule_for_a_class_of_one_s_own_says_nothing_of_its_slope():
    class Sin(Steep):
        """Called like a function whose slope is one."""

    rule(Sin)(lambda module, in_shape, options: None)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.activation = nn.Linear(2, 2), nn.Linear(2, 2), Sin()

        def forward(self, x):
            return x + self.b(self.activation(self.a(x)))

    with pytest.raises(UnsupportedError, match="no bound of the slope is known"):
        flowify(Block(), torch.randn(3, 2), residual="lipschitz")


def test_a_factor_counts_by_whatever_name_it_is_given():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)
            with torch.no_grad():
                self.a.weight.copy_(0.5 * torch.eye(2))

        def forward(self, x):
            return x + torch.mul(torch.sin(self.a(x)), other=-6.0)

    with pytest.raises(UnsupportedError, match="multiply distances by up to 3"):
        flowify(Block(), torch.randn(3, 2), residual="lipschitz")
