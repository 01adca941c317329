"""Closed forms for tables with many words."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from likelify.distributions import column_fit
from likelify.nets.cells import CellLayout
from likelify.schema import ColumnSchema


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.elements = max(self.elements, found.numel())
        return found


def test_many_words_are_counted_without_a_table_of_rows_and_words(monkeypatch):
    words, rows = 400, 2000
    schema = (ColumnSchema.category("word", tuple(map(str, range(words)))), ColumnSchema(name="size"))
    torch.manual_seed(0)
    cells = torch.zeros(rows, 3, 2).double()
    cells[:, 0, 0] = (torch.rand(rows) ** 3 * words).floor()
    cells[:, 1, 1] = torch.randn(rows) + 3 * (cells[:, 0, 0] == 0)
    layout = CellLayout(schema)
    with Largest() as largest:
        odds = column_fit.log_odds(layout, cells)
    assert largest.elements <= 4 * rows
    met = (cells[:, 0, 0] == torch.arange(len(odds))[:, None]).sum(1) + 0.5
    assert torch.allclose(odds, (met / met.sum()).log().double())
    monkeypatch.setattr(column_fit, "MOST_STATES", 20)
    with Largest() as largest:
        matrix, offset, log_scale = column_fit.ridge(layout, cells)
    assert largest.elements <= 25 * rows
    often = met.argsort(descending=True, stable=True)[:20]
    assert set((matrix[0, 1:] != 0).nonzero()[:, 0].tolist()) == set(often.tolist())
    assert matrix[0, 1] - matrix[0, 2] > 2.5
    assert log_scale.exp().item() == pytest.approx(1, abs=0.1)
    assert offset.isfinite().all()
