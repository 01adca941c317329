"""How long `import likelify` with every public name takes beside `import torch`, and `likelify --help`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Entry, arguments, report

TORCH = "import torch"
ALL = "import torch, likelify\nfor name in likelify.__all__: getattr(likelify, name)"


def seconds(*command: str) -> float:
    """Time one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Interleave the processes and report medians."""
    options = arguments(__doc__ or "")
    rounds = 3 if options.quick else 9
    program = str(Path(sys.executable).with_name("likelify"))
    commands = {
        "torch": (sys.executable, "-c", TORCH),
        "likelify": (sys.executable, "-c", ALL),
        "help": (program, "--help"),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for index in range(rounds + 1):
        for name, command in commands.items():
            spent = seconds(*command)
            if index:  # the first round warms the disk cache
                times[name].append(spent)
    ratio = statistics.median(a / b for a, b in zip(times["likelify"], times["torch"], strict=True))
    entries = [
        Entry("import torch", statistics.median(times["torch"]), "s"),
        Entry("import likelify, all names, against torch", ratio, "x", 1.1),
        Entry("likelify --help", statistics.median(times["help"]), "s", 0.6),
    ]
    report(entries, options.json)


if __name__ == "__main__":
    main()
