"""Digits, side by side: likelify's default flow against zuko's neural spline flows, autoregressive and coupling.

Same split, same uniform dequantization, same training loop (batches, moving average, validation, cosine), same
processor seconds, one thread, paired seeds. The rivals stand on a per-pixel standardisation; their learning rate is the
best of 0.5e-3, 1e-3, 2e-3, 4e-3 and 8e-3 on the validation split (seed 0, 60 s each).
"""

import statistics
import time

import zuko
from torch import Tensor, nn

from benchmarks.fits import timed
from benchmarks.report import Entry, arguments, report
from likelify import ActNorm, Chain, Dequantize, Distribution, Flatten, Flow, seeded, zoo
from likelify.data import Source, open_source
from likelify.fitting import recipes
from likelify.fitting.loop import fit
from likelify.fitting.metrics import evaluate
from likelify.structure import ContextLike

OURS = "likelify marginal-spline"
RIVALS = {"zuko NSF autoregressive": {}, "zuko NSF coupling": {"passes": 2}}
RIVAL_LR = 8e-3
SAMPLES = 1000


class Zuko(Distribution):
    """A zuko flow as a base distribution."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, x: Tensor, context: ContextLike = None) -> Tensor:
        """Return zuko's log-density."""
        return self.flow().log_prob(x)

    def rsample(self, shape: tuple[int, ...] = (), context: ContextLike = None) -> Tensor:
        """Draw by zuko."""
        return self.flow().sample(shape)


def build(name: str, source: Source, seed: int) -> tuple[Flow, dict]:
    """Build a model; return it with the settings of its fit."""
    with seeded(seed):
        if name == OURS:
            flow = zoo.build("marginal-spline", event_shape=source.event_shape, pixel_levels=source.levels)
            return flow, recipes.FITS["marginal-spline"]
        rival = zuko.flows.NSF(64, transforms=5, bins=8, hidden_features=(256, 256), randperm=True, **RIVALS[name])
        layers = Chain([Dequantize(source.levels), Flatten(source.event_shape), ActNorm(64)])
        return Flow(Zuko(rival), layers, event_shape=source.event_shape), {"lr": RIVAL_LR, "average": 0.995}


def sampling_seconds(flow: Flow) -> float:
    """Return the median processor time of 1,000 samples."""
    times = []
    with flow.frozen():
        for _ in range(5):
            start = time.process_time()
            flow.sample((SAMPLES,))
            times.append(time.process_time() - start)
    return statistics.median(times)


def run(name: str, source: Source, seed: int, seconds: float) -> tuple[float, float]:
    """Fit once; return test bits/dim (ELBO, 10 draws) and the sampling time."""
    flow, fitting = build(name, source, seed)
    result = fit(flow, source, timed(fitting, seconds, seed))
    measured = evaluate(flow, source, elbo_samples=10, iw_samples=0)
    # An autoregressive flow needs 64 passes for a sample; its time (20 s) is not what is compared.
    drawing = sampling_seconds(flow) if name != "zuko NSF autoregressive" else float("nan")
    best = min(point.validation_bits for point in result.points)
    print(
        f"seed {seed}  {name:<26} {result.steps} steps  {result.seconds:.0f} processor s  validation "
        f"{best:.4f}  test {measured.elbo.bits.mean:.4f} bits/dim  {SAMPLES} samples {drawing:.2f} s",
        flush=True,
    )
    return measured.elbo.bits.mean, drawing


def main() -> None:
    """Run all models and seeds and report."""
    options = arguments(__doc__ or "", seeds=3)
    source = open_source("digits")
    seeds, seconds = (1, 12.0) if options.quick else (options.seeds, 90.0)
    bits: dict[str, list[float]] = {name: [] for name in (OURS, *RIVALS)}
    drawing: dict[str, list[float]] = {name: [] for name in bits}
    for seed in range(seeds):
        for name in bits:
            measured, spent = run(name, source, seed, seconds)
            bits[name].append(measured)
            drawing[name].append(spent)
    entries = [Entry(f"digits {name}", statistics.mean(values), "bits/dim") for name, values in bits.items()]
    entries[0] = Entry(entries[0].name, entries[0].value, "bits/dim", 1.87, 1.82)
    for name in RIVALS:
        gaps = [rival - ours for rival, ours in zip(bits[name], bits[OURS], strict=True)]
        entries.append(Entry(f"digits gain over {name}, worst seed", min(gaps), "bits/dim", 0.10, None, "higher"))
    coupling = statistics.median(drawing["zuko NSF coupling"])
    faster = coupling / statistics.median(drawing[OURS])
    entries.append(Entry("digits sampling, times faster than the coupling NSF", faster, "x", 1.5, None, "higher"))
    report(entries, options.json)


if __name__ == "__main__":
    main()
