"""Seeds."""

import torch

import likelify as lk


def test_seeded_repeats_draws_and_restores_the_generator():
    state = torch.get_rng_state()
    with lk.seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with lk.seeded(7):
        assert torch.equal(torch.rand(3), first)
    with lk.seeded(8):
        assert not torch.equal(torch.rand(3), first)
