"""Scores of the tiles of large pictures."""

import numpy as np
import pytest

from likelify.errors import ConfigError
from tests.fitting.scoring.runs import image_run


def test_each_tile_is_scored_as_an_image_of_its_own(tmp_path, monkeypatch):
    run = image_run(tmp_path / "run", monkeypatch)
    photo = np.random.default_rng(0).integers(3, size=(1, 3, 4))
    scores = run.score(photo, tiles=True, draws=2)
    assert scores.carried == {"picture": [0] * 4, "top": [0, 0, 1, 1], "left": [0, 2, 0, 2]}
    tiles = [photo[:, top : top + 2, left : left + 2] for top in (0, 1) for left in (0, 2)]
    alone = run.score(np.stack(tiles), draws=2)
    assert np.array_equal(scores.nats, alone.nats)
    assert np.array_equal(scores.rank, alone.rank)
    with pytest.raises(ConfigError, match="name their file"):
        run.score(tiles=True)
