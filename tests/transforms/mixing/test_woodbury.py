"""Woodbury transformations against dense matrices, and their refusals."""

import pytest
import torch

import likelify as lk
from likelify import transforms
from likelify.errors import ConfigError, DomainError, ShapeError
from tests.cases.common import normal


@pytest.mark.parametrize("ranks", [(2, 3), (0, 2), (1, 0)])
def test_woodbury_is_its_dense_matrix(ranks):
    layer = transforms.Woodbury(3, (2, 4), channel_rank=ranks[0], spatial_rank=ranks[1]).double()
    lk.testing.randomize(layer)
    factors = [torch.eye(3, dtype=torch.float64), torch.eye(8, dtype=torch.float64)]
    for i, name in enumerate(("channel", "spatial")):
        if ranks[i]:
            factors[i] = factors[i] + getattr(layer, name).left @ getattr(layer, name).right
    matrix = torch.kron(*factors)
    x = normal(5, 3, 2, 4)
    z, log_det = layer(x)
    assert torch.allclose(z.flatten(1), x.flatten(1) @ matrix.T, atol=1e-12)
    assert torch.allclose(log_det, torch.linalg.slogdet(matrix)[1].expand(5), atol=1e-12)
    back, undone = layer.inverse(x)
    assert torch.allclose(back.flatten(1), torch.linalg.solve(matrix, x.flatten(1).T).T, atol=1e-10)
    assert torch.allclose(undone, -log_det)


def test_woodbury_never_forms_a_matrix_of_the_positions():
    layer = transforms.Woodbury(1, (64, 64), spatial_rank=2)
    sizes = []

    def look(tensor):
        sizes.append(tensor.numel())
        return tensor

    x = torch.randn(1, 1, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        z, _ = layer(x)
        back, _ = layer.inverse(z)
    assert max(sizes) <= 2 * 64 * 64
    assert torch.allclose(back, x, atol=1e-5)


def test_woodbury_belongs_to_one_image_size():
    layer = lk.woodbury_conv(3, (4, 4), rank=2)
    for shape in ((2, 3, 4, 5), (2, 3, 16), (2, 3)):
        with pytest.raises(ShapeError, match="4, 4"):
            layer[1](torch.ones(shape))
    assert transforms.Woodbury(3, (4, 4), channel_rank=2)(torch.ones(2, 3, 5, 7))[0].shape == (2, 3, 5, 7)
    with pytest.raises(ConfigError, match="rank"):
        transforms.Woodbury(3, (4, 4))
    with pytest.raises(ConfigError, match="size"):
        transforms.Woodbury(3, spatial_rank=2)


@pytest.mark.parametrize("name", ["channel", "spatial"])
@pytest.mark.parametrize("fault", ["singular", "nan", "nearly"])
def test_a_singular_woodbury_factor_is_refused(name, fault):
    layer = transforms.Woodbury(3, (2, 2), channel_rank=2, spatial_rank=2)
    left, right = getattr(layer, name).left, getattr(layer, name).right
    with torch.no_grad():
        left.zero_()
        right.zero_()
        # One direction is multiplied by zero, or by a rounding error.
        left[0, 0], right[0, 0] = 1.0, {"singular": -1.0, "nan": float("nan"), "nearly": -1.0 + 1e-7}[fault]
    for call in (layer, layer.inverse):
        with pytest.raises(DomainError, match=f"{name} factor"):
            call(torch.ones(2, 3, 2, 2))
    with layer.frozen(), pytest.raises(DomainError, match="smaller learning rate"):
        layer(torch.ones(2, 3, 2, 2))
