"""Linear callables as maps: probes, and the check that they are linear."""

from dataclasses import dataclass

import pytest
import torch

import likelify as lk
from likelify import linalg
from likelify.errors import DomainError, UnsupportedError
from tests.cases import normal


def test_functions_are_probed_in_the_dtype_of_the_input():
    matrix = torch.randn(3, 3, dtype=torch.float64)
    layer = lk.Exponential(lk.Function(lambda x: x @ matrix.T) + lk.Function(lambda x: 0.1 * x))
    _, log_det = layer(torch.randn(2, 3, dtype=torch.float64))
    assert float((log_det - matrix.trace() - 0.3).abs().max()) < 1e-14


def test_function_declares_itself():
    with pytest.raises(UnsupportedError, match="too large"):
        lk.Function(lambda x: x).trace((70, 70))
    with pytest.raises(UnsupportedError, match="Wrap a linear callable"):
        lk.Exponential(lambda x: x)


def test_a_layer_checks_a_function_once_a_call():
    calls = []
    layer = lk.Exponential(lk.Function(lambda v: calls.append(len(v)) or 0.1 * v, norm=0.1))
    layer(normal(50, 3))
    assert sum(length == 6 for length in calls) == 1


def test_functions_that_are_not_linear_are_refused_without_touching_the_random_stream():
    x = normal(3, 4)
    torch.manual_seed(0)
    expected = torch.randn(2)
    torch.manual_seed(0)
    lk.exp_action(lk.Function(lambda v: 0.5 * v, norm=0.5), x)
    assert torch.equal(torch.randn(2), expected)
    with pytest.raises(lk.errors.DomainError, match="affine"):
        lk.exp_action(lk.Function(lambda v: 0.5 * v + 1), x)
    with pytest.raises(lk.errors.DomainError, match="not linear"):
        lk.exp_action(lk.Function(lambda v: v.relu()), x)
    with pytest.raises(lk.errors.DomainError, match="affine"):
        lk.linear_exponential(torch.nn.Linear(4, 4))(x.float())
    assert lk.exp_action(lk.Function(lambda v: v.clamp(-1e9), norm=1.0, trusted=True), x).value.shape == x.shape


def test_what_the_function_itself_refuses_is_a_wrong_shape():
    layer = lk.linear_exponential(torch.nn.Linear(3, 3, bias=False))
    with pytest.raises(lk.errors.ShapeError, match=r"events of shape \(4,\)"):
        layer(torch.zeros(2, 4))


def test_values_at_the_end_of_the_format_are_no_fault():
    matrix = torch.randn(6, 6, dtype=torch.float64) * 5e-324
    lk.Function(lk.Dense(matrix).apply).check_linear(torch.randn(1, 6, dtype=torch.float64))


def test_a_module_with_a_declared_norm_works_in_inference_mode():
    layer = lk.linear_exponential(torch.nn.Conv1d(2, 2, 3, padding=1, bias=False), norm=3.0).double()
    x = normal(4, 2, 6)
    with torch.no_grad():
        expected = layer(x)
    with torch.inference_mode():
        found = layer(x)
        back = layer.inverse(found[0])[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(back, x)


def test_whole_factors_of_a_diagonal_are_refused():
    with pytest.raises(DomainError, match=r"its factors is torch.int64"):
        lk.linalg.Diagonal(torch.tensor([1, 3]))


def test_maps_are_added_divided_and_not_applied_by_operators():
    matrix = torch.randn(3, 3, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64)
    twice = sum([linalg.Dense(matrix), linalg.Dense(matrix)])
    assert torch.allclose(twice.apply(x), 2 * x @ matrix.T)
    assert torch.allclose((linalg.Dense(matrix) / 4).apply(x), x @ matrix.T / 4)
    with pytest.raises(TypeError, match=r"applied to rows of events by map\.apply"):
        linalg.Dense(matrix) @ x
    for wrong in (
        lambda: linalg.Dense(matrix) + 2,
        lambda: linalg.Dense(matrix) * "a",
        lambda: linalg.Dense(matrix) @ 2,
    ):
        with pytest.raises(TypeError, match="operand|multiply"):
            wrong()


def test_a_map_may_hold_whole_numbers_first():
    @dataclass(frozen=True, eq=False)
    class Permuted(linalg.LinearMap):
        index: torch.Tensor

        def apply(self, x):
            return x[:, self.index]

        def adjoint(self):
            return Permuted(torch.argsort(self.index))

        def norm_bound(self, event_shape):
            return 1.0

        def trace(self, event_shape):
            return (self.index == torch.arange(len(self.index))).sum().double()

    order = torch.tensor([2, 0, 1])
    for dtype in (torch.float32, torch.float64):
        matrix, x = 0.1 * torch.randn(3, 3, dtype=dtype), torch.randn(2, 3, dtype=dtype)
        whole = Permuted(order) @ linalg.Dense(matrix)
        assert torch.allclose(whole.materialize(3, like=x), matrix[order])
        z, log_det = lk.Exponential(whole)(x)
        assert torch.allclose(z, x @ torch.linalg.matrix_exp(matrix[order]).T, atol=1e-6)
        assert torch.allclose(log_det, matrix[order].trace().expand(2), atol=1e-6)
