"""Factorized rectangular maps against their dense matrices."""

import math

import pytest
import torch
import torch.nn.functional as F

from likelify.errors import DomainError
from likelify.linalg.factors import (
    FourierFactors,
    MatrixFactors,
    orthonormal,
    positive_variances,
    principal_maps,
    require_rank,
)
from likelify.linalg.frequencies import kernel_frequencies


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def matrix_of(function, shape):
    """Return the matrix of a linear function of one event."""
    size = math.prod(shape)
    return function(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T


def matrices(groups, out, in_):
    return MatrixFactors(normal(groups, out // groups, in_ // groups))


def convolution(groups, out, in_, taps, positions, dilation=1):
    kernel = normal(out, in_ // groups, *taps)
    return FourierFactors(kernel_frequencies(kernel, positions, groups, dilation))


# Factors, channels in, channels out, positions.
CASES = {
    "square": (lambda: matrices(1, 3, 3), 3, 3, ()),
    "square-groups": (lambda: matrices(2, 4, 4), 4, 4, (3,)),
    "reducing": (lambda: matrices(1, 2, 5), 5, 2, ()),
    "reducing-groups": (lambda: matrices(2, 4, 6), 6, 4, ()),
    "reducing-groups-image": (lambda: matrices(3, 3, 6), 6, 3, (2, 3)),
    "increasing": (lambda: matrices(1, 5, 2), 2, 5, (2,)),
    "increasing-groups": (lambda: matrices(2, 6, 2), 2, 6, ()),
    "conv-square-even": (lambda: convolution(1, 2, 2, (3,), (4,)), 2, 2, (4,)),
    "conv-square": (lambda: convolution(1, 2, 2, (3, 5), (4, 3)), 2, 2, (4, 3)),
    "conv-reducing-odd": (lambda: convolution(1, 2, 3, (3,), (5,)), 3, 2, (5,)),
    "conv-reducing": (lambda: convolution(1, 1, 3, (3, 3), (3, 4)), 3, 1, (3, 4)),
    "conv-reducing-groups": (lambda: convolution(2, 2, 4, (3,), (7,), 2), 4, 2, (7,)),
    "conv-increasing": (lambda: convolution(1, 3, 2, (3, 1), (4, 3)), 2, 3, (4, 3)),
    "conv-increasing-groups": (lambda: convolution(2, 4, 2, (5,), (3,)), 2, 4, (3,)),
    "conv-volume": (lambda: convolution(1, 1, 2, (3, 1, 3), (2, 2, 3)), 2, 1, (2, 2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_all_is_that_of_the_dense_matrix(name):
    build, in_, out, positions = CASES[name]
    factors = build()
    dense = matrix_of(factors.apply, (in_, *positions))
    pseudo = torch.linalg.pinv(dense)
    gram = dense @ dense.T if out <= in_ else dense.T @ dense
    assert abs(float(factors.log_volume(positions) - 0.5 * torch.logdet(gram))) < 1e-9
    inverse = factors.inverse()
    assert torch.allclose(matrix_of(lambda z: factors.times(z, inverse), (out, *positions)), pseudo, atol=1e-9)
    if out == in_:
        assert torch.equal(factors.leverage(positions), torch.ones(in_, dtype=torch.float64))
        assert float(factors.complement(normal(1, in_, *positions)).abs().max()) == 0
        return
    image = pseudo @ dense if out < in_ else dense @ pseudo
    larger = max(in_, out)
    complement = matrix_of(factors.complement, (larger, *positions))
    assert torch.allclose(complement, torch.eye(len(image), dtype=torch.float64) - image, atol=1e-9)
    blocks = factors.sum_blocks(normal(1, larger, *positions)).numel()
    assert blocks * factors.freedom(positions) == round(float(complement.trace()))
    if out < in_:
        leverage = image.diagonal().reshape(in_, -1).mean(1)
        assert torch.allclose(factors.leverage(positions), leverage, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_blocks_have_complements_of_their_own(name):
    """What `sum_blocks` adds up stays together under the complement, and nothing else does."""
    build, in_, out, positions = CASES[name]
    if in_ == out:
        return
    factors, larger = build(), max(in_, out)
    unit = torch.zeros(1, larger, *positions, dtype=torch.float64)
    unit.view(-1)[0] = 1
    seen = factors.sum_blocks(factors.complement(unit).square())
    assert float(seen.flatten()[0]) > 1e-6
    assert float(seen.flatten()[1:].abs().sum()) < 1e-20
    assert factors.mean_blocks(normal(1, factors.groups, *positions)).shape == seen.shape


@pytest.mark.parametrize(
    ("dims", "groups", "dilation", "taps"), [(1, 1, 1, 3), (1, 2, 2, 5), (2, 1, 1, 3), (2, 2, 2, 3), (3, 1, 1, 3)]
)
def test_frequencies_are_those_of_the_circular_convolution_of_torch(dims, groups, dilation, taps):
    layer = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[dims - 1]
    padding = dilation * (taps - 1) // 2
    torch_layer = layer(
        4, 2, taps, padding=padding, dilation=dilation, groups=groups, padding_mode="circular", bias=False
    ).double()
    positions = (5, 4, 6)[:dims]
    factors = FourierFactors(kernel_frequencies(torch_layer.weight, positions, groups, dilation))
    x = normal(2, 4, *positions)
    assert torch.allclose(factors.apply(x), torch_layer(x), atol=1e-12)


def test_a_kernel_larger_than_the_image_wraps_round_it():
    kernel, x = normal(1, 2, 7), normal(1, 2, 3)
    expected = sum(kernel[0, :, 3 + s] @ x[0].roll(-s, -1) for s in range(-3, 4))
    factors = FourierFactors(kernel_frequencies(kernel, (3,)))
    assert torch.allclose(factors.apply(x)[0, 0], expected, atol=1e-12)


def test_the_valid_part_is_that_of_an_ordinary_convolution():
    kernel, x = normal(2, 3, 5), normal(4, 3, 11)
    factors = FourierFactors(kernel_frequencies(kernel, (11,)))
    assert torch.allclose(factors.apply(x)[:, :, 2:-2], F.conv1d(x, kernel), atol=1e-12)


def test_pseudo_inverses_of_badly_conditioned_maps_in_single_precision():
    """A Gram matrix would have lost all digits: its condition number is 1e8."""
    left, right = orthonormal(20, 20), orthonormal(20, 30)
    weight = left @ (torch.logspace(0, -4, 20)[:, None] * right)
    factors = MatrixFactors(weight[None])
    z = torch.randn(10, 20)
    again = factors.apply(factors.times(z, factors.inverse()))
    assert float((again - z).abs().max()) < 1e-2
    assert abs(float(factors.log_volume(())) + 2 * 20 * math.log(10)) < 1e-2


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 2)])
def test_maps_without_full_rank_are_refused(shape):
    weight = torch.ones(1, *shape, dtype=torch.float64)
    for change in (0.0, 1e-12, math.nan):
        changed = weight.clone()
        changed[0, 0, 0] += change
        with pytest.raises(DomainError, match="full rank"):
            MatrixFactors(changed)
    with pytest.raises(DomainError, match="full rank.*singular values"):
        require_rank(weight, "It")
    with pytest.raises(DomainError, match="not finite"):
        require_rank(weight * math.nan, "It")
    changed = weight.clone()
    changed[0, 0, 0] += 1e-2
    MatrixFactors(changed)
    require_rank(changed, "It")


def test_rows_of_very_different_lengths_have_full_rank():
    factors = MatrixFactors(torch.tensor([[[1e-8, 0.0, 0.0], [0.0, 1.0, 1.0]]]))
    assert abs(float(factors.log_volume(()).exp()) - 1.4142135e-8) < 1e-13


def test_tracing_does_not_look_at_values():
    def volume(blocks):
        return MatrixFactors(blocks).log_volume(())

    blocks = torch.cat([normal(2, 1, 2, 4), torch.ones(1, 1, 2, 4, dtype=torch.float64)])
    volumes = torch.vmap(volume)(blocks)
    assert torch.allclose(volumes[:2], torch.stack([volume(b) for b in blocks[:2]]))
    assert float(volumes[2]) < -20


@pytest.mark.parametrize("build", [lambda w: MatrixFactors(w), lambda w: FourierFactors(_frequencies(w))])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2, 2)])
def test_gradients(build, shape):
    larger = max(shape)

    def function(weight, x, y):
        factors = build(weight[None])
        inverse = factors.times(factors.apply(x), factors.inverse())
        return (
            factors.log_volume((4,)),
            factors.complement(y),
            inverse + factors.times(y[:, : shape[0]], factors.inverse()),
        )

    inputs = (normal(*shape), normal(2, shape[1], 4), normal(2, larger, 4))
    assert torch.autograd.gradcheck(function, tuple(v.requires_grad_() for v in inputs))


def _frequencies(weight):
    """A kernel of three taps made of one matrix."""
    kernel = torch.stack([0.3 * weight[0], weight[0], 0.2 * weight[0].roll(1, 1)], -1)
    return kernel_frequencies(kernel, (4,))


def test_principal_maps_whiten():
    x = normal(500, 4, 2) * torch.tensor([3.0, 0.1, 1.0, 2.0], dtype=torch.float64)[:, None] + 5
    x[:, 1] += x[:, 0]
    for out in (1, 2):
        maps, deviations = principal_maps(x, 2, out)
        assert torch.allclose(deviations, x.movedim(1, -1).flatten(0, 1).std(0, correction=0))
        z = MatrixFactors(maps).apply(x).movedim(1, -1).flatten(0, 1)
        for group in z.unflatten(1, (2, out)).movedim(1, 0):
            assert torch.allclose(group.T.cov(correction=0), torch.eye(out, dtype=torch.float64), atol=1e-9)
    leading, _ = principal_maps(x, 1, 1)
    values = torch.linalg.eigvalsh(x.movedim(1, -1).flatten(0, 1).T.cov(correction=0))
    assert abs(float(leading.norm()) - float(values[-1]) ** -0.5) < 1e-9
    wide, _ = principal_maps(x, 2, 5)
    assert wide.shape == (2, 5, 2)
    z = MatrixFactors(wide).complement(MatrixFactors(wide).apply(x))
    assert float(z.abs().max()) < 1e-9


def test_constant_data_do_no_harm():
    maps, deviations = principal_maps(torch.ones(5, 3), 1, 2)
    assert bool(torch.isfinite(maps).all())
    assert bool((deviations > 0).all())
    assert torch.equal(positive_variances(torch.tensor([0.0, 4.0])), torch.tensor([2e-6, 4.0]))
