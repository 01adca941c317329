"""Tied heads: the network of the non-generalized form, and what it sees."""

import pytest
import torch

from likelify.errors import ConfigError, ShapeError
from likelify.nets.tied import LIMIT, TiedHeads
from likelify.testing import randomize


def test_tied_heads_are_the_non_generalized_form():
    """f(u) = R2 tanh(R1 (u + b)) with whole kernels, diagonals included, is what the heads describe."""
    heads = randomize(TiedHeads(2)).double()
    inner, outer = (kernel.clone() for kernel in heads.kernels())
    for c in range(2):
        inner[c, c, 1, 1] = LIMIT * torch.tanh(heads.diagonal_1[c])
        outer[c, c, 1, 1] = LIMIT * torch.tanh(heads.diagonal_2[c])
    # R2 has the kernel of R1 with channel axes and spatial axes swapped, where both masks let it through.
    assert torch.equal(inner[:, :, 0, 1], outer[:, :, 1, 0].T)
    u = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    conv = torch.nn.functional.conv2d
    expected = conv(torch.tanh(conv(u + heads.bias[:, None, None], inner, padding=1)), outer, padding=1)
    t1, s1, s2, t2 = heads(u).chunk(4, 1)
    assert torch.allclose(s2 * torch.tanh(s1 * u + t1) + t2, expected, atol=1e-14)


def test_tied_heads_see_earlier_elements_only():
    heads = randomize(TiedHeads(2)).double()
    u = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(heads, u).reshape(4, 2, 12, 2, 12)
    # (head, pixel, channel, pixel, channel): by position first, then by channel.
    ordered = jacobian.permute(0, 2, 1, 4, 3).reshape(4, 24, 24)
    assert float(ordered.triu().abs().max()) == 0
    assert float(ordered[0].abs().max()) > 0
    assert float(ordered[3].abs().max()) > 0
    with pytest.raises(ShapeError, match="2 channels"):
        heads(torch.randn(1, 3, 4, 4))
    with pytest.raises(ShapeError, match="odd"):
        TiedHeads(2, 4)
    with pytest.raises(ConfigError, match="channels must be at least 1"):
        TiedHeads(0)
