"""Periodic convolutions against dense matrices, translations and refusals."""

import pytest
import torch

import likelify as lk
from likelify import transforms
from likelify.errors import DomainError, ShapeError
from tests.cases.common import normal


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (4, 5), (1, 2), (2, 1), (7,), (8,), (2, 3, 4)])
@pytest.mark.parametrize("taps", [3, 5])
def test_periodic_convolutions_are_their_dense_matrices(size, taps):
    layer = lk.testing.randomize(transforms.periodic_conv(2, taps, dims=len(size)).double(), scale=0.1)
    shape = (2, *size)
    # From the definition: every tap reads the pixel it leads to, round the border.
    events = torch.eye(int(torch.Size(shape).numel()), dtype=torch.float64).reshape(-1, *shape)
    expected = torch.zeros_like(events)
    for tap in torch.cartesian_prod(*[torch.arange(taps)] * len(size)).reshape(-1, len(size)).tolist():
        moved = events.roll([taps // 2 - t for t in tap], list(range(2, 2 + len(size))))
        expected = expected + torch.einsum("ij,bj...->bi...", layer.weight[(..., *tap)], moved)
    matrix = expected.flatten(1).T
    x = normal(3, *shape)
    z, log_det = layer(x)
    assert torch.allclose(z.flatten(1), x.flatten(1) @ matrix.T, atol=1e-11)
    assert torch.allclose(log_det, torch.linalg.slogdet(matrix)[1].expand(3), atol=1e-11)
    assert torch.allclose(layer.inverse(x)[0].flatten(1), torch.linalg.solve(matrix, x.flatten(1).T).T, atol=1e-9)


def test_periodic_convolutions_commute_with_translations_and_keep_their_factors_when_frozen():
    layer = lk.testing.randomize(transforms.periodic_conv(2).double(), scale=0.1)
    x = normal(2, 2, 4, 5)
    assert torch.allclose(layer(x.roll((1, 2), (2, 3)))[0], layer(x)[0].roll((1, 2), (2, 3)), atol=1e-12)
    with layer.frozen():
        for shape in ((4, 5), (5, 4)):
            x = normal(2, 2, *shape)
            assert torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-10)


def test_a_singular_frequency_is_refused():
    layer = transforms.periodic_conv(1, dims=1)
    with torch.no_grad():
        # The mean over three pixels: it loses the frequency of period three.
        layer.weight.fill_(1 / 3)
    assert bool(layer(torch.ones(1, 1, 4))[1].isfinite().all())
    for call in (layer, layer.inverse):
        with pytest.raises(DomainError, match="has lost its full rank"):
            call(torch.ones(1, 1, 6))
    with pytest.raises(ShapeError, match="width"):
        layer(torch.ones(1, 1, 4, 4))
    with pytest.raises(ShapeError, match="kernel_size"):
        transforms.periodic_conv(1, (3, 3), dims=1)
