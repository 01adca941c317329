"""The default model of tables: a mixture of densities behind fitted marginals, exact for columns of every kind."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.schema import all_plain
from likelify.zoo.registry import Size, register
from likelify.zoo.table import CouplingConfig, SplineColumnsConfig, copula_start

if TYPE_CHECKING:
    from likelify.distributions import Distribution
    from likelify.flows import Flow

MemberName = Literal["autoregressive", "splines", "couplings"]
# Members that read the settings which not all of them do.
READERS: dict[str, tuple[MemberName, ...]] = {
    **dict.fromkeys(("couplings", "mixing", "hidden"), ("couplings",)),
    **dict.fromkeys(("passes", "copula"), ("splines",)),
    **dict.fromkeys(("bins", "interval"), ("splines", "couplings")),
}
# Columns up to which a mixture of normal distributions with full covariances is among the simple members.
WIDEST_MIXTURE = 64


@register("table-flow", kind="table", summary="mixture of densities of columns of every kind; default of tables")
class TableFlowConfig(CouplingConfig, SplineColumnsConfig):
    """Settings of the default density of the rows of a table: numbers, categories, dates, missing values, atoms.

    Fitted marginals (`transforms.MixedColumns`) take each column to a state and a z-score; a `Mixture` of densities of
    these is the base: trained members, and simple ones that are only fitted. Log p is exact, in the units of the rows:
    a density of what has one, times the probabilities of everything else. Call `flow.initialize(rows)` once before
    training; the trained members then are the Gaussian copula, or near it.

    Attributes:
        members: those that are trained: `autoregressive`, of columns of every kind; `splines` (autoregressive) and
            `couplings` (with dense mixing) for plain real columns alone.
        simple: add densities that are only fitted: independent columns, a linear autoregression, and for up to 64
            plain real columns a mixture of normal distributions of the z-scores.
        width: hidden units of the autoregressive networks.
        components: normal distributions of each column's conditional density.
        normals: components of the mixture of normal distributions.

    Those of members of couplings (`zoo.table.CouplingConfig`) and of splines (`zoo.table.SplineColumnsConfig`) come on
    top; `dropout` is for all members.
    """

    takes_mixed: ClassVar[bool] = True

    members: tuple[MemberName, ...] = Field(default=("autoregressive",), min_length=1, max_length=64)
    simple: bool = True
    width: Size = 128
    components: int = Field(default=8, ge=1, le=4096)
    normals: int = Field(default=16, ge=1, le=4096)

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if not self.is_plain and set(self.members) != {"autoregressive"}:
            raise ValueError(
                "members of splines and couplings are for tables of real numbers alone; take 'autoregressive' as often "
                "as there are to be members"
            )
        return self

    def idle(self, said: Collection[str]) -> list[str]:
        """Return a sentence on each setting of members that there are none of."""
        readers = {name: READERS[name] for name in said if name in READERS}
        return [
            f"{name} is for members of {' or '.join(members)}, and there are none (--set members=...)."
            for name, members in readers.items()
            if set(members).isdisjoint(self.members)
        ]

    @property
    def is_plain(self) -> bool:
        """Whether all columns are real numbers without missing values, and none is a condition."""
        return all_plain(self.schema)

    def build(self) -> Flow:
        """Return the flow with fresh weights."""
        from likelify.distributions import Mixture
        from likelify.flows import Flow

        columns = transforms.MixedColumns(self.schema)
        members = [self._member(name, number, columns) for number, name in enumerate(self.members)]
        base = Mixture([*members, *self._simple(columns)], apart=True)
        return Flow(base, columns, event_shape=self.event_shape)

    def _member(self, name: MemberName, number: int, columns: transforms.MixedColumns) -> Distribution:
        """Return a trained member; the orders of the columns are those of its number."""
        from likelify.distributions import AutoregressiveColumns, Normal, OfReals
        from likelify.flows import Flow

        if name == "autoregressive":
            order = self._order(number) if number else None
            settings = {"hidden": self.width, "components": self.components, "dropout": self.dropout}
            return AutoregressiveColumns(
                self.schema, net=nets.ColumnsNet(self.schema, order, **settings), snap=columns.snap
            )
        size = len(self.schema)
        if name == "splines":
            layers = self._spline_columns(number, width=self.width, layers=1)
        else:
            layers = [*copula_start(size), *self._spline_couplings()]
        return OfReals(Flow(Normal((size,)), transforms.Chain(layers), event_shape=(size,)))

    def _simple(self, columns: transforms.MixedColumns) -> list[Distribution]:
        """Return the members that are only fitted: independent columns, a linear autoregression, perhaps a mixture."""
        from likelify.distributions import AutoregressiveColumns, GaussianMixture, OfReals

        if not self.simple:
            return []
        found: list[Distribution] = [*AutoregressiveColumns.simple(self.schema, columns.snap)]
        if self.is_plain and len(self.schema) <= WIDEST_MIXTURE:
            found.append(OfReals(GaussianMixture(len(self.schema), self.normals)))
        return found
