"""1x1 convolutions: what two of them are."""

import torch

import likelify as lk
from likelify import transforms
from tests.cases.common import normal


def test_two_conv1x1_is_the_product_of_two():
    layer = lk.testing.randomize(transforms.two_conv1x1(3).double())
    x = normal(2, 3, 4, 4)
    z, log_det = layer(x)
    product = layer[1].matrix() @ layer[0].matrix()
    assert torch.allclose(z, torch.einsum("ij,bjhw->bihw", product, x))
    assert torch.allclose(log_det, 16 * torch.linalg.slogdet(product)[1].expand(2))
