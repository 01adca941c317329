"""The autoregressive spline flow for rows of real numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import nets, transforms
from likelify.zoo.registry import Size, register
from likelify.zoo.table import RealTableConfig, SplineConfig

if TYPE_CHECKING:
    from likelify.flows import Flow


@register("table-spline", kind="table", summary="autoregressive splines, for rows of real numbers")
class TableSplineConfig(RealTableConfig, SplineConfig):
    """Settings of a flow of fitted marginals and autoregressive splines (Durkan et al. 2019).

    Call `flow.initialize(rows)` once before training: it fits the marginals and a linear prediction behind them, and
    the flow then is the Gaussian copula. Scoring costs one call of each network, a draw one for each column.

    Attributes:
        passes: autoregressive layers, each in an order of the columns of its own; the first in that of the table.
        width: hidden units of each network.
        layers: hidden layers of each network beyond the first.
        order_seed: of the orders.

    Those of its base (`zoo.table.RealTableConfig`) and of its splines (`zoo.table.SplineConfig`) come on top.
    """

    passes: int = Field(default=1, ge=1, le=64)
    width: Size = 128
    layers: int = Field(default=1, ge=0, le=64)
    order_seed: int = Field(default=0, ge=0, lt=2**63)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        (columns,) = self.event_shape
        layers = [transforms.KernelMarginal(columns)]
        for number in range(self.passes):
            order = nets.random_order(self.schema, self.order_seed + number) if number else range(columns)
            layers += self._spline_columns(order, width=self.width, layers=self.layers, start=number == 0)
        return Flow(self._base(), transforms.Chain(layers), event_shape=self.event_shape)
