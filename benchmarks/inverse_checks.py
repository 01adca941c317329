"""What looking at inverses costs: samples and single items with the check and without it, and a layer without one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import likelify as lk
from benchmarks.report import Entry, arguments, report
from benchmarks.timing import medians, use_malloc_settings
from likelify import zoo
from likelify.transforms import unchecked

# Mixing layers and couplings of the glow that is sampled from.
KINDS = (
    ("1x1", "affine"),
    ("1x1", "spline"),
    ("conv-exponential", "affine"),
    ("woodbury", "affine"),
    ("emerging", "affine"),
)
SHAPE, LEVELS, STEPS, MANY = (3, 32, 32), 2, 4, 64


def without(run: Callable[[], Any]) -> Callable[[], Any]:
    """Return the same with nothing looked at."""

    def plain() -> Any:
        with unchecked():
            return run()

    return plain


def more(run: Callable[[], Any], repeats: int) -> float:
    """Return how much longer a run takes with the check, in %."""
    found = medians({"checked": run, "plain": without(run)}, repeats)
    return 100 * (found["checked"] / found["plain"] - 1)


def sampling(mixing: str, coupling: str, repeats: int) -> list[Entry]:
    """Return what the check costs when many images are drawn at once, and when it is one."""
    flow = zoo.build("glow", event_shape=SHAPE, levels=LEVELS, steps=STEPS, mixing=mixing, coupling=coupling)

    def many() -> Tensor:
        with flow.frozen():
            return flow.sample((MANY,))

    name = f"{mixing}, {coupling}"
    return [
        Entry(f"{MANY} images, {name}", more(many, repeats), "% more"),
        Entry(f"one image, {name}", more(lambda: flow.sample((1,)), repeats), "% more"),
    ]


def main() -> None:
    """Time all kinds, interleaved with and without the check."""
    use_malloc_settings()
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    repeats, entries = 2 if options.quick else 9, []
    with torch.no_grad(), lk.seeded(0):
        for mixing, coupling in KINDS[: 1 if options.quick else None]:
            entries += sampling(mixing, coupling, repeats)
        layer, z = lk.ActNorm(3), torch.randn(MANY, 3)
        entries.append(Entry("64 rows of ActNorm(3)", more(lambda: layer.inverse(z), 100 * repeats), "% more"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
