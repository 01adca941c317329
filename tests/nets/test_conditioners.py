import copy

import pytest
import torch

from likelify import nets
from likelify.errors import ConfigError
from likelify.testing import randomize


def saved_bytes(run):
    """Bytes of distinct storages that autograd keeps, parameters included."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run()
    return sum(kept.values())


BUILD = {
    "dense": lambda **kw: nets.DenseConvBlock(3, 4, 6, 2, 5, context_features=2, **kw),
    "dense-plain": lambda **kw: nets.DenseConvBlock(3, 4, 6, 2, 5, context_features=2, gated=False, **kw),
    "residual-dropout": lambda **kw: nets.ResidualConvNet(3, 4, 6, 2, context_features=2, dropout=0.5, **kw),
    "glow": lambda **kw: nets.ResidualConvNet(3, 4, 6, skip=False, context_features=2, **kw),
}


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("noisy", [False, True])
def test_a_net_that_runs_again_gives_the_same_numbers_and_gradients(name, noisy):
    plain = randomize(BUILD[name]()).double()
    lean = BUILD[name](checkpoint=True).double()
    lean.load_state_dict(plain.state_dict())
    x, context = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    found = []
    for net in (plain, lean):
        leaf = x.clone().requires_grad_()
        torch.manual_seed(3)
        if noisy:
            with nets.regularized(net):
                value = net(leaf, context)
        else:
            value = net(leaf, context)
        # The backward pass comes after the block, as in the training loop, and after other random numbers.
        torch.manual_seed(4)
        value.square().sum().backward()
        found.append([value.detach(), leaf.grad, *(p.grad for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not any(m.active for m in lean.modules() if isinstance(m, nets.Dropout))


def test_dropout_that_was_off_stays_off_when_a_net_runs_again():
    net = randomize(BUILD["residual-dropout"](checkpoint=True)).double()
    x, context = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    value = net(x, context).sum()
    with nets.regularized(net):
        value.backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net(x, context).sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(found, net.parameters(), strict=True))


def test_a_net_that_runs_again_keeps_its_input_only():
    x = torch.randn(4, 6, 16, 16)
    plain, lean = (nets.DenseConvBlock(6, 12, 16, 4, 16, checkpoint=c) for c in (False, True))
    assert saved_bytes(lambda: lean(x)) <= x.numel() * 4
    assert saved_bytes(lambda: plain(x)) > 50 * x.numel() * 4


def test_nets_work_without_gradients_and_in_copies():
    net = copy.deepcopy(randomize(BUILD["dense"](checkpoint=True)))
    x, context = torch.randn(2, 3, 4, 4), torch.randn(2, 2)
    with torch.inference_mode():
        value = net(x, context)
    assert torch.allclose(value, net(x, context))


def test_the_coupling_network_has_the_size_of_the_paper():
    """1x1 n -> n and 3x3 n -> 64 for n = 64, 128 .. 512, a gated 1x1 of 576 -> 3 * 64, and the two 1x1 around."""
    net = nets.DenseConvBlock(6, 12, 64, 8, 64)
    sizes = [64 * i for i in range(1, 9)]
    expected = sum(n * n + n + 9 * n * 64 + 64 for n in sizes) + 577 * 192 + 7 * 64 + 65 * 12
    assert sum(p.numel() for p in net.parameters()) == expected == 2_277_516
    assert sum(p.numel() for p in nets.DenseConvBlock(6, 12, 64, 8, 64, gated=False).parameters()) == 2_203_660


def test_dense_encoder_halves_the_image():
    encoder = nets.DenseImageEncoder(3, 8, depth=2, growth=4)
    lean = nets.DenseImageEncoder(3, 8, depth=2, growth=4, checkpoint=True)
    lean.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 3, 6, 4)
    assert encoder(x).shape == (2, 8, 3, 2)
    assert torch.equal(encoder(x), lean(x))


def test_nets_that_run_again_train_alike_in_the_fitting_loop():
    """With dropout, whose random numbers and switch have to be those of the first run."""
    import likelify as lk
    from likelify.data import open_source
    from likelify.fitting.loop import fit
    from likelify.fitting.settings import FitSettings

    source, found = open_source("digits"), []
    for lean in (False, True):
        with lk.seeded(0):
            net = nets.ResidualConvNet(2, 4, 8, dropout=0.4, checkpoint=lean)
            coupling = lk.Coupling(lk.ChannelSplit(4), lk.AffineBijector(), net)
            layers = lk.Chain([lk.Dequantize(17), lk.Affine(shift=-8, scale=1 / 8), lk.Squeeze(), coupling])
            flow = lk.Flow(lk.Normal((4, 4, 4)), layers, event_shape=(1, 8, 8))
        result = fit(flow, source, FitSettings(steps=4, validations=2, batch_size=16))
        found.append([(point.train_bits, point.validation_bits) for point in result.points[1:]])
    assert found[0] == found[1]


@pytest.mark.parametrize("rate", [-0.1, 1.0, 0.999999, 2.0])
def test_dropout_leaves_something(rate):
    with pytest.raises(ConfigError, match="dropout rate"):
        nets.Dropout(rate)
