"""Held-out nats per row of all models on all tables, and paired differences."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cells import measured
from benchmarks.report import Entry
from benchmarks.tables.cells import Cell
from benchmarks.tables.data import split_of, table
from benchmarks.tables.ours import OURS
from benchmarks.tables.rivals import RIVALS
from likelify.reproduce.render import markdown_rows

DEFAULT = next(iter(OURS))


@dataclass(frozen=True)
class Found:
    """Log-densities of the test rows of each split of a table.

    Attributes:
        splits: of each split an array, nats, of z-scored columns.
    """

    splits: tuple[np.ndarray, ...]

    def __sub__(self, other: "Found") -> "Found":
        """Return the differences row by row."""
        return Found(tuple(ours - theirs for ours, theirs in zip(self.splits, other.splits, strict=True)))

    def later(self) -> "Found":
        """Return the splits behind the first, by which settings of the default model were chosen."""
        return Found(self.splits[1:])

    @property
    def mean(self) -> float:
        """Mean over the splits."""
        return float(np.mean([rows.mean() for rows in self.splits]))

    @property
    def error(self) -> float:
        """Standard error of that mean: of rows, which splits have different ones of."""
        return math.sqrt(sum(rows.var(ddof=1) / len(rows) for rows in self.splits)) / len(self.splits)


def found(name: str, method: str, splits: int, seconds: float, folder: Path) -> Found:
    """Return what a model makes of a table."""
    cells = [Cell(name, method, split, seconds) for split in range(splits)]
    return Found(tuple(measured(cell, folder).log_probs for cell in cells))


def compared(name: str, methods: list[str], splits: int, seconds: float, folder: Path) -> dict[str, Found]:
    """Return what all models make of a table; a model that fails is said and left out."""
    results = {}
    for method in methods:
        try:
            results[method] = found(name, method, splits, seconds, folder)
        except RuntimeError as error:
            print(error, flush=True)
            continue
        print(f"{name:<20} {method:<28} {results[method].mean:9.3f} +- {results[method].error:.3f}", flush=True)
    return results


def entries(name: str, results: dict[str, Found]) -> list[Entry]:
    """Return the figures of a table, and how far the default model is above each of the others and the best of them."""
    found = [Entry(f"{name}: {method}", result.mean, "nats", better="higher") for method, result in results.items()]
    if best := best_rival(results):
        gain = results[DEFAULT] - results[best]
        found += [
            Entry(f"{name}: {DEFAULT} over {best}, the best of the others", gain.mean, "nats", 0.0, better="higher"),
            Entry(f"{name}: standard error of that", gain.error, "nats"),
        ]
        if len(gain.splits) > 1:
            found += [
                Entry(f"{name}: the same without the first split", gain.later().mean, "nats", better="higher"),
                Entry(f"{name}: standard error without the first split", gain.later().error, "nats"),
            ]
    return found


def best_rival(results: dict[str, Found]) -> str | None:
    """Return the best of the models that the default is compared with; None if it, or all of them, are missing."""
    rivals = [method for method in results if method in RIVALS]
    return max(rivals, key=lambda method: results[method].mean) if rivals and DEFAULT in results else None


def page(results: dict[str, dict[str, Found]]) -> str:
    """Return the figures as a table in Markdown, a row for each table."""
    methods = [method for method in (*RIVALS, *OURS) if any(method in row for row in results.values())]
    lines = [["table (training rows, columns)", *methods, "over the best of the others"]]
    for name, row in results.items():
        rows = table(name)
        cells = [f"{row[method].mean:.2f}" if method in row else "" for method in methods]
        gain = ""
        if best := best_rival(row):
            difference = row[DEFAULT] - row[best]
            gain = f"{difference.mean:.2f} +- {difference.error:.2f}"
        lines.append([f"{name} ({len(split_of(rows, 0).known)}, {rows.shape[1]})", *cells, gain])
    return markdown_rows(lines)


def won(results: dict[str, dict[str, Found]]) -> int:
    """Return on how many tables the default model is above the best of the others by more than two standard errors."""
    count = 0
    for row in results.values():
        if best := best_rival(row):
            gain = row[DEFAULT] - row[best]
            count += gain.mean > 2 * gain.error
    return count
