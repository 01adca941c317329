"""Spline couplings with dense mixing for rows of real numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from likelify import transforms
from likelify.zoo.registry import Size, register
from likelify.zoo.table import RealTableConfig, TableMixing, copula_start, spline_couplings

if TYPE_CHECKING:
    from likelify.flows import Flow


@register("table-coupling", kind="table", summary="spline couplings with dense mixing, for rows of real numbers")
class TableCouplingConfig(RealTableConfig):
    """Settings of a flow of fitted marginals, spline couplings and layers that mix all columns.

    Call `flow.initialize(rows)` once before training: it fits the marginals and a linear prediction behind them, and
    the flow then is the Gaussian copula. Scoring and drawing both cost one call of each network.

    Attributes:
        couplings: number of spline couplings, each behind a mixing layer.
        mixing: an LU-factored matrix, or the exponential of a matrix.
        hidden: widths of the hidden layers of the networks.
        bins: pieces of the splines.
        interval: the splines act on `[-interval, interval]` of the z-scores.
        dropout: rate in the networks, acting in training steps only.
    """

    couplings: int = Field(default=6, ge=1, le=4096)
    mixing: TableMixing = "lu"
    hidden: tuple[Size, ...] = (64, 64)
    bins: int = Field(default=8, ge=2, le=4096)
    interval: float = Field(default=5.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.flows import Flow

        (columns,) = self.event_shape
        front = [transforms.KernelMarginal(columns), *copula_start(columns)]
        names = ("couplings", "mixing", "hidden", "bins", "interval", "dropout")
        layers = spline_couplings(columns, **{name: getattr(self, name) for name in names})
        return Flow(self._base(), transforms.Chain([*front, *layers]), event_shape=self.event_shape)
