"""Derivatives of every case: where parameters are at rest, of second order, in forward mode."""

import pytest

import likelify as lk
from likelify import testing
from tests.cases import LAYERS, kinks

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
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
