"""What all benchmarks share: their options, and how they print and save figures."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.timing import use_malloc_settings
from likelify import seeded


@dataclass(frozen=True)
class Entry:
    """One figure that an issue or the README names."""

    name: str
    value: float
    unit: str
    must: float | None = None
    aim: float | None = None
    better: Literal["higher", "lower"] = "lower"


def arguments(
    description: str,
    *,
    seeds: int | None = None,
    parts: Iterable[str] = (),
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """Parse the options every benchmark has and `more` of its own, and set one thread.

    Args:
        description: of the benchmark, for its help.
        seeds: how many there are by default, for benchmarks that have seeds.
        parts: of which some may be chosen.
        more: options of its own.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a run of under a minute, for a first impression")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    if seeds is not None:
        parser.add_argument("--seeds", type=int, default=seeds, help="number of seeds, from 0")
    parts = list(parts)
    if parts:
        text = "measure only this; may be given several times"
        parser.add_argument("--part", action="append", choices=parts, default=None, help=text)
    for name, settings in (more or {}).items():
        parser.add_argument(name, **settings)
    torch.set_num_threads(1)
    options = parser.parse_args()
    if parts:
        options.part = options.part or parts
    return options


def measured(
    parts: Mapping[str, Callable[..., list[Entry]]], chosen: Iterable[str] | None = None, *, quick: bool
) -> list[Entry]:
    """Return the figures of some parts, of all by default; each part is a function of `quick` and has its own seed."""
    entries: list[Entry] = []
    for part in parts if chosen is None else chosen:
        print(f"== {part}", flush=True)
        with seeded(0):
            entries += parts[part](quick=quick)
    return entries


def run_parts(description: str, parts: Mapping[str, Callable[..., list[Entry]]]) -> None:
    """Run a benchmark of running times that has parts: parse the options, measure what was chosen, and report."""
    use_malloc_settings()
    options = arguments(description, parts=parts)
    report(measured(parts, options.part, quick=options.quick), options.json)


def readable(value: float) -> str:
    """Return a figure as text: counts as they are, all else with four decimals or two digits of a small number."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def report(entries: list[Entry], file: Path | None) -> None:
    """Print the figures as a table, and write them as JSON if asked to."""
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        goal = "" if entry.must is None else f"   must {'>=' if entry.better == 'higher' else '<='} {entry.must:g}"
        goal += "" if entry.aim is None else f", aim {entry.aim:g}"
        print(f"{entry.name:<{width}}  {readable(entry.value):>10} {entry.unit}{goal}")
    write(entries, file)


def write(entries: list[Entry], file: Path | None) -> None:
    """Write the figures as JSON, if a file is given."""
    if file is not None:
        file.write_text(json.dumps([asdict(entry) for entry in entries], indent=2) + "\n")
