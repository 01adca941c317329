"""Run all cases, count their outcomes and report."""

import random
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks import honesty
from benchmarks.honesty.autocast import autocasts
from benchmarks.honesty.door import door
from benchmarks.honesty.flows import flows
from benchmarks.honesty.frozen import caches
from benchmarks.honesty.functions import wrong_functions
from benchmarks.honesty.gradients import gradients
from benchmarks.honesty.inverses import inverses
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


GROUPS = (
    non_finite,
    large_norms,
    low_norms,
    wrong_functions,
    shapes,
    graphs,
    limits,
    precisions,
    autocasts,
    caches,
    gradients,
    flows,
    door,
    inverses,
)


def cases() -> list[Case]:
    """Return the cases of all groups."""
    for group in GROUPS:
        torch.manual_seed(0)
        group()
    return CASES


@dataclass
class Tally:
    """Counts of outcomes.

    Attributes:
        totals: of all cases, by kind of outcome.
        groups: the same for each group of cases.
        notable: a line for each case that has an outcome other than expected.
    """

    totals: Counter[str] = field(default_factory=Counter)
    groups: dict[str, Counter[str]] = field(default_factory=dict)
    notable: list[str] = field(default_factory=list)

    def count(self, case: Case, outcomes: list[str]) -> None:
        """Count the outcomes of a case, one for each seed."""
        kinds = Counter(outcome.split(":")[0].split(" (")[0] for outcome in outcomes)
        remark = " (informative)" * case.informative
        for kind, times in kinds.items():
            name = kind + remark * (kind == "SILENT")
            self.groups.setdefault(case.group, Counter())[name] += times
            self.totals[name] += times
            if case.must == "accept" and kind in ("refused", "cryptic"):
                self.totals["wrongly refused"] += times
        odd = [outcome for outcome in outcomes if outcome.startswith(("SILENT", "cryptic", "admitted"))]
        if case.must == "accept":
            odd = [outcome for outcome in outcomes if outcome != "right"]
        if odd:
            counts = ", ".join(f"{times} {kind}" for kind, times in kinds.items())
            self.notable.append(f"[{case.group}] {case.name}: {counts}; {odd[0][:150]}{remark}")

    def show(self) -> None:
        """Print the notable cases, silent ones first, and the counts of each group."""
        print("\n".join(sorted(self.notable, key=lambda line: ("SILENT" not in line, "cryptic" not in line, line))))
        for name, group in self.groups.items():
            print(f"{name:<14}", ", ".join(f"{times} {kind}" for kind, times in group.most_common()))

    def entries(self) -> list[Entry]:
        """Return the figures of the report."""
        found = self.totals
        admitted = found["admitted"] + found["admitted as rounding"]
        return [
            Entry("silent failures", found["SILENT"], f"of {sum(found.values())}", 0),
            Entry("silent where nothing can be checked", found["SILENT (informative)"], "cases"),
            Entry("refused though they should work", found["wrongly refused"], "cases", 0),
            Entry("errors without a message of the library", found["cryptic"], "cases", aim=0),
            Entry("wrong by more than the tolerance, and said so", admitted, "cases"),
        ]


def main() -> None:
    """Run all cases and print the table."""
    options = arguments(honesty.__doc__ or "")
    tally = Tally()
    for case in cases():
        tally.count(case, [outcome_of(case, seed) for seed in range(1 if options.quick else case.times)])
    tally.show()
    report(tally.entries(), options.json)


if __name__ == "__main__":
    main()
