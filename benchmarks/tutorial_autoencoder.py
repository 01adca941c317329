"""An autoencoder of digits as a generative model: bits/dim, errors of reconstruction, and what samples are like.

Behind `docs/tutorials/autoencoder.md`. The encoder is flowified with its weights, so that the base lives on the 8
dimensions of the bottleneck; for comparison the whole autoencoder, whose base lives on pixels. A full run also draws
the page's picture.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import likelify as lk
from benchmarks import tutorial_digits
from benchmarks.report import Entry, arguments, report
from benchmarks.tutorial_digits import LEVELS, SHAPE, converted, scaled, tune, whitened
from likelify.data import Source, open_source
from likelify.fitting.metrics import evaluate

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "tutorial-autoencoder.png"
CODE = 8


class Autoencoder(nn.Module):
    """Two networks with a bottleneck of 8 units between them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Sequential(nn.Linear(CODE, 32), nn.LeakyReLU(0.2), nn.Linear(32, 64), nn.Unflatten(1, SHAPE))

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct scaled images."""
        return self.decoder(self.encoder(x))


def dense() -> nn.Module:
    """Build an encoder of linear layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, CODE))


def convolutional() -> nn.Module:
    """Build an encoder of convolutions without overlap or padding, which need no noise."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 2, stride=2),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 12, 2, stride=2),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(48, CODE),
    )


def train(model: nn.Module, source: Source, steps: int) -> None:
    """Train an autoencoder by squared errors, with pixels anywhere in their levels."""
    data = source.read_all("train").x

    def loss(rows: Tensor) -> Tensor:
        x = data[rows]
        return F.mse_loss(model(scaled(x, torch.rand(x.shape))), scaled(x))

    tutorial_digits.train(model, loss, len(data), steps, lr=4e-3, weight_decay=1e-4)


@dataclass(frozen=True)
class Row:
    """A model to be made: a network of an autoencoder, and whether its weights are kept."""

    encoder: Callable[[], nn.Module]
    whole: bool = False
    keep: bool = False


ROWS = {
    "encoder, weights kept": Row(dense, keep=True),
    "encoder, all tuned": Row(dense),
    "convolutional encoder, all tuned": Row(convolutional),
    "whole autoencoder, all tuned": Row(dense, whole=True),
}


def flowified(net: nn.Module, *, keep: bool) -> lk.Flow:
    """Turn a network into a density of images; behind an encoder, a linear layer makes the codes white."""
    flow = converted(net, keep=keep)
    return whitened(flow) if flow.transform.out_shape(SHAPE) == (CODE,) else flow


def squared_error(images: Tensor, others: Tensor) -> float:
    """Return the mean squared difference in grey levels."""
    return float((images.float() - others.float()).square().mean())


def in_levels(images: Tensor) -> Tensor:
    """Bring scaled images back to pixels, rounded to the levels."""
    return ((images + 1) / 2 * LEVELS).floor().clamp(0, LEVELS - 1)


@torch.no_grad()
def mean_samples(flow: lk.Flow, count: int) -> Tensor:
    """Draw a latent, and take the mean inverse of every layer."""
    return flow.transform.mean_inverse(flow.base.sample((count,)))


@torch.no_grad()
def reconstructed(flow: lk.Flow, x: Tensor) -> Tensor:
    """Return the mean inverse of the latents of images: a decoder that nobody trained as one."""
    return flow.transform.mean_inverse(flow.transform.mean_forward(x))


def roughness(images: Tensor) -> float:
    """Return the mean squared difference of neighbouring pixels, in grey levels."""
    images = images.float()
    return float(images.diff(dim=2).square().mean() + images.diff(dim=3).square().mean()) / 2


def run(
    source: Source, seed: int, seconds: float, steps: int
) -> tuple[dict[str, float], dict[str, lk.Flow], nn.Module]:
    """Fit all rows for one seed; return the figures, the flows and the dense autoencoder."""
    models: dict[Callable[[], nn.Module], Autoencoder] = {}
    for build in (dense, convolutional):
        with lk.seeded(seed):
            models[build] = Autoencoder(build())
            train(models[build], source, steps)
    x = source.read_all("test").x
    noise = torch.randint(LEVELS, x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        figures = {"error, autoencoder": squared_error(in_levels(models[dense](scaled(x))), x)}
    figures |= {"error, mean digit": squared_error(source.read_all("train").x.float().mean(0), x)}
    figures |= {"roughness, test digits": roughness(x), "roughness, noise": roughness(noise)}
    flows = {}
    for name, row in ROWS.items():
        model = models[row.encoder]
        with lk.seeded(seed):
            flows[name] = flow = flowified(model if row.whole else model.encoder, keep=row.keep)
        tune(flow, source, seconds, seed)
        figures |= measured(name, flow, source, noise)
    return figures, flows, models[dense]


def measured(name: str, flow: lk.Flow, source: Source, noise: Tensor) -> dict[str, float]:
    """Measure one flow."""
    x = source.read_all("test").x
    found = evaluate(flow, source, elbo_samples=8, iw_samples=16)
    assert found.iw is not None
    with torch.no_grad(), lk.seeded(1):
        gap = float(flow.elbo(x, samples=4).value.mean() - flow.elbo(noise, samples=4).value.mean())
        return {
            f"bits/dim, {name}": found.elbo.bits.mean,
            f"bits/dim of 16 draws, {name}": found.iw.bits.mean,
            f"digits above noise, {name}": gap,
            f"error, {name}": squared_error(reconstructed(flow, x), x),
            f"roughness of samples, {name}": roughness(flow.sample((360,))),
            f"roughness of mean samples, {name}": roughness(mean_samples(flow, 360)),
        }


def draw(flow: lk.Flow, model: nn.Module, source: Source, file: Path) -> None:
    """Draw digits, both reconstructions, and both kinds of samples."""
    from matplotlib.figure import Figure

    from likelify.plots import grid_of

    x = source.read_all("test").x[:20]
    with torch.no_grad(), lk.seeded(0):
        panels = {
            "digits": x,
            "autoencoder": in_levels(model(scaled(x))),
            "flow, mean inverse": reconstructed(flow, x),
            "samples, mean inverse": mean_samples(flow, 20),
            "samples, drawn": flow.sample((20,)),
        }
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    for axis, (title, images) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        axis.imshow(grid_of(images, LEVELS, columns=4), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.savefig(file, dpi=90)


def unit_of(name: str) -> str:
    """Return the unit of a figure."""
    for start, unit in (("bits", "bits/dim"), ("digits above", "nats")):
        if name.startswith(start):
            return unit
    return "squared grey levels"


def main() -> None:
    """Fit for all seeds and report."""
    options = arguments(__doc__ or "", seeds=3)
    source = open_source("digits")
    seeds, seconds, steps = (1, 3.0, 300) if options.quick else (options.seeds, 6.0, 700)
    runs = []
    for seed in range(seeds):
        runs.append(run(source, seed, seconds, steps))
        print(f"seed {seed}: " + ", ".join(f"{name} {value:.3f}" for name, value in runs[-1][0].items()), flush=True)
    entries = []
    for name in runs[0][0]:
        values = [figures[name] for figures, _, _ in runs]
        must = 0.0 if name.startswith("digits above") else None
        better = "higher" if name.startswith("digits above") else "lower"
        entries.append(Entry(name, statistics.mean(values), unit_of(name), must, better=better))
        if len(values) > 1 and name.startswith("bits/dim,"):
            entries.append(Entry(f"spread over seeds of {name}", statistics.stdev(values), "bits/dim"))
    if not options.quick:
        draw(runs[0][1]["encoder, all tuned"], runs[0][2], source, PICTURE)
    report(entries, options.json)


if __name__ == "__main__":
    main()
