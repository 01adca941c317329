"""Products of reflections: values, gradients, memory, and vectors that are none."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from likelify.errors import ShapeError
from likelify.linalg import householder
from likelify.linalg.dense import apply_matrix
from likelify.linalg.householder import householder_matrix, reflect

# Vectors, input: fewer, as many and more reflections than channels; one position and many; for all rows and for each.
SHAPES = [
    ((3, 5), (2, 5, 4)),
    ((5, 5), (3, 5)),
    ((7, 4), (3, 4, 2, 3)),
    ((4, 4), (3, 4, 9)),
    ((1, 6), (4, 6)),
    ((3, 2, 5), (3, 5)),
    ((3, 4, 4), (3, 4, 9)),
    ((2, 6, 3), (2, 3, 4, 5)),
]


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def one_by_one(vectors):
    """Multiply the dense reflections."""
    product = torch.eye(vectors.shape[-1]).to(vectors)
    for v in vectors:
        product = product @ (torch.eye(len(v)).to(v) - 2 * torch.outer(v, v) / (v @ v))
    return product


def dense(vectors):
    return one_by_one(vectors) if vectors.ndim == 2 else torch.stack([one_by_one(row) for row in vectors])


def apply_dense(matrix, x):
    return torch.einsum("ij,bj...->bi..." if matrix.ndim == 2 else "bij,bj...->bi...", matrix, x)


def saved_numbers(function):
    """Count the numbers that are kept for the backward pass, each storage once."""
    kept = {}

    def look(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().size() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        function()
    return kept


@pytest.mark.parametrize(("shape", "data"), SHAPES)
def test_the_compact_form_is_the_product_of_the_reflections(shape, data):
    vectors, x = normal(*shape), normal(*data)
    matrix = dense(vectors)
    assert torch.allclose(householder_matrix(vectors), matrix, atol=1e-12)
    assert torch.allclose(reflect(vectors, x), apply_dense(matrix, x), atol=1e-12)
    assert torch.allclose(reflect(vectors, x, transposed=True), apply_dense(matrix.mT, x), atol=1e-12)


def test_both_ways_to_apply_are_taken():
    taken = {householder._is_formed(torch.empty(shape), torch.empty(data)) for shape, data in SHAPES}
    assert taken == {True, False}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("shape", "data"), SHAPES)
def test_gradients_are_those_of_the_product(shape, data, transposed):
    vectors, x = normal(*shape).requires_grad_(), normal(*data).requires_grad_()
    upstream = normal(*data)
    matrix = dense(vectors)
    expected = torch.autograd.grad(apply_dense(matrix.mT if transposed else matrix, x), (vectors, x), upstream)
    found = torch.autograd.grad(reflect(vectors, x, transposed=transposed), (vectors, x), upstream)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-11)


@pytest.mark.parametrize(
    ("shape", "data"), [((1, 3), (2, 3, 2)), ((3, 2), (2, 2, 3)), ((2, 1, 3), (2, 3)), ((2, 3, 2), (2, 2, 4))]
)
def test_first_and_second_derivatives(shape, data):
    vectors, x = normal(*shape).requires_grad_(), normal(*data).requires_grad_()
    for transposed in (False, True):

        def function(vectors, x, transposed=transposed):
            return reflect(vectors, x, transposed=transposed)

        assert gradcheck(function, (vectors, x))
        assert gradgradcheck(function, (vectors, x))
    assert gradcheck(householder_matrix, (vectors,))
    assert gradgradcheck(householder_matrix, (vectors,))


def test_only_what_needs_a_gradient_gets_one():
    vectors, x = normal(2, 4), normal(3, 4)
    (grad,) = torch.autograd.grad(reflect(vectors, x.requires_grad_()).sum(), x)
    assert torch.allclose(grad, (dense(vectors).T @ torch.ones(4, dtype=torch.float64)).expand(3, 4))
    vectors.requires_grad_()
    assert torch.autograd.grad(reflect(vectors, x.detach()).square().sum(), vectors)[0].abs().max() < 1e-12


@pytest.mark.parametrize("data", [(4, 6), (4, 6, 5), (4, 6, 3, 5), (4, 6, 1, 2)])
@pytest.mark.parametrize("count", [2, 6])
def test_the_memory_layout_of_the_input_is_kept(data, count):
    vectors, x = normal(count, 6), normal(*data)
    assert reflect(vectors, x).is_contiguous()
    if len(data) == 4:
        last = x.contiguous(memory_format=torch.channels_last)
        z = reflect(vectors, last)
        assert z.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(z, apply_dense(dense(vectors), x), atol=1e-12)
    assert torch.allclose(apply_matrix(dense(vectors), x), apply_dense(dense(vectors), x), atol=1e-12)


def test_the_length_of_the_vectors_does_not_count():
    vectors = normal(3, 4)
    for factor in (1e-12, 1e12):
        assert torch.allclose(householder_matrix(factor * vectors), householder_matrix(vectors), atol=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-200, 1e-160])
def test_a_vector_that_is_zero_reflects_nothing(size):
    vectors = normal(3, 4)
    vectors[1] *= size
    vectors.requires_grad_()
    matrix = householder_matrix(vectors)
    assert torch.allclose(matrix, one_by_one(vectors[[0, 2]]), atol=1e-12)
    first, second = torch.autograd.grad(matrix, vectors, normal(4, 4))[0][[0, 1]]
    assert bool(torch.isfinite(first).all())
    assert float(first.abs().max()) > 1e-3
    assert float(second.abs().max()) < 1e-100


def test_orthogonality_in_single_precision():
    matrix = householder_matrix(torch.randn(64, 192))
    assert float((matrix @ matrix.T - torch.eye(192)).abs().max()) < 3e-6


@pytest.mark.parametrize(("shape", "data"), [((8, 24), (5, 24, 4, 4)), ((8, 8), (5, 8, 16))])
def test_kept_for_the_backward_pass_are_the_input_the_vectors_and_two_small_matrices(shape, data):
    vectors, x = torch.randn(*shape).requires_grad_(), torch.randn(*data).requires_grad_()
    kept = saved_numbers(lambda: reflect(vectors, x))
    count, channels = shape
    assert sorted(kept.values()) == sorted([x.numel(), vectors.numel(), count * channels, count * count])
    assert {x.untyped_storage().data_ptr(), vectors.untyped_storage().data_ptr()} <= set(kept)


def test_vmap_and_jacobians():
    vectors, x = normal(2, 3), normal(4, 3, 2)
    together = reflect(vectors, x)
    alone = torch.func.vmap(lambda row: reflect(vectors, row[None])[0])(x)
    assert torch.allclose(alone, together)
    jacobian = torch.func.jacrev(lambda v: householder_matrix(v)[0, 0])(vectors)
    vectors.requires_grad_()
    assert torch.allclose(jacobian, torch.autograd.grad(householder_matrix(vectors)[0, 0], vectors)[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(K, C\)"):
        householder_matrix(torch.ones(3))
    with pytest.raises(ShapeError, match="cannot act"):
        reflect(torch.ones(2, 3), torch.ones(4, 5))
    with pytest.raises(ShapeError, match="cannot act"):
        reflect(torch.ones(2, 2, 3), torch.ones(4, 3))
    with pytest.raises(ShapeError, match="cannot act"):
        reflect(torch.ones(2, 3), torch.ones(3))
