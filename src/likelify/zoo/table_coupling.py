"""Spline couplings with dense mixing for rows of real numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likelify import transforms
from likelify.zoo.registry import register
from likelify.zoo.table import CouplingConfig, RealTableConfig, copula_start

if TYPE_CHECKING:
    from likelify.flows import Flow


@register("table-coupling", kind="table", summary="spline couplings with dense mixing, for rows of real numbers")
class TableCouplingConfig(RealTableConfig, CouplingConfig):
    """Settings of a flow of fitted marginals, spline couplings and layers that mix all columns.

    Call `flow.initialize(rows)` once before training: it fits the marginals and a linear prediction behind them, and
    the flow then is the Gaussian copula. Scoring and drawing both cost one call of each network.

    The settings are those of its base (`zoo.table.RealTableConfig`) and of its couplings (`zoo.table.CouplingConfig`).
    """

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        (columns,) = self.event_shape
        front = [transforms.KernelMarginal(columns), *copula_start(columns)]
        layers = transforms.Chain([*front, *self._spline_couplings()])
        return Flow(self._base(), layers, event_shape=self.event_shape)
