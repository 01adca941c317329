"""Flowified perceptrons of tables."""

import pytest
import torch

from likelify import zoo
from likelify.errors import ConfigError


def test_table_nets_widen_and_narrow():
    flow = zoo.config_from_dict({"model": "flowified-mlp", "event_shape": (3,), "widths": (8, 2)}).build()
    x = torch.randn(50, 3)
    flow.initialize(x)
    assert flow.base.event_shape == (2,)
    assert flow.elbo(x).value.shape == (50,)
    assert flow.sample((4,)).shape == (4, 3)
    exact = zoo.config_from_dict({"model": "flowified-mlp", "event_shape": (3,), "widths": (3, 2)}).build()
    assert exact.likelihood == "exact"
    assert exact.log_prob(x).shape == (50,)


@pytest.mark.parametrize(("model", "shape"), [("flowified-mlp", (3,)), ("fmlp", (1, 4, 4)), ("fconv1", (1, 4, 4))])
def test_learned_noise_is_normal(model, shape):
    with pytest.raises(ConfigError, match="Learned noise is normal; take noise='normal' or learned_noise=False"):
        zoo.build(model, event_shape=shape, noise="uniform", learned_noise=True)
    zoo.build(model, event_shape=shape, noise="uniform", learned_noise=False)
