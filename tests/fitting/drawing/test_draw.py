"""Samples in chunks: seeds, labels, and what is refused."""

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError
from likelify.fitting.drawing import draw as module
from likelify.fitting.drawing.draw import chunk_items, draw, draw_chunks, label_cycle
from tests.fitting.toys import stripes, tiny_flow


@pytest.fixture(scope="module")
def flow():
    return tiny_flow(classes=3)


def test_each_chunk_has_a_seed_of_its_own(flow):
    parts = list(draw_chunks(flow, 23, 10, labels=[0, 2], seed=5))
    assert [len(part) for part in parts] == [10, 10, 3]
    assert not torch.equal(parts[0].x, parts[1].x)
    again = list(draw_chunks(flow, 20, 10, labels=[0, 2], seed=5))
    assert all(torch.equal(one.x, other.x) for one, other in zip(parts, again, strict=False))
    other = next(draw_chunks(flow, 10, 10, labels=[0, 2], seed=6))
    assert not torch.equal(parts[0].x, other.x)


def test_labels_go_on_in_turn_from_chunk_to_chunk(flow):
    labels = torch.cat([part.labels for part in draw_chunks(flow, 8, 3, labels=[2, 0])])
    assert labels.tolist() == [2, 0, 2, 0, 2, 0, 2, 0]


def test_the_callers_random_state_is_left_alone(flow):
    before = torch.get_rng_state()
    list(draw_chunks(flow, 5, 2, labels=[0]))
    assert torch.equal(before, torch.get_rng_state())


def test_all_at_once_is_the_same_as_in_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 20)
    flow = lk.Flow(lk.Normal((4,)), lk.ActNorm(4))
    assert chunk_items((4,)) == 5
    parts = torch.cat([part.x for part in draw_chunks(flow, 12, 5, seed=1)])
    assert torch.equal(draw(flow, 12, seed=1), parts)


def test_how_much_was_drawn_is_said(flow):
    shares = []
    list(draw_chunks(flow, 10, 4, labels=[0], on_share=shares.append))
    assert shares == [0.4, 0.8, 1.0]


def test_classes_are_all_one_or_several_in_turn():
    facts = stripes(labels=True).facts()
    named = facts.model_copy(update={"class_names": ("cat", "dog", "2")})
    assert label_cycle(None, facts, conditional=True) == (0, 1, 2)
    assert label_cycle(1, facts, conditional=True) == (1,)
    assert label_cycle([2, "0"], facts, conditional=True) == (2, 0)
    assert label_cycle(["dog", "2", "0"], named, conditional=True) == (1, 2, 0)
    assert label_cycle(None, facts, conditional=False) is None
    for label, given, message in ((3, facts, "its classes are 0..2"), ([], facts, "No label"), (True, facts, "fit")):
        with pytest.raises(ConfigError, match=message):
            label_cycle(label, given, conditional=True)
    with pytest.raises(ConfigError, match="no class 'cats'. Did you mean 'cat'"):
        label_cycle("cats", named, conditional=True)
    with pytest.raises(ConfigError, match="The label 0 does not fit: this run has no classes"):
        label_cycle([0], facts, conditional=False)
