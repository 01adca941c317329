"""Run all cases and count violations."""

import random
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np

from benchmarks import certificates
from benchmarks.certificates.checks import Case, flow_case, run
from benchmarks.certificates.kinds import KINDS
from benchmarks.report import Entry, arguments, report

CASES, QUICK = 10_000, 500


def attempt(run_one: Callable[[int], Case], seed: int) -> Case:
    """Run a case; an error that is not a refusal of the library counts as a crash."""
    try:
        return run_one(seed)
    except Exception as error:  # noqa: BLE001 - what is counted
        where = traceback.extract_tb(error.__traceback__)[-1]
        random_name = random.Random(seed).choice(list(KINDS)) if run_one is run else "flow"
        place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
        case = Case(random_name)
        case.settings["crash"] = f"{type(error).__name__} at {place}: {str(error)[:100]}"
        return case


def show(cases: dict[int, Case]) -> None:
    """Print every violation, crash and refusal."""
    refusals: dict[tuple[str, str], list[int]] = defaultdict(list)
    crashes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for seed, case in cases.items():
        if "crash" in case.settings:
            crashes[case.name, case.settings["crash"]].append(seed)
        if case.refused is not None:
            refusals[case.name, case.refused[:70]].append(seed)
        for check, observed, bound in {c: (c, o, b) for c, o, b in case.found}.values():
            settings = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in case.settings.items()}
            print(f"VIOLATED seed {seed} {case.name}: {check} {observed:.3e} > {bound:.3e} {settings}")
    for title, table in (("CRASH", crashes), ("refused", refusals)):
        for (name, message), seeds in sorted(table.items(), key=lambda item: -len(item[1])):
            print(f"{title} {len(seeds)} times {name}: {message} (seeds {seeds[:4]})")


def main() -> None:
    """Run all cases and count."""
    options = arguments(certificates.__doc__ or "")
    count = QUICK if options.quick else CASES
    cases = {seed: attempt(run, seed) for seed in range(count)}
    flows = {seed: attempt(flow_case, seed) for seed in range(max(20, count // 50))}
    show(cases)
    show(flows)
    every = [*cases.values(), *flows.values()]
    checked: Counter[str] = Counter()
    violated: Counter[str] = Counter()
    ratios: dict[str, list[float]] = defaultdict(list)
    by_kind: Counter[tuple[str, str]] = Counter()
    for case in every:
        for name, ratio in case.ratios.items():
            checked[name] += 1
            ratios[name].append(ratio)
        for name in {name for name, *_ in case.found}:
            violated[name] += 1
            by_kind[case.name, name] += 1
    for (kind, name), times in by_kind.most_common():
        print(f"{times} of {sum(case.name == kind for case in every)} {kind}: {name}")
    for name, values in ratios.items():
        middle, high = np.quantile(values, (0.5, 0.99))
        print(f"{name}: observed over bound, median {middle:.2g}, 99th percentile {high:.2g}")
    entries = [Entry(f"{name} violated (of {total})", violated[name], "cases", 0) for name, total in checked.items()]
    entries.append(Entry("crashes", sum("crash" in case.settings for case in every), "cases", 0))
    entries.append(Entry("refused", sum(case.refused is not None for case in every), "cases"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
