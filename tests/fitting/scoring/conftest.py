"""The run that the tests of scoring share."""

import pytest

from likelify.fitting.scoring import likelihoods, scoring
from tests.fitting.scoring.runs import table_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(likelihoods, "PASS_ITEMS", 16)
    monkeypatch.setattr(scoring, "PART_WORK", 16 * 3 * 2 * 2)
    return table_run(tmp_path / "run", monkeypatch)
