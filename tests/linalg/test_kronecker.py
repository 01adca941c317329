"""Kronecker sums: their algebra, what they refuse, and their exponentials."""

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg import AxisMatrix, Circulant, ConvMap, KroneckerSum, Toeplitz, kronecker, toeplitz
from likelify.linalg.axis_products import apply_along
from likelify.linalg.maps import Added
from tests.cases import normal
from tests.linalg.reference import apply_exponential


def images(size: tuple[int, int] = (4, 5)) -> tuple[KroneckerSum, torch.Tensor]:
    map_ = KroneckerSum(*(Toeplitz(0.2 * normal(2, 2 * n - 1)) for n in size))
    return map_, normal(3, 4, *size)


def test_a_toeplitz_matrix_is_a_convolution_with_zeros_around():
    taps, x = normal(3, 5), normal(2, 3, 7)
    expected = torch.nn.functional.conv1d(x, taps[:, None], padding=2, groups=3)
    torch.testing.assert_close(Toeplitz(taps).apply(x), expected)
    ring = ConvMap(taps[:, None], "circular", groups=3)
    torch.testing.assert_close(Circulant(taps).apply(x), ring.apply(x))


def test_long_axes_are_filtered_without_forming_matrices(monkeypatch):
    monkeypatch.setattr(toeplitz, "LONG", 3)
    monkeypatch.setattr(kronecker, "LONG", 3)
    for part in (Toeplitz(0.2 * normal(2, 5)), Toeplitz(0.2 * normal(3, 2, 11)), Circulant(0.2 * normal(2, 7))):
        x, map_ = normal(3, 4, 5, 2), KroneckerSum(part)
        torch.testing.assert_close(map_.apply(x), apply_along(part.matrix(5), x, 2))
        action = lk.exp_action(map_, x)
        assert action.diagnostics.method == "series"
        formed = lk.exp_action(map_, x, method="closed-form").value
        torch.testing.assert_close(action.value, formed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("taps", "size"),
    [
        (0.3 * torch.ones(1, 3), (1,)),
        (0.02 * torch.ones(1, 401), (8, 8)),
        (torch.linspace(-0.1, 0.15, 9)[None], (2, 3)),
        (0.1 * torch.ones(1, 7) * torch.tensor([1, -1, 1, -1, 1, -1, 1]), (2,)),
    ],
)
def test_taps_that_go_round_a_ring_count_in_its_bounds(taps, size):
    taps = taps.double()
    map_ = KroneckerSum(*(Circulant(taps) for _ in size))
    event = (1, *size)
    matrix = map_.materialize(event)
    norm, growth = (torch.linalg.matrix_norm(m, 2) for m in (matrix, (matrix + matrix.mT) / 2))
    assert norm <= map_.norm_bound(event)
    assert growth <= map_.growth_bound(event)
    x = normal(3, *event)
    action = lk.exp_action(map_, x, tol=1e-6)
    exact = apply_exponential(map_, x)
    # The sums of taps round too.
    rounding = 1e-12 * exact.flatten(1).norm(dim=1)
    assert bool(((action.value - exact).flatten(1).norm(dim=1) <= action.diagnostics.error_bound + rounding).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [Toeplitz, Circulant])
def test_long_axes_in_half_precision(monkeypatch, kind, dtype):
    map_, x = KroneckerSum(kind(0.01 * normal(2, 5).to(dtype))), normal(3, 4, 7, 2).to(dtype)
    short = map_.apply(x), lk.exp_action(map_, x).value
    monkeypatch.setattr(toeplitz, "LONG", 3)
    monkeypatch.setattr(kronecker, "LONG", 3)
    long = map_.apply(x), lk.exp_action(map_, x).value
    for one, other in zip(short, long, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)


def test_sums_and_multiples_are_kronecker_sums():
    map_, x = images()
    other = KroneckerSum(second=AxisMatrix(normal(1, 5, 5)), channels=AxisMatrix(normal(2, 2, 2)))
    for made, expected in (
        (map_ + other, map_.apply(x) + other.apply(x)),
        (map_ - other, map_.apply(x) - other.apply(x)),
        (-0.7 * map_, -0.7 * map_.apply(x)),
        (map_ * torch.tensor(2.0).double(), 2 * map_.apply(x)),
    ):
        assert isinstance(made, KroneckerSum)
        torch.testing.assert_close(made.apply(x), expected)
        torch.testing.assert_close(lk.exp_action(made, x).value, apply_exponential(made, x), rtol=1e-9, atol=1e-9)


def test_sums_whose_parts_do_not_commute_are_plain_sums():
    map_, x = images()
    mixing = KroneckerSum(channels=AxisMatrix(0.3 * normal(1, 4, 4)))
    made = map_ + mixing
    assert type(made) is Added
    assert type(map_ + ConvMap(normal(4, 4, 3, 3))) is Added
    torch.testing.assert_close(lk.exp_action(made, x).value, apply_exponential(made, x), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("size", "hollow"), [((2, 3), False), ((2, 2), True), ((1, 2), False)])
def test_first_and_second_derivatives_on_images(size, hollow):
    one, other = (normal(1, 2 * n - 1 - hollow).requires_grad_() for n in size)
    x = normal(1, 2, *size).requires_grad_()

    def run(x, one, other):
        built = KroneckerSum(Toeplitz(one, hollow=hollow), Toeplitz(other, hollow=hollow))
        action = lk.exp_action(built, x, time=-0.7)
        assert action.diagnostics.method == "closed-form"
        return action.value

    assert torch.autograd.gradcheck(run, (x, one, other), check_forward_ad=size == (2, 2))
    assert torch.autograd.gradgradcheck(run, (x, one, other))


