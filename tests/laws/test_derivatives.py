"""Derivatives of every case: where parameters are at rest, of second order, in forward mode."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import testing
from likelify.errors import UnsupportedError
from tests.cases import LAYERS, kinks

REST = ["fresh", "zero", "identity"]
# Linear layers with a free weight have no inverse at zero, and some none where parts of it are half of an identity.
FREE = ("flowified", "free-linear", "circular-conv", "periodic-conv")


def derivatives(law, name, at, device):
    """Run a law on a case; return what was refused."""
    case = LAYERS[name]
    layer, x, context = case.ready(at, device=device)
    held = () if at == "random" else kinks(layer, 1 if law is testing.check_gradients else 2)
    try:
        return law(layer, x, context, directions=case.directions, held=held)
    except lk.errors.DomainError as error:
        if at in ("zero", "identity") and name.startswith(FREE) and "has lost its full rank" in str(error):
            return [str(error)]
        raise


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name, device):
    assert not derivatives(testing.check_gradients, name, "random", device)


@pytest.mark.parametrize("at", [at if at != "identity" else pytest.param(at, marks=pytest.mark.slow) for at in REST])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_where_parameters_are_at_rest(name, at, device):
    derivatives(testing.check_gradients, name, at, device)


@pytest.mark.parametrize("name", LAYERS)
def test_second_order(name, device):
    assert not derivatives(testing.check_second_order, name, "random", device)


@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode(name, device):
    refused = derivatives(testing.check_forward_mode, name, "random", device)
    # An estimate of a log-determinant stops where its values tell it to.
    assert bool(refused) == (LAYERS[name].covers is lk.LipschitzResidual and "roulette" in name)


@pytest.mark.slow
@pytest.mark.parametrize("at", REST)
@pytest.mark.parametrize("name", LAYERS)
def test_second_order_where_parameters_are_at_rest(name, at, device):
    derivatives(testing.check_second_order, name, at, device)


@pytest.mark.slow
@pytest.mark.parametrize("at", REST)
@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode_where_parameters_are_at_rest(name, at, device):
    derivatives(testing.check_forward_mode, name, at, device)


class Refusing(lk.Transform):
    """Refuses, and names something inside of it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, x, context=None):
        if torch.is_grad_enabled():
            raise UnsupportedError("There is a Linear in it.")
        return x, torch.zeros(len(x))

    inverse = forward


def test_a_refusal_that_names_a_network_only_does_not_count():
    with pytest.raises(AssertionError, match="without naming the layer"):
        testing.check_second_order(Refusing(), torch.ones(2, 2), directions=["forward"])
