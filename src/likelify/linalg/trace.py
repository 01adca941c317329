"""Traces of maps that are too large to probe, by estimators that say how far they may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from likelify.errors import ConfigError, UnsupportedError, unknown_word
from likelify.linalg.maps import LinearMap
from likelify.shapes import Shape

TraceMethod = Literal["hutchinson", "hutch++"]


@dataclass(frozen=True, eq=False)
class TraceEstimate:
    """An unbiased estimate of a trace.

    Attributes:
        value: a scalar, differentiable.
        standard_error: of the value over the draws; NaN where a single draw cannot tell.
        operator_calls: how often the map was applied to one vector.
    """

    value: Tensor
    standard_error: Tensor
    operator_calls: int


def estimate_trace(
    map_: LinearMap, event_shape: Shape, *, samples: int = 32, method: TraceMethod = "hutchinson", like: Tensor
) -> TraceEstimate:
    r"""Estimate `tr L` from products with random signs.

    Hutchinson: `tr L = E[v^T L v]`. Hutch++: a third of the samples finds the range `Q` of `L`, whose part
    `tr(Q^T L Q)` is computed exactly, and a third estimates the rest; much smaller errors where few singular values
    dominate.

    Args:
        map_: the map, one for all rows.
        event_shape: of the events.
        samples: number of random vectors.
        method: `"hutchinson"` or `"hutch++"`.
        like: a tensor with the dtype and device of the vectors.

    Raises:
        ConfigError: for unknown methods or too few samples.
        UnsupportedError: if the map has parameters for each row or couples rows.

    Source:
        Hutchinson 1990; Meyer, Musco, Musco and Woodruff 2021 (Hutch++).
    """
    if method not in ("hutchinson", "hutch++"):
        raise ConfigError(unknown_word("trace estimator", method, ["hutchinson", "hutch++"]))
    if samples < (1 if method == "hutchinson" else 3):
        raise ConfigError(f"{method} needs at least {1 if method == 'hutchinson' else 3} samples, got {samples}.")
    if map_.rows is not None or map_.couples_rows:
        raise UnsupportedError(f"Trace estimators need one map for all rows; {type(map_).__name__} is not.")

    def signs(count: int) -> Tensor:
        return torch.randint(0, 2, (count, *event_shape), device=like.device).to(like.dtype) * 2 - 1

    def apply(vectors: Tensor) -> Tensor:
        return map_.apply(vectors.reshape(-1, *event_shape)).flatten(1)

    if method == "hutchinson":
        probes = signs(samples).flatten(1)
        draws, exact, calls = (probes * apply(probes)).sum(1), 0.0, samples
    else:
        third = samples // 3
        with torch.no_grad():
            # The range is a constant: any one gives an unbiased estimate.
            basis = torch.linalg.qr(apply(signs(third)).T)[0].T
        probes = signs(samples - 2 * third).flatten(1)
        probes = probes - (probes @ basis.T) @ basis
        exact = (basis * apply(basis)).sum()
        draws, calls = (probes * apply(probes)).sum(1), samples
    spread = draws.detach().std() if len(draws) > 1 else draws.detach().new_tensor(torch.nan).squeeze()
    return TraceEstimate(exact + draws.mean(), spread / len(draws) ** 0.5, calls)
