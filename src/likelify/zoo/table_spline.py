"""The autoregressive spline flow for rows of real numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import nets, transforms
from likelify.zoo.registry import Size, register
from likelify.zoo.table import RealTableConfig, spline_columns

if TYPE_CHECKING:
    from likelify.flows import Flow


@register("table-spline", kind="table", summary="autoregressive splines, for rows of real numbers")
class TableSplineConfig(RealTableConfig):
    """Settings of a flow of fitted marginals and autoregressive splines (Durkan et al. 2019).

    Call `flow.initialize(rows)` once before training: it fits the marginals and a linear prediction behind them, and
    the flow then is the Gaussian copula. Scoring costs one call of each network, a draw one for each column.

    Attributes:
        passes: autoregressive layers, each in an order of the columns of its own; the first in that of the table.
        width: hidden units of each network.
        layers: hidden layers of each network beyond the first.
        bins: pieces of the splines.
        interval: the splines act on `[-interval, interval]` of the z-scores.
        dropout: rate in the networks, acting in training steps only.
        order_seed: of the orders.
    """

    passes: int = Field(default=1, ge=1, le=64)
    width: Size = 128
    layers: int = Field(default=1, ge=0, le=64)
    bins: int = Field(default=8, ge=2, le=4096)
    interval: float = Field(default=5.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    order_seed: int = Field(default=0, ge=0, lt=2**63)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        (columns,) = self.event_shape
        names = ("width", "layers", "bins", "interval", "dropout")
        settings = {name: getattr(self, name) for name in names}
        layers = [transforms.KernelMarginal(columns)]
        for number in range(self.passes):
            order = nets.random_order(self.schema, self.order_seed + number) if number else range(columns)
            layers += spline_columns(order, start=number == 0, **settings)
        return Flow(self._base(), transforms.Chain(layers), event_shape=self.event_shape)
