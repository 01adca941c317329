"""Rotations and Householder reflections: starts, reach, rows, frozen form and refusals."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, DomainError, ShapeError
from likelify.linalg.householder import householder_matrix
from likelify.transforms.exponential.parametrizations import HouseholderVectors
from tests.cases import normal


@pytest.mark.parametrize("method", ["exponential", "cayley"])
def test_rotations_start_where_they_should_and_invert_by_the_transpose(method):
    start = torch.linalg.qr(normal(4, 4))[0]
    layer = lk.rotation(4, start=start, method=method).double()
    x = normal(3, 4)
    assert torch.allclose(layer(x)[0], x @ start.T, atol=1e-12)
    lk.testing.randomize(layer)
    z, log_det = layer(x)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))
    assert torch.allclose(z.norm(dim=1), x.norm(dim=1))
    matrix = layer(torch.eye(4, dtype=torch.float64))[0].T
    assert torch.allclose(layer.inverse(x)[0], x @ matrix, atol=1e-10)


def test_every_rotation_is_reached_by_an_exponential():
    layer = lk.rotation(4).double()
    with torch.no_grad():
        # Half a turn in both planes, where Cayley's formula has a pole; the skew part of W is (W - W^T) / 2.
        layer.parametrization.weight[0, 1] = layer.parametrization.weight[2, 3] = 2 * math.pi
    x = normal(3, 4)
    assert torch.allclose(layer(x)[0], -x, atol=1e-10)


def matrix_of(function, shape):
    """Return the matrix of a linear function of one event."""
    size = int(torch.Size(shape).numel())
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, size).T


def test_reflections_have_the_determinant_of_their_number():
    for count in range(1, 6):
        layer = lk.rotation(4, method="householder", reflections=count).double()
        matrix = matrix_of(lambda x, layer=layer: layer(x)[0], (4,))
        assert torch.allclose(torch.linalg.det(matrix), torch.tensor((-1.0) ** count).double())
    for size in (2, 3, 4):
        vectors = lk.rotation(size, method="householder").parametrization(None)
        assert len(vectors) == size - size % 2


@pytest.mark.parametrize("count", [None, 1, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_reflections_start_where_they_should(count, sign):
    start = torch.linalg.qr(normal(4, 4))[0]
    start[0] *= sign
    layer = lk.rotation(4, method="householder", reflections=count, start=start).double()
    x = normal(3, 4)
    z, log_det = layer(x)
    assert torch.allclose(z, x @ start.T, atol=1e-12)
    assert torch.equal(log_det, torch.zeros(3, dtype=torch.float64))
    lk.testing.randomize(layer)
    moved, _ = layer(x)
    assert not torch.allclose(moved, z, atol=1e-2)
    assert torch.allclose(moved.norm(dim=1), x.norm(dim=1))
    assert torch.allclose(layer.inverse(moved)[0], x, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 3), (3, 3, 3, 3), (1, 3, 3), (4, 3), (9, 3, 1)])
@pytest.mark.parametrize("method", ["exponential", "cayley", "householder"])
def test_no_size_is_taken_for_another_where_they_are_equal(method, shape):
    layer = lk.testing.randomize(lk.rotation(3, method=method, context_features=2).double())
    x, condition = normal(*shape), normal(shape[0], 2)
    z, log_det = layer(x, condition)
    alone = torch.cat([layer(row[None], own[None])[0] for row, own in zip(x, condition, strict=True)])
    assert torch.allclose(z, alone, atol=1e-12)
    assert torch.allclose(z.norm(dim=1), x.norm(dim=1))
    assert torch.equal(log_det, x.new_zeros(shape[0]))
    assert torch.allclose(layer.inverse(z, condition)[0], x, atol=1e-12)


def test_reflections_of_each_row_are_as_if_alone():
    layer = lk.testing.randomize(lk.rotation(3, method="householder", context_features=2).double())
    x, condition = normal(4, 3, 2), normal(4, 2)
    together, _ = layer(x, condition)
    alone = torch.cat([layer(x[i : i + 1], condition[i : i + 1])[0] for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-12)
    assert not torch.allclose(together, layer(x, condition.flip(0))[0], atol=1e-3)
    with pytest.raises(ShapeError, match="same number of rows"):
        layer(x, condition[:2])
    with layer.frozen():
        assert torch.equal(layer(x, condition)[0], together)


def test_frozen_reflections_form_their_matrix_once():
    layer = lk.rotation(3, method="householder", reflections=2).double()
    x = normal(4, 3, 2)
    z, _ = layer(x)
    with layer.frozen():
        assert torch.allclose(layer(x)[0], z, atol=1e-12)
        assert torch.allclose(layer.inverse(z)[0], x, atol=1e-12)
        assert list(layer._cache) == ["matrix"]
        with pytest.raises(ShapeError, match="3 channels"):
            layer(normal(4, 2))


def test_vectors_that_cannot_reflect_are_refused_at_the_start():
    good = HouseholderVectors(3, 2, vectors=torch.eye(3)[:2])
    assert torch.allclose(householder_matrix(good(None)), torch.diag(torch.tensor([-1.0, -1.0, 1.0])))
    for bad in (0.0, float("nan"), float("inf")):
        with pytest.raises(DomainError, match="no direction"):
            HouseholderVectors(3, 2, vectors=torch.tensor([[1.0, 0, 0], [0, bad, 0]]))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        HouseholderVectors(3, 2, vectors=torch.eye(3))
    with pytest.raises(ConfigError, match="reflections must be at least 1"):
        lk.rotation(3, method="householder", reflections=0)
    with pytest.raises(ConfigError, match="householder"):
        lk.rotation(3, method="cayley", reflections=2)
