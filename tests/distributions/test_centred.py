"""The normal distribution of centred positions: its mass, its draws, its refusals."""

import pytest
import torch

import likelify as lk
from likelify.distributions import CentredNormal
from likelify.errors import DomainError, ShapeError

SIZES = torch.tensor([3, 1, 2])
CONTEXT = lk.Context(structure=lk.GraphBatch.complete(SIZES))


def basis(size):
    """An orthonormal basis of the columns that sum to zero, `(size, size - 1)`."""
    ones = torch.cat([torch.ones(size, 1, dtype=torch.float64), torch.randn(size, size - 1, dtype=torch.float64)], 1)
    return torch.linalg.qr(ones).Q[:, 1:]


def test_the_density_is_that_of_coordinates_in_an_orthonormal_basis():
    inner = [torch.randn(size - 1, 2, dtype=torch.float64) for size in SIZES.tolist()]
    x = torch.cat([basis(size) @ u for size, u in zip(SIZES.tolist(), inner, strict=True)])
    expected = [torch.distributions.Normal(0.0, 1.0).log_prob(u).sum() for u in inner]
    torch.testing.assert_close(CentredNormal((2,)).double().log_prob(x, CONTEXT), torch.stack(expected))


def test_draws_are_centred_and_have_the_right_degrees_of_freedom():
    x = CentredNormal((2,)).double().sample((4000,), CONTEXT)
    assert x.shape == (4000, 6, 2)
    assert float(x[:, :3].sum(1).abs().max()) < 1e-12
    squares = x[:, :3].square().sum((1, 2))
    assert abs(float(squares.mean()) - 4) < 5 * (8 / 4000) ** 0.5
    assert float(x[:, 3].abs().max()) == 0


def test_what_is_not_centred_has_no_density():
    with pytest.raises(DomainError, match="Centre in front"):
        CentredNormal((2,)).log_prob(torch.ones(6, 2), CONTEXT)
    with pytest.raises(ShapeError, match="the context has none"):
        CentredNormal((2,)).log_prob(torch.zeros(6, 2))
    with pytest.raises(ShapeError, match="draws for the graphs"):
        CentredNormal((2,)).sample((3,))
