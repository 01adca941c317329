"""Linear layers with a stochastic inverse."""

import pytest
import torch

from likelify.transforms.surjections.linear import linear


@pytest.mark.parametrize("method", ["cayley", "exponential", "householder", "free"])
@pytest.mark.parametrize(("into", "out"), [(3, 2), (2, 3), (3, 3)])
def test_a_layer_is_of_the_dtype_of_its_weight(method, into, out):
    weight = torch.eye(out, into, dtype=torch.float64)
    layer = linear(into, out, method=method, weight=weight)
    x = torch.randn(4, into, dtype=torch.float64)
    assert {tensor.dtype for tensor in layer.parameters()} == {torch.float64}
    torch.testing.assert_close(layer.mean_forward(x), x @ weight.T)
