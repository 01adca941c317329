"""The default model of tables beside mixtures, kernels and zuko's spline flows: nats, rows per second, mixed columns.

    python -m benchmarks.tables --json results/tables.json

Held-out nats per row of twelve tables of real columns, three splits, at equal processor time. What has been measured is
kept, one file for each model, table and split, so that a killed run goes on; `--again MODEL` forgets what is known of a
model. With `--part` what the settings of splines are worth, the speed of the models, a mixed table, missing values, and
a million rows.
"""

import argparse
from itertools import product
from pathlib import Path

from benchmarks.cells import forget
from benchmarks.report import Entry, arguments, measured, report
from benchmarks.tables.cells import FOLDER, METHODS, Cell
from benchmarks.tables.data import AS_WRITTEN, QUICK_TABLES, TABLES
from benchmarks.tables.mixed import adult, million, missing
from benchmarks.tables.nats import DEFAULT, compared, entries, page, won
from benchmarks.tables.recipe import recipe
from benchmarks.tables.speed import speed
from benchmarks.timing import use_malloc_settings

NATS = "nats"
OTHERS = {"recipe": recipe, "speed": speed, "adult": adult, "missing": missing, "million": million}
OPTIONS = {
    "--tables": {"nargs": "+", "choices": tuple(TABLES), "help": "of the part nats: only these"},
    "--methods": {"nargs": "+", "choices": tuple(METHODS), "help": "likewise, only these models"},
    "--splits": {"type": int, "default": 3, "help": "number of splits, which are also the seeds of the fits"},
    "--seconds": {"type": float, "default": 30.0, "help": "processor time of a fit"},
    "--as-written": {"action": "store_true", "help": "leave values as they are written, which repeat"},
    "--again": {"nargs": "+", "choices": tuple(METHODS), "default": (), "help": "measure these once more"},
    "--folder": {"type": Path, "default": FOLDER, "help": "where results are kept"},
}


def nats(options: argparse.Namespace) -> list[Entry]:
    """Measure log-densities of all tables that were asked for."""
    splits, seconds, tables = options.splits, options.seconds, options.tables or list(TABLES)
    if options.quick:
        splits, seconds, tables = 1, 2.0, options.tables or list(QUICK_TABLES)
    if options.as_written:
        tables = [f"{name}{AS_WRITTEN}" for name in tables]
    for name, method in product(tables, options.again):
        for split in range(splits):
            forget(Cell(name, method, split, seconds), options.folder)
    methods = options.methods or list(METHODS)
    results = {name: compared(name, methods, splits, seconds, options.folder) for name in tables}
    print(page(results))
    found = [entry for name, row in results.items() for entry in entries(name, row)]
    if set(methods) > {DEFAULT}:
        found.append(Entry(f"tables won, of {len(tables)}", won(results), "tables", 10, better="higher"))
    return found


def main() -> None:
    """Measure what was asked for; the twelve tables unless a part is named."""
    use_malloc_settings()
    options = arguments(__doc__ or "", parts=(NATS, *OTHERS), more=OPTIONS)
    chosen = [NATS] if len(options.part) > len(OTHERS) else options.part
    found = nats(options) if NATS in chosen else []
    found += measured(OTHERS, [part for part in chosen if part != NATS], quick=options.quick)
    report(found, options.json)


if __name__ == "__main__":
    main()
