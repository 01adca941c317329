"""Run all cases, count their outcomes and report."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks import honesty
from benchmarks.honesty.flows import flows
from benchmarks.honesty.frozen import caches
from benchmarks.honesty.functions import wrong_functions
from benchmarks.honesty.gradients import gradients
from benchmarks.honesty.judging import CASES, Case
from benchmarks.honesty.limits import limits
from benchmarks.honesty.norms import large_norms, low_norms
from benchmarks.honesty.precisions import precisions
from benchmarks.honesty.shapes import graphs, shapes
from benchmarks.honesty.values import non_finite
from benchmarks.report import Entry, arguments, report
from likelify.errors import LikelifyError


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def outcome_of(case: Case, seed: int) -> str:
    """Run one case."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        with quiet():
            return case.run(seed)
    except LikelifyError as error:
        return f"refused: {type(error).__name__}: {error}"
    except AssertionError:
        raise
    except Exception as error:  # noqa: BLE001 - what is counted
        return f"cryptic: {type(error).__name__}: {error}"


def main() -> None:
    """Run all cases and print the table."""
    options = arguments(honesty.__doc__ or "")
    for fill in (
        non_finite,
        large_norms,
        low_norms,
        wrong_functions,
        shapes,
        graphs,
        limits,
        precisions,
        caches,
        gradients,
        flows,
    ):
        torch.manual_seed(0)
        fill()
    totals: Counter[str] = Counter()
    by_group: dict[str, Counter[str]] = {}
    lines = []
    for case in CASES:
        found = [outcome_of(case, seed) for seed in range(1 if options.quick else case.times)]
        kinds = Counter(outcome.split(":")[0].split(" (")[0] for outcome in found)
        group = by_group.setdefault(case.group, Counter())
        for kind, times in kinds.items():
            kind = f"{kind} (informative)" if case.informative and kind == "SILENT" else kind
            group[kind] += times
            totals[kind] += times
            if case.must == "accept" and kind in ("refused", "cryptic"):
                totals["wrongly refused"] += times
        notable = [
            o
            for o in found
            if o.startswith(("SILENT", "cryptic", "admitted")) or (case.must == "accept" and o != "right")
        ]
        if notable:
            outcomes = ", ".join(f"{times} {kind}" for kind, times in kinds.items())
            lines.append(
                f"[{case.group}] {case.name}: {outcomes}; {notable[0][:150]}" + " (informative)" * case.informative
            )
    print("\n".join(sorted(lines, key=lambda line: ("SILENT" not in line, "cryptic" not in line, line))))
    for name, group in by_group.items():
        print(f"{name:<14}", ", ".join(f"{times} {kind}" for kind, times in group.most_common()))
    entries = [
        Entry("silent failures", totals["SILENT"], f"of {sum(totals.values())}", 0),
        Entry("silent where nothing can be checked", totals["SILENT (informative)"], "cases"),
        Entry("refused though they should work", totals["wrongly refused"], "cases", 0),
        Entry("errors without a message of the library", totals["cryptic"], "cases", aim=0),
        Entry(
            "wrong by more than the tolerance, and said so",
            totals["admitted"] + totals["admitted as rounding"],
            "cases",
        ),
    ]
    report(entries, options.json)


if __name__ == "__main__":
    main()
