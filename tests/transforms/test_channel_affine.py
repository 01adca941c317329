"""Channel affine maps against batch normalization."""

import math

import pytest
import torch
from torch import nn

from likelify.transforms.elementwise import ChannelAffine


@pytest.mark.parametrize(("module", "shape"), [(nn.BatchNorm1d, (6, 3)), (nn.BatchNorm2d, (6, 3, 2, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalization_becomes_a_channel_affine_map(module, shape, affine):
    norm = module(3, affine=affine)
    for _ in range(3):
        norm(2 + 3 * torch.randn(*shape))
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, -2.0, 1.0]))
            norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    x = torch.randn(*shape)
    layer = ChannelAffine.from_batch_norm(norm)
    assert torch.allclose(layer(x)[0], norm.eval()(x), atol=1e-5)
    weight = norm.weight.detach() if affine else torch.ones(3)
    per_position = (weight.abs().log() - 0.5 * (norm.running_var + norm.eps).log()).sum()
    assert torch.allclose(layer(x)[1], per_position * math.prod(shape[2:]), atol=1e-5)
