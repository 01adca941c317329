"""One thread evaluates inside `frozen()` while another trains: neither notices the other."""

import pytest
import torch
from torch import nn

import likelify as lk
from likelify import testing
from tests.cases import LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_a_thread_trains_while_another_is_frozen(name, device):
    testing.check_threads(*LAYERS[name].ready(device=device))


class Careless(lk.Transform):
    """Leaves a tensor at itself in the middle of a call, where another thread may put its own."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.full((2,), 0.1, dtype=torch.float64))

    def forward(self, x, context=None):
        self.kept = self.log_scale.exp()
        for _ in range(300):
            torch.zeros(1)
        return self.kept * x, self.kept.log().sum().expand(len(x))


def test_the_law_sees_what_happens_only_while_both_are_at_work():
    def often():
        # A race is a matter of luck; nearly every try meets this one.
        for _ in range(50):
            testing.check_threads(Careless(), torch.ones(2, 2, dtype=torch.float64))

    with pytest.raises(AssertionError):
        often()
