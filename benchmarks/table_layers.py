"""What the first layers of models of tables cost, and how near fitted marginals come to the truth.

Marginals of ten columns are fitted to 1e6 rows (100,000 with --quick), and rows mapped to scores and back; cells of a
mixed table likewise. The prototype scored 107,000 rows of ten columns per second of one thread. Then the held-out
log-density of 20,000 draws of a Cauchy distribution, of Beta(1/2, 1/2) and of an exponential one, against their
entropy.
"""

import math
import time

import torch
from torch import Tensor

import likelify as lk
from benchmarks.report import Entry, run_parts
from benchmarks.timing import medians
from likelify.schema import ColumnSchema
from likelify.transforms import KernelMarginal, MixedColumns, Transform

COLUMNS, BATCH = 10, 8192
# Rows of ten columns per second that the prototype mapped to scores.
PROTOTYPE = 107_000


def reals(rows: int) -> Tensor:
    """Return rows of normal, skewed and heavy-tailed columns of many units."""
    normal = torch.randn(rows, COLUMNS, dtype=torch.float64)
    units = 10.0 ** torch.linspace(-6, 6, COLUMNS, dtype=torch.float64)
    normal[:, 1::3] = normal[:, 1::3].exp()
    normal[:, 2::3] = normal[:, 2::3] / torch.randn(rows, 1, dtype=torch.float64).abs()
    return units * normal


def mixed(rows: int) -> tuple[tuple[ColumnSchema, ...], Tensor]:
    """Return a table of four real columns, two with zeros, three whole-valued ones and three of words."""
    schema = [ColumnSchema(name=f"real {i}", states=(0.0,) if i > 1 else (), missing=i > 1) for i in range(4)]
    schema += [
        ColumnSchema(name=f"count {i}", kind="integer", rest="steps", step=1.0, lower=0.0, declared=i > 0)
        for i in range(3)
    ]
    schema += [ColumnSchema.category(f"word {i}", tuple(map(str, range(10)))) for i in range(3)]
    x = reals(rows)
    x[:, 2:4] = torch.where(torch.rand(rows, 2) < 0.2, 0.0, x[:, 2:4])
    x[:, 4:7] = (30 * torch.rand(rows, 3, dtype=torch.float64).square()).floor()
    x[:, 7:] = (10 * torch.rand(rows, 3, dtype=torch.float64)).floor()
    x[:, 2][torch.rand(rows) < 0.1] = math.nan
    return tuple(schema), x


def rates(name: str, layer: Transform, x: Tensor, repeats: int, goals: tuple[float, float] | None) -> list[Entry]:
    """Return rows per second to the latent and back."""
    with torch.no_grad():
        z, _ = layer(x)
        times = medians({"forward": lambda: layer(x), "inverse": lambda: layer.inverse(z)}, repeats)
    must, aim = goals or (None, None)
    return [
        Entry(f"{name}, rows to scores", round(len(x) / times["forward"]), "rows/s", must, aim, "higher"),
        Entry(f"{name}, scores to rows", round(len(x) / times["inverse"]), "rows/s", better="higher"),
    ]


def speed_entries(*, quick: bool) -> list[Entry]:
    """Return how long a fit takes, and rows per second."""
    rows, repeats = (100_000, 3) if quick else (1_000_000, 11)
    x = reals(rows)
    marginals = KernelMarginal(COLUMNS)
    start = time.thread_time()
    marginals.initialize(x)
    found = [Entry(f"KernelMarginal, fit to {rows:,} x {COLUMNS}", time.thread_time() - start, "s", 30, 10)]
    found += rates("KernelMarginal", marginals, x[:BATCH], repeats, (PROTOTYPE, 2 * PROTOTYPE))
    schema, x = mixed(20_000)
    cells = MixedColumns(schema)
    cells.initialize(x)
    return found + rates("MixedColumns, ten columns", cells, x[:BATCH], repeats, None)


def truth_entries(*, quick: bool) -> list[Entry]:
    """Return how many nats the held-out log-density of known distributions is from their entropy."""
    rows, found = 20_000, []
    for name, entropy, draw, (low, high) in (
        ("Cauchy", math.log(4 * math.pi), lambda u: (math.pi * (u - 0.5)).tan(), (None, None)),
        ("Beta(1/2, 1/2)", math.log(math.pi / 4), lambda u: (math.pi / 2 * u).sin().square(), (0.0, 1.0)),
        ("exponential", 1.0, lambda u: -u.log(), (0.0, None)),
    ):
        gaps = []
        for _ in range(2 if quick else 10):
            x, new = (draw(torch.rand(rows, 1, dtype=torch.float64)) for _ in range(2))
            layer = KernelMarginal(1, lower=low, upper=high)
            layer.initialize(x)
            with torch.no_grad():
                log_prob = lk.Flow(lk.Normal((1,)).double(), layer.double()).log_prob(new)
            gaps.append(-entropy - float(log_prob.mean()))
        worst = max(gaps, key=abs)
        found.append(Entry(f"{name}, {rows:,} rows, worst gap to the entropy", abs(worst), "nats", 0.05, 0.03))
    return found


PARTS = {"speed": speed_entries, "truth": truth_entries}


if __name__ == "__main__":
    run_parts(__doc__ or "", PARTS)
