"""The autoregressive spline flow for rows of real numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import transforms
from likelify.zoo.registry import Size, register
from likelify.zoo.table import RealTableConfig, SplineColumnsConfig

if TYPE_CHECKING:
    from likelify.flows import Flow


@register("table-spline", kind="table", summary="autoregressive splines, for rows of real numbers")
class TableSplineConfig(RealTableConfig, SplineColumnsConfig):
    """Settings of a flow of fitted marginals and autoregressive splines (Durkan et al. 2019).

    Call `flow.initialize(rows)` once before training: it fits the marginals and, with `copula`, a linear prediction
    behind them; the flow then is the Gaussian copula, without it nearly independent columns. Scoring costs one call of
    each network, a draw one for each column.

    Attributes:
        width: hidden units of each network.
        layers: hidden layers of each network beyond the first.

    Those of its base (`zoo.table.RealTableConfig`) and of its splines (`zoo.table.SplineColumnsConfig`) come on top.
    """

    width: Size = 128
    layers: int = Field(default=1, ge=0, le=64)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        (columns,) = self.event_shape
        splines = self._spline_columns(0, width=self.width, layers=self.layers)
        layers = transforms.Chain([transforms.KernelMarginal(columns), *splines])
        return Flow(self._base(), layers, event_shape=self.event_shape)
