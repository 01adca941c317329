"""What is returned and written for items that were scored: a table of a few columns, in the order of the items."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from likelify.data import Facts
from likelify.errors import needs
from likelify.fitting.figures import Unit
from likelify.fitting.scoring.ranks import ranks
from likelify.fitting.scoring.reference import HeldOut
from likelify.fitting.scoring.scorer import Scored
from likelify.fitting.scoring.tables import carried_column

if TYPE_CHECKING:
    import pyarrow

# What is carried through under a name of ours gets this at its end.
GIVEN = "_given"
# Columns that a scoring may write, and what they hold.
OURS = {
    "nats": "nats",
    "bits_per_dim": "bits",
    "nats_per_node": "per_node",
    "standard_error": "standard_error",
    "reliable": "reliable",
    "rank": "rank",
    "outlier": "outlier",
    "outlier_rank": "outlier_rank",
    "is_outlier": "is_outlier",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of some items, in their order.

    Attributes:
        nats: log-likelihood of each, `(items,)` in float64; minus infinity outside of the support.
        rank: share of held-out items that are at most as likely, of graphs per node, see `ranks`; None without a
            reference.
        outlier: of rows how odd each is, see `fitting.outliers`; higher is odder. None for other items.
        outlier_rank: share of held-out rows that are at least as odd; None without a reference.
        is_outlier: whether that is at most the contamination that was named; None if none was.
        standard_error: of `nats`, where they are estimates, else None; NaN for a single draw.
        reliable: for 25 draws or more, whether the importance weights are light enough to believe that error; where
            they are not, the log-likelihood is likely too low. Else None.
        bits: per dimension, for images; lower is better. None for other items.
        per_node: of graphs nats per node, `log p / nodes`; higher is better. None for other items.
        gains: what a row gains if a column is replaced, in nats `(rows, columns)`; None if that was not asked for.
        columns: names of the columns of `gains`.
        carried: ids, labels and the like that belong to the items, by name.
        first: number of the first item.
        said: what was done to the items to make them such as the model takes, such as reducing pictures; nothing if
            nothing was.
    """

    nats: np.ndarray
    rank: np.ndarray | None = None
    outlier: np.ndarray | None = None
    outlier_rank: np.ndarray | None = None
    is_outlier: np.ndarray | None = None
    standard_error: np.ndarray | None = None
    reliable: np.ndarray | None = None
    bits: np.ndarray | None = None
    per_node: np.ndarray | None = None
    gains: np.ndarray | None = None
    columns: tuple[str, ...] = ()
    carried: dict[str, Any] = field(default_factory=dict)
    first: int = 0
    said: str = ""

    @staticmethod
    def of(
        carried: dict[str, Any],
        scored: Scored,
        facts: Facts,
        reference: HeldOut | None,
        first: int = 0,
        *,
        contamination: float | None = None,
    ) -> Scores:
        """Rank the items of a pass among held-out ones, and put what is known of them together."""
        found, gains, odd = scored.likelihoods, scored.gains, None
        if reference is not None and reference.outlier is not None and found.outlier is not None:
            odd = ranks(-found.outlier, -reference.outlier)
        rank = None
        if reference is not None:
            # Of graphs of different sizes the larger ones are less likely, whatever they look like.
            own, known = found.per_node, reference.per_node
            rank = ranks(found.nats, reference.nats) if own is None or known is None else ranks(own, known)
        return Scores(
            nats=found.nats,
            rank=rank,
            outlier=found.outlier,
            outlier_rank=odd,
            is_outlier=None if odd is None or contamination is None else odd <= contamination,
            standard_error=found.standard_error,
            reliable=found.reliable,
            bits=found.bits if Unit.of(facts.kind).word == "bits" else None,
            per_node=found.per_node,
            gains=gains,
            columns=() if gains is None else _names(facts),
            carried=carried,
            first=first,
        )

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """Put scores of items that follow one another together."""
        names = ("nats", "rank", "outlier", "outlier_rank", "is_outlier", "standard_error", "reliable", "bits")
        names = (*names, "per_node", "gains")
        whole = {name: _joined([getattr(part, name) for part in parts]) for name in names}
        carried = {name: _joined([part.carried[name] for part in parts]) for name in parts[0].carried}
        return replace(parts[0], **whole, carried=carried)

    def __len__(self) -> int:
        return len(self.nats)

    def __repr__(self) -> str:
        said = f"; {self.said}" if self.said else ""
        return f"<Scores of {len(self)} items: {', '.join(self._named())}{said}>"

    @property
    def blamed(self) -> list[str | None]:
        """For each row the column whose replacement gains most, or None where none gains anything."""
        if self.gains is None:
            return [None] * len(self)
        gains = np.nan_to_num(self.gains, nan=0.0, posinf=np.inf)
        best, highest = gains.argmax(1), gains.max(1, initial=0.0)
        return [self.columns[place] if gain > 0 else None for place, gain in zip(best, highest, strict=True)]

    def least_likely(self, count: int = 20) -> np.ndarray:
        """Return the places of the items with the lowest log-likelihood, of graphs per node, the lowest first."""
        return np.argsort(self.nats if self.per_node is None else self.per_node, kind="stable")[:count]

    def oddest(self, count: int = 20) -> np.ndarray:
        """Return the places of the oddest rows, the oddest first; of other items the least likely."""
        return self.least_likely(count) if self.outlier is None else np.argsort(-self.outlier, kind="stable")[:count]

    def to_arrow(self) -> pyarrow.Table:
        """Return a table of Arrow with a row for each item, which pandas, polars and others take as it is.

        Columns: `item`, its number from 0; what was carried through; `nats`, `bits_per_dim`, `nats_per_node`,
        `standard_error`, `reliable`, `rank`, `outlier`, `outlier_rank` and `is_outlier` as far as there are such; then
        `blame`, the column whose replacement gains most, and `blame_COLUMN`, the gain of each. A name that is carried
        through and could be one of these gets `_given` at its end.

        Raises:
            MissingDependencyError: without pyarrow.

        Example:
            >>> Scores(np.array([-1.0, -2.0]), carried={"id": ["a", "b"]}).to_arrow().to_pylist()[1]
            {'item': 1, 'id': 'b', 'nats': -2.0}
        """
        with needs("pyarrow", "app"):
            import pyarrow as pa
        ours = self._named()
        columns: dict[str, Any] = {"item": pa.array(np.arange(self.first, self.first + len(self)))}
        # What an earlier scoring has written is not taken for this one's, even where this one writes no such column.
        taken = {"item", "blame", *OURS, *ours}
        names = _free_names(tuple(self.carried), taken)
        columns |= {names[name]: carried_column(values) for name, values in self.carried.items()}
        # What is not known is missing, which is not the same as not a number.
        columns |= {name: pa.array(values, from_pandas=True) for name, values in ours.items()}
        return pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Give the table to whatever speaks Arrow: `polars.DataFrame(scores)`, `pyarrow.table(scores)`."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def _named(self) -> dict[str, Any]:
        found = {name: getattr(self, attribute) for name, attribute in OURS.items()}
        named: dict[str, Any] = {name: values for name, values in found.items() if values is not None}
        if self.gains is not None:
            named["blame"] = self.blamed
            named |= {f"blame_{name}": self.gains[:, place] for place, name in enumerate(self.columns)}
        return named


def _names(facts: Facts) -> tuple[str, ...]:
    return tuple(column.name for column in facts.meaning)


def _free_names(names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return for each name one that is not taken, not even by another of them."""
    used, found = {*taken, *names}, {}
    for name in names:
        free = name
        while free in taken or (free != name and free in used):
            free += GIVEN
        found[name] = free
        used.add(free)
    return found


def _joined(parts: list[Any]) -> Any:
    if parts[0] is None:
        return None
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    return [value for part in parts for value in part]
