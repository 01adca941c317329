"""How many terms a fitted flow needs: bits/dim, round-trip error and certificate against degree, tolerance and norm.

One glow with convolution-exponential mixing is fitted to digits for each norm limit, at the default tolerance. Then
only its degree or its tolerance is changed. The published code uses 6 terms in training and 13 in evaluation.
"""

import math

import torch

from benchmarks.report import Entry, arguments, report
from likelify import Exponential, Flow, seeded, zoo
from likelify.data import open_source
from likelify.fitting.loop import fit
from likelify.fitting.settings import FitSettings
from likelify.linalg.expm import recorded

NORM_LIMITS = (0.9, 1.8, 3.6)
DEGREES = (1, 2, 3, 4, 5, 6, 8, 10, 13)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)


def measure(flow: Flow, x: torch.Tensor, *, degree: int | None, tol: float | None) -> tuple[float, float, float, float]:
    """Return bits/dim, the largest round-trip error in pixels, the certificate in nats and the mean number of terms."""
    layers = [module for module in flow.modules() if isinstance(module, Exponential)]
    for layer in layers:
        layer.degree, layer.tol = degree, tol
    with torch.no_grad(), seeded(0):
        bits = -float(flow.elbo(x).value.mean()) / (x[0].numel() * math.log(2))
    with torch.no_grad():
        # Without the dequantization in front, whose inverse rounds and so hides errors; one level, so that no half of
        # the channels is drawn anew.
        bijection = flow.transform[1:]
        noisy = x + 0.5
        gap = float((bijection.inverse(bijection(noisy)[0])[0] - noisy).abs().max())
        certificate = flow.certificate(x[:32])
        with recorded() as found:
            flow.transform(x[:32])
    terms = sum(diagnostics.operator_calls for diagnostics in found) / len(found)
    return bits, gap, float(certificate.nats.max()), terms


def main() -> None:
    """Fit for each norm limit and measure."""
    options = arguments(__doc__ or "")
    source = open_source("digits")
    entries = []
    for limit in NORM_LIMITS[1:2] if options.quick else NORM_LIMITS:
        with seeded(0):
            flow = zoo.build(
                "glow",
                event_shape=source.event_shape,
                levels=1,
                pixel_levels=source.levels,
                mixing="conv-exponential",
                hidden=32,
                norm_limit=limit,
            )
        steps = 60 if options.quick else 600
        fit(flow, source, FitSettings(steps=steps, lr=2e-3, batch_size=64, average=0.99, validations=3, seed=0))
        x = source.read_all("test").x
        best = measure(flow, x, degree=None, tol=1e-7)[0]
        print(f"norm limit {limit}: {best:.4f} bits/dim with every term")
        rows = [(f"{k} terms", {"degree": k, "tol": None}) for k in DEGREES]
        rows += [(f"tol {tol:g}", {"degree": None, "tol": tol}) for tol in TOLERANCES]
        for name, settings in rows:
            bits, gap, nats, terms = measure(flow, x, **settings)
            print(
                f"  {name:<10} {terms:5.1f} applied   {bits - best:+.5f} bits/dim   round trip {gap:.1e}   "
                f"certificate {nats:.1e} nats"
            )
            title = f"norm limit {limit}, {name}"
            entries.append(Entry(f"{title}: change of the bound", abs(bits - best), "bits/dim"))
            entries.append(Entry(f"{title}: round trip", gap, "grey levels"))
            if math.isfinite(nats):
                entries.append(Entry(f"{title}: certificate", nats, "nats"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
