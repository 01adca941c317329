"""What is said of many scores at the end: how many, how likely on average, how many are rare, and the oddest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from likelify.fitting.scoring.tables import as_schema, common_schema

if TYPE_CHECKING:
    import pyarrow

# Ranks at most this are counted.
RARE = (0.01, 0.05)


@dataclass
class Summary:
    """A summary that grows table by table.

    Attributes:
        top: number of the oddest items that are kept.
        count: of the items.
        outside: number of items outside of the support of the model, whose likelihood is zero.
        rare: number of items with ranks at most 0.01 and 0.05, of rows with such outlier ranks; None without ranks.
        marked: number of rows that are marked as outliers; None if none is to be.
        heavy: number of items whose importance weights are too heavy-tailed to believe their errors; None if unknown.
        oddest: the rows with the highest outlier scores, the highest first, of other items the least likely (of graphs
            per node), as a table with the columns of the file.
    """

    top: int = 0
    count: int = 0
    outside: int = 0
    rare: dict[float, int] | None = None
    marked: int | None = None
    heavy: int | None = None
    oddest: pyarrow.Table | None = None
    _nats: float = 0.0
    _bits: float = 0.0
    _per_node: float | None = None

    def add(self, table: pyarrow.Table) -> None:
        """Count the items of a table."""
        nats = table["nats"].to_numpy()
        inside = nats > -math.inf
        self.count += len(nats)
        self.outside += int((~inside).sum())
        self._nats += float(nats[inside].sum())
        if "bits_per_dim" in table.column_names:
            self._bits += float(table["bits_per_dim"].to_numpy()[inside].sum())
        if "nats_per_node" in table.column_names:
            self._per_node = (self._per_node or 0.0) + float(table["nats_per_node"].to_numpy()[inside].sum())
        ranks = "outlier_rank" if "outlier_rank" in table.column_names else "rank"
        if ranks in table.column_names:
            found = table[ranks].to_numpy()
            self.rare = {share: (self.rare or {}).get(share, 0) + int((found <= share).sum()) for share in RARE}
        if "is_outlier" in table.column_names:
            self.marked = (self.marked or 0) + int(table["is_outlier"].to_numpy().sum())
        if "reliable" in table.column_names:
            self.heavy = (self.heavy or 0) + int((inside & ~table["reliable"].to_numpy()).sum())
        self._keep_oddest(table)

    def _keep_oddest(self, table: pyarrow.Table) -> None:
        import pyarrow as pa

        if self.top:
            found = [part for part in (self.oddest, _oddest(table, self.top)) if part is not None]
            schema = common_schema(part.schema for part in found)
            self.oddest = _oddest(pa.concat_tables([as_schema(part, schema) for part in found]), self.top)

    @property
    def mean(self) -> dict[str, float]:
        """The mean of nats, and of bits per dimension and nats per node where there are such, inside of the support."""
        number = max(self.count - self.outside, 1)
        found: dict[str, Any] = {"bits": self._bits / number} if self._bits else {}
        found |= {} if self._per_node is None else {"per_node": self._per_node / number}
        return {"nats": self._nats / number, **found}


def _oddest(table: pyarrow.Table, count: int) -> pyarrow.Table:
    import pyarrow as pa

    likely = next(name for name in ("outlier", "nats_per_node", "nats") if name in table.column_names)
    values = table[likely].to_numpy()
    return table.take(pa.array((-values if likely == "outlier" else values).argsort(kind="stable")[:count]))
