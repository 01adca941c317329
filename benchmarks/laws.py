"""How exact the layers are: log-determinants against the autograd Jacobian, and round trips, worst over all cases.

The cases are those of `tests/cases/`, with parameters moved from their start. Estimated log-determinants, and steps of
VAEs, which draw both ways, have statistical laws instead, which the tests check.
"""

import torch
from tests.cases import LAYERS, LayerCase

from benchmarks.report import Entry, arguments, report
from likelify import Context, Transform, seeded
from likelify.structure import as_context
from likelify.testing import randomize


def log_det_error(layer: Transform, x: torch.Tensor, context: Context) -> float:
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


def round_trip_error(case: LayerCase, dtype: torch.dtype) -> float:
    """Return the largest error of a round trip: of data or, for layers that draw in the inverse, of latents."""
    layer = randomize(case.build(), scale=0.1).to(dtype)
    x, context = case.data(), as_context(case.context())
    x = x.to(dtype) if x.is_floating_point() else x
    condition = None if context.condition is None else context.condition.to(dtype)
    context = Context(condition, context.structure)
    with torch.no_grad():
        z, _ = layer(x, context)
        back, _ = layer.inverse(z, context)
        if layer.random_inverse:
            back, x = layer(back, context)[0], z
    return float((back - x).abs().max())


def main() -> None:
    """Measure every case and report the worst."""
    options = arguments(__doc__ or "", seeds=5)
    log_dets, doubles, singles = {}, {}, {}
    for seed in range(1 if options.quick else options.seeds):
        for name, case in LAYERS.items():
            with seeded(seed):
                layer = randomize(case.build(), scale=0.3, seed=seed).double()
                if layer.random_forward and layer.random_inverse:
                    continue  # there is no way back; `testing.check_weights` is their law
                if not (layer.random_forward or layer.random_inverse or layer.noisy_log_det):
                    error = log_det_error(layer, case.data(), as_context(case.context()))
                    log_dets[name] = max(log_dets.get(name, 0.0), error)
                doubles[name] = max(doubles.get(name, 0.0), round_trip_error(case, torch.float64))
                singles[name] = max(singles.get(name, 0.0), round_trip_error(case, torch.float32))
    entries = []
    for title, errors, unit, must in (
        ("log-determinant, float64", log_dets, "nats per dimension", 1e-9),
        ("round trip, float64", doubles, "", 1e-9),
        ("round trip, float32", singles, "", 1e-4),
    ):
        worst = max(errors, key=lambda name: errors[name])
        print(f"{title}: worst of {len(errors)} cases {errors[worst]:.2e} ({worst})")
        entries.append(Entry(title, errors[worst], unit, must))
    report(entries, options.json)


if __name__ == "__main__":
    main()
