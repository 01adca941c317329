"""What is said of many scores at the end: how many, how likely on average, how many are rare, and the least likely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

# Ranks at most this are counted.
RARE = (0.01, 0.05)


@dataclass
class Summary:
    """A summary that grows table by table.

    Attributes:
        top: number of the least likely items that are kept.
        count: of the items.
        outside: number of items outside of the support of the model, whose likelihood is zero.
        rare: number of items with ranks at most 0.01 and 0.05; empty without ranks.
        heavy: number of items whose importance weights are too heavy-tailed to believe their errors; None if unknown.
        least_likely: the least likely items, the least likely first, as a table with the columns of the file.
    """

    top: int = 0
    count: int = 0
    outside: int = 0
    rare: dict[float, int] | None = None
    heavy: int | None = None
    least_likely: pyarrow.Table | None = None
    _nats: float = 0.0
    _bits: float = 0.0

    def add(self, table: pyarrow.Table) -> None:
        """Count the items of a table."""
        nats = table["nats"].to_numpy()
        inside = nats > -math.inf
        self.count += len(nats)
        self.outside += int((~inside).sum())
        self._nats += float(nats[inside].sum())
        if "bits_per_dim" in table.column_names:
            self._bits += float(table["bits_per_dim"].to_numpy()[inside].sum())
        if "rank" in table.column_names:
            found = table["rank"].to_numpy()
            self.rare = {share: (self.rare or {}).get(share, 0) + int((found <= share).sum()) for share in RARE}
        if "reliable" in table.column_names:
            self.heavy = (self.heavy or 0) + int((inside & ~table["reliable"].to_numpy()).sum())
        self._keep_lowest(table)

    def _keep_lowest(self, table: pyarrow.Table) -> None:
        import pyarrow as pa

        if not self.top:
            return
        lowest = table.take(pa.array(table["nats"].to_numpy().argsort(kind="stable")[: self.top]))
        both = lowest if self.least_likely is None else pa.concat_tables([self.least_likely, lowest])
        self.least_likely = both.take(pa.array(both["nats"].to_numpy().argsort(kind="stable")[: self.top]))

    @property
    def mean(self) -> dict[str, float]:
        """The mean of nats, and of bits per dimension where there are such, over the items inside of the support."""
        number = max(self.count - self.outside, 1)
        bits: dict[str, Any] = {"bits": self._bits / number} if self._bits else {}
        return {"nats": self._nats / number, **bits}
