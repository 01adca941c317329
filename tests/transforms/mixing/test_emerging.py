"""Autoregressive and emerging convolutions against dense matrices: inverses, gradients, memory and refusals."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import likelify as lk
from likelify import transforms
from likelify.errors import ConfigError, ShapeError
from likelify.transforms.mixing import emerging
from tests.cases.common import normal


def matrix_of(function, shape):
    """Return the matrix of a linear function of one event."""
    size = int(torch.Size(shape).numel())
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).reshape(size, size).T


KERNELS = [2, 3, 4, (1, 2), (1, 3), (2, 1), (3, 1), (3, 5), (5, 2), (2, 5)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 1, 5), (3, 5, 1), (1, 1, 1), (2, 2, 6)])
def test_the_inverse_of_an_autoregressive_convolution_is_that_of_its_matrix(kernel_size, shape, reverse):
    layer = lk.testing.randomize(transforms.AutoregressiveConv(shape[0], kernel_size, reverse=reverse).double())
    matrix = matrix_of(lambda x: layer(x)[0], shape).detach()
    z = normal(3, *shape)
    x, log_det = layer.inverse(z)
    assert torch.allclose(x.flatten(1), torch.linalg.solve(matrix, z.flatten(1).T).T, atol=1e-10)
    assert torch.allclose(-log_det, torch.linalg.slogdet(matrix)[1], atol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_autoregressive_convolution_is_triangular_in_raster_order(reverse):
    layer = lk.testing.randomize(transforms.AutoregressiveConv(2, 3, reverse=reverse).double())
    matrix = matrix_of(lambda x: layer(x)[0], (2, 3, 4)).detach()
    # Pixels first, then channels.
    order = torch.arange(24).reshape(2, 12).T.flatten()
    matrix = matrix[order][:, order]
    assert float((matrix.tril(-1) if reverse else matrix.triu(1)).abs().max()) == 0
    assert float((matrix.triu(1) if reverse else matrix.tril(-1)).abs().max()) > 0.1


def test_which_pixels_are_read():
    for kernel_size, expected in ((2, {(1, 1), (1, 2), (2, 1), (2, 2)}), (3, {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)})):
        x = normal(1, 1, 5, 5).requires_grad_()
        (grad,) = torch.autograd.grad(transforms.AutoregressiveConv(1, kernel_size).double()(x)[0][0, 0, 2, 2], x)
        assert {tuple(place) for place in grad[0, 0].nonzero().tolist()} == expected


@pytest.mark.parametrize(("kernel_size", "reverse"), [(2, False), (3, True), ((2, 3), True), ((1, 3), False)])
def test_gradients_through_the_inverse_are_those_of_a_dense_solve(kernel_size, reverse):
    layer = lk.testing.randomize(transforms.AutoregressiveConv(2, kernel_size, reverse=reverse).double())
    z, upstream = normal(2, 2, 3, 4).requires_grad_(), normal(2, 2, 3, 4)
    leaves = [z, *layer.parameters()]
    matrix = matrix_of(lambda x: layer(x)[0], (2, 3, 4))
    dense = torch.linalg.solve(matrix, z.flatten(1).T).T.reshape(z.shape)
    log_det = -torch.linalg.slogdet(matrix)[1]
    expected = torch.autograd.grad((dense * upstream).sum() + 2 * log_det, leaves)
    x, contribution = layer.inverse(z)
    found = torch.autograd.grad((x * upstream).sum() + contribution.sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("kernel_size", "reverse"), [(2, False), ((2, 3), True)])
def test_derivatives_through_the_inverse_of_second_order_and_in_forward_mode(kernel_size, reverse):
    layer = lk.testing.randomize(transforms.AutoregressiveConv(2, kernel_size, reverse=reverse).double())
    names = [name for name, _ in layer.named_parameters()]

    class Inverse(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, z):
            return self.layer.inverse(z)[0]

    def function(z, *values):
        given = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Inverse(), given, (z,))

    inputs = (normal(1, 2, 2, 3).requires_grad_(), *layer.parameters())
    assert gradcheck(function, inputs, check_forward_ad=True)
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True)

    def bent(values):
        return function(inputs[0].detach(), *values).square().sum()

    weights = tuple(p.detach() for p in inputs[1:])
    forwards, backwards = torch.func.jacfwd(torch.func.jacfwd(bent)), torch.func.jacrev(torch.func.jacrev(bent))
    for one, two in zip(forwards(weights)[0], backwards(weights)[0], strict=True):
        assert torch.allclose(one, two, atol=1e-8)


def test_the_inverse_keeps_its_result_and_the_kernel_only():
    layer = transforms.AutoregressiveConv(3)
    z = torch.randn(4, 3, 16, 16).requires_grad_()
    kept = {}

    def look(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().size() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor), transforms.unchecked():
        layer.inverse(z)
    assert z.numel() <= sum(kept.values()) <= z.numel() + 200


def test_a_frozen_autoregressive_inverse_is_the_same_and_passes_gradients_on():
    layer = lk.testing.randomize(lk.emerging_conv(2, 3).double())
    z = normal(2, 2, 4, 4).requires_grad_()
    x, _ = layer.inverse(z)
    with layer.frozen():
        again, _ = layer.inverse(z)
        other, _ = layer.inverse(z[:, :, :3])
    assert torch.allclose(again, x, atol=1e-12)
    assert torch.allclose(other, layer.inverse(z[:, :, :3])[0], atol=1e-12)
    one, two = (torch.autograd.grad(value.square().sum(), z)[0] for value in (again, x))
    assert torch.allclose(one, two, atol=1e-10)


def test_autoregressive_inverses_of_no_rows_and_under_vmap():
    layer = lk.testing.randomize(transforms.AutoregressiveConv(2, 3).double())
    assert layer.inverse(normal(0, 2, 3, 3))[0].shape == (0, 2, 3, 3)
    z = normal(3, 2, 3, 4)
    x, _ = layer.inverse(z)
    alone = torch.func.vmap(lambda row: layer.inverse(row[None])[0][0])(z)
    assert torch.allclose(alone, x)
    jacobian = torch.func.jacrev(lambda row: layer.inverse(row[None])[0][0])(z[0]).reshape(24, 24)
    assert torch.allclose(jacobian @ z[0].flatten(), x[0].flatten())
    weights = {name: torch.stack([value, 2 * value]) for name, value in layer.named_parameters()}
    both = torch.func.vmap(lambda given: torch.func.functional_call(lk.Inverse(layer), given, (z,))[0])(
        {f"transform.{name}": value for name, value in weights.items()}
    )
    assert torch.allclose(both[0], x)
    assert not torch.allclose(both[1], x, atol=1e-3)


def test_sets_of_pixels_that_depend_on_each_other_are_never_solved_together():
    for kernel_size in KERNELS:
        layer = transforms.AutoregressiveConv(1, kernel_size)
        order = emerging.Order(layer.left, reverse=False, upper=False)
        prepared = emerging.prepare_kernel(layer.kernel(), order)
        step = prepared.step
        for row in range(layer.rows + 1):
            for column in range(-layer.left, layer.right + 1 if row else 0):
                assert 1 <= row * step - column <= prepared.reach


def test_settings_of_autoregressive_convolutions():
    for kernel_size, error in ((1, ConfigError), (0, ConfigError), ((1, 1), ConfigError), ((2, 2, 2), ShapeError)):
        with pytest.raises(error, match="kernel"):
            transforms.AutoregressiveConv(2, kernel_size)
    with pytest.raises(ShapeError, match="height, width"):
        transforms.AutoregressiveConv(2)(torch.ones(3, 2, 4))
    with pytest.raises(ShapeError, match="2 channels"):
        lk.emerging_conv(2).inverse(torch.ones(3, 3, 4, 4))
