"""Modules run with other parameters, while nobody else sees them."""

import functools
import sys
import threading
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import likelify as lk
from likelify import testing
from likelify.errors import UnsupportedError
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


class Holding(nn.Module):
    """A network that another object has hold of; `hold` makes it."""

    def __init__(self, hold):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
        self.call = hold(self)

    def forward(self, x, context=None):
        return 0.3 * self.call(x)


class Plain:
    """No module, and nothing that a copy of one would look into."""

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)


def closed(net):
    body = net.body
    return lambda x: body(x)


def in_defaultdict(net):
    return functools.partial(lambda found, x: found["body"](x), defaultdict(list, body=net.body))


def bound_in_defaultdict(net):
    net.log = defaultdict(list)
    return net.body


def hooked(net):
    extra = nn.Parameter(torch.tensor(0.5))
    net.body.register_parameter("extra", extra)
    net.body.register_forward_hook(lambda module, args, output: module.extra * output + extra)
    return net.body


def normed(net):
    parametrizations.weight_norm(net.body[0])
    parametrizations.spectral_norm(net.body[2])
    return net.body.eval()


def normed_by_a_hook(net):
    nn.utils.weight_norm(net.body[0])
    return net.body


HOLDERS = {
    "parts": lambda net: net.body,
    "partial": lambda net: functools.partial(type(net.body).forward, net.body),
    "bound": lambda net: net.body.forward,
    "closed": closed,
    "plain": lambda net: Plain(net.body),
    "in_defaultdict": in_defaultdict,
    "beside_defaultdict": bound_in_defaultdict,
    "compiled": lambda net: torch.compile(net.body, backend="eager"),
    "compiled_function": lambda net: torch.compile(net.body.forward, backend="eager"),
    "compiled_closure": lambda net: torch.compile(closed(net), backend="eager"),
    "hooked": hooked,
    "normed": normed,
    "normed_by_a_hook": normed_by_a_hook,
}


def in_place(net):
    net.compile(backend="eager")
    return net


NETS = {
    "net": Net,
    **{name: functools.partial(Holding, hold) for name, hold in HOLDERS.items()},
    "compiled_whole": lambda: torch.compile(Holding(HOLDERS["parts"]), backend="eager"),
    "compiled_in_place": lambda: in_place(Holding(HOLDERS["parts"])),
}

# PyTorch's compiler looks at the gradients of tensors that are no leaves.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning",
    "ignore:The .grad attribute:UserWarning",
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning",
)


def made(name):
    with lk.seeded(0):
        return NETS[name]()


def others(net):
    return {name: (tensor + 0.5).detach().requires_grad_() for name, tensor in net.named_parameters()}


def with_values(name, tensors):
    """Return the same network with parameters of these values, called in no unusual way."""
    net = made(name)
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            parameter.copy_(tensors[key])
    return net


@pytest.mark.parametrize("name", NETS)
def test_the_copy_computes_what_the_module_would_with_these_parameters(name):
    net, x = made(name), torch.randn(3, 2)
    tensors = others(net)
    value, like = run_with(net, tensors, x), with_values(name, tensors)
    torch.testing.assert_close(value, like(x))
    expected = torch.autograd.grad(like(x).sum(), list(like.parameters()))
    torch.testing.assert_close(torch.autograd.grad(value.sum(), list(tensors.values())), expected)


