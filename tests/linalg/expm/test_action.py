"""The door: all methods agree, the rule chooses as documented, and what cannot work is refused."""

import math
from unittest import mock

import pytest
import torch

import likelify as lk
from likelify import linalg, testing
from likelify.errors import ConfigError, ConvergenceError, DomainError, ShapeError, UnsupportedError
from likelify.linalg.expm import recorded, series
from tests.cases import normal
from tests.linalg.reference import apply_exponential

METHODS = {
    "dense": (lambda: lk.Dense(0.4 * normal(4, 4)), (4,), ("series", "polynomial", "dense"), "polynomial"),
    "skew": (lambda: lk.Skew(normal(4, 4)), (4, 2), ("series", "chebyshev", "polynomial", "dense"), "polynomial"),
    "skew-small": (lambda: lk.Skew(normal(9, 9)), (9,), ("series", "chebyshev", "polynomial"), "polynomial"),
    "skew-wide": (lambda: lk.Skew(0.3 * normal(65, 65)), (65,), ("series", "chebyshev", "polynomial"), "chebyshev"),
    "conv": (lambda: lk.ConvMap(0.3 * normal(2, 2, 3, 3)), (2, 4, 3), ("series", "dense"), "series"),
    "skew-conv": (
        lambda: lk.ConvMap(normal(2, 2, 3, 3), symmetry="skew"),
        (2, 4, 3),
        ("series", "chebyshev", "dense"),
        "chebyshev",
    ),
    "circular": (
        lambda: lk.ConvMap(0.3 * normal(4, 2, 3, 3), padding="circular", groups=2),
        (4, 4, 3),
        ("series", "dense", "fourier"),
        "series",
    ),
    "circular-sequence": (
        lambda: lk.ConvMap(0.5 * normal(2, 2, 5), padding="circular"),
        (2, 2),
        ("series", "fourier"),
        "series",
    ),
    "diagonal": (lambda: linalg.Diagonal(normal(3)), (3, 2), ("series", "chebyshev", "closed-form"), "closed-form"),
    "set": (
        lambda: linalg.SetMap(0.4 * normal(2, 2), 0.4 * normal(2, 2)),
        (2, 5),
        ("series", "dense", "closed-form"),
        "closed-form",
    ),
    "sum": (
        lambda: lk.Dense(normal(3, 3), "symmetric") + 0.5 * linalg.Diagonal(normal(3)),
        (3,),
        ("series", "chebyshev", "dense"),
        "chebyshev",
    ),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("time", [1.0, -0.6])
def test_all_methods_agree_and_the_rule_chooses_as_documented(name, time):
    build, shape, methods, chosen = METHODS[name]
    map_, x = build(), normal(5, *shape)
    exact = apply_exponential(map_, x, time)
    assert lk.exp_action(map_, x, time=time).diagnostics.method == chosen
    for method in methods:
        action = lk.exp_action(map_, x, time=time, method=method)
        assert action.diagnostics.method == method
        error = (action.value - exact).flatten(1).norm(dim=1)
        allowed = action.diagnostics.error_bound + action.diagnostics.round_off_allowance * x.flatten(1).norm(dim=1)
        assert bool((error <= allowed).all())


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_all_methods_and_strategies_agree(name):
    build, shape, methods, _ = METHODS[name]
    map_, x, upstream = build(), normal(3, *shape).requires_grad_(), normal(3, *shape)
    leaves = {key: tensor.requires_grad_() for key, tensor in map_.tensors().items()}
    value = apply_exponential(map_.with_tensors(leaves), x)
    expected = torch.autograd.grad(value, [x, *leaves.values()], upstream)
    for method in methods:
        strategies = (
            (linalg.Stored(), linalg.Recompute(), linalg.Unrolled()) if method in ("series", "chebyshev") else (None,)
        )
        for strategy in strategies:
            action = lk.exp_action(map_.with_tensors(leaves), x, method=method, gradient=strategy)
            found = torch.autograd.grad(action.value, [x, *leaves.values()], upstream)
            for mine, other in zip(found, expected, strict=True):
                assert float((mine - other).abs().max()) < 1e-8 * (1 + float(other.abs().max()))


def test_methods_refuse_what_they_are_not_for():
    x = normal(2, 3, 4, 4)
    conv = lk.ConvMap(0.1 * normal(3, 3, 3, 3))
    for method, hint in (
        ("polynomial", "Dense"),
        ("fourier", "circular"),
        ("adjacency", "GraphMap"),
        ("closed-form", "SetMap"),
        ("chebyshev", "symmetric or skew by construction"),
        ("serie", "Did you mean 'series'"),
    ):
        with pytest.raises(ConfigError, match=hint):
            lk.exp_action(conv, x, method=method)
    with pytest.raises(ConfigError, match="fixed degree"):
        lk.exp_action(conv, x, method="dense", degree=4)
    with pytest.raises(ConfigError, match="fixed degree"):
        lk.exp_action(conv, x.requires_grad_(), gradient=linalg.Stored(), degree=4)


def test_what_does_not_fit_is_refused_with_a_reason():
    x = normal(2, 3)
    dense = lk.Dense(normal(3, 3))
    for error, text, call in (
        (lk.errors.ConfigError, "tol must be", lambda: lk.exp_action(dense, x, tol=0.0)),
        (lk.errors.ConfigError, "at most 150", lambda: lk.exp_action(dense, x, degree=1000)),
        (lk.errors.ShapeError, "rows of events", lambda: lk.exp_action(dense, x[0])),
        (lk.errors.DomainError, "same precision", lambda: lk.exp_action(dense, x.float())),
        (
            lk.errors.ShapeError,
            "different numbers of rows",
            lambda: lk.Dense(normal(2, 3, 3)) + lk.Dense(normal(3, 3, 3)),
        ),
        (lk.errors.ShapeError, "one number", lambda: dense * normal(3)),
        (lk.errors.ConfigError, "positive and finite", lambda: lk.Function(lambda v: v, norm=0.0)),
        (lk.errors.ShapeError, "shape and dtype", lambda: lk.exp_action(lk.Function(lambda v: v[:, :1]), x)),
        (lk.errors.DomainError, "in place", lambda: lk.exp_action(lk.Function(lambda v: v.mul_(0.5)), x)),
        (lk.errors.DomainError, "by itself", lambda: lk.exp_action(lk.Function(lambda v: v / v.abs().max()), x)),
        (
            lk.errors.ShapeError,
            "SetMap on 2",
            lambda: lk.exp_action(linalg.SetMap(normal(2, 2), normal(2, 2)), normal(2, 2, 3, 1)),
        ),
    ):
        with pytest.raises(error, match=text):
            call()
    assert lk.exp_action(dense, x[:0]).value.shape == (0, 3)


def test_hopeless_condition_numbers_are_refused():
    weight = torch.randn(20, 20)
    wild = lk.Dense(50 * weight / torch.linalg.matrix_norm(weight, 2))
    x = torch.randn(2, 20)
    with pytest.raises(ConvergenceError, match="no correct digit in float32"):
        lk.exp_action(wild, x)
    action = lk.exp_action(wild, x, throw=False)
    assert "condition number" in action.diagnostics.problem
    # A large multiple of the identity is harmless; only what is left without it counts.
    assert lk.exp_action(lk.Dense(20 * torch.eye(3)), torch.ones(1, 3)).diagnostics.problem is None


def test_what_cannot_work_is_an_error_that_says_so():
    wild = lk.Dense(1e5 * torch.eye(2))
    with pytest.raises(ConvergenceError, match="no floating format"):
        lk.exp_action(wild, torch.ones(1, 2))
    with pytest.raises(DomainError, match="not finite"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.tensor([[math.nan, 1.0]]))
    with pytest.raises(DomainError, match="too large for torch.float32"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.full((1, 2), 2e38))
    for map_ in (lk.Function(lambda v: 0.1 * v, norm=0.1), lk.Dense(torch.eye(2))):
        with pytest.raises(DomainError, match="input that is not finite"):
            lk.exp_action(map_, torch.tensor([[math.inf, 1.0]]), degree=4 if map_.tensors() else None)
    with pytest.raises(DomainError, match="norm bound of the map is not finite"):
        lk.exp_action(lk.Dense(torch.full((2, 2), math.inf)), torch.ones(1, 2))
    with pytest.raises(DomainError, match="floating"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(1, 2, dtype=torch.long))
    with pytest.raises(ConfigError, match="degree"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(1, 2), degree=-1)
    with pytest.raises(UnsupportedError, match="degree="):
        torch.func.vmap(lambda row: lk.exp_action(lk.Dense(torch.eye(2)), row[None]).value)(torch.ones(3, 2))


def test_with_throw_false_the_diagnostics_say_that_it_failed():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()
    x = torch.ones(1, 2).double()
    with mock.patch.object(series, "MAX_DEGREE", 5):
        action = lk.exp_action(lk.Dense(turn), x, method="series", throw=False)
        assert action.diagnostics.converged is False
        with pytest.raises(ConvergenceError, match="reached degree 5") as caught:
            lk.exp_action(lk.Dense(turn), x, method="series")
    assert caught.value.diagnostics.converged is False


def test_time_is_one_number():
    with pytest.raises(ShapeError, match="one number"):
        lk.exp_action(lk.Dense(torch.eye(2)), torch.ones(2, 2), time=torch.tensor([0.1, 0.2]))


def test_zero_padding_breaks_translation_and_the_exponential_keeps_permutation_symmetry():
    mean = lk.Function(lambda x: x.mean(1, keepdim=True).expand_as(x), norm=1.0)
    x = torch.randn(2, 5, dtype=torch.float64)
    order = torch.randperm(5)
    assert torch.allclose(lk.exp_action(mean, x).value[:, order], lk.exp_action(mean, x[:, order]).value)
    conv = lk.ConvMap(torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9)
    image = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    rolled = lk.exp_action(conv, image.roll(1, 3)).value
    assert not torch.allclose(lk.exp_action(conv, image).value.roll(1, 3), rolled)


def test_translations_commute_with_circular_exponentials_only():
    x = normal(2, 2, 5, 4)
    kernel = 0.3 * normal(2, 2, 3, 3)
    for padding, commutes in (("circular", True), ("zeros", False)):
        map_ = lk.ConvMap(kernel, padding=padding)
        moved = lk.exp_action(map_, x.roll((2, 1), (2, 3))).value
        assert torch.allclose(moved, lk.exp_action(map_, x).value.roll((2, 1), (2, 3))) == commutes


def test_recorded_collects_what_happens_inside():
    with recorded() as outer:
        lk.exp_action(lk.Dense(normal(2, 2)), normal(1, 2))
        with recorded() as inner:
            lk.exp_action(lk.Dense(normal(2, 2)), normal(1, 2))
    assert len(outer) == len(inner) == 1


def test_autocast_does_not_reach_into_exponentials():
    x, layer = torch.randn(2, 2, 4, 4), lk.testing.randomize(lk.conv_exponential(2))
    (z, log_det), map_ = layer(x), layer.map()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, det = layer(x)
        assert torch.equal(lk.exp_action(map_, x).value, z)
    assert torch.equal(inside, z)
    assert torch.equal(det, log_det)


def test_values_are_never_the_input_and_reports_never_of_another_one():
    x = normal(2, 3)
    value = lk.exp_action(lk.Dense(torch.zeros(3, 3, dtype=torch.float64)), x, method="series").value
    assert value.data_ptr() != x.data_ptr()
    diagnostics = lk.exp_action(linalg.Diagonal(normal(3)), x).diagnostics
    x.mul_(2)
    with pytest.raises(lk.errors.StateError, match="was changed"):
        _ = diagnostics.error_bound


@pytest.mark.parametrize("time", [800.0, 1e4])
def test_results_too_small_for_a_number_are_zero_or_refused_in_words(time):
    x = torch.ones(2, 2, dtype=torch.float64)
    coupled = torch.tensor([[-1.0, 0.1], [0.1, -1.0]], dtype=torch.float64)
    for matrix in (coupled, -torch.eye(2).double(), 10 * coupled):
        for build in (lk.Dense, lambda m: lk.Dense(m, "symmetric"), lambda m: lk.Function(lambda x: x @ m.T)):
            for precision in (torch.float32, torch.float64):
                given, map_ = x.to(precision), build(matrix.to(precision))
                for method in ("auto", "series", "dense"):
                    try:
                        lk.exp_action(map_, given, time=time, method=method)
                        action = lk.exp_action(map_, given, time=time, method=method, throw=False)
                    except ConvergenceError:
                        continue
                    assert float(action.value.abs().max()) < 1e-300
                    assert float(action.diagnostics.error_bound.max()) < 1e-300
    # The mean of the diagonal shrinks beyond the format, and the rest brings it back.
    matrix = torch.tensor([[-2.0, 1.9], [1.9, -2.0]], dtype=torch.float64)
    for method in ("series", "polynomial", "chebyshev"):
        value = lk.exp_action(lk.Dense(matrix, "symmetric"), x, time=300.0, throw=False, method=method).value
        assert torch.allclose(value, x * math.exp(-30.0), rtol=1e-10, atol=0)
    with pytest.raises(ConvergenceError, match="factor of e"):
        lk.exp_action(lk.Dense(matrix), x, time=400.0, throw=False)


def test_what_is_no_map_no_tensor_or_no_setting_is_refused():
    map_, x = lk.Dense(torch.eye(3)), torch.ones(2, 3)
    with pytest.raises(UnsupportedError, match="LinearMap"):
        lk.exp_action(torch.eye(3), x)
    with pytest.raises(UnsupportedError, match="torch.Tensor"):
        lk.exp_action(map_, x.numpy())
    with pytest.raises(DomainError, match="float64"):
        lk.exp_action(map_, x.double())
    with pytest.raises(DomainError, match="finite"):
        lk.exp_action(map_, x, time=math.inf)
    with pytest.raises(UnsupportedError, match="Stored"):
        lk.exp_action(map_, x, gradient="stored")


@pytest.mark.parametrize("method", ["auto", "series", "polynomial", "dense", "chebyshev"])
def test_other_channels_are_refused_where_nothing_is_left_of_the_map(method):
    for matrix in (torch.eye(3), torch.zeros(3, 3)):
        for channels in (2, 4):
            with pytest.raises(ShapeError):
                lk.exp_action(lk.Dense(matrix, "symmetric"), torch.ones(5, channels), method=method)
    with pytest.raises(ShapeError):
        lk.exp_action(lk.Dense(torch.eye(3)), torch.ones(5, 2), degree=0)


def test_numbers_near_underflow_contradict_no_bound():
    layer = lk.rotation(64)
    testing.randomize(layer, scale=0.1)
    x = torch.randn(4, 64)
    x[2] = 1e-44 * torch.randn(64)
    z, _ = layer(x)
    torch.testing.assert_close(z[[0, 1, 3]], layer(x[[0, 1, 3]])[0])
    shift = lk.Function(lambda v: 0.6 * v.roll(1, 1), norm=0.6)
    rows = torch.randn(3, 8)
    rows[1] = 1e-45
    assert bool(lk.exp_action(shift, rows).value.isfinite().all())
