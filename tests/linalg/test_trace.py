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
    for method, few, many in (("hutchinson", 0.75, 1.3), ("hutch++", 0.25, 1.3)):
        with lk.seeded(0):
            found = [estimate_trace(map_, (30,), samples=30, method=method, like=normal(1)) for _ in range(60)]
        values = torch.stack([estimate.value for estimate in found])
        errors = torch.stack([estimate.standard_error for estimate in found])
        assert abs(float(values.mean()) - exact) < 5 * float(values.std()) / math.sqrt(60)
        # The deviation of 60 values is known to a tenth. What hutch++ leaves to random vectors is far off at times, and
        # the few vectors that it has then do not see it.
        assert few < float(errors.mean() / values.std()) < many
    for arguments in ({"method": "magic"}, {"samples": 0}, {"samples": 2, "method": "hutch++"}):
        with pytest.raises(ConfigError):
            estimate_trace(map_, (30,), like=normal(1), **arguments)
    with pytest.raises(lk.errors.UnsupportedError, match="one map for all rows"):
        estimate_trace(lk.Dense(normal(2, 3, 3)), (3,), like=normal(1))