class Heads(nn.Module):
    """Makes autoregressive heads of a network: the second element depends on the first one."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, u, context=None):
        first = torch.cat([u[:, :1], torch.ones_like(u[:, :1])], 1)
        a, b = self.net(first).unbind(1)
        zero = torch.zeros_like(a)
        return torch.stack([zero + 0.3, a, zero + 0.2, b, zero, b, zero + 0.5, a], 1)


LAYERS = {
    "residual": lambda net: lk.LipschitzResidual(net, lipschitz=0.9, log_det="exact"),
    "triangular": lambda net: lk.transforms.TriangularResidual(Heads(net)),
}


def derivatives(layer, direction):
    """Return the gradients of first order, recorded and not, and those of second order."""
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    parameters = dict(layer.named_parameters())
    loss = lambda: sum(value.square().sum() for value in getattr(layer, direction)(x))  # noqa: E731
    plain = torch.autograd.grad(loss(), list(parameters.values()), allow_unused=True)
    first = torch.autograd.grad(loss(), list(parameters.values()), create_graph=True, allow_unused=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), list(parameters.values()), allow_unused=True)
    return [plain, first, second]


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", [name for name in NETS if name not in ("net", "hooked", "normed", "normed_by_a_hook")])
def test_gradients_of_every_order_do_not_depend_on_who_holds_the_network(name, kind, direction):
    layer, usual = (LAYERS[kind](made(key)).double() for key in (name, "parts"))
    torch.testing.assert_close(derivatives(layer, direction), derivatives(usual, direction))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", ["hooked", "normed", "normed_by_a_hook", "closed"])
def test_layers_of_networks_with_hooks_and_norms_obey_the_laws(name, direction):
    x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)
    for make in LAYERS.values():
        layer = make(made(name)).double()
        testing.check_gradients(layer, x, directions=[direction])
        assert not testing.check_second_order(layer, x, directions=[direction])
        assert not testing.check_forward_mode(layer, x, directions=[direction])


@pytest.mark.parametrize("name", ["closed", "plain", "partial", "compiled"])
def test_other_threads_see_the_parameters_of_the_module(name):
    net, x = made(name), torch.randn(3, 2)
    expected, tensors, stop = net(x), others(net), threading.Event()
    interval = sys.getswitchinterval()

    def work():
        while not stop.is_set():
            run_with(net, tensors, x)

    thread = threading.Thread(target=work)
    sys.setswitchinterval(1e-5)
    try:
        thread.start()
        assert all(torch.equal(net(x), expected) for _ in range(100))
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        ctx.save_for_backward(weight)
        return weight**2

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Escaping(nn.Module):
    """Gives its parameter to a function that nothing can replace it for."""

    def __init__(self):
        super().__init__()
        weight = nn.Parameter(torch.tensor(2.0))
        self.weight = weight
        self.call = lambda x: Square.apply(weight) * x

    def forward(self, x):
        return self.call(x)


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")
def test_a_module_that_keeps_to_its_own_parameters_is_refused():
    scripted = torch.jit.script(nn.Linear(2, 2))
    for net in (Escaping(), scripted):
        with pytest.raises(UnsupportedError, match="its own parameters"):
            run_with(net, others(net), torch.ones(1, 2))


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_kept_from_a_call_without_gradients_are_refused(kind):
    layer = LAYERS[kind](made("normed"))
    with parametrize.cached(), pytest.raises(UnsupportedError, match="outside of that block"):
        layer.inverse(torch.zeros(3, 2))
    with parametrize.cached(), torch.no_grad():
        layer.inverse(torch.zeros(3, 2))


def test_the_module_keeps_its_own_parameters_meanwhile():
    net = Net()
    own, seen, outside = dict(net.named_parameters()), [], [net]
    kept = net.first.weight.detach().clone()
    net.watch = lambda: seen.append(dict(outside[0].named_parameters()))
    run_with(net, others(net), torch.randn(3, 2))
    assert all(seen[0][name] is tensor for name, tensor in own.items())
    assert torch.equal(net.first.weight, kept)


def test_what_a_network_notes_down_is_noted_in_the_network():
    net = Holding(HOLDERS["parts"])
    net.log, net.counts = [], defaultdict(int)

    def note(module, args):
        module.log.append(1)
        module.counts["calls"] += 1

    net.register_forward_pre_hook(note)
    run_with(net, others(net), torch.randn(1, 2))
    assert net.log == [1]
    assert net.counts == {"calls": 1}


def test_a_module_that_is_called_with_its_own_parameters_is_called_itself():
    net = nn.Linear(2, 2)
    called = []
    net.register_forward_hook(lambda module, args, output: called.append(module))
    run_with(net, dict(net.named_parameters()), torch.randn(1, 2))
    assert called == [net]
    run_with(net, others(net), torch.randn(1, 2))
    assert called[1] is not net


def test_first_gradients_run_the_network_itself():
    net, called = made("parts"), []
    net.register_forward_hook(lambda module, args, output: called.append(module))
    layer = lk.LipschitzResidual(net, lipschitz=0.9, log_det="exact")
    for value, contribution in (layer(torch.randn(3, 2)), layer.inverse(torch.randn(3, 2))):
        (value.sum() + contribution.sum()).backward()
    assert all(module is net for module in called)