@pytest.mark.parametrize("size", [(3, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("laid", ["channels last", "spread"])
def test_gradients_in_any_layout(size, laid):
    taps = [(0.2 * normal(2, 2 * n - 1)).requires_grad_() for n in size]
    x, grad = normal(3, 4, *size), normal(3, 4, *size)
    if laid == "spread":
        grad = grad[:1, :1].expand(3, 4, *size)
    z = lk.exp_action(KroneckerSum(*map(Toeplitz, taps)), x).value
    plain = torch.autograd.grad(z, taps, grad.contiguous(), retain_graph=True)
    other = torch.autograd.grad(
        z, taps, grad.contiguous(memory_format=torch.channels_last) if laid != "spread" else grad
    )
    torch.testing.assert_close(plain, other)


@pytest.mark.parametrize("size", [1e-160, 1e-200, 1e-308])
def test_squares_that_vanish_count_in_frobenius_norms(size):
    for map_, event in (
        (KroneckerSum(Toeplitz(torch.full((1, 3), size, dtype=torch.float64))), (1, 3)),
        (lk.Dense(torch.full((3, 3), size, dtype=torch.float64)), (3,)),
        (lk.ConvMap(torch.full((1, 1, 3, 3), size, dtype=torch.float64)), (1, 2, 2)),
    ):
        largest = map_.materialize(event).abs().max()
        assert map_.frobenius_bound(event) >= torch.linalg.matrix_norm(map_.materialize(event) / largest) * largest


def test_the_certificate_holds_at_coarse_tolerances():
    map_, x = images()
    exact = apply_exponential(map_, x)
    found = [lk.exp_action(map_, x, tol=tol) for tol in (1e-1, 1e-3, 1e-9)]
    for action in found:
        assert bool(((action.value - exact).flatten(1).norm(dim=1) <= action.diagnostics.error_bound + 1e-12).all())
    assert found[0].diagnostics.bounds.error() > found[2].diagnostics.bounds.error()


def test_the_certificate_of_the_log_determinant():
    map_, _ = images((2, 3))
    unit = torch.eye(24).double().reshape(24, 4, 2, 3)
    for tol in (1e-1, 1e-3):
        action = lk.exp_action(map_, unit, tol=tol)
        gap = abs(float(torch.linalg.slogdet(action.value.flatten(1))[1] - map_.trace((4, 2, 3))))
        assert gap <= float(torch.as_tensor(action.diagnostics.log_det_error_bound).max()) + 1e-12


def test_frozen_layers_form_it_once():
    map_, x = images()
    layer = lk.Exponential(map_)
    z, log_det = layer(x)
    with layer.frozen():
        for _ in range(2):
            again, same = layer(x)
            torch.testing.assert_close(again, z)
            torch.testing.assert_close(same, log_det)
        torch.testing.assert_close(layer.inverse(z)[0], x)


def test_what_does_not_fit_is_refused_in_words():
    toeplitz = Toeplitz(normal(2, 3))
    with pytest.raises(ConfigError, match="commute only if all channels of a block"):
        KroneckerSum(toeplitz, channels=AxisMatrix(normal(1, 2, 2)))
    with pytest.raises(ConfigError, match="at least one axis"):
        KroneckerSum()
    with pytest.raises(UnsupportedError, match="must be a Toeplitz"):
        KroneckerSum(lk.Dense(normal(2, 2)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="odd number of taps"):
        Toeplitz(normal(2, 4))
    for whole in (Toeplitz, lambda taps: AxisMatrix(taps[:, None, :1]), lambda taps: lk.Dense(taps[:, :1])):
        with pytest.raises(DomainError, match="needs floating numbers"):
            whole(torch.ones(1, 3).long())
    with pytest.raises(DomainError, match="needs floating numbers"):
        lk.ConvMap(torch.ones(1, 1, 3, 3).long())
    with pytest.raises(ShapeError, match="different numbers of rows"):
        KroneckerSum(Toeplitz(normal(2, 1, 3)), Toeplitz(normal(3, 1, 3)))
    with pytest.raises(ShapeError, match="axis 2 of the positions"):
        KroneckerSum(toeplitz, toeplitz).apply(normal(1, 2, 4))
    with pytest.raises(ShapeError, match="2 groups of channels"):
        KroneckerSum(toeplitz).apply(normal(1, 3, 4))
    with pytest.raises(ShapeError, match="made for 2 rows"):
        lk.exp_action(KroneckerSum(Toeplitz(normal(2, 1, 3))), normal(3, 1, 4))
    with pytest.raises(ConvergenceError, match="so the bound is wrong"):
        lk.exp_action(KroneckerSum(Toeplitz(normal(2, 3), norm=0.01)), normal(3, 2, 4))


@pytest.mark.parametrize("kind", [Toeplitz, Circulant])
@pytest.mark.parametrize("symmetry", [None, "skew"])
def test_frobenius_norms_form_no_matrix(kind, symmetry):
    taps = normal(2, 5)
    map_ = kind(taps, symmetry)
    for size in (2, 4, 9):
        exact = map_.matrix(size).square().sum().sqrt() * 2**0.5
        assert float(map_.frobenius_bound((4, size))) == pytest.approx(float(exact), rel=1e-5)
    long = kind(taps, symmetry).frobenius_bound((2, 10**6))
    assert float(long) == pytest.approx(float(map_.effective.norm()) * 1e3, rel=1e-3)
