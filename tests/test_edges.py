import torch

from likelify import edges


def test_blocks_cover_all(monkeypatch):
    assert list(edges.blocks(0)) == []
    monkeypatch.setattr(edges, "BLOCK", 3)
    assert [(some.start, some.stop) for some in edges.blocks(7)] == [(0, 3), (3, 6), (6, 7)]


def test_bridges_are_found_in_every_block(monkeypatch):
    owner, index = torch.tensor([0, 0, 1, 1]), torch.tensor([[0, 1, 2, 1, 3, 0, 3], [1, 2, 3, 0, 2, 3, 2]])
    for size in (1, 2, 100):
        monkeypatch.setattr(edges, "BLOCK", size)
        assert edges.bridges(index, owner).tolist() == [1, 5]
    assert edges.bridges(index[:, :0], owner).tolist() == []
