"""Mixed precision: how far log p of fitted digits flows is from float32 inside `torch.autocast` with bfloat16.

Each flow is fitted for a while in float32; then test images, with the same dequantization noise, are measured once
outside of autocast and once inside. Layers leave autocast but for the networks of couplings and of conditional
densities, whose last layers and results are in float32.
"""

from typing import Any

import torch

from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import Flow, seeded
from likelify.data import Source, open_source
from likelify.fitting import recipes
from likelify.fitting.loop import fit
from likelify.zoo import config_from_dict

ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "glow, affine couplings": ("glow", {"coupling": "affine"}),
    "glow, spline couplings": ("glow", {"coupling": "spline"}),
    "marginal-spline": ("marginal-spline", {}),
    "sylvester": ("sylvester", {}),
    "residual": ("residual", {"log_det": "truncated"}),
}
SECONDS, QUICK_SECONDS = 60.0, 6.0


def fitted(name: str, source: Source, seconds: float) -> Flow:
    """Fit the flow of one row."""
    model, settings = ROWS[name]
    values = {"model": model, "event_shape": source.event_shape, "pixel_levels": source.levels}
    with seeded(0):
        flow = config_from_dict(values | recipes.images.SOURCES["digits"].models.get(model, {}) | settings).build()
    fit(flow, source, timed(recipes.images.SOURCES["digits"].fit(model), seconds, 0))
    return flow


@torch.no_grad()
def log_weights(flow: Flow, x: torch.Tensor, *, autocast: bool) -> torch.Tensor:
    """Return log p of images with one draw of noise, which is that of every call."""
    with seeded(1), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return flow.elbo(x).value.double()


def measure(name: str, source: Source, seconds: float) -> list[Entry]:
    """Fit one row and compare."""
    flow = fitted(name, source, seconds)
    x = source.read_all("test").x
    plain = log_weights(flow, x, autocast=False)
    off = log_weights(flow, x, autocast=True) - plain
    print(
        f"{name:<24} log p {float(plain.mean()):9.3f}; autocast: mean {float(off.mean()):+.5f}, "
        f"mean size {float(off.abs().mean()):.5f}, largest {float(off.abs().max()):.5f} nats of {len(x)} images",
        flush=True,
    )
    return [
        Entry(f"autocast, {name}: mean difference", abs(float(off.mean())), "nats", 0.01),
        Entry(f"autocast, {name}: mean size of the difference", float(off.abs().mean()), "nats"),
        Entry(f"autocast, {name}: largest of {len(x)} images", float(off.abs().max()), "nats"),
    ]


def main() -> None:
    """Fit all rows and report."""
    options = arguments(__doc__ or "")
    source = open_source("digits")
    seconds = QUICK_SECONDS if options.quick else SECONDS
    report([entry for name in ROWS for entry in measure(name, source, seconds)], options.json)


if __name__ == "__main__":
    main()
