"""One thread evaluates inside `frozen()` while another trains: neither notices the other."""

import pytest

from likelify import testing
from tests.cases import LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_a_thread_trains_while_another_is_frozen(name, device):
    testing.check_threads(*LAYERS[name].ready(device=device))
