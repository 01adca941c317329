"""Replicas of `torch.nn.DataParallel` hold other tensors at the places of parameters, which get the gradients."""

import sys

import pytest
import torch
from torch.nn.parallel import replicate

import likelify as lk
from tests.cases import LAYERS


@pytest.fixture
def replica(monkeypatch):
    """Return torch's own replication of a module, on the processor in place of several accelerators."""
    made = sys.modules[replicate.__module__]
    monkeypatch.setattr(made, "_get_device_index", lambda device, optional: device)
    monkeypatch.setattr(made, "_broadcast_coalesced_reshape", lambda tensors, *_, **__: [[t.clone() for t in tensors]])
    return lambda module: replicate(module, [0])[0]


def gradients(layer, leaves, x, context):
    with lk.seeded(1):
        value, contribution = layer(x, context)
    found = [tensor for tensor in (value, contribution) if tensor.requires_grad]
    if not found:
        return None
    return torch.autograd.grad([tensor.sin().sum() for tensor in found], leaves, allow_unused=True)


@pytest.mark.parametrize("name", LAYERS)
def test_a_replica_gives_the_gradients_of_its_module(name, replica, device):
    layer, x, context = LAYERS[name].ready(device=device)
    leaves = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    if not leaves:
        return
    with torch.no_grad(), lk.seeded(1):
        z = layer(x, context)[0]
    for direction, rows in ((layer, x), (lk.Inverse(layer), z)):
        expected = gradients(direction, leaves, rows, context)
        found = gradients(replica(direction), leaves, rows, context)
        torch.testing.assert_close(found, expected)
