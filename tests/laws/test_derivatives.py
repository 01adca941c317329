"""Derivatives of every case, where parameters are random and where they are at rest."""

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
    held = () if at == "random" else kinks(layer)
    try:
        return law(layer, x, context, directions=case.directions, held=held)
    except lk.errors.DomainError as error:
        if at in ("zero", "identity") and name.startswith(FREE) and "has lost its full rank" in str(error):
            return [str(error)]
        raise


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name, device):
    assert not derivatives(testing.check_gradients, name, "random", device)


@pytest.mark.parametrize("at", REST)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_where_parameters_are_at_rest(name, at, device):
    derivatives(testing.check_gradients, name, at, device)
