"""Run the parts one after the other and print one table."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks import device
from benchmarks.device.exponentials import exponentials
from benchmarks.device.fits import defaults, fits
from benchmarks.device.laws import laws
from benchmarks.device.steps import steps
from benchmarks.device.syncs import syncs
from benchmarks.report import Entry, arguments, report, write


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        measure: takes the device, the time at which it should end, and whether a first impression is enough.
        seconds: its share of the time.
        on_cpu: whether it says anything without an accelerator.
    """

    measure: Callable[..., list[Entry]]
    seconds: float
    on_cpu: bool = False


PARTS = {
    "laws": Part(laws, 100, on_cpu=True),
    "syncs": Part(syncs, 60),
    "exponentials": Part(exponentials, 20),
    "fits": Part(fits, 70, on_cpu=True),
    "defaults": Part(defaults, 50, on_cpu=True),
    "steps": Part(steps, 150),
}


def chosen_device() -> torch.device:
    """Return the accelerator, or the CPU where there is none."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return torch.device("cpu") if found is None else torch.device(found.type)


def name_of(place: torch.device) -> str:
    """Return the name of the card."""
    return torch.cuda.get_device_name() if place.type == "cuda" else place.type


def main() -> None:
    """Measure what was chosen."""
    options = arguments(device.__doc__ or "", parts=PARTS)
    place = chosen_device()
    print(f"device: {name_of(place)}, torch {torch.__version__}")
    entries: list[Entry] = []
    for name in options.part:
        part = PARTS[name]
        if place.type != "cuda" and not part.on_cpu:
            print(f"== {name}: left out, it needs a CUDA device")
            continue
        print(f"== {name}", flush=True)
        seconds = 20 if options.quick else part.seconds
        found = part.measure(place, time.monotonic() + seconds, quick=options.quick)
        entries += found
        # All there is so far is written, for a machine may be lent for minutes only.
        report(found, None)
        write(entries, options.json)


if __name__ == "__main__":
    main()
