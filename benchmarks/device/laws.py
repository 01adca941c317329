"""The laws of every layer on a device: in float64 as the tests have them, in float32 against float64."""

import time
from collections.abc import Callable

import torch
from tests.cases import LAYERS, LayerCase
from torch import Tensor

from benchmarks.report import Entry
from likelify import seeded
from likelify.structure import Context, as_context
from likelify.testing import check_transform
from likelify.transforms.core import Transform

# Float32 may be this far from float64, relative to 1 plus the size of what is compared.
ROUNDING = 1e-3
# Parameters are moved less in float32, where ill-conditioned layers lose digits for good reasons.
FLOAT32_SCALE = 0.1


def float64_law(case: LayerCase, device: str) -> None:
    """Check round trip, Jacobian, gradients and state (`testing.check_transform`)."""
    check_transform(*case.ready(device=device))


def float32_law(case: LayerCase, device: str) -> None:
    """Check the round trip, and values, contributions and gradients against the same layer in float64."""
    layer, x, context = case.ready(dtype=torch.float32, scale=FLOAT32_SCALE, device=device)
    draws = layer.random_forward, layer.random_inverse
    if not any(draws):
        with torch.no_grad():
            back = layer.inverse(layer(x, context)[0], context)[0]
        _require_close(back, x, "round trip")
    if draws[0] or layer.noisy_log_det:
        return
    single = _results(layer, x, context)
    double = _results(layer.double(), x.double() if x.is_floating_point() else x, _doubled(context))
    for name, found in single.items():
        _require_close(found, double[name], name)


def _doubled(context: Context) -> Context:
    return Context(None if context.condition is None else context.condition.double(), context.structure)


def _results(layer: Transform, x: Tensor, context: Context) -> dict[str, Tensor]:
    z, contribution = layer(x, as_context(context))
    found = {"value": z.detach(), "contribution": contribution.detach()}
    trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    total = z.square().sum() + contribution.sum()
    if trained and total.requires_grad:
        grads = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        found |= {f"gradient of {name}": g for name, g in zip(trained, grads, strict=True) if g is not None}
    return found


def _require_close(found: Tensor, expected: Tensor, what: str) -> None:
    if not found.numel():
        return
    scale = 1 + float(expected.double().abs().max())
    error = float((found.double() - expected.double()).abs().max()) / scale
    if not error <= ROUNDING:
        raise AssertionError(f"{what}: relative error {error:.2g}")


def _failures(law: Callable[[LayerCase, str], None], device: str, end: float, step: int) -> tuple[int, int, int]:
    """Return how many cases were tried, failed, and were left out for lack of time."""
    tried = failed = left_out = 0
    for name, case in list(LAYERS.items())[::step]:
        if time.monotonic() > end:
            left_out += 1
            continue
        tried += 1
        try:
            with seeded(0):
                law(case, device)
        except Exception as error:  # noqa: BLE001 - what is counted
            failed += 1
            print(f"{law.__name__} of {name}: {type(error).__name__}: {str(error)[:200]}")
    return tried, failed, left_out


def laws(device: torch.device, end: float, *, quick: bool) -> list[Entry]:
    """Run both laws over all cases of `tests/cases`, float32 first, which takes little."""
    entries, kind, start = [], device.type, time.monotonic()
    for law, until in ((float32_law, start + (end - start) / 3), (float64_law, end)):
        tried, failed, left_out = _failures(law, kind, until, 6 if quick else 1)
        name = law.__name__.removesuffix("_law")
        entries += [
            Entry(f"laws in {name}, {kind}: failures", failed, f"of {tried} cases", 0),
            Entry(f"laws in {name}, {kind}: left out for lack of time", left_out, "cases", 0),
        ]
    return entries
