"""Flows in the interface of `torch.distributions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from likelify.distributions.core import has_rows, row_count
from likelify.errors import ShapeError
from likelify.shapes import Shape, as_shape
from likelify.structure import Context, with_condition

if TYPE_CHECKING:
    from likelify.flows import Flow


class TorchDistribution(torch.distributions.Distribution):
    """A flow in the interface of `torch.distributions`."""

    has_rsample = True
    arg_constraints = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def __init__(self, flow: Flow, context: Context, event_shape: Shape, leading: Shape = ()) -> None:
        self._flow = flow
        self._context = context
        # Axes in front of the rows of the context.
        self._leading = leading
        rows = (row_count(context),) if has_rows(context) else ()
        super().__init__(torch.Size((*leading, *rows)), torch.Size(event_shape), validate_args=False)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> TorchDistribution:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return it with more batch entries: any axes in front, and one row of a condition as many."""
        shape, context = tuple(batch_shape), self._context
        rows = self.batch_shape[len(self._leading) :]
        fits = len(shape) >= len(self.batch_shape) and all(
            own in (1, wanted) for own, wanted in zip(self.batch_shape[::-1], shape[::-1], strict=False)
        )
        if not fits:
            raise ShapeError(f"A distribution of batch shape {tuple(self.batch_shape)} cannot be expanded to {shape}.")
        if rows and shape[-1] != rows[0]:
            condition = context.condition
            if condition is None or context.structure is not None:
                raise ShapeError("A distribution over the nodes of graphs has the rows of these graphs.")
            context = with_condition(context, condition.expand(shape[-1], *condition.shape[1:]))
        return TorchDistribution(self._flow, context, self.event_shape, shape[: len(shape) - len(rows)])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of values `(..., *batch_shape, *event_shape)`, in nats."""
        leading = value.shape[: max(value.ndim - len(self.event_shape), 0)]
        if value.shape[len(leading) :] == self.event_shape:
            value = value.expand(*torch.broadcast_shapes(leading, self.batch_shape), *self.event_shape)
        return self._flow.log_prob(value, self._context)

    def rsample(self, sample_shape: int | Shape = ()) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw `(*sample_shape, *batch_shape, *event_shape)` so that gradients reach the parameters."""
        return self._flow.rsample((*as_shape(sample_shape), *self._leading), self._context)

    def sample(self, sample_shape: int | Shape = ()) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Draw without gradients."""
        return self._flow.sample((*as_shape(sample_shape), *self._leading), self._context)
