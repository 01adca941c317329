"""Modules run with other parameters, while nobody else sees them."""

import torch
from torch import nn

from likelify.nets.stand_in import run_with


class Net(nn.Module):
    """Refers to its parts in more ways than one, and looks at itself while it runs."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.steps = [self.first, torch.tanh, self.second]
        self.last = {"scaled": self.scaled}
        self.scale = nn.Parameter(torch.tensor(2.0))

    def scaled(self, x):
        return self.scale * x

    def forward(self, x):
        self.watch()
        for step in self.steps:
            x = step(x)
        return self.last["scaled"](x)

    watch = staticmethod(lambda: None)


class Closed(nn.Module):
    """Reaches its part through a function that closes over it."""

    def __init__(self):
        super().__init__()
        linear = nn.Linear(2, 2)
        self.linear = linear
        self.call = lambda x: linear(x)

    def forward(self, x):
        return self.call(x)


def others(net):
    return {name: (tensor + 0.5).detach().requires_grad_() for name, tensor in net.named_parameters()}


def test_the_copy_computes_what_the_module_would_with_these_parameters():
    for net in (Net(), Closed()):
        x, tensors = torch.randn(3, 2), others(net)
        value = run_with(net, tensors, x)
        assert torch.equal(value, torch.func.functional_call(net, tensors, (x,)))
        assert not torch.equal(value, net(x))
        assert all(grad is not None for grad in torch.autograd.grad(value.sum(), tensors.values()))


def test_the_module_keeps_its_own_parameters_meanwhile():
    net = Net()
    own, seen, outside = dict(net.named_parameters()), [], [net]
    net.watch = lambda: seen.append(dict(outside[0].named_parameters()))
    run_with(net, others(net), torch.randn(3, 2))
    assert all(seen[0][name] is tensor for name, tensor in own.items())


def test_a_module_that_is_called_with_its_own_parameters_is_called_itself():
    net = nn.Linear(2, 2)
    called = []
    net.register_forward_hook(lambda module, args, output: called.append(module))
    run_with(net, dict(net.named_parameters()), torch.randn(1, 2))
    assert called == [net]
    run_with(net, others(net), torch.randn(1, 2))
    assert called[1] is not net
