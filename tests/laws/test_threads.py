"""One thread evaluates inside `frozen()` while another trains: neither notices the other."""

import threading

import pytest
import torch

import likelify as lk
from likelify import testing
from tests.cases import LAYERS


def gradients(layer, x, context):
    """Value, contribution and the gradients of both by all parameters."""
    z, contribution = layer(x, context)
    parameters = [p for p in layer.parameters() if p.requires_grad]
    total = z.sum() + contribution.sum()
    grads = torch.autograd.grad(total, parameters, allow_unused=True) if parameters and total.requires_grad else ()
    return [t.detach() if t is not None else None for t in (z, contribution, *grads)]


def in_thread(run):
    """Call a function in another thread, and wait for it."""
    found, errors = [], []

    def work():
        try:
            with lk.seeded(1):
                found.append(run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not errors, errors
    return found[0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_thread_trains_while_another_is_frozen(name):
    case = LAYERS[name]
    layer = testing.randomize(case.build().double(), scale=case.scale)
    x, context = case.data(), case.context()
    free = in_thread(lambda: gradients(layer, x, context))
    with layer.frozen(), torch.no_grad():
        with lk.seeded(1):
            before = layer(x, context)
        trained = in_thread(lambda: gradients(layer, x, context))
        with lk.seeded(1):
            after = layer(x, context)
    assert [t is None for t in trained] == [t is None for t in free]
    for found, expected in zip((*trained, *after), (*free, *before), strict=True):
        assert found is None or torch.equal(found, expected)
