"""Traces by random vectors."""

import math

import pytest
import torch

import likelify as lk
from likelify.errors import ConfigError
from likelify.linalg.trace import estimate_trace
from tests.cases import normal


def test_traces_can_be_estimated_with_their_error():
    map_ = lk.Dense(normal(30, 30) @ torch.diag(0.5 ** torch.arange(30).double()))
    exact = float(map_.trace((30,)))
    for method in ("hutchinson", "hutch++"):
        with lk.seeded(0):
            found = [estimate_trace(map_, (30,), samples=30, method=method, like=normal(1)) for _ in range(60)]
        values = torch.stack([estimate.value for estimate in found])
        errors = torch.stack([estimate.standard_error for estimate in found])
        assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(60)
        assert 0.3 < float(errors.mean() / values.std()) < 3
    for arguments in ({"method": "magic"}, {"samples": 0}, {"samples": 2, "method": "hutch++"}):
        with pytest.raises(ConfigError):
            estimate_trace(map_, (30,), like=normal(1), **arguments)
    with pytest.raises(lk.errors.UnsupportedError, match="one map for all rows"):
        estimate_trace(lk.Dense(normal(2, 3, 3)), (3,), like=normal(1))
