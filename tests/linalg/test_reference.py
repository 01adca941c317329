import pytest
import torch
from scipy.linalg import expm

from likelify.testing import exponentials
from tests.linalg.reference import exponential


@pytest.mark.parametrize("norm", [0.0, 0.03, 0.5, 4.0, 20.0])
def test_all_references_of_exponentials_agree(norm):
    matrices = torch.randn(4, 6, 6, dtype=torch.float64)
    matrices = norm * matrices / torch.linalg.matrix_norm(matrices, 2)[:, None, None]
    exact = exponential(matrices)
    scale = float(exact.abs().max())
    assert float((torch.from_numpy(expm(matrices.numpy())) - exact).abs().max()) < 1e-11 * scale
    assert float((exponentials._reference_exponential(matrices) - exact).abs().max()) < 2e-14 * scale


def test_the_reference_is_differentiable():
    matrices = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exponential, matrices)
