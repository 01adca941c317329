"""The record of a conversion, fingerprints, copies of converted layers."""

import copy
import math
import pickle

import torch
from torch import nn

from likelify.flowification import flowify
from likelify.testing import randomize
from tests.flowification.networks import LeNet, Mixer, UNet, made, mlp


def test_the_conversion_is_a_record():
    net, x = made("resnet")
    conversion = flowify(net, x).conversion
    names = {name for name, part in net.named_modules() if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d)}
    assert names <= {layer.name for layer in conversion.layers}
    for layer in conversion.layers:
        if " of " not in layer.kind:
            assert math.prod(layer.in_shape) + layer.added - layer.dropped == layer.kept
    change = sum(layer.added - layer.dropped for layer in conversion.layers)
    assert math.prod(conversion.in_shape) + change == math.prod(conversion.out_shape)
    table = str(conversion)
    assert "layers.1.add" in table
    assert "lower bound" in table
    assert max(map(len, table.splitlines()[:-1])) < 140
    convolution = next(layer for layer in conversion.layers if layer.name == "layers.0.conv1")
    assert convolution.cost == 4 * 4 * 9 * 16 * 16
    assert convolution.net_parameters > 0
    assert convolution.depth == 1


def test_fingerprints_are_of_the_architecture():
    def fingerprint(net, shape, **options):
        return flowify(net, torch.randn(2, *shape), **options).conversion.fingerprint

    first = fingerprint(mlp((12, 6, 3)), (12,))
    assert fingerprint(mlp((12, 6, 3)), (12,)) == first
    others = [
        fingerprint(mlp((12, 6, 4)), (12,)),
        fingerprint(mlp((12, 6, 3), slope=0.2), (12,)),
        fingerprint(mlp((12, 6, 3)), (12,), hidden=8),
        fingerprint(nn.Sequential(nn.Linear(12, 6), nn.LeakyReLU(0.1), nn.Linear(6, 3)), (12,)),
        fingerprint(UNet(2, (3, 4)), (2, 4, 4)),
    ]
    assert len({first, *others}) == 6
    assert fingerprint(LeNet(16, widths=(2, 3)), (1, 16, 16)) != fingerprint(
        LeNet(16, widths=(2, 3), pool="average"), (1, 16, 16)
    )


def test_copies_and_pickles_of_the_layer():
    net, x = made("mixer")
    layer = flowify(net, x)
    twin = copy.deepcopy(layer)
    assert twin.conversion == layer.conversion
    assert str(pickle.loads(pickle.dumps(layer)).conversion) == str(layer.conversion)
    assert torch.equal(twin.mean_forward(x), layer.mean_forward(x))
    fresh = flowify(Mixer(4, 6), x)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.mean_forward(x), layer.mean_forward(x))
    assert randomize(fresh) is fresh
