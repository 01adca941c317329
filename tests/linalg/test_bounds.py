import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likelify as lk
from likelify.errors import ShapeError
from likelify.linalg.bounds import (
    _plain_torus_bound,
    correlation_bound,
    exp_tail,
    gram_bound,
    limit_norm,
    outward_bound,
    reshape_bound,
    series_degree,
    tight_bound,
    torus_bound,
)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 4),
    taps=st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from([1, 3, 5])),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kind=st.sampled_from(["random", "smooth", "one tap", "tiny", "zero"]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_bounds_are_never_below_the_true_norm(channels, taps, size, kind, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    kernel = torch.randn(channels, channels, *taps, dtype=torch.float64, generator=generator)
    if kind == "smooth":
        kernel = kernel.abs()
    if kind == "one tap":
        kernel = torch.zeros_like(kernel).index_put((torch.tensor(0),) * 4, torch.tensor(1.0).double())
    kernel = kernel * {"tiny": 1e-18, "zero": 0.0}.get(kind, 1.0)
    kernel = kernel.to(dtype)
    matrix = lk.ConvMap(kernel.double()).materialize((channels, *size))
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    for bound in (reshape_bound, torus_bound):
        assert float(bound(kernel)) >= norm


def test_the_torus_bound_is_tight_and_the_reshape_bound_is_not_too_loose():
    kernel = torch.randn(8, 8, 3, 3, dtype=torch.float64)
    norm = float(torch.linalg.matrix_norm(lk.ConvMap(kernel).materialize((8, 10, 10)), 2))
    assert norm <= float(torus_bound(kernel)) < 1.15 * norm
    assert norm <= float(reshape_bound(kernel)) < 2.4 * norm


@pytest.mark.parametrize("shape", [(2, 30, 3, 3), (30, 2, 5, 1), (3, 3, 1, 3), (4, 3, 5, 5)])
def test_the_bound_of_the_correlation_is_an_upper_bound_and_near_the_other_one(shape):
    kernel = torch.randn(*shape, dtype=torch.float64)
    found, other = float(correlation_bound(kernel)), float(torus_bound(kernel))
    symbol = torch.fft.fft2(kernel, s=(128, 128)).flatten(2).movedim(-1, 0)
    true = float(torch.linalg.matrix_norm(symbol, 2).max())
    assert true <= found <= 1.12 * true
    assert abs(found / other - 1) < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_torus_bound_of_half_precision_is_a_bound(dtype):
    kernel = torch.randn(2, 2, 3, 3).to(dtype)
    norm = float(torch.linalg.matrix_norm(lk.ConvMap(kernel.double()).materialize((2, 8, 8)), 2))
    for bound in (torus_bound, tight_bound):
        found = bound(kernel)
        assert found.dtype == dtype
        assert norm <= float(found) < 1.2 * norm
    layer = lk.conv_exponential(2, norm_limit=0.1, norm_bound="torus")
    half = copy.deepcopy(layer).to(dtype)
    x = torch.randn(3, 2, 4, 4)
    z, _ = half(x.to(dtype))
    torch.testing.assert_close(z.float(), layer(x)[0], rtol=0.05, atol=0.05)
    z.float().square().sum().backward()
    assert torch.isfinite(half.parametrization.weight.grad).all()


@pytest.mark.parametrize("size", [1e-44, 1e-39, 1e-30, 1e25])
def test_bounds_hold_at_the_ends_of_the_floating_range(size):
    kernel = size * torch.rand(2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    matrix = lk.ConvMap(kernel.double() / size).materialize((2, 8, 8))
    norm = size * float(torch.linalg.matrix_norm(matrix, 2))
    for bound in (torus_bound, tight_bound, correlation_bound, reshape_bound, lambda k: _plain_torus_bound(k, 5)):
        found = float(bound(kernel))
        assert norm <= found < math.inf
        assert found < 3 * norm or size < 1e-37


def test_the_bound_of_the_correlation_of_zeros_has_a_gradient():
    kernel = torch.zeros(2, 3, 3, 3, requires_grad=True)
    bound = correlation_bound(kernel)
    assert float(bound.detach()) == 0
    assert torch.isfinite(torch.autograd.grad(bound, kernel)[0]).all()


def test_bounds_are_differentiable_everywhere_also_at_zero():
    kernel = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    for bound in (reshape_bound, torus_bound):
        assert torch.autograd.gradcheck(bound, kernel)
    zero = torch.zeros(2, 2, 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(reshape_bound(zero), zero)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize("shape", [(3, 3, 3, 3), (2, 5, 3, 1), (5, 2, 1, 3), (2, 2, 3), (2, 2, 3, 1, 3)])
def test_the_search_for_the_largest_frequency_finds_what_the_plain_formula_finds(shape):
    """One of the two is what `torch.compile` and `torch.func` see."""
    torch.manual_seed(0)
    kernel = torch.randn(*shape, dtype=torch.float64)
    for leaf in (kernel, 1e-9 * kernel, kernel.abs() + 0.1 * kernel):
        leaf.requires_grad_()
        found, plain = torus_bound(leaf), _plain_torus_bound(leaf, 5)
        assert torch.allclose(found, plain, rtol=1e-12)
        ours, theirs = (torch.autograd.grad(bound, leaf)[0] for bound in (found, plain))
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))
    if kernel.numel() < 20:
        assert torch.autograd.gradgradcheck(torus_bound, kernel)


def test_frequencies_that_cannot_be_the_largest_are_left_out():
    counts: list[int] = []
    kernel = torch.ones(4, 4, 3, 3) + 0.1 * torch.randn(4, 4, 3, 3)
    expected = _plain_torus_bound(kernel, 5)

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.baddbmm:
                counts.append(len(args[0]))
            return function(*args, **(kwargs or {}))

    with Watched():
        found = torus_bound(kernel)
    assert torch.allclose(found, expected)
    assert (counts[0], counts[-1]) == (144, 1)


def test_a_bound_that_is_enough_is_not_made_tighter():
    kernel = torch.randn(3, 3, 3, 3, requires_grad=True)
    cheap, tight = float(outward_bound(kernel.detach())), float(torus_bound(kernel.detach()))
    assert tight < cheap
    loose = tight_bound(kernel, enough=1.01 * cheap)
    assert cheap <= float(loose) <= 1.01 * cheap
    assert not loose.requires_grad
    found = tight_bound(kernel, enough=0.99 * tight)
    assert float(found.detach()) == pytest.approx(tight)
    assert found.requires_grad
    # One channel, one tap: the cheap bound is exact, and the grid loses a little.
    single = torch.full((1, 1, 3, 3), 0.0).index_put((torch.tensor(0),) * 4, torch.tensor(1.0)).requires_grad_()
    assert float(tight_bound(single).detach()) <= float(torus_bound(single).detach())


def test_gram_bound_of_tall_wide_and_batched_matrices():
    for shape in ((5, 2), (2, 5), (3, 4, 4)):
        matrix = torch.randn(*shape, dtype=torch.float64)
        exact = torch.linalg.matrix_norm(matrix, 2)
        bound = gram_bound(matrix, steps=8)
        assert bool((bound >= exact).all())
        assert bool((bound <= 1.01 * exact).all())


@pytest.mark.parametrize("norm", [0.0, 0.3, 0.9, 2.0, 7.0])
def test_the_tail_bounds_what_the_series_leaves_out(norm):
    for degree in range(30):
        left_out = sum(norm**k / math.factorial(k) for k in range(degree + 1, 120))
        assert exp_tail(norm, degree) >= left_out * (1 - 1e-12)
    degree = series_degree(norm, 1e-6, 100)
    assert exp_tail(norm, degree) <= 1e-6
    assert degree == 0 or exp_tail(norm, degree - 1) > 1e-6


def test_the_published_degrees():
    # convexp: norm 0.9 needs 7, 9 and 14 terms for these tolerances (facts/exponential-engine, section 2).
    assert [series_degree(0.9, tol, 100) for tol in (1e-4, 1e-6, 1e-12)] == [7, 9, 14]


def test_even_kernels_are_refused_with_the_reason():
    with pytest.raises(ShapeError, match="no centre"):
        lk.ConvMap(torch.zeros(2, 2, 2, 3))
    with pytest.raises(ShapeError, match="no centre"):
        lk.conv_exponential(2, kernel_size=4)


def test_a_limited_row_does_not_depend_on_how_many_there_are():
    kernels = torch.randn(40, 4, 4)
    limited = limit_norm(kernels, gram_bound(kernels), 1.0)
    assert torch.equal(limit_norm(kernels[:1], gram_bound(kernels[:1]), 1.0), limited[:1])


def test_second_derivatives_of_a_limited_matrix_of_zeros_are_finite():
    zero = torch.zeros(2, 2, dtype=torch.float64)
    hessian = torch.autograd.functional.hessian(lambda m: limit_norm(m, gram_bound(m), 1.0).square().sum() / 2, zero)
    torch.testing.assert_close(hessian.reshape(4, 4), torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_matrix_of_zeros_has_the_bound_zero_and_derivatives_of_two_orders():
    matrix = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    assert gram_bound(matrix).item() == 0
    assert gram_bound(torch.stack([torch.zeros(3, 3), torch.eye(3)])).tolist() == [0, pytest.approx(1, rel=0.05)]
    assert gram_bound(torch.full((2, 2), torch.nan)).isnan()
    hessian = torch.autograd.functional.hessian(gram_bound, matrix)
    assert bool(torch.isfinite(hessian).all())
