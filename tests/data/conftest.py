"""What several tests of data share."""

import numpy as np
import pytest


@pytest.fixture
def fits(monkeypatch):
    """Return a list of the columns of every least-squares fit; how long these take is the machine's affair."""
    found, fit = [], np.linalg.lstsq

    def counted(matrix, *more, **named):
        found.append(matrix.shape[1])
        return fit(matrix, *more, **named)

    monkeypatch.setattr(np.linalg, "lstsq", counted)
    return found
