"""Seeds."""

import torch

import likelify as lk
from likelify.seeding import chunk_seed, derived_seed


def test_seeded_repeats_draws_and_restores_the_generator():
    state = torch.get_rng_state()
    with lk.seeded(7):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
    with lk.seeded(7):
        assert torch.equal(torch.rand(3), first)
    with lk.seeded(8):
        assert not torch.equal(torch.rand(3), first)


def test_seeds_are_derived_for_each_purpose_and_number():
    found = [derived_seed(seed, what, number) for seed in (0, 1) for what in ("a", "b") for number in range(50)]
    assert len(set(found)) == 200
    assert all(0 <= seed < 2**63 for seed in found)
    assert found[:50] == [derived_seed(0, "a", number) for number in range(50)]
    assert chunk_seed(7, 0) == 7
    assert len({chunk_seed(seed, chunk) for seed in (0, 1, 7) for chunk in range(50)}) == 150
