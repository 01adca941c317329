"""What suits tables: by their rows, by how many columns are modelled, and by what these mean."""

import math
from dataclasses import replace

from likelify.data import Facts
from likelify.errors import ConfigError
from likelify.fitting.recipes.base import DROPOUT, Recipe, by_rows
from likelify.fitting.settings import Draws
from likelify.schema import all_plain
from likelify.settings import Values

# Rows are cheap, but the five large tables have up to 250,000 test rows.
USUAL = Recipe("table-flow", threads=1, draws=Draws(iw_items=5000))
# What splines of several passes drop, by rows for each column.
COLUMN_DROPOUT = ((200, 0.1), (1000, 0.05))
# Samples that marginals are fitted to: with heavy tails and atoms they need more than means and scales do.
MARGINAL_ROWS = 200_000


def of_table(facts: Facts) -> Recipe:
    """Return the recipe of a table by its rows and columns."""
    rows, columns = facts.sizes.get("train", 0), _modelled(facts)
    plain = all_plain(facts.meaning)
    members = _members(rows, plain=plain)
    dropout = by_rows(DROPOUT, rows)
    # Three passes in z are worth more than a start at the Gaussian copula as soon as there are rows to learn them from.
    # They lose what is sharp by dropout, and need it where there are few rows for each column.
    deep = plain and rows >= DEEP_ROWS
    splines: Values = {"passes": 3, "copula": False, "dropout": by_rows(COLUMN_DROPOUT, rows / columns)} if deep else {}
    large_mixed = not plain and WIDE_ROWS <= rows < MANY_ROWS
    return replace(
        USUAL,
        models={
            "table-flow": {
                "members": members,
                "width": 64 if rows < 1000 else 128,
                "dropout": dropout,
                **(splines if "splines" in members else {}),
            },
            "table-coupling": {"dropout": dropout},
            "table-spline": {"dropout": dropout, **splines},
        },
        fits={
            "table-flow": _table_fit(
                rows,
                columns,
                fast=large_mixed or (rows >= 3000 and len(members) > 1),
                batch=256 if large_mixed else 512,
            ),
            "table-coupling": _table_fit(rows, columns, fast=rows >= 3000),
            "table-spline": _table_fit(rows, columns, fast=deep),
        },
    )


# Rows from which on autoregressive splines of several passes are learnt, and up to which a fit has the time for them;
# rows that are read in large batches.
DEEP_ROWS, WIDE_ROWS, MANY_ROWS = 4000, 20_000, 200_000


def _members(rows: int, *, plain: bool) -> tuple[str, ...]:
    """Return the trained members: several for few rows, where the mean of their densities varies less than each.

    Those of other kinds take several times the time of an autoregressive one, so that there are fewer steps. They bring
    more than that costs to the fewest rows, and to those that splines of several passes can be learnt from.
    """
    if plain and rows < 1000:
        return "autoregressive", "splines", "couplings"
    if plain and DEEP_ROWS <= rows < WIDE_ROWS:
        return "autoregressive", "splines"
    return ("autoregressive",) * (3 if rows < 3000 else 2 if rows < 5000 else 1)


def _modelled(facts: Facts) -> int:
    """Return how many columns of a table have a place in a model.

    Raises:
        ConfigError: if there is nothing to be modelled.
    """
    if all(column.given or not column.is_modelled for column in facts.meaning):
        raise ConfigError(
            f"'{facts.name}' has nothing to model: every column has one value only, follows from others, or is a "
            "condition."
        )
    return sum(column.is_modelled for column in facts.meaning)


# Rows below which a table has so many steps, and seconds of the processor at most.
TABLE_EFFORT = ((3000, 1200, 22.0), (5000, 3000, 60.0), (20_000, 4000, 60.0), (MANY_ROWS, 8000, 240.0))
MOST_EFFORT = (10_000, 400.0)


def _table_fit(rows: int, columns: int, *, fast: bool, batch: int = 512) -> Values:
    """Return the settings of the fit of a table: batches of an eighth of the rows, and patience.

    Args:
        rows: of training.
        columns: that are modelled.
        fast: take the high rate, for models whose steps take long, so that there are some thousand at most.
        batch: rows of one at most, below `MANY_ROWS`.
    """
    effort = next(((steps, seconds) for below, steps, seconds in TABLE_EFFORT if rows < below), MOST_EFFORT)
    return {
        "steps": effort[0],
        "max_time": effort[1],
        "clock": "processor",
        "batch_size": min(max(rows // 8, 64), batch if rows < MANY_ROWS else 1024),
        "lr": 1.5e-2 if fast else 6e-3,
        "weight_decay": 3e-2 if rows < 3000 else 1e-2,
        # Of the loss in bits per dimension: five nats of a row.
        "clip": 5.0 / (columns * math.log(2)),
        "average": 0.99 if fast else 0.995,
        "validations": 40,
        "patience": 10,
        "initialize_items": MARGINAL_ROWS,
    }
