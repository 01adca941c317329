import pytest
import torch

import likelify as lk


@pytest.fixture(autouse=True)
def _one_thread_and_a_fixed_seed():
    torch.set_num_threads(1)
    with lk.seeded(0):
        yield
