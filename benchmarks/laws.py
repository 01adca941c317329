"""The laws of all cases: how exact the layers are, and on how many cases each law of derivatives and batches holds.

The cases are those of `tests/cases/`, with parameters moved from their start. Estimated log-determinants, and steps of
VAEs, which draw both ways, have statistical laws instead, which the tests check.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from tests.cases import LAYERS, SIZED, LayerCase, kinks
from torch import Tensor

from benchmarks.report import Entry, arguments, report
from likelify import Context, Transform, seeded, testing
from likelify.errors import DomainError

REST = ("fresh", "zero", "identity")


@dataclass(frozen=True)
class Outcome:
    """What a law says of a case: nothing if it holds."""

    case: str
    law: str
    broken: str = ""


def _try(name: str, law: str, check: Callable[[], object]) -> Outcome:
    try:
        with seeded(0):
            check()
    except Exception as error:  # noqa: BLE001 - what is counted
        return Outcome(name, law, f"{type(error).__name__}: {error}")
    return Outcome(name, law)


def log_det_error(layer: Transform, x: Tensor, context: Context) -> float:
    """Return the largest deviation of the contribution from slogdet of the Jacobian, in nats over max(1, D)."""
    contribution = layer(x, context)[1].detach()
    if context.structure is not None:
        jacobian = torch.autograd.functional.jacobian(lambda v: layer(v, context)[0], x)
        exact = torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel()))[1]
        return float((exact - contribution.sum()).abs()) / x.numel()
    worst = 0.0
    for row in range(len(x)):
        condition = None if context.condition is None else context.condition[row : row + 1]
        own = Context(condition)
        jacobian = torch.autograd.functional.jacobian(lambda v, own=own: layer(v, own)[0], x[row : row + 1])
        size = x[row].numel()
        exact = torch.linalg.slogdet(jacobian.reshape(size, size))[1]
        worst = max(worst, float((exact - contribution[row]).abs()) / max(1, size))
    return worst


def round_trip_error(layer: Transform, x: Tensor, context: Context) -> float:
    """Return the largest error of a round trip: of data or, for layers that draw in the inverse, of latents."""
    if layer.random_forward and layer.random_inverse:
        return 0.0  # there is no way back; `testing.check_weights` is their law
    with torch.no_grad():
        z, _ = layer(x, context)
        back, _ = layer.inverse(z, context)
        if layer.random_inverse:
            back, x = layer(back, context)[0], z
    return float((back - x).abs().max())


def exactness(*, seeds: int) -> list[Entry]:
    """Measure log-determinants and round trips."""
    log_dets, doubles, singles = {}, {}, {}
    for seed in range(seeds):
        for name, case in LAYERS.items():
            with seeded(seed):
                layer, x, context = case.ready()
                if not (layer.random_forward or layer.random_inverse or layer.noisy_log_det):
                    log_dets[name] = max(log_dets.get(name, 0.0), log_det_error(layer, x, context))
                for found, dtype in ((doubles, torch.float64), (singles, torch.float32)):
                    error = round_trip_error(*case.ready(dtype=dtype, scale=0.1))
                    found[name] = max(found.get(name, 0.0), error)
    entries = []
    for title, errors, unit, must in (
        ("log-determinant, float64", log_dets, "nats per dimension", 1e-9),
        ("round trip, float64", doubles, "", 1e-9),
        ("round trip, float32", singles, "", 1e-4),
    ):
        worst = max(errors, key=lambda name: errors[name])
        print(f"{title}: worst of {len(errors)} cases {errors[worst]:.2e} ({worst})")
        entries.append(Entry(title, errors[worst], unit, must))
    return entries


def kept_laws(*, quick: bool) -> list[Entry]:
    """Count the cases on which each law was tried, and those on which it is broken."""
    entries = []
    for title, tries in _all_tries(quick=quick):
        found = [_try(name, title, check) for name, check in tries]
        broken = [outcome for outcome in found if outcome.broken]
        print(f"{title}: {len(found)} cases, {len(broken)} broken")
        for outcome in broken:
            print(f"   {outcome.case}: {outcome.broken}")
        entries.append(Entry(f"{title}: cases", len(found), "", must=len(found), better="higher"))
        entries.append(Entry(f"{title}: broken", len(broken), "", must=0))
    return entries


def _all_tries(*, quick: bool) -> Iterator[tuple[str, list[tuple[str, Callable[[], object]]]]]:
    yield (
        "size coincidences",
        [
            (f"{name} at {sizes}", partial(_on, testing.check_rows, case.at(sizes), "random"))
            for name, case in SIZED.items()
            for sizes in (case.coincidences()[:1] if quick else case.coincidences())
        ],
    )
    for title, law in (
        ("first derivatives", testing.check_gradients),
        ("second order", testing.check_second_order),
        ("forward mode", testing.check_forward_mode),
    ):
        for at in ("random", *(() if quick else REST)):
            where = "random parameters" if at == "random" else f"{at} parameters"
            yield f"{title}, {where}", [(n, partial(_derivatives, law, case, at)) for n, case in LAYERS.items()]
    yield "two threads", [(n, partial(_on, testing.check_threads, case, "random")) for n, case in LAYERS.items()]


def _on(law: Callable[..., object], case: LayerCase, at: str) -> None:
    law(*case.ready(at))  # pyright: ignore[reportArgumentType]


def _derivatives(law: Callable[..., object], case: LayerCase, at: str) -> None:
    layer, x, context = case.ready(at)  # pyright: ignore[reportArgumentType]
    try:
        held = () if at == "random" else kinks(layer, 1 if law is testing.check_gradients else 2)
        law(layer, x, context, directions=case.directions, held=held)
    except DomainError as error:
        if at == "random" or "has lost its full rank" not in str(error):
            raise


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", seeds=5)
    entries = exactness(seeds=1 if options.quick else options.seeds)
    entries += kept_laws(quick=options.quick)
    assert all(math.isfinite(entry.value) for entry in entries)
    report(entries, options.json)


if __name__ == "__main__":
    main()
