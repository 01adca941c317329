"""What models of tables share: the meaning of the columns as a setting, and flows of real numbers in z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, SupportsIndex

from pydantic import Field, model_validator

from likelify import nets, transforms
from likelify.schema import ColumnSchema, mixed_in, real_columns
from likelify.zoo.registry import Bins, ModelConfig, Size

if TYPE_CHECKING:
    from likelify.distributions import Distribution
    from likelify.transforms.core import Transform

TableMixing = Literal["lu", "dense-exponential"]
BaseName = Literal["normal", "student-t"]


class TableConfig(ModelConfig):
    """Settings of a model of the rows of a table.

    Attributes:
        event_shape: `(columns,)`, all columns of the table.
        schema: what the columns mean; by default they are real numbers.
    """

    reads_labels: ClassVar[bool] = False

    event_shape: tuple[Size]
    schema: tuple[ColumnSchema, ...]  # pyright: ignore[reportIncompatibleMethodOverride]

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        shape, schema = given.get("event_shape"), given.get("schema")
        size = shape[0] if isinstance(shape, Sequence) and len(shape) == 1 else shape
        if schema is None and shape is not None:
            # Of a shape that does not fit, that is said.
            return {**given, "schema": real_columns(index(size)) if isinstance(size, SupportsIndex) else ()}
        if shape is None and isinstance(schema, Sequence):
            return {**given, "event_shape": (len(schema),)}
        return given

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if len(self.schema) != self.event_shape[0]:
            raise ValueError(f"the schema is of {len(self.schema)} columns, the rows have {self.event_shape[0]}")
        if not any(column.is_modelled and not column.given for column in self.schema):
            raise ValueError("no column is left to be modelled: all are conditions, or follow from others")
        return self


class RealTableConfig(TableConfig):
    """Settings of a flow of rows of real numbers without missing values, each of which gets a density.

    Whole numbers, dates and truth values have one as any numbers do, though probabilities would suit them.

    Attributes:
        base: distribution of the latent: normal, or Student's t with trained degrees of freedom.
    """

    base: BaseName = "normal"

    @model_validator(mode="after")
    def _check_plain(self) -> Self:
        refuse_mixed(self.schema)
        return self

    def _base(self) -> Distribution:
        return base_of(self.base, self.event_shape[0])


class SplineConfig(TableConfig):
    """Settings of splines of z-scores, and of the networks that steer them.

    Attributes:
        bins: pieces of the splines.
        interval: they act on `[-interval, interval]` of the z-scores.
        dropout: rate in the networks, acting in training steps only.
    """

    bins: Bins = 8
    interval: float = Field(default=5.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class SplineColumnsConfig(SplineConfig):
    """Settings of autoregressive splines.

    Attributes:
        passes: layers of splines, each in an order of the columns of its own.
        copula: put a linear prediction in front of the first, so that they start as the Gaussian copula. Few rows gain
            by it; with many, what is sharp in one column alone is lost on it.
        order_seed: of the orders; the first is that of the table.
    """

    passes: int = Field(default=1, ge=1, le=64)
    copula: bool = True
    order_seed: int = Field(default=0, ge=0, lt=2**63)

    def _order(self, number: int) -> Sequence[int]:
        """Return an order of the columns: as they are for the number zero, others at random."""
        return nets.random_order(self.schema, self.order_seed + number) if number else range(len(self.schema))

    def _spline_columns(self, number: int, *, width: int, layers: int) -> list[Transform]:
        """Return all passes of a member of that number."""
        names = ("bins", "interval", "dropout", "copula")
        settings = {name: getattr(self, name) for name in names}
        orders = [self._order(number * self.passes + i) for i in range(self.passes)]
        return spline_columns(orders, width=width, layers=layers, **settings)


class CouplingConfig(SplineConfig):
    """Settings of spline couplings with dense mixing.

    Attributes:
        couplings: number of spline couplings, each behind a mixing layer.
        mixing: an LU-factored matrix, or the exponential of a matrix.
        hidden: widths of the hidden layers of their networks.
    """

    couplings: int = Field(default=6, ge=1, le=4096)
    mixing: TableMixing = "lu"
    hidden: tuple[Size, ...] = (64, 64)

    def _spline_couplings(self) -> list[Transform]:
        names = ("couplings", "mixing", "hidden", "bins", "interval", "dropout")
        return spline_couplings(self.event_shape[0], **{name: getattr(self, name) for name in names})


def refuse_mixed(schema: Sequence[ColumnSchema]) -> None:
    """Refuse columns that have no density: words, what is missing, follows from others or is a condition.

    Raises:
        ValueError: naming the first such column.
    """
    for column in schema:
        if what := mixed_in(column):
            raise ValueError(
                f"the model is of rows of real numbers alone, not of columns {what}, such as '{column.name}'; the "
                "model table-flow takes all columns"
            )


def base_of(name: BaseName, columns: int) -> Distribution:
    """Return the distribution of the latent of a flow of so many columns."""
    from likelify.distributions import Normal, StudentT

    return Normal((columns,)) if name == "normal" else StudentT((columns,))


def copula_start(columns: int) -> list[Transform]:
    """Return layers that `initialize` makes the whitening of a normal distribution: each column given those before."""
    if columns == 1:
        return []
    return [
        transforms.Reshape((columns,), (columns, 1)),
        transforms.LinearPrediction((columns, 1)),
        transforms.Flatten((columns, 1)),
    ]


def spline_couplings(
    columns: int,
    *,
    couplings: int,
    mixing: TableMixing,
    hidden: tuple[int, ...],
    bins: int,
    interval: float,
    dropout: float,
) -> list[Transform]:
    """Return spline couplings, each behind a layer that mixes all columns; of one column a spline."""
    if columns == 1:
        return [transforms.ChannelSpline(1, bins=bins, interval=interval)]
    layers: list[Transform] = []
    for number in range(couplings):
        # An exponential starts near the identity, so that which columns a coupling reads has to change by itself.
        mixers = [transforms.Conv1x1(columns)]
        if mixing != "lu":
            mixers = [transforms.Permute.random(columns), transforms.dense_exponential(columns)]
        split = transforms.ChannelSplit(columns, swap=number % 2 == 1)
        bijector = transforms.SplineBijector(bins, interval)
        read, changed = split.sizes
        net = nets.MLP(read, bijector.size * changed, hidden, dropout=dropout)
        layers += [*mixers, transforms.Coupling(split, bijector, net)]
    return layers


def spline_columns(
    orders: Sequence[Sequence[int]],
    *,
    width: int,
    layers: int,
    bins: int,
    interval: float,
    dropout: float,
    copula: bool,
) -> list[Transform]:
    """Return for each order splines of all columns, read off the columns before it; `copula_start` before the first."""
    import torch

    columns, bijector = len(orders[0]), transforms.SplineBijector(bins, interval)
    if columns == 1:
        return [transforms.ChannelSpline(1, bins=bins, interval=interval)]
    found: list[Transform] = []
    for number, order in enumerate(orders):
        net = nets.AutoregressiveNet(
            columns,
            hidden=max(width, columns),
            heads=bijector.size,
            dims=0,
            layers=layers,
            small_heads=bijector.size,
            dropout=dropout,
        )
        start = copula_start(columns) if copula and number == 0 else []
        found += [transforms.Permute(torch.tensor(order)), *start, transforms.Autoregressive(columns, bijector, net)]
    return found
