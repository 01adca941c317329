"""The power series: degrees that adapt, steps of large norms, static degrees where nobody may look."""

import torch

import likelify as lk
from tests.linalg.reference import apply_exponential, exponential


def test_the_degree_adapts_to_the_batch_unless_nobody_may_look():
    matrix = torch.diag(torch.tensor([0.9, 0.0, -0.9])).double()
    easy, hard = torch.tensor([[0.0, 1.0, 0.0]]).double(), torch.tensor([[1.0, 0.0, 0.0]]).double()
    declared = lk.Function(lambda x: x @ matrix.T, norm=0.9)
    for map_ in (declared, lk.Dense(matrix)):
        low, high = (lk.exp_action(map_, x, method="series").diagnostics.degree for x in (easy, hard))
        assert low < high <= 14
    degrees = []

    def traced(row):
        action = lk.exp_action(declared, row[None])
        degrees.append(action.diagnostics.degree)
        return action.value

    torch.func.vmap(traced)(torch.cat([easy, hard]))
    assert degrees == [14]


def test_large_norms_are_taken_in_steps_in_float32():
    skew = torch.randn(6, 6)
    skew = skew - skew.T
    skew = 40 * skew / torch.linalg.matrix_norm(skew, 2)
    x = torch.randn(4, 6)
    action = lk.exp_action(lk.Dense(skew), x, method="series")
    assert len(action.diagnostics.degrees) >= 13
    reference = apply_exponential(lk.Dense(skew.double()), x)
    assert float((action.value - reference).abs().max()) < 1e-4
    back = lk.exp_action(-lk.Dense(skew), action.value, method="series").value
    assert float((back - x).abs().max()) < 1e-4


def test_static_degrees_work_under_vmap_and_compile():
    layer = lk.conv_exponential(2)
    x = torch.randn(3, 2, 4, 4)
    expected, log_det = layer(x)
    value, det = torch.func.vmap(lambda image: layer(image[None]))(x)
    assert torch.allclose(value[:, 0], expected, atol=1e-6)
    assert torch.allclose(det[:, 0], log_det, atol=1e-6)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x)[0], expected, atol=1e-6)


def test_small_maps_over_long_times_keep_their_digits():
    matrix = torch.randn(5, 5) / 5
    x = torch.randn(3, 5)
    exact = x.double() @ exponential(2 * matrix.double()).T
    for scale in (1e-4, 1e-8, 1e-20):
        value = lk.exp_action(lk.Dense(matrix * scale), x, time=2 / scale, method="series").value
        assert float((value - exact).abs().max()) < 1e-5


def test_layers_with_a_norm_limit_compile_and_vectorize():
    x = torch.randn(3, 2, 4, 4)
    for layer in (
        lk.conv_exponential(2, norm_bound="torus", norm_limit=0.9),
        lk.dense_exponential(2, norm_limit=1.0),
        lk.orthogonal_convolution(2, norm_limit=2.0),
    ):
        expected = layer(x)[0]
        torch.compiler.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        assert torch.allclose(compiled(x)[0], expected, atol=1e-5)
        assert torch.allclose(torch.func.vmap(lambda row, layer=layer: layer(row[None])[0][0])(x), expected, atol=1e-5)
