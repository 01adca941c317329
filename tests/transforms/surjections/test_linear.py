"""Linear layers with a stochastic inverse."""

import pytest
import torch

from likelify.errors import ConfigError
from likelify.transforms.surjections.linear import linear


@pytest.mark.parametrize("method", ["cayley", "exponential", "householder", "free"])
@pytest.mark.parametrize(("into", "out"), [(3, 2), (2, 3), (3, 3)])
def test_a_layer_is_of_the_dtype_of_its_weight(method, into, out):
    weight = torch.eye(out, into, dtype=torch.float64)
    layer = linear(into, out, method=method, weight=weight)
    x = torch.randn(4, into, dtype=torch.float64)
    assert {tensor.dtype for tensor in layer.parameters()} == {torch.float64}
    torch.testing.assert_close(layer.mean_forward(x), x @ weight.T)


def test_reflections_come_in_pairs_and_layers_start_at_the_identity():
    for method in ("exponential", "cayley", "householder"):
        torch.testing.assert_close(linear(4, 4, method=method).matrix(), torch.eye(4), atol=1e-5, rtol=0)
    for count in (0, 1, 3, -2, 2.5):
        with pytest.raises(ConfigError, match="reflections"):
            linear(4, 4, method="householder", reflections=count)
